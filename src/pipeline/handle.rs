//! The interface of the pipeline for other parts: its status, questions to the operator, requests for savepoints.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::core::formats::{EdgeNodeView, MapMemorySizes, MapSettings, SparkplugTotals};
use crate::core::map_activity::MapActivity;
use crate::core::map_view::MapView;
use crate::core::operator::Operator;
use crate::core::query::{DeviceDetail, DeviceFacts, DeviceSummary, LastWindow};
use crate::core::replay_effects::ReplayEffect;
use crate::core::selection::{DeviceFilter, DeviceOrder};
use crate::core::totals::{Sizes, Totals};
use crate::pipeline::error::SavepointFailure;
use crate::state::savepoint::SavepointInfo;
use crate::sync::lock;

/// Questions that may wait for the pipeline. More are refused.
const MAX_QUERIES: usize = 64;

/// Time between two looks at the position that the pipeline has reached.
const PROCESSED_POLL: Duration = Duration::from_millis(10);

/// Number of completed checkpoints that are kept for the API.
const MAX_CHECKPOINTS: usize = 100;

/// Requests for savepoints that may wait. One savepoint answers all of them.
const MAX_SAVEPOINT_REQUESTS: usize = 16;

/// The pipeline did not answer: it has stopped, or is too busy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline does not answer: {0}")]
pub struct Unavailable(pub &'static str);

/// Why a savepoint that was asked for was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SavepointRefused {
    /// The pipeline has stopped, or too many requests wait.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Writing the savepoint failed.
    #[error("the savepoint was not written: {0}")]
    Failed(Arc<SavepointFailure>),
}

/// Sends the answer to a request for a savepoint.
pub(super) type SavepointReply = oneshot::Sender<SavepointAnswer>;

/// The savepoint that was asked for, or why it was not written.
pub type SavepointAnswer = Result<SavepointInfo, Arc<SavepointFailure>>;

/// One completed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CheckpointInfo {
    /// Number of the checkpoint. It grows by one per checkpoint, across restarts.
    pub id: u64,
    /// When the checkpoint began, Unix milliseconds.
    pub started_ms: i64,
    /// Time until the checkpoint was on disk, in milliseconds.
    pub duration_ms: u64,
    /// Longest time that the checkpoint held up the pipeline, in microseconds.
    pub stall_us: u64,
    /// Bytes that were stored.
    pub bytes: u64,
    /// Number of key groups that were stored.
    pub groups: usize,
    /// Journal position from which a recovery replays.
    pub replay_from: u64,
    /// Position of the windows log at the checkpoint.
    pub windows_position: u64,
    /// Position of the errors log at the checkpoint.
    pub errors_position: u64,
}

/// Status of the pipeline at the end of the last batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PipelineStatus {
    /// Whether the records found at start have been processed.
    pub caught_up: bool,
    /// Position of the next journal record.
    pub position: u64,
    /// Arrival time of the last batch, Unix milliseconds.
    pub arrival_ms: Option<i64>,
    /// Journal times from which and to which the clock was last set back.
    pub set_back: Option<(i64, i64)>,
    /// Counts since the journal began.
    pub totals: Totals,
    /// Sizes of the state.
    pub sizes: Sizes,
    /// Newest event time accepted from any device.
    pub newest_event_ms: Option<i64>,
    /// Lowest watermark among devices with open windows.
    pub lowest_watermark_ms: Option<i64>,
    /// Number of replayed results that differ from those in the output logs: 0 unless weir has a defect.
    pub replay_mismatches: u64,
    /// Number of journal records that were processed again at start.
    pub replayed_records: u64,
    /// When the records found at start were all processed; `None` until then.
    pub caught_up_at: Option<Instant>,
    /// When the last checkpoint completed, Unix milliseconds.
    pub checkpoint_completed_ms: Option<i64>,
    /// The last completed checkpoint.
    pub checkpoint: Option<CheckpointInfo>,
    /// Number of checkpoints that failed since start.
    pub checkpoint_failures: u64,
    /// Why the last checkpoint failed, if it failed.
    pub checkpoint_error: Option<String>,
    /// Why the pipeline stopped, if it stopped.
    pub failure: Option<String>,
}

/// A question that the pipeline answers between two batches.
pub(super) type OperatorQuery = Box<dyn FnOnce(&Operator) + Send>;

#[derive(Debug, Default)]
struct PublishedState {
    status: PipelineStatus,
    checkpoints: VecDeque<CheckpointInfo>,
    savepoints: Vec<SavepointInfo>,
}

