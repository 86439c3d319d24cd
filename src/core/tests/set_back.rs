//! The clock of the box was wrong and is set back.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::snapshots::SnapshotStore;
use super::{Effect, Input, OperatorHarness, T0, both_scopes, brief, numbered, reading};
use crate::core::settings::{Settings, WatermarkScope};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const YEARS_MS: i64 = 4_000 * DAY_MS;

/// A reading without a time.
fn untimed(device: &str, value: f64) -> Input {
    Input::telemetry(device, format!(r#"{{"metric":"m","value":{value}}}"#))
}

fn timed(device: &str, offset_ms: i64, value: f64) -> Input {
    Input::telemetry(device, reading(offset_ms, value))
}

fn is_wrong(effect: &Effect) -> bool {
    matches!(effect, Effect::Window { json, .. } if json["wrong_clock"] == true)
}

/// Effects in short; windows of a wrong time with `!` before them.
fn briefs(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|effect| format!("{}{}", if is_wrong(effect) { "!" } else { "" }, brief(effect))).collect()
}

#[test]
fn right_readings_count_at_once_after_a_wrong_time() {
    for ahead_ms in [HOUR_MS, 3 * HOUR_MS, DAY_MS, YEARS_MS] {
        both_scopes(|settings| {
            let mut bench = OperatorHarness::new(settings);
            assert_eq!(briefs(&bench.apply(T0 + ahead_ms, &[untimed("a", 1.0)])), [] as [&str; 0]);
            let set_back = [Input::Resumed, timed("a", 0, 2.0), untimed("a", 4.0), untimed("b", 8.0)];
            let wrong = format!("!a/m@{ahead_ms}#0=1.0");
            assert_eq!(briefs(&bench.apply_set_back(T0, &set_back)), [wrong]);
            assert_eq!(bench.operator.sizes().open_windows, 2);
            let closed = bench.apply(T0 + 10_000, &[Input::Tick]);
            // Under scope `global` the windows of any device may have fired there.
            let revision = usize::from(bench.operator.settings().watermark == WatermarkScope::Global);
            assert_eq!(briefs(&closed).join(" "), format!("a/m@0#1=6.0 b/m@0#{revision}=8.0"));
            assert!(!bench.operator.has_open_windows());
        });
    }
}

#[test]
fn a_window_that_fired_in_a_wrong_time_is_corrected_and_its_time_comes_again() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0 + HOUR_MS, &[untimed("a", 1.0)]);
    assert_eq!(briefs(&bench.apply(T0 + HOUR_MS + 10_000, &[Input::Tick])), ["a/m@3600000#0=1.0"]);
    // Long enough that weir forgets the window, which it does when another one fires.
    bench.apply(T0 + HOUR_MS + 60_000, &[untimed("a", 2.0)]);
    let last = format!("a/m@{}#0=2.0", HOUR_MS + 60_000);
    assert_eq!(briefs(&bench.apply(T0 + HOUR_MS + 70_000, &[Input::Tick])), [last]);
    let corrected = bench.apply_set_back(T0, &[Input::Tick]);
    assert_eq!(briefs(&corrected), [format!("!a/m@{}#1=2.0", HOUR_MS + 60_000)]);
    assert!(matches!(corrected[0], Effect::Window { supersedes: Some(1), .. }), "{corrected:?}");
    // An hour later these times come: revisions go on behind all that fired there.
    bench.apply(T0 + HOUR_MS, &[untimed("a", 4.0)]);
    let fired = bench.apply(T0 + HOUR_MS + 10_000, &[Input::Tick]);
    assert_eq!(briefs(&fired), ["a/m@3600000#2=4.0"]);
    assert!(matches!(fired[0], Effect::Window { supersedes: None, .. }), "{fired:?}");
    bench.apply(T0 + HOUR_MS + 60_000, &[untimed("a", 8.0)]);
    let fired = bench.apply(T0 + HOUR_MS + 70_000, &[Input::Tick]);
    assert_eq!(briefs(&fired), [format!("a/m@{}#2=8.0", HOUR_MS + 60_000)]);
    // Behind the wrong time revisions begin at 0 again.
    bench.apply(T0 + 2 * HOUR_MS, &[untimed("a", 8.0)]);
    let fired = bench.apply(T0 + 2 * HOUR_MS + 10_000, &[Input::Tick]);
    assert_eq!(briefs(&fired), [format!("a/m@{}#0=8.0", 2 * HOUR_MS)]);
}

