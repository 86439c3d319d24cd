//! Devices that were away: what they stored is counted beside their live data.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Effect, Input, OperatorHarness, T0, a, both_scopes, reading};
use crate::core::operator::Operator;
use crate::core::reason::Reason;
use crate::core::settings::{Settings, WatermarkScope};

const HOUR_MS: i64 = 3_600_000;

/// Count and sum of the newest revision of each window, by start; how often each fired; whether it says `backlog`.
type Windows = BTreeMap<i64, (u64, f64, u64, bool)>;

fn windows(effects: &[Effect]) -> Windows {
    let mut windows = Windows::new();
    for effect in effects {
        let Effect::Window { json, .. } = effect else { panic!("{effect:?}") };
        let firings = json["revision"].as_u64().unwrap() + 1;
        let (count, sum) = (json["count"].as_u64().unwrap(), json["sum"].as_f64().unwrap());
        let window = (count, sum, firings, json.get("backlog").is_some());
        let before = windows.insert(json["window_start"].as_i64().unwrap() - T0, window);
        assert_eq!(before.map_or(0, |before| before.2) + 1, firings, "revisions follow one another");
    }
    windows
}

fn array(offsets_ms: impl IntoIterator<Item = i64>) -> Input {
    let readings: Vec<_> = offsets_ms.into_iter().map(|offset_ms| reading(offset_ms, 1.0)).collect();
    Input::telemetry("a", format!("[{}]", readings.join(",")))
}

#[test]
fn a_backlog_behind_live_data_is_counted() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        let mut effects = bench.apply(T0, &[a(0, 1.0)]);
        effects.extend(bench.apply(T0, &[array((0..1_000).map(|index| -48 * HOUR_MS + index * 1_000))]));
        assert!(bench.operator.has_open_windows());
        effects.extend(bench.apply(T0 + 9_999, &[Input::Tick]));
        assert_eq!(bench.operator.sizes().backlog_devices, 1);
        effects.extend(bench.apply(T0 + 10_000, &[Input::Tick]));
        assert_eq!(bench.operator.sizes().backlog_devices, 0);
        let windows = windows(&effects);
        assert_eq!(windows.len(), 201);
        assert_eq!(windows[&0], (1, 1.0, 1, false));
        assert!(windows.range(..0).all(|(_, window)| *window == (5, 5.0, 1, true)), "{windows:?}");
        assert_eq!(bench.operator.totals().windows_backlog, 200);
        assert!(!bench.operator.has_open_windows());
    });
}

#[test]
fn newest_first_fires_each_window_once() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        let mut effects = bench.apply(T0, &[a(0, 1.0)]);
        for index in 1..500 {
            effects.extend(bench.apply(T0 + index, &[a(-index * 1_000, 1.0)]));
        }
        effects.extend(bench.apply(T0 + 20_000, &[Input::Tick]));
        let windows = windows(&effects);
        assert_eq!(windows.values().map(|window| window.0).sum::<u64>(), 500);
        assert!(
            windows.range(..-40_000).all(|(_, window)| *window == (5, 5.0, 1, true) || *window == (4, 4.0, 1, true)),
            "{windows:?}"
        );
    });
}

/// Live data goes on while the device uploads: the live windows fire when they are due.
#[test]
fn live_windows_do_not_wait_for_a_backlog() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        let mut effects = Vec::new();
        let mut fired_at = BTreeMap::new();
        for second in 0..60 {
            let now_ms = T0 + second * 1_000;
            let stored = (0..20).map(|index| -10 * HOUR_MS + (second * 20 + index) * 1_000);
            let new = bench.apply(now_ms, &[a(second * 1_000, 1.0), array(stored)]);
            for start in windows(&new).keys().filter(|start| **start >= 0) {
                fired_at.entry(*start).or_insert(second);
            }
            effects.extend(new);
        }
        for (index, (start_ms, second)) in fired_at.iter().enumerate() {
            assert_eq!((*start_ms, *second), (index as i64 * 5_000, index as i64 * 5 + 7));
        }
        effects.extend(bench.apply(T0 + 80_000, &[Input::Tick]));
        let windows = windows(&effects);
        assert_eq!(windows.values().map(|window| window.0).sum::<u64>(), 60 + 1_200);
        assert!(windows.values().all(|window| window.2 == 1), "each fires once: {windows:?}");
    });
}

