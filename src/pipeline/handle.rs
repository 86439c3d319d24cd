//! How the other parts ask the pipeline.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::Thread;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::core::operator::Operator;
use crate::core::query::{DeviceDetail, DeviceSummary, LastWindow};
use crate::core::totals::{Sizes, Totals};
use crate::pipeline::error::SavepointFailure;
use crate::state::savepoint::SavepointInfo;
use crate::sync::lock;

/// Commands that wait for the pipeline at most; more are refused.
const MAX_COMMANDS: usize = 64;

/// Completed checkpoints that are remembered for the API.
const MAX_CHECKPOINTS: usize = 100;

/// Requests for savepoints that wait at most; one savepoint answers all that wait.
const MAX_SAVEPOINT_REQUESTS: usize = 16;

/// The pipeline did not answer: it has stopped, or is too busy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline does not answer: {0}")]
pub struct Unavailable(pub &'static str);

/// A savepoint that was asked for was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SavepointRefused {
    /// The pipeline has stopped, or too many wait.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It failed.
    #[error("the savepoint was not written: {0}")]
    Failed(Arc<SavepointFailure>),
}

/// Where the one who asked for a savepoint waits.
pub(super) type SavepointReply = oneshot::Sender<WrittenSavepoint>;

/// The savepoint that was asked for, or why it was not written.
pub type WrittenSavepoint = Result<SavepointInfo, Arc<SavepointFailure>>;

/// One completed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CheckpointInfo {
    /// Grows by one per checkpoint, across restarts.
    pub id: u64,
    /// When it was begun, Unix milliseconds.
    pub started_ms: i64,
    /// How long until it was on disk.
    pub duration_ms: u64,
    /// Longest time the pipeline was held up by it, in microseconds.
    pub stall_us: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// Key groups stored.
    pub groups: usize,
    /// Journal position from which a recovery would replay.
    pub replay_from: u64,
    /// Position of the windows log.
    pub windows_position: u64,
    /// Position of the errors log.
    pub errors_position: u64,
}

/// The pipeline's state at the end of the last batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineStatus {
    /// Whether the records found at start have been processed.
    pub caught_up: bool,
    /// Position of the next journal record.
    pub position: u64,
    /// Arrival time of the last batch.
    pub arrival_ms: Option<i64>,
    /// Counts since the journal began.
    pub totals: Totals,
    /// Sizes of the state.
    pub sizes: Sizes,
    /// Newest event time accepted from any device.
    pub newest_event_ms: Option<i64>,
    /// Lowest watermark among devices with open windows.
    pub lowest_watermark_ms: Option<i64>,
    /// Replayed results that differ from what the output logs held: 0 unless weir has a defect.
    pub replay_mismatches: u64,
    /// Journal records that were processed again at start.
    pub replayed_records: u64,
    /// When they were all processed; `None` until then.
    pub caught_up_at: Option<Instant>,
    /// When the last checkpoint completed, Unix milliseconds.
    pub checkpoint_completed_ms: Option<i64>,
    /// The last completed checkpoint.
    pub checkpoint: Option<CheckpointInfo>,
    /// Failures of checkpoints since start.
    pub checkpoint_failures: u64,
    /// Why the last checkpoint failed, if it did.
    pub checkpoint_error: Option<String>,
    /// Why the pipeline stopped, if it did.
    pub failure: Option<String>,
}

/// Something to be done between two batches.
pub(super) type OperatorQuery = Box<dyn FnOnce(&Operator) + Send>;

#[derive(Debug, Default)]
struct PublishedState {
    status: PipelineStatus,
    checkpoints: VecDeque<CheckpointInfo>,
    savepoints: Vec<SavepointInfo>,
}

/// The pipeline's end of what others ask.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) commands: mpsc::Receiver<OperatorQuery>,
    pub(super) savepoints: mpsc::Receiver<SavepointReply>,
}

#[derive(Debug)]
struct PipelineShared {
    published: Mutex<PublishedState>,
    commands: mpsc::SyncSender<OperatorQuery>,
    savepoint_requests: mpsc::SyncSender<SavepointReply>,
    thread: Mutex<Option<Thread>>,
    /// Grows with every turn of the pipeline's loop: the watchdog's food.
    turns: AtomicU64,
}

/// Asks the pipeline between two batches. Clones share it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    shared: Arc<PipelineShared>,
}