#[test]
fn a_wrong_time_before_a_leap_comes_again() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0 + HOUR_MS, &[untimed("a", 1.0)]);
    assert_eq!(briefs(&bench.apply(T0 + HOUR_MS + 10_000, &[Input::Tick])), ["a/m@3600000#0=1.0"]);
    bench.apply(T0 + YEARS_MS, &[Input::Tick]);
    assert_eq!(briefs(&bench.apply_set_back(T0, &[Input::Tick])), ["!a/m@3600000#1=1.0"]);
    bench.apply(T0 + HOUR_MS, &[untimed("a", 2.0)]);
    assert_eq!(briefs(&bench.apply(T0 + HOUR_MS + 10_000, &[Input::Tick])), ["a/m@3600000#2=2.0"]);
}

#[test]
fn right_windows_of_a_wrong_time_go_on() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        // Three hours ahead is no reason to reject a right reading.
        assert_eq!(briefs(&bench.apply(T0 + 3 * HOUR_MS, &[timed("a", 0, 1.0)])), [] as [&str; 0]);
        let effects = bench.apply_set_back(T0 + 1_000, &[timed("a", 1_000, 2.0)]);
        assert_eq!(briefs(&effects), [] as [&str; 0]);
        assert_eq!(briefs(&bench.apply(T0 + 7_000, &[timed("a", 7_000, 4.0)])), ["a/m@0#0=3.0"]);
    });
}

#[test]
fn a_step_within_what_devices_may_be_ahead_loses_nothing() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        for second in 0..120 {
            bench.apply(T0 + second * 1_000, &[untimed("a", 1.0)]);
        }
        let mut effects = bench.apply_set_back(T0, &[untimed("a", 1.0)]);
        for second in 1..300 {
            effects.extend(bench.apply(T0 + second * 1_000, &[untimed("a", 1.0)]));
        }
        assert_eq!(bench.operator.totals().in_windows, 420, "{:?}", briefs(&effects));
        effects.extend(bench.apply(T0 + 400_000, &[Input::Tick]));
        assert!(!bench.operator.has_open_windows() && !effects.iter().any(is_wrong));
    });
}

