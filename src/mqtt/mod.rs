//! The MQTT door: listener, connections, sessions, subscriptions.

pub mod broker;
