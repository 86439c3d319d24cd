//! weir: a telemetry appliance in one process.
//!
//! MQTT publishes are appended to a journal, synced, acknowledged, and turned into event-time windows by a
//! deterministic operator. See ARCHITECTURE.md for the map; imports only point down this list.

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
pub mod telemetry;

pub mod clock;
pub mod disk;

pub mod core;

pub mod cursor;
pub mod defects;
pub mod random;
pub mod sync;