/// One live reading, then only stored ones: the live window closes by silence.
#[test]
fn a_backlog_is_no_sign_that_live_data_goes_on() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        bench.check(T0, &[a(0, 1.0)], &[]);
        for second in 1..11 {
            bench.check(T0 + second * 1_000, &[a(-HOUR_MS + second, 1.0)], &[]);
        }
        // Ten seconds after the message before the backlog had begun.
        bench.check(T0 + 11_000, &[a(-HOUR_MS + 11, 1.0)], &["a/m@0#0=1.0"]);
        bench.check(T0 + 21_000, &[Input::Tick], &["a/m@-3600000#0=11.0"]);
    });
}

#[test]
fn a_window_that_fired_and_is_not_held_is_late() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        bench.check(T0, &[a(-HOUR_MS, 1.0), a(0, 2.0)], &["a/m@-3600000#0=1.0"]);
        // It is held while the device catches up.
        bench.check(T0 + 1, &[a(-HOUR_MS + 1, 4.0)], &["a/m@-3600000#1=5.0"]);
        bench.check(T0 + 10_001, &[Input::Tick], &["a/m@0#0=2.0"]);
        bench.check(T0 + 20_000, &[a(-HOUR_MS + 2, 8.0)], &["late a/m 0"]);
        // Beside it nothing fired.
        bench.check(T0 + 20_000, &[a(-HOUR_MS - 1, 16.0)], &[]);
        bench.check(T0 + 30_000, &[Input::Tick], &["a/m@-3605000#0=16.0"]);
        assert_eq!(bench.operator.totals().rejected[Reason::Late as usize], 1);
    });
}

/// The sentence of a late reading names a lateness under which it would have counted, and which is not much more than needed.
#[test]
fn the_advice_for_late_readings_helps() {
    for settings in [Settings::default(), Settings { backlog: false, ..Settings::default() }] {
        let readings = [a(-65_000, 1.0), a(-1_234, 2.0), a(-64_000, 4.0)];
        let late = |allowed_lateness_ms: i64| -> Option<String> {
            let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms, ..settings.clone() });
            // Two minutes later the device catches up no more.
            bench.apply(T0, &readings[..2]);
            bench.apply(T0 + 120_000, &[Input::Tick]);
            let effects = bench.apply(T0 + 120_000, &[a(500, 1.0), readings[2].clone()]);
            effects.iter().find_map(|effect| match effect {
                Effect::Error { json, .. } => Some(json["message"].as_str().unwrap().to_owned()),
                Effect::Window { .. } => None,
            })
        };
        let sentence = late(0).expect("a late reading");
        let advice = sentence.split("window.allowed_lateness = \"").nth(1).and_then(|rest| rest.split("s\"").next());
        let seconds: i64 = advice.expect("a number of seconds").parse().expect("a number");
        assert_eq!(late(seconds * 1_000), None, "{sentence}");
        assert!(late((seconds - 1) * 1_000).is_some(), "{sentence}");
    }
}

#[test]
fn a_backlog_in_order_fires_while_it_comes() {
    let mut bench = OperatorHarness::new(Settings::default());
    let mut effects = bench.apply(T0, &[a(0, 1.0)]);
    for index in 0..200 {
        effects.extend(bench.apply(T0 + index, &[a(-HOUR_MS + index * 1_000, 1.0)]));
    }
    let early = windows(&effects);
    assert_eq!(early.len(), 40 - 16, "{early:?}");
    assert!(early.values().all(|window| *window == (5, 5.0, 1, true)));
    assert_eq!(bench.operator.sizes().backlog_windows, 40, "held for corrections");
    // Two parts that come interleaved: the windows of both are among those that got readings last.
    let mut bench = OperatorHarness::new(Settings::default());
    let mut effects = bench.apply(T0, &[a(0, 1.0)]);
    for index in 0..200 {
        let both = [a(-9 * HOUR_MS + index * 1_000, 1.0), a(-HOUR_MS + index * 1_000, 1.0)];
        effects.extend(bench.apply(T0 + index, &both));
    }
    assert_eq!(effects, []);
    effects.extend(bench.apply(T0 + 20_000, &[Input::Tick]));
    assert!(windows(&effects).range(..0).all(|(_, window)| *window == (5, 5.0, 1, true)));
}

#[test]
fn at_the_bound_the_least_recently_touched_fire() {
    let settings = Settings { max_backlog_windows_per_device: 16, ..Settings::default() };
    let mut bench = OperatorHarness::new(settings);
    bench.check(T0, &[a(0, 1.0)], &[]);
    for index in 0..16 {
        bench.check(T0, &[a(-HOUR_MS - index * 5_000, 1.0)], &[]);
    }
    bench.check(T0, &[a(-HOUR_MS, 1.0)], &[]);
    let effects = ["a/m@-3615000#0=1.0", "a/m@-3610000#0=1.0", "a/m@-3605000#0=1.0"];
    bench.check(T0, &[a(-2 * HOUR_MS, 1.0)], &effects);
    assert_eq!(bench.operator.totals().backlog_windows_forced, 3);
    assert_eq!(bench.operator.sizes().backlog_windows, 14);
    bench.check(T0, &[a(-HOUR_MS - 10_000, 1.0)], &["late a/m 0"]);
}

