//! `weir replay`: the same results from the journal, and Flink's results from recorded events.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::WEIR;
use weir::random::Random;
use weir_test_kit::http::post;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::{Weir, write_config};
use weir_test_kit::seed::announced_seed;
use weir_test_kit::wait::{wait_for, window_before};

fn run(command: &mut Command) {
    let output = command.output().expect("weir can be started");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The texts of the objects in the list called `name`, byte for byte, through all pages.
fn raw_list(weir: &Weir, name: &str, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let response = weir.get(&format!("/api/v1/{name}?limit=1000{query}{cursor}")).ok();
        all.extend(objects(&response.text()));
        match response.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// The objects at the second level of `{"name":[{…},{…}],…}`.
fn objects(text: &str) -> Vec<String> {
    let (mut depth, mut start, mut quoted, mut escaped) = (0, 0, false, false);
    let mut found = Vec::new();
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' if !quoted => {
                depth += 1;
                if depth == 2 {
                    start = at;
                }
            }
            '}' if !quoted => {
                if depth == 2 {
                    found.push(text[start..=at].to_owned());
                }
                depth -= 1;
            }
            _ => {}
        }
    }
    found
}

/// Lines in order of their sequence number.
fn in_order(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by_key(|line| {
        serde_json::from_str::<Value>(line).ok().and_then(|value| value["seq"].as_u64()).expect("every line has a seq")
    });
    lines
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_journal_gives_its_windows_again() {
    let mut random = Random::new(announced_seed("replay"));
    let mut weir = WEIR.start(&[
        ("journal.retention", "'1h'"),
        ("window.idle_timeout", "'500ms'"),
        ("state.checkpoint_interval", "'200ms'"),
        ("errors.store_duplicates", "true"),
    ]);
    let start = window_before(90);
    let mut replays = 0;
    for round in 0..3 {
        for device in 0..5 {
            let id = format!("d{device}");
            let version = if device % 2 == 0 { MqttVersion::V4 } else { MqttVersion::V5 };
            let mut client = TestClient::connect(weir.mqtt(), version, &id);
            for _ in 0..60 {
                // Some readings are out of order, late or repeated.
                let timestamp = start + round * 20_000 + random.below(40_000) as i64;
                let (value, seq) = (random.below(1_000_000) as f64 / 7.0, random.below(150));
                let payload = format!(
                    r#"{{"timestamp":{timestamp},"seq":{seq},"boot":"b","metrics":{{"t\u00e4":{value},"b-{round}":{seq}}}}}"#
                );
                client.telemetry(&id, &payload);
            }
            client.telemetry(&id, "{\"metric\":");
        }
        // Some of the errors are processed again; which of them can be does not matter here.
        for _ in 0..20 {
            let seq = random.below(100 * (round as u64 + 1));
            replays += u64::from(post(weir.http(), &format!("/api/v1/errors/{seq}/replay"), "").status == 200);
        }
        match round {
            0 => weir.kill(),
            _ => weir.terminate(),
        }
        weir.restart();
    }
    weir.wait_closed();
    let windows = in_order(raw_list(&weir, "windows", "&revisions=all"));
    let errors = in_order(raw_list(&weir, "errors", ""));
    assert!(replays > 0, "no error was replayed");
    assert!(windows.len() > 50 && errors.len() > 50, "{} windows, {} errors", windows.len(), errors.len());
    weir.assert_accounted();
    weir.terminate();
    let out = weir.path("out");
    run(weir.command(&["replay"]).arg(weir.data()).arg("--out").arg(&out));
    assert_eq!(lines(&out.join("windows.jsonl")), windows);
    assert_eq!(lines(&out.join("errors.jsonl")), errors);
}

/// The newest revision of each window of devices that `is_wanted`, without what depends on when it fired.
fn newest(lines: &[String], is_wanted: impl Fn(&str) -> bool) -> BTreeMap<FiringKey, Value> {
    let mut windows = BTreeMap::new();
    for line in lines {
        let mut window: Value = serde_json::from_str(line).expect("JSON");
        if is_wanted(window["device_id"].as_str().expect("text")) {
            let fields = window.as_object_mut().expect("an object");
            fields.remove("seq");
            fields.remove("revision");
            windows.insert(key(&window, window["window_start"].as_i64().expect("a time")), window);
        }
    }
    windows
}

fn publish_measured(weir: &Weir, start: i64) {
    for device in 0..3 {
        let id = format!("measured-{device}");
        let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, &id);
        for seq in 0..40 {
            let value = (seq * 37 + device) as f64 / 7.0;
            let timestamp = start + seq * 1_000;
            client.telemetry(&id, &format!(r#"{{"metric":"m","value":{value},"timestamp":{timestamp},"seq":{seq}}}"#));
        }
    }
}

#[test]
fn a_journal_is_replayed_under_another_config_while_weir_writes_it() {
    // Unlimited lateness: on a slow machine, too, every reading gets into its window.
    let common = [("window.idle_timeout", "'1s'"), ("window.allowed_lateness", "'1h'")];
    let mut settings = common.to_vec();
    settings.extend([
        ("journal.retention", "'1h'"),
        ("journal.segment_size", "'1MiB'"),
        ("journal.commit_max_bytes", "'1MiB'"),
        ("state.checkpoint_interval", "'100ms'"),
    ]);
    let weir = WEIR.start(&settings);
    let mut new = common.to_vec();
    new.push(("window.size", "'20s'"));
    let start = window_before(600) / 20_000 * 20_000;
    publish_measured(&weir, start);
    let config = weir.path("new.toml");
    write_config(&config, &new);
    let out = weir.path("out");
    let names = |weir: &Weir| -> BTreeSet<String> {
        let entries = fs::read_dir(weir.data()).expect("a readable directory");
        let names =
            entries.map(|entry| entry.expect("a readable directory").file_name().to_string_lossy().into_owned());
        // The running weir creates this directory with the first savepoint.
        names.filter(|name| name != "savepoints").collect()
    };
    let before = names(&weir);
    let stop = AtomicBool::new(false);
    let replayed = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "noise");
            for seq in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let timestamp = start + seq * 10;
                let payload = format!(r#"{{"metric":"m","value":1,"timestamp":{timestamp},"seq":{seq}{:20000}}}"#, "");
                client.telemetry("noise", &payload);
            }
        });
        let replayed = wait_for("the measured windows are closed in the journal, which has several segments", || {
            let mut command = WEIR.command(&["replay"]);
            command.arg(weir.data()).arg("--out").arg(&out).arg("--config").arg(&config);
            run(&mut command);
            let windows = newest(&lines(&out.join("windows.jsonl")), |device| device.starts_with("measured"));
            let counted: u64 = windows.values().filter_map(|window| window["count"].as_u64()).sum();
            let segments = fs::read_dir(weir.data().join("journal")).expect("a readable directory").count();
            (counted == 120 && segments > 2).then_some(windows)
        });
        stop.store(true, Ordering::Relaxed);
        replayed
    });
    assert_eq!(names(&weir), before, "the replay left something in the data directory");
    assert_eq!(replayed.len(), 3 * 2, "windows of 20 s");
    weir.wait_closed();
    weir.assert_accounted();

    let fresh = WEIR.start(&new);
    publish_measured(&fresh, start);
    fresh.wait_closed();
    let expected = newest(&in_order(raw_list(&fresh, "windows", "&revisions=all")), |_| true);
    assert_eq!(replayed, expected);
}

