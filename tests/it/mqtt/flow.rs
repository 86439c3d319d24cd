//! Delivery state: when a packet identifier is free again, what is resent, and what continues meanwhile.

use crate::WEIR;
use weir_test_kit::mqtt::{
    ConnectPacket, DISCONNECT, MqttVersion, PINGRESP, PUBACK, PUBCOMP, PUBREC, PUBREL, SUBACK, TestClient, TestMessage,
    packet,
};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

const BOTH: [MqttVersion; 2] = [MqttVersion::V4, MqttVersion::V5];

fn connect(weir: &Weir, version: MqttVersion, id: &str) -> TestClient {
    ConnectPacket::new(version, id).accepted(weir.mqtt()).0
}

/// A PUBACK or PUBREC of 5.0 that refuses.
fn refuse(client: &mut TestClient, kind: u8, id: u16) {
    let [high, low] = id.to_be_bytes();
    client.send(&packet(kind << 4, &[high, low, 0x83])).expect("it can be sent");
}

/// 5.0 [MQTT-4.3.2-5], 5.0 [MQTT-4.3.3-12], 3.1.1 [MQTT-2.3.1-3]: once a flow has ended, a publish with its identifier is a new
/// message, whatever its DUP flag says.
#[test]
fn an_identifier_is_free_again_when_its_flow_has_ended() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let mut subscriber = connect(&weir, version, "subscriber");
        subscriber.subscribe("t", 2);
        let mut publisher = connect(&weir, version, "publisher");
        for (qos, text) in [(1, "1"), (1, "2"), (2, "3"), (2, "4"), (1, "5")] {
            publisher.send_publish(&TestMessage { id: 7, dup: true, ..TestMessage::new("t", text, qos) });
            if qos == 1 {
                assert_eq!(publisher.expect(PUBACK).id(), 7);
            } else {
                assert_eq!(publisher.expect(PUBREC).id(), 7);
                publisher.acknowledge(PUBREL, 7);
                assert_eq!(publisher.expect(PUBCOMP).id(), 7);
            }
            assert_eq!(subscriber.take_message().text(), text, "{version:?}");
        }
    }
}

/// 5.0 [MQTT-4.3.3-9]: a PUBREC that refuses ends the flow too: no PUBREL follows, and the identifier is free.
#[test]
fn a_refused_qos_2_publish_leaves_its_identifier_free() {
    let weir = WEIR.start(&[]);
    let mut client = connect(&weir, MqttVersion::V5, "c");
    client.subscribe("t", 2);
    client.send_publish(&TestMessage { id: 7, ..TestMessage::new("weir/x", "x", 2) });
    let refused = client.expect(PUBREC);
    assert_eq!((refused.id(), refused.reason()), (7, 0x87));
    client.send_publish(&TestMessage { id: 7, ..TestMessage::new("t", "new", 2) });
    let taken = client.expect(PUBREC);
    assert_eq!((taken.id(), taken.reason()), (7, 0));
    client.acknowledge(PUBREL, 7);
    assert_eq!(client.expect(PUBCOMP).reason(), 0);
    assert_eq!(client.take_message().text(), "new");
}

/// 5.0 [MQTT-4.4.0-2]: what a client refuses is acknowledged by that and does not come again.
#[test]
fn what_a_client_refuses_does_not_come_again() {
    let weir = WEIR.start(&[]);
    let kept = ConnectPacket::new(MqttVersion::V5, "kept").kept(100).property(0x21, &[0, 2]);
    let (mut client, _) = kept.accepted(weir.mqtt());
    client.subscribe("t", 2);
    let mut publisher = connect(&weir, MqttVersion::V5, "publisher");
    for (text, qos) in [("a", 1), ("b", 2), ("c", 1)] {
        publisher.publish_message(&TestMessage::new("t", text, qos));
    }
    let first = [client.next_message(), client.next_message()];
    for (message, kind) in first.iter().zip([PUBACK, PUBREC]) {
        refuse(&mut client, kind, message.id);
    }
    // Both places of its receive maximum are free again.
    let last = client.next_message();
    assert_eq!(last.text(), "c");
    drop(client);
    let (mut client, _) = kept.accepted(weir.mqtt());
    assert_eq!(client.take_message(), TestMessage { dup: true, ..last });
    client.expect_nothing();
}

