//! The pipeline's side of checkpoints: when one is due, and encoding the state in slices between batches.
//!
//! The pipeline is not held up by the disk: a worker beside it writes the slices (`checkpoint_worker`,
//! `checkpoint_writer`).

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::core::group::GroupBlob;
use crate::core::operator::Operator;
use crate::pipeline::checkpoint_worker::{CheckpointWorker, WorkerWait};
use crate::pipeline::checkpoint_writer::{CheckpointCompletion, CheckpointJob, CheckpointOutcome};
use crate::pipeline::error::CheckpointError;
use crate::pipeline::handle::SavepointReply;
use crate::state::manifest::Positions;

/// A checkpoint that would store more than came into the journal since the last one is put off, for at most this number
/// of intervals. So the bytes stored stay in proportion to the bytes received, and the records that a recovery replays
/// are few beside the state that it loads.
const MAX_INTERVALS: u32 = 4;

/// Key groups that are encoded in one turn of the pipeline: well below a millisecond of work at 100,000 devices.
const GROUPS_PER_STEP: usize = 16;

#[derive(Debug)]
enum CheckpointPhase {
    Idle,
    /// The state is being encoded. `waiting` holds a slice that the writer has not taken yet.
    Encoding {
        completion: Box<CheckpointCompletion>,
        waiting: Option<Vec<GroupBlob>>,
        encoded: bool,
    },
    /// The writer has all slices.
    Writing {
        replay_from: u64,
    },
}

/// Takes checkpoints of the operator's state.
#[derive(Debug)]
pub(super) struct Checkpointer {
    clock: Arc<dyn Clock>,
    interval: Duration,
    worker: CheckpointWorker,
    phase: CheckpointPhase,
    last_begin: Option<Duration>,
    last_position: Option<u64>,
    /// Bytes that the last checkpoint stored.
    last_bytes: u64,
    /// Bytes of journal batches that were processed since the last checkpoint began.
    journal_bytes: u64,
    /// Requests for a savepoint that are answered by the next checkpoint.
    savepoints: Vec<SavepointReply>,
}

impl Checkpointer {
    /// A checkpointer. `last_position` is the journal position of the checkpoint that was restored.
    pub(super) fn new(
        worker: CheckpointWorker,
        clock: Arc<dyn Clock>,
        interval: Duration,
        last_position: Option<u64>,
    ) -> Self {
        let last_begin = Some(clock.monotonic());
        Self {
            clock,
            interval,
            worker,
            phase: CheckpointPhase::Idle,
            last_begin,
            last_position,
            last_bytes: 0,
            journal_bytes: 0,
            savepoints: Vec::new(),
        }
    }

    /// Counts the bytes of a processed batch.
    pub(super) fn processed(&mut self, journal_bytes: u64) {
        self.journal_bytes += journal_bytes;
    }

    /// Makes the next checkpoint due at once.
    pub(super) fn hasten(&mut self) {
        self.last_begin = None;
    }

    /// Makes a checkpoint due at once that is also written as a savepoint.
    pub(super) fn want_savepoint(&mut self, reply: SavepointReply) {
        self.savepoints.push(reply);
    }

    /// Whether another [`Checkpointer::step`] can be done without waiting for the writer.
    pub(super) fn has_work(&self) -> bool {
        matches!(&self.phase, CheckpointPhase::Encoding { waiting: None, .. })
    }

    /// Whether the state of a checkpoint is still being encoded or handed over.
    pub(super) fn is_encoding(&self) -> bool {
        matches!(&self.phase, CheckpointPhase::Encoding { .. })
    }

    /// Whether the next checkpoint is due: at once where a savepoint is asked for, else after the interval where records
    /// came since the last one.
    pub(super) fn is_due(&self, position: u64) -> bool {
        matches!(self.phase, CheckpointPhase::Idle)
            && (!self.savepoints.is_empty() || self.last_position != Some(position) && self.is_time())
    }

    fn is_time(&self) -> bool {
        let Some(last_begin) = self.last_begin else { return true };
        let elapsed = self.clock.monotonic().saturating_sub(last_begin);
        is_time(elapsed, self.interval, self.journal_bytes, self.last_bytes)
    }

    /// Begins a checkpoint of the state as it is now, between two records.
    pub(super) fn begin(&mut self, operator: &mut Operator, positions: Positions, now_ms: i64) {
        assert!(matches!(self.phase, CheckpointPhase::Idle), "a checkpoint is under way");
        let started = self.clock.monotonic();
        self.last_begin = Some(started);
        self.journal_bytes = 0;
        let header = operator.begin_snapshot();
        let stall = self.clock.monotonic().saturating_sub(started);
        let savepoints = std::mem::take(&mut self.savepoints);
        let completion =
            CheckpointCompletion { started_ms: now_ms, started, positions, header, groups: 0, stall, savepoints };
        self.phase = CheckpointPhase::Encoding { completion: Box::new(completion), waiting: None, encoded: false };
    }

