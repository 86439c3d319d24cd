//! The HTTP API, beyond what the tests of other subjects read through it.

mod errors_replay;
mod hosts;
mod tokens;
