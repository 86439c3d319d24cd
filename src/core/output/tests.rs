use proptest::prelude::*;

use super::*;
use crate::core::reason::Reason;

fn window() -> WindowResult<'static> {
    WindowResult {
        device_id: "gärät \"3\"",
        metric: "temperature",
        unit: None,
        window_start_ms: -5000,
        window_end_ms: 0,
        revision: 2,
        supersedes: Some(0),
        count: 3,
        sum: 0.1 + 0.2,
        mean: 21.0,
        min: -0.0,
        max: 1e300,
        first: f64::INFINITY,
        last: 5e-324,
        stddev: f64::NAN,
        flags: WindowFlags::default(),
    }
}

fn entry(payload: &[u8]) -> ErrorEntry<'_> {
    ErrorEntry {
        journal_position: 7,
        index: 1,
        arrival_ms: 1_732_098_765_123,
        reason: Reason::InvalidMetric,
        part: RejectedPart::Reading,
        message: "no".into(),
        device_id: Some("d"),
        metric: None,
        client_id: "c",
        topic: "t",
        own_device: None,
        user: None,
        payload,
        payload_bytes: 9,
        is_unseen: false,
        origin: None,
        is_cut: false,
        follows: None,
        folded: None,
    }
}

fn replayed(payload: &[u8]) -> ErrorEntry<'_> {
    let origin = ReplayOrigin { replay_of: 300, first_arrival_ms: -1 };
    ErrorEntry { part: RejectedPart::Message, origin: Some(origin), ..entry(payload) }
}

fn window_json(window: &WindowResult<'_>) -> String {
    let mut json = Vec::new();
    window.write_json(17, &mut json);
    String::from_utf8(json).unwrap()
}

