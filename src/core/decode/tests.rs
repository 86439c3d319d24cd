//! Decodes payloads of all forms.

use proptest::prelude::*;

use super::*;

fn decode(payload: &[u8]) -> Result<DecodedMessage<'_>, MalformedMessage> {
    let mut message = DecodedMessage::default();
    message.decode(payload, 4).map(|()| message)
}

fn fields(payload: &str) -> ElementFields<'_> {
    decode(payload.as_bytes()).unwrap().single().unwrap().clone()
}

fn number(token: &JsonToken<'_>) -> f64 {
    match token {
        JsonToken::Number(number) => number.to_f64(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_forms() {
    let fields =
        fields(r#"{"device_id":"a","metric":"m","value":1.5,"timestamp":"x","seq":7,"boot":2,"other":[{}]}"#);
    assert_eq!(fields.device_id, JsonToken::Text("a".into()));
    assert_eq!(fields.metric, JsonToken::Text("m".into()));
    assert_eq!(number(&fields.value), 1.5);
    assert_eq!(fields.timestamp, JsonToken::Text("x".into()));
    assert_eq!(number(&fields.seq), 7.0);
    assert_eq!(number(&fields.boot), 2.0);
    assert_eq!((fields.metrics, fields.error), (MetricsField::Absent, None));
    let message = decode(br#"[{"metrics":{"a":1,"b":true}},{"value":3},4]"#).unwrap();
    assert_eq!(message.elements.len(), 3);
    assert_eq!(message.entries.len(), 2);
    assert_eq!(message.elements[2], MessageElement::Other("a number"));
}

#[test]
fn the_last_of_equal_keys_counts() {
    assert_eq!(number(&fields(r#"{"value":"x","value":2}"#).value), 2.0);
    let message = decode(br#"{"metrics":{"a":1,"b":2,"a":3}}"#).unwrap();
    let seen: Vec<_> = message.entries.iter().map(|e| (e.metric.as_ref(), number(&e.value))).collect();
    assert_eq!(seen, [("b", 2.0), ("a", 3.0)]);
    assert_eq!(fields(r#"{"metrics":{"a":1},"metrics":null}"#).metrics, MetricsField::Absent);
    assert_eq!(fields(r#"{"error":"x","error":null}"#).error, None);
}

#[test]
fn overwriting_among_many_entries() {
    let mut message = DecodedMessage::default();
    message.decode(br#"{"metrics":{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"c":10}}"#, 20).unwrap();
    let names: String = message.entries.iter().map(|e| e.metric.as_ref()).collect();
    assert_eq!(names, "abdefghic");
}

#[test]
fn faults() {
    assert_eq!(fields(r#"{"error":"E42"}"#).error.as_deref(), Some("E42"));
    assert_eq!(fields(r#"{"error": {"code": 7} }"#).error.as_deref(), Some(r#"{"code": 7}"#));
    assert_eq!(fields(r#"{"error":17}"#).error.as_deref(), Some("17"));
    assert_eq!(fields(r#"{"error":null,"value":1}"#).error, None);
    assert_eq!(fields(r#"{"error":false,"value":1}"#).error, None);
}

#[test]
fn malformed_messages() {
    let check = |payload: &[u8], expected: &str| {
        assert_eq!(decode(payload).unwrap_err().to_string(), expected);
    };
    check(b"\xff", "the payload is not UTF-8 at byte 0; send JSON text");
    check(b"", "the payload is not valid JSON at byte 0: the text ends where a JSON value is expected");
    check(b"{} x", "the payload is not valid JSON at byte 3: nothing may follow the JSON value");
    check(b"42", "the payload is a number; send an object with a reading, or an array of such objects");
    check(b"[]", "the payload is an array without readings");
    let too_many = "the message has more than 4 readings (ingest.max_readings_per_message); send several messages";
    check(b"[{},{},{},{},{}]", too_many);
    check(br#"{"metrics":{"a":1,"b":2,"c":3,"d":4,"e":5}}"#, too_many);
    check(br#"[{"metrics":{"a":1,"b":2,"c":3}},{"metrics":{"a":1,"b":2}}]"#, too_many);
    assert!(decode(br#"[{"metrics":{"a":1,"b":2,"c":3}},{}]"#).is_ok());
}

/// A scalar as `serde_json` sees it.
fn scalar(token: &JsonToken<'_>) -> serde_json::Value {
    match token {
        JsonToken::Absent => "absent".into(),
        JsonToken::Null => serde_json::Value::Null,
        JsonToken::Bool(value) => (*value).into(),
        JsonToken::Number(number) => number.to_f64().into(),
        JsonToken::Text(text) => text.as_ref().into(),
        JsonToken::Array => serde_json::json!([]),
        JsonToken::Object => serde_json::json!({}),
    }
}

fn any_scalar() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-1e9f64..1e9).prop_map(Into::into),
        "[ -~äß\\n]{0,20}".prop_map(Into::into),
    ]
}

proptest! {
    /// Keys that are compared as a whole and keys that are scanned mean the same, and the last of equal ones counts.
    #[test]
    fn agrees_with_serde_json(
        members in prop::collection::vec(
            (prop::sample::select(vec!["device_id", "metric", "value", "timestamp", "seq", "boot", "x"]), any_scalar()),
            0..10,
        ),
        spaces in prop::sample::select(vec![("", ""), ("", " "), (" ", ""), ("\n", "\t")]),
    ) {
        let texts: Vec<_> = members
            .iter()
            .map(|(key, value)| format!("{}{key:?}{}:{}{value}", spaces.1, spaces.0, spaces.1))
            .collect();
        let text = format!("{}{{{}}}", spaces.0, texts.join(","));
        let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fields = fields(&text);
        for (key, token) in [
            ("device_id", &fields.device_id),
            ("metric", &fields.metric),
            ("value", &fields.value),
            ("timestamp", &fields.timestamp),
            ("seq", &fields.seq),
            ("boot", &fields.boot),
        ] {
            let expected = expected.get(key).cloned().unwrap_or("absent".into());
            prop_assert_eq!(scalar(token), expected, "{} of {}", key, text);
        }
    }
}

#[test]
fn depth_counts_from_the_outside() {
    let nested = |levels: usize| format!(r#"[{{"x":{}{}}}]"#, "[".repeat(levels), "]".repeat(levels));
    assert!(decode(nested(6).as_bytes()).is_ok());
    assert!(matches!(decode(nested(7).as_bytes()), Err(MalformedMessage::Syntax(_))));
}
