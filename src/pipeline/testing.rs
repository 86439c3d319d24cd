//! A pipeline without logs, for tests of the parts that ask it: the real handle, answered from a real operator.

use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;

use crate::core::operator::Operator;
use crate::core::output::{Collector, ErrorEntry, WindowResult};
use crate::core::selection::DeviceFilter;
use crate::core::settings::Settings;
use crate::pipeline::error::SavepointFailure;
use crate::pipeline::handle::{CheckpointInfo, Pipeline, PipelineStatus, Requests};
use crate::state::savepoint::SavepointInfo;
use crate::sync::lock;

/// The handle, and what its answers come from.
pub(crate) struct TestPipeline {
    pub handle: Pipeline,
    operator: Arc<Mutex<Operator>>,
    /// The savepoint that the next request gets; without one it fails.
    savepoint: Arc<Mutex<Option<SavepointInfo>>>,
    next_lsn: Mutex<u64>,
}

/// Keeps a pipeline from answering; its queue of questions is full.
pub(crate) struct BusyPipeline<'a> {
    _operator: MutexGuard<'a, Operator>,
}

/// Results that nobody looks at.
struct NoResults;

impl Collector for NoResults {
    fn window(&mut self, _seq: u64, _window: &WindowResult<'_>) {}
    fn error(&mut self, _seq: u64, _entry: &ErrorEntry<'_>) {}
}

impl TestPipeline {
    /// A pipeline with the default settings that has processed nothing. Its thread ends with the last handle.
    pub fn new() -> Self {
        let (handle, requests) = Pipeline::new();
        let operator = Arc::new(Mutex::new(Operator::new(Settings::default())));
        let savepoint = Arc::default();
        thread::spawn({
            let (operator, savepoint) = (Arc::clone(&operator), Arc::clone(&savepoint));
            move || answer(&requests, &operator, &savepoint)
        });
        Self { handle, operator, savepoint, next_lsn: Mutex::new(0) }
    }

    /// Processes a journal batch of these records.
    pub fn apply(&self, arrival_ms: i64, records: &[Vec<u8>]) {
        let mut next_lsn = lock(&self.next_lsn);
        let encoded = records.iter().map(Vec::as_slice);
        lock(&self.operator).apply(*next_lsn, arrival_ms, encoded, &mut NoResults).expect("records");
        *next_lsn += records.len() as u64;
    }

    /// Changes what the handle shows as status.
    pub fn update(&self, change: impl FnOnce(&mut PipelineStatus)) {
        self.handle.update(change);
    }

    /// Adds a completed checkpoint.
    pub fn completed(&self, checkpoint: CheckpointInfo) {
        self.handle.completed(checkpoint, 0);
    }

    /// Lists this savepoint and gives it to the next request.
    pub fn has_savepoint(&self, info: SavepointInfo) {
        self.handle.update_savepoints(vec![info.clone()]);
        *lock(&self.savepoint) = Some(info);
    }

    /// Fills the queue of questions. Nothing is answered until the guard is dropped.
    pub fn busy(&self) -> BusyPipeline<'_> {
        let operator = lock(&self.operator);
        while self.handle.device_ids(DeviceFilter::default(), 1).now_or_never().is_none() {}
        BusyPipeline { _operator: operator }
    }

    /// Waits until questions are answered again.
    pub async fn answers(&self) {
        while self.handle.device_ids(DeviceFilter::default(), 1).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}

/// Answers until the last handle is gone. The operator is locked before a question is taken, so that a busy pipeline takes
/// none.
fn answer(requests: &Requests, operator: &Mutex<Operator>, savepoint: &Mutex<Option<SavepointInfo>>) {
    loop {
        let held = lock(operator);
        match requests.queries.try_recv() {
            Ok(question) => question(&held),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                drop(held);
                thread::sleep(Duration::from_millis(1));
            }
        }
        while let Ok(reply) = requests.savepoints.try_recv() {
            // The requester may have gone.
            let failure = || SavepointFailure::TooMany { directory: "savepoints".into(), count: 100 };
            let _ = reply.send(lock(savepoint).take().ok_or_else(|| Arc::new(failure())));
        }
    }
}
