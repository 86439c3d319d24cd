//! The operator: applies journal batches to the state of all devices.
//!
//! A batch runs through these steps: silence is looked at, at the batch's arrival time (`firing`); forgotten devices go
//! (`lifetime`); each message is decoded, its readings are judged by the watermark before it and put into windows
//! (`ingest`), then the watermark moves and due windows fire (`firing`); after the last record, windows that late readings
//! touched fire, and expired ones are dropped.

use crate::core::client::Clients;
use crate::core::clocks::{GlobalScope, JournalClock};
use crate::core::dedup::SequenceSet;
use crate::core::device::{DueWindow, Slot};
use crate::core::group::{GroupChange, Groups};
use crate::core::idle::Deadlines;
use crate::core::registry::{Names, Registry};
use crate::core::replayed::{ReplayOrigins, ReplayedSet};
use crate::core::settings::{Settings, WatermarkScope};
use crate::core::totals::{Sizes, Totals};
use crate::core::validate::ValidationRules;
use crate::core::watermark::NONE_MS;

/// All state of the event-time pipeline.
#[derive(Debug)]
pub struct Operator {
    pub(super) settings: Settings,
    /// Whether the settings in the journal are ignored.
    pub(super) settings_fixed: bool,
    pub(super) rules: ValidationRules,
    pub(super) devices: Registry,
    pub(super) metric_names: Names,
    pub(super) clients: Clients,
    pub(super) groups: Groups,
    pub(super) deadlines: Deadlines,
    pub(super) global: GlobalScope,
    pub(super) clock: JournalClock,
    pub(super) totals: Totals,
    pub(super) series: usize,
    pub(super) open_windows: usize,
    pub(super) windows: usize,
    pub(super) next_window_seq: u64,
    pub(super) next_error_seq: u64,
    /// Errors that were replayed.
    pub(super) replayed: ReplayedSet,
    /// Replayed errors whose reading had been counted from a redelivery.
    pub(super) redelivered: SequenceSet,
    /// Where replays come from, while a journal is processed anew under settings of its own.
    pub(super) origins: Option<ReplayOrigins>,
    /// Newest event time in a window of any device.
    pub(super) newest_ms: i64,
    /// Devices with windows that late readings touched in this batch.
    pub(super) touched: Vec<Slot>,
    /// Devices whose expired windows are dropped at the end of this batch.
    pub(super) to_clean: Vec<Slot>,
    /// Scratch for windows that fire together.
    pub(super) due: Vec<DueWindow>,
    /// Scratch for the sentence of an error.
    pub(super) sentence: String,
}

impl Operator {
    /// An operator without state.
    pub fn new(settings: Settings) -> Self {
        Self {
            rules: ValidationRules::new(&settings),
            settings,
            settings_fixed: false,
            devices: Registry::default(),
            metric_names: Names::default(),
            clients: Clients::default(),
            groups: Groups::new(),
            deadlines: Deadlines::default(),
            global: GlobalScope::default(),
            clock: JournalClock { now_ms: NONE_MS, listening_since_ms: NONE_MS, paused_ms: 0, swept_ms: NONE_MS },
            totals: Totals::default(),
            series: 0,
            open_windows: 0,
            windows: 0,
            next_window_seq: 0,
            next_error_seq: 0,
            replayed: ReplayedSet::default(),
            redelivered: SequenceSet::default(),
            origins: None,
            newest_ms: NONE_MS,
            touched: Vec::new(),
            to_clean: Vec::new(),
            due: Vec::new(),
            sentence: String::new(),
        }
    }

    /// An operator without state that processes everything under these settings, whatever the journal says: to recompute
    /// results as they would be under others.
    pub fn with_fixed_settings(settings: Settings) -> Self {
        Self { settings_fixed: true, ..Self::new(settings) }
    }

    /// Must be called before the state of a device or client in `group` changes: a running snapshot stores it as it was.
    #[inline]
    pub(super) fn about_to_change(&mut self, group: u16) {
        if self.groups.get(group).change != GroupChange::Changed {
            self.begin_change(group);
        }
    }

    /// Whether each device has its own watermark.
    #[inline]
    pub(super) fn per_device(&self) -> bool {
        self.settings.watermark == WatermarkScope::Device
    }

    /// Settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a window waits for time to pass (then the journal gets ticks).
    pub fn has_open_windows(&self) -> bool {
        self.open_windows > 0
    }

    /// Counts since the journal began.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Sizes of the state.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            devices: self.devices.len(),
            series: self.series,
            open_windows: self.open_windows,
            windows: self.windows,
            clients: self.clients.len(),
        }
    }

    /// Sequence number that the next window firing gets.
    pub fn next_window_seq(&self) -> u64 {
        self.next_window_seq
    }

    /// Sequence number that the next stored error gets.
    pub fn next_error_seq(&self) -> u64 {
        self.next_error_seq
    }
}
