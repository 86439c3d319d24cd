//! Counts and sizes of the operator's state.

use crate::core::owners::DeviceLimit;
use crate::core::reason::Reason;

/// Counts since the journal began. They are part of the state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// MQTT messages that were processed.
    pub messages: u64,
    /// Readings that were received.
    pub received: u64,
    /// Readings that are in a window.
    pub in_windows: u64,
    /// Readings rejected, by [`Reason`].
    pub rejected: [u64; Reason::COUNT],
    /// First firings of windows.
    pub windows_first: u64,
    /// Further firings of windows, after late readings.
    pub windows_corrected: u64,
    /// First firings of windows that a backlog filled. They are among `windows_first`.
    pub windows_backlog: u64,
    /// Windows of backlogs that fired because there was no room for more.
    pub backlog_windows_forced: u64,
    /// Gaps between fired windows that were closed because a series had too many.
    pub fired_runs_merged: u64,
    /// Merges of two ranges of seen sequence numbers, because a device had too many ranges.
    pub sequence_ranges_merged: u64,
    /// Restarts of devices that their sequence numbers or `boot` showed.
    pub sequence_restarts: u64,
    /// Times that the counter of a device began again at 0 behind its largest number.
    pub sequence_wraps: u64,
    /// Elements whose `seq` is no number. Their readings count as readings without one.
    pub sequence_invalid: u64,
    /// Devices that were forgotten after `state.device_ttl`.
    pub devices_expired: u64,
    /// Devices that were forgotten because an operator asked for it.
    pub devices_forgotten: u64,
    /// Readings rejected as `too_many_devices`, by [`DeviceLimit`]. Earlier versions did not count them by limit.
    pub devices_refused: [u64; DeviceLimit::COUNT],
    /// Stored errors that were replayed. Their readings count as received again.
    pub replays: u64,
    /// Replays without effect, because the error was replayed before or its reading was not rejected.
    pub replays_ignored: u64,
    /// Values that devices said are absent. They are no readings.
    pub values_absent: u64,
    /// Readings in windows whose event time is the arrival.
    pub arrival_times: u64,
    /// Empty messages with RETAIN, which clear their topic. They are no readings.
    pub topics_cleared: u64,
    /// Merges of two ranges of replayed errors, because there were too many ranges.
    pub replay_ranges_merged: u64,
    /// Elements of which a part was replayed, and that were forgotten because there were too many.
    pub replay_elements_forgotten: u64,
    /// Messages that repeated what was retained on their topic. Their readings are not received again.
    pub retained_repeats: u64,
    /// Topics whose retained message was forgotten because its device has too many.
    pub retained_topics_forgotten: u64,
    /// Errors that were counted and not stored, because their device had filled its share of the errors log.
    pub errors_not_stored: u64,
    /// Window sizes of earlier settings that a device dropped before their time, because it had too many of them.
    pub window_sizes_dropped: u64,
}

impl Totals {
    /// Readings received less readings with an outcome. It is 0 unless weir has a defect: each reading is in a window or
    /// rejected.
    pub fn unaccounted(&self) -> i64 {
        self.received.wrapping_sub(self.in_windows).wrapping_sub(self.rejected.iter().sum::<u64>()) as i64
    }
}

/// Sizes of the state, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Devices that are known.
    pub devices: usize,
    /// Pairs of device and metric that are known.
    pub series: usize,
    /// Windows that have not fired yet.
    pub open_windows: usize,
    /// Windows that are held, fired ones included.
    pub windows: usize,
    /// Windows of backlogs that are held. They are among `windows`.
    pub backlog_windows: usize,
    /// Devices with a backlog.
    pub backlog_devices: usize,
    /// MQTT clients that are remembered for redelivery.
    pub clients: usize,
    /// Digests of readings that devices have beyond the twelve that each may have.
    pub extra_digests: usize,
    /// Devices that said that they are offline.
    pub offline: usize,
    /// Topics that discovery messages spoke of.
    pub discovered_topics: usize,
    /// Topics of which is remembered which map takes them.
    pub known_topics: usize,
    /// Number of such topics that gave way to others, since the journal began.
    pub discoveries_replaced: u64,
}
