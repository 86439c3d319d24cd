//! Silence closes windows. Time in which weir is down is no silence.

use super::{Input, OperatorHarness, T0, a, b, both_scopes};
use crate::core::settings::Settings;

#[test]
fn silence_closes_windows() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        bench.check(T0, &[a(0, 1.0)], &[]);
        bench.check(T0 + 9_999, &[Input::Tick], &[]);
        bench.check(T0 + 10_000, &[Input::Tick], &["a/m@0#0=1.0"]);
        assert!(!bench.operator.has_open_windows());
    });
}

#[test]
fn a_device_ahead_waits_for_its_window_to_end() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(Settings { window_ms: 60_000, ..settings });
        let start = -(T0 % 60_000);
        bench.check(T0, &[a(start, 1.0)], &[]);
        bench.check(T0 + 61_999, &[Input::Tick], &[]);
        bench.check(T0 + 62_000, &[], &[&format!("a/m@{start}#0=1.0")]);
    });
}

#[test]
fn the_watermark_stops_at_the_newest_open_window() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, backlog: false, ..settings });
        bench.check(T0, &[a(0, 1.0)], &[]);
        bench.check(T0 + 3_600_000, &[Input::Tick], &["a/m@0#0=1.0"]);
        bench.check(T0 + 3_600_000, &[a(4_999, 1.0), a(5_000, 2.0), a(12_000, 4.0)], &["late a/m 0", "a/m@5000#0=2.0"]);
    });
}

#[test]
fn silence_begins_when_weir_listens() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        bench.check(T0, &[a(0, 1.0)], &[]);
        bench.check(T0 + 3_600_000, &[Input::Resumed], &[]);
        bench.check(T0 + 3_609_999, &[Input::Tick], &[]);
        bench.check(T0 + 3_609_999, &[Input::Resumed, Input::Tick], &[]);
        bench.check(T0 + 3_610_000, &[Input::Tick], &[]);
        bench.check(T0 + 3_619_999, &[Input::Tick], &["a/m@0#0=1.0"]);
    });
}

#[test]
fn what_silence_did_before_a_resumption_stays() {
    both_scopes(|settings| {
        let mut bench =
            OperatorHarness::new(Settings { window_ms: 60_000, allowed_lateness_ms: 0, backlog: false, ..settings });
        let start = -(T0 % 60_000);
        // Silence moves the watermark past the end of the window before, which was never opened.
        bench.check(T0, &[a(start + 1_000, 1.0)], &[]);
        bench.check(T0 + 20_000, &[Input::Tick], &[]);
        bench.check(T0 + 20_000, &[Input::Resumed], &[]);
        bench.check(T0 + 20_000, &[a(start - 1, 1.0)], &["late a/m 0"]);
    });
}

#[test]
fn due_windows_fire_in_order_across_devices() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.check(T0, &[b(0, 1.0), b(5_000, 2.0), a(5_001, 4.0), a(1, 8.0)], &[]);
    bench.check(T0 + 60_000, &[a(60_000, 1.0)], &["a/m@0#0=8.0", "b/m@0#0=1.0", "a/m@5000#0=4.0", "b/m@5000#0=2.0"]);
}

#[test]
fn a_talking_device_is_not_idle() {
    let mut bench = OperatorHarness::new(Settings::default());
    bench.check(T0, &[a(0, 1.0), b(0, 1.0)], &[]);
    // A rejected message shows as well that its device is alive.
    bench.check(T0 + 9_000, &[Input::telemetry("a", "{}")], &["missing_field a/- 0"]);
    bench.check(T0 + 10_000, &[Input::Tick], &["b/m@0#0=1.0"]);
    bench.check(T0 + 19_000, &[Input::Tick], &["a/m@0#0=1.0"]);
}

#[test]
fn an_older_window_can_be_due_sooner() {
    let settings = Settings { window_ms: 60_000, out_of_orderness_ms: 90_000, ..Settings::default() };
    let mut bench = OperatorHarness::new(settings);
    let start = -(T0 % 60_000);
    bench.check(T0, &[a(start + 1_000, 1.0)], &[]);
    bench.check(T0 + 20_000, &[Input::Tick], &[]);
    bench.check(T0 + 30_000, &[a(start - 60_000, 2.0)], &[]);
    let older = format!("a/m@{}#0=2.0", start - 60_000);
    // Due when newest event time plus silence is ahead of the end of the older window by the bound.
    bench.check(T0 + 30_000 + 88_999, &[Input::Tick], &[]);
    bench.check(T0 + 30_000 + 89_000, &[Input::Tick], &[&older]);
}

#[test]
fn without_a_timeout_nothing_is_idle() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(Settings { idle_timeout_ms: None, ..settings });
        bench.check(T0, &[a(0, 1.0)], &[]);
        bench.check(T0 + 86_400_000, &[Input::Tick], &[]);
        assert!(bench.operator.has_open_windows());
    });
}

#[test]
fn queries_see_the_silence() {
    let mut bench = OperatorHarness::new(Settings { window_ms: 60_000, ..Settings::default() });
    let start = -(T0 % 60_000);
    bench.check(T0, &[a(start, 1.0)], &[]);
    assert_eq!(bench.operator.event_time(), (Some(T0 + start), Some(T0 + start - 2_001)));
    bench.check(T0 + 20_000, &[Input::Tick], &[]);
    assert_eq!(bench.operator.event_time().1, Some(T0 + start + 20_000 - 2_001));
    assert_eq!(bench.operator.devices(None, 1)[0].watermark_ms, Some(T0 + start + 20_000 - 2_001));
}
