//! What only MQTT 5.0 has: properties, expiry, flow control, aliases, reasons.

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, PUBACK, PUBREC, TestClient, TestConnect, TestMessage, packet};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

fn connect(weir: &Weir, id: &str) -> TestClient {
    TestConnect::new(MqttVersion::V5, id).accepted(weir.mqtt()).0
}

fn pair(name: u8, value: u8) -> Vec<u8> {
    vec![0x26, 0, 1, name, 0, 1, value]
}

/// 5.0 [MQTT-3.3.2-17], 5.0 [MQTT-3.3.2-18]: user properties are forwarded in order. 5.0 [MQTT-3.3.2-4]: so is the payload format
/// indicator, 5.0 [MQTT-3.3.2-15] response topic, 5.0 [MQTT-3.3.2-16] correlation data, 5.0 [MQTT-3.3.2-20] content type.
#[test]
fn properties_are_forwarded_unaltered() {
    let weir = WEIR.start(&[]);
    let mut client = connect(&weir, "c");
    client.subscribe("t", 2);
    let (mut old, _) = TestConnect::new(MqttVersion::V4, "old").accepted(weir.mqtt());
    old.subscribe("t", 0);
    let known = [1, 1, 8, 0, 1, b'r', 9, 0, 2, 0, 0xff, 3, 0, 1, b'c'];
    let properties = [pair(b'b', b'1'), known.to_vec(), pair(b'a', b'2'), pair(b'b', b'1')].concat();
    client.publish_message(&TestMessage { properties: properties.clone(), ..TestMessage::new("t", "x", 1) });
    assert_eq!(client.take_message().properties, properties);
    assert_eq!(old.take_message().text(), "x", "3.1.1 has none");
}

/// Section 3.3.2.3.2 lets a receiver check what is said to be UTF-8, section 3.1.3.2.3 also for a will.
#[test]
fn a_payload_that_is_not_the_text_it_is_said_to_be_is_refused() {
    let weir = WEIR.start(&[]);
    let mut client = connect(&weir, "c");
    client.subscribe("devices/#", 2);
    let message = |qos, payload: &[u8]| TestMessage {
        properties: vec![1, 1],
        payload: payload.to_vec(),
        ..TestMessage::new("devices/a/telemetry", "", qos)
    };
    for (qos, reason) in [(0, 0), (1, 0x99), (2, 0x99)] {
        assert_eq!(client.publish_message(&message(qos, b"\xff")), reason);
    }
    assert_eq!(client.publish_message(&message(1, b"\"\xc3\xa9\"")), 0);
    assert_eq!(client.take_message().text(), "\"\u{e9}\"");
    client.expect_nothing();
    assert_eq!(weir.metric("weir_mqtt_publishes_refused_total{reason=\"payload_format\"}"), 3.0);
    let will = |payload: &[u8]| TestConnect::new(MqttVersion::V5, "w").will(&message(0, payload)).code(weir.mqtt());
    assert_eq!((will(b"\xff"), will(b"x")), (0x99, 0));
}

/// 5.0 [MQTT-3.3.2-14]: a response topic has no wildcards. 5.0 [MQTT-3.3.4-6]: clients send no subscription identifiers.
/// 5.0 [MQTT-2.2.2-1]: properties are there. 5.0 [MQTT-3.3.2-13], 5.0 [MQTT-3.3.2-19]: their texts are UTF-8.
/// 5.0 [MQTT-1.5.5-1]: identifiers are encoded as short as they can be. 5.0 [MQTT-4.12.0-1]: there is no enhanced
/// authentication, so that 5.0 [MQTT-3.15.1-1] an AUTH is wrong with flags or without.
#[test]
fn properties_against_the_rules_end_the_connection() {
    let weir = WEIR.start(&[]);
    let wrong: [(&[u8], u8); 12] = [
        (&[1, 1, 1, 1], 0x82),
        (&[1, 2], 0x82),
        (&[0x0b, 1], 0x82),
        (&[0x21, 0, 1], 0x82),
        (&[8, 0, 1, b'#'], 0x82),
        (&[8, 0, 1, 0xff], 0x81),
        (&[3, 0, 1, 0], 0x81),
        (&[0x7f], 0x81),
        (&[2, 0, 0], 0x81),
        (&[0x26, 0, 1, b'k'], 0x81),
        (&[0x23, 0, 0], 0x94),
        (&[0x23, 0, 200], 0x94),
    ];
    for (properties, reason) in wrong {
        let mut client = connect(&weir, "c");
        client.send_publish(&TestMessage { properties: properties.to_vec(), ..TestMessage::new("t", "x", 0) });
        client.expect_closed(reason);
    }
    for (bytes, reason) in [
        (packet(0x82, &[0, 1, 2, 0x0b, 0, 0, 1, b't', 0]), 0x81),
        (packet(0x82, &[0, 1, 3, 0x0b, 0x81, 0, 0, 1, b't', 0]), 0x81),
        (packet(0x82, &[0, 1, 4, 0x0b, 1, 0x0b, 2, 0, 1, b't', 0]), 0x82),
        (packet(0x40, &[0, 1, 0, 2, 1, 0]), 0x82),
        (packet(0xe0, &[0, 2, 1, 0]), 0x82),
        (packet(0xf0, &[]), 0x82),
        (packet(0xf1, &[]), 0x81),
    ] {
        let mut client = connect(&weir, "c");
        client.send(&bytes).expect("it can be sent");
        client.expect_closed(reason);
    }
    let twice = TestConnect::new(MqttVersion::V5, "c").property(0x21, &[0, 5]).property(0x21, &[0, 5]);
    let none = TestConnect::new(MqttVersion::V5, "c").property(0x21, &[0, 0]);
    for connect in [twice, none] {
        assert_eq!(connect.open(weir.mqtt()).1.body[1], 0x82);
    }
    let enhanced = TestConnect::new(MqttVersion::V5, "c").property(0x15, &[0, 1, b'm']);
    assert_eq!(enhanced.code(weir.mqtt()), 0x8c);
}

