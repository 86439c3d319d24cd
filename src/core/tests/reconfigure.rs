//! Continuing under other settings.

use super::{Input, OperatorHarness, T0, flink, reading};
use crate::core::operator::Operator;
use crate::core::settings::{Settings, WatermarkScope};

fn a(offset_ms: i64, value: f64) -> Input {
    Input::telemetry("a", reading(offset_ms, value))
}

fn b(offset_ms: i64, value: f64) -> Input {
    Input::telemetry("b", reading(offset_ms, value))
}

fn check_reconfigure(bench: &mut OperatorHarness, settings: Settings, effects: &[&str]) {
    bench.check(T0, &[Input::Settings(Box::new(settings.clone()))], effects);
    assert_eq!(*bench.operator.settings(), settings);
}

#[test]
fn another_window_size_closes_what_is_open() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[b(0, 1.0), a(0, 2.0), a(5_000, 4.0)], &[]);
    let larger = Settings { window_ms: 20_000, ..flink() };
    check_reconfigure(&mut bench, larger, &["a/m@0#0=2.0", "b/m@0#0=1.0", "a/m@5000#0=4.0"]);
    assert!(!bench.operator.has_open_windows());
    assert_eq!(bench.operator.sizes().windows, 2);
    // T0 is 5 s into a window of 20 s; that window overlaps a fired one.
    bench.check(T0, &[a(6_000, 1.0)], &["late a/m 0"]);
    bench.check(T0, &[a(15_000, 8.0), a(60_000, 1.0)], &["a/m@15000#0=8.0"]);
}

#[test]
fn a_wider_lateness_reopens_nothing() {
    let narrow = Settings { allowed_lateness_ms: 0, ..flink() };
    let mut bench = OperatorHarness::new(narrow.clone());
    bench.check(T0, &[a(0, 1.0), a(20_000, 1.0)], &["a/m@0#0=1.0"]);
    check_reconfigure(&mut bench, flink(), &[]);
    bench.check(T0, &[a(0, 1.0), a(14_999, 1.0)], &["late a/m 0", "late a/m 0"]);
    bench.check(T0, &[a(23_000, 1.0), a(14_999, 1.0)], &["late a/m 0"]);
    bench.check(T0, &[a(15_001, 1.0), a(27_000, 1.0)], &["a/m@20000#0=2.0", "a/m@15000#0=1.0"]);
    bench.check(T0, &[a(15_002, 1.0)], &["a/m@15000#1=2.0"]);
}

#[test]
fn from_device_to_global_no_watermark_goes_back() {
    let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..flink() });
    bench.check(T0, &[a(0, 1.0), b(0, 2.0), a(20_000, 4.0)], &["a/m@0#0=1.0"]);
    let global = Settings { allowed_lateness_ms: 0, watermark: WatermarkScope::Global, ..flink() };
    check_reconfigure(&mut bench, global, &["b/m@0#0=2.0"]);
    bench.check(T0, &[b(0, 1.0)], &["late b/m 0"]);
    bench.check(T0, &[b(27_000, 8.0)], &["a/m@20000#0=4.0"]);
}

#[test]
fn from_global_to_device_no_watermark_goes_back() {
    let global = Settings { allowed_lateness_ms: 0, watermark: WatermarkScope::Global, ..flink() };
    let mut bench = OperatorHarness::new(global);
    bench.check(T0, &[b(0, 2.0), a(20_000, 4.0)], &["b/m@0#0=2.0"]);
    check_reconfigure(&mut bench, Settings { allowed_lateness_ms: 0, ..flink() }, &[]);
    bench.check(T0, &[b(0, 1.0)], &["late b/m 0"]);
    bench.check(T0, &[b(20_000, 1.0), a(40_000, 1.0)], &["a/m@20000#0=4.0"]);
    bench.check(T0 + 10_000, &[Input::Tick], &["b/m@20000#0=1.0", "a/m@40000#0=1.0"]);
}

#[test]
fn rules_apply_from_then_on() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[a(0, 1.0)], &[]);
    let settings = Settings { allowed_devices: vec!["b".into()], idle_timeout_ms: Some(1_000), ..flink() };
    check_reconfigure(&mut bench, settings, &[]);
    bench.check(T0 + 5_000, &[a(1, 1.0)], &["unknown_device a/m 0"]);
    bench.check(T0 + 7_000, &[Input::Tick], &["a/m@0#0=1.0"]);
}

#[test]
fn fixed_settings_ignore_the_journal() {
    let fixed = Settings { window_ms: 10_000, ..flink() };
    let mut bench = OperatorHarness {
        operator: Operator::with_fixed_settings(fixed.clone()),
        ..OperatorHarness::new(fixed.clone())
    };
    let journal = [Input::Settings(Box::new(flink())), a(0, 1.0), Input::Settings(Box::new(flink())), a(30_000, 2.0)];
    bench.check(T0, &journal, &["a/m@-5000#0=1.0"]);
    assert_eq!(*bench.operator.settings(), fixed);
}

#[test]
fn settings_change_between_two_records_of_a_batch() {
    let mut bench = OperatorHarness::new(flink());
    let refused = Settings { allowed_devices: vec!["b".into()], ..flink() };
    let inputs = [a(0, 1.0), Input::Settings(Box::new(refused)), a(1_000, 2.0), b(0, 4.0)];
    bench.check(T0, &inputs, &["unknown_device a/m 0"]);
}

#[test]
fn the_same_settings_change_nothing() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[a(0, 1.0), a(20_000, 1.0)], &["a/m@0#0=1.0"]);
    let same = Input::Settings(Box::new(flink()));
    bench.check(T0, &[a(1_000, 1.0), same, a(2_000, 1.0)], &["a/m@0#1=3.0"]);
}

#[test]
fn what_is_not_settings_is_refused() {
    let mut bench = OperatorHarness::new(flink());
    let mut bytes = Input::Settings(Box::new(flink())).encode(None);
    bytes.pop();
    let tick = Input::Tick.encode(None);
    let records = [tick.as_slice(), &bytes].into_iter();
    let error = bench.operator.apply(7, T0, records, &mut bench.effects).unwrap_err();
    assert_eq!(error.index, 1);
}
