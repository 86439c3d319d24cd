//! mosquitto's clients, paho-mqtt, Prometheus and systemd-analyze against weir and the files that it ships. `tests/run`
//! installs them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::programs::{Prometheus, program, python, succeeded};
use weir_test_kit::wait::{wait_for, window_before};

#[test]
fn mosquitto_clients() {
    let weir = WEIR.start(&[]);
    let port = weir.mqtt().port().to_string();
    let start = window_before(60);
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let device = format!("{version}-{qos}");
            // From the status: the metric may be a second old and still count the previous subscriber.
            let count = || weir.json("/api/v1/status")["mqtt"]["subscriptions"].as_u64().expect("a number");
            // The subscriber of the previous round may still be connected.
            wait_for("no subscriber is left", || (count() == 0).then_some(()));
            let filter = format!("weir/windows/{device}/#");
            let subscriber = program("mosquitto_sub")
                .args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port,
                    "-V",
                    version,
                    "-q",
                    qos,
                    "-t",
                    &filter,
                    "-C",
                    "1",
                    "-W",
                    "60",
                    "-v",
                ])
                .stdout(Stdio::piped())
                .spawn()
                .expect("it can be started");
            wait_for("the subscription is there", || (count() > 0).then_some(()));
            for (seq, offset) in [0, 1_000, 7_000].into_iter().enumerate() {
                let payload = json!({"metric": "t", "value": 2.5, "timestamp": start + offset, "seq": seq}).to_string();
                let topic = format!("devices/{device}/telemetry");
                let arguments =
                    ["-h", "127.0.0.1", "-p", &port, "-V", version, "-q", qos, "-t", &topic, "-m", &payload];
                succeeded(program("mosquitto_pub").args(arguments));
            }
            let output = subscriber.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{device}: {}", output.status);
            let line = String::from_utf8(output.stdout).expect("text");
            let (topic, payload) = line.split_once(' ').expect("topic and payload");
            assert_eq!(topic, format!("weir/windows/{device}/t"));
            let window: Value = serde_json::from_str(payload).expect("JSON");
            assert_eq!((&window["count"], &window["sum"]), (&json!(2), &json!(5.0)), "{window}");
        }
    }
    weir.assert_accounted();
}

#[test]
fn paho_mqtt() {
    let weir = WEIR.start(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers/paho_peer.py");
    let start = window_before(60).to_string();
    for version in ["3.1.1", "5"] {
        for qos in ["0", "1", "2"] {
            let port = weir.mqtt().port().to_string();
            let device = format!("paho-{version}-{qos}");
            succeeded(Command::new(python()).arg(&script).args([&port, version, qos, &device, &start]));
        }
    }
    weir.assert_accounted();
}

#[test]
fn promtool_finds_the_metrics_clean() {
    let weir = WEIR.start(&[]);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    let start = window_before(60);
    for (seq, offset) in [0, 7_000].into_iter().enumerate() {
        let timestamp = start + offset;
        device.telemetry("d", &json!({"metric": "t", "value": 1, "timestamp": timestamp, "seq": seq}).to_string());
    }
    device.telemetry("d", "not a reading");
    wait_for("the window is there", || (!weir.list("windows", "").is_empty()).then_some(()));
    for path in ["/metrics", "/metrics/devices"] {
        let text = weir.get(path).ok().text();
        let mut child = program("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.trim().is_empty(), "{path}: {said}");
    }
}

#[test]
fn prometheus_scrapes() {
    let weir = WEIR.start(&[]);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    device.telemetry("d", r#"{"metric":"t","value":1}"#);
    let target = weir.http();
    let prometheus = Prometheus::start(&format!(
        "scrape_configs:\n  - job_name: weir\n    static_configs:\n      - targets: ['{target}']\n"
    ));
    for (query, expected) in [("up", "1"), ("weir_readings_received_total", "1"), ("weir_readings_unaccounted", "0")] {
        prometheus.wait_value(query, expected);
    }
}

#[test]
fn the_docker_scrape_config_is_valid() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/prometheus.yml");
    succeeded(program("promtool").args(["check", "config"]).arg(config));
}

/// The shipped unit, with the test's binary in the place of the installed one.
fn unit(directory: &Path) -> PathBuf {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/weir.service");
    let text = fs::read_to_string(shipped).expect("the unit");
    let installed = "/usr/bin/weir ";
    assert_eq!(text.matches(installed).count(), 1, "ExecStart runs the installed binary, and nothing runs before it");
    let path = directory.join("weir.service");
    fs::write(&path, text.replace(installed, &format!("{} ", WEIR.path))).expect("a copy of the unit");
    path
}

#[test]
fn the_unit_is_clean() {
    let directory = TempDir::new().expect("a temporary directory");
    let unit = unit(directory.path());
    let output = succeeded(program("systemd-analyze").arg("verify").arg("--man=no").arg(&unit));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // systemd before 254 ignores the two keys of the growing delay.
    let newer = |line: &str| ["'RestartSteps'", "'RestartMaxDelaySec'"].iter().any(|key| line.contains(key));
    let about_weir: Vec<&str> = said.lines().filter(|line| line.contains("weir") && !newer(line)).collect();
    assert!(about_weir.is_empty(), "{said}");
}

#[test]
fn the_unit_is_hardened() {
    let directory = TempDir::new().expect("a temporary directory");
    let unit = unit(directory.path());
    let mut command = program("systemd-analyze");
    command.args(["security", "--offline=true", "--threshold=15", "--no-pager"]).arg(unit);
    succeeded(&mut command);
}
