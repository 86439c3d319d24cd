//! Devices that were away: what they stored is counted beside their live data, in whatever order it comes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::http::{self, SseReader};
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{now_ms, wait_for, window_before};

/// Stored readings of a device: one for each second of 200 windows.
const STORED: i64 = 1_000;

const TWO_DAYS_SECONDS: i64 = 2 * 86_400;

/// A backlog ends with a silence that a machine under load does not make between two messages.
const PATIENT: (&str, &str) = ("window.idle_timeout", "'3s'");

fn live() -> Value {
    json!({"metric": "t", "value": 1, "timestamp": now_ms()})
}

/// Stored readings with these numbers, which are their values too.
fn stored(start_ms: i64, numbers: impl IntoIterator<Item = i64>) -> Value {
    let reading = |number: i64| json!({"metric": "t", "value": number, "timestamp": start_ms + number * 1_000});
    numbers.into_iter().map(reading).collect()
}

/// Device `a` once `readings` of its readings have an outcome, no window waits, and all results can be read.
fn settled(weir: &Weir, readings: u64) -> Value {
    wait_for("all readings have an outcome", || {
        let answer = http::try_get(weir.http(), "/api/v1/devices/a").filter(|answer| answer.status == 200)?;
        let device = answer.json();
        let rejected: u64 = device["rejected"].as_object()?.values().filter_map(Value::as_u64).sum();
        (device["accepted"].as_u64()? + rejected >= readings).then_some(())
    });
    weir.wait_closed();
    weir.assert_accounted();
    weir.json("/api/v1/devices/a")
}

/// Checks that all stored readings and so many live ones are in their windows, each once, and that the windows of the stored
/// ones say whether they came behind live data.
#[track_caller]
fn check_windows(weir: &Weir, start_ms: i64, live: u64, is_behind: bool) {
    let device = settled(weir, STORED as u64 + live);
    assert_eq!((&device["accepted"], &device["rejected"]), (&json!(STORED as u64 + live), &json!({})), "{device}");
    assert!(weir.list("errors", "").is_empty(), "{:?}", weir.list("errors", ""));
    let (mut old, mut new) = (BTreeMap::new(), 0);
    for window in weir.list("windows", "&device=a") {
        let field = |name: &str| window[name].as_f64().expect("a number");
        let is_old = window["window_start"].as_i64() < Some(start_ms + STORED * 1_000);
        assert_eq!(window["backlog"], if is_old && is_behind { json!(true) } else { Value::Null }, "{window}");
        if is_old {
            let before = old.insert(field("window_start") as i64, (field("count") as i64, field("sum") as i64));
            assert_eq!(before, None, "it is listed twice: {window}");
        } else {
            new += field("count") as u64;
        }
    }
    let expected = (0..STORED / 5).map(|index| (start_ms + index * 5_000, (5, 25 * index + 10)));
    let wrong: Vec<_> = expected.filter(|(start, window)| old.get(start) != Some(window)).collect();
    assert_eq!((wrong, old.len() as i64, new), (vec![], STORED / 5, live), "{old:?}");
}

#[test]
fn a_backlog_behind_a_live_reading_is_counted() {
    let weir = WEIR.start(&[PATIENT]);
    let start_ms = window_before(TWO_DAYS_SECONDS);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "a");
    device.telemetry("a", &live().to_string());
    device.telemetry("a", &stored(start_ms, 0..STORED).to_string());
    check_windows(&weir, start_ms, 1, true);
    // Each window fired once, whole.
    let mut revisions = weir.list("windows", "&device=a&revisions=all");
    revisions.sort_by_key(|window| window["window_start"].as_i64());
    assert_eq!(revisions.len() as i64, STORED / 5 + 1);
    for (index, window) in (0..STORED / 5).zip(&revisions) {
        let first = 5 * index;
        let start_ms = start_ms + index * 5_000;
        let expected = json!({
            "seq": window["seq"], "device_id": "a", "metric": "t", "window_start": start_ms,
            "window_end": start_ms + 5_000, "revision": 0, "count": 5, "sum": (25 * index + 10) as f64,
            "mean": (first + 2) as f64, "min": first as f64, "max": (first + 4) as f64, "first": first as f64,
            "last": (first + 4) as f64, "stddev": 2_f64.sqrt(), "backlog": true,
        });
        assert_eq!(*window, expected);
    }
    assert_eq!(revisions[200]["revision"], 0);
    assert_eq!(weir.metric("weir_backlog_windows_fired_total"), 200.0);
    assert_eq!([weir.metric("weir_backlog_windows"), weir.metric("weir_backlog_devices")], [0.0; 2]);
}

