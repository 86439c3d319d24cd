//! Logging and metrics of weir itself.

pub mod names;
