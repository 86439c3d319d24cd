//! The operator: all state of the event-time pipeline, as a few named parts. It sees journal records alone and has no
//! I/O, no clock of its own and no randomness.
//!
//! The methods are in the files of what they do: `apply` (the order of steps within a batch), `ingest` and `assign`
//! (readings), `firing` (watermarks and windows), `side_output` (rejections), `replay`, `lifetime` (devices come and go),
//! `snapshot` (checkpoints), `query` and `selection` (questions of the API).

use std::sync::Arc;

use crate::core::catching_up::BacklogCounts;
use crate::core::client::Clients;
use crate::core::clocks::Clocks;
use crate::core::device::{DeviceId, DueWindow, Slot};
use crate::core::error_share::ErrorShare;
use crate::core::formats::MapMemory;
use crate::core::group::{GroupChange, Groups};
use crate::core::map_activity::{MapActivities, MapActivity, RecognisedMap};
use crate::core::notes::DeviceNote;
use crate::core::owners::Owners;
use crate::core::proportion::MessageErrors;
use crate::core::rebirth::RebirthRequests;
use crate::core::registry::{Names, Registry};
use crate::core::replayed::ReplayState;
use crate::core::settings::{Settings, WatermarkScope};
use crate::core::totals::{Sizes, Totals};
use crate::core::validate::ValidationRules;

/// Settings in force.
#[derive(Debug)]
pub(super) struct ActiveSettings {
    /// Settings under which records are processed.
    pub current: Settings,
    /// Lookup tables of `current`.
    pub rules: ValidationRules,
    /// Whether the settings in the journal are ignored.
    pub is_fixed: bool,
}

/// Metric names and counts of the series of all devices. The series themselves are kept in their devices.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    /// Names of all metrics, shared by the series that have them.
    pub metric_names: Names,
    /// Units of all series, shared by those that have them.
    pub units: Names,
    /// Number of (device, metric) pairs.
    pub count: usize,
    /// Number of windows held, fired ones included.
    pub windows: usize,
    /// Number of windows that have not fired yet.
    pub open_windows: usize,
}

/// Sequence numbers that the next results get. They are positions in the output logs.
#[derive(Debug, Default)]
pub(super) struct NextSeq {
    /// Of the next window firing.
    pub window: u64,
    /// Of the next stored error.
    pub error: u64,
}

/// Lists that are filled and emptied while a batch is applied. Their memory is kept from batch to batch.
#[derive(Debug, Default)]
pub(super) struct BatchWork {
    /// Devices with windows that got late readings in this batch.
    pub touched: Vec<Slot>,
    /// Devices whose expired windows are dropped at the end of this batch.
    pub to_clean: Vec<Slot>,
    /// Devices whose backlogs got another window from the current message.
    pub crowded: Vec<Slot>,
    /// Windows that fire together, before they are sorted.
    pub due: Vec<DueWindow>,
    /// Text of the error that is being emitted.
    pub sentence: String,
    /// Id of a tenant's device, with the tenant's prefix.
    pub device_id: String,
    /// Errors of the message at hand.
    pub errors: MessageErrors,
    /// Units of the readings of the message at hand.
    pub units: Vec<Arc<str>>,
    /// Devices that are over their share of the errors log.
    pub over_share: Vec<Option<DeviceId>>,
    /// What a person is to be told about devices.
    pub notes: Vec<(DeviceId, DeviceNote)>,
}

