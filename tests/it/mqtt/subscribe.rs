//! SUBSCRIBE, UNSUBSCRIBE, filters, overlapping and shared subscriptions.

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestConnect, TestMessage, packet};
use weir_test_kit::process::Weir;

const BOTH: [MqttVersion; 2] = [MqttVersion::V4, MqttVersion::V5];

/// 5.0 [MQTT-3.8.1-1], 3.1.1 [MQTT-3.8.1-1], 5.0 [MQTT-3.10.1-1], 3.1.1 [MQTT-3.10.1-1]: the header's flags are 0010.
/// 5.0 [MQTT-3.8.3-2], 3.1.1 [MQTT-3.8.3-3], 5.0 [MQTT-3.10.3-2], 3.1.1 [MQTT-3.10.3-2]: there is a filter.
/// 5.0 [MQTT-3.8.3-1], 3.1.1 [MQTT-3.8.3-1], 5.0 [MQTT-3.10.3-1], 3.1.1 [MQTT-3.10.3-1]: filters are UTF-8.
/// 5.0 [MQTT-3.8.3-5], 3.1.1 [MQTT-3.8.3-4]: reserved bits of the options are 0, and the QoS is not 3. 5.0 [MQTT-4.7.1-1],
/// 5.0 [MQTT-4.7.1-2], 3.1.1 [MQTT-4.7.1-2], 3.1.1 [MQTT-4.7.1-3]: wildcards stand alone, `#` at the end.
#[test]
fn packets_against_the_rules_end_the_connection() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let body = |rest: &[u8]| {
            let head: &[u8] = if version == MqttVersion::V4 { &[0, 1] } else { &[0, 1, 0] };
            [head, rest].concat()
        };
        let filter = body(&[0, 1, b't', 0]);
        let mut wrong = vec![
            packet(0x80, &filter),
            packet(0xa0, &body(&[0, 1, b't'])),
            packet(0x82, &body(&[])),
            packet(0xa2, &body(&[])),
            packet(0x82, &body(&[0, 0, 0])),
            packet(0x82, &body(&[0, 2, 0xc3, 0x28, 0])),
            packet(0xa2, &body(&[0, 2, 0xc3, 0x28])),
            packet(0x82, &body(&[0, 1, b't', 3])),
            packet(0x82, &body(&[0, 1, b't', 0x40])),
            packet(0x82, &body(&[0, 1, b't'])),
        ];
        for filter in ["a#", "a/#/b", "a+", "+a/b"] {
            let mut subscription = weir_test_kit::mqtt::string(filter);
            wrong.push(packet(0xa2, &body(&subscription)));
            subscription.push(0);
            wrong.push(packet(0x82, &body(&subscription)));
        }
        if version == MqttVersion::V4 {
            wrong.push(packet(0x82, &body(&[0, 1, b't', 4])));
        } else {
            wrong.push(packet(0x82, &body(&[0, 1, b't', 0x30])));
        }
        for bytes in wrong {
            let (mut client, _) = TestConnect::new(version, "c").accepted(weir.mqtt());
            client.send(&bytes).expect("it can be sent");
            client.expect_closed(0x81);
        }
        let (mut client, _) = TestConnect::new(version, "c").accepted(weir.mqtt());
        let mut zero = filter;
        zero[1] = 0;
        client.send(&packet(0x82, &zero)).expect("it can be sent");
        client.expect_closed(0x81);
    }
}