/// Receiving ends of questions and requests, which the pipeline holds.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) queries: mpsc::Receiver<OperatorQuery>,
    pub(super) savepoints: mpsc::Receiver<SavepointReply>,
}

#[derive(Debug)]
struct PipelineShared {
    published: Mutex<PublishedState>,
    queries: mpsc::SyncSender<OperatorQuery>,
    savepoint_requests: mpsc::SyncSender<SavepointReply>,
    thread: Mutex<Option<Thread>>,
    /// Number of turns of the pipeline's loop. The watchdog is fed only while it grows.
    turns: AtomicU64,
}

/// A handle of the pipeline. Clones share the pipeline.
#[derive(Debug, Clone)]
pub struct Pipeline {
    shared: Arc<PipelineShared>,
}

impl Pipeline {
    /// A handle, and the receiving ends for the pipeline.
    pub(super) fn new() -> (Self, Requests) {
        let (queries, queries_receiver) = mpsc::sync_channel(MAX_QUERIES);
        let (savepoint_requests, savepoints_receiver) = mpsc::sync_channel(MAX_SAVEPOINT_REQUESTS);
        let shared = PipelineShared {
            published: Mutex::default(),
            queries,
            savepoint_requests,
            thread: Mutex::new(None),
            turns: AtomicU64::new(0),
        };
        let requests = Requests { queries: queries_receiver, savepoints: savepoints_receiver };
        (Self { shared: Arc::new(shared) }, requests)
    }

    /// Up to `limit` devices that `filter` selects; see [`Operator::select_devices`].
    ///
    /// # Errors
    /// [`Unavailable`] where the pipeline has stopped or too many questions wait; so in the methods below.
    pub async fn devices(
        &self,
        filter: DeviceFilter,
        order: DeviceOrder,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<DeviceSummary>, Unavailable> {
        self.ask(move |operator| operator.select_devices(&filter, order, after.as_deref(), limit)).await
    }

    /// Ids of up to `limit` devices that `filter` selects, in order of id.
    pub async fn device_ids(&self, filter: DeviceFilter, limit: usize) -> Result<Vec<String>, Unavailable> {
        self.ask(move |operator| operator.select_ids(&filter, limit)).await
    }

    /// The maps, each with what became of its messages, in the order of the settings.
    pub async fn maps(&self) -> Result<Vec<(MapSettings, MapActivity)>, Unavailable> {
        let both = |operator: &Operator| {
            operator.settings().maps.iter().cloned().zip(operator.map_activities().iter().cloned()).collect()
        };
        self.ask(both).await
    }

    /// The maps as they are now, with a copy of what they remember.
    pub async fn map_view(&self) -> Result<MapView, Unavailable> {
        self.ask(Operator::map_view).await
    }

    /// What became of the messages of each map, in the order of the settings.
    pub async fn map_activities(&self) -> Result<Vec<MapActivity>, Unavailable> {
        self.ask(|operator| operator.map_activities().to_vec()).await
    }

    /// Edge nodes of Sparkplug B, those first of which most messages were missing, at most `most`; and the number of all.
    pub async fn edge_nodes(&self, most: usize) -> Result<(Vec<EdgeNodeView>, usize), Unavailable> {
        self.ask(move |operator| {
            let memory = operator.map_memory();
            (memory.edge_nodes(most), memory.sizes().nodes)
        })
        .await
    }

    /// Sizes of what maps remember, and counts of all edge nodes of Sparkplug B.
    pub async fn map_memory(&self) -> Result<(MapMemorySizes, SparkplugTotals), Unavailable> {
        self.ask(|operator| (operator.map_memory().sizes(), operator.map_memory().totals())).await
    }

    /// Whether each of these devices is known.
    pub async fn are_known(&self, device_ids: Vec<String>) -> Result<Vec<bool>, Unavailable> {
        self.ask(move |operator| operator.are_known(&device_ids)).await
    }

    /// Waits until the journal record at `position` is processed, and therefore synced.
    ///
    /// # Errors
    /// [`Unavailable`] where the pipeline has stopped.
    pub async fn wait_processed(&self, position: u64) -> Result<(), Unavailable> {
        loop {
            {
                let status = &lock(&self.shared.published).status;
                if status.position > position {
                    return Ok(());
                }
                if status.failure.is_some() {
                    return Err(Unavailable("it has stopped"));
                }
            }
            tokio::time::sleep(PROCESSED_POLL).await;
        }
    }

    /// One device with its series, if it is known.
    pub async fn device(&self, device_id: String) -> Result<Option<DeviceDetail>, Unavailable> {
        self.ask(move |operator| operator.device(&device_id)).await
    }

    /// The last closed windows of all series that ended after `since_ms`, and how many more there are than `limit`.
    pub async fn last_windows(&self, since_ms: i64, limit: usize) -> Result<(Vec<LastWindow>, usize), Unavailable> {
        self.ask(move |operator| operator.last_windows(since_ms, limit)).await
    }

    /// Facts about up to `limit` devices, and how many more there are; see [`Operator::device_facts`].
    pub async fn device_facts(&self, limit: usize) -> Result<(Vec<DeviceFacts>, usize), Unavailable> {
        self.ask(move |operator| operator.device_facts(limit)).await
    }

    /// Whether each of these errors was replayed, or counts as replayed.
    pub async fn are_replayed(&self, error_seqs: Vec<u64>) -> Result<Vec<bool>, Unavailable> {
        self.ask(move |operator| operator.are_replayed(&error_seqs)).await
    }

    /// Whether each of these errors was replayed, and what became of it, if that is remembered.
    pub async fn replay_effects(&self, error_seqs: Vec<u64>) -> Result<Vec<(bool, Option<ReplayEffect>)>, Unavailable> {
        let effects = move |operator: &Operator| {
            operator.are_replayed(&error_seqs).into_iter().zip(operator.replay_effects(&error_seqs)).collect()
        };
        self.ask(effects).await
    }

    /// The newest completed checkpoints of this run, newest first.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        lock(&self.shared.published).checkpoints.iter().cloned().collect()
    }

