//! All commands except `run`, one file or folder each. Each has a function `run` that prints to standard output and
//! returns the exit code.

pub mod api;
pub mod check;
pub mod device;
pub mod errors;
pub mod health;
pub mod journal;
pub mod maps;
pub mod passwd;
pub mod replay;
pub mod savepoint;
pub mod simulate;
mod table;
pub mod token;
pub mod topics;
