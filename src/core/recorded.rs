//! Times of recorded messages, for `weir replay` of a file.

use crate::core::decode::{DecodedMessage, MessageElement};
use crate::core::json::JsonToken;
use crate::core::settings::TimestampUnit;
use crate::core::timestamp;

/// Times stated in a recorded message, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordedTimes {
    /// Time in the field `arrival`: when the message was received.
    pub arrival_ms: Option<i64>,
    /// Newest event time in the message.
    pub newest_event_ms: Option<i64>,
}

/// Reads the times of one message. A message that cannot be decoded has none.
pub fn times(payload: &[u8], unit: TimestampUnit) -> RecordedTimes {
    #[derive(serde::Deserialize)]
    struct RecordedLine {
        arrival: Option<i64>,
    }
    let mut message = DecodedMessage::default();
    if message.decode(payload, usize::MAX).is_err() {
        return RecordedTimes::default();
    }
    let in_array = message.elements.iter().filter_map(|element| match element {
        MessageElement::Object(fields) => Some(fields),
        MessageElement::Other(_) => None,
    });
    let objects = message.single().into_iter().chain(in_array);
    let event_times = objects.filter_map(|fields| event_time(&fields.timestamp, unit));
    let arrival_ms = serde_json::from_slice::<RecordedLine>(payload).ok().and_then(|line| line.arrival);
    RecordedTimes { arrival_ms, newest_event_ms: event_times.max() }
}

fn event_time(token: &JsonToken<'_>, unit: TimestampUnit) -> Option<i64> {
    match token {
        JsonToken::Number(number) => timestamp::from_number(number, unit),
        JsonToken::Text(text) => timestamp::from_text(text, unit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &str, arrival_ms: Option<i64>, newest_event_ms: Option<i64>) {
        let expected = RecordedTimes { arrival_ms, newest_event_ms };
        assert_eq!(times(payload.as_bytes(), TimestampUnit::Auto), expected, "{payload}");
    }

    #[test]
    fn the_newest_event_time_of_a_message_counts() {
        check(r#"{"timestamp":1700000000123,"value":1}"#, None, Some(1_700_000_000_123));
        check(r#"[{"timestamp":1700000000},{"timestamp":"2023-11-14T22:13:21Z"},3]"#, None, Some(1_700_000_001_000));
        check(r#"{"timestamp":-5,"arrival":1700000000999}"#, Some(1_700_000_000_999), Some(-5_000));
        check(r#"{"value":1}"#, None, None);
        check("no json", None, None);
    }
}
