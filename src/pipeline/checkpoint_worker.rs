//! Runs the checkpoint writer: on a thread of its own or, in simulations, on the thread of the pipeline.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::pipeline::checkpoint_writer::{CheckpointJob, CheckpointOutcome, CheckpointWriter};

/// Slices that may wait for the writer. Beyond them the pipeline processes records and offers the next slice later.
const MAX_WAITING_SLICES: usize = 8;

/// Pause between two checks of a writer that is behind, while the pipeline waits for a checkpoint.
const POLL_PAUSE: Duration = Duration::from_millis(2);

/// Does the jobs of checkpoints, in order.
#[derive(Debug)]
pub(super) enum CheckpointWorker {
    /// On a thread beside the pipeline.
    Thread(WriterThread),
    /// In the turns of the pipeline.
    Inline { writer: Box<CheckpointWriter>, outcome: Option<CheckpointOutcome> },
}

/// The thread of the writer. Dropping this value ends the thread.
#[derive(Debug)]
pub(super) struct WriterThread {
    jobs: Option<mpsc::SyncSender<CheckpointJob>>,
    outcomes: mpsc::Receiver<CheckpointOutcome>,
    handle: Option<JoinHandle<()>>,
}

/// Result of waiting for the outcome of a checkpoint.
#[derive(Debug)]
pub(super) enum WorkerWait {
    /// The checkpoint has ended.
    Outcome(CheckpointOutcome),
    /// The checkpoint is still being written.
    NotYet,
    /// The writer's thread has ended.
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
                    // Only a process that ends has nobody who receives the outcome.
                    let _ = sender.send(outcome);
                    writer.wake_pipeline();
                }
            }
        })?;
        Ok(Self::Thread(WriterThread { jobs: Some(jobs), outcomes, handle: Some(handle) }))
    }

    /// A worker that does each job when it is offered.
    pub(super) fn inline(writer: CheckpointWriter) -> Self {
        Self::Inline { writer: Box::new(writer), outcome: None }
    }

    /// Hands over a job, or gives it back where too many jobs wait.
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
                // Waiting for the outcome tells that the thread has ended.
                Ok(()) | Err(mpsc::TrySendError::Disconnected(_)) => Ok(()),
            },
            Self::Thread(_) => Ok(()),
        }
    }

    /// Outcome of the last checkpoint that was handed over. Each is returned once.
    pub(super) fn outcome(&mut self) -> Option<CheckpointOutcome> {
        match self {
            Self::Inline { outcome, .. } => outcome.take(),
            Self::Thread(thread) => thread.outcomes.try_recv().ok(),
        }
    }

    /// Waits a moment for the outcome of a checkpoint.
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
            // The panic hook has reported a panic of the writer.
            let _ = handle.join();
        }
    }
}