/// What one step publishes.
enum BacklogStep {
    Live,
    /// Stored readings, in this order.
    Stored(Vec<i64>),
    /// weir is killed and starts again.
    Crash,
}

/// Publishes the steps in turn, from one of `clients` after another, and expects every reading to be counted once.
fn check_order(clients: usize, steps: Vec<BacklogStep>) {
    let mut weir = WEIR.start(&[PATIENT, ("state.checkpoint_interval", "'100ms'")]);
    let start_ms = window_before(TWO_DAYS_SECONDS);
    let connect = |weir: &Weir| -> Vec<TestClient> {
        (0..clients).map(|n| TestClient::connect(weir.mqtt(), MqttVersion::V5, &format!("c{n}"))).collect()
    };
    let mut connected = connect(&weir);
    let is_behind = matches!(steps[0], BacklogStep::Live);
    let mut lives = 0;
    for (index, step) in steps.into_iter().enumerate() {
        let client = &mut connected[index % clients];
        match step {
            BacklogStep::Live => {
                lives += 1;
                client.telemetry("a", &live().to_string());
            }
            BacklogStep::Stored(numbers) => client.telemetry("a", &stored(start_ms, numbers).to_string()),
            BacklogStep::Crash => {
                weir.kill();
                weir.restart();
                connected = connect(&weir);
            }
        }
    }
    check_windows(&weir, start_ms, lives, is_behind);
}

/// A live reading, then messages with up to a hundred of these numbers each.
fn behind_live(numbers: impl IntoIterator<Item = i64>) -> Vec<BacklogStep> {
    let numbers: Vec<i64> = numbers.into_iter().collect();
    let messages = numbers.chunks(100).map(|chunk| BacklogStep::Stored(chunk.to_vec()));
    std::iter::once(BacklogStep::Live).chain(messages).collect()
}

/// The messages of two halves of the history in turn.
fn halves() -> Vec<i64> {
    let hundred = |first: i64| first..first + 100;
    (0..STORED / 2).step_by(100).flat_map(|first| hundred(first).chain(hundred(STORED / 2 + first))).collect()
}

#[test]
fn newest_first() {
    check_order(1, behind_live((0..STORED).rev()));
}

#[test]
fn newest_message_first() {
    let hundreds = (0..STORED / 100).rev().map(|hundred| 100 * hundred);
    check_order(1, behind_live(hundreds.flat_map(|first| first..first + 100)));
}

#[test]
fn two_halves_interleaved() {
    check_order(1, behind_live(halves()));
}

/// Each window has readings of both passes.
#[test]
fn every_other_reading_in_a_second_pass() {
    check_order(1, behind_live((0..STORED).step_by(2).chain((1..STORED).step_by(2))));
}

#[test]
fn two_clients_in_turn() {
    check_order(2, behind_live(halves()));
}

#[test]
fn a_live_reading_between_every_two_messages() {
    let steps = behind_live(0..STORED).into_iter().flat_map(|step| [BacklogStep::Live, step]);
    check_order(1, steps.collect());
}

#[test]
fn backlog_first() {
    let mut steps = behind_live(0..STORED);
    steps.rotate_left(1);
    check_order(1, steps);
}

/// A crash in the middle, within a window, and behind the last message.
#[test]
fn crashes_lose_nothing_of_a_backlog() {
    for numbers in [(0..STORED).collect::<Vec<_>>(), halves()] {
        let mut steps = behind_live(numbers.iter().copied());
        steps.insert(6, BacklogStep::Crash);
        let BacklogStep::Stored(first) = &mut steps[5] else { panic!("a message") };
        let moved = first.split_off(97);
        let BacklogStep::Stored(second) = &mut steps[7] else { panic!("a message") };
        second.splice(0..0, moved);
        steps.push(BacklogStep::Crash);
        check_order(1, steps);
    }
}

