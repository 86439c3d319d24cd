//! Windows and watermarks by event time.

use super::{Effect, Input, OperatorHarness, T0, a, b, flink, reading};
use crate::core::settings::{Settings, WatermarkScope};

fn global() -> Settings {
    Settings { watermark: WatermarkScope::Global, ..flink() }
}

#[test]
fn a_window_fires_when_the_watermark_reaches_its_end() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[a(0, 1.0), a(4_999, 2.0), a(6_999, 4.0)], &[]);
    assert!(bench.operator.has_open_windows());
    bench.check(T0, &[a(7_000, 8.0)], &["a/m@0#0=3.0"]);
    assert_eq!(bench.operator.sizes().open_windows, 1);
}

#[test]
fn a_reading_is_judged_by_the_watermark_before_it() {
    let settings = Settings { allowed_lateness_ms: 3_000, ..flink() };
    let mut bench = OperatorHarness::new(settings);
    bench.check(T0, &[a(0, 1.0), a(9_999, 2.0)], &["a/m@0#0=1.0"]);
    bench.check(T0, &[a(4_999, 4.0)], &["a/m@0#1=5.0"]);
    bench.check(T0, &[a(10_000, 8.0), a(4_999, 16.0)], &["late a/m 0"]);
}

#[test]
fn devices_do_not_disturb_each_other() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[a(0, 1.0), b(200_000, 2.0), a(1, 1.0)], &[]);
    bench.check(T0, &[a(7_000, 1.0)], &["a/m@0#0=2.0"]);
}

#[test]
fn under_scope_global_they_share_one_watermark() {
    let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..global() });
    bench.check(T0, &[b(0, 1.0), a(1, 2.0), a(5_000, 4.0), b(5_000, 8.0)], &[]);
    bench.check(T0, &[a(12_000, 16.0)], &["a/m@0#0=2.0", "b/m@0#0=1.0", "a/m@5000#0=4.0", "b/m@5000#0=8.0"]);
    bench.check(T0, &[b(9_999, 32.0)], &["late b/m 0"]);
}

#[test]
fn a_message_is_one_step_of_the_watermark() {
    let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..flink() });
    let backlog = format!("[{},{},{},{}]", reading(60_000, 1.0), reading(0, 2.0), reading(5_000, 4.0), reading(1, 8.0));
    bench.check(T0, &[Input::telemetry("a", backlog)], &["a/m@0#0=10.0", "a/m@5000#0=4.0"]);
}

#[test]
fn a_message_of_several_devices_fires_in_order() {
    let mut bench = OperatorHarness::new(flink());
    let element = |device: &str, metric: &str, offset: i64| {
        format!(r#"{{"device_id":"{device}","metric":"{metric}","value":1,"timestamp":{}}}"#, T0 + offset)
    };
    let elements = [
        element("b", "y", 0),
        element("b", "x", 0),
        element("a", "z", 5_000),
        element("a", "z", 0),
        element("b", "x", 20_000),
        element("a", "z", 20_000),
    ];
    let message = Input::on("any", format!("[{}]", elements.join(",")));
    bench.check(T0, &[message], &["a/z@0#0=1.0", "b/x@0#0=1.0", "b/y@0#0=1.0", "a/z@5000#0=1.0"]);
}

#[test]
fn late_firings_are_coalesced_at_the_end_of_the_batch() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[a(0, 1.0), a(20_000, 1.0)], &["a/m@0#0=1.0"]);
    bench.check(
        T0,
        &[b(1, 2.0), b(20_000, 1.0), a(5_000, 4.0), b(2, 8.0), a(2, 16.0), a(3, 32.0)],
        &["b/m@0#0=2.0", "a/m@0#1=49.0", "b/m@0#1=10.0", "a/m@5000#0=4.0"],
    );
}

