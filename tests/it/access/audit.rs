//! Audit events of clients that disconnect or are refused before they log in.

use std::io::Write as _;
use std::net::TcpStream;

use rustls::version::TLS13;

use crate::WEIR;
use crate::access::login::events;
use weir_test_kit::certificates::{CertificateAuthority, connect};
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, packet};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

const REFUSED: &str = "weir_mqtt_connections_refused_total";

/// Counted refusals for this reason.
fn count(weir: &Weir, reason: &str) -> f64 {
    let text = weir.get("/metrics").ok().text();
    let series = format!("{REFUSED}{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0.0)
}

/// Waits until `count` refusals are counted; returns the only audit event with this reason.
#[track_caller]
fn only_event(weir: &Weir, reason: &str, refusals: f64) -> String {
    wait_for("the refusals are counted", || (count(weir, reason) >= refusals).then_some(()));
    let mut found = wait_for("one is told", || {
        let mut found = events(weir, "mqtt_refused");
        // In quotes where an explanation follows.
        found.retain(|line| ["", "\""].iter().any(|quote| line.contains(&format!("detail={quote}{reason}"))));
        (!found.is_empty()).then_some(found)
    });
    assert!(found.len() == 1 && found[0].contains("address=127.0.0.1"), "{reason}: {found:?}");
    found.remove(0)
}

fn send(weir: &Weir, bytes: &[u8]) -> TestClient {
    let mut client = TestClient::open(weir.mqtt(), MqttVersion::V5).expect("a socket");
    client.send(bytes).expect("it is sent");
    client
}

#[test]
fn a_first_packet_that_is_no_connect_is_told_once_a_minute() {
    let weir = WEIR.start(&[("mqtt.connect_timeout", "'2s'")]);
    const TIMES: usize = 50;
    for _ in 0..TIMES {
        send(&weir, b"GET / HTTP/1.1\r\n\r\n").until_closed();
        send(&weir, &packet(0x10, b"\0\x04MQTT\x05\x01\0\0\0\0\0")).until_closed();
        assert_eq!(send(&weir, &packet(0x10, b"\0\x04MQTT\x09\x02\0\0\0\0")).until_closed()[0].body[1], 1);
    }
    let silent: Vec<TcpStream> = (0..TIMES).map(|_| TcpStream::connect(weir.mqtt()).expect("a socket")).collect();
    for reason in ["not_connect", "malformed", "protocol_version", "connect_timeout"] {
        only_event(&weir, reason, TIMES as f64);
    }
    drop(silent);
    let enhanced = TestConnect::new(MqttVersion::V5, "ada").property(0x15, b"\0\x05SCRAM");
    assert_eq!(enhanced.code(weir.mqtt()), 0x8C);
    let event = only_event(&weir, "authentication_method", 1.0);
    assert!(event.contains("client_id=ada"), "{event}");
    // A connection that ends before its CONNECT is not a refusal.
    drop(TcpStream::connect(weir.mqtt()).expect("a socket"));
    wait_for("it is counted", || (count(&weir, "connection_lost") >= 1.0).then_some(()));
    assert_eq!(events(&weir, "mqtt_refused").len(), 5, "{:?}", events(&weir, "mqtt_refused"));
}

#[test]
fn a_failed_handshake_is_told_with_its_reason() {
    let (authority, stranger) = (CertificateAuthority::create(), CertificateAuthority::named("stranger"));
    authority.issue("server", "server", 2099);
    let weir = WEIR.start(&[
        ("mqtt.tls.listen", "'127.0.0.1:0'"),
        ("mqtt.tls.cert", &authority.toml("server.pem")),
        ("mqtt.tls.key", &authority.toml("server.key")),
    ]);
    drop(TcpStream::connect(weir.mqtt_tls()).expect("a socket"));
    wait_for("who left is counted", || (count(&weir, "tls_handshake") >= 1.0).then_some(()));
    assert_eq!(events(&weir, "mqtt_refused"), [""; 0]);
    for _ in 0..3 {
        assert!(connect(weir.mqtt_tls(), &stranger.client(None, &[&TLS13])).is_err(), "it does not trust the server");
    }
    let event = only_event(&weir, "tls_handshake", 4.0);
    assert!(event.contains("UnknownCA"), "{event}");
    let mut stray = TcpStream::connect(weir.mqtt_tls()).expect("a socket");
    stray.write_all(b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0").expect("it is sent");
    only_event(&weir, "tls_handshake", 5.0);
}

/// A client id that looks like fields of another event, breaks the line and turns the direction of text.
const FORGED: &str = "x\" event=\"admin_action\" user=root\u{2028}\u{202e}y";

#[test]
fn a_client_cannot_forge_fields_or_lines() {
    let weir = WEIR.start(&[]);
    let _client = TestClient::connect(weir.mqtt(), MqttVersion::V5, FORGED);
    let line = wait_for("the event", || events(&weir, "mqtt_connected").pop());
    let shown = r#"client_id="x\" event=\"admin_action\" user=root\u{2028}\u{202e}y" address=127.0.0.1"#;
    assert!(line.contains(shown), "{line}");
}

#[test]
fn a_client_cannot_forge_json() {
    let weir = WEIR.start(&[("log.format", "'json'")]);
    let _client = TestClient::connect(weir.mqtt(), MqttVersion::V5, FORGED);
    let line =
        wait_for("the event", || weir.output().lines().find(|line| line.contains("mqtt_connected")).map(str::to_owned));
    assert!(line.contains(r"root\u2028\u202ey"), "{line}");
    let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((event["client_id"].as_str(), event["event"].as_str()), (Some(FORGED), Some("mqtt_connected")));
}
