//! The pure core: journal records in, windows and errors out.
//!
//! Nothing here performs I/O, reads a clock, draws random numbers that matter, logs or awaits. Given the same records and
//! settings the effects are the same, byte for byte.

pub mod operator;
pub mod output;
pub mod reason;
pub mod record;
pub mod recorded;
pub mod settings;

mod aggregate;
mod assign;
mod batch;
mod client;
pub(crate) mod codec;
mod decode;
mod dedup;
mod device;
mod firing;
mod group;
mod hash;
mod idle;
mod ingest;
mod json;
mod lifetime;
mod query;
mod registry;
mod replay;
mod side_output;
mod snapshot;
mod timestamp;
mod topic;
mod validate;
mod watermark;
mod window;

#[cfg(test)]
mod tests;
