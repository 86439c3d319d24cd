//! HTTP: API, health, metrics, live stream.
//!
//! Reads views, puts stored errors into the journal again, and never slows the pipeline: every request is bounded in time, records scanned and bytes, and every
//! kind of waiting has a bound beyond which the answer is 503. docs/http-api.md is the reference.

mod auth;
mod checkpoints;
mod device_metrics;
mod devices;
mod health;

mod metrics;
mod parameters;
pub mod problem;
mod replay;
mod results;
mod router;
mod savepoints;
mod server;
pub mod source;
mod state;
mod status;
mod stream;
mod websocket;

pub use server::{BindError, Server};
pub use state::{Parts, State};

#[cfg(test)]
mod tests;