#[test]
fn all_devices_share_the_windows_of_backlogs() {
    let settings = Settings { max_backlog_windows: 64, ..Settings::default() };
    let mut bench = OperatorHarness::new(settings);
    for device in 0..16 {
        let name = format!("d{device:02}");
        bench.apply(T0, &[Input::telemetry(&name, reading(0, 1.0))]);
        for index in 0..64 {
            bench.apply(T0, &[Input::telemetry(&name, reading(-HOUR_MS - index * 5_000, 1.0))]);
        }
        assert!(bench.operator.sizes().backlog_windows <= 64 + 4 * (device + 1), "{:?}", bench.operator.sizes());
    }
    bench.apply(T0 + 10_000, &[Input::Tick]);
    assert_eq!(bench.operator.totals().windows_backlog, 16 * 64);
    assert_eq!(bench.operator.sizes().backlog_windows, 0);
}

/// A device that catches up moves its own watermark faster than time passes. Its windows are held until it has caught up.
#[test]
fn a_history_in_any_order_is_counted_whole() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        let mut effects = Vec::new();
        // Every 7th reading first, then the others: all windows fire early, and are corrected.
        let order: Vec<i64> = (0..7).flat_map(|first| (first..2_000).step_by(7)).collect();
        for (index, second) in order.into_iter().enumerate() {
            effects.extend(bench.apply(T0 + index as i64 * 5, &[a(-HOUR_MS + second * 1_000, 1.0)]));
        }
        effects.extend(bench.apply(T0 + 40_000, &[Input::Tick]));
        let windows = windows(&effects);
        assert_eq!(windows.len(), 400);
        assert!(windows.values().all(|window| (window.0, window.1) == (5, 5.0)), "{windows:?}");
    });
}

#[test]
fn a_steady_device_holds_nothing() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        for second in 0..120 {
            bench.apply(T0 + second * 1_000, &[a(second * 1_000 - 500, 1.0)]);
            assert_eq!(bench.operator.sizes().backlog_devices, 0, "after {second} s");
        }
    });
}

#[test]
fn a_device_comes_back_with_its_newest_reading_first() {
    both_scopes(|settings| {
        let mut bench = OperatorHarness::new(settings);
        let mut effects = Vec::new();
        for second in 0..63 {
            effects.extend(bench.apply(
                T0 + second * 1_000,
                &[a(second * 1_000, 1.0), Input::telemetry("b", reading(second * 1_000, 1.0))],
            ));
        }
        // The absence begins within a window. It lasts an hour, while another device goes on.
        for second in 63..3_660 {
            bench.apply(T0 + second * 1_000, &[Input::telemetry("b", reading(second * 1_000, 1.0))]);
        }
        effects.retain(|effect| matches!(effect, Effect::Window { json, .. } if json["device_id"] == "a"));
        let mut rest = Vec::new();
        rest.extend(bench.apply(T0 + 3_660_000, &[a(3_660_000, 1.0)]));
        for second in (63..3_660).rev().step_by(3) {
            rest.extend(
                bench.apply(T0 + 3_660_000, &[array([second, second - 1, second - 2].map(|second| second * 1_000))]),
            );
        }
        rest.extend(bench.apply(T0 + 3_680_000, &[Input::Tick]));
        rest.retain(|effect| matches!(effect, Effect::Window { json, .. } if json["device_id"] == "a"));
        let mut seen: Windows = windows(&effects);
        for effect in rest {
            let Effect::Window { json, .. } = effect else { panic!() };
            let window = (json["count"].as_u64().unwrap(), json["sum"].as_f64().unwrap(), 1, false);
            seen.insert(json["window_start"].as_i64().unwrap() - T0, window);
        }
        assert_eq!(bench.operator.totals().rejected[Reason::Late as usize], 0);
        assert!(seen.range(..3_660_000).all(|(_, window)| window.0 == 5), "{seen:?}");
    });
}

