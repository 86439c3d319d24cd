//! The error log stays in proportion to what devices send, from PUBLISH to its files and to every reader of it.

use std::fs;

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{now_ms, wait_for};

const TOPIC: &str = "devices/d/telemetry";

/// Size of the errors log.
fn log_bytes(weir: &Weir) -> u64 {
    let files = fs::read_dir(weir.data().join("errors")).expect("the errors log");
    files.map(|file| file.expect("a file").metadata().expect("its size").len()).sum()
}

fn array(element: &str, count: usize) -> String {
    format!("[{}]", vec![element; count].join(","))
}

/// Publishes a message, waits until `count` readings more are rejected and the log is written, and returns what the log grew by.
fn growth(weir: &Weir, client: &mut TestClient, payload: &str, count: usize) -> u64 {
    let rejected = || weir.metric_sum("weir_readings_rejected_total") as usize;
    let (bytes_before, rejected_before) = (log_bytes(weir), rejected());
    client.publish(TOPIC, payload, 1);
    wait_for("the readings are rejected", || (rejected() == rejected_before + count).then_some(()));
    wait_for("the log has grown", || (log_bytes(weir) > bytes_before).then_some(()));
    log_bytes(weir) - bytes_before
}

#[test]
fn the_files_grow_by_twice_what_comes_in_at_most() {
    let weir = WEIR.start(&[]);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "gateway");
    let bad =
        format!(r#"{{"timestamp":{},"metric":"temperature","value":"bad","note":"{}"}}"#, now_ms(), "x".repeat(20));
    for (payload, count) in [
        ("1".to_owned(), 1),
        (array("1", 1_024), 1_024),
        (array("{},1", 512), 1_024),
        (array(&bad, 1_000), 1_000),
        (array("[[]]", 700), 700),
        (
            format!(
                r#"[{}]"#,
                (0..300).map(|at| format!(r#"{{"metric":"m","value":"{at}"}}"#)).collect::<Vec<_>>().join(",")
            ),
            300,
        ),
    ] {
        let grown = growth(&weir, &mut client, &payload, count);
        let allowed = 2 * (TOPIC.len() + payload.len()) as u64 + 256;
        assert!(grown <= allowed, "{grown} of {allowed} bytes for {}", &payload[..payload.len().min(40)]);
    }
    weir.assert_accounted();
}

/// The errors of one message, as every reader of the log sees them.
#[test]
fn every_reader_sees_whole_errors() {
    let mut weir = WEIR.start(&[("window.size", "'1h'")]);
    let mut watcher = TestClient::connect(weir.mqtt(), MqttVersion::V4, "watcher");
    watcher.subscribe("weir/errors/#", 1);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "gateway");
    let payload = r#"{"metrics":{"a":"x","b":"yy","c":"z"}}"#;
    client.publish(TOPIC, payload, 1);
    let errors = wait_for("the errors", || Some(weir.list("errors", "")).filter(|errors| errors.len() == 3));
    for (seq, (error, metric)) in errors.iter().zip(["a", "b", "c"]).enumerate() {
        let expected = json!([seq, metric, payload, "gateway", TOPIC, seq, payload.len()]);
        let fields =
            ["seq", "metric", "payload", "client_id", "topic", "index", "payload_bytes"].map(|name| &error[name]);
        assert_eq!(json!(fields), expected);
        assert_eq!(&weir.json(&format!("/api/v1/errors/{seq}")), error);
        let published: Value = serde_json::from_str(watcher.take_message().text()).expect("JSON");
        assert_eq!(&published, error);
    }
    let newest_first = weir.list("errors", "&order=desc");
    assert_eq!(newest_first.iter().rev().collect::<Vec<_>>(), errors.iter().collect::<Vec<_>>());
    let page = weir.json("/api/v1/errors?limit=1");
    let cursor = page["next_cursor"].as_str().expect("more errors");
    let rest = weir.json(&format!("/api/v1/errors?cursor={cursor}"));
    assert_eq!(rest["errors"], json!(errors[1..]), "from the middle of a message");
    weir.kill();
    weir.restart();
    assert_eq!(weir.list("errors", ""), errors);
    weir.assert_accounted();
}

/// Readings that share an entry are replayed with it, each once.
#[test]
fn an_entry_of_several_readings_is_replayed() {
    let mut weir = WEIR.start(&[("validate.allowed_devices", "['other']")]);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "gateway");
    let names: Vec<String> = (0..200).map(|at| format!(r#""m{at}":1"#)).collect();
    client.publish(TOPIC, &format!(r#"{{"metrics":{{{}}}}}"#, names.join(",")), 1);
    let count =
        |weir: &Weir| weir.list("errors", "").iter().map(|one| one["readings"].as_u64().unwrap_or(1)).sum::<u64>();
    wait_for("the errors", || (count(&weir) == 200).then_some(()));
    let last = &weir.json("/api/v1/errors?order=desc&limit=1")["errors"][0];
    assert_eq!(last["reasons"], json!({"unknown_device": last["readings"]}), "{last}");
    weir.terminate();
    weir.configure(&[]);
    weir.restart();
    let url = format!("http://{}", weir.http());
    let replayed = weir.command(&["errors", "replay", "--url", &url]).output().expect("weir can be started");
    let text = String::from_utf8_lossy(&replayed.stdout);
    assert!(text.contains("200 counted, 0 rejected again"), "{text}{}", String::from_utf8_lossy(&replayed.stderr));
    assert_eq!(weir.json("/api/v1/devices/d")["accepted"], 200);
    weir.assert_accounted();
}