/// All state of the event-time pipeline, as a few parts that can be borrowed apart from each other.
#[derive(Debug)]
pub struct Operator {
    pub(super) settings: ActiveSettings,
    pub(super) devices: Registry,
    pub(super) owners: Owners,
    pub(super) series: SeriesTable,
    pub(super) backlogs: BacklogCounts,
    pub(super) clients: Clients,
    pub(super) groups: Groups,
    pub(super) clocks: Clocks,
    pub(super) replays: ReplayState,
    /// What maps remember of earlier messages.
    pub(super) map_memory: MapMemory,
    /// What became of the messages of each map.
    pub(super) map_activities: MapActivities,
    /// Requests to edge nodes.
    pub(super) rebirths: RebirthRequests,
    /// Devices that said that they are offline.
    pub(super) offline: usize,
    /// Digests of all devices beyond those that each may have.
    pub(super) extra_digests: usize,
    pub(super) totals: Totals,
    pub(super) next_seq: NextSeq,
    pub(super) work: BatchWork,
    /// Share of the errors log of errors without a known device.
    pub(super) unknown_error_share: ErrorShare,
}

impl Operator {
    /// An operator without state.
    pub fn new(settings: Settings) -> Self {
        Self {
            map_activities: MapActivities::default().of(&settings.maps),
            settings: ActiveSettings { rules: ValidationRules::new(&settings), current: settings, is_fixed: false },
            devices: Registry::default(),
            owners: Owners::default(),
            series: SeriesTable::default(),
            backlogs: BacklogCounts::default(),
            clients: Clients::default(),
            groups: Groups::new(),
            clocks: Clocks::default(),
            replays: ReplayState::default(),
            map_memory: MapMemory::default(),
            rebirths: RebirthRequests::default(),
            offline: 0,
            extra_digests: 0,
            totals: Totals::default(),
            next_seq: NextSeq::default(),
            work: BatchWork::default(),
            unknown_error_share: ErrorShare::default(),
        }
    }

    /// An operator without state that processes everything under these settings, whatever settings the journal holds. It
    /// serves to compute what the results would be under other settings.
    pub fn with_fixed_settings(settings: Settings) -> Self {
        let mut operator = Self::new(settings);
        operator.settings.is_fixed = true;
        operator
    }

    /// Must be called before the state of a device or client in `group` changes. A snapshot is of one moment: where it
    /// has not encoded the group yet, this encodes it as it was.
    #[inline]
    pub(super) fn about_to_change(&mut self, group: u16) {
        if self.groups.get(group).change != GroupChange::Changed {
            self.begin_change(group);
        }
    }

    /// Whether each device has its own watermark.
    #[inline]
    pub(super) fn per_device(&self) -> bool {
        self.settings.current.watermark == WatermarkScope::Device
    }

    /// Settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings.current
    }

    /// Whether a window waits for time to pass. While one does, the pipeline writes ticks into an idle journal.
    pub fn has_open_windows(&self) -> bool {
        self.series.open_windows > 0 || self.backlogs.waiting > 0
    }

    /// Counts since the journal began.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Sizes of the state.
    pub fn sizes(&self) -> Sizes {
        let (discovered_topics, discoveries_replaced) = self.map_memory.discovered();
        Sizes {
            devices: self.devices.len(),
            series: self.series.count,
            open_windows: self.series.open_windows + self.backlogs.waiting,
            windows: self.series.windows + self.backlogs.windows,
            backlog_windows: self.backlogs.windows,
            backlog_devices: self.backlogs.devices,
            clients: self.clients.len(),
            extra_digests: self.extra_digests,
            offline: self.offline,
            known_topics: self.settings.rules.known_topics.len(),
            discovered_topics,
            discoveries_replaced,
        }
    }

    /// What maps remember of earlier messages.
    pub fn map_memory(&self) -> &MapMemory {
        &self.map_memory
    }

    /// What became of the messages of each map, in the order of the settings.
    pub fn map_activities(&self) -> &[MapActivity] {
        self.map_activities.all()
    }

    /// Maps that gave readings for the first time since the last call.
    #[inline]
    pub fn take_recognised(&mut self) -> Vec<RecognisedMap> {
        self.map_activities.take_recognised()
    }

    /// Sequence number that the next window firing gets.
    pub fn next_window_seq(&self) -> u64 {
        self.next_seq.window
    }

    /// Sequence number that the next stored error gets.
    pub fn next_error_seq(&self) -> u64 {
        self.next_seq.error
    }
}