#[test]
fn windows_as_json() {
    assert_eq!(
        window_json(&window()),
        r#"{"seq":17,"device_id":"gärät \"3\"","metric":"temperature","window_start":-5000,"window_end":0,"#.to_owned()
            + r#""revision":2,"count":3,"sum":0.30000000000000004,"mean":21.0,"min":-0.0,"max":1e+300,"first":null,"#
            + r#""last":5e-324,"stddev":null}"#
    );
    let json = window_json(&WindowResult { unit: Some("°C"), ..window() });
    assert!(json.contains(r#""metric":"temperature","unit":"°C","window_start":-5000,"#), "{json}");
    let flagged = |backlog, wrong_clock| WindowResult { flags: WindowFlags { backlog, wrong_clock }, ..window() };
    assert!(window_json(&flagged(true, false)).ends_with(r#""stddev":null,"backlog":true}"#));
    assert!(window_json(&flagged(false, true)).ends_with(r#""stddev":null,"wrong_clock":true}"#));
}

/// The bytes of formats 1 to 3. They must not change: another form is a new format.
#[test]
fn the_bytes_of_a_window() {
    let bytes_of = |flags| {
        let mut bytes = Vec::new();
        WindowResult { device_id: "d", metric: "m", flags, ..window() }.encode(&mut bytes);
        bytes
    };
    let floats = [0.1 + 0.2, 21.0, -0.0, 1e300, f64::INFINITY, 5e-324, f64::NAN];
    let fields = [b"\x01d\x01m\x8f\x4e\x88\x27\x02\x01\x03".to_vec(), floats.map(f64::to_le_bytes).concat()].concat();
    let flags = |backlog, wrong_clock| WindowFlags { backlog, wrong_clock };
    assert_eq!(bytes_of(flags(false, false)), [b"\x01", &fields[..]].concat());
    for (flags, byte) in [(flags(true, false), 1), (flags(false, true), 2), (flags(true, true), 3)] {
        let bytes = bytes_of(flags);
        assert_eq!(bytes, [b"\x02", &fields[..], &[byte]].concat());
        assert_eq!(WindowResult::decode(&bytes).unwrap().flags, flags);
        assert!(WindowResult::decode(&bytes[..bytes.len() - 1]).is_err(), "without its flags");
    }
    for (flags, byte) in [(flags(false, false), 0), (flags(false, true), 2)] {
        let mut bytes = Vec::new();
        WindowResult { device_id: "d", metric: "m", unit: Some("°C"), flags, ..window() }.encode(&mut bytes);
        assert_eq!(bytes, [b"\x03", &fields[..], &[byte, 3], "°C".as_bytes()].concat());
        let read = WindowResult::decode(&bytes).unwrap();
        assert_eq!((read.unit, read.flags), (Some("°C"), flags));
        assert!(WindowResult::decode(&bytes[..bytes.len() - 1]).is_err(), "without the end of its unit");
    }
    assert!(WindowResult::decode(&[b"\x03", &fields[..], &[0, 0]].concat()).is_err(), "an empty unit");
    for (byte, why) in [(0, "without flags"), (4, "a flag that format 2 does not have")] {
        assert!(WindowResult::decode(&[b"\x02", &fields[..], &[byte]].concat()).is_err(), "{why}");
    }
}

#[test]
fn errors_as_json() {
    let check = |payload: &[u8], expected: &str| {
        let mut json = Vec::new();
        entry(payload).write_json(5, &mut json);
        let start = r#"{"seq":5,"journal_position":7,"index":1,"arrival_time":1732098765123,"reason":"invalid_metric","#
            .to_owned()
            + r#""message":"no","device_id":"d","metric":null,"client_id":"c","topic":"t","#;
        assert_eq!(String::from_utf8(json).unwrap(), start + expected + r#","payload_bytes":9}"#);
    };
    check(b"{\"a\"}", r#""payload":"{\"a\"}""#);
    check(b"\xff\x00", r#""payload_base64":"/wA=""#);
    let mut json = Vec::new();
    replayed(b"x").write_json(5, &mut json);
    let end = r#","payload":"x","payload_bytes":9,"replay_of":300,"first_arrival_time":-1}"#;
    assert!(String::from_utf8(json).unwrap().ends_with(end));
}

/// The bytes of [`entry`] that follow the format byte and the flags.
const ENTRY: &[u8] = b"\x07\x01\x86\xc5\x8d\x92\xe9\x64\x05\x02no\x01\x01d\x00\x01c\x01t\x01p\x09";

/// The bytes of format 5. They must not change: another form is a new format.
#[test]
fn the_bytes_of_an_error() {
    let own = |entry| ErrorEntry { own_device: Some("o"), ..entry };
    let whole = ErrorEntry { part: RejectedPart::Message, ..entry(b"p") };
    let check = |entry: ErrorEntry<'_>, flags: u8, end: &[u8]| {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        assert_eq!(bytes, [&[5, flags], ENTRY, end].concat());
    };
    check(entry(b"p"), 0, b"");
    check(whole, 1, b"");
    check(own(entry(b"p")), 2, b"\x01o");
    check(replayed(b"p"), 5, b"\xac\x02\x01");
    check(own(replayed(b"p")), 7, b"\x01o\xac\x02\x01");
    check(ErrorEntry { own_device: Some("d"), ..entry(b"p") }, 32, b"");
    check(ErrorEntry { is_cut: true, ..entry(b"p") }, 128, b"");
    check(ErrorEntry { is_unseen: true, ..entry(b"p") }, 64, b"");
    check(ErrorEntry { user: Some("u"), ..entry(b"p") }, 8, b"\x01u");
    check(ErrorEntry { user: Some("u"), ..own(replayed(b"p")) }, 15, b"\x01o\xac\x02\x01\x01u");
    assert!(ErrorEntry::decode(&[&[5, 16], ENTRY].concat()).is_err(), "a flag that format 5 does not have");
}

/// The bytes of an entry that refers to another one. They must not change: another form is a new format.
#[test]
fn the_bytes_of_an_error_that_refers_to_the_first_of_its_message() {
    let first = replayed(b"p");
    let first = ErrorEntry { message: "value 7 is wrong".into(), part: RejectedPart::Reading, ..first };
    let entry = ErrorEntry {
        index: 300,
        reason: Reason::WrongType,
        message: Sentence::divided("value 81 is wrong", "value 7 is wrong"),
        metric: Some("m"),
        origin: Some(ReplayOrigin { replay_of: 301, first_arrival_ms: -1 }),
        follows: Some(FollowedError { distance: 2, same_device: true }),
        ..first
    };
    let other = FollowedError { distance: 2, same_device: false };
    let folded = FoldedReadings::decode(300, &[1, 0, 2, 9]).unwrap();
    let check = |entry: ErrorEntry<'_>, expected: &[u8]| {
        let (mut stored, mut bytes) = (Vec::new(), Vec::new());
        first.encode(&mut stored);
        entry.encode(&mut bytes);
        assert_eq!(bytes, expected);
        assert_eq!(ErrorEntry::distance(&bytes), Some(2));
        let mut reader = ErrorReader::default();
        assert!(reader.read(12, &bytes).is_err(), "the first is not there");
        assert_eq!(reader.read(10, &stored), Ok(first));
        assert_eq!(reader.read(12, &bytes), Ok(entry));
        assert!(reader.read(13, &bytes).is_err(), "another one is there");
        for len in 0..bytes.len() {
            assert!(reader.read(12, &bytes[..len]).is_err(), "prefix of {len} bytes");
        }
    };
    let start = b"\x02\xac\x02\x02\x06\x09\x0281".as_slice();
    check(entry, &[b"\x05\x34", start, b"\x01\x01m\xad\x02"].concat());
    check(ErrorEntry { follows: Some(other), ..entry }, &[b"\x05\x14", start, b"\x01\x01d\x01\x01m\xad\x02"].concat());
    check(
        ErrorEntry { folded: Some(folded), ..entry },
        &[b"\x05\x74", start, b"\x01\x01m\xad\x02\x04\x01\x00\x02\x09"].concat(),
    );
    let json = |entry: ErrorEntry<'_>| {
        let mut json = Vec::new();
        entry.write_json(12, &mut json);
        serde_json::from_slice::<serde_json::Value>(&json).unwrap()
    };
    let shown = json(ErrorEntry { folded: Some(folded), ..entry });
    assert_eq!((&shown["message"], &shown["payload"]), (&"value 81 is wrong".into(), &"p".into()));
    let counts = [&shown["readings"], &shown["reasons"], &shown["indexes"]].map(ToString::to_string);
    assert_eq!(counts, ["10", r#"{"wrong_type":10}"#, "[[300,309]]"]);
    assert_eq!(json(entry).get("readings"), None);
}

/// The bytes of formats 1 to 4, and the entry that each stands for.
fn older_forms() -> Vec<(Vec<u8>, ErrorEntry<'static>)> {
    let form = |format: u8, end: &[u8]| [&[format], ENTRY, end].concat();
    let own = |entry| ErrorEntry { own_device: Some("o"), ..entry };
    let replayed_reading = ErrorEntry { part: RejectedPart::Reading, ..replayed(b"p") };
    let form_4 = |flags: u8, end: &[u8]| [&[4, flags], ENTRY, end].concat();
    vec![
        (form_4(0, b""), entry(b"p")),
        (form_4(7, b"\x01o\xac\x02\x01"), own(replayed(b"p"))),
        (form(1, b""), entry(b"p")),
        (form(2, b"\xac\x02\x01\x01"), replayed(b"p")),
        (form(2, b"\xac\x02\x01\x00"), replayed_reading),
        (form(3, b"\x01o\x00"), own(entry(b"p"))),
        (form(3, b"\x01o\x01\xac\x02\x01\x01"), own(replayed(b"p"))),
    ]
}

#[test]
fn older_formats_are_read() {
    for (bytes, entry) in older_forms() {
        assert_eq!(ErrorEntry::decode(&bytes), Ok(entry));
        for len in 0..bytes.len() {
            assert!(ErrorEntry::decode(&bytes[..len]).is_err(), "prefix of {len} bytes");
        }
    }
}

/// In formats 1 to 3 the sentence alone says that a message as a whole was rejected.
#[test]
fn in_older_formats_the_sentence_tells_the_part() {
    let check = |reason: Reason, index: u8, sentence: &str, expected: RejectedPart| {
        let mut bytes = vec![1, 7, index, 2, reason as u8];
        put_bytes(sentence.as_bytes(), &mut bytes);
        bytes.extend_from_slice(b"\x00\x00\x01c\x01t\x01p\x01");
        assert_eq!(ErrorEntry::decode(&bytes).unwrap().part, expected, "{sentence}");
    };
    check(Reason::Malformed, 0, "the payload is not UTF-8 at byte 0; send JSON text", RejectedPart::Message);
    check(Reason::Malformed, 0, "the payload is an array without readings", RejectedPart::Message);
    check(Reason::Malformed, 0, "the message has more than 4 readings (ingest.max", RejectedPart::Message);
    check(Reason::Malformed, 0, "an element of the array is a number; send objects", RejectedPart::Reading);
    check(Reason::Malformed, 1, "the payload is not valid JSON at byte 3: expected", RejectedPart::Reading);
    check(Reason::DeviceError, 0, "the payload is not what I expected", RejectedPart::Reading);
}

#[test]
fn errors_of_older_formats_are_compared_by_content() {
    for (stored, entry) in older_forms() {
        let computed = |entry: ErrorEntry<'_>| {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            bytes
        };
        assert!(is_same_error(&stored, &computed(entry)));
        let other_sentence = computed(ErrorEntry { message: "other".into(), ..entry });
        assert!(is_same_error(&stored, &other_sentence), "another version may have another sentence");
        assert!(!is_same_error(&computed(entry), &other_sentence), "this version does not");
        assert!(!is_same_error(&stored, &computed(ErrorEntry { reason: Reason::Late, ..entry })));
        let part = if entry.part == RejectedPart::Message { RejectedPart::Reading } else { RejectedPart::Message };
        assert!(!is_same_error(&stored, &computed(ErrorEntry { part, ..entry })));
        assert!(!is_same_error(b"", &computed(entry)));
        assert!(!is_same_error(&stored[..stored.len() - 1], &computed(entry)));
    }
}

#[test]
fn what_is_known_of_the_first_arrival() {
    let arrival_ms = entry(b"").arrival_ms;
    assert_eq!((entry(b"").first_arrival_ms(), replayed(b"").first_arrival_ms()), (arrival_ms, -1));
}

#[test]
fn stored_forms_read_back() {
    let mut bytes = Vec::new();
    window().encode(&mut bytes);
    let decoded = WindowResult::decode(&bytes).unwrap();
    assert_eq!(window_json(&decoded), window_json(&window()));
    assert_eq!(decoded.supersedes, Some(0));
    assert_eq!(decoded.stddev.to_bits(), f64::NAN.to_bits());
    for len in 0..bytes.len() {
        assert!(WindowResult::decode(&bytes[..len]).is_err(), "prefix of {len} bytes");
    }
    let own = |entry| ErrorEntry { own_device: Some("o"), ..entry };
    for entry in [entry(b"\xff"), replayed(b"\xff"), own(entry(b"")), own(replayed(b""))] {
        bytes.clear();
        entry.encode(&mut bytes);
        assert_eq!(ErrorEntry::decode(&bytes), Ok(entry));
        for len in 0..bytes.len() {
            assert!(ErrorEntry::decode(&bytes[..len]).is_err(), "prefix of {len} bytes");
        }
    }
}

#[test]
fn payloads_are_cut_between_characters() {
    let check = |payload: &[u8], kept: usize| assert_eq!(kept_payload(payload).len(), kept);
    check(&[b'x'; 4096], 4096);
    check(&[b'x'; 5000], 4096);
    check("x".repeat(4095).as_bytes(), 4095);
    check(["x".repeat(4095), "éé".into()].concat().as_bytes(), 4095);
    check(["x".repeat(4093), "😀x".into()].concat().as_bytes(), 4093);
    check(&[0xff; 5000], 4096);
}

proptest! {
    #[test]
    fn any_bytes_are_handled(bytes: Vec<u8>) {
        let _ = WindowResult::decode(&bytes);
        let _ = ErrorEntry::decode(&bytes);
    }

    #[test]
    fn floats_read_back(float in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
        let json = window_json(&WindowResult { sum: float, ..window() });
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(value["sum"].as_f64().unwrap().to_bits(), float.to_bits());
    }
}
