//! HTTP: the API, health, metrics, event streams and MQTT over WebSocket. docs/http-api.md is the reference.
//!
//! The API reads what other parts publish, and puts stored errors into the journal again. It never slows the pipeline:
//! every request is bounded in time, in records read and in bytes, and where a bound is reached the answer is 503.
//!
//! Imports go one way: `handlers` use the state, `router` uses the handlers, `server` uses the router. Reading the output
//! logs is not done here but in `results`.

mod auth;
mod authority;
mod claims;
mod connections;
mod exposition;
mod handlers;
mod hosts;
mod idleness;
mod limits;
mod paced_answer;
mod parameters;
mod places;
pub mod problem;
pub mod process_status;
mod rates;
mod received_body;
mod router;
mod scans;
mod server;
mod stall_timer;
mod state;
mod transport;
mod websocket;

pub use server::{BindError, HttpServer};
pub use state::{ApiState, HttpResources};

#[cfg(test)]
mod tests;