#[test]
fn a_device_that_restarts_after_a_wrong_time_is_counted() {
    let mut bench = OperatorHarness::new(Settings::default());
    let sample =
        |seq: u64, value: f64| Input::telemetry("a", format!(r#"{{"metric":"m","value":{value},"seq":{seq}}}"#));
    bench.apply(T0 + YEARS_MS, &[sample(1, 1.0), sample(2, 2.0)]);
    bench.apply_set_back(T0, &[Input::Resumed]);
    bench.apply(T0 + 1_000, &[sample(1, 3.0)]);
    bench.apply(T0 + 2_000, &[Input::telemetry("a", numbered(2, 2_000, 5.0))]);
    assert_eq!(bench.operator.totals().in_windows, 4);
}

#[test]
fn what_was_rejected_in_a_wrong_time_can_be_replayed() {
    let mut bench = OperatorHarness::new(Settings::default());
    let rejected = bench.apply(T0 + YEARS_MS, &[timed("a", 0, 1.0)]);
    assert_eq!(briefs(&rejected), ["timestamp_too_old a/m 0"]);
    let replay = bench.replay(0);
    bench.apply_set_back(T0 + 1_000, &[Input::Resumed]);
    assert_eq!(briefs(&bench.apply(T0 + 2_000, &[replay])), [] as [&str; 0]);
    assert_eq!(briefs(&bench.apply(T0 + 20_000, &[Input::Tick])), ["a/m@0#0=1.0"]);
    // A clock that was behind: the readings were in its future.
    let rejected = bench.apply_set_back(1_000, &[timed("a", 30_000, 2.0)]);
    assert_eq!(briefs(&rejected), ["!a/m@0#1=1.0", "timestamp_in_future a/m 0"]);
    let replay = bench.replay(1);
    assert_eq!(briefs(&bench.apply(T0 + 40_000, &[replay])), [] as [&str; 0]);
    assert_eq!(briefs(&bench.apply(T0 + 60_000, &[Input::Tick])), ["a/m@30000#0=2.0"]);
}

#[test]
fn windows_that_a_device_still_has_are_late_once_they_expire() {
    let settings = Settings { allowed_lateness_ms: 0, ..Settings::default() };
    both_scopes(|scope| {
        let mut bench = OperatorHarness::new(Settings { watermark: scope.watermark, ..settings.clone() });
        bench.apply(T0 + 120_000, &[timed("a", 100_000, 1.0)]);
        assert_eq!(briefs(&bench.apply(T0 + 140_000, &[Input::Tick])), ["a/m@100000#0=1.0"]);
        // The window fired in a time that comes again, and is not so far ahead that it is forgotten.
        assert_eq!(briefs(&bench.apply_set_back(T0, &[Input::Tick])), [] as [&str; 0]);
        for offset_ms in (1..=12).map(|round| round * 9_000) {
            bench.apply(T0 + offset_ms, &[timed("a", offset_ms, 2.0)]);
        }
        assert_eq!(briefs(&bench.apply(T0 + 108_001, &[timed("a", 101_000, 4.0)])), ["late a/m 0"]);
        bench.apply(T0 + 300_000, &[Input::Tick]);
        let sizes = bench.operator.sizes();
        assert_eq!((sizes.open_windows, sizes.backlog_windows, sizes.backlog_devices), (0, 0, 0));
    });
}

#[test]
fn windows_that_did_not_fire_before_a_wrong_time_are_not_late() {
    let mut bench = OperatorHarness::new(Settings::default());
    // The clock of the device is two hours behind.
    bench.apply(T0, &[timed("a", -2 * HOUR_MS, 1.0), timed("a", -2 * HOUR_MS + 10_000, 2.0)]);
    let fired = bench.apply(T0 + YEARS_MS, &[Input::Tick]);
    assert_eq!(briefs(&fired), [format!("a/m@{}#0=2.0", -2 * HOUR_MS + 10_000)]);
    let effects = bench.apply_set_back(T0 + 60_000, &[timed("a", -2 * HOUR_MS + 60_000, 4.0)]);
    assert_eq!(briefs(&effects), [] as [&str; 0]);
    let fired = bench.apply(T0 + 100_000, &[Input::Tick]);
    assert_eq!(briefs(&fired), [format!("a/m@{}#0=4.0", -2 * HOUR_MS + 60_000)]);
}

#[test]
fn a_device_that_is_far_behind_meets_its_wrong_time_after_another_set_back() {
    let mut bench = OperatorHarness::new(Settings::default());
    // The clock of the box is behind, and then that of the device is, by an hour.
    let fired = bench.apply(T0, &[timed("a", 20_000, 1.0)]);
    assert_eq!(briefs(&fired), [] as [&str; 0]);
    let fired = bench.apply_set_back(T0 - YEARS_MS, &[Input::Tick]);
    assert_eq!(briefs(&fired), ["!a/m@20000#0=1.0"]);
    bench.apply(T0 + HOUR_MS + DAY_MS, &[Input::Tick]);
    bench.apply_set_back(T0 + HOUR_MS, &[timed("a", 20_000, 2.0)]);
    let fired = bench.apply(T0 + HOUR_MS + 100_000, &[Input::Tick]);
    assert_eq!(briefs(&fired), ["a/m@20000#1=2.0"]);
}

#[test]
fn limits_by_time_hold_after_a_wrong_time() {
    let settings = Settings { max_new_devices_per_hour: Some(2), ..Settings::default() };
    let mut bench = OperatorHarness::new(settings);
    let new = |device: &str| untimed(device, 1.0).of_user("u");
    assert_eq!(briefs(&bench.apply(T0 + YEARS_MS, &[new("a"), new("b")])), [] as [&str; 0]);
    let effects = bench.apply_set_back(T0, &[new("c")]);
    assert_eq!(briefs(&effects).last().unwrap(), "too_many_devices c/m 0");
    assert_eq!(briefs(&bench.apply(T0 + HOUR_MS, &[new("d"), new("a")])), [] as [&str; 0]);
}

#[test]
fn jumps_of_the_clock_forget_no_device() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0, &[untimed("a", 1.0)]);
    for _ in 0..20 {
        bench.apply(T0 + YEARS_MS, &[Input::Tick]);
        bench.apply(T0 + YEARS_MS + 61_000, &[Input::Tick]);
        bench.apply_set_back(T0 + HOUR_MS, &[Input::Tick]);
        bench.apply_set_back(T0, &[Input::Tick]);
    }
    assert_eq!((bench.operator.sizes().devices, bench.operator.totals().devices_expired), (1, 0));
    for hour in 0..25 * 31 {
        bench.apply(T0 + hour * HOUR_MS, &[Input::Tick]);
    }
    assert_eq!(bench.operator.sizes().devices, 0, "silence counts as before");
}

