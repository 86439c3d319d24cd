//! What a map makes of a message, in the form that is printed and compared.

use serde::Serialize;

use weir::core::formats::{Ignored, MapProblem, MappedMessage, MappedStatus, MappedTime, MappedValue};

use super::message::TrialMessage;

/// A reading as it is printed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownReading {
    device_id: String,
    metric: String,
    value: f64,
    /// `None`: the arrival.
    timestamp_ms: Option<i64>,
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
}

/// What a map makes of a message.
#[derive(Debug, Default)]
pub struct TrialOutcome {
    /// Readings, in the order of the message.
    pub readings: Vec<ShownReading>,
    /// Reason and sentence of each error.
    errors: Vec<(&'static str, String)>,
    ignored: Vec<(Ignored, u32)>,
    ignored_keys: Vec<String>,
    status: Option<(String, bool)>,
    /// Devices that are offline with that of `status`.
    offline: Vec<Box<str>>,
    rebirth: Option<String>,
}

impl TrialOutcome {
    /// What became of a message.
    pub fn new(mapped: Result<MappedMessage<'_>, MapProblem>) -> Self {
        let mapped = match mapped {
            Ok(mapped) => mapped,
            Err(MapProblem::Malformed(sentence)) => {
                return Self { errors: vec![("malformed", sentence)], ..Self::default() };
            }
        };
        let mut outcome = Self {
            ignored: mapped.ignored,
            ignored_keys: mapped.ignored_keys.iter().map(ToString::to_string).collect(),
            status: mapped.status.map(|MappedStatus { device, online }| (device.into_owned(), online)),
            offline: mapped.offline,
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
                    (Some((reason, sentence)), _) => outcome.errors.push((reason.as_str(), sentence)),
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

    /// Nothing: the message is one of `ignore`.
    pub fn ignored_topic() -> Self {
        Self { ignored: vec![(Ignored::Topic, 1)], ..Self::default() }
    }

    /// Number of errors.
    pub fn errors(&self) -> usize {
        self.errors.len()
    }

    /// One line for each reading, for what was ignored, each error and the liveness.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.readings.iter().map(json).collect();
        if !self.ignored.is_empty() {
            let counts: Vec<String> =
                self.ignored.iter().map(|(reason, count)| format!("{} {count}", reason.as_str())).collect();
            let keys = self.ignored_keys.join(", ");
            let keys = if keys.is_empty() { keys } else { format!(" ({keys})") };
            lines.push(format!("ignored: {}{keys}", counts.join(", ")));
        }
        lines.extend(self.errors.iter().map(|(reason, sentence)| format!("error: {reason}: {sentence}")));
        if let Some((device, online)) = &self.status {
            lines.push(format!("status: {device} is {}", liveness(*online)));
        }
        lines.extend(self.offline.iter().map(|device| format!("status: {device} is offline")));
        lines.extend(self.rebirth.iter().map(|node| format!("rebirth: weir asks {node} for its births")));
        lines
    }

    /// What differs from what the line expects, one line each; none where it expects nothing.
    pub fn differences(&self, message: &TrialMessage, arrival_ms: i64) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(expected) = &message.expect {
            let mut left: Vec<ShownReading> =
                self.readings.iter().map(|reading| reading.compared(arrival_ms)).collect();
            for expected in expected {
                let expected = ShownReading {
                    device_id: expected.device_id.clone(),
                    metric: expected.metric.clone(),
                    value: expected.value,
                    timestamp_ms: Some(expected.timestamp_ms.unwrap_or(arrival_ms + expected.relative_ms)),
                    seq: expected.seq,
                    unit: None,
                };
                match left.iter().position(|reading| *reading == expected) {
                    Some(found) => drop(left.swap_remove(found)),
                    None => lines.push(format!("missing: {}", json(&expected))),
                }
            }
            lines.extend(left.iter().map(|reading| format!("not expected: {}", json(reading))));
            lines.extend(self.error_differences(&message.error));
        }
        if let Some(expected) = &message.status
            && self.status.as_ref() != Some(&(expected.device_id.clone(), expected.online))
        {
            lines.push(format!("missing: status: {} is {}", expected.device_id, liveness(expected.online)));
        }
        lines
    }

    fn error_differences(&self, expected: &[String]) -> Vec<String> {
        let missing = expected.iter().filter(|reason| !self.errors.iter().any(|(found, _)| found == reason));
        let surplus = self.errors.iter().filter(|(found, _)| !expected.iter().any(|reason| reason == found));
        let missing = missing.map(|reason| format!("missing: error {reason}"));
        missing.chain(surplus.map(|(reason, _)| format!("not expected: error {reason}"))).collect()
    }
}

impl ShownReading {
    /// Without what is not compared, and with the arrival as its time where it has none.
    fn compared(&self, arrival_ms: i64) -> Self {
        Self { timestamp_ms: Some(self.timestamp_ms.unwrap_or(arrival_ms)), unit: None, ..self.clone() }
    }
}

fn json(reading: &ShownReading) -> String {
    // Unreachable: a reading has no keys that are no texts.
    serde_json::to_string(reading).unwrap_or_default()
}

fn liveness(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}
