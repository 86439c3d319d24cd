//! An edge node of Eclipse Tahu: births, data, deaths, restarts of the node and of weir, and births that weir asks for.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::programs::{program, target};
use weir_test_kit::wait::wait_for;

/// Longest wait for a line of the edge node.
const LIMIT: Duration = Duration::from_secs(60);
const NODE: &str = "Plant.Edge";
const DEVICE: &str = "Plant.Edge.Pump";

/// The edge node, in a process of its own.
struct TahuNode {
    process: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl TahuNode {
    fn start(port: u16) -> Self {
        let modules = target().join("test-node");
        let package = modules.join("node_modules/sparkplug-client");
        assert!(package.is_dir(), "{} is missing; run tests/run, which installs it", package.display());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers/sparkplug_peer.cjs");
        let mut command = program("node");
        command.arg(script).arg(&modules).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it can be started");
        let input = process.stdin.take().expect("a pipe");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, input, lines }
    }

    fn send(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it reads");
    }

    /// Waits for a line that the node prints.
    #[track_caller]
    fn expect(&self, line: &str) {
        let mut seen = Vec::new();
        while let Ok(printed) = self.lines.recv_timeout(LIMIT) {
            if printed == line {
                return;
            }
            seen.push(printed);
        }
        panic!("the edge node did not print {line:?}, but {seen:?}");
    }

    /// `kill -9`.
    fn kill(self) {
        drop(self);
    }
}

