//! Lifetime of devices, sizes of the state, and questions about it.

use super::{Input, OperatorHarness, T0, a, flink, numbered, reading};
use crate::core::reason::Reason;
use crate::core::settings::Settings;
use crate::core::totals::Sizes;

const DAY_MS: i64 = 86_400_000;

/// Ticks from the day after `from` to `to`, each of which counts whole.
fn pass_days(bench: &mut OperatorHarness, from: i64, to: i64) {
    for day in from + 1..=to {
        assert_eq!(bench.apply(T0 + day * DAY_MS, &[Input::Tick]), []);
    }
}

#[test]
fn silent_devices_are_forgotten() {
    let settings = Settings { idle_timeout_ms: None, device_ttl_ms: Some(30 * DAY_MS), ..flink() };
    let mut bench = OperatorHarness::new(settings);
    bench.check(T0, &[a(0, 1.0), Input::telemetry("b", reading(0, 2.0))], &[]);
    pass_days(&mut bench, 0, 28);
    bench.check(T0 + 29 * DAY_MS, &[Input::telemetry("b", reading(29 * DAY_MS, 4.0))], &["b/m@0#0=2.0"]);
    let effects = &["a/m@0#0=1.0"];
    bench.check(T0 + 30 * DAY_MS, &[Input::Tick], effects);
    let sizes = Sizes { devices: 1, series: 1, open_windows: 1, windows: 2, clients: 1, ..Sizes::default() };
    assert_eq!(bench.operator.sizes(), sizes);
    assert_eq!(bench.operator.totals().devices_expired, 1);
    assert!(bench.operator.device("a").is_none());
}

#[test]
fn a_jump_of_the_clock_forgets_nobody() {
    let mut bench = OperatorHarness::new(Settings { max_age_ms: None, ..flink() });
    bench.check(T0, &[Input::telemetry("a", numbered(1, 0, 1.0))], &[]);
    bench.apply(T0 + 3_650 * DAY_MS, &[Input::telemetry("a", numbered(1, 0, 1.0))]);
    assert_eq!(bench.operator.totals().rejected[Reason::Duplicate as usize], 1);
    // A right setting of the clock, and wrong ones.
    for jump in 2..7 {
        bench.apply(T0 + jump * 3_650 * DAY_MS, &[Input::Tick]);
    }
    assert_eq!(bench.operator.totals().devices_expired, 0);
}

#[test]
fn being_down_is_not_silence() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[a(0, 1.0)], &[]);
    bench.check(T0 + 60 * DAY_MS, &[Input::Resumed], &[]);
    assert_eq!(bench.operator.sizes().devices, 1);
    bench.apply(T0 + 61 * DAY_MS, &[Input::Tick]);
    pass_days(&mut bench, 61, 89);
    assert_eq!(bench.operator.sizes().devices, 1);
    bench.apply(T0 + 90 * DAY_MS, &[Input::Tick]);
    assert_eq!(bench.operator.sizes().devices, 0);
}

#[test]
fn rejected_readings_create_the_device_while_there_is_room() {
    let mut bench = OperatorHarness::new(Settings { max_devices: 1, ..flink() });
    bench.check(T0, &[Input::telemetry("a", r#"{"seq":4}"#)], &["missing_field a/- 0"]);
    bench.check(T0, &[Input::telemetry("b", r#"{"seq":4}"#)], &["missing_field b/- 0"]);
    bench.check(T0, &[Input::telemetry("b", numbered(4, 0, 1.0))], &["too_many_devices b/m 0"]);
    bench.check(T0, &[Input::telemetry("a", "junk")], &["malformed a/- 0"]);
    let device = bench.operator.device("a").unwrap();
    assert_eq!(device.sequence_ranges, [(4, 4)]);
    assert_eq!(device.summary.rejected, [(Reason::Malformed, 1), (Reason::MissingField, 1)]);
    assert_eq!(device.summary.watermark_ms, None);
    assert_eq!(device.summary.clock_offset_ms, None);
    assert_eq!(bench.operator.sizes().devices, 1);
}

#[test]
fn devices_are_listed_in_order() {
    let mut bench = OperatorHarness::new(flink());
    for device in ["c", "a", "b"] {
        bench.apply(T0 + 100, &[Input::telemetry(device, numbered(1, 40, 1.0))]);
    }
    bench.apply(T0 + 200, &[Input::telemetry("b", numbered(5, 50, 1.0))]);
    let ids = |after, limit| -> Vec<String> {
        bench.operator.devices(after, limit).into_iter().map(|device| device.device_id).collect()
    };
    assert_eq!(ids(None, 2), ["a", "b"]);
    assert_eq!(ids(Some("b"), 2), ["c"]);
    let b = &bench.operator.devices(Some("a"), 1)[0];
    assert_eq!((b.last_seen_ms, b.clock_offset_ms, b.accepted, b.metrics), (T0 + 200, Some(-150), 2, 1));
    assert_eq!((b.sequence_missing, b.watermark_ms), (3, Some(T0 + 50 - 2_001)));
}

#[test]
fn last_windows_are_the_newest_fired() {
    let mut bench = OperatorHarness::new(flink());
    let metrics =
        |offset: i64| Input::telemetry("a", format!(r#"{{"timestamp":{},"metrics":{{"y":1,"x":2}}}}"#, T0 + offset));
    bench.apply(T0, &[metrics(0), metrics(5_000), metrics(12_000)]);
    bench.apply(T0, &[Input::telemetry("b", reading(0, 4.0)), Input::telemetry("b", reading(7_000, 4.0))]);
    bench.apply(T0, &[metrics(1)]);
    let (windows, more) = bench.operator.last_windows(T0, 2);
    let names: Vec<_> = windows.iter().map(|w| (w.metric.as_str(), w.window_end_ms - T0, w.seq, w.count)).collect();
    assert_eq!((names, more), (vec![("x", 10_000, 2, 1), ("y", 10_000, 3, 1)], 1));
    assert_eq!(bench.operator.last_windows(T0 + 5_000, 9).0.len(), 2);
    assert_eq!(bench.operator.last_windows(T0 + 10_000, 9), (vec![], 0));
    let detail = bench.operator.device("b").unwrap();
    let last = detail.series[0].last_window.as_ref().unwrap();
    assert!(String::from_utf8(last.json.clone()).unwrap().starts_with(r#"{"seq":4,"device_id":"b","metric":"m","#));
    assert_eq!((last.mean, last.min, last.max, last.last), (4.0, 4.0, 4.0, 4.0));
}

#[test]
fn the_operator_can_move_to_another_thread() {
    fn check<T: Send>() {}
    check::<crate::core::operator::Operator>();
}

#[test]
fn merged_sequence_ranges_are_counted() {
    let mut bench = OperatorHarness::new(flink());
    for seq in 0..260 {
        bench.apply(T0, &[Input::telemetry("a", numbered(seq * 2, 0, 1.0))]);
    }
    assert_eq!(bench.operator.totals().sequence_ranges_merged, 4);
    assert_eq!(bench.operator.device("a").unwrap().sequence_ranges.len(), 256);
}
