//! Clocks that are ahead: no watermark is ahead of the arrival.

use super::{Effect, Input, OperatorHarness, T0, a, both_scopes, flink};
use crate::core::settings::Settings;

const AHEAD_MS: i64 = 240_000;

/// Sums of the windows among `effects`, by start. Nothing else may be there.
fn sums(effects: &[Effect]) -> Vec<(i64, f64)> {
    let sum = |effect: &Effect| match effect {
        Effect::Window { json, .. } => (json["window_start"].as_i64().unwrap() - T0, json["sum"].as_f64().unwrap()),
        Effect::Error { json, .. } => panic!("{json}"),
    };
    effects.iter().map(sum).collect()
}

#[test]
fn one_time_ahead_makes_nothing_late() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        let mut effects = bench.apply(T0, &[a(AHEAD_MS, 1.0)]);
        for second in 0..12 {
            effects.extend(bench.apply(T0 + second * 1_000, &[a(second * 1_000, 2.0)]));
        }
        assert_eq!(sums(&effects), [(0, 10.0)]);
        assert!(bench.operator.has_open_windows());
        bench.check(T0 + 12_000, &[Input::Tick], &["a/m@5000#0=10.0"]);
        bench.check(T0 + 17_000, &[Input::Tick], &["a/m@10000#0=4.0"]);
        bench.check(T0 + 246_999, &[Input::Tick], &[]);
        assert!(bench.operator.has_open_windows());
        bench.check(T0 + 247_000, &[Input::Tick], &["a/m@240000#0=1.0"]);
        assert!(!bench.operator.has_open_windows());
    });
}

#[test]
fn a_clock_that_stays_ahead_gets_its_windows_later() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        let mut effects = Vec::new();
        for second in 0..300 {
            effects.extend(bench.apply(T0 + second * 1_000, &[a(AHEAD_MS + second * 1_000, 1.0)]));
        }
        let expected: Vec<_> = (0..11).map(|index| (AHEAD_MS + index * 5_000, 5.0)).collect();
        assert_eq!(sums(&effects), expected);
    });
}

/// What the cap held back fires when time has passed, whether or not silence counts.
#[test]
fn windows_that_the_cap_held_back_need_no_further_message() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(Settings { idle_timeout_ms: None, ..settings });
        bench.check(T0, &[a(0, 1.0), a(60_000, 2.0), a(65_000, 4.0)], &[]);
        bench.check(T0 + 6_999, &[Input::Tick], &[]);
        bench.check(T0 + 7_000, &[Input::Tick], &["a/m@0#0=1.0"]);
        bench.check(T0 + 100_000, &[Input::Tick], &[]);
        // Without the silence of a source, what its own time has not passed waits.
        assert_eq!(bench.operator.sizes().open_windows, 2);
    });
}

#[test]
fn time_without_listening_lets_the_cap_go_on() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        bench.check(T0, &[a(0, 1.0), a(60_000, 2.0)], &[]);
        bench.check(T0 + 50_000, &[Input::Resumed], &["a/m@0#0=1.0"]);
        bench.check(T0 + 66_999, &[Input::Tick], &[]);
        bench.check(T0 + 67_000, &[Input::Tick], &["a/m@60000#0=2.0"]);
    });
}

#[test]
fn with_backlog_off_the_watermark_follows_event_times_alone() {
    let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..flink() });
    bench.check(T0, &[a(0, 1.0), a(AHEAD_MS, 2.0)], &["a/m@0#0=1.0"]);
    bench.check(T0 + 1_000, &[a(1_000, 4.0)], &["late a/m 0"]);
}
