//! Payloads that are not plain JSON: what stands around it, compressed ones, other formats, messages that clear a topic.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::json;

use super::field::FieldCheck;
use weir_test_kit::wait::now_ms;

const GOOD: &str = r#"{"metric":"t","value":1}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("a vector takes it");
    encoder.finish().expect("a vector takes it")
}

#[test]
fn readings_in_unusual_wrappings_count() {
    let mut check = FieldCheck::start(&[]);
    // As MicroPython's `deflate` writes it.
    let small_window = [b"\x08\x1d", &zlib(GOOD.as_bytes())[2..]].concat();
    let wrapped: [(&str, Vec<u8>); 11] = [
        ("bom", format!("\u{feff}{GOOD}").into()),
        ("nul", format!("{GOOD}\0").into()),
        ("newline", format!("{GOOD}\r\n").into()),
        ("nuls", format!("{GOOD} \0\0\n\0").into()),
        ("latin", b"{\"metric\":\"t\",\"value\":1,\"unit\":\"\xb0C\",\"\xe4\":\"\xff\"}".to_vec()),
        ("tab", b"{\"metric\":\"t\",\"value\":1,\"note\":\"a\tb\"}".to_vec()),
        ("gzip", gzip(GOOD.as_bytes())),
        ("zlib", zlib(GOOD.as_bytes())),
        ("small_window", small_window),
        ("page", format!("{GOOD}\x0c").into()),
        ("vertical", format!("{GOOD}\n\x0b\0").into()),
    ];
    for (device, payload) in &wrapped {
        check.telemetry(device, payload);
    }
    check.telemetry("lines", format!("{GOOD}\n{}\n", r#"{"metric":"u","value":2}"#));
    check.settle();
    for (device, _) in &wrapped {
        check.counted_once(device, 1.0);
    }
    assert_eq!(check.windows("lines"), [("t".into(), 1, 1.0), ("u".into(), 1, 2.0)]);
    assert!(check.weir.list("errors", "").is_empty());
}

#[test]
fn a_large_backlog_comes_compressed() {
    let mut check = FieldCheck::start(&[]);
    let start = now_ms() - 600_000;
    let readings: Vec<_> =
        (0..1_000).map(|i| json!({"metric": "t", "value": 1, "timestamp": start + i * 100, "seq": i})).collect();
    check.telemetry("d", gzip(json!(readings).to_string().as_bytes()));
    check.settle();
    let counted: u64 = check.windows("d").iter().map(|(_, count, _)| count).sum();
    assert_eq!(counted, 1_000);
}

#[test]
fn other_payloads_are_malformed_and_told_what_would_help() {
    let mut check = FieldCheck::start(&[]);
    let malformed: [(&str, &[u8], &str); 17] = [
        ("comma", br#"{"metric":"t","value":1,}"#, "leave it out"),
        ("second", br#"{"metric":"t","value":1}{"metric":"t","value":2}"#, "send an array of objects"),
        ("single", b"{'metric': 't', 'value': 1}", "send double quotes"),
        ("keys", br#"{metric:"t",value:1}"#, "put it in double quotes"),
        ("cut", br#"{"metric":"t","value":1"#, "ends after 23 bytes, where the JSON is not complete"),
        ("empty", b"", "the payload is empty"),
        ("blank", b" \r\n\0", "only white space and NULs"),
        ("number", b"21.5", "a number alone"),
        ("text", b"online", "text that is no JSON"),
        ("xml", b"<reading/>", "XML"),
        ("influx", b"weather,room=a t=21.5", "line protocol of InfluxDB"),
        ("cbor", b"\xa1\x61t\xfb\x40\x35\x80\0\0\0\0\0", "CBOR"),
        ("msgpack", b"\x81\xa1t\xcb\x40\x35\x80\0\0\0\0\0", "MessagePack"),
        ("protobuf", b"\x0a\x01t\x11\0\0\0\0\0\x80\x35\x40", "Protocol Buffers"),
        ("utf16", b"\xff\xfe{\0}\0", "UTF-16"),
        ("latin", b"{\"metric\":\"t\",\xb0\"value\":1}", "not UTF-8 at byte 14"),
        ("bytes", b"\xff\0\xfe", "not UTF-8 at byte 0"),
    ];
    for (device, payload, _) in malformed {
        check.telemetry(device, payload);
    }
    check.telemetry("packed_cbor", gzip(b"\xa1\x61t\x01"));
    let bomb = gzip(&vec![b' '; 32 << 20]);
    check.telemetry("bomb", &bomb);
    check.telemetry("half", &gzip(GOOD.as_bytes())[..20]);
    // A device id and a metric are needed.
    check.telemetry("metric", b"{\"metric\":\"\xb0C\",\"value\":1}");
    check.publish("devices/id/telemetry", b"{\"device_id\":\"id\xb0\",\"metric\":\"t\",\"value\":1}", false);
    check.settle();
    for (device, _, part) in malformed {
        check.rejected_once(device, "malformed", part);
    }
    check.rejected_once("bomb", "malformed", "it unpacks to more than");
    check.rejected_once("packed_cbor", "malformed", "unpacked from gzip, the payload looks like CBOR");
    check.rejected_once("half", "malformed", "it ends before it is complete");
    check.rejected_once("metric", "invalid_metric", "\u{fffd}C");
    check.rejected_once("id", "invalid_device_id", "\u{fffd}");
}

#[test]
fn no_metric_of_a_message_is_lost() {
    let mut check = FieldCheck::start(&[("ingest.max_readings_per_message", "1")]);
    check.telemetry("a", r#"{"metrics":{"a":1,"a":2,"b":3}}"#);
    check.telemetry("b", r#"{"metrics":{"a":1,"a":2,"a":3}}"#);
    check.settle();
    check.rejected_once("a", "malformed", "more than 1 readings");
    assert_eq!(check.windows("b"), [("a".into(), 1, 3.0)]);
}

#[test]
fn an_empty_retained_message_clears_its_topic() {
    let mut check = FieldCheck::start(&[]);
    check.publish("devices/a/telemetry", GOOD, true);
    check.publish("devices/a/telemetry", "", true);
    check.publish("devices/a/telemetry", "", true);
    check.settle();
    check.counted_once("a", 1.0);
    assert!(check.weir.list("errors", "").is_empty());
    assert_eq!(check.weir.metric("weir_topics_cleared_total"), 2.0);
    assert_eq!(check.weir.metric("weir_readings_received_total"), 1.0);
    assert_eq!(check.weir.metric("weir_mqtt_retained_messages"), 0.0);
}
