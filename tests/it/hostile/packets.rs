//! Packets that are cut anywhere, and those that end other brokers, beside a device that must not notice.

use crate::WEIR;
use crate::hostile::steady::beside_a_steady_device;
use weir_test_kit::mqtt::{DISCONNECT, MqttVersion, PUBACK, TestClient, connect_packet, packet, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

/// Valid packets of every type, with as many fields as the version allows.
fn one_of_each(version: MqttVersion) -> Vec<(&'static str, Vec<u8>)> {
    let v5 = version == MqttVersion::V5;
    let with = |body: &[u8], properties: &[u8], rest: &[u8]| {
        let mut all = body.to_vec();
        if v5 {
            all.push(properties.len() as u8);
            all.extend_from_slice(properties);
        }
        all.extend_from_slice(rest);
        all
    };
    let level = if v5 { 5 } else { 4 };
    let mut connect = with(
        &[0, 4, b'M', b'Q', b'T', b'T', level, 0xee, 0, 60],
        b"\x11\0\0\0\x3c\x21\0\x10\x26\0\x01k\0\x01v",
        b"\0\x03cut",
    );
    connect.extend(with(&[], b"\x18\0\0\0\x01\x03\0\x01t", b"\0\x06will/t\0\x04gone\0\x04user\0\x04pass"));
    let publish = |properties: &[u8]| with(b"\0\x13devices/c/telemetry\0\x07", properties, b"{}");
    let acknowledgement: &[u8] = if v5 { b"\0\x07\0\x00" } else { b"\0\x07" };
    let mut packets = vec![
        ("CONNECT", packet(0x10, &connect)),
        ("CONNACK", packet(0x20, &with(&[0, 0], b"\x21\0\x10", b""))),
        ("PUBLISH 0", publish_packet(version, "devices/c/telemetry", b"{}", 0, false, 0)),
        ("PUBLISH 1", packet(0x32, &publish(b"\x01\x01\x02\0\0\0\x09\x26\0\x01k\0\x01v"))),
        ("PUBLISH 2", packet(0x35, &publish(b"\x23\0\x01\x08\0\x01r\x09\0\x01d"))),
        ("PUBACK", packet(0x40, acknowledgement)),
        ("PUBREC", packet(0x50, acknowledgement)),
        ("PUBREL", packet(0x62, acknowledgement)),
        ("PUBCOMP", packet(0x70, acknowledgement)),
        ("SUBSCRIBE", packet(0x82, &with(b"\0\x07", b"\x26\0\x01k\0\x01v", b"\0\x03a/#\x01\0\x03+/b\x02"))),
        ("SUBACK", packet(0x90, &with(b"\0\x07", b"", b"\0"))),
        ("UNSUBSCRIBE", packet(0xa2, &with(b"\0\x07", b"", b"\0\x03a/#"))),
        ("UNSUBACK", packet(0xb0, &with(b"\0\x07", b"", b"\0"))),
        ("PINGREQ", packet(0xc0, b"")),
        ("PINGRESP", packet(0xd0, b"")),
        ("DISCONNECT", packet(0xe0, if v5 { b"\x04\x05\x11\0\0\0\0" } else { b"" })),
    ];
    if v5 {
        packets.push(("AUTH", packet(0xf0, b"\x18\x04\x15\0\x01m")));
    }
    packets
}

#[test]
fn every_prefix_of_every_packet() {
    let weir = WEIR.start(&[("mqtt.connect_timeout", "'1s'")]);
    beside_a_steady_device(&weir, |steady| {
        for version in [MqttVersion::V4, MqttVersion::V5] {
            for (name, whole) in one_of_each(version) {
                for end in 0..=whole.len() {
                    // The connection ends in the packet.
                    prefix(&weir, version, name, &whole[..end]);
                    // The packet says that it ends here.
                    if end >= 2 {
                        prefix(&weir, version, name, &packet(whole[0], &whole[2..end]));
                    }
                }
            }
            steady.goes_on();
        }
        wait_for("every connection is gone", || (weir.metric("weir_mqtt_connections") < 1.5).then_some(()));
    });
    assert_eq!(weir.metric_sum("weir_mqtt_connections_closed_total{reason=\"defect\"}"), 0.0);
}

/// Sends a prefix as the first bytes of a connection, and after a CONNECT.
fn prefix(weir: &Weir, version: MqttVersion, name: &str, bytes: &[u8]) {
    if name == "CONNECT" {
        let mut client = TestClient::open(weir.mqtt(), version).expect("a connection");
        let _ = client.send(bytes);
    }
    let mut client = TestClient::open(weir.mqtt(), version).expect("a connection");
    let _ = client.send(&connect_packet(version, "cut"));
    // weir may close while it is on its way.
    let _ = client.send(bytes);
}

/// Packets that end rumqttd 0.20 or make it unresponsive; docs/decisions.md lists them.
#[test]
fn what_ends_other_brokers() {
    let weir = WEIR.start(&[("mqtt.max_connections", "50")]);
    beside_a_steady_device(&weir, |steady| {
        // A topic and a filter that begin with a character of several bytes.
        for version in [MqttVersion::V4, MqttVersion::V5] {
            let mut client = TestClient::connect(weir.mqtt(), version, "unicode");
            client.subscribe("ü/+", 1);
            client.publish("ü/€", "𝄞", 1);
            assert_eq!(client.message(), ("ü/€".to_owned(), "𝄞".as_bytes().to_vec()));
        }
        steady.goes_on();
        // The only member of a shared group leaves with a message unacknowledged.
        for _ in 0..3 {
            let mut member = TestClient::connect(weir.mqtt(), MqttVersion::V5, "member");
            member.send(&packet(0x82, b"\0\x01\0\0\x0f$share/g/shared\x01")).expect("it is sent");
            member.expect(weir_test_kit::mqtt::SUBACK);
            let mut publisher = TestClient::connect(weir.mqtt(), MqttVersion::V5, "publisher");
            publisher.publish("shared", "x", 1);
            drop(member);
            publisher.publish("shared", "x", 1);
        }
        steady.goes_on();
        // Properties of 5.0 on their way to a client of 3.1.1.
        let mut old = TestClient::connect(weir.mqtt(), MqttVersion::V4, "old");
        old.subscribe("properties", 1);
        let mut new = TestClient::connect(weir.mqtt(), MqttVersion::V5, "new");
        let body = b"\0\x0aproperties\0\x09\x12\x01\x01\x02\0\0\0\x09\x03\0\x01t\x26\0\x01k\0\x01v";
        new.send(&packet(0x32, body)).expect("it is sent");
        new.expect(PUBACK);
        assert_eq!(old.message(), ("properties".to_owned(), Vec::new()));
        // A server that is full: those who come are told, and there is room again afterwards.
        let crowd: Vec<_> = (0..80)
            .map(|index| TestClient::try_connect(weir.mqtt(), MqttVersion::V5, &format!("crowd-{index}")))
            .collect();
        assert!(crowd.iter().any(Result::is_err), "it was never full");
        steady.goes_on();
        drop(crowd);
        wait_for("there is room again", || TestClient::try_connect(weir.mqtt(), MqttVersion::V4, "late").ok());
        // A keep-alive of 0 is none.
        let mut patient = TestClient::open(weir.mqtt(), MqttVersion::V4).expect("a connection");
        patient.send(&packet(0x10, b"\0\x04MQTT\x04\x02\0\0\0\x07patient")).expect("it is sent");
        assert_eq!(patient.read().expect("a CONNACK").body, [0, 0]);
        // Packets that only a server sends.
        for bytes in [&[0x20, 2, 0, 0][..], &[0xb0, 2, 0, 1], &[0x90, 3, 0, 1, 0], &[0xd0, 0]] {
            let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "impostor");
            client.send(bytes).expect("it is sent");
            assert!(client.until_closed().iter().all(|answer| answer.kind == DISCONNECT));
        }
        patient.ping();
    });
}

#[test]
fn all_of_a_thousand_retained_messages_arrive() {
    let weir = WEIR.start(&[]);
    beside_a_steady_device(&weir, |_| {
        let mut publisher = TestClient::connect(weir.mqtt(), MqttVersion::V4, "publisher");
        for index in 0..1_000_u32 {
            let topic = format!("kept/{index}");
            let mut bytes = publish_packet(MqttVersion::V4, &topic, b"x", 1, false, 1);
            bytes[0] |= 1;
            publisher.send(&bytes).expect("it is sent");
            publisher.expect(PUBACK);
        }
        let mut subscriber = TestClient::connect(weir.mqtt(), MqttVersion::V4, "subscriber");
        subscriber.subscribe("kept/#", 1);
        let mut topics: Vec<String> = (0..1_000).map(|_| subscriber.message().0).collect();
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), 1_000);
    });
}