/// 5.0 [MQTT-3.3.2-6]: what is left of a message's life is sent with it. 5.0 [MQTT-3.3.2-5]: one whose life is over is not
/// delivered, whether it waits for a session or is retained.
#[test]
fn messages_expire() {
    let weir = WEIR.start(&[]);
    let kept = TestConnect::new(MqttVersion::V5, "kept").kept(100);
    let (mut subscriber, _) = kept.accepted(weir.mqtt());
    subscriber.subscribe("t/#", 1);
    subscriber.disconnect();
    let mut publisher = connect(&weir, "publisher");
    let expiring = |text: &str, seconds: u8, retain: bool| TestMessage {
        properties: [vec![2, 0, 0, 0, seconds], pair(b'k', b'v')].concat(),
        retain,
        ..TestMessage::new(&format!("t/{text}"), text, 1)
    };
    publisher.publish_message(&expiring("short", 1, true));
    publisher.publish_message(&expiring("long", 200, true));
    let mut reader = connect(&weir, "reader");
    wait_for("the short one is no longer retained", || {
        reader.subscribe("t/short", 0);
        reader.ping();
        let retained = reader.subscribe_with("t/none", 0, &[]);
        assert_eq!(retained, 0);
        let mut again = connect(&weir, "again");
        again.subscribe("t/short", 0);
        again.publish_message(&TestMessage::new("t/short", "marker", 0));
        (again.next_message().text() == "marker").then_some(())
    });
    let (mut subscriber, _) = kept.accepted(weir.mqtt());
    let message = subscriber.take_message();
    assert_eq!(message.text(), "long");
    assert_eq!((message.properties[0], &message.properties[5..]), (2, &pair(b'k', b'v')[..]));
    assert!((190..=200).contains(&message.properties[4]), "{message:?}");
    subscriber.expect_nothing();
    assert!(weir.get("/metrics").ok().text().contains("weir_mqtt_messages_dropped_total{reason=\"expired\"} 1"));
}

/// 5.0 [MQTT-3.3.4-9]: weir keeps the client's receive maximum. 5.0 [MQTT-4.9.0-1], 5.0 [MQTT-4.9.0-2]: QoS 0 does not count, and
/// an acknowledgement makes room. 5.0 [MQTT-3.3.4-7]: a client that breaks weir's own is told.
#[test]
fn the_receive_maximum_holds_both_ways() {
    let weir = WEIR.start(&[("mqtt.max_inflight", "20")]);
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "c").property(0x21, &[0, 2]).accepted(weir.mqtt());
    client.subscribe("t", 1);
    let mut publisher = connect(&weir, "publisher");
    for text in ["1", "2", "3", "4"] {
        publisher.publish_message(&TestMessage::new("t", text, 1));
    }
    let first = client.next_message();
    assert_eq!((first.text(), client.next_message().text()), ("1", "2"));
    client.expect_nothing();
    client.acknowledge(PUBACK, first.id);
    assert_eq!(client.next_message().text(), "3");
    client.expect_nothing();
    for id in 1..=20 {
        publisher.send_publish(&TestMessage { id, ..TestMessage::new("u", "x", 2) });
        assert_eq!(publisher.expect(PUBREC).id(), id);
    }
    publisher.send_publish(&TestMessage { id: 21, ..TestMessage::new("u", "x", 2) });
    publisher.expect_closed(0x93);
}

