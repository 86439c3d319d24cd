//! `[ingest]`, `[validate]`, `[dedup]`, `[window]` and `[limits]`: how readings become windows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::units::{DAY_MS, MIB};
use crate::config::maps::{KnownMap, MapState, PresetChoice, default_maps};
use crate::core::settings::{MetricRange, SequenceBits, Settings, TimeSource, TimestampUnit, WatermarkScope};

/// Which topics are journaled, and how their payloads are decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct IngestConfig {
    /// Patterns of topics that carry readings.
    pub telemetry_topics: Vec<String>,
    /// Patterns of topics on which devices report faults.
    pub error_topics: Vec<String>,
    /// What the event time of a reading is.
    pub time: TimeSource,
    /// Unit of numeric timestamps.
    pub timestamp_unit: TimestampUnit,
    /// IANA time zone of times that name no zone; empty: such times are rejected.
    pub timezone: String,
    /// Whether a string that holds a number counts as a value.
    pub numeric_strings: bool,
    /// Width of the counters from which devices take their sequence numbers.
    pub seq_bits: SequenceBits,
    /// Largest number of readings in one message.
    pub max_readings_per_message: usize,
    /// Presets that are on.
    pub presets: PresetChoice,
    /// Host id under which weir is a primary host of Sparkplug B; empty: it is none.
    pub sparkplug_host_id: String,
    /// Directory of preset files.
    pub map_files: Option<PathBuf>,
    /// All maps that are known; those that are on, in the order in which they are asked.
    pub maps: Vec<KnownMap>,
}

/// Which readings are accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidateConfig {
    /// Readings whose event time is further than this ahead of their arrival are rejected; `None`: none are.
    pub max_future_ms: Option<i64>,
    /// Readings whose event time is further than this behind their arrival are rejected; `None`: none are.
    pub max_age_ms: Option<i64>,
    /// Devices whose readings are accepted; empty: all devices.
    pub allowed_devices: Vec<String>,
    /// `[validate.metrics.NAME]`: range and unit of a metric.
    pub metrics: BTreeMap<String, MetricRange>,
}

/// Deduplication.
#[derive(Debug, Clone, PartialEq)]
pub struct DedupConfig {
    /// Whether readings that were received before are recognised and rejected.
    pub enabled: bool,
}

/// Event-time windows.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowConfig {
    /// Length of a window.
    pub size_ms: i64,
    /// Whether a device's own event time closes its windows, or that of all devices.
    pub watermark: WatermarkScope,
    /// Distance of the watermark behind the newest event time.
    pub out_of_orderness_ms: i64,
    /// How far the watermark may pass the end of a window before the window rejects late readings.
    pub allowed_lateness_ms: i64,
    /// Time without data after which a device's clock is assumed to have gone on, so that its last windows close; `None`:
    /// they wait for the next reading.
    pub idle_timeout_ms: Option<i64>,
    /// Whether readings that a device stored while it was away are counted although its live data has passed them.
    pub backlog: bool,
}

/// Limits of the operator's state, and of what clients hold before they log in.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitsConfig {
    /// Largest number of devices.
    pub devices: usize,
    /// Share of `devices` that one user may introduce, from 0 to 1.
    pub devices_share: f64,
    /// Largest number of devices that one user may introduce within an hour; `None`: no limit.
    pub new_devices_per_hour: Option<usize>,
    /// Largest number of metrics of one device.
    pub metrics_per_device: usize,
    /// Largest number of windows that the backlog of one device holds.
    pub backlog_windows_per_device: usize,
    /// Number of windows that the backlogs of all devices share.
    pub backlog_windows: usize,
    /// Largest memory of all connections that have not logged in.
    pub pending_bytes: usize,
}

impl Default for IngestConfig {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            telemetry_topics: settings.telemetry_topics,
            error_topics: settings.error_topics,
            time: settings.time_source,
            timestamp_unit: settings.timestamp_unit,
            timezone: settings.timezone,
            numeric_strings: settings.numeric_strings,
            seq_bits: settings.sequence_bits,
            max_readings_per_message: settings.max_readings_per_message,
            presets: PresetChoice::Auto,
            sparkplug_host_id: String::new(),
            map_files: None,
            maps: default_maps(),
        }
    }
}

impl IngestConfig {
    /// The maps that are on, in the order in which they are asked.
    pub fn maps_on(&self) -> impl Iterator<Item = &KnownMap> {
        self.maps.iter().filter(|map| map.state == MapState::On)
    }
}

impl Default for ValidateConfig {
    fn default() -> Self {
        Self {
            max_future_ms: Some(300_000),
            max_age_ms: Some(7 * DAY_MS),
            allowed_devices: Vec::new(),
            metrics: BTreeMap::new(),
        }
    }
}

impl Default for DedupConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self {
            size_ms: 5_000,
            watermark: WatermarkScope::Device,
            out_of_orderness_ms: 2_000,
            allowed_lateness_ms: 30_000,
            idle_timeout_ms: Some(10_000),
            backlog: true,
        }
    }
}

impl LimitsConfig {
    /// Largest number of devices that one user may introduce, at least one; `None`: as many as there may be.
    pub fn devices_per_user(&self) -> Option<usize> {
        (self.devices_share < 1.0).then(|| ((self.devices as f64 * self.devices_share) as usize).max(1))
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            devices: 100_000,
            devices_share: 0.5,
            new_devices_per_hour: Some(20_000),
            metrics_per_device: 256,
            backlog_windows_per_device: 1_024,
            backlog_windows: 262_144,
            pending_bytes: 8 * MIB as usize,
        }
    }
}
