//! Revoked client certificates: refused, and disconnected if connected.

use std::io;

use rustix::process::Signal;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::WEIR;
use crate::access::acl::audited;
use weir_test_kit::certificates::{self, CertificateAuthority, TlsClientStream};
use weir_test_kit::mqtt::{ConnectPacket, MqttVersion, TestClient, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

const NO_REPLACEMENT: i32 = 2099;

/// A weir that accepts client certificates of `authority` except those in its crl.pem.
fn settings(authority: &CertificateAuthority) -> Vec<(&'static str, String)> {
    authority.issue("server", "server", 2099);
    vec![
        ("mqtt.tls.listen", "'127.0.0.1:0'".into()),
        ("mqtt.tls.cert", authority.toml("server.pem")),
        ("mqtt.tls.key", authority.toml("server.key")),
        ("mqtt.tls.client_ca", authority.toml("ca.pem")),
        ("mqtt.tls.client_crl", authority.toml("crl.pem")),
        ("mqtt.tls.client_certificates", "'required'".into()),
    ]
}

fn start(authority: &CertificateAuthority) -> Weir {
    let settings = settings(authority);
    WEIR.start(&settings.iter().map(|(key, value)| (*key, value.as_str())).collect::<Vec<_>>())
}

/// Connects and reads: with TLS 1.3 the client learns of a refusal only when it reads.
fn session(stream: io::Result<TlsClientStream>, id: &str) -> io::Result<TestClient> {
    let mut client = TestClient::connect_over(stream?, MqttVersion::V5, id)?;
    client.ping();
    Ok(client)
}

fn status(weir: &Weir) -> serde_json::Value {
    weir.json("/api/v1/status")["tls"][0]["client_crl"].clone()
}

#[test]
fn a_revoked_client_is_refused_and_others_are_served() {
    let authority = CertificateAuthority::create();
    authority.issue("good", "good", 2099);
    authority.issue("bad", "bad", 2099);
    // A revocation list past its date is still applied.
    authority.write("crl.pem", &authority.revocation_list(&["bad"], 1, 2021));
    let weir = start(&authority);
    for tls in [&TLS12, &TLS13] {
        let connect = |name| session(authority.connect(weir.mqtt_tls(), Some(name), &[tls]), name);
        assert!(connect("good").is_ok());
        let refused = connect("bad").err().expect("it is revoked").to_string();
        assert!(refused.contains("CertificateRevoked"), "{refused}");
    }
    let list = status(&weir);
    assert_eq!((&list["lists"], &list["revoked"], &list["overdue"]), (&1.into(), &1.into(), &true.into()), "{list}");
    let next_update = weir.metric("weir_tls_crl_next_update_timestamp_seconds{listener=\"mqtt\"}");
    assert_eq!(Some(next_update * 1_000.0), list["next_update"].as_f64());
    assert!(weir.output().contains("should have been replaced by 2021-12-31"), "{}", weir.output());
    wait_for("the refusal is in the audit log", || {
        audited(&weir, "mqtt_refused", &["Revoked; the certificate is that of CN=bad"]).then_some(())
    });
}

#[test]
fn clients_of_an_authority_without_a_list_are_refused() {
    let (authority, other) = (CertificateAuthority::create(), CertificateAuthority::named("other"));
    other.issue("pump", "pump", 2099);
    let ca = |authority: &CertificateAuthority| std::fs::read_to_string(authority.path("ca.pem")).expect("a file");
    let list = authority.revocation_list(&[], 1, NO_REPLACEMENT);
    authority.write("crl.pem", &list);
    let weir = start(&authority);
    authority.write("ca.pem", &[ca(&authority), ca(&other)].concat());
    std::fs::copy(authority.path("ca.pem"), other.path("ca.pem")).expect("the client trusts the server");
    weir.signal(Signal::HUP);
    let connect = || session(other.connect(weir.mqtt_tls(), Some("pump"), &[&TLS13]), "pump");
    wait_for("the authorities are taken", || weir.output().contains("no list of ").then_some(()));
    assert!(connect().is_err());
    authority.write("crl.pem", &[list, other.revocation_list(&[], 1, NO_REPLACEMENT)].concat());
    weir.signal(Signal::HUP);
    wait_for("its list is there", || connect().ok());
}

#[test]
fn a_new_list_ends_connections_and_sessions_are_not_resumed() {
    let authority = CertificateAuthority::create();
    for name in ["first", "second", "good"] {
        authority.issue(name, name, 2099);
    }
    authority.write("crl.pem", &authority.revocation_list(&[], 1, NO_REPLACEMENT));
    let weir = start(&authority);
    let config = authority.client(Some("first"), &[&TLS12]);
    let open = |config| certificates::connect(weir.mqtt_tls(), config);
    session(open(&config), "before").expect("a session");
    let resumed = open(&config).expect("a TLS connection");
    assert_eq!(resumed.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    let gone = TestMessage::new("devices/first/gone", "x", 0);
    let (mut first, _) = ConnectPacket::new(MqttVersion::V5, "first").kept(60).will(&gone).open_over(resumed);
    let other = |name| session(authority.connect(weir.mqtt_tls(), Some(name), &[&TLS13]), name).expect("a session");
    let (mut second, mut good) = (other("second"), other("good"));
    // weir reloads a changed list without a signal.
    authority.write("crl.pem", &authority.revocation_list(&["first"], 2, NO_REPLACEMENT));
    first.expect_closed(0x87);
    wait_for("its will is not published", || {
        (weir.metric("weir_mqtt_messages_dropped_total{reason=\"will_denied\"}") == 1.0).then_some(())
    });
    assert!(session(open(&config), "after").is_err(), "its TLS session is not worth anything any more");
    // On SIGHUP; what cannot be used changes nothing.
    authority.write("crl.pem", "");
    weir.signal(Signal::HUP);
    wait_for("the failure is shown", || {
        let error = weir.json("/api/v1/status")["tls"][0]["error"].as_str()?.to_owned();
        error.contains("crl.pem: it has no revocation list").then_some(())
    });
    second.ping();
    assert!(session(open(&config), "still").is_err());
    authority.write("crl.pem", &authority.revocation_list(&["first", "second"], 3, NO_REPLACEMENT));
    weir.signal(Signal::HUP);
    second.expect_closed(0x87);
    good.ping();
    assert_eq!(status(&weir)["revoked"], 2);
    // With a new certificate the client is accepted again.
    authority.issue("first", "first", 2099);
    session(authority.connect(weir.mqtt_tls(), Some("first"), &[&TLS12]), "first").expect("a session");
}

#[test]
fn check_looks_at_the_lists() {
    let authority = CertificateAuthority::create();
    let settings = settings(&authority);
    let check = |change: &[(&'static str, &str)]| {
        let mut all: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        all.extend_from_slice(&[("mqtt.tls.listen", "'127.0.0.1:8883'")]);
        all.extend_from_slice(change);
        let output = WEIR.prepare(&all).command(&["check"]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    authority.write("crl.pem", &authority.revocation_list(&[], 1, NO_REPLACEMENT));
    assert_eq!(check(&[]), (Some(0), String::new()));
    let (code, said) = check(&[("mqtt.tls.client_ca", "''"), ("mqtt.tls.client_certificates", "'off'")]);
    assert!(code == Some(78) && said.contains("config.toml:"), "{code:?}: {said}");
    assert!(said.contains("mqtt.tls.client_crl: it names a file, but mqtt.tls.client_ca none"), "{said}");
    authority.write("crl.pem", &authority.revocation_list(&[], 1, 2021));
    let (code, said) = check(&[]);
    assert!(code == Some(0) && said.contains("warning: mqtt.tls: ") && said.contains("2021-12-31"), "{code:?}: {said}");
    authority.write("crl.pem", &CertificateAuthority::create().revocation_list(&[], 1, NO_REPLACEMENT));
    let (code, said) = check(&[]);
    assert!(code == Some(78) && said.contains("was not signed by the authority of this name"), "{code:?}: {said}");
}
