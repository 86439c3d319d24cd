//! Savepoints: taken by command and on schedule, restored in another directory, and used when the state store is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

const FAST: &[(&str, &str)] = &[("window.idle_timeout", "'500ms'"), ("state.checkpoint_interval", "'100ms'")];

/// Publishes readings `from..to` of a device, one second apart.
fn publish(weir: &Weir, device: &str, start: i64, from: i64, to: i64) {
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, device);
    for seq in from..to {
        let payload = format!(r#"{{"metric":"m","value":{seq},"timestamp":{},"seq":{seq}}}"#, start + seq * 1_000);
        client.telemetry(device, &payload);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn run(weir: &Weir, arguments: &[&str]) -> String {
    let output = weir.command(arguments).output().expect("weir can be started");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn refused(output: &Output, code: i32, message: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
}

fn create(weir: &Weir) -> PathBuf {
    PathBuf::from(run(weir, &["savepoint", "create"]).trim())
}

/// A device as the API shows it, without the times that differ between processes.
fn device(weir: &Weir, id: &str) -> Value {
    let whole = weir.json(&format!("/api/v1/devices/{id}"));
    json!([whole["accepted"], whole["rejected"], whole["sequence_ranges"], whole["watermark"]])
}

#[test]
fn a_savepoint_goes_on_in_another_directory() {
    let weir = WEIR.start(FAST);
    let start = window_before(300);
    publish(&weir, "a", start, 0, 12);
    weir.wait_closed();
    let file = create(&weir);
    let before = device(&weir, "a");
    let windows = weir.list("windows", "&revisions=all").len();

    let mut other = WEIR.prepare(FAST);
    let said = run(&other, &["savepoint", "restore", file.to_str().expect("UTF-8")]);
    assert!(said.contains("weir goes on after journal record"), "{said}");
    other.restart();
    assert_eq!(device(&other, "a"), before);
    // Counted readings are not counted again, and the sequence numbers of results continue.
    publish(&other, "a", start, 10, 20);
    other.wait_closed();
    assert_eq!(other.json("/api/v1/devices/a")["accepted"], 20);
    let list = other.list("windows", "&revisions=all");
    assert_eq!(list.first().map(|first| first["seq"].clone()), Some(json!(windows)), "{list:?}");
    other.assert_accounted();
    other.kill();
    other.restart();
    assert_eq!(other.json("/api/v1/devices/a")["accepted"], 20);
    other.assert_accounted();
}

#[test]
fn it_can_be_taken_where_no_weir_runs() {
    let mut weir = WEIR.start(FAST);
    publish(&weir, "a", window_before(300), 0, 12);
    weir.kill();
    let file = create(&weir);
    let mut other = WEIR.prepare(FAST);
    run(&other, &["savepoint", "restore", file.to_str().expect("UTF-8")]);
    other.restart();
    assert_eq!(other.json("/api/v1/devices/a")["accepted"], 12);
    weir.restart();
    assert_eq!(weir.json("/api/v1/devices/a")["accepted"], 12);
    weir.assert_accounted();
}

#[test]
fn they_are_listed() {
    let weir = WEIR.start(FAST);
    publish(&weir, "a", window_before(300), 0, 3);
    let file = create(&weir);
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let list = run(&weir, &["savepoint", "list"]);
    assert!(list.contains(&name) && list.contains("manual"), "{list}");
    let listed = weir.json("/api/v1/savepoints");
    assert_eq!(listed["savepoints"][0]["file"], name.as_str());
    fs::write(&file, b"WEIRSAVE and nothing more").expect("it can be written");
    refused_list(&weir, &name);
}

#[track_caller]
fn refused_list(weir: &Weir, name: &str) {
    let output = weir.command(&["savepoint", "list"]).output().expect("weir can be started");
    assert_eq!(output.status.code(), Some(65));
    let stdout = text(&output.stdout);
    assert!(stdout.contains(name) && stdout.contains("UNUSABLE"), "{stdout}");
}

#[test]
fn what_cannot_be_restored_is_refused() {
    let weir = WEIR.start(FAST);
    publish(&weir, "a", window_before(300), 0, 3);
    let file = create(&weir);
    let good = fs::read(&file).expect("a savepoint");
    let other = WEIR.prepare(FAST);
    let attempt = |bytes: &[u8], message: &str| {
        let path = other.path("attempt.weir");
        fs::write(&path, bytes).expect("it can be written");
        let arguments = ["savepoint", "restore", path.to_str().expect("UTF-8")];
        refused(&other.command(&arguments).output().expect("weir can be started"), 65, message);
        assert!(!other.data().join("state").exists(), "nothing was made of it");
    };
    attempt(&good[..good.len() - 1], "damaged");
    attempt(&good[..good.len() / 2], "damaged");
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    attempt(&changed, "damaged");
    let mut newer = good.clone();
    newer[8] = 99;
    attempt(&newer, "in savepoint format 99");
    attempt(b"{\"not\":\"one\"}", "not a savepoint");
    // A restore into the original directory would replace its data.
    let arguments = ["savepoint", "restore", file.to_str().expect("UTF-8")];
    refused(&weir.command(&arguments).output().expect("weir can be started"), 73, "another weir is running");
    let mut weir = weir;
    weir.kill();
    refused(&weir.command(&arguments).output().expect("weir can be started"), 73, "is not empty");
}

/// Journal segments of a data directory.
fn segments(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join("journal")).expect("a journal");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A weir whose journal no longer reaches back to its first record, with `count` readings of device `a`.
fn with_freed_journal(count: &mut i64, start: i64) -> Weir {
    let mut settings = FAST.to_vec();
    settings.extend([
        ("mqtt.max_packet_size", "'64KiB'"),
        ("journal.commit_max_bytes", "'512KiB'"),
        ("journal.segment_size", "'1MiB'"),
        ("state.savepoint_interval", "'1s'"),
        ("state.savepoints_kept", "2"),
    ]);
    let weir = WEIR.start(&settings);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "a");
    let ballast = "x".repeat(60_000);
    wait_for("the first segment is freed", || {
        let payload = format!(
            r#"{{"metric":"m","value":{count},"timestamp":{},"seq":{count},"ballast":"{ballast}"}}"#,
            start + *count * 10
        );
        client.telemetry("a", &payload);
        *count += 1;
        (!segments(&weir.data()).iter().any(|name| name.starts_with("00000000000000000000"))).then_some(())
    });
    weir
}

#[test]
fn they_are_taken_by_itself_and_the_journal_is_freed_behind_them() {
    let mut count = 0;
    let mut weir = with_freed_journal(&mut count, window_before(3_600));
    wait_for("the oldest savepoints go", || {
        publish(&weir, "b", window_before(300), count, count + 1);
        count += 1;
        let listed = weir.json("/api/v1/savepoints");
        let listed = listed["savepoints"].as_array().expect("a list");
        assert!(listed.len() <= 2, "{listed:?}");
        let ids: Vec<_> = listed.iter().filter_map(|entry| entry["id"].as_u64()).collect();
        (ids.len() == 2 && weir.metric("weir_savepoints_total") > 3.0).then_some(())
    });
    weir.terminate();
    assert_eq!(fs::read_dir(weir.data().join("savepoints")).expect("savepoints").count(), 2);
}

#[test]
fn a_lost_state_store_is_rebuilt_from_the_newest_savepoint() {
    for loss in ["damaged", "missing", "replaced by a file"] {
        let mut count = 0;
        let mut weir = with_freed_journal(&mut count, window_before(3_600));
        weir.kill();
        let state = weir.data().join("state");
        match loss {
            "damaged" => {
                let db = state.join("db");
                let mut bytes = fs::read(&db).expect("the store's file");
                // Spread over the file: damage in one unused part would go unnoticed.
                bytes.iter_mut().step_by(64).for_each(|byte| *byte ^= 0xff);
                fs::write(&db, bytes).expect("it can be written");
            }
            "missing" => fs::remove_dir_all(&state).expect("it can be removed"),
            _ => {
                fs::remove_dir_all(&state).expect("it can be removed");
                fs::write(&state, b"").expect("it can be written");
            }
        }
        weir.restart();
        let output = weir.output();
        assert!(output.contains("the state is rebuilt"), "{loss}: {output}");
        assert_eq!(weir.json("/api/v1/devices/a")["accepted"], count, "{loss}");
        publish(&weir, "a", window_before(3_600), count, count + 5);
        wait_for("the new readings are processed", || {
            (weir.json("/api/v1/devices/a")["accepted"] == count + 5).then_some(())
        });
        weir.assert_accounted();
        weir.terminate();
    }
}

#[test]
fn state_that_nothing_covers_is_refused() {
    let mut count = 0;
    let mut weir = with_freed_journal(&mut count, window_before(3_600));
    weir.kill();
    fs::remove_dir_all(weir.data().join("state")).expect("it can be removed");
    fs::remove_dir_all(weir.data().join("savepoints")).expect("it can be removed");
    let output = weir.command(&["run"]).output().expect("weir can be started");
    refused(&output, 65, "there is no savepoint");
}
