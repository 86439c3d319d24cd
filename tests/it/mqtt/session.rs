//! Sessions: what outlives a connection, and for how long.

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, PUBREL, TestConnect, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

const BOTH: [MqttVersion; 2] = [MqttVersion::V4, MqttVersion::V5];

/// 5.0 [MQTT-3.1.2-4], 3.1.1 [MQTT-3.1.2-6]: a clean start discards the session. 5.0 [MQTT-3.1.2-5], 3.1.1 [MQTT-3.1.2-4]:
/// without it the session goes on. 5.0 [MQTT-3.1.2-6]: there may be none. 5.0 [MQTT-3.2.2-2], 5.0 [MQTT-3.2.2-3],
/// 3.1.1 [MQTT-3.2.2-1], 3.1.1 [MQTT-3.2.2-2], 3.1.1 [MQTT-3.2.2-3]: the client is told.
/// 5.0 [MQTT-4.5.0-1], 3.1.1 [MQTT-4.5.0-1], 3.1.1 [MQTT-3.1.2-5]: QoS 1 and 2 messages wait for it, at QoS 0 none.
#[test]
fn a_kept_session_gets_what_it_missed() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let connect = TestConnect::new(version, "kept").kept(100);
        let (mut client, present) = connect.accepted(weir.mqtt());
        assert!(!present);
        client.subscribe("t", 2);
        client.disconnect();
        let (mut publisher, _) = TestConnect::new(version, "publisher").accepted(weir.mqtt());
        for qos in 0..=2 {
            publisher.publish_message(&TestMessage::new("t", &qos.to_string(), qos));
        }
        let (mut client, present) = connect.accepted(weir.mqtt());
        assert!(present);
        assert_eq!([client.take_message(), client.take_message()].map(|message| message.qos), [1, 2]);
        client.expect_nothing();
        let (mut client, present) = TestConnect::new(version, "kept").accepted(weir.mqtt());
        assert!(!present);
        publisher.publish_message(&TestMessage::new("t", "late", 1));
        client.expect_nothing();
        client.disconnect();
        let (_, present) = connect.accepted(weir.mqtt());
        assert!(!present, "a clean session ends with its connection");
        TestConnect::new(version, "kept").accepted(weir.mqtt());
    }
}

/// A session goes on after an orderly restart and after `kill -9`, once its changes are on disk: subscriptions, what waits,
/// what was sent and not acknowledged.
#[test]
fn a_kept_session_outlives_the_process() {
    let mut weir = WEIR.start(&[]);
    let stored = |weir: &Weir| {
        wait_for("sessions are on disk", || (weir.metric("weir_mqtt_sessions_unstored") == 0.0).then_some(()));
    };
    for (round, version) in [MqttVersion::V4, MqttVersion::V5, MqttVersion::V4, MqttVersion::V5].into_iter().enumerate()
    {
        let connect = TestConnect::new(version, "kept").kept(1_000);
        let (mut client, _) = connect.accepted(weir.mqtt());
        client.subscribe("commands/+", 2);
        let (mut publisher, _) = TestConnect::new(version, "publisher").accepted(weir.mqtt());
        publisher.publish_message(&TestMessage::new("commands/a", "sent", 1));
        let sent = client.next_message();
        drop(client);
        wait_for("it is away", || (weir.metric("weir_mqtt_connections") == 1.0).then_some(()));
        publisher.publish_message(&TestMessage::new("commands/b", "waits", 2));
        if round < 2 {
            weir.terminate();
        } else {
            stored(&weir);
            weir.kill();
        }
        weir.restart();
        let (mut publisher, _) = TestConnect::new(version, "publisher").accepted(weir.mqtt());
        publisher.publish_message(&TestMessage::new("commands/c", "after", 1));
        let (mut client, present) = connect.accepted(weir.mqtt());
        assert!(present, "round {round}");
        let again = client.take_message();
        assert_eq!(again.text(), sent.text());
        // After a crash it is not known which packet identifiers the client holds: others are used.
        assert_eq!((again.dup, again.id == sent.id), (round < 2, round < 2));
        assert_eq!([client.take_message(), client.take_message()].map(|m| m.text().to_owned()), ["waits", "after"]);
        client.disconnect();
        // Nothing of it is left for the next round.
        TestConnect::new(version, "kept").accepted(weir.mqtt());
    }
}

