//! PUBLISH and its acknowledgements, both ways.

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, PUBACK, PUBCOMP, PUBREC, PUBREL, TestConnect, TestMessage, packet};

const BOTH: [MqttVersion; 2] = [MqttVersion::V4, MqttVersion::V5];

/// 5.0 [MQTT-4.3.1-1], 5.0 [MQTT-4.3.2-2], 5.0 [MQTT-4.3.3-2], 3.1.1 [MQTT-4.3.1-1], 3.1.1 [MQTT-4.3.2-1],
/// 3.1.1 [MQTT-4.3.3-1]: messages of each QoS arrive. 5.0 [MQTT-3.8.4-8], 3.1.1 [MQTT-3.8.4-6]: at the lower of both QoS.
/// 5.0 [MQTT-3.3.1-3], 3.1.1 [MQTT-3.3.1-3]: the publisher's DUP flag is its own.
/// 5.0 [MQTT-2.2.1-5], 3.1.1 [MQTT-2.3.1-6]: acknowledgements carry the packet's identifier, 5.0 [MQTT-2.2.1-2],
/// 3.1.1 [MQTT-2.3.1-5] which QoS 0 does not have. 5.0 [MQTT-3.3.2-3], 3.1.1 [MQTT-3.3.2-3]: the topic matches the filter.
#[test]
fn each_qos_is_delivered_to_both_versions() {
    let weir = WEIR.start(&[]);
    for from in BOTH {
        for to in BOTH {
            let (mut publisher, _) = TestConnect::new(from, "publisher").accepted(weir.mqtt());
            let (mut subscriber, _) = TestConnect::new(to, "subscriber").accepted(weir.mqtt());
            for granted in 0..=2 {
                subscriber.subscribe("a/+", granted);
                for qos in 0..=2 {
                    let dup = qos > 0;
                    publisher.publish_message(&TestMessage { dup, ..TestMessage::new("a/b", "x", qos) });
                    let message = subscriber.take_message();
                    assert_eq!((message.qos, message.dup, message.retain), (qos.min(granted), false, false));
                    assert_eq!((message.topic.as_str(), message.text()), ("a/b", "x"));
                }
            }
        }
    }
}

/// 5.0 [MQTT-3.3.1-2], 3.1.1 [MQTT-3.3.1-2]: no DUP at QoS 0. 5.0 [MQTT-3.3.1-4], 3.1.1 [MQTT-3.3.1-4]: no QoS 3.
/// 5.0 [MQTT-2.2.1-3], 3.1.1 [MQTT-2.3.1-1]: no packet identifier 0.
/// 5.0 [MQTT-3.3.2-2], 5.0 [MQTT-4.7.0-1], 3.1.1 [MQTT-3.3.2-2], 3.1.1 [MQTT-4.7.1-1]: no wildcards. 5.0 [MQTT-4.7.3-1], 3.1.1 [MQTT-4.7.3-1]: no empty topic.
/// 5.0 [MQTT-3.3.2-1], 5.0 [MQTT-4.7.3-2], 3.1.1 [MQTT-3.3.2-1], 3.1.1 [MQTT-4.7.3-2]: topics are UTF-8 without U+0000.
/// 5.0 [MQTT-3.6.1-1], 3.1.1 [MQTT-3.6.1-1]: PUBREL has the flags 0010.
#[test]
fn packets_against_the_rules_end_the_connection() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let publish = |topic: &str, qos: u8, dup: bool, id: u16| {
            weir_test_kit::mqtt::publish_packet(version, topic, b"x", qos, dup, id)
        };
        let wrong: [(Vec<u8>, u8); 9] = [
            (publish("t", 0, true, 0), 0x81),
            (publish("t", 3, false, 1), 0x81),
            (publish("t", 1, false, 0), 0x82),
            (publish("a/+", 1, false, 1), 0x81),
            (publish("", 1, false, 1), 0x81),
            (publish("a\0", 1, false, 1), 0x81),
            (publish("a\u{7}", 1, false, 1), 0x81),
            (packet(0x30, b"\0\x02\xc3\x28\0"), 0x81),
            (packet(0x60, &[0, 1]), 0x81),
        ];
        for (bytes, reason) in wrong {
            let (mut client, _) = TestConnect::new(version, "c").accepted(weir.mqtt());
            client.send(&bytes).expect("it can be sent");
            client.expect_closed(reason);
        }
    }
}

