//! Files that earlier versions wrote are read by this version.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir::core::output::{ErrorEntry, RejectedPart};

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::Shim;
use weir_test_kit::wait::{now_ms, wait_for};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1").join(name)
}

/// Of the last version before the rules for devices in the field.
fn fixture_before_field_rules(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-2").join(name)
}

fn recorded(name: &str) -> Value {
    let text = fs::read_to_string(fixture(&format!("{name}.json"))).expect("a fixture");
    serde_json::from_str::<Value>(&text).expect("JSON")[name].clone()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("it can be copied");
        }
    }
}

/// The device with windows, errors and duplicates.
#[track_caller]
fn check_state(weir: &Weir) {
    let device = weir.json("/api/v1/devices/pump-7");
    assert_eq!(device["accepted"], 25, "{device}");
    assert_eq!(device["rejected"], serde_json::json!({"duplicate": 2, "value_out_of_range": 2}));
    assert_eq!(device["sequence_ranges"], serde_json::json!([[0, 12], [40, 40]]));
    weir.assert_accounted();
}

#[track_caller]
fn check_results(weir: &Weir) {
    assert_eq!(Value::Array(weir.list("windows", "&revisions=all")), recorded("windows"));
    assert_eq!(Value::Array(weir.list("errors", "")), recorded("errors"));
}

#[test]
fn a_data_directory() {
    let mut weir = WEIR.prepare(&[]);
    copy(&fixture("data"), &weir.data());
    weir.restart();
    assert!(!weir.output().contains("the state is rebuilt"), "the store was not readable");
    check_state(&weir);
    check_results(&weir);
}

#[test]
fn a_journal_alone_gives_the_recorded_results() {
    let mut weir = WEIR.prepare(&[]);
    for part in ["journal", "windows", "errors"] {
        copy(&fixture("data").join(part), &weir.data().join(part));
    }
    weir.restart();
    // Replayed results are compared with the stored ones: a difference would be counted.
    check_state(&weir);
    check_results(&weir);
    assert!(weir.metric("weir_recovery_replayed_records") > 20.0);
}

/// The records of a log's only segment: 64 bytes of header, then batches of 48 bytes of header and a body of records,
/// each behind its length as LEB128.
fn records(segment: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    let mut rest = &segment[64..];
    while let Some(length) = rest.get(12..16) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        let (batch, behind) = rest.split_at(48 + length);
        let mut body = &batch[48..];
        while !body.is_empty() {
            let digits = 1 + body.iter().position(|byte| byte & 0x80 == 0).expect("the end of a length");
            let length = body[..digits].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
            records.push(&body[digits..digits + length]);
            body = &body[digits + length..];
        }
        rest = behind;
    }
    records
}

/// Before format 4 only the sentence of an error said that a message as a whole was rejected.
#[test]
fn errors_without_a_code_are_of_a_reading_or_of_a_message() {
    let segment = fs::read(fixture("data/errors/00000000000000000000.log")).expect("a segment");
    let errors: Vec<_> = records(&segment).into_iter().map(|record| (record[0], ErrorEntry::decode(record))).collect();
    let parts = errors.iter().map(|(format, entry)| {
        let entry = entry.as_ref().expect("an error of an older format");
        (*format, entry.reason.as_str(), entry.part)
    });
    let expected = [
        (1, "wrong_type", RejectedPart::Reading),
        (1, "value_out_of_range", RejectedPart::Reading),
        (1, "device_error", RejectedPart::Reading),
        (1, "malformed", RejectedPart::Message),
        (2, "value_out_of_range", RejectedPart::Reading),
    ];
    assert_eq!(parts.collect::<Vec<_>>(), expected);
}

#[test]
fn a_savepoint() {
    let mut weir = WEIR.prepare(&[]);
    let savepoints = fs::read_dir(fixture("data/savepoints")).expect("savepoints");
    let file = savepoints.last().expect("one").expect("an entry").path();
    let restored = weir.command(&["savepoint", "restore"]).arg(&file).status().expect("weir can be started");
    assert!(restored.success());
    weir.restart();
    check_state(&weir);
}

/// Sessions stored before wills were stored: one client is away with a message in flight and one queued.
#[test]
fn a_store_of_sessions() {
    let mut weir = WEIR.prepare(&[("mqtt.max_session_expiry", "'off'")]);
    copy(&fixture("sessions"), &weir.data().join("sessions"));
    for _ in 0..2 {
        weir.restart();
        let (probe, _) = TestConnect::new(MqttVersion::V5, "probe").accepted(weir.mqtt());
        assert_eq!([weir.metric("weir_mqtt_sessions"), weir.metric("weir_mqtt_wills")], [3.0, 0.0]);
        probe.disconnect();
        weir.terminate();
    }
    weir.restart();
    let (mut client, present) = TestConnect::new(MqttVersion::V5, "kept").kept(1_000).accepted(weir.mqtt());
    assert!(present);
    assert_eq!([client.take_message(), client.take_message()].map(|m| m.text().to_owned()), ["sent", "waits"]);
    client.expect_nothing();
    let (mut publisher, _) = TestConnect::new(MqttVersion::V5, "publisher").accepted(weir.mqtt());
    publisher.publish_message(&TestMessage::new("commands/c", "new", 1));
    assert_eq!(client.take_message().text(), "new");
}

