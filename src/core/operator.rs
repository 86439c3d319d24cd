//! The operator: applies journal batches to the state of all devices.
//!
//! A batch runs through these steps: silence is looked at, at the batch's arrival time (`firing`); forgotten devices go
//! (`lifetime`); each message is decoded, its readings are judged by the watermark before it and put into windows
//! (`ingest`), then the watermark moves and due windows fire (`firing`); after the last record, windows that late readings
//! touched fire, and expired ones are dropped.

use crate::core::batch::BatchContext;
use crate::core::client::Clients;
use crate::core::decode::DecodedMessage;
use crate::core::dedup::SequenceSet;
use crate::core::device::{DueWindow, Slot};
use crate::core::firing::GlobalScope;
use crate::core::group::{GroupChange, Groups};
use crate::core::idle::Deadlines;
use crate::core::output::Collector;
use crate::core::reason::Reason;
use crate::core::record::{InvalidRecord, Record, RecordDecoder};
use crate::core::registry::{Names, Registry};
use crate::core::replay::ReplayedSet;
use crate::core::settings::{Settings, WatermarkScope};
use crate::core::validate::ValidationRules;
use crate::core::watermark::NONE_MS;

pub use crate::core::query::{DeviceDetail, DeviceSummary, LastWindow};
pub use crate::core::replay::ReplayOrigins;

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

/// All state of the event-time pipeline.
#[derive(Debug)]
pub struct Operator {
    pub(super) settings: Settings,
    /// Whether the settings in the journal are ignored.
    settings_fixed: bool,
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

    /// Applies one journal batch. `first_lsn` is the position of the first record given, `arrival_ms` the arrival time of
    /// the batch. A batch without records lets time pass.
    ///
    /// # Errors
    /// A record that is not of this format. The records before it are applied, the batch is not finished: the operator
    /// must not be used any further.
    pub fn apply<'a>(
        &mut self,
        first_lsn: u64,
        arrival_ms: i64,
        records: impl Iterator<Item = &'a [u8]>,
        out: &mut impl Collector,
    ) -> Result<(), InvalidRecord> {
        let mut decoder = RecordDecoder::default();
        let mut message = DecodedMessage::default();
        let mut batch = BatchContext::new(first_lsn, arrival_ms);
        let mut begun = false;
        for bytes in records {
            let record = decoder.decode(bytes)?;
            if !begun {
                self.begin_batch(arrival_ms, record == Record::Resumed, out);
                begun = true;
            }
            match record {
                Record::Publish(publish, same_origin) => {
                    self.publish(&mut batch, &mut message, publish, same_origin, out);
                }
                Record::Resumed => self.listen_again(),
                Record::Tick => {}
                Record::Replay(replay) => self.replay(batch.lsn, arrival_ms, &mut message, replay, out),
                Record::Settings(json) => {
                    let index = (batch.lsn - first_lsn) as usize;
                    self.change_settings(json, out).map_err(|what| InvalidRecord { index, what })?;
                    batch.forget_origin();
                }
            }
            batch.lsn += 1;
        }
        if !begun {
            self.begin_batch(arrival_ms, false, out);
        }
        self.end_batch(out);
        Ok(())
    }

    fn begin_batch(&mut self, arrival_ms: i64, resumed: bool, out: &mut dyn Collector) {
        let before_ms = self.clock.now_ms;
        if resumed {
            self.settle_all();
        }
        self.clock.now_ms = before_ms.max(arrival_ms);
        if before_ms != NONE_MS {
            let gap_ms = self.clock.now_ms.saturating_sub(before_ms);
            let awake_ms = if resumed { 0 } else { gap_ms.min(self.longest_awake_ms()) };
            self.clock.paused_ms = self.clock.paused_ms.saturating_add(gap_ms - awake_ms);
        }
        if resumed {
            self.clock.listening_since_ms = self.clock.now_ms;
        }
        self.fire_idle(out);
        self.forget_silent(out);
    }

    /// Most that the time between two batches counts against `state.device_ttl`: half of it. A clock that is set right, by
    /// years on a machine that does not keep the time, must not make weir forget which messages it has counted.
    fn longest_awake_ms(&self) -> i64 {
        self.settings.device_ttl_ms.map_or(i64::MAX, |ttl_ms| ttl_ms / 2)
    }

    /// A `Resumed` record: silence starts at zero. Silence before it has already had its effect on watermarks.
    fn listen_again(&mut self) {
        if self.clock.listening_since_ms != self.clock.now_ms {
            self.settle_all();
            self.clock.listening_since_ms = self.clock.now_ms;
        }
    }

    /// Records from here on are processed under the settings that `json` holds. What came before them is finished first.
    fn change_settings(&mut self, json: &[u8], out: &mut impl Collector) -> Result<(), &'static str> {
        let settings = Settings::from_json(json)?;
        if !self.settings_fixed && settings != self.settings {
            self.end_batch(out);
            self.reconfigure(settings, out);
        }
        Ok(())
    }

    fn end_batch(&mut self, out: &mut dyn Collector) {
        self.fire_touched(out);
        self.drop_expired();
        debug_assert_eq!(self.totals.unaccounted(), 0, "every reading is in a window or rejected");
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
