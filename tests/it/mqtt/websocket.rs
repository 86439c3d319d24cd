//! MQTT over WebSocket from outside.

use std::iter;
use std::net::TcpStream;
use std::process::Command;

use rustls::version::TLS13;

use crate::WEIR;
use weir_test_kit::certificates::CertificateAuthority;
use weir_test_kit::mqtt::{ClientStream, MqttVersion, TestClient, connect_packet, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::programs::{python, succeeded};
use weir_test_kit::wait::{DEADLINE, wait_for, window_before};
use weir_test_kit::websocket::WebSocketStream;

const MQTT: &str = "Sec-WebSocket-Protocol: mqtt\r\n";

fn socket(weir: &Weir) -> TcpStream {
    let stream = TcpStream::connect(weir.http()).expect("a connection");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
    stream
}

/// `big_bytes`: length of a message that the client sends and gets.
fn check_device(
    weir: &Weir,
    stream: impl ClientStream + 'static,
    version: MqttVersion,
    device: &str,
    big_bytes: usize,
) {
    let mut client = TestClient::connect_over(stream, version, device).expect("a session");
    let start = window_before(60);
    client.subscribe(&format!("weir/windows/{device}/+"), 1);
    client.subscribe("big", 0);
    for (seq, offset) in [0, 1_000, 7_000].into_iter().enumerate() {
        let timestamp = start + offset;
        client.telemetry(device, &format!(r#"{{"metric":"m","value":2,"timestamp":{timestamp},"seq":{seq}}}"#));
    }
    let (topic, payload) = client.message();
    let window: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!((topic, &window["sum"]), (format!("weir/windows/{device}/m"), &serde_json::json!(4.0)));
    let big = "y".repeat(big_bytes);
    client.publish("big", &big, 1);
    // On a busy machine so many frames take longer than a silent device's window stays open.
    let received = iter::repeat_with(|| client.message()).find(|(topic, _)| topic == "big").expect("it comes");
    assert_eq!(received.1.len(), big.len());
    assert!(weir.metric("weir_mqtt_connections") >= 1.0);
}

/// 5.0 [MQTT-6.0.0-2], 3.1.1 [MQTT-6.0.0-2]: frames and packets need not begin or end together. 5.0 [MQTT-6.0.0-4],
/// 3.1.1 [MQTT-6.0.0-4]: the subprotocol that weir answers with is `mqtt`.
#[test]
fn packets_in_frames_of_any_size() {
    let weir = WEIR.start(&[]);
    for (index, frame_bytes) in [1, 7, 1_000, 1 << 20].into_iter().enumerate() {
        for version in [MqttVersion::V4, MqttVersion::V5] {
            let stream = WebSocketStream::open(socket(&weir), frame_bytes, MQTT).expect("it opens");
            // A frame for each byte takes a busy machine long: fewer bytes then.
            let big_bytes = 150_000.min(frame_bytes * 20_000);
            check_device(&weir, stream, version, &format!("d{index}-{version:?}"), big_bytes);
        }
    }
    weir.assert_accounted();
}

#[test]
fn websocket_over_tls() {
    let authority = CertificateAuthority::create();
    authority.issue("server", "server", 2099);
    let (cert, key) = (authority.toml("server.pem"), authority.toml("server.key"));
    let weir = WEIR.start(&[
        ("http.tls.listen", "'127.0.0.1:0'"),
        ("http.tls.cert", cert.as_str()),
        ("http.tls.key", key.as_str()),
    ]);
    let stream = authority.connect(weir.https(), None, &[&TLS13]).expect("a TLS connection");
    check_device(&weir, WebSocketStream::open(stream, 1_000, MQTT).expect("it opens"), MqttVersion::V5, "d", 150_000);
    let start = window_before(60).to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/paho_peer.py");
    let ca = authority.path("ca.pem").display().to_string();
    let port = weir.https().port().to_string();
    succeeded(Command::new(python()).arg(script).args([&port, "5", "1", "paho-wss", &start, "websockets", &ca]));
}

#[test]
fn paho_over_websocket() {
    let weir = WEIR.start(&[]);
    let start = window_before(60).to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/paho_peer.py");
    let port = weir.http().port().to_string();
    for version in ["3.1.1", "5"] {
        let device = format!("paho-ws-{version}");
        succeeded(Command::new(python()).arg(script).args([&port, version, "2", &device, &start, "websockets"]));
    }
    weir.assert_accounted();
}

#[test]
fn several_packets_in_one_frame_and_control_frames_between() {
    let weir = WEIR.start(&[]);
    let mut socket = WebSocketStream::open(socket(&weir), 1_000, MQTT).expect("it opens");
    let mut packets = connect_packet(MqttVersion::V4, "d");
    for id in 1..=3 {
        packets.extend(publish_packet(MqttVersion::V4, "devices/d/telemetry", b"{}", 1, false, id));
    }
    let (first, second) = packets.split_at(packets.len() - 5);
    socket.send(0x02, first).expect("it is sent");
    socket.send(0x89, b"are you there").expect("it is sent");
    socket.send(0x80, second).expect("it is sent");
    let mut answers = Vec::new();
    let mut pong = false;
    while answers.len() < 4 + 3 * 4 {
        match socket.receive().expect("an answer") {
            (0x82, payload) => answers.extend(payload),
            (0x8a, payload) => pong = payload == b"are you there",
            other => panic!("{other:x?}"),
        }
    }
    assert!(pong, "the ping is answered");
    assert_eq!(answers[..4], [0x20, 2, 0, 0]);
    assert_eq!(answers[4..], [0x40, 2, 0, 1, 0x40, 2, 0, 2, 0x40, 2, 0, 3]);
    socket.send(0x88, &1000_u16.to_be_bytes()).expect("it is sent");
    assert_eq!(socket.receive().expect("the goodbye is answered"), (0x88, vec![3, 232]));
    wait_for("the connection is gone", || (weir.metric("weir_mqtt_connections") == 0.0).then_some(()));
}

/// 5.0 [MQTT-6.0.0-1], 3.1.1 [MQTT-6.0.0-1]: frames that are not binary end the connection.
#[test]
fn what_is_not_mqtt_is_refused() {
    let weir = WEIR.start(&[("http.websocket_origins", "['https://panel.example']")]);
    let refused = |extra: &str| WebSocketStream::open(socket(&weir), 1, extra).err().unwrap_or_default();
    assert_eq!(refused(""), "HTTP/1.1 400 Bad Request", "no subprotocol");
    assert_eq!(refused(&format!("{MQTT}Origin: https://evil.example\r\n")), "HTTP/1.1 403 Forbidden");
    assert_eq!(refused(&format!("{MQTT}Origin: https://panel.example\r\n")), "");
    assert_eq!(refused(&format!("{MQTT}Origin: http://localhost\r\n")), "", "weir's own pages");
    assert_eq!(
        refused(&format!("{MQTT}Origin: http://localhost:3000\r\n")),
        "HTTP/1.1 403 Forbidden",
        "another server's"
    );
    assert_eq!(weir.get("/mqtt").status, 426);
    for (first, payload, status) in [(0x81, &b"text"[..], 1003_u16), (0x83, b"", 1002), (0xc2, b"", 1002)] {
        let mut socket = WebSocketStream::open(socket(&weir), 1, MQTT).expect("it opens");
        socket.send(first, payload).expect("it is sent");
        assert_eq!(socket.receive().expect("why it ends"), (0x88, status.to_be_bytes().to_vec()));
    }
    let mut silent = WebSocketStream::open(socket(&weir), 1, MQTT).expect("it opens");
    let mut good = TestClient::connect_over(
        WebSocketStream::open(socket(&weir), 100, MQTT).expect("it opens"),
        MqttVersion::V5,
        "good",
    )
    .expect("a session");
    good.telemetry("good", r#"{"metric":"m","value":1}"#);
    // Without a CONNECT the connection ends after the usual time limit.
    assert!(matches!(silent.receive(), Ok((0x88, _)) | Err(_)));
}
