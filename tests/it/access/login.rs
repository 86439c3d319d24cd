//! Who may connect: clients with a password, with a certificate, and anonymous ones.

use std::net::TcpStream;
use std::process::Stdio;

use rustls::version::TLS13;

use crate::WEIR;
use weir_test_kit::certificates::CertificateAuthority;
use weir_test_kit::mqtt::{ConnectPacket, MqttVersion, TestClient, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{DEADLINE, wait_for};
use weir_test_kit::websocket::WebSocketStream;

const REFUSED: &str = "weir_mqtt_connections_refused_total";
pub const BOTH: [MqttVersion; 2] = [MqttVersion::V4, MqttVersion::V5];

/// Adds a user with `weir passwd`.
#[track_caller]
pub fn add_user(weir: &Weir, name: &str, password: &str, roles: &[&str]) {
    let mut command = weir.command(&["passwd", "add", name, "--stdin"]);
    for role in roles {
        command.args(["--role", role]);
    }
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, format!("{password}\n").as_bytes()).expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A weir with these users and passwords, not started. The role of the bridge allows every topic.
pub fn with_users(users: &[(&str, &str)], settings: &[(&str, &str)]) -> Weir {
    let mut all = vec![("mqtt.auth.users", "'users'")];
    all.extend_from_slice(settings);
    let weir = WEIR.prepare(&all);
    for (name, password) in users {
        add_user(&weir, name, password, &["bridge"]);
    }
    weir
}

fn started(users: &[(&str, &str)], settings: &[(&str, &str)]) -> Weir {
    let mut weir = with_users(users, settings);
    weir.restart();
    weir
}

fn login(version: MqttVersion, client_id: &str, user: &str, password: &str) -> ConnectPacket {
    ConnectPacket::new(version, client_id).user(user).password(password)
}

/// The lines of the audit log with this event.
pub fn events(weir: &Weir, event: &str) -> Vec<String> {
    let output = weir.output();
    let found = output.lines().filter(|line| line.contains(&format!("event=\"{event}\"")));
    found.map(str::to_owned).collect()
}

/// Connects all clients at once: delays of refusals grow per address, but run side by side.
#[track_caller]
fn check_codes(weir: &Weir, expected: &[(ConnectPacket, u8)]) {
    std::thread::scope(|scope| {
        let asked: Vec<_> = expected.iter().map(|(connect, _)| scope.spawn(|| connect.code(weir.mqtt()))).collect();
        for (index, (code, (_, expected))) in asked.into_iter().zip(expected).enumerate() {
            assert_eq!(code.join().expect("an answer"), *expected, "number {index}");
        }
    });
}

/// The CONNACK codes "bad user name or password" and "not authorized" of a protocol version.
fn codes(version: MqttVersion) -> (u8, u8) {
    if version == MqttVersion::V5 { (0x86, 0x87) } else { (4, 5) }
}

#[test]
fn users_come_in_with_their_password_and_nobody_else() {
    let weir = started(&[("pump-7", "säsäme öpen"), ("ada", "x")], &[]);
    for version in BOTH {
        let (bad, needed) = codes(version);
        let user = |name: &str, password: &str| login(version, &format!("c-{name}"), name, password);
        check_codes(
            &weir,
            &[
                (user("pump-7", "säsäme öpen"), 0),
                (user("ada", "x"), 0),
                (user("ada", "säsäme öpen"), bad),
                (user("nobody", "x"), bad),
                (user("ada", ""), bad),
                (user("", "x"), bad),
                (ConnectPacket::new(version, "c").user("ada"), bad),
                (ConnectPacket::new(version, "c"), needed),
            ],
        );
    }
    assert_eq!(
        ConnectPacket::new(MqttVersion::V5, "c").password("x").code(weir.mqtt()),
        0x86,
        "a password without a user"
    );
    let reason = |reason: &str| weir.metric(&format!("{REFUSED}{{reason=\"{reason}\"}}"));
    assert_eq!((reason("bad_credentials"), reason("not_authorized")), (11.0, 2.0));
    let connected = events(&weir, "mqtt_connected");
    let of_pump = connected.iter().find(|line| line.contains("user=pump-7")).expect("an event");
    assert!(connected.len() == 4 && of_pump.contains("detail=bridge"), "{connected:?}");
    // One audit event per address and interval.
    assert_eq!(events(&weir, "mqtt_refused").len(), 1, "{:?}", events(&weir, "mqtt_refused"));
    for secret in ["säsäme", "argon2id$", "sasame"] {
        assert!(!weir.output().contains(secret), "{secret} is in the log");
    }
}

#[test]
fn a_password_that_was_checked_is_not_hashed_again() {
    let weir = started(&[("pump", "secret")], &[]);
    let checked = |how: &str| {
        let text = weir.get("/metrics").ok().text();
        let name = format!("weir_mqtt_passwords_checked_total{{how=\"{how}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    for version in BOTH {
        for _ in 0..3 {
            assert_eq!(login(version, "c", "pump", "secret").code(weir.mqtt()), 0);
            assert_ne!(login(version, "c", "pump", "wrong").code(weir.mqtt()), 0);
        }
    }
    assert_eq!((checked("argon2"), checked("remembered")), (2.0, 10.0));
}

#[test]
fn generated_secrets_are_printed_once_and_let_in() {
    let mut weir = with_users(&[], &[]);
    let output = weir.command(&["passwd", "add", "pump", "--generate"]).output().expect("it runs");
    let secret = String::from_utf8(output.stdout).expect("text");
    assert_eq!(secret.trim_end().len(), 32, "{secret:?}");
    let file = std::fs::read_to_string(weir.path("users")).expect("a users file");
    assert!(file.starts_with("pump::$generated-sha256$") && !file.contains(secret.trim_end()), "{file}");
    weir.restart();
    for version in BOTH {
        assert_eq!(login(version, "c", "pump", secret.trim_end()).code(weir.mqtt()), 0);
        assert_ne!(login(version, "c", "pump", &secret[1..]).code(weir.mqtt()), 0);
    }
    assert_eq!(weir.metric("weir_mqtt_passwords_checked_total{how=\"generated\"}"), 2.0);
}

#[test]
fn anonymous_clients_beside_users() {
    let weir = started(&[("ada", "x")], &[("mqtt.allow_anonymous", "true")]);
    for version in BOTH {
        // A client that sends a user name must prove it.
        let (bad, _) = codes(version);
        let (right, wrong) = (login(version, "c", "ada", "x"), login(version, "c", "ada", "y"));
        let stranger = login(version, "c", "bob", "y");
        check_codes(&weir, &[(ConnectPacket::new(version, "c"), 0), (right, 0), (wrong, bad), (stranger, bad)]);
    }
}

#[test]
fn without_users_no_name_is_believed() {
    let weir = WEIR.start(&[]);
    for version in BOTH {
        assert_eq!(login(version, "c", "ada", "x").code(weir.mqtt()), 0);
    }
    let connected = events(&weir, "mqtt_connected");
    assert!(connected.iter().all(|line| line.contains("anonymous") && !line.contains("ada")), "{connected:?}");
}

#[test]
fn passwords_over_websocket() {
    let weir = started(&[("pump", "secret")], &[]);
    let stream = || {
        let stream = TcpStream::connect(weir.http()).expect("a socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        WebSocketStream::open(stream, 7, "Sec-WebSocket-Protocol: mqtt\r\n").expect("a WebSocket")
    };
    for version in BOTH {
        let (mut client, answer) = login(version, "c", "pump", "secret").open_over(stream());
        assert_eq!(answer.body[1], 0);
        client.ping();
        let bad = if version == MqttVersion::V5 { 0x86 } else { 4 };
        assert_eq!(login(version, "c", "pump", "wrong").open_over(stream()).1.body[1], bad);
    }
}

fn with_certificates<'a>(
    authority: &CertificateAuthority,
    asked: &'a str,
    values: &'a mut Vec<String>,
) -> Vec<(&'a str, &'a str)> {
    authority.issue("server", "server", 2099);
    *values = [authority.toml("server.pem"), authority.toml("server.key"), authority.toml("ca.pem")].into();
    vec![
        ("mqtt.tls.listen", "'127.0.0.1:0'"),
        ("mqtt.tls.cert", &values[0]),
        ("mqtt.tls.key", &values[1]),
        ("mqtt.tls.client_ca", &values[2]),
        ("mqtt.tls.client_certificates", asked),
    ]
}

#[test]
fn certificates_are_users() {
    let authority = CertificateAuthority::create();
    authority.issue("pump", "pump-7", 2099);
    authority.issue("ada", "ada", 2099);
    authority.issue("odd", "a/b", 2099);
    let mut values = Vec::new();
    let settings = with_certificates(&authority, "'optional'", &mut values);
    let weir = started(&[("ada", "x")], &settings);
    let stream = |name: Option<&str>| authority.connect(weir.mqtt_tls(), name, &[&TLS13]).expect("a TLS connection");
    for version in BOTH {
        let (bad, needed) = codes(version);
        let code = |connect: ConnectPacket, name| connect.open_over(stream(name)).1.body[1];
        assert_eq!(code(ConnectPacket::new(version, "c"), Some("pump")), 0);
        assert_eq!(code(ConnectPacket::new(version, "c").user("pump-7"), Some("pump")), 0, "the same name");
        assert_eq!(code(login(version, "c", "pump-7", "any"), Some("pump")), 0, "no password is asked");
        assert_eq!(code(login(version, "c", "ada", "x"), Some("pump")), bad, "another name than the certificate's");
        assert_eq!(code(ConnectPacket::new(version, "c"), Some("ada")), 0);
        assert_eq!(code(ConnectPacket::new(version, "c"), Some("odd")), needed, "no user name");
        assert_eq!(code(login(version, "c", "ada", "x"), Some("odd")), 0, "a password helps");
        assert_eq!(code(login(version, "c", "ada", "x"), None), 0);
        assert_eq!(code(ConnectPacket::new(version, "c"), None), needed);
    }
    let connected = events(&weir, "mqtt_connected");
    let of = |user: &str| connected.iter().find(|line| line.contains(&format!("user={user}"))).expect("an event");
    assert!(of("pump-7").contains("detail=device"), "{}", of("pump-7"));
    assert!(of("ada").contains("detail=bridge"), "roles of the users file hold: {}", of("ada"));
}

#[test]
fn certificates_alone_keep_the_others_out() {
    let authority = CertificateAuthority::create();
    authority.issue("pump", "pump-7", 2099);
    let mut values = Vec::new();
    let settings = with_certificates(&authority, "'optional'", &mut values);
    let weir = WEIR.start(&settings);
    let stream = |name: Option<&str>| authority.connect(weir.mqtt_tls(), name, &[&TLS13]).expect("a TLS connection");
    let connect = ConnectPacket::new(MqttVersion::V5, "c");
    assert_eq!(connect.open_over(stream(Some("pump"))).1.body[1], 0);
    assert_eq!(connect.open_over(stream(None)).1.body[1], 0x87);
    assert_eq!(connect.code(weir.mqtt()), 0x87);
    assert_eq!(login(MqttVersion::V5, "c", "pump-7", "x").code(weir.mqtt()), 0x87, "there are no passwords");
}

/// A client identifier that another user has used gives no access to the session of that user.
#[test]
fn each_user_has_sessions_of_its_own() {
    let weir = started(&[("ada", "a"), ("eve", "e")], &[("mqtt.allow_anonymous", "true")]);
    for version in BOTH {
        let id = format!("same-{version:?}");
        let topic = format!("for/ada/{version:?}");
        let owner = login(version, &id, "ada", "a").kept(3_600);
        let (mut ada, present) = owner.accepted(weir.mqtt());
        assert!(!present);
        ada.subscribe(&topic, 1);
        for _ in 0..20 {
            for stranger in [login(version, &id, "eve", "e").kept(3_600), ConnectPacket::new(version, &id)] {
                let (mut client, present) = stranger.accepted(weir.mqtt());
                assert!(!present || stranger.packet() == login(version, &id, "eve", "e").kept(3_600).packet());
                client.ping();
                client.expect_nothing();
            }
        }
        ada.ping();
        drop(ada);
        let mut publisher = TestClient::connect(weir.mqtt(), version, "publisher");
        // Until weir notices the lost connection it sends the message there, and again on the next connection.
        publisher.publish_message(&TestMessage::new(&topic, "hers", 1));
        let (mut eve, _) = login(version, &id, "eve", "e").kept(3_600).accepted(weir.mqtt());
        eve.expect_nothing();
        let (mut ada, present) = owner.accepted(weir.mqtt());
        assert!(present, "her session is there");
        assert_eq!(ada.take_message().text(), "hers");
    }
}

#[test]
fn refusals_come_later_and_later_and_hold_nobody_else_up() {
    let weir = started(&[("ada", "a")], &[]);
    let wrong = login(MqttVersion::V5, "c", "ada", "wrong");
    for _ in 0..3 {
        assert_eq!(wrong.code(weir.mqtt()), 0x86);
    }
    // From here on a refusal takes at least two seconds, so all of these wait at once.
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let mut client = TestClient::open(weir.mqtt(), MqttVersion::V5).expect("a socket");
            client.send(&wrong.packet()).expect("it is sent");
            client
        })
        .collect();
    // Fewer than ten: the gauge is set once per second, and on a slow machine the first refusal may be answered by
    // then.
    wait_for("they wait", || (weir.metric_sum("weir_mqtt_refusals_delayed") >= 4.0).then_some(()));
    let mut good = login(MqttVersion::V5, "good", "ada", "a").accepted(weir.mqtt()).0;
    good.ping();
    assert!(weir.metric("weir_mqtt_failing_addresses") == 1.0);
    for mut client in waiting {
        let answer = client.until_closed();
        assert_eq!((answer.len(), answer[0].body[1]), (1, 0x86));
    }
    wait_for("none waits", || (weir.metric("weir_mqtt_refusals_delayed") == 0.0).then_some(()));
}

/// weir stops at once while refusals are delayed.
#[test]
fn a_stop_does_not_wait_for_refusals() {
    let mut weir = started(&[("ada", "a")], &[]);
    let wrong = login(MqttVersion::V4, "c", "ada", "wrong");
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut client = TestClient::open(weir.mqtt(), MqttVersion::V4).expect("a socket");
        client.send(&wrong.packet()).expect("it is sent");
        waiting.push(client);
    }
    wait_for("some wait", || (weir.metric_sum("weir_mqtt_refusals_delayed") >= 2.0).then_some(()));
    weir.terminate();
}
