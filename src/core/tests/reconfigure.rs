//! Continuing under other settings.

use super::{Effect, Input, OperatorHarness, T0, flink, reading};
use crate::core::operator::Operator;
use crate::core::settings::{Settings, TimestampUnit, WatermarkScope};

pub(super) fn a(offset_ms: i64, value: f64) -> Input {
    Input::telemetry("a", reading(offset_ms, value))
}

pub(super) fn b(offset_ms: i64, value: f64) -> Input {
    Input::telemetry("b", reading(offset_ms, value))
}

pub(super) fn check_reconfigure(bench: &mut OperatorHarness, settings: Settings, effects: &[&str]) {
    bench.check(T0, &[Input::Settings(Box::new(settings.clone()))], effects);
    assert_eq!(*bench.operator.settings(), settings);
}

#[test]
fn another_window_size_begins_at_a_common_border() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[b(0, 1.0), a(0, 2.0), a(5_000, 4.0)], &[]);
    let larger = Settings { window_ms: 20_000, ..flink() };
    check_reconfigure(&mut bench, larger, &[]);
    // T0 is 5 s into a window of 20 s. The next border of both sizes is at 15 s.
    bench.check(T0, &[a(1_000, 8.0), b(14_999, 2.0), b(15_000, 4.0)], &["b/m@0#0=1.0"]);
    bench.check(
        T0,
        &[a(34_999, 16.0), b(37_000, 1.0)],
        &["a/m@0#0=10.0", "a/m@5000#0=4.0", "b/m@10000#0=2.0", "b/m@15000#0=4.0"],
    );
    // A device that is new has the new size at once.
    bench.check(
        T0,
        &[Input::telemetry("c", reading(0, 1.0)), Input::telemetry("c", reading(17_000, 1.0))],
        &["c/m@-5000#0=1.0"],
    );
}

#[test]
fn a_smaller_size_begins_at_a_common_border() {
    let mut bench = OperatorHarness::new(Settings { window_ms: 60_000, ..flink() });
    // T0 is 45 s into a window of 60 s.
    bench.check(T0, &[a(0, 1.0)], &[]);
    check_reconfigure(&mut bench, flink(), &[]);
    bench.check(T0 + 14_000, &[a(14_999, 2.0), a(15_000, 4.0)], &[]);
    bench.check(T0 + 22_000, &[a(19_999, 8.0), a(22_000, 16.0)], &["a/m@-45000#0=3.0", "a/m@15000#0=12.0"]);
}

#[test]
fn late_readings_correct_windows_of_the_former_size() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[a(0, 1.0), a(9_000, 1.0)], &["a/m@0#0=1.0"]);
    check_reconfigure(&mut bench, Settings { window_ms: 20_000, ..flink() }, &[]);
    bench.check(T0, &[a(1_000, 2.0), a(-1_000, 4.0)], &["a/m@-5000#0=4.0", "a/m@0#1=3.0"]);
    bench.check(T0, &[a(62_000, 1.0)], &["a/m@5000#0=1.0"]);
    bench.check(T0, &[a(4_999, 2.0)], &["late a/m 0"]);
}

#[test]
fn a_size_that_never_began_is_passed_over() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[a(0, 1.0)], &[]);
    check_reconfigure(&mut bench, Settings { window_ms: 86_399_000, ..flink() }, &[]);
    check_reconfigure(&mut bench, flink(), &[]);
    bench.check(T0, &[a(4_999, 2.0), a(9_999, 4.0), a(14_999, 8.0)], &["a/m@0#0=3.0", "a/m@5000#0=4.0"]);
}

#[test]
fn several_sizes_before_1970() {
    let settings = |window_ms| Settings { window_ms, max_age_ms: None, timestamp_unit: TimestampUnit::Ms, ..flink() };
    let a = |time_ms: i64| Input::telemetry("a", reading(time_ms - T0, 1.0));
    let mut bench = OperatorHarness::new(settings(5_000));
    let start = |effects: &[Effect]| {
        let bounds = |effect: &Effect| match effect {
            Effect::Window { json, .. } => {
                (json["window_start"].as_i64().unwrap(), json["window_end"].as_i64().unwrap())
            }
            Effect::Error { json, .. } => panic!("{json}"),
        };
        effects.iter().map(bounds).collect::<Vec<_>>()
    };
    bench.apply(T0, &[a(-61_000)]);
    bench.apply(T0, &[Input::Settings(Box::new(settings(60_000)))]);
    bench.apply(T0, &[a(-60_001), a(-60_000)]);
    bench.apply(T0, &[Input::Settings(Box::new(settings(7_000)))]);
    let effects = bench.apply(T0, &[a(-2), a(1), a(6_999), a(7_000), a(30_000)]);
    assert_eq!(start(&effects), [(-65_000, -60_000), (-60_000, 0), (0, 7_000), (7_000, 14_000)]);
}

