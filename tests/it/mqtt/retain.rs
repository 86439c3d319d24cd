//! Retained messages.

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

const BOTH: [MqttVersion; 2] = [MqttVersion::V4, MqttVersion::V5];

/// Retained messages that a new subscriber gets, by topic.
#[track_caller]
fn retained(weir: &Weir, filter: &str) -> Vec<(String, String)> {
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "reader").accepted(weir.mqtt());
    client.subscribe(filter, 0);
    client.subscribe("end", 0);
    client.publish_message(&TestMessage::new("end", "", 0));
    let mut found = Vec::new();
    loop {
        let message = client.next_message();
        if message.topic == "end" {
            return found;
        }
        assert!(message.retain, "{message:?}");
        found.push((message.topic.clone(), message.text().to_owned()));
    }
}

/// 5.0 [MQTT-3.3.1-5], 3.1.1 [MQTT-3.3.1-5]: the newest retained message of a topic is stored and comes with a subscription.
/// 5.0 [MQTT-3.3.1-8], 3.1.1 [MQTT-3.3.1-12]: one without the flag neither replaces nor removes it.
/// 5.0 [MQTT-3.3.1-6], 5.0 [MQTT-3.3.1-7], 3.1.1 [MQTT-3.3.1-10], 3.1.1 [MQTT-3.3.1-11]: an empty one removes it and is not
/// stored. 3.1.1 [MQTT-3.3.1-6], 3.1.1 [MQTT-3.3.1-8]: the flag is set when it comes with a subscription.
/// 5.0 [MQTT-3.3.1-12], 3.1.1 [MQTT-3.3.1-9]: and not set when it comes later.
#[test]
fn the_newest_retained_message_comes_with_a_subscription() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let (mut publisher, _) = TestConnect::new(version, "publisher").accepted(weir.mqtt());
        let (mut live, _) = TestConnect::new(version, "live").accepted(weir.mqtt());
        live.subscribe("r/#", 2);
        for qos in 0..=2 {
            publisher.publish_message(&TestMessage::retained("r/a", "old", qos));
            publisher.publish_message(&TestMessage::retained("r/a", "new", qos));
            publisher.publish_message(&TestMessage::new("r/a", "passing", qos));
            for text in ["old", "new", "passing"] {
                let message = live.take_message();
                assert_eq!((message.text(), message.retain), (text, false));
            }
            assert_eq!(retained(&weir, "r/+"), [("r/a".into(), "new".into())]);
            publisher.publish_message(&TestMessage::retained("r/a", "", qos));
            assert_eq!(live.take_message().text(), "");
            assert_eq!(retained(&weir, "#"), []);
        }
    }
}

/// 3.1.1 [MQTT-3.8.4-3], 5.0 [MQTT-3.8.4-4]: subscribing again brings the retained messages again.
/// 5.0 [MQTT-3.3.1-9], 5.0 [MQTT-3.3.1-10], 5.0 [MQTT-3.3.1-11]: unless 5.0's retain handling says otherwise.
/// 5.0 [MQTT-3.3.1-13]: retain as published keeps the flag.
#[test]
fn retain_handling_is_the_subscribers_choice() {
    let weir = WEIR.start(&[]);
    let (mut publisher, _) = TestConnect::new(MqttVersion::V4, "publisher").accepted(weir.mqtt());
    publisher.publish_message(&TestMessage::retained("r", "x", 1));
    let (mut old, _) = TestConnect::new(MqttVersion::V4, "old").accepted(weir.mqtt());
    for _ in 0..2 {
        old.subscribe("r", 1);
        assert_eq!(old.take_message().text(), "x");
    }
    let expected = [(0x01, true, true), (0x11, true, false), (0x21, false, false)];
    for (options, first, again) in expected {
        let (mut new, _) = TestConnect::new(MqttVersion::V5, "new").accepted(weir.mqtt());
        for comes in [first, again] {
            assert_eq!(new.subscribe_with("r", options, &[]), 1);
            if comes {
                assert!(new.take_message().retain);
            }
            new.expect_nothing();
        }
    }
    let (mut new, _) = TestConnect::new(MqttVersion::V5, "new").accepted(weir.mqtt());
    new.subscribe_with("r", 0x28, &[]);
    publisher.publish_message(&TestMessage::retained("r", "y", 1));
    publisher.publish_message(&TestMessage::new("r", "z", 1));
    assert!(new.take_message().retain && !new.take_message().retain);
}

