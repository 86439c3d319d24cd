//! TLS listeners of MQTT and HTTP, with certificates that change and certificates that are wrong.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};

use crate::WEIR;
use weir_test_kit::certificates::CertificateAuthority;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::programs::{program, python, succeeded};
use weir_test_kit::wait::{wait_for, window_before};

const REFUSED: &str = "weir_mqtt_connections_refused_total";

pub fn start(authority: &CertificateAuthority, settings: &[(&str, &str)]) -> Weir {
    authority.issue("server", "first", 2099);
    let (cert, key) = (authority.toml("server.pem"), authority.toml("server.key"));
    let mut all = vec![
        ("mqtt.tls.listen", "'127.0.0.1:0'"),
        ("mqtt.tls.cert", cert.as_str()),
        ("mqtt.tls.key", key.as_str()),
        ("http.tls.listen", "'127.0.0.1:0'"),
        ("http.tls.cert", cert.as_str()),
        ("http.tls.key", key.as_str()),
    ];
    all.extend_from_slice(settings);
    WEIR.start(&all)
}

fn client(authority: &CertificateAuthority, weir: &Weir, version: MqttVersion, id: &str) -> TestClient {
    let stream = authority.connect(weir.mqtt_tls(), None, &[&TLS12, &TLS13]).expect("a TLS connection");
    TestClient::connect_over(stream, version, id).expect("a session")
}

