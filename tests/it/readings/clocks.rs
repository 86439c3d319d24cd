//! Clocks of devices, as `/api/v1/devices` and the sentences of errors tell them.

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{now_ms, wait_for};

const HOUR_MS: i64 = 3_600_000;

/// Publishes a reading of device `a` whose clock is behind by each of these times.
fn publish(weir: &Weir, behind_ms: &[i64]) {
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "c");
    let before = weir.metric_sum("weir_messages_total") as usize;
    for behind_ms in behind_ms {
        let reading = json!({"metric": "t", "value": 1, "timestamp": now_ms() - behind_ms});
        client.telemetry("a", &reading.to_string());
    }
    wait_for("the messages are processed", || {
        (weir.metric_sum("weir_messages_total") as usize == before + behind_ms.len()).then_some(())
    });
}

fn device(weir: &Weir) -> Value {
    weir.json("/api/v1/devices/a")
}

/// The newest error, which must name each of these texts.
#[track_caller]
fn expect_error(weir: &Weir, reason: &str, texts: &[&str]) {
    let newest = weir.list("errors", "&order=desc");
    let sentence = newest[0]["message"].as_str().expect("a sentence");
    assert_eq!(newest[0]["reason"], reason, "{sentence}");
    assert!(texts.iter().all(|text| sentence.contains(text)) && sentence.len() < 400, "{sentence}");
}

/// Whether a state and an offset are shown, within some seconds.
#[track_caller]
fn expect_clock(weir: &Weir, state: &str, offset_ms: i64) {
    let one = device(weir);
    let list = weir.list("devices", "");
    for clock in [&one["clock"], &list[0]["clock"]] {
        assert_eq!(clock["state"], state, "{clock}");
        let shown = clock["offset_ms"].as_i64().expect("an offset");
        assert!((shown - offset_ms).abs() < 30_000, "{clock}");
    }
    assert!(one["clock"]["steps_backward"].is_u64() && list[0]["clock"]["steps_backward"].is_null(), "{one}");
}

/// Summer time ends on a device that sends local time: its clock goes back by an hour.
#[test]
fn a_clock_that_goes_back_is_told() {
    let mut weir = WEIR.start(&[("window.backlog", "'off'"), ("window.allowed_lateness", "'1s'")]);
    publish(&weir, &[1_000]);
    expect_clock(&weir, "ok", 1_000);
    publish(&weir, &[HOUR_MS; 5]);
    expect_clock(&weir, "stepped_back", HOUR_MS);
    let clock = device(&weir)["clock"].clone();
    assert_eq!((&clock["steps_backward"], &clock["steps_forward"]), (&json!(1), &json!(0)), "{clock}");
    let step_ms = clock["last_step_ms"].as_i64().expect("a step");
    assert!((step_ms + HOUR_MS).abs() < 60_000 && clock["last_step_at"].is_i64(), "{clock}");
    publish(&weir, &[HOUR_MS]);
    expect_error(&weir, "late", &["its clock went back by", "ingest.time"]);
    // It is part of the state.
    weir.terminate();
    weir.restart();
    expect_clock(&weir, "stepped_back", HOUR_MS);
}

/// A backlog behind live data changes nothing, and neither does one before it.
#[test]
fn a_backlog_says_nothing_of_the_clock() {
    let weir = WEIR.start(&[]);
    let stored: Vec<i64> = (0..60).map(|index| 2 * HOUR_MS - 10_000 * index).collect();
    publish(&weir, &[0, 0, 0]);
    publish(&weir, &stored);
    expect_clock(&weir, "ok", 0);
    publish(&weir, &[0]);
    expect_clock(&weir, "ok", 0);
    assert_eq!(device(&weir)["clock"]["steps_backward"], 0);
}

#[test]
fn a_device_without_times_has_no_clock() {
    let weir = WEIR.start(&[]);
    TestClient::connect(weir.mqtt(), MqttVersion::V4, "c").telemetry("a", r#"{"metric":"t","value":1}"#);
    wait_for("the device is there", || weir.get("/api/v1/devices/a").status.eq(&200).then_some(()));
    assert_eq!(
        (&device(&weir)["clock"]["state"], &device(&weir)["clock"]["offset_ms"]),
        (&json!("no_clock"), &Value::Null)
    );
}

#[test]
fn the_advice_about_a_clock_that_is_ahead_helps() {
    let mut weir = WEIR.start(&[]);
    publish(&weir, &[-600_000; 6]);
    expect_clock(&weir, "ahead", -600_000);
    expect_error(&weir, "timestamp_in_future", &["set ingest.time to arrival", "its clock is always", "ahead"]);
    assert_eq!(device(&weir)["accepted"], 0);
    weir.terminate();
    weir.configure(&[("ingest.time", "'arrival'")]);
    weir.restart();
    publish(&weir, &[-600_000; 6]);
    assert_eq!(device(&weir)["accepted"], 6);
    weir.terminate();
    weir.configure(&[]);
    weir.restart();
    publish(&weir, &[0]);
    assert_eq!(device(&weir)["accepted"], 7);
}

#[test]
fn the_advice_about_a_time_zone_helps() {
    let mut weir = WEIR.start(&[]);
    publish(&weir, &[-HOUR_MS; 5]);
    expect_clock(&weir, "time_zone", -HOUR_MS);
    assert_eq!(device(&weir)["clock"]["time_zone"], "+01:00");
    expect_error(&weir, "timestamp_in_future", &["local time of +01:00 as UTC", "ingest.timezone"]);
    // Local time with its zone, and without one where the configuration gives it.
    let local = |zone: &str| {
        let time = jiff::Timestamp::now().to_zoned(jiff::tz::Offset::constant(1).to_time_zone());
        json!({"metric": "t", "value": 1, "timestamp": format!("{}{zone}", time.strftime("%Y-%m-%dT%H:%M:%S"))})
            .to_string()
    };
    TestClient::connect(weir.mqtt(), MqttVersion::V4, "c").telemetry("a", &local("+01:00"));
    wait_for("the reading counts", || (device(&weir)["accepted"] == 1).then_some(()));
    weir.terminate();
    weir.configure(&[("ingest.timezone", "'Etc/GMT-1'")]);
    weir.restart();
    TestClient::connect(weir.mqtt(), MqttVersion::V4, "c").telemetry("a", &local(""));
    wait_for("the reading counts", || (device(&weir)["accepted"] == 2).then_some(()));
}
