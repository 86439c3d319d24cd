//! Processes the journal: one thread reads its synced part in order, applies each batch to the operator and appends the
//! results to the output logs. Checkpoints are taken beside that.
//!
//! Nothing else changes the operator's state, so that results depend on the journal alone. What results are is decided in
//! `core`.

mod checkpoint;
mod checkpoint_worker;
mod checkpoint_writer;
pub mod error;
pub mod handle;
mod limits;
pub mod map_watch;
pub mod run;
pub mod savepoints;
mod sink;
pub mod start;
#[cfg(test)]
pub(crate) mod testing;
