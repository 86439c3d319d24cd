//! Where the checkpoint writer runs: on a thread of its own, or, for simulations, on the pipeline's.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::pipeline::checkpoint_writer::{CheckpointJob, CheckpointOutcome, CheckpointWriter};

/// Slices that wait for the writer at most; then the pipeline goes on with records and offers the next one later.
const MAX_WAITING_SLICES: usize = 8;

/// Pause between two looks at a writer that is behind, when a checkpoint is waited for.
const POLL_PAUSE: Duration = Duration::from_millis(2);

/// The one who does the jobs, in their order.
#[derive(Debug)]
pub(super) enum CheckpointWorker {
    /// Beside the pipeline.
    Thread(WriterThread),
    /// In the pipeline's own turns.
    Inline { writer: Box<CheckpointWriter>, outcome: Option<CheckpointOutcome> },
}

/// The writer's thread; it ends with this value.
#[derive(Debug)]
pub(super) struct WriterThread {
    jobs: Option<mpsc::SyncSender<CheckpointJob>>,
    outcomes: mpsc::Receiver<CheckpointOutcome>,
    handle: Option<JoinHandle<()>>,
}

/// What waiting for an outcome came to.
#[derive(Debug)]
pub(super) enum WorkerWait {
    Outcome(CheckpointOutcome),
    NotYet,
    Gone,
}

impl CheckpointWorker {
    /// Starts a thread for `writer`.
    pub(super) fn thread(mut writer: CheckpointWriter) -> std::io::Result<Self> {
        let (jobs, receiver) = mpsc::sync_channel(MAX_WAITING_SLICES);
        let (sender, outcomes) = mpsc::sync_channel(1);
        let handle = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
            while let Ok(job) = receiver.recv() {
                if let Some(outcome) = writer.work(job) {
                    // Nobody listens any more only while the process ends.
                    let _ = sender.send(outcome);
                    writer.wake_pipeline();
                }
            }
        })?;
        Ok(Self::Thread(WriterThread { jobs: Some(jobs), outcomes, handle: Some(handle) }))
    }

    /// Lets `writer` work when it is offered something.
    pub(super) fn inline(writer: CheckpointWriter) -> Self {
        Self::Inline { writer: Box::new(writer), outcome: None }
    }

    /// Hands over a job, or gives it back where too many wait.
    pub(super) fn offer(&mut self, job: CheckpointJob) -> Result<(), CheckpointJob> {
        match self {
            Self::Inline { writer, outcome } => {
                if let Some(done) = writer.work(job) {
                    *outcome = Some(done);
                }
                Ok(())
            }
            Self::Thread(WriterThread { jobs: Some(jobs), .. }) => match jobs.try_send(job) {
                Err(mpsc::TrySendError::Full(job)) => Err(job),
                // Waiting for the outcome will say that nobody is there.
                Ok(()) | Err(mpsc::TrySendError::Disconnected(_)) => Ok(()),
            },
            Self::Thread(_) => Ok(()),
        }
    }

    /// The outcome of the last checkpoint handed over, once.
    pub(super) fn outcome(&mut self) -> Option<CheckpointOutcome> {
        match self {
            Self::Inline { outcome, .. } => outcome.take(),
            Self::Thread(thread) => thread.outcomes.try_recv().ok(),
        }
    }

    /// Waits a moment for the outcome.
    pub(super) fn wait(&mut self) -> WorkerWait {
        match self {
            Self::Inline { outcome, .. } => outcome.take().map_or(WorkerWait::NotYet, WorkerWait::Outcome),
            Self::Thread(thread) => match thread.outcomes.recv_timeout(POLL_PAUSE) {
                Ok(outcome) => WorkerWait::Outcome(outcome),
                Err(mpsc::RecvTimeoutError::Timeout) => WorkerWait::NotYet,
                Err(mpsc::RecvTimeoutError::Disconnected) => WorkerWait::Gone,
            },
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            // A panic of the writer has been reported by the panic hook.
            let _ = handle.join();
        }
    }
}
