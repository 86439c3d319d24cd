//! How fast the whole of weir is from outside: a real `weir` process, publishes over loopback, acknowledgements counted.
//!
//! `cargo bench --bench door` prints readings per second for 100 connections with 100 publishes of QoS 1 in flight, and
//! the median time from PUBLISH to PUBACK of one connection with one in flight beside that of a bare write and
//! `fdatasync` on the same disk. Arguments: `-- [messages] [connections] [in flight]`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

const METRICS: [&str; 3] = ["temperature", "humidity", "pressure"];

/// Publishes written at once at most: about what fits into one segment of a loopback connection.
const BURST: u64 = 256;

/// Round trips of the latency measurement.
const ROUND_TRIPS: usize = 2_000;

/// A PUBACK of MQTT 3.1.1 is four bytes long.
const PUBACK_BYTES: usize = 4;

struct Server {
    process: Child,
    directory: tempfile::TempDir,
    mqtt: String,
    http: String,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let process = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["run"])
            .current_dir(directory.path())
            .env("WEIR_NODE__DATA_DIR", &data)
            .env("WEIR_MQTT__LISTEN", "127.0.0.1:0")
            .env("WEIR_HTTP__LISTEN", "127.0.0.1:0")
            .env("WEIR_SIMULATOR__ENABLED", "false")
            .stdout(Stdio::null())
            .spawn()
            .expect("weir starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        let addresses: serde_json::Value = loop {
            if let Ok(text) = std::fs::read_to_string(data.join("addresses.json")) {
                break serde_json::from_str(&text).expect("addresses.json is JSON");
            }
            assert!(Instant::now() < deadline, "weir did not start listening");
            std::thread::yield_now();
        };
        let address = |name: &str| addresses[name].as_str().expect("an address").to_owned();
        Self { process, mqtt: address("mqtt"), http: address("http"), directory }
    }

    fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.http).expect("HTTP answers");
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.http);
        stream.write_all(request.as_bytes()).expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

fn connect_packet(client_id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + client_id.len() as u8, 0, 4];
    packet.extend_from_slice(b"MQTT\x04\x02\x00\x3c");
    packet.extend_from_slice(&(client_id.len() as u16).to_be_bytes());
    packet.extend_from_slice(client_id.as_bytes());
    packet
}

/// Appends one PUBLISH of QoS 1 with a payload of about 100 bytes.
fn publish(device: &str, seq: u64, packet_id: u16, time_ms: u128, payload: &mut String, out: &mut Vec<u8>) {
    payload.clear();
    let metric = METRICS[(seq % 3) as usize];
    let value = 2000 + (seq.wrapping_mul(2_654_435_761) >> 7) % 1000;
    let written = write!(
        payload,
        r#"{{"device_id":"{device}","metric":"{metric}","value":{}.{:02},"timestamp":{time_ms},"seq":{seq}}}"#,
        value / 100,
        value % 100
    );
    written.expect("writing to a String does not fail");
    let topic_len = "devices//telemetry".len() + device.len();
    let remaining = 2 + topic_len + 2 + payload.len();
    assert!((128..16_384).contains(&remaining), "the remaining length takes two bytes");
    out.extend_from_slice(&[0x32, (remaining % 128) as u8 | 0x80, (remaining / 128) as u8]);
    out.extend_from_slice(&(topic_len as u16).to_be_bytes());
    for part in ["devices/", device, "/telemetry"] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(&packet_id.to_be_bytes());
    out.extend_from_slice(payload.as_bytes());
}

