//! CONNECT, CONNACK, client identifiers, keep-alive, PINGREQ, DISCONNECT.

use crate::WEIR;
use weir_test_kit::mqtt::{
    ConnectPacket, MqttVersion, PUBCOMP, SUBACK, TestClient, TestMessage, UNSUBACK, packet, string,
};
use weir_test_kit::process::Weir;

const BOTH: [MqttVersion; 2] = [MqttVersion::V4, MqttVersion::V5];

/// Sends the first bytes of a connection; returns the packets before its end.
#[track_caller]
fn answer(weir: &Weir, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut client = TestClient::open(weir.mqtt(), MqttVersion::V5).expect("a socket");
    client.send(bytes).expect("it can be sent");
    let packets = client.until_closed();
    packets.into_iter().map(|packet| [vec![packet.kind << 4 | packet.flags], packet.body].concat()).collect()
}

/// 5.0 [MQTT-3.1.0-1], 3.1.1 [MQTT-3.1.0-1]: the first packet is CONNECT.
/// 5.0 [MQTT-3.1.0-2], 3.1.1 [MQTT-3.1.0-2]: a second one ends the connection, 5.0 [MQTT-3.2.0-2] without a second CONNACK.
/// 5.0 [MQTT-3.14.0-1]: before a CONNACK there is no DISCONNECT.
#[test]
fn the_first_packet_is_connect_and_no_other() {
    let weir = WEIR.start(&[]);
    for first in [&[0xc0, 0][..], &[0x30, 3, 0, 1, b't'], &[0x82, 6, 0, 1, 0, 1, b't', 0], &[0x20, 2, 0, 0], &[0, 0]] {
        assert_eq!(answer(&weir, first), [[0_u8; 0]; 0], "{first:?}");
    }
    for version in BOTH {
        let (mut client, _) = ConnectPacket::new(version, "c").accepted(weir.mqtt());
        client.send(&ConnectPacket::new(version, "c").packet()).expect("it can be sent");
        client.expect_closed(0x82);
    }
}

/// 5.0 [MQTT-3.1.2-1], 3.1.1 [MQTT-3.1.2-1]: another protocol name is no MQTT.
/// 5.0 [MQTT-3.1.2-2], 3.1.1 [MQTT-3.1.2-2]: an unknown level is answered with "unacceptable protocol version".
#[test]
fn protocol_name_and_level_are_checked() {
    let weir = WEIR.start(&[]);
    let connect = |name: &str, level: u8| {
        let mut body = string(name);
        body.extend_from_slice(&[level, 2, 0, 60, 0, 1, b'c']);
        packet(0x10, &body)
    };
    for level in [0, 2, 3, 6, 0x84] {
        assert_eq!(answer(&weir, &connect("MQTT", level)), [[0x20, 0, 1]], "level {level}");
    }
    for name in ["mqtt", "MQT", "HTTP", ""] {
        assert_eq!(answer(&weir, &connect(name, 4)), [[0_u8; 0]; 0], "{name}");
    }
    let mut client = TestClient::open(weir.mqtt(), MqttVersion::V4).expect("a socket");
    client.send(&connect("MQIsdp", 3)).expect("it can be sent");
    assert_eq!(client.read().expect("3.1 is served like 3.1.1").body, [0, 0]);
}

/// 5.0 [MQTT-3.1.2-3], 3.1.1 [MQTT-3.1.2-3]: the reserved flag is 0.
/// 5.0 [MQTT-3.1.2-11], 5.0 [MQTT-3.1.2-13], 3.1.1 [MQTT-3.1.2-13], 3.1.1 [MQTT-3.1.2-15]: without a will, its QoS and
/// RETAIN flags are 0. 5.0 [MQTT-3.1.2-12], 3.1.1 [MQTT-3.1.2-14]: its QoS is not 3.
/// 3.1.1 [MQTT-3.1.2-22]: no password without a user name.
/// 5.0 [MQTT-2.1.3-1], 3.1.1 [MQTT-2.2.2-2]: flags of the fixed header.
#[test]
fn reserved_and_contradicting_flags_are_malformed() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        for flags in [0b1, 0b1000, 0b1_0000, 0b10_0000] {
            let connect = ConnectPacket::new(version, "c").flags(flags).packet();
            assert_eq!(answer(&weir, &connect), [[0_u8; 0]; 0], "{version:?} {flags:#b}");
        }
        let will = ConnectPacket::new(version, "c").will(&TestMessage::new("w", "x", 1)).flags(0b1_1000).packet();
        assert_eq!(answer(&weir, &will), [[0_u8; 0]; 0]);
        let mut connect = ConnectPacket::new(version, "c").packet();
        connect[0] |= 1;
        assert_eq!(answer(&weir, &connect), [[0_u8; 0]; 0]);
    }
    let mut password = ConnectPacket::new(MqttVersion::V4, "c").flags(0b100_0000);
    password.rest = string("secret");
    assert_eq!(answer(&weir, &password.packet()), [[0_u8; 0]; 0]);
}