    /// Encodes the next slice and offers it to the writer. Does not wait for a writer that has a thread.
    pub(super) fn step(&mut self, operator: &mut Operator) {
        let CheckpointPhase::Encoding { completion, waiting, encoded } = &mut self.phase else { return };
        if waiting.is_none() && !*encoded {
            let started = self.clock.monotonic();
            let mut blobs = Vec::new();
            *encoded = operator.snapshot_step(GROUPS_PER_STEP, &mut blobs);
            completion.groups += blobs.len();
            completion.stall = completion.stall.max(self.clock.monotonic().saturating_sub(started));
            *waiting = Some(blobs);
        }
        if let Some(blobs) = waiting.take()
            && let Err(CheckpointJob::Groups(blobs)) = self.worker.offer(CheckpointJob::Groups(blobs))
        {
            *waiting = Some(blobs);
            return;
        }
        if *encoded {
            let replay_from = completion.positions.replay_from;
            let completion = std::mem::replace(&mut self.phase, CheckpointPhase::Writing { replay_from });
            self.hand_over(completion);
        }
    }

    fn hand_over(&mut self, phase: CheckpointPhase) {
        let CheckpointPhase::Encoding { completion, .. } = phase else { return };
        if let Err(CheckpointJob::Complete(completion)) = self.worker.offer(CheckpointJob::Complete(completion)) {
            self.phase = CheckpointPhase::Encoding { completion, waiting: None, encoded: true };
        }
    }

    /// Takes note of a checkpoint that the writer has finished.
    ///
    /// # Errors
    /// The store is damaged and cannot be used any more. Other failures are passed over: the next checkpoint may succeed.
    pub(super) fn poll(&mut self, operator: &mut Operator) -> Result<(), Arc<CheckpointError>> {
        let Some(outcome) = self.worker.outcome() else { return Ok(()) };
        self.finished(operator, &outcome);
        match outcome {
            Err(error) if error.is_damage() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn finished(&mut self, operator: &mut Operator, outcome: &CheckpointOutcome) {
        let phase = std::mem::replace(&mut self.phase, CheckpointPhase::Idle);
        match (outcome, phase) {
            (Ok(bytes), CheckpointPhase::Writing { replay_from }) => {
                self.last_position = Some(replay_from);
                self.last_bytes = *bytes;
            }
            _ => operator.snapshot_failed(),
        }
    }

    /// Completes the checkpoint that is under way, then takes one of the present state, unless the first was of it. Waits
    /// for both, for at most `grace`.
    ///
    /// # Errors
    /// A checkpoint failed, or was not on disk in time.
    pub(super) fn finish(
        &mut self,
        operator: &mut Operator,
        positions: Positions,
        now_ms: i64,
        grace: Duration,
    ) -> Result<(), Arc<CheckpointError>> {
        let deadline = self.clock.monotonic() + grace;
        self.drive(operator, deadline)?;
        if self.last_position == Some(positions.replay_from) && self.savepoints.is_empty() {
            return Ok(());
        }
        self.begin(operator, positions, now_ms);
        self.drive(operator, deadline)
    }

    fn drive(&mut self, operator: &mut Operator, deadline: Duration) -> Result<(), Arc<CheckpointError>> {
        while !matches!(self.phase, CheckpointPhase::Idle) {
            self.step(operator);
            if self.has_work() {
                continue;
            }
            match self.worker.wait() {
                WorkerWait::Outcome(outcome) => {
                    self.finished(operator, &outcome);
                    outcome?;
                }
                WorkerWait::Gone => return Err(CheckpointError::WriterStopped.into()),
                WorkerWait::NotYet if self.clock.monotonic() >= deadline => {
                    return Err(CheckpointError::Deadline.into());
                }
                WorkerWait::NotYet => {}
            }
        }
        Ok(())
    }
}

/// Whether a checkpoint is due after this time since the last one, which stored `last_bytes`.
fn is_time(elapsed: Duration, interval: Duration, journal_bytes: u64, last_bytes: u64) -> bool {
    elapsed >= interval && (journal_bytes >= last_bytes || elapsed >= interval * MAX_INTERVALS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_checkpoints_wait_for_the_journal() {
        let check = |elapsed_s: u64, journal_bytes: u64, expected: bool| {
            let (elapsed, interval) = (Duration::from_secs(elapsed_s), Duration::from_secs(5));
            let due = is_time(elapsed, interval, journal_bytes, 1_000);
            assert_eq!(due, expected, "after {elapsed_s} s and {journal_bytes} bytes");
        };
        check(4, 5_000, false);
        check(5, 1_000, true);
        check(5, 999, false);
        check(19, 999, false);
        check(20, 0, true);
    }
}