/// 5.0 [MQTT-3.8.4-1], 3.1.1 [MQTT-3.8.4-1], 5.0 [MQTT-3.8.4-2], 3.1.1 [MQTT-3.8.4-2], 5.0 [MQTT-2.2.1-6]: SUBACK answers.
/// 5.0 [MQTT-3.8.4-5], 5.0 [MQTT-3.8.4-6], 3.1.1 [MQTT-3.8.4-4], 3.1.1 [MQTT-3.8.4-5], 5.0 [MQTT-3.9.3-1],
/// 3.1.1 [MQTT-3.9.3-1], 5.0 [MQTT-3.8.4-7]: with a code for each filter, in order. 5.0 [MQTT-3.9.3-2], 3.1.1 [MQTT-3.9.3-2]: one that is not
/// accepted has a failure code.
#[test]
fn each_filter_has_its_code() {
    let weir = WEIR.start(&[("mqtt.max_topic_levels", "4")]);
    for (version, failure) in [(MqttVersion::V4, 0x80), (MqttVersion::V5, 0x97)] {
        let (mut client, _) = TestConnect::new(version, "c").accepted(weir.mqtt());
        let mut body = if version == MqttVersion::V4 { vec![0x12, 0x34] } else { vec![0x12, 0x34, 0] };
        let filters = [("a", 0), ("+/b", 1), ("#", 2), ("a/b/c/d/e", 1), ("a/+/+/+/#", 1), ("////", 0), ("+", 2)];
        for (filter, qos) in filters {
            body.extend(weir_test_kit::mqtt::string(filter));
            body.push(qos);
        }
        client.send(&packet(0x82, &body)).expect("it can be sent");
        let answer = client.expect(weir_test_kit::mqtt::SUBACK);
        let codes = &answer.body[answer.body.len() - filters.len()..];
        assert_eq!((answer.id(), codes), (0x1234, &[0, 1, 2, failure, failure, failure, 2][..]));
    }
}

/// 5.0 [MQTT-3.8.4-3], 3.1.1 [MQTT-3.8.4-3]: subscribing again replaces. 5.0 [MQTT-3.10.4-1], 5.0 [MQTT-3.10.4-2],
/// 3.1.1 [MQTT-3.10.4-1], 3.1.1 [MQTT-3.10.4-2]: unsubscribing ends exactly one. 5.0 [MQTT-3.10.4-4], 5.0 [MQTT-3.10.4-5],
/// 3.1.1 [MQTT-3.10.4-4], 3.1.1 [MQTT-3.10.4-5]: and is answered in any case. 5.0 [MQTT-3.10.4-6], 3.1.1 [MQTT-3.10.4-6],
/// 5.0 [MQTT-3.11.3-1], 5.0 [MQTT-3.11.3-2]: for each filter, with a code of the standard's.
#[test]
fn subscriptions_are_replaced_and_ended() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let (mut client, _) = TestConnect::new(version, "c").accepted(weir.mqtt());
        client.subscribe("a/b", 0);
        client.subscribe("a/b", 1);
        client.publish_message(&TestMessage::new("a/b", "x", 1));
        assert_eq!(client.take_message().qos, 1);
        client.expect_nothing();
        let codes = client.unsubscribe(&["a/+", "a/b", "c"]);
        assert_eq!(codes, if version == MqttVersion::V4 { vec![] } else { vec![0x11, 0, 0x11] });
        client.publish_message(&TestMessage::new("a/b", "x", 1));
        client.expect_nothing();
    }
}

/// Unsubscribes and subscribes `rounds` times. After each UNSUBACK other connections publish, and nobody gets it; after each
/// SUBACK they publish on the same topic again, and the subscriber gets it. Each of them has then just learnt that the topic
/// has no subscriber.
fn no_publish_after_a_suback_is_missed(weir: &Weir, version: MqttVersion, filter: &str, rounds: usize) {
    let (mut subscriber, _) = TestConnect::new(version, "subscriber").accepted(weir.mqtt());
    let mut publishers: Vec<_> = (0..3)
        .map(|number| TestConnect::new(MqttVersion::V5, &format!("publisher-{number}")).accepted(weir.mqtt()).0)
        .collect();
    for round in 0..rounds {
        subscriber.unsubscribe(&[filter]);
        for publisher in &mut publishers {
            assert_eq!(publisher.publish("order/t", "nobody", 1), 0x10, "{filter}, round {round}: nobody subscribes");
        }
        assert_eq!(subscriber.subscribe_with(filter, 0, &[]), 0);
        for publisher in &mut publishers {
            assert_eq!(publisher.publish("order/t", "x", 1), 0, "{filter}, round {round}: somebody subscribed");
            assert_eq!(subscriber.next_message().text(), "x");
        }
    }
}