/// 5.0 [MQTT-3.1.2-16], 5.0 [MQTT-3.1.2-17], 5.0 [MQTT-3.1.2-18], 5.0 [MQTT-3.1.2-19], 3.1.1 [MQTT-3.1.2-18],
/// 3.1.1 [MQTT-3.1.2-19], 3.1.1 [MQTT-3.1.2-20], 3.1.1 [MQTT-3.1.2-21]: user name and password are there exactly if their
/// flags say so, 5.0 [MQTT-3.1.3-1], 3.1.1 [MQTT-3.1.3-1] in their order; 5.0 [MQTT-3.1.3-3], 3.1.1 [MQTT-3.1.3-3] the client
/// identifier is always there. 5.0 [MQTT-3.1.3-12], 3.1.1 [MQTT-3.1.3-11]: a user name is UTF-8.
/// 5.0 [MQTT-3.1.4-1], 3.1.1 [MQTT-3.1.4-1]: what does not have this form ends the connection.
#[test]
fn fields_stand_where_flags_announce_them() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let connect = |flags: u8, rest: &[u8]| {
            let mut connect = ConnectPacket::new(version, "c").flags(flags);
            connect.rest = rest.to_vec();
            connect
        };
        for (flags, rest) in [
            (0, &[0, 1, b'u'][..]),
            (0x80, &[]),
            (0x80, &[0, 1, b'u', 0, 1, b'p']),
            (0xc0, &[0, 1, b'u']),
            (0x80, &[0, 1, 0xff]),
            (0x80, &[0, 1, 0]),
        ] {
            assert_eq!(answer(&weir, &connect(flags, rest).packet()), [[0_u8; 0]; 0], "{version:?} {flags:#x}");
        }
        let body_end = if version == MqttVersion::V4 { 10 } else { 11 };
        let whole = ConnectPacket::new(version, "c").packet();
        assert_eq!(answer(&weir, &packet(0x10, &whole[2..2 + body_end])), [[0_u8; 0]; 0], "no client identifier");
        connect(0x80, &[0, 0]).accepted(weir.mqtt());
        connect(0xc0, &[0, 1, b'u', 0, 2, 0, 0xff]).accepted(weir.mqtt());
    }
}

/// 5.0 [MQTT-3.1.3-4], 3.1.1 [MQTT-3.1.3-4], 5.0 [MQTT-1.5.4-1], 5.0 [MQTT-1.5.4-2], 3.1.1 [MQTT-1.5.3-1],
/// 3.1.1 [MQTT-1.5.3-2]: client identifiers are UTF-8 without U+0000.
/// 5.0 [MQTT-3.1.3-5], 3.1.1 [MQTT-3.1.3-5]: 23 characters are allowed; so are 256 bytes of any others.
/// 5.0 [MQTT-3.1.3-8], 3.1.1 [MQTT-3.1.3-9]: a client identifier that is not taken is answered with 0x85 or 2 at the end.
/// 5.0 [MQTT-3.2.2-8]: which is a code of the standard's.
#[test]
fn client_identifiers_are_text_up_to_256_bytes() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        for id in ["0123456789abcdefghijklm", "pümpe/7 #+", &"x".repeat(256), "\u{1f600}"] {
            ConnectPacket::new(version, id).accepted(weir.mqtt());
        }
        let refused = ConnectPacket::new(version, &"x".repeat(257)).code(weir.mqtt());
        assert_eq!(refused, if version == MqttVersion::V4 { 2 } else { 0x85 });
        assert_eq!(answer(&weir, &ConnectPacket::new(version, "a\0b").packet()), [[0_u8; 0]; 0]);
        let mut surrogate = ConnectPacket::new(version, "xyz").packet();
        let end = surrogate.len();
        surrogate[end - 3..].copy_from_slice(b"\xed\xa0\x80");
        assert_eq!(answer(&weir, &surrogate), [[0_u8; 0]; 0]);
    }
}

