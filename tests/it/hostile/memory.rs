//! Clients that have not logged in and want weir's memory, over every transport, beside a client that must get in.

use std::fs;
use std::io::{Read as _, Write};
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::WEIR;
use crate::access::login::with_users;
use weir_test_kit::certificates::CertificateAuthority;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage, packet};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

const EVICTIONS: &str = "weir_pending_evictions_total{reason=\"bytes\"}";
const REFUSED: &str = "weir_mqtt_connections_refused_total";
/// `limits.pending_bytes` of these tests.
const PENDING_BYTES: f64 = 2_097_152.0;
/// Far more than a weir under attack needs, Argon2 included, and far less than what the attackers send.
const RESIDENT_MIB: u64 = 110;
const ATTACKERS: usize = 700;

/// Largest resident memory of the process so far.
fn peak_mib(weir: &Weir) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", weir.pid().as_raw_nonzero())).expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1_024
}

/// A CONNECT with a will, of 240,000 bytes, of which the last bytes are missing. weir does not look at the middle before.
fn unfinished() -> Vec<u8> {
    let mut packet = packet(0x10, &[&b"\0\x04MQTT\x05\x06\0\x3c"[..], &[b'x'; 240_000]].concat());
    packet.truncate(packet.len() - 10);
    packet
}

/// Sends `bytes` on many streams that stay open, and checks what weir holds, and that a client gets in meanwhile.
fn check_bounded<S: Write>(weir: &Weir, bytes: &[u8], open: impl Fn() -> Option<S>) {
    let mut streams = Vec::new();
    for number in 0..ATTACKERS {
        let Some(mut stream) = open() else { continue };
        // weir closes connections beyond its bounds; that is no failure of the test.
        let _ = stream.write_all(bytes);
        streams.push(stream);
        if number % 100 == 99 {
            wait_for("a client gets in", || TestClient::try_connect(weir.mqtt(), MqttVersion::V5, "new").ok());
        }
    }
    let held = || Some(weir.metric("weir_pending_bytes")).filter(|held| *held <= PENDING_BYTES);
    wait_for("the memory is bounded", held);
    let refused = weir.metric_sum("weir_limits_hit_total");
    assert!(weir.metric_sum("weir_pending_evictions_total") + refused >= 1.0, "nobody had to give way");
    assert!(peak_mib(weir) < RESIDENT_MIB, "{} MiB", peak_mib(weir));
    drop(streams);
    wait_for("all memory is given back", || (weir.metric("weir_pending_bytes") < 100_000.0).then_some(()));
}

fn plain(weir: &Weir) -> Option<TcpStream> {
    TcpStream::connect(weir.mqtt()).ok()
}

const SETTINGS: [(&str, &str); 3] = [
    ("limits.pending_bytes", "'2MiB'"),
    ("mqtt.connect_timeout", "'10m'"),
    ("mqtt.max_connections_per_address", "'off'"),
];

#[test]
fn unfinished_connects() {
    let weir = WEIR.start(&SETTINGS);
    check_bounded(&weir, &unfinished(), || plain(&weir));
    assert!(weir.metric(EVICTIONS) >= 1.0);
}

