//! Sequence numbers that come again: the same reading, another one, a restart, a wrap, and what is no number.

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::http;
use weir_test_kit::mqtt::{MqttVersion, TestClient, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

const FAST: &[(&str, &str)] =
    &[("window.size", "'1s'"), ("window.idle_timeout", "'500ms'"), ("state.checkpoint_interval", "'100ms'")];

fn client(weir: &Weir, name: &str) -> TestClient {
    TestClient::connect(weir.mqtt(), MqttVersion::V4, name)
}

fn reading(value: u64, timestamp: i64, seq: u64) -> Value {
    json!({"metric": "t", "value": value, "timestamp": timestamp, "seq": seq})
}

/// The device once so many of its readings are counted or rejected, and all windows are closed.
fn device(weir: &mut Weir, id: &str, readings: u64) -> Value {
    let path = format!("/api/v1/devices/{id}");
    let device = weir.watch("all readings are processed", |weir| {
        let device = http::try_get(weir.http(), &path).filter(|answer| answer.status == 200)?.json();
        let rejected =
            device["rejected"].as_object().map(|counts| counts.values().filter_map(Value::as_u64).sum::<u64>());
        (device["accepted"].as_u64()? + rejected? >= readings).then_some(device)
    });
    weir.wait_closed();
    device
}

/// Number and sum of the readings in the windows of a device.
fn counted(weir: &Weir, id: &str) -> (u64, u64) {
    let windows = weir.list("windows", &format!("&device={id}"));
    let total = |name: &str| windows.iter().filter_map(|window| window[name].as_f64()).sum::<f64>() as u64;
    (total("count"), total("sum"))
}

#[test]
fn a_restart_with_a_clock_that_was_ahead_loses_nothing() {
    let mut weir = WEIR.start(FAST);
    let start = window_before(120);
    let before: Vec<Value> = (1..=5).map(|n| reading(n, start + 28_000 + n as i64 * 1_000, n)).collect();
    let after: Vec<Value> = (1..=5).map(|n| reading(100 + n, start + n as i64 * 1_000, n)).collect();
    let mut one = client(&weir, "one");
    for reading in before.iter().chain(&after) {
        one.telemetry("a", &reading.to_string());
    }
    assert_eq!(device(&mut weir, "a", 10)["rejected"], json!({}));
    assert_eq!(counted(&weir, "a"), (10, 15 + 515));
    // Sent again: alone as a new packet, in an array, and after weir was killed.
    one.telemetry("a", &after[2].to_string());
    weir.kill();
    weir.restart();
    let mut two = client(&weir, "two");
    two.telemetry("a", &json!([before[0], after[4], before[4]]).to_string());
    let device = device(&mut weir, "a", 14);
    assert_eq!((&device["accepted"], &device["rejected"]), (&json!(10), &json!({"duplicate": 4})));
    assert_eq!((&device["sequence_restarts"], &device["sequence_ranges"]), (&json!(1), &json!([[1, 5]])));
    assert_eq!(counted(&weir, "a"), (10, 15 + 515));
    weir.assert_accounted();
}

#[test]
fn a_wrap_of_16_bits_is_no_restart() {
    let mut weir = WEIR.start(&[FAST, &[("window.allowed_lateness", "'5m'")]].concat());
    let start = window_before(240);
    let of = |range: std::ops::Range<u64>| -> Vec<Value> { range.map(|n| reading(1, start + n as i64, n)).collect() };
    let mut one = client(&weir, "one");
    for first in (0..65_536).step_by(1_000) {
        one.telemetry("a", &Value::from(of(first..(first + 1_000).min(65_536))).to_string());
    }
    for seq in 0..2 {
        let w = json!({"metric": "w", "value": 1, "timestamp": start + 65_536 + seq, "seq": seq});
        one.telemetry("a", &w.to_string());
    }
    device(&mut weir, "a", 65_538);
    weir.kill();
    weir.restart();
    client(&weir, "two").telemetry("a", &Value::from(of(65_534..65_536)).to_string());
    let device = device(&mut weir, "a", 65_540);
    assert_eq!((&device["accepted"], &device["rejected"]), (&json!(65_538), &json!({"duplicate": 2})));
    let wraps = ["sequence_wraps", "sequence_restarts", "sequence_missing"].map(|name| &device[name]);
    assert_eq!(wraps, [&json!(1), &json!(0), &json!(0)]);
    assert_eq!(device["sequence_ranges"], json!([[0, 65_537]]));
    assert_eq!(counted(&weir, "a").0, 65_538);
    weir.assert_accounted();
}

/// A counter of `bits` that is configured, and of whose messages more are lost around the wrap than `auto` takes for one. The
/// last two before the wrap, the three behind it.
fn check_configured_wrap(bits: u32) {
    let of_bits = bits.to_string();
    let mut weir = WEIR.start(&[FAST, &[("ingest.seq_bits", of_bits.as_str())]].concat());
    let start = window_before(120);
    let width = 1_u64 << bits;
    let lost = width / 8;
    let before: Vec<Value> = (1..=2).map(|n| reading(n, start + n as i64 * 1_000, width - lost - 3 + n)).collect();
    let behind: Vec<Value> = (3..=5).map(|n| reading(n, start + n as i64 * 1_000, lost + n - 3)).collect();
    let mut one = client(&weir, "one");
    for reading in before.iter().chain(&behind) {
        one.telemetry("a", &reading.to_string());
    }
    device(&mut weir, "a", 5);
    weir.kill();
    weir.restart();
    // Sent again across the wrap. A number that the counter cannot have is none.
    let mut two = client(&weir, "two");
    two.telemetry("a", &json!([before[1], behind[0], behind[2]]).to_string());
    two.telemetry("a", &reading(6, start + 6_000, width).to_string());
    let device = device(&mut weir, "a", 9);
    assert_eq!((&device["accepted"], &device["rejected"]), (&json!(6), &json!({"duplicate": 3})), "{device}");
    let counts = ["sequence_wraps", "sequence_restarts", "sequence_missing", "sequence_invalid"];
    assert_eq!(counts.map(|name| &device[name]), [&json!(1), &json!(0), &json!(2 * lost), &json!(1)], "{device}");
    let (low, high) = (width - lost - 2, width + lost);
    assert_eq!(device["sequence_ranges"], json!([[low, low + 1], [high, high + 2]]));
    assert_eq!(counted(&weir, "a"), (6, 21));
    weir.assert_accounted();
}

#[test]
fn a_configured_counter_of_8_bits_wraps() {
    check_configured_wrap(8);
}

#[test]
fn a_configured_counter_of_32_bits_wraps() {
    check_configured_wrap(32);
}

#[test]
fn two_metrics_of_one_sample_share_a_number() {
    let mut weir = WEIR.start(FAST);
    let start = window_before(60);
    let both = [
        json!({"metric": "temperature", "value": 21.5, "timestamp": start + 5, "seq": 7}),
        json!({"metric": "humidity", "value": 40, "timestamp": start, "seq": 7}),
    ];
    let mut one = client(&weir, "one");
    for reading in both.iter().chain(&both) {
        one.telemetry("a", &reading.to_string());
    }
    let device = device(&mut weir, "a", 4);
    assert_eq!((&device["accepted"], &device["rejected"]), (&json!(2), &json!({"duplicate": 2})));
    assert_eq!(device["sequence_restarts"], 0);
    let mut windows = weir.list("windows", "&device=a&revisions=all");
    windows.sort_by_key(|window| window["metric"].to_string());
    let shown = windows.iter().map(|window| (&window["metric"], &window["count"], &window["sum"]));
    let expected = [json!(["humidity", 1, 40.0]), json!(["temperature", 1, 21.5])];
    assert_eq!(shown.map(|window| json!(window)).collect::<Vec<_>>(), expected);
    weir.assert_accounted();
}

#[test]
fn no_reading_is_lost_for_its_number() {
    let mut weir = WEIR.start(FAST);
    let start = window_before(60);
    let seqs = [
        "\"42\"",
        "42.0",
        "4.2e1",
        "42",
        "-1",
        "18446744073709551616",
        "18446744073709551615",
        "1.5",
        "true",
        "\"x\"",
        "{}",
    ];
    let mut one = client(&weir, "one");
    let payload = |seq: &str| format!(r#"{{"metric":"t","value":1,"timestamp":{start},"seq":{seq}}}"#);
    for (number, seq) in seqs.iter().enumerate() {
        one.telemetry(&format!("d{number}"), &payload(seq));
    }
    for (number, seq) in seqs.iter().enumerate() {
        let device = device(&mut weir, &format!("d{number}"), 1);
        assert_eq!((&device["accepted"], &device["rejected"]), (&json!(1), &json!({})), "{seq}");
        let ranges = match number {
            0..4 => json!([[42, 42]]),
            6 => json!([[u64::MAX, u64::MAX]]),
            _ => json!([]),
        };
        assert_eq!(device["sequence_ranges"], ranges, "{seq}");
        assert_eq!(device["sequence_invalid"], u64::from(ranges == json!([])), "{seq}");
    }
    // However the number is written, it is the same; without a number MQTT's own identity protects a reading.
    one.telemetry("d0", &payload("42"));
    for dup in [false, true] {
        let packet = publish_packet(MqttVersion::V4, "devices/d4/telemetry", payload("-1").as_bytes(), 1, dup, 777);
        one.send(&packet).expect("it can be sent");
    }
    assert_eq!(device(&mut weir, "d0", 2)["rejected"], json!({"duplicate": 1}));
    let device = device(&mut weir, "d4", 3);
    assert_eq!((&device["accepted"], &device["rejected"]), (&json!(2), &json!({"duplicate": 1})));
    weir.assert_accounted();
}

#[test]
fn what_cannot_be_decided_is_an_error_that_can_be_replayed() {
    let mut weir = WEIR.start(&[FAST, &[("window.allowed_lateness", "'5m'")]].concat());
    let start = window_before(240);
    let mut one = client(&weir, "one");
    // An array with gaps: more than 256 ranges, so that the numbers between the lowest count as seen.
    let gaps: Vec<Value> = (0..400).map(|n| reading(1, start + n, n as u64 * 2)).collect();
    one.telemetry("a", &Value::from(gaps).to_string());
    one.telemetry("a", &reading(7, start, 101).to_string());
    let shown = device(&mut weir, "a", 401);
    assert_eq!((&shown["accepted"], &shown["rejected"]), (&json!(400), &json!({"seq_repeated": 1})));
    let errors = weir.list("errors", "&reason=seq_repeated");
    let sentence = errors[0]["message"].as_str().expect("a sentence");
    assert!(sentence.contains("boot") && sentence.contains("dedup.enabled"), "{sentence}");
    assert!((weir.metric("weir_readings_rejected_total{reason=\"seq_repeated\"}") - 1.0).abs() < 0.5);
    let path = format!("/api/v1/errors/{}/replay", errors[0]["seq"]);
    let answer = wait_for("weir takes replays", || {
        let answer = http::post(weir.http(), &path, "");
        (answer.status != 503).then_some(answer)
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(device(&mut weir, "a", 402)["accepted"], 401);
    // The number of the reading is remembered with it.
    one.telemetry("a", &reading(7, start, 101).to_string());
    assert_eq!(device(&mut weir, "a", 403)["rejected"], json!({"duplicate": 1, "seq_repeated": 1}));
    weir.assert_accounted();
}