/// 5.0 [MQTT-4.3.3-7]: a message that was sent does not expire, 5.0 [MQTT-4.3.3-13] nor does the flow of one that was received:
/// both are carried to their end.
#[test]
fn expiry_does_not_break_a_flow_that_has_begun() {
    let weir = WEIR.start(&[]);
    let kept = ConnectPacket::new(MqttVersion::V5, "kept").kept(100);
    let (mut client, _) = kept.accepted(weir.mqtt());
    client.subscribe("t", 2);
    let mut publisher = connect(&weir, MqttVersion::V5, "publisher");
    let expiring = |topic: &str, text: &str| TestMessage {
        properties: vec![2, 0, 0, 0, 1],
        ..TestMessage::retained(topic, text, 2)
    };
    publisher.publish_message(&expiring("t", "sent"));
    let sent = client.next_message();
    publisher.send_publish(&TestMessage { id: 99, ..expiring("u", "received") });
    assert_eq!(publisher.expect(PUBREC).id(), 99);
    drop(client);
    // The message is also retained until it expires.
    wait_for("its life is over", || {
        let mut reader = connect(&weir, MqttVersion::V5, "reader");
        reader.subscribe("t", 0);
        reader.publish_message(&TestMessage::new("t", "marker", 0));
        (reader.next_message().text() == "marker").then_some(())
    });
    publisher.acknowledge(PUBREL, 99);
    let done = publisher.expect(PUBCOMP);
    assert_eq!((done.id(), done.reason()), (99, 0));
    let (mut client, _) = kept.accepted(weir.mqtt());
    let again = client.take_message();
    assert_eq!((again.dup, again.id, again.text()), (true, sent.id, "sent"));
}

/// 5.0 [MQTT-3.10.4-3], 3.1.1 [MQTT-3.10.4-3]: what a subscription has begun to deliver is delivered, though it has ended.
#[test]
fn deliveries_outlive_their_subscription() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let connect = ConnectPacket::new(version, "kept").kept(100);
        let (mut client, _) = connect.accepted(weir.mqtt());
        client.subscribe("t", 2);
        for (text, qos) in [("a", 1), ("b", 2)] {
            client.publish_message(&TestMessage::new("t", text, qos));
        }
        let sent = [client.next_message(), client.next_message()];
        client.unsubscribe(&["t"]);
        drop(client);
        let (mut client, _) = connect.accepted(weir.mqtt());
        for message in sent {
            assert_eq!(client.take_message(), TestMessage { dup: true, ..message });
        }
        client.expect_nothing();
        ConnectPacket::new(version, "kept").accepted(weir.mqtt());
    }
}

/// 5.0 [MQTT-4.9.0-3], 5.0 [MQTT-3.3.4-10]: a client that owes as many acknowledgements as it may gets everything else.
#[test]
fn a_full_receive_maximum_holds_up_publishes_alone() {
    let weir = WEIR.start(&[]);
    let (mut client, _) = ConnectPacket::new(MqttVersion::V5, "c").property(0x21, &[0, 1]).accepted(weir.mqtt());
    client.subscribe("t", 2);
    let mut publisher = connect(&weir, MqttVersion::V5, "publisher");
    for text in ["a", "b"] {
        publisher.publish_message(&TestMessage::new("t", text, 2));
    }
    let first = client.next_message();
    client.send(&[0xc0, 0]).expect("it can be sent");
    client.expect(PINGRESP);
    client.send(&packet(0x82, &[0, 9, 0, 0, 1, b'u', 1])).expect("it can be sent");
    assert_eq!(client.expect(SUBACK).id(), 9);
    assert_eq!(client.publish("nobody", "x", 1), 0x10);
    assert_eq!(client.publish("nobody", "x", 2), 0);
    client.acknowledge(PUBREC, first.id);
    assert_eq!(client.expect(PUBREL).id(), first.id);
    client.expect_nothing();
    client.acknowledge(PUBCOMP, first.id);
    assert_eq!(client.take_message().text(), "b");
}

