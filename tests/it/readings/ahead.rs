//! A clock of a device that is ahead: its windows come later, and no right reading is late.

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::Shim;
use weir_test_kit::wait::{now_ms, wait_for};

/// How far ahead the wrong time is, within `validate.max_future`.
const AHEAD_MS: i64 = 240_000;

/// A right reading may take up to two seconds to the journal, so that a machine under load changes nothing.
const FAST: [(&str, &str); 3] =
    [("window.size", "'1s'"), ("window.out_of_orderness", "'2s'"), ("window.idle_timeout", "'500ms'")];

fn publish(weir: &Weir, device: &str, time_ms: i64) {
    let reading = json!({"metric": "t", "value": 1, "timestamp": time_ms});
    TestClient::connect(weir.mqtt(), MqttVersion::V4, "c").telemetry(device, &reading.to_string());
}

/// All revisions of the windows of a device that start before `time_ms`, once they hold `count` readings.
fn right_windows(weir: &Weir, device: &str, time_ms: i64, count: u64) -> Vec<Value> {
    wait_for("the right readings are in windows", || {
        let mut windows = weir.list("windows", &format!("&device={device}&revisions=all"));
        windows.retain(|window| window["window_start"].as_i64() < Some(time_ms));
        let counted: u64 = windows.iter().filter_map(|window| window["count"].as_u64()).sum();
        (counted >= count).then_some(windows)
    })
}

/// A reading of `a` is ahead; then come eleven right ones of `device`.
fn check(device: &str, settings: &[(&str, &str)]) {
    let weir = WEIR.start(&[&FAST, settings].concat());
    let begin_ms = now_ms();
    publish(&weir, "a", begin_ms + AHEAD_MS);
    for count in [4, 4, 3] {
        for _ in 0..count {
            publish(&weir, device, now_ms());
        }
        // Silence: longer than `window.idle_timeout`, and until windows have fired.
        let silent_ms = now_ms() + 500;
        wait_for("the device is silent", || {
            let arrival_ms = weir.json("/api/v1/status")["backlog"]["last_arrival"].as_i64();
            (arrival_ms > Some(silent_ms) && weir.metric("weir_windows_open") == 1.0).then_some(())
        });
    }
    let windows = right_windows(&weir, device, begin_ms + AHEAD_MS / 4, 11);
    let flags = windows.iter().map(|window| (&window["revision"], &window["backlog"], &window["wrong_clock"]));
    assert!(flags.clone().all(|flag| flag == (&json!(0), &Value::Null, &Value::Null)), "{windows:?}");
    assert!(weir.list("errors", "").is_empty(), "{:?}", weir.list("errors", ""));
    let devices = weir.list("devices", "");
    let accepted: u64 = devices.iter().filter_map(|device| device["accepted"].as_u64()).sum();
    assert_eq!(accepted, 12, "{devices:?}");
    assert!(devices.iter().all(|device| device["rejected"] == json!({})), "{devices:?}");
    // The reading that is ahead waits.
    assert_eq!(weir.metric("weir_windows_open"), 1.0);
    weir.assert_accounted();
}

#[test]
fn one_time_ahead_costs_no_other_reading() {
    check("a", &[]);
}

/// All devices share one watermark, and one of them is ahead.
#[test]
fn one_device_ahead_costs_the_others_nothing() {
    check("b", &[("window.watermark", "'global'")]);
}

#[test]
fn the_window_ahead_fires_when_its_time_has_come() {
    let mut weir = WEIR.prepare(&FAST);
    let shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    shim.set_clock_synchronized(Some(true));
    shim.set_clock_offset_ms(0);
    weir.restart();
    let ahead_ms = now_ms() + AHEAD_MS;
    publish(&weir, "a", ahead_ms);
    publish(&weir, "a", now_ms());
    right_windows(&weir, "a", ahead_ms - AHEAD_MS / 2, 1);
    assert_eq!(weir.metric("weir_windows_open"), 1.0, "the other one waits for its time");
    shim.set_clock_offset_ms(AHEAD_MS + 5_000);
    weir.wait_closed();
    let mut windows = weir.list("windows", "&revisions=all");
    windows.sort_by_key(|window| window["window_start"].as_i64());
    let shown: Vec<_> = windows.iter().map(|window| (&window["count"], &window["revision"])).collect();
    assert_eq!(shown, [(&json!(1), &json!(0)); 2], "{windows:?}");
    assert_eq!(windows[1]["window_start"].as_i64(), Some(ahead_ms / 1_000 * 1_000));
    assert!(windows.iter().all(|window| window["wrong_clock"].is_null() && window["backlog"].is_null()), "{windows:?}");
    weir.assert_accounted();
}