#[test]
fn other_settings_turn_it_on_and_off() {
    let off = Settings { backlog: false, ..Settings::default() };
    let mut bench = OperatorHarness::new(off.clone());
    bench.check(T0, &[a(-2 * HOUR_MS, 1.0), a(-HOUR_MS, 2.0)], &["a/m@-7200000#0=1.0"]);
    // What the watermark has passed counts as fired: nothing is known of it.
    bench.check(T0, &[Input::Settings(Box::default()), a(-2 * HOUR_MS + 60_000, 4.0)], &["late a/m 0"]);
    bench.check(T0, &[a(0, 8.0)], &["a/m@-3600000#0=2.0"]);
    bench.check(T0, &[a(-HOUR_MS / 2, 16.0)], &[]);
    bench.check(T0, &[Input::Settings(Box::new(off))], &["a/m@-1800000#0=16.0"]);
    assert_eq!(bench.operator.sizes().backlog_windows, 0);
    bench.check(T0, &[a(-HOUR_MS / 3, 32.0)], &["late a/m 0"]);
}

#[test]
fn the_end_of_the_input_and_a_forgotten_device_fire_what_waits() {
    let forget = |bench: &mut OperatorHarness| {
        let mut bytes = Vec::new();
        crate::core::record::encode_forget(["a"], &mut bytes);
        bench.apply(T0, &[Input::Encoded(bytes)])
    };
    let close = |bench: &mut OperatorHarness| {
        bench.operator.close_all(&mut bench.effects);
        std::mem::take(&mut bench.effects.0)
    };
    for end in [&forget as &dyn Fn(&mut OperatorHarness) -> Vec<Effect>, &close] {
        let mut bench = OperatorHarness::new(Settings::default());
        bench.check(T0, &[a(0, 1.0), a(-HOUR_MS, 2.0)], &[]);
        let effects: Vec<_> = end(&mut bench).iter().map(super::brief).collect();
        assert_eq!(effects, ["a/m@-3600000#0=2.0", "a/m@0#0=1.0"]);
        assert!(!bench.operator.has_open_windows());
    }
}