/// The journal behind the checkpoint is replayed under the rules under which its records were first processed.
#[test]
fn a_data_directory_from_before_the_field_rules() {
    let recorded = |name: &str| {
        let text = fs::read_to_string(fixture_before_field_rules(&format!("{name}.json"))).expect("a fixture");
        serde_json::from_str::<Value>(&text).expect("JSON")[name].clone()
    };
    let mut weir = WEIR.prepare(&[]);
    copy(&fixture_before_field_rules("data"), &weir.data());
    weir.restart();
    assert_eq!(weir.metric("weir_replay_mismatches_total"), 0.0, "{}", weir.output());
    assert!(weir.metric("weir_recovery_replayed_records") > 40.0);
    assert_eq!(Value::Array(weir.list("windows", "&revisions=all")), recorded("windows"));
    assert_eq!(Value::Array(weir.list("errors", "")), recorded("errors"));
    for device in recorded("devices").as_array().expect("devices") {
        let now = weir.json(&format!("/api/v1/devices/{}", device["device_id"].as_str().expect("an id")));
        for field in ["accepted", "rejected", "sequence_ranges", "watermark"] {
            assert_eq!(now[field], device[field], "{field} of {now}");
        }
    }
    weir.assert_accounted();
}

/// An hour after the last record of a data directory, its devices go on under the rules for devices in the field.
#[test]
fn a_data_directory_from_before_the_field_rules_goes_on() {
    // The device `away` was last seen at this time.
    const LAST_SEEN_MS: i64 = 1_796_062_585_000;
    const HOUR_MS: i64 = 3_600_000;
    let mut weir = WEIR.prepare(&[("window.idle_timeout", "'1s'")]);
    copy(&fixture_before_field_rules("data"), &weir.data());
    let shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    let begin_ms = LAST_SEEN_MS + HOUR_MS;
    shim.set_clock_offset_ms(begin_ms - now_ms());
    weir.restart();
    let before = weir.list("windows", "&revisions=all");
    let accepted = |weir: &Weir, device: &str| weir.json(&format!("/api/v1/devices/{device}"))["accepted"].clone();
    let rejected = |weir: &Weir, device: &str| weir.json(&format!("/api/v1/devices/{device}"))["rejected"].clone();

    let reading = |time_ms: i64, value: i64| json!({"metric": "t", "value": value, "timestamp": time_ms});
    let numbered = |seq: i64, value: i64| {
        let time_ms = if seq > 20 { begin_ms + value } else { LAST_SEEN_MS - 60_000 };
        json!({"metric": "temperature", "value": value, "timestamp": time_ms, "seq": seq})
    };
    // Live first, then what the device stored since that weir was killed, and what its watermark had passed.
    let stored: Vec<Value> = (0..100).map(|index| reading(LAST_SEEN_MS + 600_000 + index * 1_000, index)).collect();
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "away");
    device.telemetry("away", &reading(begin_ms, 1).to_string());
    device.telemetry("away", &Value::from(stored).to_string());
    device.telemetry("away", &reading(LAST_SEEN_MS - 300_000, 1).to_string());
    // The highest number of this device is 20. What came under its old numbers is not known: an old reading is taken for that.
    for (seq, value) in [(5, 1), (21, 2), (22, 3), (22, 3), (22, 4)] {
        device.telemetry("pump-7", &numbered(seq, value).to_string());
    }
    device.telemetry("ahead", &reading(begin_ms, 1).to_string());
    device.telemetry("odd", &json!({"metrics": {"t": 1, "u": null}, "timestamp": begin_ms}).to_string());
    device.telemetry("new", &reading(begin_ms, 1).to_string());

    let check = |weir: &Weir| {
        assert_eq!((accepted(weir, "away"), rejected(weir, "away")), (json!(2 + 101), json!({"late": 40 + 1})));
        assert_eq!((accepted(weir, "pump-7"), rejected(weir, "pump-7")), (json!(17 + 3), json!({"duplicate": 4 + 2})));
        let others = ["ahead", "odd", "new"].map(|device| accepted(weir, device));
        assert_eq!(others, [json!(2 + 1), json!(4 + 1), json!(1)]);
        assert_eq!(weir.json("/api/v1/devices/odd")["values_absent"], 1);
        weir.assert_accounted();
    };
    wait_for("the last device is there", || (weir.get("/api/v1/devices/new").status == 200).then_some(()));
    weir.wait_closed();
    check(&weir);
    let away = weir.list("windows", &format!("&device=away&from={}", LAST_SEEN_MS + HOUR_MS / 12));
    let (old, live): (Vec<_>, Vec<_>) = away.iter().partition(|window| window["backlog"] == true);
    let counts = |windows: &[&Value]| windows.iter().filter_map(|window| window["count"].as_i64()).sum::<i64>();
    assert_eq!((old.len(), counts(&old), live.len(), counts(&live)), (20, 100, 1, 1), "{away:?}");

    weir.kill();
    weir.restart();
    wait_for("the journal is replayed", || (weir.metric("weir_pipeline_backlog_records") < 1.0).then_some(()));
    check(&weir);
    let after = weir.list("windows", "&revisions=all");
    assert_eq!(after[..before.len()], before[..], "what the earlier version wrote stays");
}
