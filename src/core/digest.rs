//! The digest by which a reading that is sent again is known.
//!
//! It is of what weir reads of an element: event time, metrics and values, `boot`, text of a fault, each as it is written.
//! So it is the same whether the element comes alone or in an array, and whatever else the object says. Two different elements
//! have the same digest with a probability of 1 in 2 billion: 31 of its bits are remembered. Digests are part of the checkpoint format.

use crate::core::decode::{ElementFields, MetricEntry, MetricsField};
use crate::core::hash::with_text;
use crate::core::json::JsonToken;

/// Stands for a value that is not there.
const ABSENT: u64 = "nothing".len() as u64;

/// The digest of an element. `entries` are those of its message.
#[inline(never)]
pub(super) fn element_digest(fields: &ElementFields<'_>, entries: &[MetricEntry<'_>]) -> u32 {
    // One after another: a loop over the fields costs twice as much.
    let mut hash = with_token(0, &fields.timestamp);
    hash = with_token(hash, &fields.other_time);
    hash = with_token(hash, &fields.metric);
    hash = with_token(hash, &fields.value);
    hash = with_token(hash, &fields.boot);
    if let MetricsField::Entries(range) = &fields.metrics {
        for entry in entries.get(range.clone()).unwrap_or_default() {
            hash = with_token(with_text(hash, entry.metric.as_bytes()), &entry.value);
        }
    }
    if let Some(error) = &fields.error {
        hash = with_text(hash ^ 1, error.as_bytes());
    }
    (hash ^ (hash >> 32)) as u32
}

/// Adds a token to a hash. Its kind counts too: `1` is not `"1"`.
#[inline(always)]
fn with_token(hash: u64, token: &JsonToken<'_>) -> u64 {
    match token {
        JsonToken::Number(number) => with_text(hash, number.text().as_bytes()),
        JsonToken::Absent => hash.rotate_left(5) ^ ABSENT,
        JsonToken::Text(text) => with_text(hash ^ 1, text.as_bytes()),
        JsonToken::Bool(value) => (hash ^ u64::from(*value)).rotate_left(9),
        JsonToken::Computed(value) | JsonToken::Measured(value, _) => {
            with_text(hash ^ 2, &value.to_bits().to_le_bytes())
        }
        JsonToken::UnixMs(time_ms) => with_text(hash ^ 3, &time_ms.to_le_bytes()),
        // Values that are no readings. Their kinds have names of different lengths.
        other => hash.rotate_left(5) ^ other.kind().len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::decode::{DecodeRules, DecodedMessage, MessageElement};

    /// The digests of the elements of a message.
    fn digests(payload: &str) -> Vec<u32> {
        let mut message = DecodedMessage::default();
        message.decode(payload.as_bytes(), DecodeRules { max_readings: 100, lenient: true }).unwrap();
        let single = message.single().into_iter();
        let others = message.elements.iter().filter_map(|element| match element {
            MessageElement::Object(fields) => Some(fields),
            MessageElement::Other(_) => None,
        });
        single.chain(others).map(|fields| element_digest(fields, &message.entries)).collect()
    }

    const READING: &str = r#"{"metric":"m","value":1.5,"timestamp":17,"seq":3}"#;
    const METRICS: &str = r#"{"timestamp":17,"metrics":{"a":1,"b":2},"seq":3}"#;

    #[test]
    fn the_same_reading_has_the_same_digest_wherever_it_is() {
        let (reading, metrics) = (digests(READING)[0], digests(METRICS)[0]);
        assert_eq!(digests(&format!("[{READING}, {METRICS}]")), [reading, metrics]);
        assert_eq!(digests(r#" { "seq":3, "timestamp":17,"rssi":-70, "value":1.5,"metric":"m"}"#), [reading]);
    }

    #[test]
    fn whatever_differs_counts() {
        let mut all: Vec<u32> = [
            READING,
            METRICS,
            r#"{"metric":"m","value":1.5,"timestamp":18,"seq":3}"#,
            r#"{"metric":"m","value":1.5,"timestamp":"17","seq":3}"#,
            r#"{"metric":"m","value":1.5,"seq":3}"#,
            r#"{"metric":"m","value":1.6,"timestamp":17,"seq":3}"#,
            r#"{"metric":"m","value":true,"timestamp":17,"seq":3}"#,
            r#"{"metric":"m","value":false,"timestamp":17,"seq":3}"#,
            r#"{"metric":"n","value":1.5,"timestamp":17,"seq":3}"#,
            r#"{"metric":"m","value":1.5,"timestamp":17,"seq":3,"boot":1}"#,
            r#"{"metric":"m","value":1.5,"timestamp":17,"seq":3,"error":"E1"}"#,
            r#"{"metric":"m","value":1.5,"timestamp":17,"seq":3,"error":"E2"}"#,
            r#"{"timestamp":17,"metrics":{"a":1,"b":3},"seq":3}"#,
            r#"{"timestamp":17,"metrics":{"a":1,"c":2},"seq":3}"#,
            r#"{"timestamp":17,"metrics":{"a":1},"seq":3}"#,
        ]
        .iter()
        .map(|payload| digests(payload)[0])
        .collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
