//! Starts during which one call on the files of a store fails: whatever call it is, the store is left as it is, or is used
//! whole.

use std::fs;
use std::path::Path;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::{Calls, EIO, EMFILE, ENOSPC, Rule, Shim};
use weir_test_kit::wait::wait_for;

/// The exit code of a start whose disk failed.
const DISK_FAILED: i32 = 74;

const THINGS: usize = 3;

const SETTINGS: &[(&str, &str)] = &[("state.checkpoint_interval", "'200ms'")];

/// A weir under the shim whose stores hold something, stopped by `kill -9`.
fn with_stores() -> (Weir, Shim) {
    let mut weir = WEIR.prepare(SETTINGS);
    let shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    // Two runs: the store of the second has a snapshot and a log behind it.
    for run in 0..2 {
        weir.restart();
        let mut publisher = TestClient::connect(weir.mqtt(), MqttVersion::V5, "publisher");
        for number in 0..THINGS {
            let session = TestConnect::new(MqttVersion::V5, &format!("kept-{number}")).kept(100_000);
            let (mut client, _) = session.accepted(weir.mqtt());
            client.subscribe(&format!("commands/{number}"), 1);
            client.disconnect();
            if run == 1 {
                publisher.publish_message(&TestMessage::new(&format!("commands/{number}"), "waits", 1));
            }
            // More than one part of the store each.
            let payload = "x".repeat(60_000);
            publisher.publish_message(&TestMessage::retained(&format!("state/{number}"), &payload, 1));
            publisher.telemetry("d", &format!(r#"{{"metric":"m","value":1,"seq":{}}}"#, run * THINGS + number));
        }
        for name in ["weir_mqtt_sessions_unstored", "weir_mqtt_retained_unstored"] {
            wait_for(name, || (weir.metric(name) == 0.0).then_some(()));
        }
        wait_for("a checkpoint of everything", || {
            let newest =
                weir.json("/api/v1/checkpoints")["checkpoints"].as_array()?.first()?["replay_from"].as_f64()?;
            (newest >= weir.metric("weir_pipeline_position") && weir.metric("weir_pipeline_backlog_records") == 0.0)
                .then_some(())
        });
        weir.kill();
    }
    (weir, shim)
}

/// Checks a running weir; `context` says what failed at its start.
#[track_caller]
fn assert_whole(weir: &Weir, context: &str) {
    for (name, expected) in [
        ("weir_mqtt_sessions", THINGS),
        ("weir_mqtt_queued_messages", THINGS),
        ("weir_mqtt_retained_messages", THINGS),
        ("weir_readings_received_total", 2 * THINGS),
    ] {
        assert_eq!(weir.metric(name) as usize, expected, "{name} {context}");
    }
    for entry in fs::read_dir(weir.data()).expect("the data directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!name.contains(".damaged-"), "{name} was moved aside {context}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// Starts weir once for each call of this kind that a start makes on the store, and lets that call fail.
fn sweep(weir: &mut Weir, shim: &Shim, rule: Rule, (store, calls, errno): (&str, Calls, u64)) {
    let (data, saved) = (weir.data(), weir.path("saved"));
    let restore = || {
        fs::remove_dir_all(&data).expect("the old data");
        copy(&saved, &data);
    };
    restore();
    let before = shim.begun(rule);
    weir.restart();
    assert_whole(weir, "without a fault");
    let count = shim.begun(rule) - before;
    weir.kill();
    println!("{store}, {calls:?}, errno {errno}: {count} calls");
    for nth in 1..=count {
        restore();
        let (failed, context) = (shim.failed(rule), format!("after {calls:?} {nth} of {store} failed with {errno}"));
        shim.fail_nth(rule, errno, nth);
        let refused = weir.try_restart();
        if let Some(status) = refused {
            assert_eq!(status.code(), Some(DISK_FAILED), "{context}: {}", weir.output());
            assert!(shim.failed(rule) > failed, "refused without a fault: {}", weir.output());
            shim.heal(rule);
            weir.restart();
        }
        assert_whole(weir, &context);
        weir.kill();
        shim.heal(rule);
    }
}

fn sweep_store(store: &str, kinds: &[(Calls, u64)]) {
    let (mut weir, mut shim) = with_stores();
    copy(&weir.data(), &weir.path("saved"));
    for &(calls, errno) in kinds {
        let rule = shim.rule(calls, &format!("/data/{store}"));
        sweep(&mut weir, &shim, rule, (store, calls, errno));
    }
}

const KINDS: &[(Calls, u64)] = &[(Calls::Open, EMFILE), (Calls::Read, EIO), (Calls::Write, ENOSPC), (Calls::Sync, EIO)];

#[test]
fn a_failed_call_leaves_sessions_as_they_are() {
    sweep_store("sessions", KINDS);
}

#[test]
fn a_failed_call_leaves_retained_messages_as_they_are() {
    sweep_store("retained", KINDS);
}

#[test]
fn a_failed_call_leaves_the_state_as_it_is() {
    sweep_store("state", KINDS);
}