impl Drop for TahuNode {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a device is online, where weir knows it.
fn online(weir: &Weir, device: &str) -> Option<bool> {
    let response = weir.get(&format!("/api/v1/devices/{device}"));
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    body["online"].as_bool()
}

#[track_caller]
fn wait_online(weir: &Weir, expected: bool) {
    for device in [NODE, DEVICE] {
        wait_for(&format!("{device} is online: {expected}"), || (online(weir, device) == Some(expected)).then_some(()));
    }
}

/// Waits until so many readings of the device are counted.
#[track_caller]
fn wait_accepted(weir: &Weir, count: u64) {
    wait_for(&format!("{count} readings are counted"), || {
        let response = weir.get(&format!("/api/v1/devices/{DEVICE}"));
        let body: Value = serde_json::from_slice(&response.body).ok()?;
        (body["accepted"] == count).then_some(())
    });
}

/// Values of the device: their number and their sum.
fn counted(weir: &Weir) -> (u64, f64) {
    weir.wait_closed();
    let windows = weir.list("windows", &format!("&device={DEVICE}"));
    let counts = windows.iter().map(|window| window["count"].as_u64().expect("a count"));
    (counts.sum(), windows.iter().map(|window| window["sum"].as_f64().expect("a sum")).sum())
}

#[test]
fn an_edge_node_of_tahu() {
    let mut weir = WEIR.start(&[]);
    // The node comes back to the same port.
    let port = weir.mqtt().port();
    weir.terminate();
    let listen = format!("'127.0.0.1:{port}'");
    weir.configure(&[("mqtt.listen", &listen), ("window.idle_timeout", "'500ms'")]);
    weir.restart();

    let mut node = TahuNode::start(port);
    node.expect("born");
    wait_online(&weir, true);
    node.send("data -21");
    node.send("packed -22");
    wait_accepted(&weir, 3);
    assert_eq!(counted(&weir), (3, -63.0));
    assert_eq!(weir.metric("weir_sparkplug_rebirth_requests_total"), 0.0);

    // The death of the device, and its will for the node and the device.
    node.send("death");
    wait_for("the device is offline", || (online(&weir, DEVICE) == Some(false)).then_some(()));
    assert_eq!(online(&weir, NODE), Some(true));
    node.kill();
    wait_online(&weir, false);
    node = TahuNode::start(port);
    node.expect("born");
    wait_online(&weir, true);
    wait_accepted(&weir, 4);

    wait_for("its will is on disk", || {
        let of = |name: &str| weir.metric(name);
        (of("weir_mqtt_wills") == 1.0 && of("weir_mqtt_sessions_unstored") == 0.0).then_some(())
    });
    // A crash of weir: it publishes the will of the node, which does not know that. Its next data ask for its births.
    weir.kill();
    weir.restart();
    node.expect("connected");
    wait_online(&weir, false);
    node.send("data -23");
    node.expect("born");
    wait_online(&weir, true);
    wait_accepted(&weir, 6);
    assert_eq!(counted(&weir), (6, -126.0));
    assert!(weir.list("errors", "").is_empty());

    // All state is lost, and with it what the aliases mean.
    weir.terminate();
    fs::remove_dir_all(weir.data()).expect("the data directory can be removed");
    weir.restart();
    node.expect("connected");
    node.send("data -24");
    node.expect("born");
    node.send("data -25");
    wait_accepted(&weir, 2);
    assert_eq!(counted(&weir), (2, -45.0));
    let errors = weir.list("errors", "");
    assert_eq!(errors.iter().map(|error| &error["reason"]).collect::<Vec<_>>(), ["unknown_alias"]);

    // A message that is lost.
    node.send("lose");
    node.send("data -26");
    wait_accepted(&weir, 3);
    assert_eq!(weir.metric("weir_sparkplug_sequence_gaps_total"), 1.0);
    let shown = &weir.json("/api/v1/maps")["edge_nodes"][0];
    let of = ["node", "online", "devices_online", "metrics", "sequence_gaps", "messages_missed"].map(|key| &shown[key]);
    assert_eq!(json!(of), json!(["Plant/Edge", true, 2, 4, 1, 1]), "{shown}");
    let device = weir.json(&format!("/api/v1/devices/{DEVICE}"));
    assert_eq!((&device["sequence_missing"], &device["sequence_wraps"]), (&json!(0), &json!(0)), "{device}");
    weir.assert_accounted();
    node.kill();
}

#[test]
fn weir_is_a_primary_host() {
    const STATE: &str = "spBv1.0/STATE/weir";
    let host = [("ingest.sparkplug_host_id", "'weir'")];
    let mut weir = WEIR.start(&host);
    let state = |weir: &Weir, client: &str| {
        let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, client);
        client.subscribe("spBv1.0/STATE/#", 1);
        let message = client.next_message();
        assert!(message.retain && message.topic == STATE, "{message:?}");
        let state: Value = serde_json::from_str(message.text()).expect("JSON");
        (state["online"].as_bool().expect("a flag"), state["timestamp"].as_i64().expect("a time"))
    };
    // For nodes of version 2.2.
    let word = |weir: &Weir, client: &str| {
        let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, client);
        client.subscribe("STATE/weir", 1);
        client.next_message().text().to_owned()
    };
    let (is_online, first_ms) = state(&weir, "a");
    assert!(is_online);
    assert_eq!(word(&weir, "a4"), "ONLINE");
    // Nobody else says so, neither with a publish nor with a will.
    let mut other = TestClient::connect(weir.mqtt(), MqttVersion::V5, "other");
    assert_eq!(other.publish(STATE, r#"{"online":false,"timestamp":1}"#, 1), 0x87);
    assert_eq!(other.publish("STATE/weir", "OFFLINE", 1), 0x87);
    assert_ne!(other.publish("spBv1.0/STATE/scada", r#"{"online":true,"timestamp":1}"#, 1), 0x87);

    weir.kill();
    weir.restart();
    let (is_online, second_ms) = state(&weir, "b");
    assert!(is_online && second_ms > first_ms, "{first_ms} {second_ms}");

    // After an orderly stop it is not there. Without the setting it does not come back.
    weir.terminate();
    weir.configure(&[]);
    weir.restart();
    let (is_online, third_ms) = state(&weir, "c");
    assert!(!is_online && third_ms > second_ms, "{second_ms} {third_ms}");
    assert_eq!(word(&weir, "c4"), "OFFLINE");
}
