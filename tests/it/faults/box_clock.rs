//! The clock of the machine is wrong and is set right, under the real program.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::{Calls, Shim};
use weir_test_kit::wait::{now_ms, wait_for};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

const FAST: [(&str, &str); 3] =
    [("window.size", "'1s'"), ("window.idle_timeout", "'1s'"), ("state.checkpoint_interval", "'200ms'")];

/// A weir whose clock the test sets.
fn with_clock(offset_ms: i64) -> (Weir, Shim) {
    with_settings(offset_ms, &[])
}

fn with_settings(offset_ms: i64, settings: &[(&str, &str)]) -> (Weir, Shim) {
    let mut weir = WEIR.prepare(&[&FAST, settings].concat());
    let shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    shim.set_clock_synchronized(Some(true));
    shim.set_clock_offset_ms(offset_ms);
    weir.restart();
    (weir, shim)
}

fn publish(weir: &Weir, device: &str, payload: &str) {
    TestClient::connect(weir.mqtt(), MqttVersion::V4, "client").telemetry(device, payload);
}

/// The windows of a device, once there are `count`.
fn windows(weir: &Weir, device: &str, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} windows of {device}"), || {
        let windows = weir.list("windows", &format!("&device={device}"));
        (windows.len() >= count).then_some(windows)
    })
}

