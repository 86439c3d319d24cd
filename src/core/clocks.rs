//! The operator's clocks: journal time, the one watermark of scope `global`, and deadlines of silent devices.

use std::collections::BTreeMap;

use crate::core::device::Slot;
use crate::core::idle::Deadlines;
use crate::core::watermark::NONE_MS;

/// All clocks of the operator but the watermarks that devices have under scope `device`.
#[derive(Debug)]
pub(super) struct Clocks {
    pub journal: JournalClock,
    pub global: GlobalScope,
    /// When silent devices are looked at next, under scope `device`.
    pub deadlines: Deadlines,
    /// Newest event time in a window of any device.
    pub newest_ms: i64,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            journal: JournalClock { now_ms: NONE_MS, listening_since_ms: NONE_MS, paused_ms: 0, swept_ms: NONE_MS },
            global: GlobalScope::default(),
            deadlines: Deadlines::default(),
            newest_ms: NONE_MS,
        }
    }
}

/// Times that the whole journal shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JournalClock {
    /// Latest arrival time of a batch.
    pub now_ms: i64,
    /// Silence is counted from here on at the earliest: the last time that weir began to listen (again).
    pub listening_since_ms: i64,
    /// Time that passed without weir listening.
    pub paused_ms: i64,
    /// When forgotten devices were last looked for.
    pub swept_ms: i64,
}

impl JournalClock {
    /// Time on the clock that stands still while weir is down.
    pub fn awake_ms(&self) -> i64 {
        self.now_ms.saturating_sub(self.paused_ms)
    }
}

/// The one source that all devices are under scope `global`.
#[derive(Debug)]
pub(super) struct GlobalScope {
    /// Its watermark.
    pub watermark_ms: i64,
    /// Newest event time in a window.
    pub newest_ms: i64,
    /// Last arrival of a message.
    pub last_arrival_ms: i64,
    /// Devices with open windows, by the windows' end. An entry may be stale or there twice.
    pub open: BTreeMap<i64, Vec<Slot>>,
    /// Devices with fired windows, by the windows' end. An entry may be stale or there twice.
    pub fired: BTreeMap<i64, Vec<Slot>>,
}

impl Default for GlobalScope {
    fn default() -> Self {
        Self {
            watermark_ms: NONE_MS,
            newest_ms: NONE_MS,
            last_arrival_ms: NONE_MS,
            open: BTreeMap::new(),
            fired: BTreeMap::new(),
        }
    }
}