    /// Takes a checkpoint of the present state and writes it as a savepoint. Returns when it is on disk.
    ///
    /// # Errors
    /// The pipeline is not available, or writing failed.
    pub async fn savepoint(&self) -> Result<SavepointInfo, SavepointRefused> {
        let receiver = self.request_savepoint()?;
        let written = receiver.await.map_err(|_| Unavailable("it has stopped"))?;
        written.map_err(SavepointRefused::Failed)
    }

    /// Asks for a savepoint as [`Pipeline::savepoint`] does, without waiting: the answer comes by the receiver.
    ///
    /// # Errors
    /// [`Unavailable`] where the pipeline has stopped or too many requests wait.
    pub fn request_savepoint(&self) -> Result<oneshot::Receiver<SavepointAnswer>, Unavailable> {
        let (sender, receiver) = oneshot::channel();
        self.shared.savepoint_requests.try_send(sender).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => Unavailable("too many savepoints are asked for; ask again in a moment"),
            mpsc::TrySendError::Disconnected(_) => Unavailable("it has stopped"),
        })?;
        self.wake();
        Ok(receiver)
    }

    /// Readable savepoints on disk, newest first.
    pub fn savepoints(&self) -> Vec<SavepointInfo> {
        lock(&self.shared.published).savepoints.clone()
    }

    /// Replaces the list that [`Pipeline::savepoints`] returns.
    pub(super) fn update_savepoints(&self, savepoints: Vec<SavepointInfo>) {
        lock(&self.shared.published).savepoints = savepoints;
    }

    /// Status at the end of the last batch.
    pub fn status(&self) -> PipelineStatus {
        lock(&self.shared.published).status.clone()
    }

    /// Number of turns of the pipeline's loop so far. A live pipeline takes some every second, with or without work.
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }

    /// Wakes the pipeline's thread.
    pub(super) fn wake(&self) {
        if let Some(thread) = &*lock(&self.shared.thread) {
            thread.unpark();
        }
    }

    /// Tells which thread runs the pipeline, so that it can be woken.
    pub(super) fn runs_on(&self, thread: Thread) {
        *lock(&self.shared.thread) = Some(thread);
    }

    /// Counts a turn of the loop.
    pub(super) fn turn(&self) {
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes the status that [`Pipeline::status`] returns.
    pub(super) fn update(&self, change: impl FnOnce(&mut PipelineStatus)) {
        change(&mut lock(&self.shared.published).status);
    }

    /// Adds a completed checkpoint to status and list.
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
        let query: OperatorQuery = Box::new(move |operator| {
            // A caller that went away needs no answer.
            let _ = sender.send(question(operator));
        });
        self.shared.queries.try_send(query).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => Unavailable("too many questions wait for it; ask again in a moment"),
            mpsc::TrySendError::Disconnected(_) => Unavailable("it has stopped"),
        })?;
        self.wake();
        receiver.await.map_err(|_| Unavailable("it has stopped"))
    }
}
