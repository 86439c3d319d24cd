//! Handlers: one module for each group of paths. Handlers depend on the state, and the state on no handler.

pub(super) mod checkpoints;
pub(super) mod device_metrics;
pub(super) mod devices;
pub(super) mod forget;
pub(super) mod health;
pub(super) mod map_watch;
pub(super) mod maps;
pub(super) mod metrics;
pub(super) mod mqtt_users;
pub(super) mod replay;
pub(super) mod results;
pub(super) mod savepoints;
pub(super) mod status;
pub(super) mod stream;
pub(super) mod topics;