#[test]
fn a_wider_lateness_reopens_nothing() {
    let narrow = Settings { allowed_lateness_ms: 0, ..flink() };
    let mut bench = OperatorHarness::new(narrow.clone());
    bench.check(T0, &[a(0, 1.0), a(6_000, 1.0), a(20_000, 1.0)], &["a/m@0#0=1.0", "a/m@5000#0=1.0"]);
    check_reconfigure(&mut bench, flink(), &[]);
    bench.check(T0, &[a(0, 1.0)], &["late a/m 0"]);
    // The newest window that fired is held, and can be corrected. Windows behind it have not fired.
    bench.check(T0, &[a(9_999, 2.0), a(14_999, 1.0)], &["a/m@5000#1=3.0", "a/m@10000#0=1.0"]);
}

#[test]
fn a_narrower_lateness_is_for_windows_to_come() {
    let mut bench = OperatorHarness::new(flink());
    bench.check(T0, &[a(0, 1.0), a(5_000, 1.0), a(8_000, 1.0)], &["a/m@0#0=1.0"]);
    check_reconfigure(&mut bench, Settings { allowed_lateness_ms: 0, ..flink() }, &[]);
    bench.check(T0, &[a(34_000, 1.0)], &["a/m@5000#0=2.0"]);
    bench.check(T0, &[a(1, 2.0), a(5_001, 4.0)], &["a/m@0#1=3.0", "a/m@5000#1=6.0"]);
    // Windows that begin after the change close when they fire.
    bench.check(T0, &[a(15_000, 1.0)], &["late a/m 0"]);
    bench.check(T0, &[a(42_000, 1.0)], &["a/m@30000#0=1.0"]);
    bench.check(T0, &[a(2, 2.0), a(5_002, 8.0)], &["late a/m 0", "late a/m 0"]);
}

#[test]
fn under_one_watermark_a_narrower_lateness_is_for_windows_to_come() {
    let global = Settings { watermark: WatermarkScope::Global, ..flink() };
    let mut bench = OperatorHarness::new(global.clone());
    bench.check(T0, &[a(0, 1.0), a(5_000, 1.0), a(8_000, 1.0)], &["a/m@0#0=1.0"]);
    check_reconfigure(&mut bench, Settings { allowed_lateness_ms: 0, ..global }, &[]);
    bench.check(T0, &[b(34_000, 1.0)], &["a/m@5000#0=2.0"]);
    bench.check(T0, &[a(1, 2.0), a(5_001, 4.0)], &["a/m@0#1=3.0", "a/m@5000#1=6.0"]);
    bench.check(T0, &[b(42_000, 1.0)], &["b/m@30000#0=1.0"]);
    bench.check(T0, &[a(2, 2.0), a(5_002, 8.0)], &["late a/m 0", "late a/m 0"]);
    // Windows that are closed for good are dropped, except for the newest of each series.
    assert_eq!(bench.operator.sizes().windows, 3);
}

#[test]
fn from_device_to_global_nothing_fires_at_the_change() {
    let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..flink() });
    bench.check(T0, &[a(0, 1.0), b(0, 2.0), a(20_000, 4.0)], &["a/m@0#0=1.0"]);
    let global = Settings { allowed_lateness_ms: 0, watermark: WatermarkScope::Global, ..flink() };
    check_reconfigure(&mut bench, global, &[]);
    // A device that was ahead is judged by its own watermark until the one source has passed it.
    bench.check(T0, &[a(12_999, 1.0), b(4_999, 1.0)], &["late a/m 0", "b/m@0#0=3.0"]);
    bench.check(T0, &[b(9_999, 1.0)], &["late b/m 0"]);
    bench.check(T0, &[b(27_000, 8.0)], &["a/m@20000#0=4.0"]);
}

#[test]
fn from_global_to_device_each_device_goes_on_from_its_own_time() {
    let global = Settings { allowed_lateness_ms: 0, watermark: WatermarkScope::Global, ..flink() };
    let mut bench = OperatorHarness::new(global);
    bench.check(T0, &[b(0, 2.0), a(20_000, 4.0)], &["b/m@0#0=2.0"]);
    bench.check(T0, &[b(6_000, 1.0)], &["late b/m 0"]);
    check_reconfigure(&mut bench, Settings { allowed_lateness_ms: 0, ..flink() }, &[]);
    bench.check(T0, &[b(-1, 1.0), b(7_000, 4.0), b(12_000, 1.0)], &["late b/m 0", "b/m@5000#0=4.0"]);
    bench.check(T0, &[b(20_000, 1.0), a(40_000, 1.0)], &["b/m@10000#0=1.0", "a/m@20000#0=4.0"]);
    bench.check(T0 + 10_000, &[Input::Tick], &["b/m@20000#0=1.0", "a/m@40000#0=1.0"]);
}