#[test]
fn a_backlog_says_so_everywhere() {
    let weir = WEIR.start(&[("window.idle_timeout", "'1s'")]);
    let mut subscriber = TestClient::connect(weir.mqtt(), MqttVersion::V4, "subscriber");
    subscriber.subscribe("weir/windows/#", 1);
    let mut events = SseReader::open(weir.http(), "/api/v1/stream?windows=1");
    let start_ms = window_before(TWO_DAYS_SECONDS);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "a");
    device.telemetry("a", &live().to_string());
    device.telemetry("a", &stored(start_ms, [3]).to_string());
    settled(&weir, 2);
    let shown = weir.list("windows", "&device=a");
    let flag = |window: &Value| (window["window_start"] == start_ms, window["backlog"].clone());
    let expected = |mut flags: Vec<(bool, Value)>| {
        flags.sort_by_key(|(is_stored, _)| *is_stored);
        assert_eq!(flags, [(false, Value::Null), (true, json!(true))]);
    };
    expected(shown.iter().map(flag).collect());
    let payloads = (0..2).map(|_| subscriber.message());
    expected(payloads.map(|(_, payload)| flag(&serde_json::from_slice(&payload).expect("JSON"))).collect());
    expected((0..2).map(|_| flag(&events.next_event().1)).collect());
    let csv = http::get_as(weir.http(), "/api/v1/windows?device=a", "text/csv").ok().text();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    let column = |name: &str| rows[0].iter().position(|header| *header == name).expect("a column");
    let (start, backlog) = (column("window_start"), column("backlog"));
    let start_text = start_ms.to_string();
    for row in &rows[1..] {
        let value = if row[start] == start_text { "true" } else { "" };
        assert_eq!(row[backlog], value, "{csv}");
    }
    assert_eq!(rows.len(), 3, "{csv}");
}

/// As in Flink: everything behind the watermark and the allowed lateness is late.
#[test]
fn without_backlogs_all_of_it_is_late() {
    let weir = WEIR.start(&[PATIENT, ("window.backlog", "'off'")]);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "a");
    device.telemetry("a", &live().to_string());
    device.telemetry("a", &stored(window_before(TWO_DAYS_SECONDS), 0..STORED).to_string());
    let device = settled(&weir, STORED as u64 + 1);
    assert_eq!((&device["accepted"], &device["rejected"]), (&json!(1), &json!({"late": STORED})), "{device}");
    let windows = weir.list("windows", "&device=a");
    assert_eq!((windows.len(), &windows[0]["count"]), (1, &json!(1)), "{windows:?}");
    let errors = weir.list("errors", "&device=a");
    let told: u64 = errors.iter().map(|error| error["readings"].as_u64().unwrap_or(1)).sum();
    assert_eq!(told, STORED as u64, "each of them is told");
}

/// A sparse metric: seventy windows with gaps that grow. Its runs are bounded, and the smallest gaps close.
#[test]
fn the_longest_absences_of_a_sparse_metric_stay_open() {
    const WINDOWS: i64 = 70;
    // The gap behind window `n` has 10 s, 20 s, and so on.
    let number = |n: i64| 5 * n + 10 * n * (n + 1) / 2;
    let weir = WEIR.start(&[("window.idle_timeout", "'1s'")]);
    let start_ms = window_before(TWO_DAYS_SECONDS);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "a");
    device.telemetry("a", &live().to_string());
    device.telemetry("a", &stored(start_ms, (0..WINDOWS).map(number)).to_string());
    settled(&weir, WINDOWS as u64 + 1);
    // With the live window there are seven runs too many.
    assert_eq!(weir.metric("weir_fired_runs_merged_total"), 7.0);
    let gaps = [0, 6, 7, WINDOWS - 2].map(|n| number(n) + 5);
    device.telemetry("a", &stored(start_ms, gaps).to_string());
    let device = settled(&weir, WINDOWS as u64 + 5);
    assert_eq!(device["rejected"], json!({"late": 2}));
    let windows = weir.list("windows", "&device=a");
    let found = |number: &i64| windows.iter().any(|window| window["window_start"] == start_ms + number * 1_000);
    assert_eq!(gaps.each_ref().map(found), [false, false, true, true], "{windows:?}");
}