/// 5.0 [MQTT-3.1.3-6], 5.0 [MQTT-3.1.3-7], 5.0 [MQTT-3.2.2-16], 3.1.1 [MQTT-3.1.3-6]: an empty identifier gets a unique
/// one, which a 5.0 client is told. 3.1.1 [MQTT-3.1.3-7], 3.1.1 [MQTT-3.1.3-8]: without clean session it is refused.
#[test]
fn an_empty_client_identifier_is_assigned() {
    let weir = WEIR.start(&[]);
    let assigned = |connect: &ConnectPacket| {
        let (client, connack) = connect.open(weir.mqtt());
        let body = &connack.body;
        let at =
            body.windows(3).position(|window| window[0] == 0x12 && window[1] == 0).expect("an assigned identifier");
        let id = body[at + 3..at + 3 + usize::from(body[at + 2])].to_vec();
        (client, String::from_utf8(id).expect("text"))
    };
    let (_one, first) = assigned(&ConnectPacket::new(MqttVersion::V5, ""));
    let (_two, second) = assigned(&ConnectPacket::new(MqttVersion::V5, "").kept(100));
    assert_ne!(first, second);
    let (_, present) = ConnectPacket::new(MqttVersion::V5, &second).kept(100).accepted(weir.mqtt());
    assert!(present, "the client can come back to its session");
    ConnectPacket::new(MqttVersion::V4, "").accepted(weir.mqtt());
    let (mut refused, connack) = ConnectPacket::new(MqttVersion::V4, "").kept(0).open(weir.mqtt());
    assert_eq!(connack.body, [0, 2]);
    assert_eq!(refused.until_closed(), []);
}

/// 5.0 [MQTT-3.2.0-1], 3.1.1 [MQTT-3.2.0-1]: the first packet back is CONNACK. 5.0 [MQTT-3.2.2-1]: its flags but one are 0.
/// 5.0 [MQTT-3.1.2-21], 5.0 [MQTT-3.2.2-21]: a keep-alive that is too long is answered with weir's own.
/// 5.0 [MQTT-3.1.2-24]: a CONNACK that the client does not take is not sent. 5.0 [MQTT-4.12.0-6]: it has no authentication
/// method where CONNECT had none.
#[test]
fn the_connack_tells_the_limits() {
    let weir = WEIR.start(&[("mqtt.max_keep_alive", "'30s'"), ("mqtt.max_inflight", "50")]);
    let (_, connack) = ConnectPacket::new(MqttVersion::V5, "c").keep_alive(300).open(weir.mqtt());
    assert_eq!(connack.body[..2], [0, 0]);
    let has = |property: &[u8]| connack.body.windows(property.len()).any(|window| window == property);
    assert!(has(&[0x13, 0, 30]) && has(&[0x21, 0, 50]) && has(&[0x22, 0, 10]), "{connack:?}");
    assert!(!has(&[0x15, 0]), "{connack:?}");
    let (_, connack) = ConnectPacket::new(MqttVersion::V4, "d").keep_alive(300).open(weir.mqtt());
    assert_eq!(connack.body, [0, 0]);
    let small = ConnectPacket::new(MqttVersion::V5, "e").property(0x27, &[0, 0, 0, 10]).packet();
    assert_eq!(answer(&weir, &small), [[0_u8; 0]; 0]);
}

/// 5.0 [MQTT-3.12.4-1], 3.1.1 [MQTT-3.12.4-1]: PINGREQ is answered.
/// 5.0 [MQTT-3.1.2-22], 3.1.1 [MQTT-3.1.2-24]: after one and a half keep-alive intervals of silence the connection ends;
/// 5.0 [MQTT-3.2.2-22]: they are the client's own where the CONNACK has no other.
#[test]
fn silence_ends_a_connection_with_keep_alive() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let (mut client, connack) = ConnectPacket::new(version, "c").keep_alive(1).open(weir.mqtt());
        assert!(!connack.body.contains(&0x13), "another keep-alive: {connack:?}");
        client.ping();
        client.expect_closed(0x8d);
    }
}

