//! Clients that violate the protocol: only their own connection ends, and the error is counted.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::WEIR;
use weir::random::Random;
use weir_test_kit::mqtt::{DISCONNECT, MqttVersion, PUBACK, TestClient, connect_packet, packet, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::seed::announced_seed;
use weir_test_kit::wait::{SetOnDrop, wait_for, window_before};

const REFUSED: &str = "weir_mqtt_connections_refused_total";
const CLOSED: &str = "weir_mqtt_connections_closed_total";

/// Sends `bytes` as the first of a connection: it must be closed and counted.
fn check_first(weir: &Weir, version: MqttVersion, what: &str, bytes: &[u8]) {
    let before = weir.metric_sum(REFUSED);
    let mut client = TestClient::open(weir.mqtt(), version).expect("a connection");
    client.send(bytes).expect("it can be sent");
    client.until_closed();
    wait_for(&format!("{what} is counted"), || (weir.metric_sum(REFUSED) > before).then_some(()));
}

/// Sends `bytes` on an accepted connection: it must be closed and counted, with a DISCONNECT of this reason where the
/// version has one. Returns what was answered instead.
fn check_later(weir: &Weir, version: MqttVersion, what: &str, bytes: &[u8], reason: u8) -> Option<String> {
    let before = weir.metric_sum(CLOSED);
    let mut client = TestClient::connect(weir.mqtt(), version, "wrong");
    // weir may close while the rest of a large packet is on its way.
    let _ = client.send(bytes);
    let packets = client.until_closed();
    wait_for(&format!("{what} is counted"), || (weir.metric_sum(CLOSED) > before).then_some(()));
    let right = match version {
        MqttVersion::V4 => packets.is_empty(),
        // A reset can lose the DISCONNECT. One that arrives must carry the reason.
        MqttVersion::V5 => packets.iter().all(|answer| (answer.kind, answer.reason()) == (DISCONNECT, reason)),
    };
    (!right).then(|| format!("{version:?}, {what}: {packets:x?} instead of reason {reason:x}"))
}

#[test]
fn wrong_connections_end_alone() {
    let weir = WEIR.start(&[("mqtt.max_packet_size", "'4KiB'")]);
    let mut good = TestClient::connect(weir.mqtt(), MqttVersion::V5, "good");
    let first = |what, bytes: &[u8]| check_first(&weir, MqttVersion::V4, what, bytes);
    first("a ping as the first packet", &[0xc0, 0]);
    first("a publish as the first packet", &publish_packet(MqttVersion::V4, "devices/d/telemetry", b"{}", 0, false, 0));
    first("an HTTP request", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    first("an unknown protocol version", &packet(0x10, b"\0\x04MQTT\x09\x02\0\x3c\0\x01c"));
    first("another protocol's name", &packet(0x10, b"\0\x04HTTP\x04\x02\0\x3c\0\x01c"));
    first("an endless remaining length", &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff]);
    first("a cut CONNECT", &packet(0x10, b"\0\x04MQTT\x04\x02\0"));
    first("a CONNACK", &[0x20, 2, 0, 0]);
    // A separate weir: on a busy machine an honest CONNECT may exceed this time limit.
    let impatient = WEIR.start(&[("mqtt.connect_timeout", "'300ms'")]);
    check_first(&impatient, MqttVersion::V4, "nothing within connect_timeout", &[]);
    let half = &connect_packet(MqttVersion::V4, "slow")[..6];
    check_first(&impatient, MqttVersion::V4, "half a CONNECT within connect_timeout", half);
    let mut wrong = Vec::new();
    for version in [MqttVersion::V4, MqttVersion::V5] {
        let mut later = |what, bytes: &[u8], reason| wrong.extend(check_later(&weir, version, what, bytes, reason));
        later("a second CONNECT", &connect_packet(version, "wrong"), 0x82);
        later(
            "a packet above the limit",
            &publish_packet(version, "devices/d/telemetry", &[b' '; 8192], 1, false, 1),
            0x95,
        );
        later("a server's packet", &[0x20, 2, 0, 0], 0x82);
        later("an UNSUBACK", &[0xb0, 2, 0, 1], 0x82);
        later("the reserved packet type", &[0x00, 0], 0x82);
        later("QoS 3", &packet(0x36, b"\0\x01t\0\x01\0x"), 0x81);
        later("packet id 0", &publish_packet(version, "devices/d/telemetry", b"{}", 1, false, 0), 0x82);
        later("a topic that is not UTF-8", &packet(0x30, b"\0\x02\xc3\x28\0x"), 0x81);
        later("a topic with a wildcard", &publish_packet(version, "devices/+/telemetry", b"{}", 1, false, 1), 0x81);
        later("a topic beyond the packet", &packet(0x30, b"\xff\xfft"), 0x81);
        later(
            "a SUBSCRIBE without filters",
            &packet(0x82, if version == MqttVersion::V4 { &[0, 1] } else { &[0, 1, 0] }),
            0x81,
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    good.telemetry("good", r#"{"metric":"m","value":1}"#);
    assert_eq!(weir.get("/healthz").status, 200);
}

#[test]
fn nobody_speaks_for_weir() {
    let weir = WEIR.start(&[("mqtt.sys_interval", "'off'")]);
    let mut subscriber = TestClient::connect(weir.mqtt(), MqttVersion::V4, "subscriber");
    subscriber.subscribe("#", 0);
    subscriber.subscribe("weir/#", 0);
    subscriber.subscribe("$SYS/#", 0);
    let mut refused = 0.0;
    for topic in ["weir/windows/d/m", "weir/x", "$SYS/broker/uptime", "$anything"] {
        for version in [MqttVersion::V4, MqttVersion::V5] {
            let mut client = TestClient::connect(weir.mqtt(), version, "impostor");
            client.send(&publish_packet(version, topic, b"false", 1, false, 1)).expect("it can be sent");
            if version == MqttVersion::V5 {
                let answer = client.read().expect("an answer");
                assert_eq!((answer.kind, answer.reason()), (PUBACK, 0x87), "{topic}: {answer:?}");
            }
            refused += 1.0;
            wait_for("the refusal is counted", || {
                (weir.metric_sum("weir_mqtt_publishes_refused_total") >= refused).then_some(())
            });
        }
    }
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "honest");
    client.publish("plain", "true", 1);
    assert_eq!(subscriber.message(), ("plain".to_owned(), b"true".to_vec()));
}

#[test]
fn garbage_on_ten_thousand_connections() {
    const CONNECTIONS: u64 = 10_000;
    let mut random = Random::new(announced_seed("garbage"));
    let weir = WEIR.start(&[("mqtt.connect_timeout", "'1s'"), ("window.idle_timeout", "'500ms'")]);
    let mqtt = weir.mqtt();
    let done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let end = SetOnDrop(&done);
        // A device that must not notice anything.
        let good = scope.spawn(|| {
            let mut client = TestClient::connect(mqtt, MqttVersion::V4, "good");
            let start = window_before(60);
            let mut seq = 0;
            while !done.load(Ordering::Relaxed) || seq < 100 {
                let payload = format!(r#"{{"metric":"m","value":1,"timestamp":{},"seq":{seq}}}"#, start + seq);
                client.telemetry("good", &payload);
                seq += 1;
            }
            seq
        });
        let attackers: Vec<_> = (0..4)
            .map(|_| {
                let mut random = random.fork();
                scope.spawn(move || {
                    for _ in 0..CONNECTIONS / 4 {
                        attack(mqtt, &mut random);
                    }
                })
            })
            .collect();
        attackers.into_iter().for_each(|attacker| attacker.join().expect("an attacker did not panic"));
        drop(end);
        good.join().expect("the good device was served")
    });
    assert_eq!(weir.get("/healthz").status, 200);
    assert_eq!(weir.get("/readyz").status, 200);
    weir.wait_closed();
    assert_eq!(weir.json("/api/v1/devices/good")["accepted"], sent);
    wait_for("every connection of an attacker is gone", || (weir.metric("weir_mqtt_connections") < 1.5).then_some(()));
    weir.assert_accounted();
}

/// One connection with random bytes: raw, after a good CONNECT, or in a good frame.
fn attack(address: std::net::SocketAddr, random: &mut Random) {
    let version = if random.below(2) == 0 { MqttVersion::V4 } else { MqttVersion::V5 };
    let Ok(mut client) = TestClient::open(address, version) else { return };
    let len = random.below(200) as usize;
    let noise = random.bytes(len);
    let mut bytes = Vec::new();
    match random.below(4) {
        0 => bytes.extend(noise),
        1 => {
            bytes.extend(connect_packet(version, "attacker"));
            bytes.extend(noise);
        }
        2 => {
            bytes.extend(connect_packet(version, "attacker"));
            bytes.extend(packet(random.next_u64() as u8, &noise));
        }
        _ => {
            bytes.extend(connect_packet(version, "attacker"));
            bytes.extend(publish_packet(version, "devices/x/telemetry", &noise, 1, false, 1));
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
    }
    // weir may have closed the connection already.
    let _ = client.send(&bytes);
}