/// All windows that fired as `start#revision=sum`, those of a wrong time left out.
fn right_windows(effects: &[Effect]) -> Vec<String> {
    effects.iter().filter(|effect| !is_wrong(effect)).map(brief).collect()
}

#[test]
fn a_right_time_that_a_wrong_one_had_closed_is_counted() {
    for backlog in [true, false] {
        both_scopes(|settings| {
            let mut bench = OperatorHarness::new(Settings { backlog, ..settings });
            // Real readings come while the clock is three hours ahead, and their windows fire in the wrong time.
            let mut effects = bench.apply(T0 + 3 * HOUR_MS, &[timed("a", 0, 1.0), timed("a", 12_000, 2.0)]);
            effects.extend(bench.apply(T0 + 3 * HOUR_MS + 1_000, &[untimed("a", 4.0)]));
            effects.extend(bench.apply(T0 + 3 * HOUR_MS + 60_000, &[Input::Tick]));
            // The clock is set back to a time before the newest of them. More readings of the same windows come.
            effects.extend(bench.apply_set_back(T0 + 8_000, &[timed("a", 7_000, 8.0)]));
            effects.extend(bench.apply(T0 + 13_000, &[timed("a", 13_000, 16.0)]));
            effects.extend(bench.apply(T0 + 30_000, &[timed("a", 30_000, 32.0)]));
            effects.extend(bench.apply(T0 + 60_000, &[Input::Tick]));
            let errors = effects.iter().filter(|effect| matches!(effect, Effect::Error { .. })).count();
            let totals = bench.operator.totals();
            assert_eq!((errors, totals.in_windows), (0, 6), "{backlog}: {:?}", briefs(&effects));
            let keys: Vec<_> = effects.iter().filter_map(key).collect();
            assert_eq!(keys.len(), keys.iter().collect::<BTreeSet<_>>().len(), "{:?}", briefs(&effects));
            assert!(!bench.operator.has_open_windows());
            assert!(right_windows(&effects).iter().any(|window| window.ends_with("=32.0")), "{:?}", briefs(&effects));
        });
    }
}

#[test]
fn a_time_that_the_wrong_clock_had_fired_comes_again() {
    for backlog in [true, false] {
        both_scopes(|settings| {
            let mut bench = OperatorHarness::new(Settings { backlog, ..settings });
            let mut effects = Vec::new();
            for second in 0..60 {
                effects.extend(bench.apply(T0 + HOUR_MS + second * 1_000, &[untimed("a", 1.0)]));
            }
            effects.extend(bench.apply_set_back(T0, &[Input::Tick]));
            // The device is away until the very times come that the wrong clock showed, and sends them newest first.
            let stored: Vec<_> = (0..60).map(|second| timed("a", HOUR_MS + second * 1_000, 1.0)).rev().collect();
            let at_ms = T0 + HOUR_MS + 60_000;
            effects.extend(bench.apply(at_ms, &[Input::Resumed]));
            let inputs = if backlog { stored } else { stored.into_iter().rev().collect() };
            effects.extend(bench.apply(at_ms, &inputs));
            effects.extend(bench.apply(at_ms + 60_000, &[Input::Tick]));
            effects.extend(bench.apply(at_ms + 120_000, &[Input::Tick]));
            assert_eq!(bench.operator.totals().in_windows, 120, "{backlog}: {:?}", briefs(&effects));
            let keys: Vec<_> = effects.iter().filter_map(key).collect();
            assert_eq!(keys.len(), keys.iter().collect::<BTreeSet<_>>().len(), "{:?}", briefs(&effects));
            assert!(!bench.operator.has_open_windows());
        });
    }
}

