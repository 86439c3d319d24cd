//! Builds the pipeline at the point where it stopped: restores the checkpoint, and reads the journal from there.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use thiserror::Error;

use crate::clock::Clock;
use crate::core::operator::Operator;
use crate::core::settings::Settings;
use crate::core::snapshot::RestoreError;
use crate::disk::Disk;
use crate::log::{Log, Lsn};
use crate::pipeline::checkpoint::Checkpointer;
use crate::pipeline::checkpoint_worker::CheckpointWorker;
use crate::pipeline::checkpoint_writer::CheckpointWriter;
use crate::pipeline::handle::Pipeline;
use crate::pipeline::limits::StateLimits;
use crate::pipeline::run::{LoopProgress, Runner};
use crate::pipeline::savepoints::{SavepointManager, SavepointPolicy};
use crate::pipeline::sink::OutputLogs;
use crate::state::checkpoint_store::{Checkpoint, CheckpointStore};
use crate::state::manifest::Positions;
use crate::state::savepoint::SavepointError;

/// Why the pipeline cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The state of the checkpoint cannot be read.
    #[error("checkpoint {id} cannot be restored: {source}")]
    Restore {
        /// Number of the checkpoint.
        id: u64,
        /// Why the state cannot be read.
        source: RestoreError,
    },
    /// The journal no longer has records that are not in the state.
    #[error(
        "the journal begins at record {first}, but the state reaches only up to {needed}: records between are lost. \
         Restore the data directory from a copy, or move it aside to begin anew"
    )]
    Gap {
        /// First record that the journal has.
        first: u64,
        /// First record that is needed.
        needed: u64,
    },
    /// The directory of savepoints cannot be used.
    #[error(transparent)]
    Savepoints(#[from] SavepointError),
    /// The checkpoint writer's thread could not be started.
    #[error("the checkpoint writer cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// Everything that the pipeline is built from.
#[derive(Debug)]
pub struct PipelineResources {
    /// The journal.
    pub journal: Log,
    /// The windows log.
    pub windows: Log,
    /// The errors log.
    pub errors: Log,
    /// The checkpoint store.
    pub store: CheckpointStore,
    /// The newest checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// Settings without a checkpoint, until the journal holds others.
    pub settings: Settings,
    /// Time between checkpoints.
    pub checkpoint_interval: Duration,
    /// When and where savepoints are written.
    pub savepoints: SavepointPolicy,
    /// File system, for savepoints.
    pub disk: Arc<dyn Disk>,
    /// Clock for intervals, and for the times of checkpoints and savepoints.
    pub clock: Arc<dyn Clock>,
    /// Whether the checkpoint writer gets a thread of its own; else it works in the turns of the pipeline.
    pub threads: bool,
    /// End of the journal as it was found at start.
    pub recovered_end: Lsn,
}

/// Positions of a checkpoint; without one, those of the beginning.
pub fn positions(checkpoint: Option<&Checkpoint>) -> Positions {
    checkpoint.map_or_else(Positions::default, |checkpoint| checkpoint.manifest.positions)
}

/// Restores the operator, and returns the pipeline with its handle. [`Runner::run`] processes the records found in the
/// journal, under the settings they were first processed with.
///
/// # Errors
/// The checkpoint cannot be restored, the journal has a gap behind it, or savepoints or thread cannot be set up.
pub fn prepare(parts: PipelineResources) -> Result<(Runner, Pipeline), StartError> {
    let positions = positions(parts.checkpoint.as_ref());
    let first = parts.journal.stats().first.0;
    if first > positions.replay_from {
        return Err(StartError::Gap { first, needed: positions.replay_from });
    }
    let operator = match &parts.checkpoint {
        None => Operator::new(parts.settings),
        Some(Checkpoint { manifest, groups }) => {
            let groups = groups.iter().map(|blob| (blob.group, blob.bytes.as_slice()));
            Operator::restore(&manifest.header, groups)
                .map_err(|source| StartError::Restore { id: manifest.id, source })?
        }
    };
    let (pipeline, requests) = Pipeline::new();
    let (journal, clock) = (parts.journal, parts.clock);
    let logs = [journal.clone(), parts.windows.clone(), parts.errors.clone()];
    let savepoints = SavepointManager::new(parts.disk, clock.clone(), parts.savepoints, pipeline.clone())?;
    let writer = CheckpointWriter::new(parts.store, savepoints, logs, clock.clone(), pipeline.clone());
    let worker = if parts.threads { CheckpointWorker::thread(writer)? } else { CheckpointWorker::inline(writer) };
    let restored = parts.checkpoint.as_ref().map(|_| positions.replay_from);
    let position = positions.replay_from;
    let runner = Runner {
        reader: journal.reader(Lsn(position)),
        journal,
        operator,
        outputs: OutputLogs::new(parts.windows, positions.windows, parts.errors, positions.errors),
        checkpointer: Checkpointer::new(worker, clock.clone(), parts.checkpoint_interval, restored),
        progress: LoopProgress::new(position, clock.monotonic()),
        clock,
        pipeline: pipeline.clone(),
        requests,
        waker: Waker::noop().clone(),
        position,
        arrival_ms: None,
        limits: StateLimits::new(),
        recovered_end: parts.recovered_end.0,
        rebirths: None,
    };
    Ok((runner, pipeline))
}