#[test]
fn a_correction_names_what_it_supersedes() {
    let mut bench = OperatorHarness::new(flink());
    bench.apply(T0, &[a(0, 1.0), a(20_000, 1.0)]);
    bench.apply(T0, &[a(0, 1.0)]);
    let effects = bench.apply(T0, &[a(0, 1.0)]);
    let [Effect::Window { seq: 2, supersedes: Some(1), json }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&json["revision"], &json["count"]), (&2.into(), &3.into()));
    assert_eq!(bench.operator.next_window_seq(), 3);
    assert_eq!((bench.operator.totals().windows_first, bench.operator.totals().windows_corrected), (1, 2));
}

#[test]
fn expired_windows_are_dropped_but_for_the_last() {
    for settings in [flink(), global()] {
        let mut bench = OperatorHarness::new(settings);
        for step in 0..100 {
            bench.apply(T0, &[a(step * 1_000, 1.0)]);
        }
        // Open: one or two; kept for 30 s of lateness: seven.
        assert!(bench.operator.sizes().windows <= 10, "{:?}", bench.operator.sizes());
        bench.apply(T0, &[a(300_000, 1.0)]);
        assert_eq!(bench.operator.sizes().windows, 2);
        let last = bench.operator.last_windows(i64::MIN, 10).0;
        assert_eq!(last[0].window_end_ms, T0 + 100_000);
    }
}

#[test]
fn under_scope_global_windows_of_silent_devices_expire_too() {
    let mut bench = OperatorHarness::new(global());
    bench.apply(T0, &[b(0, 1.0), b(5_000, 1.0), a(12_000, 1.0)]);
    assert_eq!(bench.operator.sizes().windows, 3);
    bench.apply(T0, &[a(100_000, 1.0)]);
    assert_eq!(bench.operator.sizes().windows, 3, "one of b, two of a");
}

#[test]
fn readings_without_timestamp_count_at_their_arrival() {
    let mut bench = OperatorHarness::new(flink());
    let bare = Input::telemetry("a", r#"{"metric":"m","value":1}"#);
    bench.check(T0 + 4_999, std::slice::from_ref(&bare), &[]);
    bench.check(T0 + 7_000, &[bare], &["a/m@0#0=1.0"]);
}

#[test]
fn an_overflowing_aggregate_is_null() {
    let mut bench = OperatorHarness::new(flink());
    let effects = bench.apply(T0, &[a(0, f64::MAX), a(0, f64::MAX), a(60_000, 0.0)]);
    let [Effect::Window { json, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(json["sum"], serde_json::Value::Null);
    assert_eq!(json["mean"], f64::MAX);
}

#[test]
fn closing_fires_all_open_windows_in_order() {
    for settings in [flink(), global()] {
        let mut bench = OperatorHarness::new(settings);
        bench.check(T0, &[b(0, 1.0), a(5_000, 2.0), b(5_001, 4.0), a(0, 8.0)], &[]);
        bench.operator.close_all(&mut bench.effects);
        let effects: Vec<_> = std::mem::take(&mut bench.effects.0).iter().map(super::brief).collect();
        assert_eq!(effects, ["a/m@0#0=8.0", "b/m@0#0=1.0", "a/m@5000#0=2.0", "b/m@5000#0=4.0"]);
        assert!(!bench.operator.has_open_windows());
        bench.operator.close_all(&mut bench.effects);
        assert_eq!(bench.effects.0, []);
    }
}

#[test]
fn years_at_the_edges() {
    let unlimited = Settings { max_future_ms: None, max_age_ms: None, ..flink() };
    let mut bench = OperatorHarness::new(unlimited);
    let at = |time: &str| Input::telemetry("a", format!(r#"{{"metric":"m","value":1,"timestamp":{time}}}"#));
    bench.apply(T0, &[at("-377705116800000000000")]);
    assert_eq!(bench.operator.totals().in_windows, 1, "nanoseconds");
    bench.apply(T0, &[at("\"9999-12-31T23:59:59.999Z\"")]);
    assert_eq!((bench.operator.totals().in_windows, bench.operator.totals().windows_first), (2, 1));
}

#[test]
fn a_record_of_another_format_is_an_error() {
    let mut bench = OperatorHarness::new(flink());
    let records = [&[1u8, 0x80][..]];
    assert!(bench.operator.apply(0, T0, records.into_iter(), &mut bench.effects).is_err());
}