#[test]
fn a_backlog_that_a_wrong_clock_met_is_counted_once_it_is_right() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0 + DAY_MS, &[untimed("a", 1.0), timed("a", 0, 2.0), timed("a", 96_000, 4.0)]);
    // What waits fires when the clock is set back. The window of the present takes more readings afterwards, and a window that
    // never fired is counted. Only the window at 0 has fired, and is past under the right clock as well.
    let inputs = [timed("a", 97_000, 8.0), timed("a", 11_000, 16.0), timed("a", 1_000, 32.0)];
    let effects = bench.apply_set_back(T0 + 98_000, &inputs);
    assert!(right_windows(&effects).contains(&"a/m@0#0=2.0".to_owned()), "{:?}", briefs(&effects));
    assert!(right_windows(&effects).contains(&"late a/m 0".to_owned()), "{:?}", briefs(&effects));
    let effects = bench.apply(T0 + 200_000, &[Input::Tick]);
    assert!(right_windows(&effects).contains(&"a/m@10000#0=16.0".to_owned()), "{:?}", briefs(&effects));
    assert_eq!((bench.operator.totals().in_windows, bench.operator.totals().received), (5, 6));
}

#[test]
fn windows_of_a_backlog_of_a_wrong_time_say_so() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0 + HOUR_MS, &[untimed("a", 1.0)]);
    // The device takes its time from the box.
    let stored = [timed("a", HOUR_MS - 600_000, 2.0), timed("a", HOUR_MS - 700_000, 4.0)];
    bench.apply(T0 + HOUR_MS + 1_000, &stored);
    let wrong = briefs(&bench.apply_set_back(T0, &[Input::Tick]));
    assert_eq!(wrong, ["!a/m@2900000#0=4.0", "!a/m@3000000#0=2.0", "!a/m@3600000#0=1.0"]);
    assert_eq!((bench.operator.sizes().open_windows, bench.operator.sizes().windows), (0, 0));
    bench.apply(T0 + HOUR_MS - 600_000, &[untimed("a", 8.0)]);
    let again = bench.apply(T0 + HOUR_MS, &[Input::Tick]);
    assert_eq!(briefs(&again), ["a/m@3000000#1=8.0"]);
}

#[test]
fn a_size_that_a_wrong_time_put_off_holds_at_once() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0 + YEARS_MS, &[untimed("a", 1.0)]);
    let wider = Settings { window_ms: 60_000, ..Settings::default() };
    bench.operator.reconfigure(wider, &mut bench.effects);
    bench.apply_set_back(T0, &[untimed("a", 2.0)]);
    bench.apply(T0 + 70_000, &[untimed("a", 4.0), untimed("a", 8.0)]);
    let effects = bench.apply(T0 + 200_000, &[Input::Tick]);
    let size = |effect: &Effect| match effect {
        Effect::Window { json, .. } => json["window_end"].as_i64().unwrap() - json["window_start"].as_i64().unwrap(),
        Effect::Error { .. } => 0,
    };
    let last = effects.last().unwrap();
    assert_eq!((size(last), brief(last).ends_with("=12.0")), (60_000, true), "{:?}", briefs(&effects));
}