/// 5.0 [MQTT-4.8.2-4]: a QoS 2 message that was sent to a member of a group is brought to its end with that member when it comes
/// back, though others are there.
#[test]
fn a_member_that_comes_back_gets_the_rest_of_its_delivery() {
    let weir = WEIR.start(&[]);
    let kept = ConnectPacket::new(MqttVersion::V5, "first").kept(100);
    let (mut first, _) = kept.accepted(weir.mqtt());
    first.subscribe_with("$share/g/t", 2, &[]);
    let mut publisher = connect(&weir, MqttVersion::V5, "publisher");
    for text in ["sent", "released"] {
        publisher.publish_message(&TestMessage::new("t", text, 2));
    }
    let (sent, released) = (first.next_message(), first.next_message());
    first.acknowledge(PUBREC, released.id);
    assert_eq!(first.expect(PUBREL).id(), released.id);
    let mut second = connect(&weir, MqttVersion::V5, "second");
    second.subscribe_with("$share/g/t", 2, &[]);
    drop(first);
    let (mut first, _) = kept.accepted(weir.mqtt());
    let again = first.next_message();
    assert_eq!(again, TestMessage { dup: true, ..sent });
    assert_eq!(first.expect(PUBREL).id(), released.id);
    second.expect_nothing();
}

/// 5.0 [MQTT-4.1.0-1], 3.1.1 [MQTT-4.1.0-2]: a session lives as long as its connection, however short its expiry interval is.
#[test]
fn a_session_does_not_end_while_its_client_is_connected() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let (mut client, _) = ConnectPacket::new(version, "c").expiry(1).accepted(weir.mqtt());
        client.subscribe("t", 1);
        // One that began later and lost its connection has ended: more time than the interval has passed.
        let (other, _) = ConnectPacket::new(MqttVersion::V5, "other").expiry(1).accepted(weir.mqtt());
        drop(other);
        wait_for("the other session has ended", || (weir.metric("weir_mqtt_sessions") == 1.0).then_some(()));
        client.publish_message(&TestMessage::new("t", "x", 1));
        assert_eq!(client.take_message().text(), "x");
        client.disconnect();
        wait_for("no session is left", || (weir.metric("weir_mqtt_sessions") == 0.0).then_some(()));
    }
}

/// 5.0 [MQTT-3.14.2-2]: weir's DISCONNECT has no session expiry interval. 5.0 [MQTT-3.14.4-2], 5.0 [MQTT-4.13.2-1]: the connection
/// ends after it. 5.0 [MQTT-3.14.2-1], 5.0 [MQTT-3.14.2-4]: it has a reason code of the standard's, and words only if they fit.
#[test]
fn weirs_disconnect_is_the_last_packet() {
    let mut weir = WEIR.start(&[]);
    let small = |id: &str| ConnectPacket::new(MqttVersion::V5, id).property(0x27, &[0, 0, 0, 20]).kept(100);
    let mut clients = [small("a").accepted(weir.mqtt()).0, connect(&weir, MqttVersion::V5, "b")];
    weir.terminate();
    for client in &mut clients {
        let packets = client.until_closed();
        assert_eq!(packets.len(), 1, "{packets:?}");
        assert_eq!((packets[0].kind, packets[0].reason()), (DISCONNECT, 0x8b));
        assert!(packets[0].body.get(2).is_none_or(|property| *property != 0x11), "{packets:?}");
        assert!(packets[0].body.len() <= 18, "{packets:?}");
    }
}
