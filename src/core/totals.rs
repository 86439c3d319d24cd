//! Counts and sizes of the operator's state.

use crate::core::reason::Reason;

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
    /// Stored errors that were processed again. Their readings count as received again.
    pub replays: u64,
    /// Replays that were passed over: the error was replayed before, or its reading was not rejected.
    pub replays_ignored: u64,
    /// Times two ranges of replayed errors were merged for want of room.
    pub replay_ranges_merged: u64,
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
