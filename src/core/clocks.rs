//! Clocks of the operator: the time of the journal, the watermark of scope `global`, and when silent devices are looked
//! at next.
//!
//! Time is the arrival time of journal batches. It goes back only where a batch says that the clock of the machine was set back
//! (`set_back`). The operator reads no other clock, so that a replay gives the same results.

use std::collections::BTreeMap;

use crate::core::device::Slot;
use crate::core::idle::Deadlines;
use crate::core::set_back::SetBacks;
use crate::core::watermark::NONE_MS;

/// All clocks except the watermarks of scope `device`, which are kept in the devices.
#[derive(Debug)]
pub(super) struct Clocks {
    /// Times that all devices share.
    pub journal: JournalClock,
    /// The source of scope `global`.
    pub global: GlobalScope,
    /// Times at which silent devices are looked at next, under scope `device`.
    pub deadlines: Deadlines,
    /// Times at which silent backlogs are looked at next.
    pub backlogs: Deadlines,
    /// Newest event time in a window of any device.
    pub newest_ms: i64,
    /// What is remembered of times when the clock of the machine was set back.
    pub set_backs: SetBacks,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            journal: JournalClock { now_ms: NONE_MS, listening_since_ms: NONE_MS, paused_ms: 0, swept_ms: NONE_MS },
            global: GlobalScope::default(),
            deadlines: Deadlines::default(),
            backlogs: Deadlines::default(),
            newest_ms: NONE_MS,
            set_backs: SetBacks::default(),
        }
    }
}

/// Times that all devices share, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JournalClock {
    /// Latest arrival time of a batch: the present.
    pub now_ms: i64,
    /// Start of the time in which silence counts: when weir last began to listen.
    pub listening_since_ms: i64,
    /// Time in which weir did not listen, summed up.
    pub paused_ms: i64,
    /// When devices to be forgotten were last looked for.
    pub swept_ms: i64,
}

impl JournalClock {
    /// Time in which weir listened. Devices are forgotten by it, so that a long stop of weir makes it forget none.
    pub fn awake_ms(&self) -> i64 {
        self.now_ms.saturating_sub(self.paused_ms)
    }
}

/// Under scope `global` all devices are one source, as the one source of a Flink job.
#[derive(Debug)]
pub(super) struct GlobalScope {
    /// Watermark of the source.
    pub watermark_ms: i64,
    /// Newest event time in a window of any device.
    pub newest_ms: i64,
    /// Arrival time of the last message; of devices with a backlog, of the last one with a reading that was not behind the
    /// watermark.
    pub last_arrival_ms: i64,
    /// Until this time windows of all devices that expire are held for backlogs: the watermark has jumped.
    pub holds_until_ms: i64,
    /// Devices with open windows, by the end of the window. A device may be listed twice, or no longer have the window.
    pub open: BTreeMap<i64, Vec<Slot>>,
    /// Devices with fired windows, by the end of the window; where it keeps a lateness of earlier settings, by the end at
    /// which a window of the present lateness would close with it. A device may be listed twice, or no longer have the
    /// window.
    pub fired: BTreeMap<i64, Vec<Slot>>,
}

impl Default for GlobalScope {
    fn default() -> Self {
        Self {
            watermark_ms: NONE_MS,
            newest_ms: NONE_MS,
            last_arrival_ms: NONE_MS,
            holds_until_ms: NONE_MS,
            open: BTreeMap::new(),
            fired: BTreeMap::new(),
        }
    }
}
