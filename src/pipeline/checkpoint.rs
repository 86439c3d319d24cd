//! Takes checkpoints without holding up the pipeline: state is encoded in slices between batches and written by a
//! thread of its own.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::core::operator::{GroupBlob, Operator};
use crate::pipeline::checkpoint_writer::{Completion, Job, Outcome, Writer};
use crate::state::manifest::Positions;

/// Key groups encoded in one turn of the pipeline: well below a millisecond of work at 100,000 devices.
const GROUPS_PER_STEP: usize = 16;

/// Slices that wait for the writer at most; then the pipeline goes on with records and offers the next one later.
const MAX_WAITING_SLICES: usize = 8;

/// Pause between two looks at a writer that is behind, when a checkpoint is waited for.
const POLL_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug)]
enum Phase {
    Idle,
    /// State is being encoded; slices that the writer has not taken yet wait here.
    Encoding {
        completion: Box<Completion>,
        waiting: Option<Vec<GroupBlob>>,
        encoded: bool,
    },
    /// The writer has everything.
    Writing {
        replay_from: u64,
    },
}

/// The pipeline's side of checkpoints.
#[derive(Debug)]
pub(super) struct Checkpointer {
    interval: Duration,
    jobs: Option<mpsc::SyncSender<Job>>,
    outcomes: mpsc::Receiver<Outcome>,
    worker: Option<JoinHandle<()>>,
    phase: Phase,
    last_begin: Instant,
    last_position: Option<u64>,
}

impl Checkpointer {
    /// Starts the writer's thread. `last_position`: the journal position of the checkpoint that was restored.
    pub(super) fn start(mut writer: Writer, interval: Duration, last_position: Option<u64>) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::sync_channel(MAX_WAITING_SLICES);
        let (sender, outcomes) = mpsc::sync_channel(1);
        let worker = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
            while let Ok(job) = receiver.recv() {
                if let Some(outcome) = writer.work(job) {
                    // Nobody listens any more only while the process ends.
                    let _ = sender.send(outcome);
                    writer.wake_pipeline();
                }
            }
        })?;
        Ok(Self {
            interval,
            jobs: Some(jobs),
            outcomes,
            worker: Some(worker),
            phase: Phase::Idle,
            last_begin: Instant::now(),
            last_position,
        })
    }

    /// Whether a recovery would find a checkpoint.
    pub(super) fn has_checkpoint(&self) -> bool {
        self.last_position.is_some()
    }

    /// Whether another [`Checkpointer::step`] would get on.
    pub(super) fn has_work(&self) -> bool {
        matches!(&self.phase, Phase::Encoding { waiting: None, .. })
    }

    /// Whether slices wait for the writer.
    pub(super) fn is_encoding(&self) -> bool {
        matches!(&self.phase, Phase::Encoding { .. })
    }

    /// Whether it is time for the next one, and records came since the last.
    pub(super) fn is_due(&self, position: u64) -> bool {
        matches!(self.phase, Phase::Idle)
            && self.last_begin.elapsed() >= self.interval
            && self.last_position != Some(position)
    }

    /// Takes the state as it is at this record boundary.
    pub(super) fn begin(&mut self, operator: &mut Operator, positions: Positions, now_ms: i64) {
        assert!(matches!(self.phase, Phase::Idle), "a checkpoint is under way");
        let started = Instant::now();
        self.last_begin = started;
        let header = operator.begin_snapshot();
        let stall = started.elapsed();
        let completion = Completion { started_ms: now_ms, started, positions, header, groups: 0, stall };
        self.phase = Phase::Encoding { completion: Box::new(completion), waiting: None, encoded: false };
    }

    /// Encodes the next slice and offers it to the writer. Never waits.
    pub(super) fn step(&mut self, operator: &mut Operator) {
        let Phase::Encoding { completion, waiting, encoded } = &mut self.phase else { return };
        let Some(jobs) = &self.jobs else { return };
        if waiting.is_none() && !*encoded {
            let started = Instant::now();
            let mut blobs = Vec::new();
            *encoded = operator.snapshot_step(GROUPS_PER_STEP, &mut blobs);
            completion.groups += blobs.len();
            completion.stall = completion.stall.max(started.elapsed());
            *waiting = Some(blobs);
        }
        if let Some(blobs) = waiting.take()
            && let Err(mpsc::TrySendError::Full(Job::Groups(blobs))) = jobs.try_send(Job::Groups(blobs))
        {
            *waiting = Some(blobs);
            return;
        }
        if *encoded {
            let replay_from = completion.positions.replay_from;
            let completion = std::mem::replace(&mut self.phase, Phase::Writing { replay_from });
            self.hand_over(completion);
        }
    }

    fn hand_over(&mut self, phase: Phase) {
        let (Phase::Encoding { completion, .. }, Some(jobs)) = (phase, &self.jobs) else { return };
        if let Err(mpsc::TrySendError::Full(Job::Complete(completion))) = jobs.try_send(Job::Complete(completion)) {
            self.phase = Phase::Encoding { completion, waiting: None, encoded: true };
        }
    }

    /// Looks whether the writer has finished.
    pub(super) fn poll(&mut self, operator: &mut Operator) {
        if let Ok(outcome) = self.outcomes.try_recv() {
            self.finished(operator, &outcome);
        }
    }

    fn finished(&mut self, operator: &mut Operator, outcome: &Outcome) {
        let phase = std::mem::replace(&mut self.phase, Phase::Idle);
        match (outcome, phase) {
            (Ok(()), Phase::Writing { replay_from }) => self.last_position = Some(replay_from),
            _ => operator.snapshot_failed(),
        }
    }

    /// Completes the checkpoint under way, then one of this state, and waits for both until `deadline`.
    pub(super) fn finish(
        &mut self,
        operator: &mut Operator,
        positions: Positions,
        now_ms: i64,
        deadline: Instant,
    ) -> Outcome {
        self.drive(operator, deadline)?;
        if self.last_position == Some(positions.replay_from) {
            return Ok(());
        }
        self.take(operator, positions, now_ms, deadline)
    }

    /// Takes a checkpoint of this state, whatever the last one holds, and waits for it until `deadline`. None may be
    /// under way.
    pub(super) fn take(
        &mut self,
        operator: &mut Operator,
        positions: Positions,
        now_ms: i64,
        deadline: Instant,
    ) -> Outcome {
        self.begin(operator, positions, now_ms);
        self.drive(operator, deadline)
    }

    fn drive(&mut self, operator: &mut Operator, deadline: Instant) -> Outcome {
        while !matches!(self.phase, Phase::Idle) {
            self.step(operator);
            if self.has_work() {
                continue;
            }
            match self.outcomes.recv_timeout(POLL_PAUSE) {
                Ok(outcome) => {
                    self.finished(operator, &outcome);
                    outcome?;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err("its writer has stopped".into()),
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    return Err("it was not on disk by the deadline".into());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(worker) = self.worker.take() {
            // A panic of the writer has been reported by the panic hook.
            let _ = worker.join();
        }
    }
}
