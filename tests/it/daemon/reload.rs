//! SIGHUP: keys that take effect, keys that are refused by name, and a bad file that changes nothing.

use rustix::process::Signal;
use serde_json::Value;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

/// Sends SIGHUP, waits until the reload is over, and returns its outcome from the status.
fn reload(weir: &Weir) -> Value {
    let last = || weir.json("/api/v1/status")["reload"].clone();
    let before = last()["last"].clone();
    weir.signal(Signal::HUP);
    wait_for("the configuration was read again", || Some(last()).filter(|reload| reload["last"] != before))
}

/// The log lines that say how reloads ended.
fn outcomes(weir: &Weir) -> Vec<String> {
    let is_outcome = |line: &&str| line.contains("event=\"reload") || line.contains("event=reload");
    weir.output().lines().filter(is_outcome).map(str::to_owned).collect()
}

fn logs_connections(weir: &Weir, client_id: &str) -> bool {
    drop(TestClient::connect(weir.mqtt(), MqttVersion::V5, client_id));
    wait_for("the connection is over", || (weir.metric("weir_mqtt_connections") == 0.0).then_some(()));
    weir.output().lines().any(|line| line.contains("DEBUG") && line.contains(client_id))
}

#[test]
fn the_log_level_and_the_rate_limits_change_while_it_runs() {
    let weir = WEIR.start(&[]);
    assert!(!logs_connections(&weir, "quiet"));
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V5, "device");
    weir.configure(&[("log.level", "'debug'"), ("mqtt.max_messages_per_second", "2")]);
    let outcome = reload(&weir);
    assert_eq!((&outcome["errors"], &outcome["restart_required"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    for _ in 0..4 {
        device.telemetry("d", r#"{"metric":"m","value":1}"#);
    }
    assert!(weir.metric_sum("weir_mqtt_throttled_total") >= 1.0, "an open connection is not slowed");
    drop(device);
    assert!(logs_connections(&weir, "loud"));
    assert!(weir.output().contains("mqtt.max_messages_per_second, log.level"), "the audit event names what changed");
}

#[test]
fn what_needs_a_restart_is_refused_by_name_and_the_rest_is_taken() {
    let weir = WEIR.start(&[]);
    weir.configure(&[("log.level", "'debug'"), ("window.size", "'7s'"), ("mqtt.max_connections", "5")]);
    let outcome = reload(&weir);
    assert_eq!(outcome["restart_required"], serde_json::json!(["mqtt.max_connections", "window.size"]));
    assert_eq!(weir.metric("weir_config_restart_required_keys"), 2.0);
    assert!(logs_connections(&weir, "loud"));
    let lines = outcomes(&weir);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for told in ["restart weir for: mqtt.max_connections (", "config.toml:", "window.size (", "took effect: log.level"]
    {
        assert!(lines[0].contains(told), "{told}: {lines:?}");
    }
    weir.configure(&[]);
    assert_eq!(reload(&weir)["restart_required"], serde_json::json!([]));
    assert_eq!(weir.metric("weir_config_restart_required_keys"), 0.0);
}

/// Keys, values and files are all told at once, in the one line about the reload.
#[test]
fn a_refused_reload_logs_all_faults_in_one_line() {
    let weir = WEIR.start(&[]);
    weir.configure(&[
        ("mqtt.listem", "1"),
        ("log.level", "'inof'"),
        ("mqtt.auth.users", "'absent-users'"),
        ("http.auth.tokens", "'absent-tokens'"),
    ]);
    let outcome = reload(&weir);
    assert_eq!(outcome["errors"].as_array().map(Vec::len), Some(4), "{outcome}");
    let lines = outcomes(&weir);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for told in ["the reload changed nothing: ", "mqtt.listem", "log.level", "absent-users", "absent-tokens"] {
        assert!(lines[0].contains(told), "{told}: {lines:?}");
    }
    assert!(!weir.output().contains("ERROR"), "{}", weir.output());
}

#[test]
fn a_bad_file_changes_nothing() {
    let weir = WEIR.start(&[]);
    for (key, value, wrong) in [
        ("mqtt.max_messages_per_second", "'fast'", "mqtt.max_messages_per_second"),
        ("mqtt.listem", "1", "did you mean mqtt.listen"),
        ("log.format", "[", "config.toml:"),
    ] {
        weir.configure(&[("log.level", "'debug'"), (key, value)]);
        let outcome = reload(&weir);
        let errors = outcome["errors"].as_array().expect("a list");
        assert!(errors.iter().any(|error| error.as_str().is_some_and(|error| error.contains(wrong))), "{outcome}");
        assert_eq!(weir.metric("weir_config_last_reload_successful"), 0.0);
        assert!(!logs_connections(&weir, "quiet"));
    }
    weir.configure(&[("log.level", "'debug'")]);
    assert_eq!(reload(&weir)["errors"], serde_json::json!([]));
    assert_eq!(weir.metric("weir_config_last_reload_successful"), 1.0);
    assert!(logs_connections(&weir, "loud"));
}