/// The one watermark begins with a message or by silence, with backlogs as without.
#[test]
fn from_device_to_global_time_alone_fires_nothing() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.check(T0, &[a(0, 1.0), b(-600_000, 2.0)], &[]);
    check_reconfigure(&mut bench, Settings { watermark: WatermarkScope::Global, ..Settings::default() }, &[]);
    bench.check(T0 + 1_000, &[Input::Tick], &[]);
    bench.check(T0 + 1_000, &[b(-599_000, 4.0)], &["b/m@-600000#0=6.0"]);
}

#[test]
fn backlogs_that_are_turned_on_make_nothing_late() {
    for rules in [0, Settings::RULES] {
        let mut bench = OperatorHarness::new(Settings { rules, ..flink() });
        bench.check(T0, &[a(0, 1.0), a(20_000, 4.0)], &["a/m@0#0=1.0"]);
        check_reconfigure(&mut bench, Settings::default(), &[]);
        let fired = ["a/m@20000#0=4.0", "a/m@0#1=9.0", "a/m@10000#0=2.0"];
        bench.check(T0 + 60_000, &[a(12_000, 2.0), a(1_000, 8.0), a(36_000, 1.0)], &fired);
        assert_eq!(bench.operator.totals().in_windows, 5, "rules {rules}");
    }
}

#[test]
fn another_disorder_moves_no_watermark_back() {
    let settings = |out_of_orderness_ms| Settings { out_of_orderness_ms, allowed_lateness_ms: 0, ..flink() };
    let mut bench = OperatorHarness::new(settings(2_000));
    bench.check(T0, &[a(0, 1.0), a(7_000, 1.0)], &["a/m@0#0=1.0"]);
    check_reconfigure(&mut bench, settings(10_000), &[]);
    bench.check(T0, &[a(4_999, 1.0), a(5_000, 2.0), a(19_999, 1.0)], &["late a/m 0"]);
    check_reconfigure(&mut bench, settings(0), &[]);
    // The watermark moves with the next message, which may still bring readings of that disorder.
    bench.check(T0, &[a(9_999, 4.0)], &["a/m@5000#0=7.0"]);
}

#[test]
fn another_idle_timeout_counts_the_silence_so_far() {
    let settings = |idle_timeout_ms| Settings { idle_timeout_ms, ..flink() };
    let mut bench = OperatorHarness::new(settings(None));
    bench.check(T0, &[a(0, 1.0)], &[]);
    bench.check(T0 + 60_000, &[Input::Tick], &[]);
    check_reconfigure(&mut bench, settings(Some(1_000)), &[]);
    bench.check(T0 + 60_001, &[Input::Tick], &["a/m@0#0=1.0"]);
    bench.check(T0 + 60_001, &[a(1, 1.0)], &["a/m@0#1=2.0"]);
}

#[test]
fn another_age_leaves_windows_as_they_are() {
    let settings = |max_age_ms| Settings { max_age_ms, ..flink() };
    let mut bench = OperatorHarness::new(settings(Some(60_000)));
    bench.check(T0, &[a(-50_000, 1.0)], &[]);
    check_reconfigure(&mut bench, settings(Some(10_000)), &[]);
    bench.check(T0, &[a(-49_999, 1.0), a(-10_000, 1.0)], &["timestamp_too_old a/m 0", "a/m@-50000#0=1.0"]);
    check_reconfigure(&mut bench, settings(None), &[]);
    bench.check(T0, &[a(-49_998, 1.0)], &["late a/m 0"]);
}

#[test]
fn the_first_start_under_new_rules_closes_nothing() {
    let before = Settings { rules: 0, ..flink() };
    let mut bench = OperatorHarness::new(before);
    bench.check(T0, &[a(0, 1.0), a(5_000, 2.0)], &[]);
    check_reconfigure(&mut bench, Settings { window_ms: 20_000, ..flink() }, &[]);
    bench.check(T0, &[a(1, 1.0), a(14_999, 4.0), a(16_999, 1.0)], &["a/m@0#0=2.0", "a/m@5000#0=2.0"]);
}

#[test]
fn sizes_are_dropped_at_the_age_limit_and_at_the_bound() {
    let settings = |window_ms| Settings { window_ms, max_age_ms: Some(600_000), ..flink() };
    let mut bench = OperatorHarness::new(settings(1_000));
    let mut at_ms = 0;
    for size_ms in 2..=10 {
        bench.apply(T0 + at_ms, &[a(at_ms, 1.0)]);
        bench.apply(T0 + at_ms, &[Input::Settings(Box::new(settings(1_000 * size_ms)))]);
        at_ms += 120_000;
    }
    // Some sizes are older than the age limit by now; none had to be dropped before.
    assert_eq!(bench.operator.totals().window_sizes_dropped, 0);
    let mut bench = OperatorHarness::new(settings(1_000));
    for round in 0..8 {
        bench.apply(T0, &[a(3_000 * round, 1.0)]);
        bench.apply(T0, &[Input::Settings(Box::new(settings(2_000 - 1_000 * (round % 2))))]);
    }
    assert_eq!(bench.operator.totals().window_sizes_dropped, 1);
    assert_eq!(bench.operator.totals().in_windows, 8);
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
