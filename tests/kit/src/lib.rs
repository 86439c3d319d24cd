//! What the integration tests, the simulation, the soak and the benches share: weir processes, an MQTT client and its
//! packets, HTTP, WebSocket, certificates, faults of the operating system, programs of other projects, waits.
//!
//! The kit does not use the crate `weir`: what it sends and reads is written from the standards, so that a mistake of
//! weir's own code is not repeated here.

pub mod certificates;
pub mod http;
pub mod measure;
pub mod mqtt;
pub mod process;
pub mod programs;
pub mod seed;
pub mod shim;
pub mod wait;
pub mod websocket;

use std::path::PathBuf;

/// The root directory of the repository.
pub fn repository() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../..").into()
}
