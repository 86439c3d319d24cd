//! Settings of the operator: everything besides the journal's other records that results depend on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::codec::DecodeError;
use crate::core::formats::MapSettings;

/// Unit of numeric timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    /// Told by the magnitude of the number: below 1e11 s, below 1e14 ms, below 1e17 µs, else ns.
    #[default]
    Auto,
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// What the event time of a reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum TimeSource {
    /// The time that the device states; without one, the arrival.
    #[default]
    Event,
    /// The arrival, whatever the device states.
    Arrival,
}

/// Width of the counters from which devices take their sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum SequenceBits {
    /// Told by the numbers: one close to 0 behind one close to the largest number of 8, 16 or 32 bits is a wrap.
    #[serde(rename = "auto")]
    Auto,
    /// 0 to 255.
    #[serde(rename = "8")]
    Bits8,
    /// 0 to 65,535.
    #[serde(rename = "16")]
    Bits16,
    /// 0 to 4,294,967,295.
    #[serde(rename = "32")]
    Bits32,
    /// The numbers do not wrap.
    #[default]
    #[serde(rename = "64")]
    Bits64,
    /// The numbers do not wrap, and are those of an edge node: its devices have them in common, so that each device sees some of
    /// them only. It is no setting.
    #[serde(skip)]
    Shared,
}

impl SequenceBits {
    /// The largest number.
    #[inline]
    pub fn largest(self) -> u64 {
        match self {
            Self::Bits8 => u64::from(u8::MAX),
            Self::Bits16 => u64::from(u16::MAX),
            Self::Bits32 => u64::from(u32::MAX),
            Self::Auto | Self::Bits64 | Self::Shared => u64::MAX,
        }
    }
}

/// Whose event time closes windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum WatermarkScope {
    /// Each device has a watermark.
    #[default]
    Device,
    /// All devices share one watermark, as one Flink source has.
    Global,
}

/// Configuration of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct MetricRange {
    /// Smallest accepted value.
    pub min: Option<f64>,
    /// Largest accepted value.
    pub max: Option<f64>,
    /// Unit, for display.
    pub unit: Option<String>,
}

/// A tenant: its devices have nothing in common with those of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantSettings {
    /// What its topics begin with, and therefore the ids of its devices. It ends in `/`.
    pub prefix: String,
    /// Largest number of its devices; `None`: no limit of its own.
    pub max_devices: Option<usize>,
}

/// How much of the errors log one device may fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorShareSettings {
    /// Bytes of stored errors at which the share is full.
    pub bytes: u64,
    /// Journal time in which a full share is empty again.
    pub refill_ms: i64,
}