/// 5.0 [MQTT-3.14.1-1], 3.1.1 [MQTT-3.14.1-1]: DISCONNECT has no flags. 5.0 [MQTT-3.14.4-1], 3.1.1 [MQTT-3.14.4-2]: nothing
/// comes after it. 5.0 section 3.14.2.2.2: a session that was to end with its connection cannot be kept at the end.
#[test]
fn disconnect_is_the_end() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        let (mut client, _) = ConnectPacket::new(version, "c").accepted(weir.mqtt());
        client.subscribe("t", 0);
        client.send(&[0xe0, 0, 0x30, 3, 0, 1, b't', 0xc0, 0]).expect("it can be sent");
        assert_eq!(client.until_closed(), []);
        let (mut client, _) = ConnectPacket::new(version, "c").accepted(weir.mqtt());
        client.send(&[0xe1, 0]).expect("it can be sent");
        client.expect_closed(0x81);
    }
    let (mut client, _) = ConnectPacket::new(MqttVersion::V5, "c").accepted(weir.mqtt());
    client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9]).expect("it can be sent");
    client.expect_closed(0x82);
}

/// 5.0 [MQTT-3.1.4-3], 3.1.1 [MQTT-3.1.4-2], 5.0 [MQTT-3.1.3-2]: a client that connects again ends its older connection.
#[test]
fn the_newer_connection_takes_over() {
    let weir = WEIR.start(&[]);
    for old in BOTH {
        for new in BOTH {
            let (mut first, _) = ConnectPacket::new(old, "same").accepted(weir.mqtt());
            let (mut second, _) = ConnectPacket::new(new, "same").accepted(weir.mqtt());
            first.expect_closed(0x8e);
            second.ping();
        }
    }
}

/// 5.0 [MQTT-3.1.4-6], 3.1.1 [MQTT-3.1.4-5]: what follows a refused CONNECT is not processed.
/// 5.0 [MQTT-3.1.4-5], 3.1.1 [MQTT-3.1.4-4]: what follows an accepted one at once is.
#[test]
fn packets_may_follow_a_connect_at_once() {
    let weir = WEIR.start(&[]);
    let (mut watcher, _) = ConnectPacket::new(MqttVersion::V4, "watcher").accepted(weir.mqtt());
    watcher.subscribe("t", 0);
    let publish = weir_test_kit::mqtt::publish_packet(MqttVersion::V4, "t", b"early", 0, false, 0);
    let mut refused = TestClient::open(weir.mqtt(), MqttVersion::V4).expect("a socket");
    let connect = ConnectPacket::new(MqttVersion::V4, "").kept(0).packet();
    refused.send(&[connect, publish.clone()].concat()).expect("it can be sent");
    assert_eq!(refused.until_closed().len(), 1);
    watcher.expect_nothing();
    let mut client = TestClient::open(weir.mqtt(), MqttVersion::V4).expect("a socket");
    client.send(&[ConnectPacket::new(MqttVersion::V4, "c").packet(), publish].concat()).expect("it can be sent");
    assert_eq!(watcher.next_message().payload, b"early");
}

/// Clients of MQTT 3.1 set DUP when they repeat a PUBREL, SUBSCRIBE or UNSUBSCRIBE.
#[test]
fn repeated_packets_of_mqtt_3_1_are_taken() {
    let weir = WEIR.start(&[]);
    let mut body = string("MQIsdp");
    body.extend_from_slice(&[3, 2, 0, 60]);
    body.extend(string("old"));
    let mut client =
        TestClient::try_connect_with(weir.mqtt(), MqttVersion::V4, &packet(0x10, &body)).expect("it is accepted");
    for (repeated, answer) in [
        (packet(0x8a, &[0, 1, 0, 1, b't', 1]), SUBACK),
        (packet(0xaa, &[0, 2, 0, 1, b't']), UNSUBACK),
        (packet(0x6a, &[0, 3]), PUBCOMP),
    ] {
        client.send(&repeated).expect("it can be sent");
        client.expect(answer);
    }
}
