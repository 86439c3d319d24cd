//! `weir journal repair`: weir refuses damage, the command cuts it out, and every other reading is counted exactly
//! once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

const DEVICES: usize = 4;
const PER_DEVICE: usize = 60;
/// Payloads are padded so that a journal of some hundred messages has several segments of the smallest size.
const PADDING: usize = 16 * 1024;

const SETTINGS: &[(&str, &str)] = &[
    ("journal.retention", "'1h'"),
    ("journal.segment_size", "'1MiB'"),
    ("journal.commit_max_bytes", "'1MiB'"),
    ("window.idle_timeout", "'500ms'"),
];

/// Without checkpoints the whole journal is read at a start.
const NO_CHECKPOINTS: (&str, &str) = ("state.checkpoint_interval", "'1h'");

fn device(index: usize) -> String {
    format!("d{index}")
}

/// A weir in which each device has published its readings, one batch of the journal each, and all windows are closed.
fn filled(settings: &[(&str, &str)]) -> Weir {
    let weir = WEIR.start(settings);
    let start = window_before(900);
    for index in 0..DEVICES {
        let id = device(index);
        let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, &id);
        for seq in 0..PER_DEVICE {
            client.telemetry(&id, &reading(start + seq as i64 * 2_000, seq));
        }
    }
    weir.wait_closed();
    weir
}

fn reading(timestamp: i64, seq: usize) -> String {
    format!(r#"{{"metric":"m","value":1,"timestamp":{timestamp},"seq":{seq}{:PADDING$}}}"#, "")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a readable directory");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    files
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("a readable segment");
    bytes[offset] ^= 0x10;
    fs::write(path, bytes).expect("a writable segment");
}

fn run(weir: &Weir, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = weir.command(arguments).output().expect("weir can be started");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[track_caller]
fn expect(weir: &Weir, arguments: &[&str], code: i32) -> String {
    let (found, text) = run(weir, arguments);
    assert_eq!(found, Some(code), "{arguments:?}: {text}");
    text
}

/// Content of every file below a directory but the state store, which a start changes.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut content = BTreeMap::new();
    for name in ["journal", "windows", "errors", "damaged"] {
        let Ok(entries) = fs::read_dir(directory.join(name)) else { continue };
        for entry in entries {
            let path = entry.expect("a readable directory").path();
            content.insert(path.clone(), fs::read(path).expect("a readable file"));
        }
    }
    content
}

/// Records that the journal lost, by its dump.
fn lost(weir: &Weir) -> usize {
    let (_, dump) = run(weir, &["journal", "dump"]);
    let lines = dump.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["kind"] == "lost").map(|line| line["count"].as_u64().expect("a count") as usize).sum()
}

/// Refused, shown, repaired and sound again; returns what the repair said.
fn repaired(weir: &Weir, file: &str) -> String {
    let before = content(&weir.data());
    let refused = expect(weir, &["run"], 65);
    assert!(
        refused.contains(file) && refused.contains("at byte") && refused.contains("weir journal repair"),
        "{refused}"
    );
    let dry = expect(weir, &["journal", "repair"], 65);
    assert!(dry.contains("are lost") && dry.contains("Nothing was changed") && dry.contains("--yes"), "{dry}");
    assert_eq!(content(&weir.data()), before, "a dry run changed something");
    let done = expect(weir, &["journal", "repair", "--yes"], 0);
    assert!(done.contains("are lost") && done.contains("Repaired"), "{done}");
    expect(weir, &["journal", "verify"], 0);
    let again = expect(weir, &["journal", "repair"], 0);
    assert!(again.contains("nothing to repair"), "{again}");
    done
}

/// Every reading but the lost ones is in exactly one window, and new ones are accepted.
fn check_readings(weir: &mut Weir, lost: usize) {
    weir.restart();
    weir.wait_closed();
    let (mut accepted, mut counted) = (0, 0);
    for index in 0..DEVICES {
        let detail = weir.json(&format!("/api/v1/devices/{}", device(index)));
        accepted += detail["accepted"].as_u64().expect("a count") as usize;
        let windows = weir.list("windows", &format!("&device={}", device(index)));
        let device_counted: u64 = windows.iter().filter_map(|window| window["count"].as_u64()).sum();
        assert_eq!(device_counted, detail["accepted"].as_u64().expect("a count"), "{detail}");
        counted += device_counted as usize;
    }
    assert_eq!((accepted, counted), (DEVICES * PER_DEVICE - lost, DEVICES * PER_DEVICE - lost));
    weir.assert_accounted();
    assert_eq!(weir.get("/healthz").status, 200);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "new");
    client.telemetry("new", &reading(window_before(60), 0));
    wait_for("a new reading is in a window", || {
        let windows = weir.list("windows", "&device=new");
        windows.first().is_some_and(|window| window["count"] == 1).then_some(())
    });
    // The next start does not replay again.
    weir.terminate();
    weir.restart();
    weir.wait_closed();
    assert_eq!(weir.list("windows", "&device=new").len(), 1);
    weir.assert_accounted();
}