/// Publishes `messages` and returns when all are acknowledged.
async fn device(address: Arc<str>, index: usize, messages: u64, in_flight: u64) {
    let name = format!("bench-device-{index:05}");
    let mut stream = tokio::net::TcpStream::connect(&*address).await.expect("a connection");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream.write_all(&connect_packet(&name)).await.expect("CONNECT");
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await.expect("CONNACK");
    assert_eq!(connack, [0x20, 2, 0, 0]);
    let (mut sent, mut acknowledged_bytes) = (0u64, 0usize);
    let (mut out, mut payload, mut acknowledgements) = (Vec::new(), String::new(), vec![0; 4096]);
    while acknowledged_bytes < messages as usize * PUBACK_BYTES {
        let acknowledged = (acknowledged_bytes / PUBACK_BYTES) as u64;
        let end = messages.min(acknowledged + in_flight).min(sent + BURST);
        out.clear();
        let time_ms = now_ms();
        for seq in sent..end {
            publish(&name, seq, (seq % in_flight + 1) as u16, time_ms, &mut payload, &mut out);
        }
        sent = end;
        stream.write_all(&out).await.expect("PUBLISH");
        let read = stream.read(&mut acknowledgements).await.expect("PUBACK");
        assert_ne!(read, 0, "weir closed the connection");
        acknowledged_bytes += read;
    }
}

fn throughput(server: &Server, messages: u64, connections: usize, in_flight: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let address: Arc<str> = server.mqtt.as_str().into();
    let each = messages / connections as u64;
    let started = Instant::now();
    runtime.block_on(async {
        let devices: Vec<_> =
            (0..connections).map(|index| tokio::spawn(device(address.clone(), index, each, in_flight))).collect();
        for device in devices {
            device.await.expect("a device does not panic");
        }
    });
    let acknowledged = started.elapsed();
    let total = each * connections as u64;
    while server.metric("weir_readings_received_total") < total as f64 {
        std::thread::yield_now();
    }
    let processed = started.elapsed();
    println!(
        "{connections} connections, {in_flight} in flight: {total} publishes acknowledged in {:.2} s = {:.0}/s, \
         in windows after {:.2} s = {:.0}/s",
        acknowledged.as_secs_f64(),
        total as f64 / acknowledged.as_secs_f64(),
        processed.as_secs_f64(),
        total as f64 / processed.as_secs_f64(),
    );
    assert_eq!(server.metric("weir_readings_unaccounted"), 0.0);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn round_trip(server: &Server) -> Duration {
    let mut stream = TcpStream::connect(&server.mqtt).expect("a connection");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    stream.write_all(&connect_packet("bench-latency")).expect("CONNECT");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("CONNACK");
    let (mut out, mut payload) = (Vec::new(), String::new());
    let times = (0..ROUND_TRIPS as u64).map(|seq| {
        out.clear();
        publish("bench-latency", seq, 1, now_ms(), &mut payload, &mut out);
        let started = Instant::now();
        stream.write_all(&out).expect("PUBLISH");
        stream.read_exact(&mut answer).expect("PUBACK");
        started.elapsed()
    });
    median(times.collect())
}

fn bare_sync(directory: &Path) -> Duration {
    let mut file = std::fs::File::create(directory.join("bare")).expect("a file");
    let times = (0..ROUND_TRIPS).map(|_| {
        let started = Instant::now();
        file.write_all(&[7; 220]).expect("a write");
        file.sync_data().expect("a sync");
        started.elapsed()
    });
    median(times.collect())
}

fn main() {
    // `cargo bench` passes --bench; `cargo test --benches` does not, and nothing is measured then.
    let mut arguments = std::env::args().skip(1);
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut number = |default: u64| arguments.find_map(|argument| argument.parse().ok()).unwrap_or(default);
    let (messages, connections, in_flight) = (number(5_000_000), number(100), number(100));
    let server = Server::start();
    let bare = bare_sync(server.directory.path());
    let publish = round_trip(&server);
    println!(
        "one connection, one in flight: PUBLISH to PUBACK {publish:?}, a bare write and fdatasync {bare:?}: {:.2} times",
        publish.as_secs_f64() / bare.as_secs_f64()
    );
    throughput(&server, messages, connections as usize, in_flight);
}