/// 5.0 [MQTT-3.1.2-25]: a message that is too large for a client is not sent to it; its subscription goes on.
/// 5.0 [MQTT-3.2.2-15]: a packet larger than weir takes ends the connection.
#[test]
fn the_maximum_packet_size_holds_both_ways() {
    let weir = WEIR.start(&[("mqtt.max_packet_size", "'2KiB'")]);
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "c").property(0x27, &[0, 0, 0, 64]).accepted(weir.mqtt());
    client.subscribe("t", 1);
    let mut publisher = connect(&weir, "publisher");
    publisher.publish_message(&TestMessage::new("t", &"x".repeat(64), 1));
    publisher.publish_message(&TestMessage::new("t", "small", 1));
    assert_eq!(client.take_message().text(), "small");
    assert!(weir.get("/metrics").ok().text().contains("weir_mqtt_messages_dropped_total{reason=\"too_large\"} 1"));
    publisher.send_publish(&TestMessage::new("t", &"x".repeat(2_048), 0));
    publisher.expect_closed(0x95);
}

/// 5.0 [MQTT-3.3.2-8], 5.0 [MQTT-3.3.2-9], 5.0 [MQTT-3.3.2-12]: topic aliases of clients stand for topics, 5.0 [MQTT-3.3.2-7] on
/// their connection only. 5.0 [MQTT-3.1.2-26], 5.0 [MQTT-3.3.2-11]: weir uses as many as the client allows, 5.0 [MQTT-3.1.2-27]
/// none where it allows none.
#[test]
fn topic_aliases_work_both_ways() {
    let weir = WEIR.start(&[]);
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "c").property(0x22, &[0, 1]).accepted(weir.mqtt());
    client.subscribe("a/#", 0);
    let mut plain = connect(&weir, "plain");
    plain.subscribe("a/#", 0);
    let mut publisher = connect(&weir, "publisher");
    let aliased =
        |topic: &str, alias: u8| TestMessage { properties: vec![0x23, 0, alias], ..TestMessage::new(topic, "x", 0) };
    for message in [aliased("a/1", 3), aliased("", 3), aliased("a/2", 3), aliased("", 3)] {
        publisher.publish_message(&message);
    }
    for topic in ["a/1", "a/1", "a/2", "a/2"] {
        let message = plain.next_message();
        assert_eq!((message.topic.as_str(), &message.properties[..]), (topic, &[][..]));
    }
    for (topic, properties) in [("a/1", &[0x23, 0, 1][..]), ("", &[0x23, 0, 1]), ("a/2", &[]), ("a/2", &[])] {
        let message = client.next_message();
        assert_eq!((message.topic.as_str(), &message.properties[..]), (topic, properties));
    }
    let mut again = connect(&weir, "publisher");
    again.send_publish(&aliased("", 3));
    again.expect_closed(0x82);
}

/// 5.0 [MQTT-3.1.2-28]: no response information is sent, asked for or not.
/// 5.0 [MQTT-3.2.2-7], 5.0 [MQTT-3.1.4-2]: a refused CONNECT ends the connection. 5.0 [MQTT-3.2.2-6]: without a session.
#[test]
fn a_refusal_has_its_reason() {
    let weir = WEIR.start(&[("mqtt.allow_anonymous", "false")]);
    let asked = TestConnect::new(MqttVersion::V5, "c").property(0x17, &[1]).property(0x19, &[1]).kept(5);
    let (mut client, connack) = asked.open(weir.mqtt());
    assert_eq!(connack.body, [0, 0x87, 0]);
    assert_eq!(client.until_closed(), []);
}

/// 5.0 [MQTT-3.14.2-3], 5.0 [MQTT-3.2.2-19]: a client that asks for problem information is told in words why it has to go, unless
/// the packet becomes larger than it takes. 5.0 [MQTT-3.1.2-29]: others are not.
#[test]
fn a_client_that_asks_is_told_why_in_words() {
    let weir = WEIR.start(&[]);
    for (wanted, maximum, words) in [(1, 1_000_u32, true), (1, 20, false), (0, 1_000, false)] {
        let asking = |id: &str| {
            TestConnect::new(MqttVersion::V5, id).property(0x17, &[wanted]).property(0x27, &maximum.to_be_bytes())
        };
        let (mut client, _) = asking("c").accepted(weir.mqtt());
        client.send(&[0x36, 3, 0, 1, b't']).expect("it can be sent");
        let last = client.until_closed().pop().expect("a DISCONNECT");
        assert_eq!((last.reason(), last.body.len() > 1), (0x81, words), "{last:?}");
        let (_, refusal) = asking(&"x".repeat(300)).open(weir.mqtt());
        assert_eq!((refusal.body[1], refusal.body.len() > 3), (0x85, words), "{refusal:?}");
    }
}
