//! The HTTP API, beyond what the tests of other subjects read through it.

mod devices;
mod errors_replay;
mod hosts;
mod tokens;
