//! Decodes payloads of all forms.

use proptest::prelude::*;

use super::*;

const RULES: DecodeRules = DecodeRules { max_readings: 4, lenient: true };

fn decode(payload: &[u8]) -> Result<DecodedMessage<'_>, MalformedMessage> {
    let mut message = DecodedMessage::default();
    message.decode(payload, RULES).map(|()| message)
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
    let fields = fields(r#"{"device_id":"a","metric":"m","value":1.5,"timestamp":"x","seq":7,"boot":2,"other":[{}]}"#);
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
    let rules = DecodeRules { max_readings: 20, lenient: false };
    message.decode(br#"{"metrics":{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"c":10}}"#, rules).unwrap();
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
    assert_eq!(fields(r#"{"error":NaN,"value":1}"#).error, None);
    assert_eq!(fields(r#"{"error":None}"#).error, None);
}

#[test]
fn bare_words_are_no_values() {
    let message =
        fields(r#"{"device_id":undefined,"metric":None,"value":NaN,"seq":nan,"boot":None,"metrics":{"a":1}}"#);
    assert!(message.has_reading());
    assert_eq!(message.indexes(false), 1);
    assert_eq!(fields(r#"{"metrics":None,"metric":"t","value":1}"#).metrics, MetricsField::Absent);
}

/// What becomes of a payload: its number of readings, or the sentence of its error.
fn outcome(payload: &[u8], rules: DecodeRules) -> Result<usize, String> {
    let mut message = DecodedMessage::default();
    let readings = |message: &DecodedMessage<'_>| {
        let several = message.elements.len() + message.entries.len();
        if message.single().is_some() { several.max(1) } else { several }
    };
    match message.decode(payload, rules) {
        Ok(()) => Ok(readings(&message)),
        Err(malformed) => {
            let recovered = RecoveredText::of(payload, rules, malformed).map_err(|malformed| malformed.to_string())?;
            let mut message = DecodedMessage::default();
            recovered.decode(&mut message, rules).map_err(|malformed| malformed.to_string())?;
            Ok(readings(&message))
        }
    }
}

fn check_malformed(payload: &[u8], expected: &str) {
    let sentence = outcome(payload, RULES).unwrap_err();
    assert!(sentence.contains(expected), "{:?}: {sentence}", String::from_utf8_lossy(payload));
}

#[test]
fn malformed_messages() {
    check_malformed(b"\xff", "not UTF-8 at byte 0; send JSON text in UTF-8");
    check_malformed(b"", "the payload is empty");
    check_malformed(b"[]", "an array without readings");
    check_malformed(b"null", "the payload is null; send an object with a reading");
    let too_many = "more than 4 readings (ingest.max_readings_per_message); send several messages";
    check_malformed(b"[{},{},{},{},{}]", too_many);
    check_malformed(br#"{"metrics":{"a":1,"b":2,"c":3,"d":4,"e":5}}"#, too_many);
    check_malformed(br#"[{"metrics":{"a":1,"b":2,"c":3}},{"metrics":{"a":1,"b":2}}]"#, too_many);
    assert!(decode(br#"[{"metrics":{"a":1,"b":2,"c":3}},{}]"#).is_ok());
}

/// The payload is malformed, the sentence has `advice`, and `mended` follows it.
fn check_advice(payload: &[u8], advice: &str, mended: &[u8]) {
    check_malformed(payload, advice);
    assert!(outcome(mended, RULES).is_ok(), "{advice}: {:?}", outcome(mended, RULES));
}

const GOOD: &[u8] = br#"{"metric":"t","value":1}"#;

#[test]
fn the_advice_about_payloads_helps() {
    check_advice(b"", "send JSON", GOOD);
    check_advice(b" \r\n\0", "only white space and NULs; send JSON", GOOD);
    check_advice(
        br#"{"metric":"t","value":1"#,
        "ends after 23 bytes, where the JSON is not complete; send all of it",
        GOOD,
    );
    check_advice(b"{\"metric\":\"t\0\0", "ends after 12 bytes", GOOD);
    check_advice(br#"[{"metric":"t","value":1},"#, "ends after 26 bytes", br#"[{"metric":"t","value":1}]"#);
    check_advice(br#"{"metric":"t","value":tru"#, "ends after 25 bytes", br#"{"metric":"t","value":true}"#);
    check_advice(br#"{"metric":"t","value":1,"x":nul"#, "ends after 31 bytes", GOOD);
    check_advice(br#"{"metric":"t","value":1.""#, "decimal point", GOOD);
    check_advice(br#"{"metric":"t","value":1."#, "ends after 24 bytes", GOOD);
    check_advice(&[GOOD, b",\r\n"].concat(), "the comma before byte 25 has nothing after it; leave it out", GOOD);
    check_advice(br#"{"metric":"t","value":1,}"#, "the comma before byte 24 has nothing after it; leave it out", GOOD);
    check_advice(br#"[{"metric":"t","value":1}, ]"#, "leave it out", br#"[{"metric":"t","value":1} ]"#);
    check_advice(b"{'metric': 't', 'value': 1}", "single quotes at byte 1; send double quotes", GOOD);
    check_advice(b"{\"metric\": 't', \"value\": 1}", "single quotes at byte 11", GOOD);
    check_advice(b"{metric: \"t\", value: 1}", "the key at byte 1 has no quotes; put it in double quotes", GOOD);
    let two = [GOOD, GOOD].concat();
    check_advice(&two, "send an array of objects", &[b"[", GOOD, b",", GOOD, b"]"].concat());
    check_advice(&two, "each object on a line of its own", &[GOOD, b"\n", GOOD].concat());
    check_advice(&[GOOD, b",", GOOD].concat(), "ends before byte 24, and more follows; send an array", GOOD);
    check_advice(b"42", "a number alone; send it with its metric", br#"{"metric":"t","value":42}"#);
    check_advice(b"ON", "text that is no JSON; send JSON", GOOD);
    check_advice(b"<t>1</t>", "XML; send JSON", GOOD);
    check_advice(b"weather,room=a t=21.5 1732098765123", "line protocol of InfluxDB; send JSON", GOOD);
    check_advice(b"\xa1\x61t\xfb\x40\x35\x80\0\0\0\0\0", "CBOR; send JSON", GOOD);
    check_advice(b"\x81\xa1t\x01", "MessagePack; send JSON", GOOD);
    check_advice(b"\x0a\x01t\x10\x01", "Protocol Buffers (as in Sparkplug B); send JSON", GOOD);
    check_advice(b"\x28\xb5\x2f\xfd\x04", "Zstandard, which weir does not unpack; compress it with gzip", GOOD);
    check_advice(&[GOOD, b"'"].concat(), "at byte 24: nothing may follow", GOOD);
    check_advice(b"\xff\xfe{\0}\0", "UTF-16; send JSON text in UTF-8", GOOD);
    check_advice(b"{\0\"\0a\0", "UTF-16", GOOD);
    check_advice(b"\0[\0{\0\"", "UTF-16", GOOD);
    check_advice(&[b"\0", GOOD].concat(), "text that is no JSON", GOOD);
    check_advice(br#"{"metric":"t","value":ON}"#, "at byte 22: expected a JSON value", GOOD);
    let example = r#"{"metric":"temperature","value":21.5}"#;
    check_malformed(b"1", example);
    assert!(outcome(example.as_bytes(), RULES).is_ok());
}

#[test]
fn what_stands_around_the_json_is_passed_over() {
    let check = |payload: &[u8]| assert_eq!(outcome(payload, RULES), Ok(1), "{payload:?}");
    check(&[b"\xef\xbb\xbf", GOOD].concat());
    check(&[GOOD, b"\0"].concat());
    check(&[GOOD, b"\r\n\0\0 \0"].concat());
    check(&[GOOD, b"\x0b"].concat());
    check(&[GOOD, b"\x0c"].concat());
    check(&[GOOD, b"\r\n\x0b\0\t\x0c "].concat());
    check(&[b"\xef\xbb\xbf", GOOD, b"\x0c\0"].concat());
    check_malformed(&[GOOD, b"\x0c\x0bx"].concat(), "nothing may follow");
    check(&[b"\xef\xbb\xbf ", GOOD, b"\r\n"].concat());
    check_malformed(&[GOOD, b"\0x"].concat(), "nothing may follow");
    check_malformed(b"\xef\xbb\xbf{\"metric\":}", "at byte 13");
}

#[test]
fn bytes_that_are_no_utf8_matter_only_where_they_are_needed() {
    let check = |payload: &[u8]| assert_eq!(outcome(payload, RULES), Ok(1), "{payload:?}");
    check(b"{\"metric\":\"t\",\"value\":1,\"unit\":\"\xb0C\"}");
    check(b"{\"\xb0\":[{\"\xe4\":\"\xff\"}],\"metric\":\"t\",\"value\":1}");
    check(b"\xef\xbb\xbf{\"metric\":\"t\",\"value\":1,\"unit\":\"\xb0C\"}");
    check(b"{\"metric\":\"t\",\"value\":1,\"note\":\"a\tb\"}");
    check_malformed(b"{\"metric\":\"t\",\xb0\"value\":1}", "not UTF-8 at byte 14");
    check_malformed(b"[\xb0]", "not UTF-8 at byte 1");
    // What stands for such a byte is no such byte where the device sends it.
    check_malformed(&[GOOD, b"\x1a"].concat(), "at byte 24: nothing may follow");
    check_malformed(&[GOOD, b"\xff"].concat(), "not UTF-8 at byte 24");
    let strict = DecodeRules { lenient: false, ..RULES };
    assert!(
        outcome(b"{\"metric\":\"t\",\"value\":1,\"unit\":\"\xb0C\"}", strict).unwrap_err().contains("UTF-8 at byte 32")
    );
}

#[test]
fn halves_of_surrogate_pairs_matter_only_where_they_are_needed() {
    let check = |text: &str, expected: &str| {
        let payload = format!(r#"{{"metric":"{text}","value":1,"note":"{text}","{text}":1}}"#);
        assert_eq!(fields(&payload).metric, JsonToken::Text(expected.into()), "{text}");
        let strict = DecodeRules { lenient: false, ..RULES };
        assert_eq!(outcome(payload.as_bytes(), strict).is_err(), expected.contains('\u{1a}'), "{text}");
    };
    check(r"\ud83d\ude00", "\u{1f600}");
    check(r"\ud83d", "\u{1a}");
    check(r"\udcb0C", "\u{1a}C");
    check(r"\ud83d\n", "\u{1a}\n");
    check(r"\ud83d\u0041", "\u{1a}A");
    check(r"\ud83d\ud83d\ude00", "\u{1a}\u{1f600}");
    check_malformed(br#"{"metric":"t","value":1,"note":"\ud83d\u00"}"#, "four hexadecimal digits");
    check_malformed(br#"{"metric":"t","value":1,"note":"\ud83d\x"}"#, "unknown escape");
}

#[test]
fn lines_of_objects_are_a_backlog() {
    let check = |payload: &[u8], expected| assert_eq!(outcome(payload, RULES).ok(), expected, "{payload:?}");
    check(&[GOOD, b"\n", GOOD, b"\n"].concat(), Some(2));
    check(&[GOOD, b"\r\n \t", GOOD, b"\r\n\r\n", GOOD].concat(), Some(3));
    check(&[GOOD, b"\n", GOOD, b" ", GOOD].concat(), None);
    check(&[GOOD, b"\n", GOOD, b"\n[", GOOD, b"]"].concat(), None);
    check(&[b"[", GOOD, b"]\n", GOOD].concat(), None);
    let lines: Vec<u8> = std::iter::repeat_n([GOOD, b"\n"].concat(), 5).flatten().collect();
    check_malformed(&lines, "more than 4 readings");
    let nested = |levels: usize| format!("{{}}\n{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    check(nested(7).as_bytes(), Some(2));
    check(nested(8).as_bytes(), None);
}

#[test]
fn compressed_payloads_are_unpacked() {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(outcome(&gzip(GOOD), RULES), Ok(1));
    assert_eq!(outcome(&gzip(&[b"\xef\xbb\xbf", GOOD, b"\n", GOOD].concat()), RULES), Ok(2));
    check_malformed(&gzip(b"{\"a\":"), "unpacked from gzip, the payload ends after 5 bytes");
    check_malformed(&gzip(b"42"), "unpacked from gzip, the payload is a number alone");
    check_malformed(&gzip(GOOD)[..20], "compressed with gzip, and it ends before it is complete; send all of it");
    check_malformed(&gzip(&gzip(GOOD)), "unpacked from gzip, the payload is compressed with gzip once more");
    check_malformed(&gzip(b"\xa1\x61t\x01"), "unpacked from gzip, the payload looks like CBOR");
    check_malformed(&gzip(b" \n"), "unpacked from gzip, the payload has only white space and NULs");
    check_malformed(&gzip(b""), "unpacked from gzip, the payload has only white space and NULs");
    check_malformed(&gzip(b"\xff\xfe{\0}\0"), "unpacked from gzip, the payload looks like UTF-16");
    // Text that looks like JSON is no other format, also where its first bytes are some.
    let note = |len: usize| format!("\n{{\"metric\":\"t\",\"value\":1,\"note\":\"\u{1}{}\"}}", "x".repeat(len));
    for len in 0..200 {
        assert_eq!(outcome(&gzip(note(len).as_bytes()), RULES), Ok(1), "{len}");
        assert_eq!(outcome(format!("\u{feff}{}", note(len)).as_bytes(), RULES), Ok(1), "{len}");
    }
    check_malformed(&gzip(b"\xff\0"), "unpacked from gzip, the payload is not UTF-8 at byte 0");
    let strict = DecodeRules { lenient: false, ..RULES };
    assert!(outcome(&gzip(GOOD), strict).unwrap_err().contains("not UTF-8 at byte 1"));
}

/// `08 1d` begins a payload of zlib with a small window, and one of Protocol Buffers.
#[test]
fn what_only_begins_like_zlib_is_guessed() {
    let small_window = |bytes: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        [b"\x08\x1d", &encoder.finish().unwrap()[2..]].concat()
    };
    let whole = small_window(GOOD);
    assert_eq!(outcome(&whole, RULES), Ok(1));
    check_malformed(&small_window(b"42"), "unpacked from zlib, the payload is a number alone");
    check_malformed(&whole[..20], "compressed with zlib, and it ends before it is complete");
    check_malformed(&small_window(&vec![b' '; 1 << 20]), "compressed with zlib, and it unpacks to more than");
    check_malformed(b"\x08\x1d\x10\x01", "Protocol Buffers");
    check_malformed(b"\x08\x1d\x11\0\0\0\0\0\x80\x35\x40", "Protocol Buffers");
    check_malformed(b"x\x9c\x10\x01", "compressed with zlib");
}

#[test]
fn metrics_that_come_again_do_not_hide_others() {
    let check = |payload: &str, max_readings, expected: Result<usize, &str>| {
        let found = outcome(payload.as_bytes(), DecodeRules { max_readings, lenient: true });
        match expected {
            Ok(count) => assert_eq!(found, Ok(count), "{payload}"),
            Err(part) => assert!(found.as_ref().is_err_and(|sentence| sentence.contains(part)), "{payload}: {found:?}"),
        }
    };
    check(r#"{"metrics":{"a":1,"a":2,"b":3}}"#, 1, Err("more than 1 readings"));
    check(r#"{"metrics":{"a":1,"a":2,"b":3}}"#, 2, Ok(2));
    check(r#"{"metrics":{"a":1,"a":2,"a":3,"a":4,"a":5,"a":6,"b":7}}"#, 2, Ok(2));
    check(r#"{"metrics":{"a":1,"a":2,"a":3,"a":4,"a":5,"a":6,"a":7}}"#, 1, Ok(1));
    check(r#"{"metrics":{"a":1,"b":2,"c":3,"a":4,"b":5,"c":6,"a":7}}"#, 2, Err("more than 2 readings"));
    check(r#"[{"metrics":{"a":1,"b":2}},{"metrics":{"c":1,"c":2,"c":3,"c":4,"d":5}}]"#, 4, Ok(2 + 4));
    check(r#"[{"metrics":{"a":1,"b":2}},{"metrics":{"c":1,"c":2,"c":3,"c":4,"d":5}}]"#, 3, Err("more than 3"));
    check(r#"{"metrics":{"a":1,"b":2},"metrics":{"c":3}}"#, 2, Ok(1));
    check(r#"{"metrics":{"a":1,"b":2},"metrics":null,"metric":"c","value":1}"#, 1, Ok(1));
    check(r#"{"metrics":{"a":1,"b":2},"metrics":7}"#, 1, Ok(1));
    let many: Vec<String> = (0..5_000).map(|i| format!(r#""m{}":{i}"#, i % 7)).collect();
    let many = format!(r#"{{"metrics":{{{}}}}}"#, many.join(","));
    check(&many, 7, Ok(7));
    check(&many, 6, Err("more than 6"));
    let mut message = DecodedMessage::default();
    message.decode(many.as_bytes(), DecodeRules { max_readings: 7, lenient: true }).unwrap();
    let mut values: Vec<f64> = message.entries.iter().map(|entry| number(&entry.value)).collect();
    values.sort_by(f64::total_cmp);
    assert_eq!(values, [4993.0, 4994.0, 4995.0, 4996.0, 4997.0, 4998.0, 4999.0]);
    // What journals of earlier versions hold is decoded as it was.
    let strict = DecodeRules { max_readings: 1, lenient: false };
    assert_eq!(outcome(br#"{"metrics":{"a":1,"a":2,"b":3}}"#, strict), Ok(1));
}

#[test]
fn rules_0_are_strict() {
    let strict = DecodeRules { lenient: false, ..RULES };
    for payload in [
        [b"\xef\xbb\xbf", GOOD].concat(),
        [GOOD, b"\0"].concat(),
        [GOOD, b"\n", GOOD].concat(),
        br#"{"metric":"t","value":NaN}"#.to_vec(),
    ] {
        assert!(outcome(&payload, strict).is_err(), "{payload:?}");
    }
}

/// A scalar as `serde_json` sees it.
fn scalar(token: &JsonToken<'_>) -> serde_json::Value {
    match token {
        JsonToken::Absent => "absent".into(),
        JsonToken::Null => serde_json::Value::Null,
        JsonToken::Bool(value) => (*value).into(),
        JsonToken::Number(number) => number.to_f64().into(),
        JsonToken::Text(text) => text.as_ref().into(),
        JsonToken::BareWord => "a bare word".into(),
        JsonToken::Array => serde_json::json!([]),
        JsonToken::Object => serde_json::json!({}),
        of_map => of_map.kind().into(),
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
