//! Changes of settings lose nothing, whatever they are, whenever they come, and whatever restarts are between them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::snapshots::SnapshotStore;
use super::{Effect, Input, OperatorHarness, T0};
use crate::core::settings::{Settings, WatermarkScope};

/// One step of a history.
#[derive(Debug, Clone)]
enum SettingsStep {
    /// A message of one device with readings, each of a metric at a time relative to the device's clock.
    Readings { device: usize, readings: Vec<(usize, i64)> },
    /// Time passes.
    Wait(i64),
    /// A start under other settings.
    Change(Box<Settings>),
    /// A start under the same settings, from the last checkpoint.
    Restart,
}

const SIZES_MS: [i64; 7] = [1_000, 4_000, 5_000, 6_000, 7_000, 20_000, 60_000];
/// How far event times come out of order, at most. It is within each of the bounds in [`changed`].
const DISORDER_MS: i64 = 1_500;

fn changed() -> impl Strategy<Value = Settings> {
    (
        prop::sample::select(SIZES_MS.to_vec()),
        prop_oneof![3 => Just(WatermarkScope::Device), 1 => Just(WatermarkScope::Global)],
        prop::sample::select(vec![DISORDER_MS, 2_000, 9_000]),
        prop::sample::select(vec![0, 3_000, 30_000]),
        prop::sample::select(vec![None, Some(2_000), Some(10_000)]),
        prop::sample::select(vec![None, Some(3_600_000), Some(7 * 86_400_000)]),
    )
        .prop_map(
            |(window_ms, watermark, out_of_orderness_ms, allowed_lateness_ms, idle_timeout_ms, max_age_ms)| {
                let bounds = Settings { max_age_ms, max_future_ms: None, ..Settings::default() };
                Settings { window_ms, watermark, out_of_orderness_ms, allowed_lateness_ms, idle_timeout_ms, ..bounds }
            },
        )
}

fn steps(times: impl Strategy<Value = i64> + Clone + 'static) -> impl Strategy<Value = Vec<SettingsStep>> {
    let readings = (0usize..3, prop::collection::vec((0usize..2, times), 1..4))
        .prop_map(|(device, readings)| SettingsStep::Readings { device, readings });
    let step = prop_oneof![
        10 => readings,
        4 => (0i64..4_000).prop_map(SettingsStep::Wait),
        1 => (0i64..90_000).prop_map(SettingsStep::Wait),
        2 => changed().prop_map(|settings| SettingsStep::Change(Box::new(settings))),
        1 => Just(SettingsStep::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// What a history gave: the newest revision of each window by (device, metric, start), with its end, count and sum; the
/// readings, with their values; and which of them were late.
#[derive(Debug, Default)]
struct CountedHistory {
    windows: BTreeMap<(String, String, i64), (i64, u64, f64)>,
    readings: Vec<(String, String, i64, f64)>,
    late: usize,
}

impl CountedHistory {
    /// Runs two operators through a history: one never stops, the other is restored from a checkpoint at each start. They
    /// have the same effects.
    fn run(steps: &[SettingsStep]) -> Self {
        let mut history = Self::default();
        let (mut steady, mut restarted) =
            (OperatorHarness::new(Settings::default()), OperatorHarness::new(Settings::default()));
        let (mut store, mut now_ms) = (SnapshotStore::default(), T0);
        for step in steps {
            let inputs = match step {
                SettingsStep::Readings { device, readings } => vec![history.publish(*device, readings, now_ms)],
                SettingsStep::Wait(wait_ms) => {
                    now_ms += wait_ms;
                    vec![Input::Tick]
                }
                SettingsStep::Change(settings) => vec![Input::Resumed, Input::Settings(settings.clone())],
                SettingsStep::Restart => vec![Input::Resumed],
            };
            if matches!(step, SettingsStep::Change(_) | SettingsStep::Restart) {
                store.take(&mut restarted.operator);
                restarted.operator = store.restore();
            }
            let effects = steady.apply(now_ms, &inputs);
            assert_eq!(restarted.apply(now_ms, &inputs), effects, "{step:?}");
            history.note(&effects);
        }
        steady.operator.close_all(&mut steady.effects);
        history.note(&steady.effects.0);
        assert_eq!(steady.operator.totals().window_sizes_dropped, 0);
        history
    }

    fn publish(&mut self, device: usize, readings: &[(usize, i64)], now_ms: i64) -> Input {
        let device = ["a", "b", "c"][device];
        let mut elements = Vec::new();
        for &(metric, offset_ms) in readings {
            let (metric, value, time_ms) = (["m", "n"][metric], self.readings.len() as f64, now_ms + offset_ms);
            elements.push(format!(r#"{{"metric":"{metric}","value":{value},"timestamp":{time_ms}}}"#));
            self.readings.push((device.to_owned(), metric.to_owned(), time_ms, value));
        }
        Input::telemetry(device, format!("[{}]", elements.join(",")))
    }

    fn note(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Window { json, .. } = effect else {
                self.late += 1;
                continue;
            };
            let text = |key: &str| json[key].as_str().unwrap().to_owned();
            let number = |key: &str| json[key].as_i64().unwrap();
            let key = (text("device_id"), text("metric"), number("window_start"));
            let content = (number("window_end"), json["count"].as_u64().unwrap(), json["sum"].as_f64().unwrap());
            let before = self.windows.insert(key, content);
            assert_eq!(before.is_some(), number("revision") > 0, "a window begins with revision 0, and once: {json}");
            assert_eq!(before.map_or(content.0, |before| before.0), content.0, "a window keeps its end: {json}");
        }
    }

    /// Each reading that is not late is in one window, which is the one that holds its time, and windows do not overlap.
    fn check(&self) {
        let mut counted = 0;
        for ((device, metric, start_ms), (end_ms, count, sum)) in &self.windows {
            let is_in = |reading: &&(String, String, i64, f64)| {
                (&reading.0, &reading.1) == (device, metric) && (*start_ms..*end_ms).contains(&reading.2)
            };
            let held: Vec<f64> = self.readings.iter().filter(is_in).map(|reading| reading.3).collect();
            assert!(*count as usize <= held.len(), "{device}/{metric} at {start_ms}");
            if self.late == 0 {
                assert_eq!((*count as usize, *sum), (held.len(), held.iter().sum()), "{device}/{metric} at {start_ms}");
            }
            counted += *count as usize;
        }
        assert_eq!(counted + self.late, self.readings.len());
        for (before, after) in self.windows.iter().zip(self.windows.iter().skip(1)) {
            let ((device, metric, start_ms), (end_ms, ..)) = before;
            let overlaps = (device, metric) == (&after.0.0, &after.0.1) && *end_ms > after.0.2;
            assert!(!overlaps, "{device}/{metric}: {start_ms}..{end_ms} and {}", after.0.2);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn devices_that_send_in_time_lose_nothing(steps in steps(-DISORDER_MS..=0)) {
        let history = CountedHistory::run(&steps);
        history.check();
        prop_assert_eq!(history.late, 0);
    }

    #[test]
    fn windows_never_overlap(steps in steps(prop_oneof![-90_000i64..90_000, -3_000i64..0])) {
        CountedHistory::run(&steps).check();
    }
}
