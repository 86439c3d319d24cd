//! Logging and metrics of weir itself.

pub mod audit;
pub mod logging;
pub mod names;
pub mod process;
pub mod recorder;