/// Start and revision tell all firings of a key apart, whatever the sizes of the windows.
#[test]
fn a_window_that_meets_a_time_that_was_set_back_begins_above_revision_0() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0 + HOUR_MS, &[untimed("a", 1.0)]);
    bench.apply_set_back(T0, &[Input::Tick]);
    let passed_ms = T0 + HOUR_MS;
    let revision = |start_ms: i64, end_ms: i64| {
        bench.operator.clocks.set_backs.first_revision(T0 + start_ms, T0 + end_ms, passed_ms)
    };
    assert_eq!(revision(0, 5_000), 1, "of the same size");
    assert_eq!(revision(-DAY_MS, DAY_MS), 1, "around the wrong time");
    assert_eq!(revision(HOUR_MS - 5_000, DAY_MS), 1, "from within it to a time that never was");
    assert_eq!(revision(HOUR_MS + 5_000, DAY_MS), 0, "the device has not been there");
    assert_eq!(revision(-DAY_MS, -HOUR_MS), 0, "before it");
}

#[test]
fn windows_of_a_size_that_a_wrong_time_dropped_keep_it() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0 + 1_000, &[timed("a", 0, 1.0)]);
    let wider = Settings { window_ms: 60_000, ..Settings::default() };
    bench.operator.reconfigure(wider, &mut bench.effects);
    bench.apply(T0 + YEARS_MS, &[untimed("a", 2.0)]);
    bench.apply_set_back(T0 + 3_000, &[timed("a", 2_000, 4.0), timed("a", 5_000, 8.0)]);
    let mut store = SnapshotStore::default();
    bench.operator.snapshot_failed();
    store.take(&mut bench.operator);
    bench.operator = store.restore();
    bench.apply(T0 + 120_000, &[untimed("a", 16.0)]);
    bench.apply(T0 + 300_000, &[Input::Tick]);
    assert_eq!(bench.operator.totals().in_windows, 5);
    assert!(!bench.operator.has_open_windows());
}

#[test]
fn what_a_wrong_time_says_of_the_clock_of_a_device_is_forgotten() {
    let mut bench = OperatorHarness::new(Settings::default());
    for second in 0..20 {
        bench.apply(T0 + 3 * HOUR_MS + second * 1_000, &[timed("a", second * 1_000, 1.0)]);
    }
    let state = |bench: &OperatorHarness| {
        let view = bench.operator.device("a").unwrap().summary.clock;
        (view.state.as_str(), view.steps_backward)
    };
    assert_eq!(state(&bench).0, "time_zone");
    bench.apply_set_back(T0 + 20_000, &[Input::Tick]);
    assert_eq!(state(&bench).0, "unknown");
    bench.apply(T0 + 21_000, &[timed("a", 21_000, 1.0)]);
    assert_eq!(state(&bench), ("ok", 0));
}