/// 5.0 section 4.1, 3.1.1 [MQTT-3.1.2-7]: retained messages belong to no session: they outlive the client, and weir.
#[test]
fn retained_messages_survive_restart_and_power_cut() {
    let mut weir = WEIR.start(&[]);
    let (mut publisher, _) = TestConnect::new(MqttVersion::V5, "publisher").accepted(weir.mqtt());
    let large = "x".repeat(150_000);
    let properties = vec![0x26, 0, 1, b'k', 0, 1, b'v'];
    publisher
        .publish_message(&TestMessage { properties: properties.clone(), ..TestMessage::retained("r/a", "kept", 2) });
    publisher.publish_message(&TestMessage::retained("r/b", &large, 1));
    publisher.publish_message(&TestMessage::retained("r/c", "removed", 1));
    publisher.publish_message(&TestMessage::retained("r/c", "", 1));
    let expected = [("r/a".to_owned(), "kept".to_owned()), ("r/b".into(), large)];
    weir.terminate();
    for _ in 0..2 {
        weir.restart();
        assert_eq!(retained(&weir, "#"), expected);
        weir.kill();
    }
    weir.restart();
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "reader").accepted(weir.mqtt());
    client.subscribe("r/a", 2);
    let message = client.take_message();
    assert_eq!((message.qos, message.properties), (2, properties));
}

#[test]
fn a_damaged_store_is_moved_aside() {
    let mut weir = WEIR.start(&[]);
    weir.terminate();
    let store = weir.data().join("retained");
    std::fs::remove_dir_all(&store).expect("it was there");
    std::fs::write(&store, b"rubbish").expect("it can be written");
    weir.restart();
    wait_for("the damage is told", || {
        weir.output().contains("the store of retained messages is damaged").then_some(())
    });
    assert!((weir.metric("weir_mqtt_retained_moved_aside_total") - 1.0).abs() < f64::EPSILON);
    let (mut publisher, _) = TestConnect::new(MqttVersion::V4, "publisher").accepted(weir.mqtt());
    publisher.publish_message(&TestMessage::retained("r", "x", 1));
    weir.terminate();
    weir.restart();
    assert_eq!(retained(&weir, "#"), [("r".to_owned(), "x".to_owned())]);
}

#[test]
fn retained_messages_are_bounded() {
    let weir = WEIR.start(&[("mqtt.max_retained_messages", "2")]);
    let (mut publisher, _) = TestConnect::new(MqttVersion::V4, "publisher").accepted(weir.mqtt());
    for topic in ["r/a", "r/b", "r/c"] {
        publisher.publish_message(&TestMessage::retained(topic, "1", 1));
    }
    publisher.publish_message(&TestMessage::retained("r/a", "2", 1));
    assert_eq!(retained(&weir, "#"), [("r/a".to_owned(), "2".to_owned()), ("r/b".into(), "1".into())]);
}

/// 5.0 [MQTT-4.7.2-1], 3.1.1 [MQTT-4.7.2-1]: wildcards in the first level do not match `$` topics.
#[test]
fn system_topics_come_like_retained_messages() {
    let weir = WEIR.start(&[]);
    assert_eq!(retained(&weir, "#"), []);
    assert_eq!(retained(&weir, "+/broker/uptime"), []);
    let system = retained(&weir, "$SYS/#");
    let value = |name: &str| system.iter().find(|(topic, _)| topic == name).map(|(_, value)| value.as_str());
    assert!(value("$SYS/broker/version").is_some_and(|version| version.starts_with("weir ")), "{system:?}");
    assert!(value("$SYS/broker/uptime").is_some_and(|uptime| uptime.ends_with(" seconds")), "{system:?}");
    for name in [
        "clients/connected",
        "clients/total",
        "messages/received",
        "messages/sent",
        "publish/messages/received",
        "publish/messages/sent",
        "publish/messages/dropped",
        "bytes/received",
        "bytes/sent",
        "subscriptions/count",
        "retained messages/count",
    ] {
        let value = value(&format!("$SYS/broker/{name}"));
        assert!(value.is_some_and(|value| value.parse::<u64>().is_ok()), "{name}: {value:?}");
    }
}