#[test]
fn unfinished_connects_over_websocket() {
    let weir = WEIR.start(&SETTINGS);
    let packet = unfinished();
    let mut bytes = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        .to_vec();
    bytes.extend(b"\x82\xff");
    bytes.extend((packet.len() as u64).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(packet);
    check_bounded(&weir, &bytes, || TcpStream::connect(weir.http()).ok());
}

#[test]
fn unfinished_heads_of_requests() {
    let weir = WEIR.start(&SETTINGS);
    let head = [&b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nX: "[..], &[b'x'; 15_000]].concat();
    check_bounded(&weir, &head, || TcpStream::connect(weir.http()).ok());
}

#[test]
fn unfinished_handshakes_and_connects_over_tls() {
    let authority = CertificateAuthority::create();
    authority.issue("server", "server", 2099);
    let (cert, key) = (authority.toml("server.pem"), authority.toml("server.key"));
    let tls = [("mqtt.tls.listen", "'127.0.0.1:0'"), ("mqtt.tls.cert", &cert), ("mqtt.tls.key", &key)];
    let weir = WEIR.start(&[&SETTINGS[..], &tls[..]].concat());
    // A ClientHello that claims 64,000 bytes.
    let mut hello = b"\x01\0\xfa\0\x03\x03".to_vec();
    hello.resize(30_000, b'x');
    let records: Vec<u8> = hello
        .chunks(15_000)
        .flat_map(|part| [&b"\x16\x03\x01"[..], &(part.len() as u16).to_be_bytes(), part].concat())
        .collect();
    check_bounded(&weir, &records, || TcpStream::connect(weir.mqtt_tls()).ok());
    let client = authority.client(None, &[&rustls::version::TLS13]);
    check_bounded(&weir, &unfinished(), || weir_test_kit::certificates::connect(weir.mqtt_tls(), &client).ok());
}

/// Silent clients take all file descriptors of the process; they give way to one that connects.
#[test]
fn file_descriptors_run_out() {
    let weir = WEIR.start(&SETTINGS);
    let open = weir.metric("process_open_fds") as u64;
    let limit = |more| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(open + more), maximum };
        prlimit(Some(weir.pid()), Resource::Nofile, limit).expect("the limit can be set")
    };
    let before = limit(20);
    let silent: Vec<_> = (0..60).filter_map(|_| plain(&weir)).collect();
    wait_for("a client gets in", || TestClient::try_connect(weir.mqtt(), MqttVersion::V5, "new").ok());
    drop(silent);
    prlimit(Some(weir.pid()), Resource::Nofile, before).expect("the limit can be raised");
    let hit = "weir_limits_hit_total{limit=\"mqtt_accept\"}";
    wait_for("the failures are counted", || (weir.metric(hit) >= 1.0).then_some(()));
    let _client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "new");
}

#[test]
fn a_connect_is_small_unless_it_carries_a_will() {
    let weir = WEIR.start(&[]);
    let connect = |version, bytes: usize| TestConnect::new(version, "large").user("u").password(&"p".repeat(bytes));
    assert_eq!(connect(MqttVersion::V5, 16_000).code(weir.mqtt()), 0);
    assert_eq!(connect(MqttVersion::V5, 17_000).code(weir.mqtt()), 0x95);
    let mut v4 = TestClient::open(weir.mqtt(), MqttVersion::V4).expect("a connection");
    v4.send(&connect(MqttVersion::V4, 17_000).packet()).expect("it can be sent");
    assert!(v4.until_closed().is_empty());
    let refused = format!("{REFUSED}{{reason=\"connect_too_large\"}}");
    wait_for("both are counted", || (weir.metric(&refused) > 1.5).then_some(()));
    let will = TestMessage { topic: "gone".into(), payload: vec![b'w'; 60_000], ..TestMessage::default() };
    for version in [MqttVersion::V4, MqttVersion::V5] {
        assert_eq!(TestConnect::new(version, "with a will").will(&will).code(weir.mqtt()), 0);
    }
}

/// Refused clients wait seconds for their answers; weir does not keep what they sent, nor their passwords.
#[test]
fn wrong_passwords_of_the_largest_size() {
    let mut weir = with_users(&[("device", "right"), ("other", "right")], &SETTINGS);
    weir.restart();
    let mut refused: Vec<TcpStream> = Vec::new();
    for number in 0..ATTACKERS {
        let password = format!("{number}-{}", "x".repeat(15_000));
        let packet = TestConnect::new(MqttVersion::V5, "guess").user("device").password(&password).packet();
        let Some(mut stream) = plain(&weir) else { continue };
        let _ = stream.write_all(&packet);
        refused.push(stream);
    }
    // A user whose password was never checked, from the address of the attackers: its check has its turn.
    let login = TestConnect::new(MqttVersion::V5, "other").user("other").password("right").packet();
    wait_for("another user gets in", || TestClient::try_connect_with(weir.mqtt(), MqttVersion::V5, &login).ok());
    let held = || Some(weir.metric("weir_pending_bytes")).filter(|held| *held <= PENDING_BYTES);
    wait_for("the memory is bounded", held);
    assert!(peak_mib(&weir) < RESIDENT_MIB, "{} MiB", peak_mib(&weir));
    let is_answered = |mut stream: &TcpStream| stream.read(&mut [0; 2]).is_ok_and(|count| count > 0);
    let answered = refused.iter().filter(|stream| is_answered(stream)).count();
    assert!(answered > 0, "wrong passwords are answered");
    wait_for("all memory is given back", || (weir.metric("weir_pending_bytes") < 100_000.0).then_some(()));
}
