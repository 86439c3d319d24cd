//! Why checkpoints and savepoints fail.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::log::LogError;
use crate::state::StateError;
use crate::state::savepoint::SavepointError;

/// Why a checkpoint was not taken. Unless the store is damaged, the next one may succeed.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// An output log could not be synced.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store did not take the checkpoint.
    #[error(transparent)]
    State(#[from] StateError),
    /// The thread of the checkpoint writer ended.
    #[error("its writer has stopped")]
    WriterStopped,
    /// The time that an orderly stop has for the last checkpoint is over.
    #[error("it was not on disk by the deadline")]
    Deadline,
}

impl CheckpointError {
    /// Whether the store is unusable, so that only a start can replace it.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::State(error) if error.is_damage())
    }
}

/// Why a savepoint that was asked for was not written. One failure answers all requests that waited for it.
#[derive(Debug, Error)]
pub enum SavepointFailure {
    /// The checkpoint that it would be a copy of failed.
    #[error("the checkpoint failed: {0}")]
    Checkpoint(Arc<CheckpointError>),
    /// There are as many as may be asked for.
    #[error("{} holds {count} savepoints that were asked for: remove some of them first", directory.display())]
    TooMany {
        /// Directory of the savepoints.
        directory: PathBuf,
        /// How many it holds.
        count: usize,
    },
    /// Its file could not be written.
    #[error(transparent)]
    Write(#[from] SavepointError),
}
