//! HTTP: API, health, metrics, live stream.
//!
//! Reads views, puts stored errors into the journal again, and never slows the pipeline: every request is bounded in time, records scanned and bytes, and every
//! kind of waiting has a bound beyond which the answer is 503. docs/http-api.md is the reference.

mod auth;
mod claims;
mod handlers;
mod parameters;
pub mod problem;
pub mod process_status;
mod router;
mod server;
mod state;
mod websocket;

pub use server::{BindError, HttpServer};
pub use state::{HttpResources, ApiState};

#[cfg(test)]
mod tests;