impl Pipeline {
    /// A handle, and what the pipeline takes from it.
    pub(super) fn new() -> (Self, Requests) {
        let (commands, commands_receiver) = mpsc::sync_channel(MAX_COMMANDS);
        let (savepoint_requests, savepoints_receiver) = mpsc::sync_channel(MAX_SAVEPOINT_REQUESTS);
        let shared = PipelineShared {
            published: Mutex::default(),
            commands,
            savepoint_requests,
            thread: Mutex::new(None),
            turns: AtomicU64::new(0),
        };
        let requests = Requests { commands: commands_receiver, savepoints: savepoints_receiver };
        (Self { shared: Arc::new(shared) }, requests)
    }

    /// Devices in order of id.
    pub async fn devices(&self, after: Option<String>, limit: usize) -> Result<Vec<DeviceSummary>, Unavailable> {
        self.ask(move |operator| operator.devices(after.as_deref(), limit)).await
    }

    /// One device whole.
    pub async fn device(&self, device_id: String) -> Result<Option<DeviceDetail>, Unavailable> {
        self.ask(move |operator| operator.device(&device_id)).await
    }

    /// Last closed windows of all keys that ended after `since_ms`, and how many are left out.
    pub async fn last_windows(&self, since_ms: i64, limit: usize) -> Result<(Vec<LastWindow>, usize), Unavailable> {
        self.ask(move |operator| operator.last_windows(since_ms, limit)).await
    }

    /// Whether each of these errors was replayed, or counts as replayed.
    pub async fn are_replayed(&self, error_seqs: Vec<u64>) -> Result<Vec<bool>, Unavailable> {
        self.ask(move |operator| operator.are_replayed(&error_seqs)).await
    }

    /// The newest completed checkpoints of this run, newest first.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        lock(&self.shared.published).checkpoints.iter().cloned().collect()
    }

    /// Takes a checkpoint of the state as it is and writes it as a savepoint.
    pub async fn savepoint(&self) -> Result<SavepointInfo, SavepointRefused> {
        let receiver = self.request_savepoint()?;
        let written = receiver.await.map_err(|_| Unavailable("it has stopped"))?;
        written.map_err(SavepointRefused::Failed)
    }

    /// Like [`Pipeline::savepoint`], for those who wait otherwise: the answer comes by the receiver.
    pub fn request_savepoint(&self) -> Result<oneshot::Receiver<WrittenSavepoint>, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.shared.savepoint_requests.try_send(sender).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => Unavailable("too many savepoints are asked for; ask again in a moment"),
            mpsc::TrySendError::Disconnected(_) => Unavailable("it has stopped"),
        })?;
        self.wake();
        Ok(receiver)
    }

    /// The savepoints on disk that can be read, newest first.
    pub fn savepoints(&self) -> Vec<SavepointInfo> {
        lock(&self.shared.published).savepoints.clone()
    }

    /// Changes what [`Pipeline::savepoints`] shows.
    pub(super) fn update_savepoints(&self, savepoints: Vec<SavepointInfo>) {
        lock(&self.shared.published).savepoints = savepoints;
    }

    /// State at the end of the last batch.
    pub fn status(&self) -> PipelineStatus {
        lock(&self.shared.published).status.clone()
    }

    /// Turns of the pipeline's loop so far: a pipeline that is alive takes some every second, whether or not there is
    /// work.
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }

    /// Wakes the pipeline's thread.
    pub(super) fn wake(&self) {
        if let Some(thread) = &*lock(&self.shared.thread) {
            thread.unpark();
        }
    }

    /// Says which thread runs the pipeline.
    pub(super) fn runs_on(&self, thread: Thread) {
        *lock(&self.shared.thread) = Some(thread);
    }

    /// Counts a turn of the loop.
    pub(super) fn turn(&self) {
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes what [`Pipeline::status`] shows.
    pub(super) fn update(&self, change: impl FnOnce(&mut PipelineStatus)) {
        change(&mut lock(&self.shared.published).status);
    }

    /// Adds a completed checkpoint.
    pub(super) fn completed(&self, checkpoint: CheckpointInfo, now_ms: i64) {
        let mut published = lock(&self.shared.published);
        published.status.checkpoint = Some(checkpoint.clone());
        published.status.checkpoint_completed_ms = Some(now_ms);
        published.status.checkpoint_error = None;
        published.checkpoints.push_front(checkpoint);
        published.checkpoints.truncate(MAX_CHECKPOINTS);
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Operator) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        let command: OperatorQuery = Box::new(move |operator| {
            // A caller that went away needs no answer.
            let _ = sender.send(question(operator));
        });
        self.shared.commands.try_send(command).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => Unavailable("too many questions wait for it; ask again in a moment"),
            mpsc::TrySendError::Disconnected(_) => Unavailable("it has stopped"),
        })?;
        self.wake();
        receiver.await.map_err(|_| Unavailable("it has stopped"))
    }
}
