//! How the other parts ask the pipeline.

use std::sync::Arc;

use crate::core::operator::{DeviceDetail, DeviceSummary, LastWindow, Sizes, Totals};

/// The pipeline did not answer: it has stopped, or is too busy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline does not answer: {0}")]
pub struct Unavailable(pub &'static str);

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
pub struct Status {
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
    /// The last completed checkpoint.
    pub checkpoint: Option<CheckpointInfo>,
    /// Failures of checkpoints since start.
    pub checkpoint_failures: u64,
    /// Why the last checkpoint failed, if it did.
    pub checkpoint_error: Option<String>,
    /// Why the pipeline stopped, if it did.
    pub failure: Option<String>,
}

/// Asks the pipeline between two batches. Clones share it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    _shared: Arc<()>,
}

impl Pipeline {
    /// Devices in order of id.
    pub async fn devices(&self, _after: Option<String>, _limit: usize) -> Result<Vec<DeviceSummary>, Unavailable> {
        todo!()
    }
    /// One device whole.
    pub async fn device(&self, _device_id: String) -> Result<Option<DeviceDetail>, Unavailable> {
        todo!()
    }
    /// Last closed windows of all keys that ended after `since_ms`, and how many are left out.
    pub async fn last_windows(&self, _since_ms: i64, _limit: usize) -> Result<(Vec<LastWindow>, usize), Unavailable> {
        todo!()
    }
    /// The newest completed checkpoints of this run, newest first.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        todo!()
    }
    /// State at the end of the last batch.
    pub fn status(&self) -> Status {
        todo!()
    }
}
