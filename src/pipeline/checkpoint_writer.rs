//! Writes checkpoints to disk, has savepoints written, and frees the parts of the logs that are no longer needed.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::clock::Clock;
use crate::core::group::GroupBlob;
use crate::defects::{self, Defect};
use crate::log::{Log, Lsn};
use crate::pipeline::error::{CheckpointError, SavepointFailure};
use crate::pipeline::handle::{CheckpointInfo, Pipeline, SavepointReply, WrittenSavepoint};
use crate::pipeline::savepoints::SavepointManager;
use crate::state::checkpoint_store::CheckpointStore;
use crate::state::manifest::Positions;
use crate::telemetry::names;

/// A job that the pipeline hands over.
#[derive(Debug)]
pub(super) enum CheckpointJob {
    /// Encoded key groups of the checkpoint that is under way.
    Groups(Vec<GroupBlob>),
    /// The checkpoint has all its groups and is to be completed.
    Complete(Box<CheckpointCompletion>),
}

/// The parts of a checkpoint besides its groups.
#[derive(Debug)]
pub(super) struct CheckpointCompletion {
    /// When the checkpoint began, Unix milliseconds.
    pub(super) started_ms: i64,
    /// When the checkpoint began, on the monotonic clock.
    pub(super) started: Duration,
    pub(super) positions: Positions,
    pub(super) header: Vec<u8>,
    pub(super) groups: usize,
    pub(super) stall: Duration,
    /// Requests for a savepoint of this state.
    pub(super) savepoints: Vec<SavepointReply>,
}

/// The bytes that a checkpoint stored, or why it was not taken.
pub(super) type CheckpointOutcome = Result<u64, Arc<CheckpointError>>;

/// Writes checkpoints, and frees what they make unnecessary.
#[derive(Debug)]
pub(super) struct CheckpointWriter {
    store: CheckpointStore,
    savepoints: SavepointManager,
    journal: Log,
    windows: Log,
    errors: Log,
    clock: Arc<dyn Clock>,
    pipeline: Pipeline,
    failure: Option<CheckpointError>,
}

impl CheckpointWriter {
    pub(super) fn new(
        store: CheckpointStore,
        savepoints: SavepointManager,
        [journal, windows, errors]: [Log; 3],
        clock: Arc<dyn Clock>,
        pipeline: Pipeline,
    ) -> Self {
        Self { store, savepoints, journal, windows, errors, clock, pipeline, failure: None }
    }

    pub(super) fn wake_pipeline(&self) {
        self.pipeline.wake();
    }

    /// Does one job. Returns the outcome with the last job of a checkpoint.
    pub(super) fn work(&mut self, job: CheckpointJob) -> Option<CheckpointOutcome> {
        match job {
            CheckpointJob::Groups(blobs) => {
                if self.failure.is_none() {
                    self.failure = self.store.put_groups(&blobs).err().map(CheckpointError::from);
                }
                None
            }
            CheckpointJob::Complete(mut completion) => {
                let replies = std::mem::take(&mut completion.savepoints);
                let outcome = match self.failure.take() {
                    Some(failure) => Err(failure),
                    None => self.complete(*completion),
                };
                let outcome = outcome.map_err(Arc::new);
                match &outcome {
                    Ok(_) => self.after(replies),
                    Err(error) => {
                        self.failed(error);
                        answer(replies, &Err(Arc::new(SavepointFailure::Checkpoint(Arc::clone(error)))));
                    }
                }
                Some(outcome)
            }
        }
    }

    /// Writes the savepoints that are due, and frees the journal that neither checkpoint nor savepoints need.
    fn after(&mut self, replies: Vec<SavepointReply>) {
        if !replies.is_empty() {
            answer(replies, &self.savepoints.write_manual(&self.store).map_err(Arc::new));
        }
        let position = self.savepoints.after_checkpoint(&self.store, &self.journal);
        self.journal.release(Lsn(position));
    }

    /// Completes a checkpoint. The order matters: the output logs are synced before the manifest states their positions,
    /// so that no restored state is ahead of the results on disk; results are released after the manifest is on disk.
    fn complete(&mut self, completion: CheckpointCompletion) -> Result<u64, CheckpointError> {
        let CheckpointCompletion { started_ms, started, positions, header, groups, stall, .. } = completion;
        let skips = defects::is(Defect::CheckpointBeforeOutputs);
        let sync = |log: &Log| if skips { Ok(log.stats().appended) } else { log.sync() };
        let synced = sync(&self.windows).and_then(|windows| Ok((windows, sync(&self.errors)?)));
        let (windows, errors) = synced?;
        assert!(windows.0 >= positions.windows && errors.0 >= positions.errors, "synced less than was appended");
        let (id, bytes) = self.store.complete(started_ms, positions, header)?;
        self.windows.release(Lsn(positions.windows));
        self.errors.release(Lsn(positions.errors));
        let duration = self.clock.monotonic().saturating_sub(started);
        counter!(names::CHECKPOINTS).increment(1);
        counter!(names::CHECKPOINT_WRITTEN_BYTES).increment(bytes);
        gauge!(names::CHECKPOINT_BYTES).set(bytes as f64);
        histogram!(names::CHECKPOINT_SECONDS).record(duration.as_secs_f64());
        histogram!(names::CHECKPOINT_STALL_SECONDS).record(stall.as_secs_f64());
        if let Ok(bytes) = self.store.disk_bytes() {
            gauge!(names::STATE_DISK_BYTES).set(bytes as f64);
        }
        tracing::debug!(id, groups, bytes, ?duration, ?stall, "checkpoint completed");
        let info = CheckpointInfo {
            id,
            started_ms,
            duration_ms: duration.as_millis() as u64,
            stall_us: stall.as_micros() as u64,
            bytes,
            groups,
            replay_from: positions.replay_from,
            windows_position: positions.windows,
            errors_position: positions.errors,
        };
        self.pipeline.completed(info, self.clock.now_ms());
        Ok(bytes)
    }

    fn failed(&mut self, error: &CheckpointError) {
        self.store.abandon();
        counter!(names::CHECKPOINT_FAILURES).increment(1);
        tracing::error!(%error, "checkpoint failed; the journal is kept until one succeeds");
        self.pipeline.update(|status| {
            status.checkpoint_failures += 1;
            status.checkpoint_error = Some(error.to_string());
        });
    }
}

/// Answers requests. A requester that went away needs no answer.
fn answer(replies: Vec<SavepointReply>, written: &WrittenSavepoint) {
    for reply in replies {
        let _ = reply.send(written.clone());
    }
}
