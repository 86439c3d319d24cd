//! A disk that does not answer, as a frozen file system does not.

use std::time::Duration;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, PUBACK, TestClient, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::{Calls, Shim};
use weir_test_kit::wait::{wait_for, window_before};

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// Waits until the path answers with this status and these words.
fn wait_status(weir: &Weir, path: &str, status: u16, words: &[&str]) {
    wait_for(&format!("{path} answers {status} with {words:?}"), || {
        let answer = weir.get(path);
        let text = answer.text();
        (answer.status == status && words.iter().all(|word| text.contains(word))).then_some(())
    });
}

fn wait_line(weir: &Weir, words: &[&str]) {
    wait_for(&words.join(" "), || {
        weir.output().lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    });
}

/// Lets the syncs in `directory` hang until everybody has said so, and continue. A hanging log also makes weir unhealthy.
fn check(directory: &str, is_log: bool) {
    let mut weir = WEIR.prepare(&[("journal.sync_timeout", "'6s'"), ("state.checkpoint_interval", "'200ms'")]);
    let mut shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    // The watchdog is looked after every half second.
    weir.environment("WATCHDOG_USEC", "1000000");
    weir.restart();
    // A connection is accepted once the begin of this run is on disk, so it comes before the hang.
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    let in_directory = format!("data/{directory}");
    let sync = shim.rule(Calls::Sync, &in_directory);
    shim.delay(sync, FOR_EVER);
    let payload = format!(r#"{{"metric":"m","value":1,"timestamp":{}}}"#, window_before(60));
    let packet = publish_packet(MqttVersion::V4, "devices/d/telemetry", payload.as_bytes(), 1, false, 1);
    client.send(&packet).expect("it can be sent");

    wait_line(&weir, &["WARN", "the disk does not answer", &format!("directory=\"{directory}\""), &in_directory]);
    // The append waits a moment longer than the call, so for this moment the append is what is told.
    wait_status(&weir, "/readyz", 503, &["the disk does not answer: ", &in_directory]);
    assert!(weir.json("/api/v1/status")["disk"]["pending"][directory]["seconds"].as_f64() > Some(1.0));
    let name = format!(r#"weir_disk_oldest_call_seconds{{directory="{directory}"}}"#);
    assert!(weir.metric(&name) > 1.0);
    if is_log {
        wait_status(&weir, "/healthz", 503, &["journal.sync_timeout"]);
        wait_line(&weir, &["WARN", "no watchdog message is sent"]);
        assert!(weir.metric(r#"weir_log_oldest_append_seconds{log="journal"}"#) > 1.0);
        assert_eq!(client.take(), None, "nothing is acknowledged");
    } else {
        wait_for("the call is older than journal.sync_timeout", || (weir.metric(&name) > 7.0).then_some(()));
        weir.get("/healthz").ok();
    }

    shim.delay(sync, Duration::ZERO);
    assert_eq!(client.expect(PUBACK).id(), 1);
    wait_line(&weir, &["INFO", "the disk answers again"]);
    wait_status(&weir, "/readyz", 200, &[]);
    wait_status(&weir, "/healthz", 200, &[]);
}

#[test]
fn a_sync_of_the_journal_that_hangs_is_seen() {
    check("journal", true);
}

#[test]
fn a_sync_of_the_state_that_hangs_is_seen() {
    check("state", false);
}
