//! The operator: applies journal batches to the state of all devices.

use crate::core::output::Collector;
use crate::core::reason::Reason;
use crate::core::record::InvalidRecord;
use crate::core::settings::Settings;

/// Number of key groups: part of the checkpoint format.
pub const KEY_GROUPS: u16 = 1024;

/// Counts since the journal began; part of the state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// MQTT messages processed.
    pub messages: u64,
    /// Readings received.
    pub received: u64,
    /// Readings that are in a window.
    pub in_windows: u64,
    /// Readings rejected, by [`Reason`].
    pub rejected: [u64; Reason::COUNT],
    /// Windows fired for the first time.
    pub windows_first: u64,
    /// Windows fired again.
    pub windows_corrected: u64,
    /// Times two ranges of seen sequence numbers were merged for want of room.
    pub sequence_ranges_merged: u64,
    /// Devices forgotten after `state.device_ttl`.
    pub devices_expired: u64,
}

impl Totals {
    /// Received less all outcomes: 0 unless weir has a defect.
    pub fn unaccounted(&self) -> i64 {
        self.received.wrapping_sub(self.in_windows).wrapping_sub(self.rejected.iter().sum::<u64>()) as i64
    }
}

/// Sizes of the state, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Devices known.
    pub devices: usize,
    /// (device, metric) pairs known.
    pub series: usize,
    /// Windows that have not fired yet.
    pub open_windows: usize,
    /// Windows held, fired ones included.
    pub windows: usize,
    /// MQTT clients remembered for redelivery.
    pub clients: usize,
}

/// The changed part of the state that one checkpoint stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupBlob {
    /// Key group, below [`KEY_GROUPS`].
    pub group: u16,
    /// Encoded state of all its devices and clients.
    pub bytes: Vec<u8>,
}

/// State that cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored state is not of this format: {0}")]
pub struct RestoreError(pub String);

/// One device in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSummary {
    /// Device id.
    pub device_id: String,
    /// Arrival time of its last message, Unix milliseconds.
    pub last_seen_ms: i64,
    /// Its watermark (the global one where that is configured); `None` before the first accepted reading.
    pub watermark_ms: Option<i64>,
    /// Newest event time less the arrival time of that reading: how far the device's clock is off, plus transit.
    pub clock_offset_ms: Option<i64>,
    /// Readings in windows.
    pub accepted: u64,
    /// Readings rejected, by reason, without those that are 0.
    pub rejected: Vec<(Reason, u64)>,
    /// Gaps in its sequence numbers: messages between the lowest and highest seen that have not come.
    pub sequence_missing: u64,
    /// Number of metrics.
    pub metrics: usize,
}

/// A window as a value of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct LastWindow {
    /// Device id.
    pub device_id: String,
    /// Metric name.
    pub metric: String,
    /// Sequence number of its newest firing.
    pub seq: u64,
    /// The JSON of the firing, as everywhere.
    pub json: Vec<u8>,
    /// First millisecond after the window.
    pub window_end_ms: i64,
    /// Number of readings.
    pub count: u64,
    /// Mean of the window.
    pub mean: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Newest value.
    pub last: f64,
}

/// One device whole.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceDetail {
    /// What the list shows.
    pub summary: DeviceSummary,
    /// Ranges of sequence numbers seen, both ends included.
    pub sequence_ranges: Vec<(u64, u64)>,
    /// Its metrics with the last closed window of each.
    pub series: Vec<(String, Option<LastWindow>)>,
}

/// All state of the event-time pipeline.
#[derive(Debug)]
pub struct Operator {}

impl Operator {
    /// An operator without state.
    pub fn new(_settings: Settings) -> Self {
        todo!()
    }

    /// Applies one journal batch. `first_lsn` is the position of the first record given.
    pub fn apply<'a>(
        &mut self,
        _first_lsn: u64,
        _arrival_ms: i64,
        _records: impl Iterator<Item = &'a [u8]>,
        _out: &mut impl Collector,
    ) -> Result<(), InvalidRecord> {
        todo!()
    }

    /// Fires every window that has not fired, as the end of a bounded input does.
    pub fn close_all(&mut self, _out: &mut impl Collector) {
        todo!()
    }

    /// Goes on under other settings. Windows that the new settings cannot continue fire now.
    pub fn reconfigure(&mut self, _settings: Settings, _out: &mut impl Collector) {
        todo!()
    }

    /// Settings in force.
    pub fn settings(&self) -> &Settings {
        todo!()
    }

    /// Whether a window waits for time to pass (then the journal gets ticks).
    pub fn has_open_windows(&self) -> bool {
        todo!()
    }

    /// Counts since the journal began.
    pub fn totals(&self) -> &Totals {
        todo!()
    }

    /// Sizes of the state.
    pub fn sizes(&self) -> Sizes {
        todo!()
    }

    /// Newest event time accepted from any device, and the lowest watermark of devices with open windows.
    pub fn event_time(&self) -> (Option<i64>, Option<i64>) {
        todo!()
    }

    /// Sequence number that the next window firing gets.
    pub fn next_window_seq(&self) -> u64 {
        todo!()
    }

    /// Sequence number that the next stored error gets.
    pub fn next_error_seq(&self) -> u64 {
        todo!()
    }

    /// Begins a snapshot of the state as it is now: returns the part that is not in key groups. The groups changed
    /// since the last snapshot follow from [`Operator::snapshot_step`]; a group about to change meanwhile is encoded
    /// first.
    pub fn begin_snapshot(&mut self) -> Vec<u8> {
        todo!()
    }

    /// Encodes up to `max_groups` further groups into `out`; `true` when the snapshot is complete.
    pub fn snapshot_step(&mut self, _max_groups: usize, _out: &mut Vec<GroupBlob>) -> bool {
        todo!()
    }

    /// The last snapshot could not be stored: all groups count as changed again.
    pub fn snapshot_failed(&mut self) {
        todo!()
    }

    /// Restores what [`Operator::begin_snapshot`] and the newest blob of every group hold.
    pub fn restore<'a>(_header: &[u8], _groups: impl Iterator<Item = (u16, &'a [u8])>) -> Result<Self, RestoreError> {
        todo!()
    }

    /// Devices in order of id, after `after`.
    pub fn devices(&self, _after: Option<&str>, _limit: usize) -> Vec<DeviceSummary> {
        todo!()
    }

    /// One device.
    pub fn device(&self, _device_id: &str) -> Option<DeviceDetail> {
        todo!()
    }

    /// Last closed windows of all series whose window ended after `since_ms`, in order of (device, metric), up to
    /// `limit`; and how many more there are.
    pub fn last_windows(&self, _since_ms: i64, _limit: usize) -> (Vec<LastWindow>, usize) {
        todo!()
    }
}
