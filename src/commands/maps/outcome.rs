//! What a map makes of a message: the lines that are printed, and what differs from what is expected.

use weir::core::formats::{MappedOutcome, ShownReading, ShownStatus};

use super::message::TrialMessage;

/// One line for each reading, for what was ignored, each error and the liveness.
pub fn lines(outcome: &MappedOutcome) -> Vec<String> {
    let mut lines: Vec<String> = outcome.readings.iter().map(json).collect();
    lines.extend(ignored(outcome));
    lines.extend(outcome.errors.iter().map(|error| format!("error: {}: {}", error.reason, error.message)));
    lines.extend(outcome.status.iter().map(status));
    lines.extend(outcome.offline.iter().map(|device| format!("status: {device} is {}", liveness(false))));
    lines.extend(outcome.rebirth.iter().map(|node| format!("rebirth: weir asks {node} for its births")));
    lines
}

/// What was ignored, if anything was.
pub fn ignored(outcome: &MappedOutcome) -> Option<String> {
    if outcome.ignored.is_empty() {
        return None;
    }
    let counts: Vec<String> = outcome.ignored.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let keys = outcome.ignored_keys.join(", ");
    let keys = if keys.is_empty() { keys } else { format!(" ({keys})") };
    Some(format!("ignored: {}{keys}", counts.join(", ")))
}

/// What is said about the liveness of a device.
pub fn status(status: &ShownStatus) -> String {
    format!("status: {} is {}", status.device_id, liveness(status.online))
}

/// What differs from what the line expects, one line each; none where it expects nothing.
pub fn differences(outcome: &MappedOutcome, message: &TrialMessage, arrival_ms: i64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(expected) = &message.expect {
        let mut left: Vec<ShownReading> =
            outcome.readings.iter().map(|reading| compared(reading, arrival_ms)).collect();
        for expected in expected {
            let expected = ShownReading {
                device_id: expected.device_id.clone(),
                metric: expected.metric.clone(),
                value: expected.value,
                timestamp_ms: Some(expected.timestamp_ms.unwrap_or(arrival_ms + expected.relative_ms)),
                seq: expected.seq,
                unit: expected.unit.clone(),
            };
            match left.iter().position(|reading| is_expected(reading, &expected)) {
                Some(found) => drop(left.swap_remove(found)),
                None => lines.push(format!("missing: {}", json(&expected))),
            }
        }
        lines.extend(left.iter().map(|reading| format!("not expected: {}", json(reading))));
        lines.extend(error_differences(outcome, &message.error));
    }
    if let Some(expected) = &message.status
        && outcome.status != Some(ShownStatus { device_id: expected.device_id.clone(), online: expected.online })
    {
        lines.push(format!("missing: status: {} is {}", expected.device_id, liveness(expected.online)));
    }
    lines
}

fn error_differences(outcome: &MappedOutcome, expected: &[String]) -> Vec<String> {
    let missing = expected.iter().filter(|reason| !outcome.errors.iter().any(|error| error.reason == **reason));
    let surplus = outcome.errors.iter().filter(|error| !expected.contains(&error.reason));
    let missing = missing.map(|reason| format!("missing: error {reason}"));
    missing.chain(surplus.map(|error| format!("not expected: error {}", error.reason))).collect()
}

/// A reading with the arrival as its time where it has none.
fn compared(reading: &ShownReading, arrival_ms: i64) -> ShownReading {
    ShownReading { timestamp_ms: Some(reading.timestamp_ms.unwrap_or(arrival_ms)), ..reading.clone() }
}

/// Whether a reading is the expected one. The unit counts where one is expected.
fn is_expected(reading: &ShownReading, expected: &ShownReading) -> bool {
    let unit = expected.unit.clone().or_else(|| reading.unit.clone());
    *reading == ShownReading { unit, ..expected.clone() }
}

fn json(reading: &ShownReading) -> String {
    // Unreachable: a reading has no keys that are no texts.
    serde_json::to_string(reading).unwrap_or_default()
}

fn liveness(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}

/// The text with control characters escaped: it comes from messages.
pub fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
