//! weir: a telemetry appliance in one process.
//!
//! MQTT publishes are appended to a journal, synced and acknowledged. A deterministic operator turns them into event-time
//! windows. ARCHITECTURE.md has the map of the modules. A module of the list below imports only modules further down; a test
//! (`tests/it/layout.rs`) holds that.

#![forbid(unsafe_code)]

pub mod http;
pub mod mqtt;
pub mod simulator;

pub mod results;

pub mod pipeline;

pub mod client;
pub mod state;

pub mod access;
pub mod tls;

pub mod admission;
pub mod config;
pub mod log;

pub mod clock_jump;
pub mod telemetry;

pub mod clock;
pub mod disk;

pub mod core;

pub mod cursor;
pub mod defects;
pub mod random;
pub mod stall;
pub mod sync;
pub mod token_bucket;
