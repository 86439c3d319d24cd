//! Times of recorded messages, for `weir replay` of a file.

use crate::core::decode::{DecodeRules, DecodedMessage, MessageElement};
use crate::core::event_time;
use crate::core::settings::Settings;
use crate::core::validate::ValidationRules;

/// Times stated in a recorded message, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordedTimes {
    /// Time in the field `arrival`: when the message was received.
    pub arrival_ms: Option<i64>,
    /// Newest event time in the message.
    pub newest_event_ms: Option<i64>,
}

/// Reads the times of recorded messages.
#[derive(Debug)]
pub struct RecordedTimesReader {
    settings: Settings,
    rules: ValidationRules,
}

impl RecordedTimesReader {
    /// A reader of messages that are processed under `settings`.
    pub fn new(settings: &Settings) -> Self {
        // Whether a time is near the arrival is not known before the arrival is.
        let settings = Settings { max_future_ms: None, max_age_ms: None, ..settings.clone() };
        Self { rules: ValidationRules::new(&settings), settings }
    }

    /// The times of one message. A message that cannot be decoded has none.
    pub fn times(&self, payload: &[u8]) -> RecordedTimes {
        #[derive(serde::Deserialize)]
        struct RecordedLine {
            arrival: Option<i64>,
        }
        let mut message = DecodedMessage::default();
        let rules = DecodeRules { max_readings: usize::MAX, ..DecodeRules::of(&self.settings) };
        if message.decode(payload, rules).is_err() {
            return RecordedTimes::default();
        }
        let in_array = message.elements.iter().filter_map(|element| match element {
            MessageElement::Object(fields) => Some(fields),
            MessageElement::Other(_) => None,
        });
        let objects = message.single().into_iter().chain(in_array);
        let arrival_ms = serde_json::from_slice::<RecordedLine>(payload).ok().and_then(|line| line.arrival);
        let event_times = objects.filter_map(|fields| {
            // Of a local time that comes twice, the first is meant unless the arrival says otherwise.
            let near_ms = arrival_ms.unwrap_or(i64::MIN);
            event_time::event_time(fields, &self.settings, &self.rules, near_ms, near_ms).ok().flatten()
        });
        RecordedTimes { arrival_ms, newest_event_ms: event_times.max() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &str, arrival_ms: Option<i64>, newest_event_ms: Option<i64>) {
        let expected = RecordedTimes { arrival_ms, newest_event_ms };
        let reader = RecordedTimesReader::new(&Settings { timezone: "Europe/Berlin".into(), ..Settings::default() });
        assert_eq!(reader.times(payload.as_bytes()), expected, "{payload}");
    }

    #[test]
    fn the_newest_event_time_of_a_message_counts() {
        check(r#"{"timestamp":1700000000123,"value":1}"#, None, Some(1_700_000_000_123));
        check(r#"[{"timestamp":1700000000},{"timestamp":"2023-11-14T22:13:21Z"},3]"#, None, Some(1_700_000_001_000));
        check(r#"{"timestamp":-5,"arrival":1700000000999}"#, Some(1_700_000_000_999), Some(-5_000));
        check(r#"{"value":1}"#, None, None);
        check(r#"{"ts":1700000000123,"value":nan}"#, None, Some(1_700_000_000_123));
        check(r#"{"timestamp":"2023-11-14 23:13:21"}"#, None, Some(1_700_000_001_000));
        check(r#"{"timestamp":"2026-10-25 02:30:00"}"#, None, Some(1_792_888_200_000));
        check("no json", None, None);
    }
}
