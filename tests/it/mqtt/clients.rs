//! Client libraries and tools that real devices use, beyond readings: mosquitto's clients, paho-mqtt, MQTT.js, rumqttc.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rumqttc::{Event, Incoming, MqttOptions, QoS};

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::programs::{program, python, succeeded, target};
use weir_test_kit::wait::wait_for;

/// `mosquitto_sub` or `mosquitto_pub` towards weir.
fn mosquitto(name: &str, weir: &Weir, version: &str, arguments: &[&str]) -> Command {
    let mut command = program(name);
    let port = weir.mqtt().port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port, "-V", version]).args(arguments);
    command
}

#[test]
fn mosquitto_retained_messages_wills_and_sessions() {
    let weir = WEIR.start(&[]);
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let topic = format!("kept/{version}");
        succeeded(&mut mosquitto("mosquitto_pub", &weir, version, &["-t", &topic, "-m", "kept", "-r", "-q", "1"]));
        let shown =
            succeeded(&mut mosquitto("mosquitto_sub", &weir, version, &["-t", &topic, "-C", "1", "-F", "%r %p"]));
        assert_eq!(String::from_utf8_lossy(&shown.stdout), "1 kept\n");

        let expiry: &[&str] = if version == "mqttv5" { &["-x", "60"] } else { &[] };
        let queue = format!("queue/{version}");
        let kept = [&["-t", &queue, "-q", "1", "-c", "-i", version], expiry].concat();
        succeeded(&mut mosquitto("mosquitto_sub", &weir, version, &[&kept[..], &["-E"]].concat()));
        succeeded(&mut mosquitto("mosquitto_pub", &weir, version, &["-t", &queue, "-m", "waited", "-q", "1"]));
        let shown = succeeded(&mut mosquitto("mosquitto_sub", &weir, version, &[&kept[..], &["-C", "1"]].concat()));
        assert_eq!(String::from_utf8_lossy(&shown.stdout), "waited\n");

        let (mut watcher, _) = TestConnect::new(MqttVersion::V5, "watcher").accepted(weir.mqtt());
        watcher.subscribe("will", 1);
        let will = ["-t", "none", "--will-topic", "will", "--will-payload", "gone", "--will-qos", "1", "-i", "mortal"];
        let before = weir.metric("weir_mqtt_connections");
        let mut mortal = mosquitto("mosquitto_sub", &weir, version, &will).spawn().expect("it can be started");
        wait_for("it is connected", || (weir.metric("weir_mqtt_connections") > before).then_some(()));
        mortal.kill().expect("it can be killed");
        mortal.wait().expect("it ends");
        assert_eq!(watcher.take_message().text(), "gone");
    }
    let system = ["-t", "$SYS/broker/version", "-C", "1"];
    let shown = succeeded(&mut mosquitto("mosquitto_sub", &weir, "mqttv311", &system));
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with("weir version "));
}

#[test]
fn mosquitto_properties() {
    let weir = WEIR.start(&[]);
    let before = weir.metric("weir_mqtt_subscriptions");
    let format = ["-t", "props", "-C", "1", "-q", "1", "-F", "%p|%R|%D|%P|%C|%F"];
    let mut subscriber =
        mosquitto("mosquitto_sub", &weir, "mqttv5", &format).stdout(Stdio::piped()).spawn().expect("it can be started");
    wait_for("it has subscribed", || (weir.metric("weir_mqtt_subscriptions") > before).then_some(()));
    let properties = [
        "-t",
        "props",
        "-m",
        "x",
        "-q",
        "1",
        "-D",
        "PUBLISH",
        "response-topic",
        "answers",
        "-D",
        "PUBLISH",
        "correlation-data",
        "id",
        "-D",
        "PUBLISH",
        "user-property",
        "unit",
        "bar",
        "-D",
        "PUBLISH",
        "content-type",
        "text",
        "-D",
        "PUBLISH",
        "payload-format-indicator",
        "1",
    ];
    succeeded(&mut mosquitto("mosquitto_pub", &weir, "mqttv5", &properties));
    assert!(subscriber.wait().expect("it ends").success());
    let mut shown = String::new();
    subscriber.stdout.take().expect("a pipe").read_to_string(&mut shown).expect("text");
    assert_eq!(shown, "x|answers|id|unit:bar|text|1\n");
}

#[test]
fn mqtt_js() {
    let weir = WEIR.start(&[]);
    let modules = target().join("test-node");
    assert!(modules.join("node_modules/mqtt").is_dir(), "MQTT.js is missing; run tests/run, which installs it");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers/mqttjs_peer.cjs");
    for version in ["4", "5"] {
        succeeded(program("node").arg(&script).arg(&modules).arg(weir.mqtt().port().to_string()).arg(version));
    }
}

#[test]
fn paho_mqtt_properties_and_expiry() {
    let weir = WEIR.start(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers/paho_properties.py");
    succeeded(Command::new(python()).arg(&script).arg(weir.mqtt().port().to_string()));
}

#[test]
fn rumqttc_keeps_its_session() {
    let weir = WEIR.start(&[]);
    let options = || {
        let mut options = MqttOptions::new("rumqttc", "127.0.0.1", weir.mqtt().port());
        options.set_clean_session(false).set_keep_alive(Duration::from_secs(30));
        options
    };
    let mut publisher = TestConnect::new(MqttVersion::V5, "publisher").accepted(weir.mqtt()).0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (client, mut events) = rumqttc::AsyncClient::new(options(), 10);
        client.subscribe("queue/rumqttc", QoS::ExactlyOnce).await.expect("it is queued");
        while !matches!(events.poll().await.expect("connected"), Event::Incoming(Incoming::SubAck(_))) {}
    });
    wait_for("the connection has ended", || (weir.metric("weir_mqtt_connections") < 1.5).then_some(()));
    for qos in [1, 2] {
        publisher.publish_message(&TestMessage::new("queue/rumqttc", &qos.to_string(), qos));
    }
    runtime.block_on(async {
        let (_client, mut events) = rumqttc::AsyncClient::new(options(), 10);
        let mut payloads = Vec::new();
        while payloads.len() < 2 {
            match events.poll().await.expect("connected") {
                Event::Incoming(Incoming::ConnAck(connack)) => assert!(connack.session_present),
                Event::Incoming(Incoming::Publish(publish)) => payloads.push(publish.payload.to_vec()),
                _ => {}
            }
        }
        assert_eq!(payloads, [b"1", b"2"]);
    });
}
