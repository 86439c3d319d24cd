//! Compares weir with Apache Flink: recorded events and Flink's results are in tests/fixtures/flink, whose README states
//! the rules of comparison.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Effect, Input, OperatorHarness};
use crate::core::settings::{Settings, TimestampUnit, WatermarkScope};

type GoldenKey = (String, String, i64);

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flink").join(case)
}

fn lines(case: &str, file: &str) -> Vec<String> {
    std::fs::read_to_string(folder(case).join(file)).unwrap().lines().map(str::to_owned).collect()
}

fn settings(case: &str) -> Settings {
    let params: Value = serde_json::from_str(&lines(case, "params.json").concat()).unwrap();
    let scope = if params["scope"] == "global" { WatermarkScope::Global } else { WatermarkScope::Device };
    Settings {
        timestamp_unit: TimestampUnit::Ms,
        max_future_ms: None,
        max_age_ms: None,
        dedup: false,
        window_ms: params["window_ms"].as_i64().unwrap(),
        watermark: scope,
        out_of_orderness_ms: params["out_of_orderness_ms"].as_i64().unwrap(),
        allowed_lateness_ms: params["allowed_lateness_ms"].as_i64().unwrap(),
        idle_timeout_ms: None,
        backlog: false,
        device_ttl_ms: None,
        ..Settings::default()
    }
}

fn key(window: &Value) -> GoldenKey {
    let text = |field: &str| window[field].as_str().unwrap().to_owned();
    (text("device_id"), text("metric"), window["window_start"].as_i64().unwrap())
}

/// All revisions of each window, in order.
fn by_key(windows: impl Iterator<Item = Value>) -> BTreeMap<GoldenKey, Vec<Value>> {
    let mut map: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for window in windows {
        map.entry(key(&window)).or_default().push(window);
    }
    map
}

/// Compares within `tolerance` of the exact value or, where terms cancel each other, of the largest magnitude among them.
fn close(actual: &Value, exact: &Value, largest: f64, tolerance: f64) -> bool {
    let (actual, exact) = (actual.as_f64().unwrap(), exact.as_f64().unwrap());
    (actual - exact).abs() <= tolerance * exact.abs().max(if exact.abs() < largest { largest } else { 0.0 })
}

fn compare(actual: &Value, flink: &Value) {
    for field in ["device_id", "metric", "window_start", "window_end", "revision", "count"] {
        assert_eq!(actual[field], flink[field], "{field} of {flink}");
    }
    let same = |ours: &str, theirs: &str| {
        assert_eq!(actual[ours].as_f64(), flink[theirs].as_f64(), "{ours} of {flink}");
    };
    same("min", "min");
    same("max", "max");
    same("first", "first_by_time");
    same("last", "last_by_time");
    let largest = flink["min"].as_f64().unwrap().abs().max(flink["max"].as_f64().unwrap().abs());
    assert!(close(&actual["sum"], &flink["sum_exact"], largest, 1e-12), "sum of {flink}: {actual}");
    let count = flink["count"].as_f64().unwrap();
    let mean = Value::from(flink["sum_exact"].as_f64().unwrap() / count);
    assert!(close(&actual["mean"], &mean, largest, 1e-9), "mean of {flink}: {actual}");
    if largest < 1e150 {
        assert!(close(&actual["stddev"], &flink["stddev_population"], largest, 1e-9), "stddev of {flink}: {actual}");
    }
}