/// An error of a time in which backlogs were not counted.
#[test]
fn a_replayed_late_reading_counts_where_its_window_never_fired() {
    let off = Settings { backlog: false, ..Settings::default() };
    let mut bench = OperatorHarness::new(Settings { max_metrics_per_device: 1, ..off });
    let humid =
        |offset_ms: i64| Input::telemetry("a", format!(r#"{{"metric":"h","value":4,"timestamp":{}}}"#, T0 + offset_ms));
    bench.check(T0, &[a(0, 1.0), humid(-HOUR_MS)], &["too_many_metrics a/h 0"]);
    bench.check(T0, &[Input::Settings(Box::default())], &[]);
    let replay = bench.replay(0);
    bench.check(T0 + 1, &[replay], &[]);
    bench.check(T0 + 10_001, &[Input::Tick], &["a/m@0#0=1.0", "a/h@-3600000#0=4.0"]);
}

#[test]
fn a_sparse_metric_keeps_its_long_absences() {
    let mut bench = OperatorHarness::new(Settings::default());
    let mut at = 0;
    // A reading every five minutes for a day, with an absence of two hours in the morning.
    for index in 0..288 {
        at += if index == 100 { 2 * HOUR_MS } else { 300_000 };
        bench.apply(T0 + at, &[a(at, 1.0)]);
    }
    assert!(bench.operator.totals().fired_runs_merged > 100);
    let absence_ms = 100 * 300_000 + HOUR_MS;
    let effects = bench.apply(T0 + at, &[a(absence_ms, 1.0)]);
    assert_eq!(effects, []);
    assert_eq!(bench.operator.totals().rejected[Reason::Late as usize], 0);
}

/// A reading of a history: metric, event time, value.
type HistoryReading = (usize, i64, i32);

const METRICS: [&str; 3] = ["m", "n", "o"];

/// A history of one device in order of time. Gaps between readings are short, or absences.
fn history() -> impl Strategy<Value = Vec<HistoryReading>> {
    let gap = prop_oneof![12 => 1i64..4_000, 2 => 4_000i64..60_000, 1 => 60_000i64..HOUR_MS];
    prop::collection::vec((gap, 0usize..3, -100i32..100), 2..200).prop_map(|steps| {
        let mut time_ms = T0 - steps.iter().map(|(gap_ms, ..)| gap_ms).sum::<i64>();
        let reading = |(gap_ms, metric, value)| {
            time_ms += gap_ms;
            (metric, time_ms, value)
        };
        steps.into_iter().map(reading).collect()
    })
}

/// Aggregates of each window: count, sum, minimum, maximum, first and last.
type HistoryWindows = BTreeMap<(String, i64), (u64, [f64; 5])>;

fn expected(history: &[HistoryReading]) -> HistoryWindows {
    let mut windows = HistoryWindows::new();
    for &(metric, time_ms, value) in history {
        let value = f64::from(value);
        let key = (METRICS[metric].to_owned(), time_ms.div_euclid(5_000) * 5_000);
        let (count, [sum, min, max, _, last]) =
            windows.entry(key).or_insert((0, [0.0, f64::INFINITY, f64::NEG_INFINITY, value, value]));
        (*count, *sum, *min, *max, *last) = (*count + 1, *sum + value, min.min(value), max.max(value), value);
    }
    windows
}

fn newest(effects: &[Effect]) -> HistoryWindows {
    let mut newest = HistoryWindows::new();
    for effect in effects {
        let Effect::Window { json, .. } = effect else { panic!("{effect:?}") };
        let key = (json["metric"].as_str().unwrap().to_owned(), json["window_start"].as_i64().unwrap());
        let float = |name: &str| json[name].as_f64().unwrap();
        let aggregates = ["sum", "min", "max", "first", "last"].map(float);
        newest.insert(key, (json["count"].as_u64().unwrap(), aggregates));
    }
    newest
}

fn message(readings: &[HistoryReading]) -> Input {
    let json = |&(metric, time_ms, value): &HistoryReading| {
        format!(r#"{{"metric":"{}","timestamp":{time_ms},"value":{value}}}"#, METRICS[metric])
    };
    Input::telemetry("a", format!("[{}]", readings.iter().map(json).collect::<Vec<_>>().join(",")))
}

/// An operator that is restored from a snapshot of this one.
fn restored(bench: OperatorHarness) -> OperatorHarness {
    let OperatorHarness { mut operator, lsn, effects } = bench;
    operator.snapshot_failed();
    let (header, mut blobs) = (operator.begin_snapshot(), Vec::new());
    while !operator.snapshot_step(64, &mut blobs) {}
    let groups = blobs.iter().map(|blob| (blob.group, blob.bytes.as_slice()));
    OperatorHarness { operator: Operator::restore(&header, groups).unwrap(), lsn, effects }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A part of the history came live, then the device was away; the rest comes at once: its newest part in order, and the
    /// others in any order, also as parts that are interleaved.
    #[test]
    fn any_interleaving_gives_the_windows_of_the_history(
        history in history(),
        is_global: bool,
        (before, live) in (0usize..60, 0usize..60),
        order in prop::sample::select(vec!["newest first", "in order", "any", "interleaved"]),
        keys in prop::collection::vec(any::<u32>(), 200),
        sizes in prop::collection::vec(1usize..12, 200),
        restart in 0usize..100,
    ) {
        let watermark = if is_global { WatermarkScope::Global } else { WatermarkScope::Device };
        let mut bench = OperatorHarness::new(Settings { watermark, ..Settings::default() });
        let mut effects = Vec::new();
        let before = before.min(history.len());
        for reading in &history[..before] {
            effects.extend(bench.apply(reading.1 + 50, &[message(std::slice::from_ref(reading))]));
        }
        let rest = &history[before..];
        let live = live.min(rest.len());
        let (stored, live) = rest.split_at(rest.len() - live);
        let mut stored: Vec<(usize, HistoryReading)> = stored.iter().copied().enumerate().collect();
        match order {
            "newest first" => stored.reverse(),
            "any" => stored.sort_by_key(|(index, _)| keys[*index]),
            "interleaved" => stored.sort_by_key(|(index, _)| (index % 30, *index)),
            _ => {}
        }
        let mut stored = stored.into_iter().map(|(_, reading)| reading).peekable();
        let mut live = live.iter().copied().peekable();
        for turn in 0.. {
            if turn == restart {
                bench = restored(bench);
            }
            let takes_live = keys[turn % 200] % 3 == 0 && live.peek().is_some() || stored.peek().is_none();
            let part: Vec<_> = if takes_live {
                live.next().into_iter().collect()
            } else {
                stored.by_ref().take(sizes[turn % 200]).collect()
            };
            if part.is_empty() {
                break;
            }
            effects.extend(bench.apply(T0 + 20 * turn as i64, &[message(&part)]));
        }
        for second in 5..60 {
            effects.extend(bench.apply(T0 + second * 1_000, &[Input::Tick]));
        }
        prop_assert_eq!(bench.operator.totals().in_windows, history.len() as u64);
        prop_assert_eq!(newest(&effects), expected(&history));
        prop_assert!(!bench.operator.has_open_windows());
        prop_assert_eq!(bench.operator.sizes().backlog_windows, 0);
    }
}