/// Sends readings with right times and without times, and expects a right window for each.
fn right_readings_count(weir: &Weir) {
    let before_ms = now_ms();
    publish(weir, "stamped", &format!(r#"{{"metric":"t","value":21.5,"timestamp":{before_ms}}}"#));
    publish(weir, "unstamped", r#"{"metric":"t","value":22.5}"#);
    for device in ["stamped", "unstamped"] {
        let window = &windows(weir, device, 1)[0];
        let start_ms = window["window_start"].as_i64().expect("a time");
        // A machine under load may take its time.
        assert!((before_ms - 1_000..=before_ms + 60_000).contains(&start_ms), "{window} at {before_ms}");
        assert_eq!((&window["wrong_clock"], &window["revision"]), (&Value::Null, &Value::from(0)), "{window}");
    }
    weir.assert_accounted();
}

fn wait_ready(weir: &Weir) {
    wait_for("weir is ready", || weir.is_ready().then_some(()));
}

fn check(ahead_ms: i64, restart: bool) {
    let (mut weir, shim) = with_clock(ahead_ms);
    publish(&weir, "boot", r#"{"metric":"t","value":1}"#);
    let wrong = windows(&weir, "boot", 1)[0].clone();
    assert!(wrong["window_start"].as_i64().is_some_and(|start_ms| start_ms > now_ms() + HOUR_MS), "{wrong}");
    if restart {
        weir.terminate();
        shim.set_clock_offset_ms(0);
        weir.restart();
    } else {
        shim.set_clock_offset_ms(0);
        wait_for("journal time follows", || {
            (weir.json("/api/v1/status")["clock"]["set_back_to"].is_i64()).then_some(())
        });
        wait_ready(&weir);
    }
    right_readings_count(&weir);
    assert!(weir.list("errors", "").is_empty(), "{:?}", weir.list("errors", ""));
    let corrected = wait_for("the window of the wrong time says so", || {
        let windows = weir.list("windows", "&device=boot");
        windows.into_iter().find(|window| window["wrong_clock"] == true)
    });
    assert_eq!(corrected["window_start"], wrong["window_start"]);
    let clock = &weir.json("/api/v1/status")["clock"];
    assert_eq!((&clock["steps_back"], &clock["synchronized"]), (&Value::from(1), &Value::from(true)), "{clock}");
    assert!(weir.output().contains("the clock was set back"));
    // A crash now replays the same.
    weir.kill();
    weir.restart();
    assert_eq!(weir.metric("weir_replay_mismatches_total"), 0.0);
    publish(&weir, "later", r#"{"metric":"t","value":1}"#);
    windows(&weir, "later", 1);
    weir.terminate();
    let verify = weir.command(&["journal", "verify"]).output().expect("weir can be started");
    assert_eq!(verify.status.code(), Some(0), "{}", String::from_utf8_lossy(&verify.stdout));
}

#[test]
fn right_readings_count_after_a_start_three_hours_ahead() {
    check(3 * HOUR_MS, true);
}

#[test]
fn right_readings_count_after_a_start_years_ahead() {
    check(4_000 * DAY_MS, true);
}

#[test]
fn right_readings_count_after_a_clock_years_ahead_is_set_while_weir_runs() {
    check(4_000 * DAY_MS, false);
}

#[test]
fn what_a_clock_in_1970_rejected_is_replayed() {
    let (mut weir, shim) = with_clock(-now_ms() + DAY_MS);
    publish(&weir, "boot", r#"{"metric":"t","value":1}"#);
    publish(&weir, "early", &format!(r#"{{"metric":"t","value":7,"timestamp":{}}}"#, now_ms()));
    let error = wait_for("the reading is rejected", || weir.list("errors", "").first().cloned());
    assert_eq!(error["reason"], "timestamp_in_future");
    let sentence = error["message"].as_str().expect("a sentence");
    assert!(sentence.contains("weir's own clock is wrong: it shows 1970-01-0"), "{sentence}");
    weir.terminate();
    shim.set_clock_offset_ms(0);
    weir.restart();
    right_readings_count(&weir);
    let url = format!("http://{}", weir.http());
    let mut replay = weir.command(&["errors", "replay", "--reason", "timestamp_in_future", "--url", &url]);
    let output = replay.output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(windows(&weir, "early", 1)[0]["sum"], 7.0);
}

/// Savepoints are deleted by their number alone, oldest in the journal first. A clock far ahead makes one due, and so does one that
/// is set back.
#[test]
fn no_jump_of_the_clock_deletes_a_savepoint() {
    let (mut weir, shim) = with_settings(0, &[("state.savepoints_kept", "8"), ("validate.max_age", "'off'")]);
    let files = |weir: &Weir| -> BTreeSet<String> {
        let entries = fs::read_dir(weir.data().join("savepoints")).expect("savepoints");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".weir")).collect()
    };
    publish(&weir, "a", r#"{"metric":"t","value":1}"#);
    windows(&weir, "a", 1);
    let created = weir.command(&["savepoint", "create"]).output().expect("weir can be started");
    assert!(created.status.success(), "{created:?}");
    for (round, offset_ms) in (2..).zip([4_000 * DAY_MS, 0, -4_000 * DAY_MS, 0]) {
        let before = files(&weir);
        shim.set_clock_offset_ms(offset_ms);
        publish(&weir, "a", r#"{"metric":"t","value":1}"#);
        wait_for("a savepoint is written", || (files(&weir).difference(&before).count() > 0).then_some(()));
        wait_for("the reading counts", || (weir.json("/api/v1/devices/a")["accepted"] == round).then_some(()));
        assert!(before.is_subset(&files(&weir)), "{before:?}");
    }
    // The newest in the journal is the one that rebuilds the state, whatever the clock showed.
    weir.terminate();
    fs::remove_dir_all(weir.data().join("state")).expect("the state can be removed");
    weir.restart();
    assert_eq!(weir.json("/api/v1/devices/a")["accepted"], 5);
    weir.assert_accounted();
}

/// Waits for an answer of `/readyz` with this status and text.
fn wait_answer(weir: &Weir, status: u16, text: &str) {
    wait_for(text, || {
        let answer = weir.get("/readyz");
        (answer.status == status && answer.text().contains(text)).then_some(())
    });
}

fn steps(weir: &Weir) -> [f64; 2] {
    ["forward", "back"].map(|way| weir.metric(&format!("weir_clock_steps_total{{direction=\"{way}\"}}")))
}

#[test]
fn a_clock_that_is_behind_within_the_tolerance_is_told_and_costs_nothing() {
    let (weir, shim) = with_clock(0);
    assert_eq!(steps(&weir), [0.0, 0.0]);
    publish(&weir, "before", r#"{"metric":"t","value":1}"#);
    windows(&weir, "before", 1);
    shim.set_clock_offset_ms(-50_000);
    wait_answer(&weir, 200, "behind the newest record of the journal: the time of arrivals stands still");
    wait_for("the step is counted", || (steps(&weir) == [0.0, 1.0]).then_some(()));
    wait_for("it is shown", || (weir.metric("weir_clock_journal_ahead_seconds") > 1.0).then_some(()));
    publish(&weir, "behind", r#"{"metric":"t","value":2}"#);
    wait_for("the reading counts", || (weir.metric("weir_readings_accepted_total") == 2.0).then_some(()));
    shim.set_clock_offset_ms(0);
    wait_for("the step is counted", || (steps(&weir) == [1.0, 1.0]).then_some(()));
    wait_answer(&weir, 200, r#"{"status":"ok"}"#);
    assert!(weir.json("/api/v1/status")["clock"]["set_back_to"].is_null());
    right_readings_count(&weir);
    assert_eq!(windows(&weir, "behind", 1)[0]["sum"], 2.0);
    assert!(weir.list("errors", "").is_empty());
}

#[test]
fn weir_is_not_ready_while_the_disk_does_not_take_the_record_that_sets_time_back() {
    let (weir, mut shim) = with_clock(3 * HOUR_MS);
    publish(&weir, "boot", r#"{"metric":"t","value":1}"#);
    windows(&weir, "boot", 1);
    let writes = shim.rule(Calls::Write, "data/journal/");
    shim.delay(writes, Duration::from_secs(600));
    shim.set_clock_offset_ms(0);
    wait_answer(&weir, 503, "the record that sets journal time back is not written yet");
    shim.delay(writes, Duration::ZERO);
    wait_for("journal time follows", || weir.json("/api/v1/status")["clock"]["set_back_to"].as_i64());
    wait_answer(&weir, 200, r#"{"status":"ok"}"#);
    assert_eq!(steps(&weir), [0.0, 1.0]);
    right_readings_count(&weir);
}

/// A weir that waits for its clock for `wait`, of which the kernel says `synchronized`. It does not run.
fn waiting(wait: &str, synchronized: Option<bool>) -> (Weir, Shim) {
    let mut weir = WEIR.prepare(&[("node.wait_for_clock", wait)]);
    let shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    shim.set_clock_synchronized(synchronized);
    (weir, shim)
}

/// What the status says of the clock; weir is ready.
fn clock_check(weir: &Weir) -> String {
    let checks = weir.json("/api/v1/status")["checks"].clone();
    let clock = checks.as_array().and_then(|checks| checks.iter().find(|check| check["name"] == "clock"));
    let clock = clock.expect("a check of the clock");
    assert_eq!(clock["ok"], true, "it is information alone: {clock}");
    clock["message"].as_str().expect("a text").to_owned()
}

#[test]
fn a_start_waits_for_a_synchronised_clock() {
    let (mut weir, shim) = waiting("'10m'", Some(false));
    std::thread::scope(|scope| {
        let output = weir.path("output.log");
        let shim = &shim;
        scope.spawn(move || {
            wait_for("weir waits", || {
                let said = std::fs::read_to_string(&output).unwrap_or_default();
                said.contains("waiting until the kernel says that its clock is synchronised").then_some(())
            });
            shim.set_clock_synchronized(Some(true));
        });
        weir.restart();
    });
    let said = weir.output();
    let (synchronised, listening) = (said.find("the clock is synchronised"), said.find("listening"));
    assert!(synchronised.is_some() && synchronised < listening, "{said}");
    wait_for("the metric says so", || (weir.metric_sum("weir_clock_synchronized") > 0.5).then_some(()));
    shim.set_clock_synchronized(Some(false));
    wait_for("the metric follows", || (weir.metric_sum("weir_clock_synchronized") < 0.5).then_some(()));
    let said = clock_check(&weir);
    assert!(said.contains("not synchronised (NTP)"), "{said}");
}

#[test]
fn a_start_waits_no_longer_than_it_is_told() {
    let (mut weir, _shim) = waiting("'1s'", Some(false));
    weir.restart();
    assert!(weir.output().contains("the clock is not synchronised: weir starts all the same"), "{}", weir.output());
}

#[test]
fn a_kernel_that_does_not_tell_holds_up_nothing() {
    let (mut weir, _shim) = waiting("'10m'", None);
    weir.restart();
    let said = weir.output();
    assert!(said.contains("the kernel does not tell whether its clock is synchronised"), "{said}");
    // The clock has been looked at: this metric is set with the other one.
    let metrics = wait_for("the clock is looked at", || {
        let metrics = weir.get("/metrics").text();
        metrics.contains("\nweir_clock_hold_seconds").then_some(metrics)
    });
    assert!(!metrics.contains("\nweir_clock_synchronized"), "{metrics}");
    let clock = &weir.json("/api/v1/status")["clock"];
    assert_eq!(clock["synchronized"], Value::Null, "{clock}");
    assert!(!clock_check(&weir).contains("NTP"));
}