fn check(case: &str) {
    let mut bench = OperatorHarness::new(settings(case));
    let mut effects = Vec::new();
    for line in lines(case, "events.jsonl") {
        let event: Value = serde_json::from_str(&line).unwrap();
        effects.extend(bench.apply(event["timestamp"].as_i64().unwrap(), &[Input::on("replay", line)]));
    }
    bench.operator.close_all(&mut bench.effects);
    effects.append(&mut bench.effects.0);
    let (mut windows, mut late) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Window { json, .. } => windows.push(json),
            Effect::Error { json, .. } => {
                assert_eq!(json["reason"], "late");
                late.push(json["payload"].as_str().unwrap().to_owned());
            }
        }
    }
    late.sort();
    let mut flink_late = lines(case, "late.jsonl");
    flink_late.sort();
    assert!(late == flink_late, "late readings");
    let ours = by_key(windows.into_iter());
    let flink = by_key(lines(case, "windows.jsonl").iter().map(|line| serde_json::from_str(line).unwrap()));
    assert!(ours.keys().eq(flink.keys()), "windows");
    for (ours, flink) in ours.values().zip(flink.values()) {
        assert_eq!(ours.len(), flink.len(), "revisions of {}", flink[0]);
        ours.iter().zip(flink).for_each(|(ours, flink)| compare(ours, flink));
    }
}

#[test]
fn basic_inorder() {
    check("basic_inorder");
}

#[test]
fn disorder_late() {
    check("disorder_late");
}

#[test]
fn boundaries_global() {
    check("boundaries_global");
}

#[test]
fn allowed_lateness_global() {
    check("allowed_lateness_global");
}

#[test]
fn skew_backlog_device() {
    check("skew_backlog_device");
}

#[test]
fn skew_backlog_global() {
    check("skew_backlog_global");
}

#[test]
fn device_lateness_zero_bound() {
    check("device_lateness_zero_bound");
}

#[test]
fn negative_gaps_extremes() {
    check("negative_gaps_extremes");
}

#[test]
fn every_recorded_case_is_checked() {
    let mut cases: Vec<_> = std::fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap()).collect();
    cases.retain(|entry| entry.file_type().unwrap().is_dir());
    assert_eq!(cases.len(), 8);
}

/// With backlogs, none of the readings that Flink calls late is lost: each is in exactly one window. The arrival is the event
/// time, as in a replay of the file, or the time of a device whose clock is right.
fn check_backlog(case: &str, idle_timeout_ms: Option<i64>) {
    let mut bench = OperatorHarness::new(Settings {
        timestamp_unit: TimestampUnit::Ms,
        watermark: settings(case).watermark,
        max_future_ms: None,
        idle_timeout_ms,
        ..Settings::default()
    });
    let mut counts: BTreeMap<GoldenKey, u64> = BTreeMap::new();
    let mut newest: BTreeMap<GoldenKey, u64> = BTreeMap::new();
    let mut effects = Vec::new();
    let mut arrival_ms = i64::MIN;
    for line in lines(case, "events.jsonl") {
        let event: Value = serde_json::from_str(&line).unwrap();
        let text = |field: &str| event[field].as_str().unwrap().to_owned();
        let time_ms = event["timestamp"].as_i64().unwrap();
        *counts.entry((text("device_id"), text("metric"), time_ms.div_euclid(5_000) * 5_000)).or_default() += 1;
        if idle_timeout_ms.is_none() || text("device_id") == "dev-0000" {
            arrival_ms = arrival_ms.max(time_ms);
        }
        effects.extend(bench.apply(arrival_ms.max(1_700_000_000_000), &[Input::on("replay", line)]));
    }
    bench.operator.close_all(&mut bench.effects);
    effects.append(&mut bench.effects.0);
    for effect in effects {
        let Effect::Window { json, .. } = effect else { panic!("{case}: {effect:?}") };
        newest.insert(key(&json), json["count"].as_u64().unwrap());
    }
    assert_eq!(bench.operator.totals().in_windows, 16_000);
    assert!(newest == counts, "{case}: each reading is in its window");
}

#[test]
fn with_backlogs_nothing_is_late() {
    check_backlog("skew_backlog_device", None);
    check_backlog("skew_backlog_device", Some(10_000));
}

#[test]
fn with_backlogs_nothing_is_late_under_one_watermark() {
    check_backlog("skew_backlog_global", None);
    check_backlog("skew_backlog_global", Some(10_000));
}
