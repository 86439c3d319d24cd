//! The pure core: journal records in, windows and errors out.
//!
//! Nothing here performs I/O, reads a clock, draws random numbers, logs or awaits. Given the same records and
//! settings the effects are the same, byte for byte.

pub mod operator;
pub mod output;
pub mod reason;
pub mod record;
pub mod settings;