/// A subscriber that has its SUBACK gets every publish that another client sends later, whichever threads serve the two.
#[test]
fn a_publish_after_the_suback_arrives() {
    let mut weir = WEIR.prepare(&[]);
    weir.environment("TOKIO_WORKER_THREADS", "4");
    weir.restart();
    for version in BOTH {
        for filter in ["order/t", "order/#", "$share/g/order/+"] {
            no_publish_after_a_suback_is_missed(&weir, version, filter, 400);
        }
    }
}

/// 5.0 [MQTT-3.3.4-2], 3.1.1 [MQTT-3.3.5-1]: overlapping subscriptions get a message once, at the highest QoS.
/// 5.0 [MQTT-3.3.4-3], 5.0 [MQTT-3.3.4-4]: with the identifiers of all. 5.0 [MQTT-4.7.3-4], 3.1.1 [MQTT-4.7.3-4]: names are
/// compared byte by byte.
#[test]
fn overlapping_subscriptions_get_one_copy() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let (mut client, _) = TestConnect::new(version, "c").accepted(weir.mqtt());
        for (filter, qos, identifier) in [("a/+", 0, 1), ("a/#", 2, 300), ("A/b", 2, 5), ("a/b", 1, 0)] {
            let properties = if identifier == 300 { vec![0x0b, 0xac, 0x02] } else { vec![0x0b, identifier as u8] };
            client.subscribe_with(filter, qos, if identifier == 0 { &[] } else { &properties });
        }
        client.publish_message(&TestMessage::new("a/b", "x", 2));
        let message = client.take_message();
        assert_eq!(message.qos, 2);
        if version == MqttVersion::V5 {
            let mut identifiers: Vec<&[u8]> = message.properties.split(|byte| *byte == 0x0b).collect();
            identifiers.sort_unstable();
            assert_eq!(identifiers, [&[][..], &[1], &[0xac, 0x02]]);
        }
        client.expect_nothing();
    }
}

/// 5.0 [MQTT-3.8.3-3]: a subscription with no local leaves out what its own client publishes.
#[test]
fn no_local_spares_the_publisher() {
    let weir = WEIR.start(&[]);
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "c").accepted(weir.mqtt());
    client.subscribe_with("t", 0x05, &[]);
    client.publish_message(&TestMessage::new("t", "own", 1));
    let (mut other, _) = TestConnect::new(MqttVersion::V4, "other").accepted(weir.mqtt());
    other.publish_message(&TestMessage::new("t", "other", 1));
    assert_eq!(client.take_message().text(), "other");
    client.expect_nothing();
}

