//! Readings with the RETAIN flag: what is retained and comes again is state, and no reading.

use std::time::Duration;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::shim::Shim;
use weir_test_kit::wait::wait_for;

const READING: &str = r#"{"metric":"t","value":21.5}"#;

fn retain(client: &mut TestClient, topic: &str, payload: &str) {
    client.publish_message(&TestMessage::retained(topic, payload, 1));
}

/// Waits until `messages` were processed; expects of the device that many readings and repetitions.
#[track_caller]
fn expect(weir: &Weir, messages: u64, device: &str, accepted: u64, repeats: u64) {
    wait_for("the messages are processed", || {
        (weir.metric_sum("weir_messages_total") as u64 >= messages).then_some(())
    });
    let found = weir.json(&format!("/api/v1/devices/{device}"));
    assert_eq!((&found["accepted"], &found["retained_repeats"]), (&accepted.into(), &repeats.into()), "{found}");
    weir.assert_accounted();
}

#[test]
fn state_that_comes_again_with_its_client_is_no_reading() {
    for version in [MqttVersion::V4, MqttVersion::V5] {
        let mut weir = WEIR.start(&[]);
        let topic = "devices/esp/telemetry";
        let (mut device, _) = TestConnect::new(version, "esp").kept(3_600).accepted(weir.mqtt());
        retain(&mut device, topic, READING);
        expect(&weir, 1, "esp", 1, 0);
        // The session is taken over, then it is clean.
        let (mut second, _) = TestConnect::new(version, "esp").kept(3_600).accepted(weir.mqtt());
        let (mut reader, _) = TestConnect::new(version, "reader").accepted(weir.mqtt());
        reader.subscribe(topic, 1);
        assert_eq!(reader.take_message().text(), READING);
        retain(&mut second, topic, READING);
        assert_eq!(reader.take_message().text(), READING, "it is delivered as any publish");
        let (mut third, _) = TestConnect::new(version, "esp").accepted(weir.mqtt());
        retain(&mut third, topic, READING);
        expect(&weir, 3, "esp", 1, 2);
        assert_eq!(weir.metric_sum("weir_retained_repeats_total") as u64, 2);
        // Another value is a reading, and so is the same one without RETAIN.
        let other = r#"{"metric":"t","value":22}"#;
        retain(&mut third, topic, other);
        third.publish(topic, other, 1);
        expect(&weir, 5, "esp", 3, 2);
        // Without a payload the topic is cleared: the value is new.
        retain(&mut third, topic, "");
        retain(&mut third, topic, other);
        expect(&weir, 7, "esp", 4, 2);
        weir.terminate();
        let dump = weir.command(&["journal", "dump", "."]).current_dir(weir.data()).output().expect("a dump");
        let dump = String::from_utf8(dump.stdout).expect("text");
        assert_eq!(dump.lines().filter(|line| line.contains("\"repeats_retained\":true")).count(), 2, "{dump}");
    }
}

#[test]
fn it_is_no_reading_after_a_restart_and_after_a_crash() {
    let mut weir = WEIR.start(&[]);
    let topic = "devices/esp/telemetry";
    retain(&mut TestClient::connect(weir.mqtt(), MqttVersion::V4, "esp"), topic, READING);
    expect(&weir, 1, "esp", 1, 0);
    for (round, crash) in [(1, false), (2, true), (3, false)] {
        if crash {
            wait_for("the retained message is on disk", || {
                (weir.metric("weir_mqtt_retained_unstored") == 0.0).then_some(())
            });
            weir.kill();
        } else {
            weir.terminate();
        }
        weir.restart();
        retain(&mut TestClient::connect(weir.mqtt(), MqttVersion::V4, "esp"), topic, READING);
        expect(&weir, 1 + round, "esp", 1, round);
    }
}

/// A device that measures the same value as before has been connected for longer.
#[test]
fn ten_seconds_after_the_connect_it_is_a_reading() {
    let mut weir = WEIR.prepare(&[]);
    let shim = Shim::new(WEIR, &weir.path(""));
    for (name, value) in shim.environment() {
        weir.environment(name, value);
    }
    weir.restart();
    let topic = "devices/esp/telemetry";
    retain(&mut TestClient::connect(weir.mqtt(), MqttVersion::V4, "esp"), topic, READING);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "esp");
    retain(&mut device, topic, READING);
    expect(&weir, 2, "esp", 1, 1);
    shim.set_monotonic_offset(Duration::from_millis(10_001));
    retain(&mut device, topic, READING);
    expect(&weir, 3, "esp", 2, 1);
    // A new connection begins anew.
    retain(&mut TestClient::connect(weir.mqtt(), MqttVersion::V4, "esp"), topic, READING);
    expect(&weir, 4, "esp", 2, 2);
    assert_eq!(weir.metric_sum("weir_retained_repeats_total") as u64, 2);
}