/// Settings that results depend on. Each start writes them into the journal and each checkpoint holds them, so that a
/// journal is replayed under the settings it was first processed with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Topic patterns for readings, with `+` in the place of the device id.
    pub telemetry_topics: Vec<String>,
    /// Topic patterns for faults that devices report.
    pub error_topics: Vec<String>,
    /// Unit of numeric timestamps.
    pub timestamp_unit: TimestampUnit,
    /// Whether a string that is a number is accepted as value.
    pub numeric_strings: bool,
    /// Width of the counters from which devices take their sequence numbers. Versions that did not record it let no number
    /// wrap.
    #[serde(default)]
    pub sequence_bits: SequenceBits,
    /// Largest number of readings in one message.
    pub max_readings_per_message: usize,
    /// Event times further ahead of the arrival than this are rejected; `None`: no limit.
    pub max_future_ms: Option<i64>,
    /// Event times further behind the arrival than this are rejected; `None`: no limit.
    pub max_age_ms: Option<i64>,
    /// Devices that may send; if empty, all may.
    pub allowed_devices: Vec<String>,
    /// Configuration by metric name.
    pub metrics: BTreeMap<String, MetricRange>,
    /// Whether sequence numbers and MQTT redelivery are used to count each reading once.
    pub dedup: bool,
    /// Window length, at least 1.
    pub window_ms: i64,
    /// Whose event time closes windows.
    pub watermark: WatermarkScope,
    /// How far the watermark stays behind the newest event time.
    pub out_of_orderness_ms: i64,
    /// How long after its end, by the watermark, a window still accepts readings.
    pub allowed_lateness_ms: i64,
    /// Silence after which the clock of a device is assumed to have gone on; `None`: never.
    pub idle_timeout_ms: Option<i64>,
    /// Whether readings behind the watermark are counted where their window has never fired, and no watermark is ahead of
    /// the arrival. Without it the rules are those of Flink.
    #[serde(default)]
    pub backlog: bool,
    /// Largest number of windows that the backlog of one device holds, where there is room for so many.
    #[serde(default)]
    pub max_backlog_windows_per_device: usize,
    /// Number of windows that the backlogs of all devices share.
    #[serde(default)]
    pub max_backlog_windows: usize,
    /// Largest number of devices.
    pub max_devices: usize,
    /// Largest number of devices that one user introduced; `None`: no limit.
    #[serde(default)]
    pub max_devices_per_user: Option<usize>,
    /// Largest number of devices that one user introduces within an hour; `None`: no limit.
    #[serde(default)]
    pub max_new_devices_per_hour: Option<usize>,
    /// Largest number of metrics of one device.
    pub max_metrics_per_device: usize,
    /// Silence after which a device is forgotten; `None`: never.
    pub device_ttl_ms: Option<i64>,
    /// Whether duplicates get an entry in the errors log.
    pub store_duplicates: bool,
    /// Tenants, in order of prefix. No prefix begins with another one.
    #[serde(default)]
    pub tenants: Vec<TenantSettings>,
    /// Whether the records name the user who published. They do not in the journals of earlier versions.
    #[serde(default)]
    pub records_name_users: bool,
    /// What the event time of a reading is.
    #[serde(default)]
    pub time_source: TimeSource,
    /// IANA time zone of times that name no zone; empty: such times are rejected.
    #[serde(default)]
    pub timezone: String,
    /// Whether the errors of a message are kept in proportion to it. They are not in the journals of earlier versions.
    #[serde(default)]
    pub errors_in_proportion: bool,
    /// How much of the errors log one device may fill; `None`: all of it.
    #[serde(default)]
    pub error_share: Option<ErrorShareSettings>,
    /// Maps for messages of devices that do not send weir's own form.
    #[serde(default)]
    pub maps: Vec<MapSettings>,
    /// Version of the rules under which records are processed: [`Settings::RULES`] for new records. Records in the journals
    /// of earlier versions keep the rules under which they were first processed, so that a replay gives the same results.
    #[serde(default)]
    pub rules: u32,
}

impl Settings {
    /// Version of the rules for new records. 0 are the rules of versions that did not record one.
    pub const RULES: u32 = 1;

    /// Whether records are processed under rules 1, which treat devices as they are in the field: a backlog beside live
    /// data, clocks that step, sequence numbers that come again, absent values.
    #[inline]
    pub fn has_field_rules(&self) -> bool {
        self.rules >= 1
    }

    /// The stored form, JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Settings hold nothing that JSON cannot express. Were it ever so, reading them back would fail with a message.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// JSON that is not of settings, or a window size below 1 ms.
    pub fn from_json(json: &[u8]) -> Result<Self, DecodeError> {
        let settings: Self =
            serde_json::from_slice(json).map_err(|_| DecodeError::Content("settings that cannot be read"))?;
        if settings.window_ms < 1 { Err(DecodeError::Content("a window size below 1 ms")) } else { Ok(settings) }
    }
}

impl Default for Settings {
    /// The defaults of config.toml.
    fn default() -> Self {
        Self {
            telemetry_topics: vec!["devices/+/telemetry".into()],
            error_topics: vec!["devices/+/errors".into()],
            timestamp_unit: TimestampUnit::Auto,
            numeric_strings: false,
            sequence_bits: SequenceBits::Auto,
            max_readings_per_message: 1024,
            max_future_ms: Some(300_000),
            max_age_ms: Some(7 * 86_400_000),
            allowed_devices: Vec::new(),
            metrics: BTreeMap::new(),
            dedup: true,
            window_ms: 5_000,
            watermark: WatermarkScope::Device,
            out_of_orderness_ms: 2_000,
            allowed_lateness_ms: 30_000,
            idle_timeout_ms: Some(10_000),
            backlog: true,
            max_backlog_windows_per_device: 1_024,
            max_backlog_windows: 262_144,
            max_devices: 100_000,
            max_devices_per_user: Some(50_000),
            max_new_devices_per_hour: Some(20_000),
            max_metrics_per_device: 256,
            device_ttl_ms: Some(30 * 86_400_000),
            store_duplicates: false,
            tenants: Vec::new(),
            records_name_users: true,
            time_source: TimeSource::Event,
            timezone: String::new(),
            errors_in_proportion: true,
            error_share: Some(ErrorShareSettings { bytes: 26_843_545, refill_ms: 7 * 86_400_000 }),
            maps: Vec::new(),
            rules: Self::RULES,
        }
    }
}