#[test]
fn a_device_without_a_clock_that_begins_anew_after_a_wrong_time_is_counted() {
    let sample = |seq: u64| Input::telemetry("a", format!(r#"{{"metric":"m","value":7,"seq":{seq}}}"#));
    let mut bench = OperatorHarness::new(Settings::default());
    bench.apply(T0 + YEARS_MS, &[sample(1), sample(2), sample(3)]);
    bench.apply_set_back(T0, &[Input::Resumed]);
    bench.apply(T0 + 5_000, &[sample(1)]);
    assert_eq!(bench.operator.totals().in_windows, 3, "a duplicate");
    // The reading is as old as it seems: after this time, the same content without a time is another reading.
    bench.apply(T0 + 4 * HOUR_MS, &[sample(1)]);
    assert_eq!(bench.operator.totals().in_windows, 4);
    bench.apply(T0 + 4 * HOUR_MS + 1_000, &[sample(2), sample(3)]);
    assert_eq!(bench.operator.totals().in_windows, 6);
}

#[derive(Debug, Clone)]
enum Step {
    /// Time passes, and devices send with right clocks or without clocks.
    Pass(i64, Vec<(u8, bool)>),
    /// The clock of the box jumps: it is off by this much from now on.
    Jump(i64),
    /// The operator is restored from a snapshot.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let off = prop_oneof![
        Just(0),
        -HOUR_MS..HOUR_MS,
        Just(DAY_MS),
        Just(-DAY_MS),
        Just(YEARS_MS),
        Just(-YEARS_MS),
        -200_000i64..200_000
    ];
    let readings = prop::collection::vec((0..3u8, any::<bool>()), 0..4);
    prop_oneof![
        8 => (0..20_000i64, readings).prop_map(|(ms, readings)| Step::Pass(ms, readings)),
        1 => off.prop_map(Step::Jump),
        1 => Just(Step::Restore),
    ]
}

/// Key of a firing: device, start, revision.
fn key(effect: &Effect) -> Option<(String, i64, i64)> {
    let Effect::Window { json, .. } = effect else { return None };
    let number = |name: &str| json[name].as_i64().unwrap();
    Some((json["device_id"].as_str().unwrap().to_owned(), number("window_start"), number("revision")))
}

/// A box and its journal: arrival times stand still within a minute, and go back beyond.
struct BoxJournal {
    bench: OperatorHarness,
    true_ms: i64,
    off_ms: i64,
    arrival_ms: i64,
    effects: Vec<Effect>,
}

impl BoxJournal {
    fn send(&mut self, inputs: &[Input]) {
        let now_ms = self.true_ms + self.off_ms;
        let is_set_back = self.arrival_ms.saturating_sub(now_ms) > 60_000;
        self.arrival_ms = if is_set_back { now_ms } else { now_ms.max(self.arrival_ms) };
        let effects = match is_set_back {
            true => self.bench.apply_set_back(self.arrival_ms, inputs),
            false => self.bench.apply(self.arrival_ms, inputs),
        };
        self.effects.extend(effects);
    }
}

fn check_history(settings: Settings, steps: &[Step]) -> Result<(), TestCaseError> {
    let bench = OperatorHarness::new(settings.clone());
    let mut it = BoxJournal { bench, true_ms: T0, off_ms: 0, arrival_ms: i64::MIN, effects: Vec::new() };
    for step in steps {
        match step {
            Step::Pass(ms, readings) => {
                it.true_ms += ms;
                let offset_ms = it.true_ms - T0;
                let send = |&(device, has_clock): &(u8, bool)| match has_clock {
                    true => timed(&format!("right{device}"), offset_ms, 1.0),
                    false => untimed(&format!("none{device}"), 1.0),
                };
                it.send(&readings.iter().map(send).collect::<Vec<_>>());
            }
            Step::Jump(off_ms) => it.off_ms = *off_ms,
            Step::Restore => {
                let mut store = SnapshotStore::default();
                it.bench.operator.snapshot_failed();
                store.take(&mut it.bench.operator);
                it.bench.operator = store.restore();
            }
        }
    }
    // NTP sets the clock right. Every reading is accepted from then on, and every window fires.
    it.off_ms = 0;
    it.true_ms += 60_000;
    if (0..=60_000).contains(&it.arrival_ms.saturating_sub(it.true_ms)) {
        // Within the tolerance time stands still until then.
        it.true_ms = it.arrival_ms;
    }
    it.send(&[Input::Tick]);
    let before = it.bench.operator.totals().clone();
    let mut sent = 0;
    for second in 0..40 {
        it.true_ms += 1_000;
        let offset_ms = it.true_ms - T0;
        for device in 0..3 {
            it.send(&[timed(&format!("right{device}"), offset_ms, 1.0), untimed(&format!("none{device}"), 1.0)]);
            sent += 2;
        }
        prop_assert!(it.bench.operator.totals().in_windows == before.in_windows + sent, "second {}", second);
    }
    for _ in 0..800 {
        it.true_ms += 1_000;
        it.send(&[Input::Tick]);
    }
    prop_assert!(!it.bench.operator.has_open_windows());
    let keys: Vec<_> = it.effects.iter().filter_map(key).collect();
    let distinct: BTreeSet<_> = keys.iter().collect();
    prop_assert_eq!(keys.len(), distinct.len(), "{:?}", briefs(&it.effects));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_clock_did_right_readings_count_once_it_is_right(
        steps in prop::collection::vec(step(), 0..60),
        global in any::<bool>(),
        allowed_lateness_ms in prop_oneof![Just(0), Just(5_000), Just(30_000)],
    ) {
        let watermark = if global { WatermarkScope::Global } else { WatermarkScope::Device };
        check_history(Settings { watermark, allowed_lateness_ms, ..Settings::default() }, &steps)?;
    }
}
