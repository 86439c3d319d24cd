//! Brings the pipeline to where it stopped: checkpoint, then the journal from there.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::clock::Clock;
use crate::core::operator::{Operator, RestoreError};
use crate::core::settings::Settings;
use crate::log::{Log, Lsn};
use crate::pipeline::checkpoint::Checkpointer;
use crate::pipeline::checkpoint_writer::Writer;
use crate::pipeline::handle::{Command, Pipeline};
use crate::pipeline::limits::Limits;
use crate::pipeline::sink::Outputs;
use crate::state::manifest::Positions;
use crate::state::store::{Checkpoint, Store};

/// Why the pipeline cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The checkpoint's state cannot be read.
    #[error("checkpoint {id} cannot be restored: {source}")]
    Restore {
        /// The checkpoint.
        id: u64,
        /// Why.
        source: RestoreError,
    },
    /// Records that the state lacks are no longer in the journal.
    #[error(
        "the journal begins at record {first}, but the state reaches only up to {needed}: records between are lost. \
         Restore the data directory from a copy, or move it aside to begin anew"
    )]
    Gap {
        /// First record of the journal.
        first: u64,
        /// First record needed.
        needed: u64,
    },
    /// The checkpoint writer's thread could not be started.
    #[error("the checkpoint writer cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the pipeline is made of.
#[derive(Debug)]
pub struct Parts {
    /// Source.
    pub journal: Log,
    /// Window firings.
    pub windows: Log,
    /// Error entries.
    pub errors: Log,
    /// Checkpoints.
    pub store: Store,
    /// The newest checkpoint, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// Settings from now on.
    pub settings: Settings,
    /// Time between checkpoints.
    pub checkpoint_interval: Duration,
    /// Wall clock, for the times that checkpoints are marked with.
    pub clock: Arc<dyn Clock>,
    /// End of the journal as it was found at start.
    pub recovered_end: Lsn,
}

/// The pipeline, ready to run on a thread.
#[derive(Debug)]
pub struct Runner {
    pub(super) journal: Log,
    pub(super) operator: Operator,
    pub(super) outputs: Outputs,
    pub(super) checkpointer: Checkpointer,
    pub(super) settings: Settings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pipeline: Pipeline,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Journal position of the next record.
    pub(super) position: u64,
    /// Arrival time of the last batch of this run.
    pub(super) arrival_ms: Option<i64>,
    pub(super) limits: Limits,
    /// When the event times were last looked for.
    pub(super) event_time_taken: Option<Instant>,
    /// Journal position up to which this is a recovery.
    pub(super) recovered_end: u64,
}

/// Positions of a checkpoint, or of the beginning.
pub fn positions(checkpoint: Option<&Checkpoint>) -> Positions {
    checkpoint.map_or_else(Positions::default, |checkpoint| checkpoint.manifest.positions)
}

/// Restores the operator and gives the pipeline its handle. Records found in the journal are processed once
/// [`Runner::run`] is called, under the settings they were first processed with.
pub fn prepare(parts: Parts) -> Result<(Runner, Pipeline), StartError> {
    let Parts { journal, windows, errors, store, checkpoint, settings, checkpoint_interval, clock, recovered_end } =
        parts;
    let positions = positions(checkpoint.as_ref());
    let first = journal.stats().first.0;
    if first > positions.replay_from {
        return Err(StartError::Gap { first, needed: positions.replay_from });
    }
    let operator = match &checkpoint {
        None => Operator::new(settings.clone()),
        Some(Checkpoint { manifest, groups }) => {
            let groups = groups.iter().map(|blob| (blob.group, blob.bytes.as_slice()));
            Operator::restore(&manifest.header, groups)
                .map_err(|source| StartError::Restore { id: manifest.id, source })?
        }
    };
    let (pipeline, commands) = Pipeline::new();
    let logs = [journal.clone(), windows.clone(), errors.clone()];
    let writer = Writer::new(store, logs, clock.clone(), pipeline.clone());
    let restored = checkpoint.as_ref().map(|_| positions.replay_from);
    let checkpointer = Checkpointer::start(writer, checkpoint_interval, restored)?;
    let outputs = Outputs::new(windows, positions.windows, errors, positions.errors);
    let position = positions.replay_from;
    let runner = Runner {
        journal,
        operator,
        outputs,
        checkpointer,
        settings,
        clock,
        pipeline: pipeline.clone(),
        commands,
        position,
        arrival_ms: None,
        limits: Limits::new(),
        event_time_taken: None,
        recovered_end: recovered_end.0,
    };
    Ok((runner, pipeline))
}