/// 5.0 [MQTT-4.8.2-1], 5.0 [MQTT-4.8.2-2]: a shared subscription names its group and has a filter. 5.0 [MQTT-3.8.3-4]: not with
/// no local. 5.0 [MQTT-4.8.2-3]: each member's QoS holds for it.
#[test]
fn shared_subscriptions_divide_the_messages() {
    let weir = WEIR.start(&[]);
    for (filter, options) in [("$share/g", 0), ("$share/g/", 0), ("$share//t", 0), ("$share/+/t", 0), ("$share/g/t", 4)]
    {
        let (mut client, _) = TestConnect::new(MqttVersion::V5, "c").accepted(weir.mqtt());
        let body = [&[0, 1, 0][..], &weir_test_kit::mqtt::string(filter), &[options]].concat();
        client.send(&packet(0x82, &body)).expect("it can be sent");
        client.expect_closed(0x82);
    }
    let (mut publisher, _) = TestConnect::new(MqttVersion::V5, "publisher").accepted(weir.mqtt());
    publisher.publish_message(&TestMessage::retained("s/r", "retained", 1));
    let mut members: Vec<_> = [(MqttVersion::V4, 0), (MqttVersion::V5, 1), (MqttVersion::V5, 2)]
        .iter()
        .enumerate()
        .map(|(index, (version, qos))| {
            let (mut member, _) = TestConnect::new(*version, &format!("member-{index}")).accepted(weir.mqtt());
            assert_eq!(member.subscribe_with("$share/g/s/#", *qos, &[]), *qos);
            (member, *qos)
        })
        .collect();
    let (mut outside, _) = TestConnect::new(MqttVersion::V5, "outside").accepted(weir.mqtt());
    outside.subscribe_with("s/+", 0x21, &[]);
    for number in 0..30 {
        publisher.publish_message(&TestMessage::new("s/t", &number.to_string(), 2));
    }
    let mut got = Vec::new();
    for (member, qos) in &mut members {
        for _ in 0..10 {
            let message = member.take_message();
            assert_eq!((message.qos, message.retain), (*qos, false));
            got.push(message.text().parse::<u8>().expect("a number"));
        }
        member.expect_nothing();
    }
    got.sort_unstable();
    assert_eq!(got, (0..30).collect::<Vec<u8>>(), "each once, and no retained message");
    for number in 0..30 {
        assert_eq!(outside.take_message().text(), number.to_string(), "others get all");
    }
}

/// 5.0 [MQTT-4.8.2-5]: a member that goes for good gives QoS 1 messages to the others, and a QoS 2 message
/// that it was sent to nobody. 5.0 [MQTT-4.8.2-6]: what it refused is not sent to another.
#[test]
fn a_member_that_goes_leaves_its_messages_to_the_others() {
    let weir = WEIR.start(&[]);
    let (mut publisher, _) = TestConnect::new(MqttVersion::V5, "publisher").accepted(weir.mqtt());
    let (mut first, _) = TestConnect::new(MqttVersion::V5, "first").accepted(weir.mqtt());
    first.subscribe_with("$share/g/t", 2, &[]);
    for (text, qos) in [("refused", 1), ("unacknowledged", 1), ("under way", 2)] {
        publisher.publish_message(&TestMessage::new("t", text, qos));
    }
    let refused = first.next_message();
    first.send(&[0x40, 3, 0, refused.id as u8, 0x80]).expect("it can be sent");
    assert_eq!((first.next_message().text(), first.next_message().text()), ("unacknowledged", "under way"));
    let (mut second, _) = TestConnect::new(MqttVersion::V5, "second").accepted(weir.mqtt());
    second.subscribe_with("$share/g/t", 2, &[]);
    second.expect_nothing();
    first.disconnect();
    assert_eq!(second.take_message().text(), "unacknowledged");
    second.expect_nothing();
}

#[test]
fn ten_thousand_subscriptions_of_one_client_are_ordinary() {
    let weir = WEIR.start(&[]);
    let (mut client, _) = TestConnect::new(MqttVersion::V5, "c").accepted(weir.mqtt());
    for first in (0..10_000).step_by(500) {
        let mut body = vec![0, 1, 0];
        for number in first..first + 500 {
            body.extend(weir_test_kit::mqtt::string(&format!("many/{number}/+")));
            body.push(1);
        }
        client.send(&packet(0x82, &body)).expect("it can be sent");
        let answer = client.expect(weir_test_kit::mqtt::SUBACK);
        assert!(answer.body[3..].iter().all(|code| *code == 1));
    }
    for number in [0, 4_999, 9_999] {
        client.publish_message(&TestMessage::new(&format!("many/{number}/x"), "x", 0));
        assert_eq!(client.next_message().topic, format!("many/{number}/x"));
    }
}
