//! A device id in a payload cannot speak for another device.

use serde_json::Value;

use crate::access::acl::{BOTH, client, connect, start};
use weir_test_kit::http;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

/// Devices publish on a topic that names none of them; "own" is a gateway.
const ACL: &str = "[roles.device]\npublish = ['readings', 'devices/%u/telemetry']\n\
                   [roles.own]\npublish = ['readings', 'devices/+/telemetry']\nany_device = true";
const TOPICS: &[(&str, &str)] =
    &[("ingest.telemetry_topics", "['readings', 'devices/+/telemetry']"), ("window.idle_timeout", "'500ms'")];

fn reading(device: Option<&str>, value: i32, timestamp: i64) -> String {
    let device = device.map(|device| format!(r#""device_id":"{device}","#)).unwrap_or_default();
    format!(r#"{{{device}"metric":"m","value":{value},"timestamp":{timestamp}}}"#)
}

#[track_caller]
fn publish(client: &mut TestClient, topic: &str, payload: &str) {
    let reason = client.publish_message(&TestMessage::new(topic, payload, 1));
    assert!(matches!(reason, 0 | 0x10), "{reason:#x}");
}

fn sums(weir: &Weir, device: &str) -> f64 {
    weir.list("windows", &format!("&device={device}")).iter().filter_map(|window| window["sum"].as_f64()).sum()
}

fn errors(weir: &Weir, count: usize) -> Vec<Value> {
    wait_for("the errors are there", || Some(weir.list("errors", "")).filter(|errors| errors.len() >= count))
}

#[test]
fn on_a_topic_without_a_device_a_user_is_the_device() {
    let mut weir = start(ACL, TOPICS);
    let start_ms = window_before(60);
    for version in BOTH {
        let mut pump = client(&weir, version, "pump");
        publish(&mut pump, "readings", &reading(None, 1, start_ms));
        publish(&mut pump, "readings", &reading(Some("pump"), 2, start_ms + 1));
        publish(&mut pump, "readings", &reading(Some("fan"), 4, start_ms + 2));
        let mut gateway = client(&weir, version, "own");
        publish(&mut gateway, "readings", &reading(Some("fan"), 8, start_ms + 3));
        publish(&mut gateway, "readings", &reading(None, 16, start_ms + 4));
    }
    let found = errors(&weir, 4);
    let of = |reason: &str| found.iter().filter(|error| error["reason"] == reason).count();
    assert_eq!((of("device_mismatch"), of("missing_field")), (2, 2), "{found:?}");
    let mismatch = found.iter().find(|error| error["reason"] == "device_mismatch").expect("one");
    assert_eq!(mismatch["device_id"], "pump", "the error is of the device that sent it");
    assert!(mismatch["message"].as_str().expect("text").contains("may send for device \"pump\" only"));
    weir.wait_closed();
    assert_eq!((sums(&weir, "pump"), sums(&weir, "fan")), (6.0, 16.0));
    // A replay of the journal gives the same result.
    weir.kill();
    std::fs::remove_dir_all(weir.data().join("state")).expect("the state can be removed");
    weir.restart();
    weir.wait_closed();
    weir.assert_accounted();
    assert_eq!((sums(&weir, "pump"), sums(&weir, "fan")), (6.0, 16.0));
    assert_eq!(weir.list("errors", "").len(), 4);
}

#[test]
fn a_replay_of_the_error_does_not_forget_who_sent_it() {
    let weir = start(ACL, TOPICS);
    let mut pump = client(&weir, MqttVersion::V5, "pump");
    publish(&mut pump, "readings", &reading(Some("fan"), 4, window_before(60)));
    let seq = errors(&weir, 1)[0]["seq"].as_u64().expect("a number");
    wait_for("weir takes the replay", || {
        let response = http::post(weir.http(), &format!("/api/v1/errors/{seq}/replay"), "");
        (response.status == 200).then_some(())
    });
    let found = errors(&weir, 2);
    assert!(found.iter().all(|error| error["reason"] == "device_mismatch"), "{found:?}");
    assert!(weir.list("windows", "&device=fan").is_empty());
}

#[test]
fn a_topic_with_a_device_is_judged_by_the_rules_and_its_payload_by_the_topic() {
    let weir = start("[roles.own]\npublish = ['devices/+/telemetry']", &[]);
    let start_ms = window_before(60);
    let mut pump = client(&weir, MqttVersion::V5, "pump");
    publish(&mut pump, "devices/pump/telemetry", &reading(Some("fan"), 4, start_ms));
    assert_eq!(pump.publish_message(&TestMessage::new("devices/fan/telemetry", "{}", 1)), 0x87);
    // A client that may publish on topics of other devices may send readings for them.
    let mut own = client(&weir, MqttVersion::V5, "own");
    publish(&mut own, "devices/fan/telemetry", &reading(Some("fan"), 1, start_ms));
    let found = errors(&weir, 1);
    assert_eq!((&found[0]["reason"], &found[0]["device_id"]), (&"device_mismatch".into(), &"pump".into()));
    wait_for("the reading counts", || (weir.metric("weir_readings_accepted_total") >= 1.0).then_some(()));
    assert_eq!(weir.list("errors", "").len(), 1);
}

#[test]
fn a_will_speaks_for_its_own_device_too() {
    let weir = start(ACL, TOPICS);
    let will = TestMessage::new("readings", &reading(Some("fan"), 1, window_before(60)), 1);
    drop(connect(MqttVersion::V5, "pump").will(&will).accepted(weir.mqtt()));
    assert_eq!(errors(&weir, 1)[0]["reason"], "device_mismatch");
}