#[test]
fn a_flipped_bit_costs_one_batch() {
    let mut settings = SETTINGS.to_vec();
    settings.push(NO_CHECKPOINTS);
    let mut weir = filled(&settings);
    let running = expect(&weir, &["journal", "repair", "--yes"], 73);
    assert!(running.contains(&weir.pid().as_raw_nonzero().to_string()), "{running}");
    weir.kill();
    let segments = files(&weir.data().join("journal"));
    assert!(segments.len() >= 4, "{segments:?}");
    let hit = &segments[1];
    flip(hit, 512 * 1024);
    let damaged = fs::read(hit).expect("a readable segment");
    let name = hit.file_name().expect("a name").to_string_lossy().into_owned();
    let verified = expect(&weir, &["journal", "verify"], 65);
    assert!(verified.contains("DAMAGE") && verified.contains(&name), "{verified}");
    let done = repaired(&weir, &name);
    assert!(done.contains("at least device d") && done.contains("(1)") && done.contains("between"), "{done}");

    let kept: Vec<PathBuf> = fs::read_dir(weir.data().join("damaged"))
        .expect("the directory of side files")
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    let stem = kept.file_stem().expect("a name").to_string_lossy().into_owned();
    let offset: usize = stem.rsplit('-').next().expect("an offset").parse().expect("a number");
    assert_eq!(stem, format!("journal-{}-{offset}", name.trim_end_matches(".log")));
    let bytes = fs::read(kept).expect("a readable side file");
    assert_eq!(bytes, damaged[offset..offset + bytes.len()]);
    assert!(
        bytes.len() > PADDING && bytes.len() < 2 * PADDING && (offset..offset + bytes.len()).contains(&(512 * 1024))
    );
    assert_eq!(lost(&weir), 1);
    check_readings(&mut weir, 1);
}

#[test]
fn a_truncated_segment_is_filled_up() {
    let mut settings = SETTINGS.to_vec();
    settings.push(NO_CHECKPOINTS);
    let mut weir = filled(&settings);
    weir.kill();
    let segments = files(&weir.data().join("journal"));
    let hit = fs::File::options().write(true).open(&segments[1]).expect("a writable segment");
    hit.set_len(300_000).expect("it can be cut");
    repaired(&weir, &segments[1].file_name().expect("a name").to_string_lossy());
    let lost = lost(&weir);
    assert!(lost > 10 && lost < 100, "{lost}");
    check_readings(&mut weir, lost);
}

#[test]
fn a_deleted_segment_is_rebuilt() {
    let mut settings = SETTINGS.to_vec();
    settings.push(NO_CHECKPOINTS);
    let mut weir = filled(&settings);
    weir.kill();
    let segments = files(&weir.data().join("journal"));
    fs::remove_file(&segments[2]).expect("it can be removed");
    repaired(&weir, &segments[2].file_name().expect("a name").to_string_lossy());
    assert_eq!(files(&weir.data().join("journal")), segments);
    let lost = lost(&weir);
    assert!(lost > 10 && lost < 100, "{lost}");
    check_readings(&mut weir, lost);
}

#[test]
fn damaged_windows_lose_no_reading() {
    let mut weir = filled(SETTINGS);
    let before = weir.list("windows", "");
    weir.terminate();
    let log = weir.data().join("windows");
    let [hit] = files(&log).try_into().expect("one segment");
    flip(&hit, fs::read(&hit).expect("a readable segment").len() / 2);
    let refused = expect(&weir, &["run"], 65);
    assert!(refused.contains("weir journal repair"), "{refused}");
    let log = log.to_str().expect("a path in UTF-8");
    let done = expect(&weir, &["journal", "repair", log, "--yes"], 0);
    assert!(done.contains("at least device") && done.contains("are lost"), "{done}");
    assert!(Path::new(log).join("damaged").is_dir());
    expect(&weir, &["journal", "verify"], 0);
    weir.restart();
    weir.wait_closed();
    let after = weir.list("windows", "");
    assert!(!after.is_empty() && after.len() < before.len());
    assert!(after.iter().all(|window| before.contains(window)));
    for index in 0..DEVICES {
        assert_eq!(weir.json(&format!("/api/v1/devices/{}", device(index)))["accepted"], PER_DEVICE);
    }
    weir.assert_accounted();
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "new");
    client.telemetry("new", &reading(window_before(60), 0));
    wait_for("a new window appears", || (weir.list("windows", "&device=new").len() == 1).then_some(()));
}
