//! Journal → core → output logs, with checkpoints beside it.
//!
//! One thread reads the synced part of the journal in order, applies each batch to the operator and hands the effects
//! to the output logs. Nothing else changes state, so results depend on the journal alone.

mod checkpoint;
mod checkpoint_worker;
mod checkpoint_writer;
pub mod handle;
mod limits;
pub mod run;
pub mod savepoints;
mod sink;
pub mod start;
#[cfg(test)]
pub(crate) mod testing;