/// 5.0 [MQTT-4.4.0-1], 3.1.1 [MQTT-4.4.0-1]: what was not acknowledged is sent again, in order, with the same identifiers.
/// 5.0 [MQTT-3.3.1-1], 3.1.1 [MQTT-3.3.1-1]: with the DUP flag. 5.0 [MQTT-4.3.3-4], 5.0 [MQTT-4.6.0-1], 3.1.1 [MQTT-4.6.0-1]:
/// after PUBREC it is the PUBREL that is sent again, 5.0 [MQTT-4.3.3-5] until it is answered, 5.0 [MQTT-4.3.3-6] and no longer
/// the PUBLISH. 5.0 [MQTT-4.3.2-1], 5.0 [MQTT-4.3.3-1]: each has an identifier of its own, 5.0 [MQTT-4.3.2-3],
/// 5.0 [MQTT-4.3.3-3] and is kept until it is acknowledged.
#[test]
fn unacknowledged_messages_come_again() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let connect = TestConnect::new(version, "kept").kept(100);
        let (mut client, _) = connect.accepted(weir.mqtt());
        client.subscribe("t", 2);
        let (mut publisher, _) = TestConnect::new(version, "publisher").accepted(weir.mqtt());
        for (text, qos) in [("a", 1), ("b", 2), ("c", 2)] {
            publisher.publish_message(&TestMessage::new("t", text, qos));
        }
        let sent = [client.next_message(), client.next_message(), client.next_message()];
        assert!(sent[0].id != sent[1].id && sent[1].id != sent[2].id && sent[0].id != sent[2].id, "{sent:?}");
        client.acknowledge(weir_test_kit::mqtt::PUBREC, sent[1].id);
        assert_eq!(client.expect(PUBREL).id(), sent[1].id);
        drop(client);
        let (mut client, _) = connect.accepted(weir.mqtt());
        let again = client.next_message();
        assert_eq!(client.expect(PUBREL).id(), sent[1].id);
        let last = client.next_message();
        assert_eq!(again, TestMessage { dup: true, ..sent[0].clone() });
        assert_eq!(last, TestMessage { dup: true, ..sent[2].clone() });
        TestConnect::new(version, "kept").accepted(weir.mqtt());
    }
}

/// 5.0 [MQTT-3.1.2-23], 5.0 [MQTT-4.1.0-2]: a session is kept for its expiry interval and not longer, counted from the end of
/// the connection; DISCONNECT may change it.
#[test]
fn a_session_ends_after_its_expiry_interval() {
    let weir = WEIR.start(&[]);
    let sessions = |count: f64| {
        wait_for("the number of sessions", || {
            ((weir.metric("weir_mqtt_sessions") - count).abs() < f64::EPSILON).then_some(())
        });
    };
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "c").kept(1).accepted(weir.mqtt());
    client.subscribe("t", 1);
    drop(client);
    sessions(1.0);
    sessions(0.0);
    let (_, present) = TestConnect::new(MqttVersion::V5, "c").kept(1).accepted(weir.mqtt());
    assert!(!present);
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "c").kept(1).accepted(weir.mqtt());
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 1, 0]).expect("256 s instead");
    client.until_closed();
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "other").kept(1).accepted(weir.mqtt());
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).expect("0 s instead");
    client.until_closed();
    sessions(1.0);
    let (_, present) = TestConnect::new(MqttVersion::V5, "c").kept(0).accepted(weir.mqtt());
    assert!(present);
    sessions(0.0);
}

#[test]
fn no_session_is_kept_longer_than_configured() {
    let weir = WEIR.start(&[("mqtt.max_session_expiry", "'1s'")]);
    let (client, connack) = TestConnect::new(MqttVersion::V5, "new").kept(u32::MAX).open(weir.mqtt());
    assert!(connack.body.windows(5).any(|window| window == [0x11, 0, 0, 0, 1]), "{connack:?}");
    let (old, _) = TestConnect::new(MqttVersion::V4, "old").kept(0).accepted(weir.mqtt());
    drop((client, old));
    wait_for("both sessions end", || (weir.metric("weir_mqtt_sessions") < 0.5).then_some(()));
}

#[test]
fn what_waits_for_a_session_is_bounded() {
    let weir = WEIR.start(&[("mqtt.max_queued_messages", "3")]);
    let connect = TestConnect::new(MqttVersion::V4, "kept").kept(0);
    let (mut client, _) = connect.accepted(weir.mqtt());
    client.subscribe("t", 1);
    client.disconnect();
    let (mut publisher, _) = TestConnect::new(MqttVersion::V4, "publisher").accepted(weir.mqtt());
    for text in ["1", "2", "3", "4", "5"] {
        publisher.publish_message(&TestMessage::new("t", text, 1));
    }
    let (mut client, _) = connect.accepted(weir.mqtt());
    for text in ["1", "2", "3"] {
        assert_eq!(client.take_message().text(), text);
    }
    client.expect_nothing();
    assert!((weir.metric_sum("weir_mqtt_messages_dropped_total") - 2.0).abs() < f64::EPSILON);
}
