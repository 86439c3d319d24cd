//! A map as it is configured, and as it is written into the journal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One map: which topics it takes, and how their messages become readings. Presets are merged in: every key has its value.
/// Maps are settings, so a replay maps each record as it was mapped first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MapSettings {
    /// Name in metrics, errors and commands.
    pub name: String,
    /// Patterns of topics that carry readings.
    pub topics: Vec<String>,
    /// Patterns of topics that carry none: they are passed to subscribers, not journaled, and counted.
    pub ignore: Vec<String>,
    /// Topics that tell whether a device is online.
    pub status: Option<StatusSettings>,
    /// Form of the payload.
    pub payload: PayloadFormat,
    /// Paths at which elements repeat; the first that finds any counts. Empty: the document is the element.
    pub each: Vec<String>,
    /// Values that an element must have, by path; others are ignored.
    pub when: BTreeMap<String, Vec<serde_json::Value>>,
    /// Template of the device id.
    pub device: String,
    /// Template of the metric name.
    pub metric: String,
    /// Path of a value, or of an object or array to flatten; empty: the element.
    pub value: String,
    /// Text between keys that are flattened.
    pub separator: String,
    /// Names of the elements of an array, by index.
    pub names: Vec<String>,
    /// Globs of flattened keys that are taken; empty: all.
    pub include: Vec<String>,
    /// Globs of flattened keys that are left out.
    pub exclude: Vec<String>,
    /// Other names for flattened keys.
    pub rename: BTreeMap<String, String>,
    /// Paths of the event time, the first that is there; empty: the arrival counts.
    pub time: Vec<String>,
    /// Unit of numeric times.
    pub time_unit: TimeUnit,
    /// IANA zone of times that name none; empty: UTC.
    pub timezone: String,
    /// Date, as `2015-01-01`, before which a time is that of a device without a clock.
    pub no_clock_before: String,
    /// Path of the sequence number; empty: none.
    pub seq: String,
    /// Width of the counter, 8, 16 or 32 bits; `None`: 64.
    pub seq_bits: Option<u8>,
    /// What a missing sequence number means.
    pub seq_default: Option<u64>,
    /// Path of what tells the runs of a device apart; empty: nothing does.
    pub boot: String,
    /// Factors by glob of flattened keys.
    pub scale: BTreeMap<String, f64>,
    /// Conversions of units.
    pub convert: Vec<Conversion>,
    /// Numbers that texts mean, besides on, off, true and false; without regard to case.
    pub words: BTreeMap<String, f64>,
    /// Numbers that say that there is no value, by glob of flattened keys.
    pub no_value: BTreeMap<String, Vec<f64>>,
    /// What becomes of other text in the place of a value.
    pub text: OtherText,
    /// What becomes of an empty payload.
    pub empty: EmptyPayload,
    /// What becomes of a retained message that comes again when its client connects.
    pub retained: RetainedRepeats,
    /// Whether an unknown alias makes weir ask the edge node for its births (Sparkplug B).
    pub rebirth: bool,
    /// Unit of metrics, by glob of flattened keys.
    pub units: BTreeMap<String, String>,
}

impl Default for MapSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            topics: Vec::new(),
            ignore: Vec::new(),
            status: None,
            payload: PayloadFormat::Json,
            each: Vec::new(),
            when: BTreeMap::new(),
            device: "{device}".into(),
            metric: "{key}".into(),
            value: String::new(),
            separator: ".".into(),
            names: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            rename: BTreeMap::new(),
            time: Vec::new(),
            time_unit: TimeUnit::Auto,
            timezone: String::new(),
            no_clock_before: "2015-01-01".into(),
            seq: String::new(),
            seq_bits: None,
            seq_default: None,
            boot: String::new(),
            scale: BTreeMap::new(),
            convert: Vec::new(),
            words: BTreeMap::new(),
            no_value: BTreeMap::new(),
            text: OtherText::Ignore,
            empty: EmptyPayload::Ignore,
            retained: RetainedRepeats::Once,
            rebirth: true,
            units: BTreeMap::new(),
        }
    }
}

/// Topics that tell whether a device is online.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StatusSettings {
    /// Patterns of the topics. Empty: messages of the map's own `topics`, where the text at `pointer` is one of the texts below;
    /// such a message carries no readings.
    pub topics: Vec<String>,
    /// Texts that mean online.
    pub online: Vec<String>,
    /// Texts that mean offline.
    pub offline: Vec<String>,
    /// Path of the text where the payload is JSON. A payload that is no JSON is the text itself.
    pub pointer: String,
    /// Template of the device id; empty: that of the map.
    pub device: String,
}

impl Default for StatusSettings {
    fn default() -> Self {
        Self {
            topics: Vec::new(),
            online: Vec::new(),
            offline: Vec::new(),
            pointer: "/state".into(),
            device: String::new(),
        }
    }
}

/// Form of a payload. gzip and zlib are told by their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum PayloadFormat {
    /// A JSON document.
    #[default]
    Json,
    /// One value.
    Scalar,
    /// Influx line protocol.
    Line,
    /// SenML in JSON (RFC 8428).
    Senml,
    /// SenML in CBOR (RFC 8428).
    SenmlCbor,
    /// Sparkplug B.
    SparkplugB,
    /// Data of RuuviTags in the JSON of a Ruuvi Gateway.
    Ruuvi,
}

/// Unit of numeric times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum TimeUnit {
    /// Told by the magnitude.
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

/// A conversion of units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Conversion {
    /// Globs of flattened keys.
    pub keys: Vec<String>,
    /// The unit that the device sends; empty where `unit_from` says it.
    pub from: String,
    /// Path of the unit that the device sends.
    pub unit_from: String,
    /// The unit of the readings: celsius, fahrenheit, kelvin, wh, kwh, hpa, pa.
    pub to: String,
}

/// What becomes of text that is no number and no word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OtherText {
    /// It is ignored and counted.
    #[default]
    Ignore,
    /// It is an error.
    Error,
}

/// What becomes of a payload of zero bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum EmptyPayload {
    /// It is ignored and counted.
    #[default]
    Ignore,
    /// It says that the device is offline.
    StatusOffline,
}

/// What becomes of retained messages that come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RetainedRepeats {
    /// They are state that comes again, and no readings.
    #[default]
    Once,
    /// They are readings.
    Count,
}
