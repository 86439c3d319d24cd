//! Readings on topics that are no ingest topics: `/api/v1/topics` and `weir topics` show them with a suggestion, and the
//! suggestion helps.

use serde_json::Value;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

const READING: &str = r#"{"metric":"t","value":1}"#;

/// The list, once it has this many topics.
fn topics(weir: &Weir, query: &str, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} topics are listed"), || {
        let answer = weir.json(&format!("/api/v1/topics?unmatched=1{query}"));
        let listed = answer["topics"].as_array().expect("a list").clone();
        (listed.len() == count).then_some(listed)
    })
}

fn publish(client: &mut TestClient, topics: &[impl AsRef<str>]) {
    for topic in topics {
        client.publish(topic.as_ref(), READING, 1);
    }
}

/// The texts in quotation marks.
fn quoted(sentence: &str) -> Vec<&str> {
    sentence.split('"').skip(1).step_by(2).collect()
}

#[test]
fn the_suggestions_help() {
    let mut weir = WEIR.start(&[]);
    let wrong = [
        "/devices/a/telemetry",
        "Devices/a/telemetry",
        "site/devices/a/telemetry",
        "devices/a/telemetry/",
        "device/a/telemetry",
        "devices/a/telemetry/t",
    ];
    for version in [MqttVersion::V4, MqttVersion::V5] {
        let mut client = TestClient::connect(weir.mqtt(), version, "esp");
        publish(&mut client, &wrong);
    }
    let mut patterns = vec!["devices/+/telemetry".to_owned()];
    let mut right = Vec::new();
    for listed in topics(&weir, "", wrong.len()) {
        assert_eq!((&listed["count"], &listed["client_id"]), (&2.into(), &"esp".into()), "{listed}");
        assert_eq!((&listed["payload_bytes"], &listed["has_subscribers"]), (&READING.len().into(), &false.into()));
        let sentence = listed["suggestion"].as_str().expect("a suggestion");
        let (publish, add) = sentence.split_once(", or add ").expect("two ways");
        right.extend(quoted(publish).last().map(|topic| (*topic).to_owned()));
        patterns.extend(quoted(add).first().map(|pattern| (*pattern).to_owned()));
    }
    assert_eq!(weir.metric_sum("weir_mqtt_publishes_unmatched_total") as usize, 2 * wrong.len());
    assert_eq!(weir.metric("weir_mqtt_unmatched_topics") as usize, wrong.len());
    // To publish as suggested.
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "esp");
    publish(&mut client, &right);
    let accepted = |weir: &Weir| weir.json("/api/v1/devices/a")["accepted"].as_u64();
    wait_for("the readings count", || (accepted(&weir) == Some(wrong.len() as u64)).then_some(()));
    // To configure as suggested.
    weir.terminate();
    weir.configure(&[("ingest.telemetry_topics", &format!("{patterns:?}"))]);
    weir.restart();
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "esp");
    publish(&mut client, &wrong);
    wait_for("the readings count", || (accepted(&weir) == Some(2 * wrong.len() as u64)).then_some(()));
    assert!(topics(&weir, "", 0).is_empty());
}

#[test]
fn topics_that_somebody_uses_are_left_out() {
    let weir = WEIR.start(&[]);
    let mut panel = TestClient::connect(weir.mqtt(), MqttVersion::V5, "panel");
    panel.subscribe("devices/+/commands/#", 1);
    panel.subscribe("house/#", 1);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "gateway");
    client.publish("devices/a/commands/reboot", "now", 1);
    client.publish("house/kitchen", READING, 1);
    client.publish_message(&TestMessage::retained("settings/sensor/x", "{}", 1));
    client.publish("devices/a/telemetry", READING, 1);
    let names = |listed: &[Value]| {
        let mut names: Vec<String> =
            listed.iter().map(|topic| topic["topic"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&topics(&weir, "", 2)), ["house/kitchen", "settings/sensor/x"]);
    let all = topics(&weir, "&all=1", 3);
    assert_eq!(names(&all)[0], "devices/a/commands/reboot");
    assert_eq!(topics(&weir, "&all=1&limit=1", 1).len(), 1);
    let readings = all.iter().find(|topic| topic["topic"] == "house/kitchen").expect("the topic");
    let sentence = readings["suggestion"].as_str().expect("a suggestion");
    assert!(sentence.contains("house/+"), "{sentence}");
    assert_eq!(weir.metric_sum("weir_mqtt_publishes_unmatched_total") as usize, 1);
    assert_eq!(weir.get("/api/v1/topics").status, 400);
    let output =
        weir.command(&["topics", "--all", "--url", &format!("http://{}", weir.http())]).output().expect("it runs");
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && table.lines().count() == 4, "{table}");
    assert!(table.contains("house/kitchen") && table.contains("looks like readings"), "{table}");
}
