//! Maps, from the socket to windows: readings, the status of devices, ignored topics, restarts and replays.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::field::FieldCheck;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage};
use weir_test_kit::wait::{now_ms, wait_for};
use weir_test_kit::{http, repository};

const OLD_TIMES: (&str, &str) = ("validate.max_age", "'off'");

/// Readings of a Tasmota of the present.
fn tasmota(power: f64, offset_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(now_ms() + offset_ms).expect("a time").to_string();
    let time = &time[..19];
    json!({"Time": time, "ENERGY": {"TotalStartTime": time, "Power": power}, "Wifi": {"AP": "x"}}).to_string()
}

/// The entry of a map.
fn map(check: &FieldCheck, name: &str) -> Value {
    let all = check.weir.json("/api/v1/maps");
    let found = all["maps"].as_array().expect("a list").iter().find(|map| map["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("no map {name}: {all}"))
}

/// The messages of a session in the corpus: topic and payload.
fn corpus(family: &str) -> Vec<(String, Vec<u8>)> {
    let path = repository().join(format!("tests/fixtures/devices/corpus/{family}.jsonl"));
    let text = std::fs::read_to_string(path).expect("the corpus");
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let payload = match line["payload_base64"].as_str() {
            Some(encoded) => STANDARD.decode(encoded).expect("base64"),
            None => line["payload"].as_str().expect("a payload").as_bytes().to_vec(),
        };
        (line["topic"].as_str().expect("a topic").to_owned(), payload)
    };
    text.lines().map(line).collect()
}

fn online(check: &FieldCheck, device: &str) -> Option<bool> {
    check.weir.json(&format!("/api/v1/devices/{device}"))["online"].as_bool()
}

#[test]
fn a_tasmota_shows_up_without_configuration() {
    let mut check = FieldCheck::start(&[]);
    check.publish("tele/desk/SENSOR", tasmota(56.0, 0), false);
    check.publish("tele/desk/LWT", "Online", true);
    check.publish("tele/lamp/LWT", "Offline", true);
    check.settle();
    assert_eq!(check.windows("desk"), [("ENERGY.Power".to_owned(), 1, 56.0)]);
    assert_eq!((online(&check, "desk"), online(&check, "lamp")), (Some(true), Some(false)));
    assert_eq!(check.weir.metric("weir_devices_offline"), 1.0);
    let map = map(&check, "tasmota");
    assert_eq!((&map["messages"]["readings"], &map["messages"]["status"]), (&json!(1), &json!(2)), "{map}");
    assert_eq!(map["values_ignored"], json!({"excluded": 2, "text": 1}), "{map}");
    assert!(check.weir.list("errors", "").is_empty());
}

#[test]
fn one_value_a_topic_is_a_reading() {
    let mut check = FieldCheck::start(&[]);
    check.publish("evcc/loadpoints/1/chargePower", "11.5", false);
    check.publish("evcc/loadpoints/1/mode", "pv", false);
    check.settle();
    assert_eq!(check.windows("evcc.1"), [("chargePower".to_owned(), 1, 11.5)]);
    assert_eq!(map(&check, "evcc")["values_ignored"]["text"], 1);
}

#[test]
fn ignored_topics_reach_subscribers_and_no_journal() {
    let check = FieldCheck::start(&[]);
    let mut subscriber = TestClient::connect(check.weir.mqtt(), MqttVersion::V5, "s");
    subscriber.subscribe("stat/#", 0);
    let mut client = TestClient::connect(check.weir.mqtt(), MqttVersion::V5, "c");
    client.publish("stat/desk/RESULT", r#"{"POWER":"ON"}"#, 1);
    client.publish("cmnd/desk/POWER", "ON", 1);
    assert_eq!(subscriber.next_message().topic, "stat/desk/RESULT");
    wait_for("both are counted", || (map(&check, "tasmota")["on_ignored_topics"] == 2).then_some(()));
    assert_eq!(check.weir.metric(r#"weir_map_messages_total{map="tasmota",outcome="ignored"}"#), 2.0);
    assert_eq!(check.weir.metric("weir_messages_total"), 0.0);
    assert_eq!(check.weir.metric("weir_mqtt_publishes_unmatched_total"), 0.0);
    assert_eq!(check.weir.json("/api/v1/topics?unmatched=1&all=1")["count"], 0);
}

#[test]
fn a_will_tells_that_a_device_is_offline() {
    let check = FieldCheck::start(&[]);
    let will = TestMessage::retained("tele/desk/LWT", "Offline", 1);
    let (mut client, _) = TestConnect::new(MqttVersion::V4, "desk").will(&will).accepted(check.weir.mqtt());
    client.publish_message(&TestMessage::retained("tele/desk/LWT", "Online", 1));
    wait_for("it is online", || (online(&check, "desk") == Some(true)).then_some(()));
    drop(client);
    wait_for("it is offline", || (online(&check, "desk") == Some(false)).then_some(()));
}

#[test]
fn a_session_of_sparkplug_goes_on_after_a_crash() {
    let mut check = FieldCheck::start(&[OLD_TIMES]);
    let session = corpus("sparkplug_b");
    let (births, data) = session.split_at(2);
    for (topic, payload) in births {
        check.publish(topic, payload, false);
    }
    check.settle();
    check.weir.kill();
    check.weir.restart();
    let mut node = TestClient::connect(check.weir.mqtt(), MqttVersion::V4, "node");
    node.subscribe("spBv1.0/Plant1/NCMD/#", 0);
    for (topic, payload) in data {
        node.publish_message(&TestMessage { payload: payload.clone(), ..TestMessage::new(topic, "", 1) });
    }
    // Nothing defines the alias of the last message, and its node is asked for its births; Edge1 is not.
    let command = node.next_message();
    assert_eq!(command.topic, "spBv1.0/Plant1/NCMD/Edge9");
    assert!(command.payload.windows(20).any(|part| part == b"Node Control/Rebirth"));
    check.weir.wait_closed();
    let windows = check.windows("Plant1.Edge1.Pump7");
    let of = |metric: &str| windows.iter().filter(|(name, ..)| name == metric).map(|(_, count, _)| count).sum::<u64>();
    assert_eq!((of("Inputs/Temperature"), of("Inputs/Count"), of("Flow")), (4, 2, 1), "{windows:?}");
    assert_eq!(check.weir.metric_sum(r#"weir_readings_rejected_total{reason="unknown_alias"}"#), 1.0);
    assert_eq!(online(&check, "Plant1.Edge1"), Some(true));
    check.weir.assert_accounted();
}

#[test]
fn windows_are_the_same_after_a_crash() {
    let mut check = FieldCheck::start(&[]);
    for value in 0..20 {
        check.publish("tele/desk/SENSOR", tasmota(f64::from(value), -i64::from(value) * 100), false);
    }
    check.settle();
    let before = check.weir.list("windows", "");
    let maps = map(&check, "tasmota");
    check.weir.kill();
    check.weir.restart();
    check.weir.wait_closed();
    assert_eq!(check.weir.list("windows", ""), before);
    assert_eq!(map(&check, "tasmota")["messages"], maps["messages"]);
    check.weir.assert_accounted();
}

#[test]
fn an_error_is_replayed_with_the_map_of_now() {
    let map = |format: &str| format!("[{{ name = 'm', topics = ['site/{{device}}/up'], payload = '{format}' }}]");
    let idle = ("window.idle_timeout", "'500ms'");
    let mut check = FieldCheck::start(&[("ingest.map", &map("json"))]);
    check.publish("site/a/up", "21.5", false);
    check.publish("site/b/up", "21.5 and more", false);
    wait_for("the errors are stored", || (check.weir.list("errors", "").len() == 2).then_some(()));
    check.weir.terminate();
    check.weir.configure(&[idle, ("ingest.map", &map("scalar").replace(" }", ", metric = 't' }"))]);
    check.weir.restart();
    let errors = check.weir.list("errors", "");
    let malformed = errors.iter().find(|error| error["reason"] == "malformed").expect("one is malformed");
    assert!(malformed["message"].as_str().is_some_and(|text| text.starts_with("map m: ")), "{malformed}");
    for error in &errors {
        let path = format!("/api/v1/errors/{}/replay", error["seq"]);
        wait_for("weir takes the replay", || (http::post(check.weir.http(), &path, "").status != 503).then_some(()));
    }
    check.weir.wait_closed();
    check.counted_once("a", 21.5);
    assert_eq!(check.weir.metric("weir_readings_accepted_total"), 1.0);
    check.weir.assert_accounted();
}
