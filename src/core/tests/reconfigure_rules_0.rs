//! Changes of settings in the journals of earlier versions.

use super::reconfigure::{a, b, check_reconfigure};
use super::{Input, OperatorHarness, T0, flink};
use crate::core::settings::{Settings, WatermarkScope};

/// The default settings, as earlier versions recorded them.
fn rules_0() -> Settings {
    Settings { rules: 0, ..flink() }
}

#[test]
fn another_window_size_closes_what_is_open() {
    let mut bench = OperatorHarness::new(rules_0());
    bench.check(T0, &[b(0, 1.0), a(0, 2.0), a(5_000, 4.0)], &[]);
    let larger = Settings { window_ms: 20_000, ..rules_0() };
    check_reconfigure(&mut bench, larger, &["a/m@0#0=2.0", "b/m@0#0=1.0", "a/m@5000#0=4.0"]);
    assert!(!bench.operator.has_open_windows());
    assert_eq!(bench.operator.sizes().windows, 2);
    // T0 is 5 s into a window of 20 s; that window overlaps a fired one.
    bench.check(T0, &[a(6_000, 1.0)], &["late a/m 0"]);
    bench.check(T0, &[a(15_000, 8.0), a(60_000, 1.0)], &["a/m@15000#0=8.0"]);
}

#[test]
fn a_wider_lateness_reopens_nothing() {
    let narrow = Settings { allowed_lateness_ms: 0, ..rules_0() };
    let mut bench = OperatorHarness::new(narrow.clone());
    bench.check(T0, &[a(0, 1.0), a(20_000, 1.0)], &["a/m@0#0=1.0"]);
    check_reconfigure(&mut bench, rules_0(), &[]);
    bench.check(T0, &[a(0, 1.0), a(14_999, 1.0)], &["late a/m 0", "late a/m 0"]);
    bench.check(T0, &[a(23_000, 1.0), a(14_999, 1.0)], &["late a/m 0"]);
    bench.check(T0, &[a(15_001, 1.0), a(27_000, 1.0)], &["a/m@20000#0=2.0", "a/m@15000#0=1.0"]);
    bench.check(T0, &[a(15_002, 1.0)], &["a/m@15000#1=2.0"]);
}

#[test]
fn from_device_to_global_no_watermark_goes_back() {
    let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..rules_0() });
    bench.check(T0, &[a(0, 1.0), b(0, 2.0), a(20_000, 4.0)], &["a/m@0#0=1.0"]);
    let global = Settings { allowed_lateness_ms: 0, watermark: WatermarkScope::Global, ..rules_0() };
    check_reconfigure(&mut bench, global, &["b/m@0#0=2.0"]);
    bench.check(T0, &[b(0, 1.0)], &["late b/m 0"]);
    bench.check(T0, &[b(27_000, 8.0)], &["a/m@20000#0=4.0"]);
}

#[test]
fn from_global_to_device_no_watermark_goes_back() {
    let global = Settings { allowed_lateness_ms: 0, watermark: WatermarkScope::Global, ..rules_0() };
    let mut bench = OperatorHarness::new(global);
    bench.check(T0, &[b(0, 2.0), a(20_000, 4.0)], &["b/m@0#0=2.0"]);
    check_reconfigure(&mut bench, Settings { allowed_lateness_ms: 0, ..rules_0() }, &[]);
    bench.check(T0, &[b(0, 1.0)], &["late b/m 0"]);
    bench.check(T0, &[b(20_000, 1.0), a(40_000, 1.0)], &["a/m@20000#0=4.0"]);
    bench.check(T0 + 10_000, &[Input::Tick], &["b/m@20000#0=1.0", "a/m@40000#0=1.0"]);
}
