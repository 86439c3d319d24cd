//! Changes of settings between two starts: no reading is lost, and `weir check` and the log say from when they hold.

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::http;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

/// Readings in one message.
const PER_MESSAGE: i64 = 25;

fn settings<'a>(size: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("window.size", size), ("window.idle_timeout", "'500ms'"), ("state.checkpoint_interval", "'100ms'")], more]
        .concat()
}

/// Publishes the readings `numbers` of the device, one for each second from `start_ms` on. Their values are their numbers.
fn publish(weir: &Weir, start_ms: i64, numbers: std::ops::Range<i64>) {
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V5, "d");
    for first in numbers.step_by(PER_MESSAGE as usize) {
        let reading = |number: i64| json!({"metric": "m", "value": number, "timestamp": start_ms + number * 1_000});
        device.telemetry("d", &Value::from_iter((first..first + PER_MESSAGE).map(reading)).to_string());
    }
}

/// What `weir check` says.
fn checked(weir: &Weir) -> String {
    let output = weir.command(&["check"]).output().expect("weir can be started");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All windows of the device once they hold `count` readings, as (start, end). Each holds the readings of its time and no
/// others, and none overlaps another.
#[track_caller]
fn windows(weir: &Weir, start_ms: i64, count: i64) -> Vec<(i64, i64)> {
    let mut windows = wait_for("all readings are in windows", || {
        let windows = weir.list("windows", "&device=d");
        let counted: i64 = windows.iter().map(|window| window["count"].as_i64().expect("a count")).sum();
        let errors = weir.list("errors", "");
        assert!(errors.is_empty(), "{errors:?}");
        (counted >= count).then_some(windows)
    });
    windows.sort_by_key(|window| window["window_start"].as_i64());
    let number = |window: &Value, key: &str| window[key].as_i64().expect("a number");
    let bounds: Vec<_> =
        windows.iter().map(|window| (number(window, "window_start"), number(window, "window_end"))).collect();
    assert!(bounds.windows(2).all(|pair| pair[0].1 <= pair[1].0), "windows overlap: {bounds:?}");
    for (window, &(from_ms, to_ms)) in windows.iter().zip(&bounds) {
        let held = (0..count).filter(|number| (from_ms..to_ms).contains(&(start_ms + number * 1_000)));
        let (held_count, held_sum) = held.fold((0, 0), |(count, sum), number| (count + 1, sum + number));
        let sum = window["sum"].as_f64().expect("a sum");
        assert_eq!((number(window, "count"), sum), (held_count, held_sum as f64), "{window}");
    }
    bounds
}

/// Sizes of the windows, each once, in order of time.
fn sizes(windows: &[(i64, i64)]) -> Vec<i64> {
    let mut sizes: Vec<i64> = windows.iter().map(|(start_ms, end_ms)| end_ms - start_ms).collect();
    sizes.dedup();
    sizes
}

/// The configuration changes after `before` readings; weir is killed and starts again in the middle of the others.
fn check_size(before: (&str, i64), after: (&str, i64), readings: i64, text: &str) {
    let mut weir = WEIR.start(&settings(before.0, &[]));
    // Seven seconds into a minute.
    let start_ms = window_before(900) / 60_000 * 60_000 + 7_000;
    publish(&weir, start_ms, 0..50);
    let told = checked(&weir);
    assert!(!told.contains("changes with the next start"), "{told}");
    weir.configure(&settings(after.0, &[]));
    assert!(
        checked(&weir)
            .contains(&format!("changes with the next start: window.size: {text}; new devices have it at once"))
    );
    weir.terminate();
    weir.restart();
    assert!(weir.output().contains(&format!("a setting changes: window.size: {text}")), "{}", weir.output());
    // The first client is served when the change is recorded.
    publish(&weir, start_ms, 50..75);
    let told = checked(&weir);
    assert!(!told.contains("changes with the next start"), "{told}");
    weir.kill();
    weir.restart();
    publish(&weir, start_ms, 75..readings);
    let windows = windows(&weir, start_ms, readings);
    assert_eq!(sizes(&windows), [before.1, after.1]);
    weir.assert_accounted();
}

#[test]
fn from_5_seconds_to_a_minute_every_reading_counts() {
    check_size(("'5s'", 5_000), ("'60s'", 60_000), 375, "5s -> 1m");
}

#[test]
fn from_a_minute_to_5_seconds_every_reading_counts() {
    check_size(("'60s'", 60_000), ("'5s'", 5_000), 200, "1m -> 5s");
}

#[test]
fn other_settings_lose_nothing_either() {
    let changes: &[&[(&str, &str)]] = &[
        &[("window.allowed_lateness", "'0s'")],
        &[("window.allowed_lateness", "'5m'"), ("window.out_of_orderness", "'10s'")],
        &[("window.watermark", "'global'"), ("window.out_of_orderness", "'0s'")],
        &[("window.backlog", "'off'"), ("window.watermark", "'device'"), ("validate.max_age", "'1h'")],
    ];
    let mut weir = WEIR.start(&settings("'5s'", &[]));
    // No window has readings of two messages: without allowed lateness, silence between them closes it.
    let start_ms = window_before(900);
    publish(&weir, start_ms, 0..25);
    for (round, change) in (1..).zip(changes) {
        weir.configure(&settings("'5s'", change));
        let told = checked(&weir);
        for (key, _) in *change {
            assert!(told.contains(&format!("changes with the next start: {key}: ")), "{key}: {told}");
        }
        weir.kill();
        weir.restart();
        publish(&weir, start_ms, round * PER_MESSAGE..(round + 1) * PER_MESSAGE);
    }
    windows(&weir, start_ms, (changes.len() as i64 + 1) * PER_MESSAGE);
}

/// Configures weir, and kills it and starts it again.
fn change(weir: &mut Weir, key: &str, more: &[(&str, &str)]) {
    weir.configure(&settings("'5s'", more));
    let told = checked(weir);
    assert!(told.contains(&format!("changes with the next start: {key}: ")), "{told}");
    weir.kill();
    weir.restart();
    assert!(weir.output().contains(&format!("a setting changes: {key}: ")), "{}", weir.output());
}

/// Checks that no window of the device was corrected.
#[track_caller]
fn fired_once(weir: &Weir, windows: &[(i64, i64)]) {
    let revisions = weir.list("windows", "&device=d&revisions=all");
    assert_eq!(revisions.len(), windows.len(), "{revisions:?}");
}

#[test]
fn backlogs_are_turned_on_and_off() {
    // Longer than a machine under load takes between two messages: the backlog ends with the change alone.
    let patient = |backlog| [("window.backlog", backlog), ("window.idle_timeout", "'3s'")];
    let mut weir = WEIR.start(&settings("'5s'", &patient("'off'")));
    let start_ms = window_before(900);
    publish(&weir, start_ms, 0..25);
    change(&mut weir, "window.backlog", &patient("'on'"));
    // Live data goes on after an absence, and what was stored in it follows.
    publish(&weir, start_ms, 75..100);
    publish(&weir, start_ms, 25..75);
    windows(&weir, start_ms, 100);
    // The windows of a backlog fire when backlogs are turned off.
    publish(&weir, start_ms, 175..200);
    publish(&weir, start_ms, 100..175);
    change(&mut weir, "window.backlog", &patient("'off'"));
    let all = windows(&weir, start_ms, 200);
    fired_once(&weir, &all);
    let marked = weir.list("windows", "&device=d").iter().filter(|window| window["backlog"] == true).count();
    // Windows within the allowed lateness are live ones.
    assert_eq!(marked, (10 - 2) + (15 - 2), "those of both backlogs say so");
    publish(&weir, start_ms, 225..250);
    weir.wait_closed();
    let within = json!({"metric": "m", "value": 1, "timestamp": start_ms + 220_000});
    TestClient::connect(weir.mqtt(), MqttVersion::V5, "d").telemetry("d", &within.to_string());
    // Within the allowed lateness it counts, in a window of its own.
    wait_for("the reading counts", || (weir.list("windows", "&device=d").len() == 46).then_some(()));
    let late = json!({"metric": "m", "value": 1, "timestamp": start_ms + 200_000});
    TestClient::connect(weir.mqtt(), MqttVersion::V5, "d").telemetry("d", &late.to_string());
    wait_for("what is behind is late", || weir.list("errors", "&reason=late").first().cloned());
    weir.assert_accounted();
}

#[test]
fn a_shorter_idle_timeout_closes_what_is_open() {
    let mut weir = WEIR.start(&settings("'5s'", &[("window.idle_timeout", "'10m'")]));
    let start_ms = window_before(900);
    publish(&weir, start_ms, 0..25);
    wait_for("the last window stays open", || {
        (weir.list("windows", "&device=d").len() == 4 && weir.metric("weir_windows_open") == 1.0).then_some(())
    });
    change(&mut weir, "window.idle_timeout", &[]);
    windows(&weir, start_ms, 25);
    publish(&weir, start_ms, 25..50);
    let all = windows(&weir, start_ms, 50);
    fired_once(&weir, &all);
    weir.assert_accounted();
}

/// What is in a window stays in it.
#[test]
fn a_narrower_range_holds_for_what_arrives() {
    let mut weir = WEIR.start(&settings("'5s'", &[("window.idle_timeout", "'10m'")]));
    let start_ms = window_before(900);
    let counted = |weir: &Weir| weir.json("/api/v1/devices/d")["accepted"].clone();
    publish(&weir, start_ms, 0..25);
    // The window of 20 to 24 is open at the change: 24 is beyond the range, and the window gets 24 again.
    change(&mut weir, "validate.metrics", &[("validate.metrics.m.max", "23")]);
    let more = json!([
        {"metric": "m", "value": 23, "timestamp": start_ms + 24_000},
        {"metric": "m", "value": 24, "timestamp": start_ms + 24_000},
    ]);
    TestClient::connect(weir.mqtt(), MqttVersion::V5, "d").telemetry("d", &more.to_string());
    weir.wait_closed();
    assert_eq!(counted(&weir), 26);
    let errors = weir.list("errors", "&device=d");
    assert!(errors.len() == 1 && errors[0]["reason"] == "value_out_of_range", "{errors:?}");
    let windows = weir.list("windows", "&device=d");
    let open = windows.iter().find(|window| window["window_start"] == start_ms + 20_000).expect("the window");
    assert_eq!((&open["count"], &open["sum"], &open["max"]), (&json!(6), &json!(133.0), &json!(24.0)), "{open}");
    // A wider one lets the error be counted.
    change(&mut weir, "validate.metrics", &[("validate.metrics.m.max", "24"), ("window.allowed_lateness", "'10m'")]);
    let path = format!("/api/v1/errors/{}/replay", errors[0]["seq"]);
    wait_for("weir takes the replay", || (http::post(weir.http(), &path, "").status == 200).then_some(()));
    wait_for("the reading counts", || (counted(&weir) == 27).then_some(()));
    weir.assert_accounted();
}