#[test]
fn mqtt_over_both_versions_of_tls() {
    let authority = CertificateAuthority::create();
    let weir = start(&authority, &[]);
    let start = window_before(60);
    for (name, tls) in [("tls12", &TLS12), ("tls13", &TLS13)] {
        let stream = authority.connect(weir.mqtt_tls(), None, &[tls]).expect("a TLS connection");
        let mut device = TestClient::connect_over(stream, MqttVersion::V5, name).expect("a session");
        device.subscribe(&format!("weir/windows/{name}/+"), 1);
        // More than a TLS record, both ways.
        let readings: Vec<String> = (0..1_000)
            .map(|n| format!(r#"{{"metric":"m","value":1,"timestamp":{},"seq":{n}}}"#, start + n * 2))
            .collect();
        device.telemetry(name, &format!("[{}]", readings.join(",")));
        device.telemetry(name, &format!(r#"{{"metric":"m","value":1,"timestamp":{},"seq":1000}}"#, start + 8_000));
        let (topic, payload) = device.message();
        let window: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!((topic, &window["count"]), (format!("weir/windows/{name}/m"), &serde_json::json!(1_000)));
    }
    weir.assert_accounted();
}

#[test]
fn large_messages_reach_a_subscriber_behind_tls() {
    let authority = CertificateAuthority::create();
    let weir = start(&authority, &[("mqtt.max_queued_bytes", "'4MiB'")]);
    let mut subscriber = client(&authority, &weir, MqttVersion::V4, "subscriber");
    subscriber.subscribe("big/#", 1);
    let mut publisher = client(&authority, &weir, MqttVersion::V4, "publisher");
    let payload = "x".repeat(200_000);
    for n in 0..20 {
        publisher.publish(&format!("big/{n}"), &payload, 1);
    }
    for n in 0..20 {
        let (topic, received) = subscriber.message();
        assert_eq!((topic, received.len()), (format!("big/{n}"), payload.len()));
    }
}

#[test]
fn https_serves_the_same_paths() {
    let authority = CertificateAuthority::create();
    let weir = start(&authority, &[]);
    let mut stream = authority.connect(weir.https(), None, &[&TLS13]).expect("a TLS connection");
    stream
        .write_all(b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("it is sent");
    let mut answer = String::new();
    // The server ends TLS before TCP, or this is an error.
    stream.read_to_string(&mut answer).expect("an answer and its end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(status["tls"][0]["listener"], "mqtt");
    assert_eq!(status["tls"][1]["subject"], "CN=first");
    assert!(status["tls"][1]["days_left"].as_i64() > Some(20_000), "{status}");
    let expiry = weir.metric_sum("weir_tls_certificate_expiry_timestamp_seconds");
    assert_eq!(expiry, 2.0 * status["tls"][0]["not_after"].as_f64().expect("a time") / 1_000.0);
}

#[test]
fn certificates_are_replaced_under_open_connections() {
    let authority = CertificateAuthority::create();
    let weir = start(&authority, &[]);
    let mut open = client(&authority, &weir, MqttVersion::V4, "open");
    let shown = || {
        let stream = authority.connect(weir.mqtt_tls(), None, &[&TLS13]).expect("a TLS connection");
        authority.shown(&stream)
    };
    assert!(shown().contains("first"));
    // weir reloads changed files without a signal.
    authority.issue("server", "second", 2099);
    wait_for("the second certificate is shown", || shown().contains("second").then_some(()));
    // On SIGHUP.
    authority.issue("server", "third", 2099);
    weir.signal(Signal::HUP);
    wait_for("the third certificate is shown", || shown().contains("third").then_some(()));
    // A broken certificate is reported and not used.
    authority.write("server.pem", "broken");
    weir.signal(Signal::HUP);
    let error =
        wait_for("the failure is shown", || weir.json("/api/v1/status")["tls"][0]["error"].as_str().map(str::to_owned));
    assert!(error.contains("server.pem: it has no certificate"), "{error}");
    wait_for("the metric says so", || (weir.metric_sum("weir_tls_certificate_reload_failed") >= 1.0).then_some(()));
    assert!(weir.output().contains("the files loaded before stay in use"), "{}", weir.output());
    assert!(shown().contains("third"));
    // So is an expired one.
    authority.issue("server", "expired", 2021);
    wait_for("its failure is shown", || {
        let error = weir.json("/api/v1/status")["tls"][0]["error"].as_str()?.to_owned();
        error.contains("expired at").then_some(())
    });
    assert!(shown().contains("third"));
    authority.issue("server", "fourth", 2099);
    wait_for("the fourth certificate is shown", || shown().contains("fourth").then_some(()));
    wait_for("all is well again", || (weir.metric_sum("weir_tls_certificate_reload_failed") == 0.0).then_some(()));
    open.telemetry("open", r#"{"metric":"m","value":1}"#);
}

#[test]
fn a_client_certificate_is_who_one_is() {
    let authority = CertificateAuthority::create();
    authority.issue("pump", "pump-7", 2099);
    let ca = authority.toml("ca.pem");
    let asked = [
        ("mqtt.tls.client_ca", ca.as_str()),
        ("mqtt.tls.client_certificates", "'required'"),
        ("mqtt.allow_anonymous", "false"),
    ];
    let weir = start(&authority, &asked);
    for tls in [&TLS12, &TLS13] {
        let stream = authority.connect(weir.mqtt_tls(), Some("pump"), &[tls]).expect("a TLS connection");
        TestClient::connect_over(stream, MqttVersion::V4, "pump-7").expect("no password is asked").ping();
        // With TLS 1.3 the client learns of the refusal only when it reads.
        let nobody = authority.connect(weir.mqtt_tls(), None, &[tls]);
        assert!(nobody.and_then(|stream| TestClient::connect_over(stream, MqttVersion::V4, "x")).is_err());
    }
    let stranger = CertificateAuthority::create();
    stranger.issue("pump", "pump-7", 2099);
    std::fs::copy(authority.path("ca.pem"), stranger.path("ca.pem")).expect("the stranger trusts the server");
    let forged = stranger.connect(weir.mqtt_tls(), Some("pump"), &[&TLS13]);
    assert!(forged.and_then(|stream| TestClient::connect_over(stream, MqttVersion::V4, "x")).is_err());
    assert!(
        TestClient::try_connect(weir.mqtt(), MqttVersion::V4, "plain").is_err(),
        "without TLS there is no certificate"
    );
}

#[test]
fn silent_handshakes_disturb_nobody() {
    let authority = CertificateAuthority::create();
    let limits = [("mqtt.connect_timeout", "'2s'"), ("mqtt.tls.max_handshakes", "100")];
    let weir = start(&authority, &limits);
    let done = AtomicBool::new(false);
    // This client connects first: while pending connections take all permits, another one is refused for a second.
    let mut device = client(&authority, &weir, MqttVersion::V4, "good");
    std::thread::scope(|scope| {
        let good = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) || count < 100 {
                device.telemetry("good", &format!(r#"{{"metric":"m","value":1,"seq":{count}}}"#));
                count += 1;
            }
            count
        });
        let silent: Vec<TcpStream> = (0..1_000).filter_map(|_| TcpStream::connect(weir.mqtt_tls()).ok()).collect();
        // The limit is a hundred pending handshakes, and an honest client is still accepted.
        wait_for("a new client is served among them", || {
            let stream = authority.connect(weir.mqtt_tls(), None, &[&TLS13]).ok()?;
            TestClient::connect_over(stream, MqttVersion::V5, "new").ok()
        });
        wait_for("all silent ones are gone", || (weir.metric_sum(REFUSED) >= 1_000.0).then_some(()));
        done.store(true, Ordering::Relaxed);
        let count = good.join().expect("the good device was served");
        wait_for("all of it was taken", || {
            (weir.json("/api/v1/devices/good")["accepted"].as_u64() == Some(count)).then_some(())
        });
        drop(silent);
    });
}

#[test]
fn check_finds_what_is_wrong() {
    let authority = CertificateAuthority::create();
    authority.issue("server", "right", 2099);
    authority.issue("other", "other", 2099);
    authority.issue("old", "old", 2021);
    let (cert, key) = (authority.toml("server.pem"), authority.toml("server.key"));
    let check = |cert: &str, key: &str| {
        let settings = [("mqtt.tls.listen", "'127.0.0.1:8883'"), ("mqtt.tls.cert", cert), ("mqtt.tls.key", key)];
        let weir = WEIR.prepare(&settings);
        let output = weir.command(&["check"]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&cert, &key), (Some(0), String::new()));
    let wrong = |cert: &str, key: &str, expected: &str| {
        let (code, said) = check(cert, key);
        assert!(code == Some(78) && said.contains(expected), "{code:?}: {said}");
    };
    wrong("''", &key, "mqtt.tls.cert: it is empty while mqtt.tls.listen is on");
    wrong("'/nowhere/cert.pem'", &key, "cannot be read");
    wrong(&cert, &authority.toml("other.key"), "this is not the key of the first certificate");
    wrong(&authority.toml("old.pem"), &authority.toml("old.key"), "expired at 2021-12-31T00:00:00Z");
    succeeded(Command::new("chmod").arg("644").arg(authority.path("server.key")));
    let (code, said) = check(&cert, &key);
    assert!(code == Some(0) && said.contains("warning: mqtt.tls: ") && said.contains("chmod"), "{code:?}: {said}");
}

#[test]
fn real_clients_with_tls() {
    let authority = CertificateAuthority::create();
    let weir = start(&authority, &[]);
    let ca = authority.path("ca.pem").display().to_string();
    let port = weir.mqtt_tls().port().to_string();
    for (seq, version) in ["mqttv311", "mqttv5"].iter().enumerate() {
        let payload = format!(r#"{{"metric":"m","value":1,"seq":{seq}}}"#);
        succeeded(
            program("mosquitto_pub").args(["-h", "localhost", "-p", &port, "--cafile", &ca, "-V", version]).args([
                "-q",
                "1",
                "-t",
                "devices/mosquitto/telemetry",
                "-m",
                &payload,
            ]),
        );
    }
    wait_for("both are counted", || {
        (weir.json("/api/v1/devices/mosquitto")["accepted"].as_u64() == Some(2)).then_some(())
    });
    let distrusting = program("mosquitto_pub")
        .args(["-h", "localhost", "-p", &port, "--tls-use-os-certs", "-t", "x", "-m", "x"])
        .output()
        .expect("it runs");
    assert!(!distrusting.status.success(), "an authority that nobody trusts");
    let url = format!("https://localhost:{}/healthz", weir.https().port());
    succeeded(program("curl").args(["--silent", "--show-error", "--fail", "--ipv4", "--cacert", &ca, &url]));
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = program("openssl");
        openssl.args(["s_client", "-brief", "-verify_return_error", "-verify_hostname", "localhost", "-CAfile", &ca]);
        openssl.args([version, "-connect", &weir.mqtt_tls().to_string()]).stdin(std::process::Stdio::null());
        succeeded(&mut openssl);
    }
    let old = program("openssl")
        .args(["s_client", "-brief", "-tls1_1", "-cipher", "ALL@SECLEVEL=0", "-connect", &weir.mqtt_tls().to_string()])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("it runs");
    assert!(!old.status.success(), "TLS 1.1 is not spoken");
    let start = window_before(60).to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/paho_peer.py");
    for version in ["3.1.1", "5"] {
        let device = format!("paho-tls-{version}");
        succeeded(Command::new(python()).arg(script).args([&port, version, "1", &device, &start, "tcp", &ca]));
    }
    weir.assert_accounted();
}
