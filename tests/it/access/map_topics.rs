//! A device with a form of its own uses the topics that its map reads, and no others.

use crate::access::acl::{client, connect, start};
use weir_test_kit::mqtt::{MqttVersion, TestMessage};
use weir_test_kit::wait::wait_for;

/// The role of devices is the built-in one.
const ACL: &str = "[roles.own]\n";

#[test]
fn a_tasmota_logs_in_as_its_topic() {
    let weir = start(ACL, &[("window.idle_timeout", "'500ms'")]);
    let will = TestMessage::retained("tele/pump/LWT", "Offline", 1);
    // A Tasmota speaks 3.1.1, where a denied publish ends the connection.
    let (mut pump, _) = connect(MqttVersion::V4, "pump").will(&will).accepted(weir.mqtt());
    pump.publish_message(&TestMessage::retained("tele/pump/LWT", "Online", 1));
    pump.subscribe("cmnd/pump/#", 0);
    for (topic, payload) in [
        ("tele/pump/SENSOR", r#"{"ENERGY":{"Power":56}}"#),
        ("stat/pump/RESULT", r#"{"POWER":"ON"}"#),
        ("tele/pump/UPTIME", "0T00:01:00"),
        // It is of no device, so nobody gets it; the device is not cut off for it.
        ("tasmota/discovery/AABBCCDDEEFF/config", "{}"),
    ] {
        pump.publish(topic, payload, 1);
    }
    let power = || weir.list("windows", "&device=pump").first().and_then(|window| window["sum"].as_f64());
    assert_eq!(wait_for("the window closes", power), 56.0);
    assert_eq!(weir.metric("weir_mqtt_publishes_refused_total{reason=\"denied\"}"), 1.0);
    pump.publish("tele/fan/SENSOR", r#"{"ENERGY":{"Power":1}}"#, 0);
    pump.until_closed();
    wait_for("the will is published", || (weir.json("/api/v1/devices/pump")["online"] == false).then_some(()));
    assert!(weir.list("windows", "&device=fan").is_empty());
}

#[test]
fn a_role_of_a_file_has_these_topics_where_it_says_so() {
    let weir = start("[roles.own]\nmap_topics = true\n[roles.device]\npublish = []\n", &[]);
    let mut own = client(&weir, MqttVersion::V5, "own");
    for topic in ["tele/own/SENSOR", "$aws/things/own/shadow/update"] {
        assert_eq!(own.publish(topic, "{}", 1), 0, "{topic}");
    }
    assert_eq!(own.publish("tele/pump/SENSOR", "{}", 1), 0x87);
    assert_eq!(own.subscribe_with("cmnd/#", 0, &[]), 0x87);
    let mut pump = client(&weir, MqttVersion::V5, "pump");
    assert_eq!(pump.publish("tele/pump/SENSOR", "{}", 1), 0x87, "the file replaced the role");
}