#[test]
fn events_recorded_with_flink_give_its_windows() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/flink");
    let mut cases: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.join("events.jsonl").is_file())
        .collect();
    cases.sort();
    assert!(cases.len() >= 8, "cases are missing in {}", directory.display());
    for case in cases {
        check_case(&case);
    }
}

fn check_case(case: &Path) {
    let name = case.file_name().expect("a name").to_string_lossy().into_owned();
    let parameters = fs::read_to_string(case.join("params.json")).expect("params.json");
    let parameters: Value = serde_json::from_str(&parameters).expect("JSON");
    let ms = |key: &str| format!("'{}ms'", parameters[key].as_i64().expect("a number"));
    let directory = TempDir::new().expect("a temporary directory");
    let config = directory.path().join("config.toml");
    let scope = format!("'{}'", parameters["scope"].as_str().expect("a scope"));
    write_config(
        &config,
        &[
            ("window.size", &ms("window_ms")),
            ("window.watermark", &scope),
            ("window.out_of_orderness", &ms("out_of_orderness_ms")),
            ("window.allowed_lateness", &ms("allowed_lateness_ms")),
            ("window.idle_timeout", "'off'"),
            ("window.backlog", "'off'"),
            ("ingest.timestamp_unit", "'ms'"),
            ("validate.max_future", "'off'"),
            ("validate.max_age", "'off'"),
            ("dedup.enabled", "false"),
            ("state.device_ttl", "'off'"),
        ],
    );
    let out = directory.path().join("out");
    let mut command = WEIR.command(&["replay"]);
    command.arg(case.join("events.jsonl")).arg("--out").arg(&out).arg("--config").arg(&config);
    run(&mut command);

    let events = magnitudes(&case.join("events.jsonl"), parameters["window_ms"].as_i64().expect("a number"));
    let ours = firings(&out.join("windows.jsonl"));
    let theirs = firings(&case.join("windows.jsonl"));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}: windows");
    for (key, expected) in &theirs {
        let found = &ours[key];
        assert_eq!(found.len(), expected.len(), "{name}: revisions of {key:?}");
        for (found, expected) in found.iter().zip(expected) {
            compare(&format!("{name} {key:?}"), found, expected, events[key]);
        }
    }

    let errors = lines(&out.join("errors.jsonl"));
    let mut ours: Vec<String> = errors
        .iter()
        .map(|line| {
            let error: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(error["reason"], "late", "{name}: {line}");
            error["payload"].as_str().expect("text").to_owned()
        })
        .collect();
    let mut theirs = lines(&case.join("late.jsonl"));
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs, "{name}: late readings");
}

