//! What a map makes of a message, in the form that people see: in commands and in the live view.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::mapped::{Ignored, MappedMessage, MappedTime, MappedValue};
use super::{MapMatch, MapMemory, MapProblem, Maps};

/// A reading as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShownReading {
    /// Device id.
    pub device_id: String,
    /// Metric name.
    pub metric: String,
    /// The value.
    pub value: f64,
    /// Event time, Unix milliseconds; `None`: the arrival.
    pub timestamp_ms: Option<i64>,
    /// Sequence number.
    pub seq: Option<u64>,
    /// Unit, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// An error as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownError {
    /// Name of the reason.
    pub reason: String,
    /// What is wrong, a sentence.
    pub message: String,
}

/// Whether a device is online, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownStatus {
    /// Device id.
    pub device_id: String,
    /// Whether it is online.
    pub online: bool,
}

/// What a map makes of a message. It is what the message alone tells: ranges, ages, duplicates and late readings are not looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MappedOutcome {
    /// Readings, in the order of the message.
    pub readings: Vec<ShownReading>,
    /// Readings or parts that are wrong.
    pub errors: Vec<ShownError>,
    /// Numbers of values that were left out on purpose, by reason.
    pub ignored: BTreeMap<String, u32>,
    /// Keys of such values, at most 32.
    pub ignored_keys: Vec<String>,
    /// What the message says about the liveness of a device.
    pub status: Option<ShownStatus>,
    /// Devices that are offline with that of `status`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offline: Vec<String>,
    /// Edge node of Sparkplug B that is asked for its births: group and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebirth: Option<String>,
}

impl MappedOutcome {
    /// Nothing: the topic is one of `ignore`.
    pub fn ignored_topic() -> Self {
        Self { ignored: BTreeMap::from([(Ignored::Topic.as_str().to_owned(), 1)]), ..Self::default() }
    }

    fn malformed(message: String) -> Self {
        Self { errors: vec![ShownError { reason: "malformed".into(), message }], ..Self::default() }
    }

    fn new(mapped: MappedMessage<'_>) -> Self {
        let ignored = mapped.ignored.iter().map(|(reason, count)| (reason.as_str().to_owned(), *count));
        let mut outcome = Self {
            ignored: ignored.collect(),
            ignored_keys: mapped.ignored_keys.iter().map(ToString::to_string).collect(),
            status: mapped
                .status
                .map(|status| ShownStatus { device_id: status.device.into_owned(), online: status.online }),
            offline: mapped.offline.iter().map(ToString::to_string).collect(),
            rebirth: mapped.rebirth.map(|(group, node)| format!("{group}/{node}")),
            ..Self::default()
        };
        for element in &mapped.elements {
            let timestamp_ms = match element.time {
                MappedTime::At(time_ms) => Some(time_ms),
                _ => None,
            };
            for reading in &element.readings {
                match (element.rejection(reading), &reading.value) {
                    (Some((reason, message)), _) => {
                        outcome.errors.push(ShownError { reason: reason.as_str().to_owned(), message });
                    }
                    (None, MappedValue::Number(value)) => outcome.readings.push(ShownReading {
                        device_id: element.device.to_string(),
                        metric: reading.metric.to_string(),
                        value: *value,
                        timestamp_ms,
                        seq: element.seq,
                        unit: reading.unit.as_ref().map(ToString::to_string),
                    }),
                    // Unreachable: a value that is no number is rejected.
                    (None, _) => {}
                }
            }
        }
        outcome
    }
}

impl Maps {
    /// What a message of `topic`, which `found` takes, gives, as people see it. `arrival_ms` is when it arrived. What a discovery
    /// message says is remembered in `memory`, for the messages after it.
    pub fn show(
        &self,
        found: MapMatch,
        topic: &str,
        payload: &[u8],
        arrival_ms: i64,
        memory: &mut MapMemory,
    ) -> MappedOutcome {
        match self.map(found, topic, payload, arrival_ms, memory) {
            Ok(mapped) => {
                mapped.announcements.iter().for_each(|announcement| memory.announce(announcement, None));
                MappedOutcome::new(mapped)
            }
            Err(MapProblem::Malformed(sentence)) => MappedOutcome::malformed(sentence),
        }
    }
}