/// 5.0 [MQTT-4.3.3-8], 5.0 [MQTT-4.3.3-10], 3.1.1 [MQTT-4.3.3-2]: a QoS 2 publish that is sent again before its PUBREL is
/// acknowledged and not passed on again. 5.0 [MQTT-4.3.3-11], 3.1.1 [MQTT-3.6.4-1]: PUBREL is answered with PUBCOMP,
/// 5.0 [MQTT-3.7.2-1] also where it releases nothing.
#[test]
fn a_repeated_qos_2_publish_is_passed_on_once() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let (mut subscriber, _) = TestConnect::new(version, "subscriber").accepted(weir.mqtt());
        subscriber.subscribe("t", 0);
        let (mut publisher, _) = TestConnect::new(version, "publisher").kept(60).accepted(weir.mqtt());
        let message = TestMessage { id: 9, ..TestMessage::new("t", "once", 2) };
        publisher.send_publish(&message);
        assert_eq!(publisher.expect(PUBREC).id(), 9);
        drop(publisher);
        let (mut publisher, present) = TestConnect::new(version, "publisher").kept(60).accepted(weir.mqtt());
        assert!(present);
        publisher.send_publish(&TestMessage { dup: true, ..message.clone() });
        assert_eq!(publisher.expect(PUBREC).id(), 9);
        for _ in 0..2 {
            publisher.acknowledge(PUBREL, 9);
            let answer = publisher.expect(PUBCOMP);
            assert_eq!((answer.id(), answer.reason()), (9, 0), "a client that recovers is told of no failure");
        }
        publisher.send_publish(&TestMessage { payload: b"new".to_vec(), ..message });
        assert_eq!(publisher.expect(PUBREC).id(), 9);
        publisher.acknowledge(PUBREL, 9);
        assert_eq!(publisher.expect(PUBCOMP).id(), 9);
        assert_eq!(subscriber.take_message().text(), "once");
        assert_eq!(subscriber.take_message().text(), "new");
        publisher.disconnect();
        subscriber.expect_nothing();
    }
}

/// 5.0 [MQTT-4.6.0-5], 5.0 [MQTT-4.6.0-6], 3.1.1 [MQTT-4.6.0-6]: messages arrive in the order of their publishes.
/// 5.0 [MQTT-4.6.0-2], 5.0 [MQTT-4.6.0-3], 3.1.1 [MQTT-4.6.0-2], 3.1.1 [MQTT-4.6.0-3]: acknowledgements likewise.
/// 5.0 [MQTT-2.2.1-4], 3.1.1 [MQTT-2.3.1-4]: no identifier is used twice at once.
#[test]
fn order_is_kept() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        for qos in [1, 2] {
            let (mut subscriber, _) = TestConnect::new(version, "subscriber").accepted(weir.mqtt());
            subscriber.subscribe("t", qos);
            let (mut publisher, _) = TestConnect::new(version, "publisher").accepted(weir.mqtt());
            for id in 1..=300 {
                publisher.send_publish(&TestMessage { id, ..TestMessage::new("t", &id.to_string(), qos) });
            }
            for id in 1..=300 {
                assert_eq!(publisher.expect(if qos == 1 { PUBACK } else { PUBREC }).id(), id);
            }
            let messages: Vec<TestMessage> = (0..300).map(|_| subscriber.next_message()).collect();
            let mut ids: Vec<u16> = messages.iter().map(|message| message.id).collect();
            assert!(messages.iter().zip(1..).all(|(message, number)| message.text() == format!("{number}")));
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 300);
        }
    }
}

/// 5.0 [MQTT-4.3.2-4], 3.1.1 [MQTT-4.3.2-2]: a publish on a topic that nobody listens to is acknowledged; 5.0 says so, with a
/// code of the standard's: 5.0 [MQTT-3.4.2-1], 5.0 [MQTT-3.5.2-1].
/// 5.0 [MQTT-3.3.4-1], 3.1.1 [MQTT-3.3.4-1]: each QoS has its answer. 3.1.1 [MQTT-3.3.5-2]: where a client may
/// not publish, 5.0 says so, and 3.1.1 closes the connection, or acknowledges and drops below `$`.
#[test]
fn publishes_without_subscribers_and_without_permission_are_answered() {
    let weir = WEIR.start(&[]);
    let (mut new, _) = TestConnect::new(MqttVersion::V5, "new").accepted(weir.mqtt());
    assert_eq!(new.publish("nobody", "x", 1), 0x10);
    assert_eq!(new.publish("devices/d/telemetry", "{}", 1), 0, "weir itself listens");
    new.subscribe("nobody", 0);
    assert_eq!(new.publish("nobody", "x", 1), 0);
    assert_eq!((new.publish("weir/x", "x", 1), new.publish("$SYS/x", "x", 2)), (0x87, 0x87));
    let (mut old, _) = TestConnect::new(MqttVersion::V4, "old").accepted(weir.mqtt());
    old.publish("nobody", "x", 2);
    old.publish("$SYS/broker/uptime", "x", 1);
    old.send_publish(&TestMessage { id: 1, ..TestMessage::new("weir/x", "x", 1) });
    old.expect_closed(0);
}

/// 5.0 [MQTT-4.13.1-1]: an acknowledgement that does not belong to the message's QoS is a protocol error; 3.1.1 likewise
/// ends the connection, 3.1.1 [MQTT-4.8.0-1]. An acknowledgement of nothing is none.
#[test]
fn acknowledgements_must_fit() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        for (qos, wrong) in [(1, PUBREC), (1, PUBCOMP), (2, PUBACK), (2, PUBCOMP)] {
            let (mut client, _) = TestConnect::new(version, "c").accepted(weir.mqtt());
            for kind in [PUBACK, PUBCOMP] {
                client.acknowledge(kind, 77);
            }
            client.subscribe("t", qos);
            client.publish_message(&TestMessage::new("t", "x", 0));
            let (mut other, _) = TestConnect::new(version, "other").accepted(weir.mqtt());
            other.publish_message(&TestMessage::new("t", "x", qos));
            assert_eq!(client.next_message().qos, 0);
            let id = client.next_message().id;
            client.acknowledge(wrong, id);
            client.expect_closed(0x82);
        }
    }
}