type FiringKey = (String, String, i64);

fn key(value: &Value, start: i64) -> FiringKey {
    let text = |name: &str| value[name].as_str().expect("text").to_owned();
    (text("device_id"), text("metric"), start)
}

/// The revisions of each window, in their order.
fn firings(path: &Path) -> BTreeMap<FiringKey, Vec<Value>> {
    let mut windows: BTreeMap<FiringKey, Vec<Value>> = BTreeMap::new();
    for line in lines(path) {
        let window: Value = serde_json::from_str(&line).expect("JSON");
        let revisions = windows.entry(key(&window, window["window_start"].as_i64().expect("a time"))).or_default();
        assert_eq!(window["revision"], revisions.len(), "revisions come in order: {line}");
        revisions.push(window);
    }
    windows
}

/// The largest magnitude of all events of each window.
fn magnitudes(path: &Path, window_ms: i64) -> BTreeMap<FiringKey, f64> {
    let mut largest: BTreeMap<FiringKey, f64> = BTreeMap::new();
    for line in lines(path) {
        let event: Value = serde_json::from_str(&line).expect("JSON");
        let start = event["timestamp"].as_i64().expect("a time").div_euclid(window_ms) * window_ms;
        let magnitude = largest.entry(key(&event, start)).or_default();
        *magnitude = magnitude.max(event["value"].as_f64().expect("a number").abs());
    }
    largest
}

fn compare(name: &str, ours: &Value, theirs: &Value, magnitude: f64) {
    assert_eq!(ours["count"], theirs["count"], "{name}: count");
    for (field, reference) in [("min", "min"), ("max", "max"), ("first", "first_by_time"), ("last", "last_by_time")] {
        assert_eq!(ours[field].as_f64(), theirs[reference].as_f64(), "{name}: {field}");
    }
    let count = theirs["count"].as_f64().expect("a number");
    // Sums that cancel out are compared relative to their largest term.
    near(name, "sum", ours["sum"].as_f64(), theirs["sum_exact"].as_f64(), 1e-12, magnitude);
    let mean = theirs["sum_exact"].as_f64().map(|sum| sum / count);
    near(name, "mean", ours["mean"].as_f64(), mean, 1e-9, magnitude);
    if magnitude < 1e150 {
        near(name, "stddev", ours["stddev"].as_f64(), theirs["stddev_population"].as_f64(), 1e-9, magnitude);
    }
}

fn near(name: &str, field: &str, ours: Option<f64>, theirs: Option<f64>, tolerance: f64, magnitude: f64) {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            let allowed = tolerance * theirs.abs().max(magnitude);
            assert!((ours - theirs).abs() <= allowed, "{name}: {field} is {ours}, Flink's {theirs}");
        }
        // An overflow has no JSON number.
        (ours, theirs) => assert_eq!(ours, theirs, "{name}: {field}"),
    }
}
