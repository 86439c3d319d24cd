//! Devices without sequence numbers: redelivered messages are counted once, by packet identifier and payload.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::WEIR;
use weir::random::Random;
use weir_test_kit::mqtt::{self, MqttVersion, PUBACK, PUBCOMP, PUBREC, ReceivedPacket, TestClient, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::seed::announced_seed;
use weir_test_kit::wait::{wait_for, window_before};

/// Version, QoS and session of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SessionCase {
    version: MqttVersion,
    qos: u8,
    /// Whether the session ends with the connection.
    clean: bool,
}

fn kinds() -> Vec<SessionCase> {
    let mut kinds = Vec::new();
    for version in [MqttVersion::V4, MqttVersion::V5] {
        for qos in [1, 2] {
            kinds.extend([true, false].map(|clean| SessionCase { version, qos, clean }));
        }
    }
    kinds
}

impl SessionCase {
    fn name(&self) -> String {
        let session = if self.clean { "clean" } else { "kept" };
        format!("{:?}-{}-{session}", self.version, self.qos).to_lowercase()
    }
}

/// A device that publishes readings without sequence numbers and resends unacknowledged messages as MQTT requires.
struct RedeliveringDevice {
    kind: SessionCase,
    name: String,
    start_ms: i64,
    count: u64,
    in_flight: usize,
    /// Unfinished messages in order, and whether the PUBREC of each has arrived.
    pending: VecDeque<(u64, bool)>,
    next: u64,
    resent: u64,
    /// Cuts the first connection at once and others at random; `None`: cuts none.
    cuts: Option<Random>,
}

/// State that the devices share with the thread that kills weir.
struct DeviceControl {
    address: Mutex<SocketAddr>,
    done: AtomicU64,
}

impl DeviceControl {
    fn new(weir: &Weir) -> Self {
        Self { address: Mutex::new(weir.mqtt()), done: AtomicU64::new(0) }
    }
}

impl RedeliveringDevice {
    fn new(kind: SessionCase, count: u64, in_flight: usize) -> Self {
        let (name, start_ms) = (kind.name(), window_before(120));
        Self { kind, name, start_ms, count, in_flight, pending: VecDeque::new(), next: 0, resent: 0, cuts: None }
    }

    /// Publishes until every message is acknowledged; returns the device.
    fn run(mut self, shared: &DeviceControl) -> Self {
        while self.next < self.count || !self.pending.is_empty() {
            let address = *shared.address.lock().expect("no device panicked");
            // The connection ends when weir is killed or it is cut; nobody listens for a moment then.
            if let Ok(client) = self.connect(address) {
                let _ = self.connection(client, shared);
            } else {
                std::thread::yield_now();
            }
        }
        self
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TestClient> {
        let version = self.kind.version;
        let connect = match self.kind.clean {
            true => mqtt::connect_packet(version, &self.name),
            false => mqtt::resuming_connect_packet(version, &self.name),
        };
        TestClient::try_connect_with(address, version, &connect)
    }

    fn connection(&mut self, mut client: TestClient, shared: &DeviceControl) -> io::Result<()> {
        let mut bytes = self.again();
        loop {
            while self.next < self.count && self.pending.len() < self.in_flight {
                bytes.extend(self.publish(self.next, false));
                self.pending.push_back((self.next, false));
                self.next += 1;
            }
            client.send(&bytes)?;
            bytes.clear();
            if self.pending.is_empty() {
                return Ok(());
            }
            let first = self.resent == 0;
            if self.cuts.as_mut().is_some_and(|random| first || random.below(10) == 0) {
                return Ok(());
            }
            let mut answer = Some(client.read()?);
            while let Some(packet) = answer {
                self.answered(&packet, &mut bytes, shared);
                answer = client.take();
            }
        }
    }

    /// Packets that resend the unacknowledged messages in order: PUBLISH with DUP, or PUBREL.
    fn again(&mut self) -> Vec<u8> {
        self.resent += self.pending.len() as u64;
        let pending: Vec<(u64, bool)> = self.pending.iter().copied().collect();
        let packets = pending.into_iter().map(|(number, received)| match received {
            true => mqtt::packet(0x62, &id(number).to_be_bytes()),
            false => self.publish(number, true),
        });
        packets.flatten().collect()
    }

    fn answered(&mut self, packet: &ReceivedPacket, out: &mut Vec<u8>, shared: &DeviceControl) {
        let at = self.pending.iter().position(|(number, _)| id(*number) == packet.id());
        let at = at.unwrap_or_else(|| panic!("{}: {packet:?} answers nothing", self.name));
        match packet.kind {
            PUBREC => {
                assert!(packet.reason() < 0x80 || self.kind.version == MqttVersion::V4, "{packet:?}");
                self.pending[at].1 = true;
                out.extend(mqtt::packet(0x62, &packet.id().to_be_bytes()));
            }
            PUBACK | PUBCOMP => {
                self.pending.remove(at);
                shared.done.fetch_add(1, Ordering::Relaxed);
            }
            _ => panic!("{}: {packet:?}", self.name),
        }
    }

    fn publish(&self, number: u64, dup: bool) -> Vec<u8> {
        let timestamp = self.start_ms + number as i64 * 10;
        let payload = format!(r#"{{"metric":"m","value":{number},"timestamp":{timestamp}}}"#);
        let topic = format!("devices/{}/telemetry", self.name);
        publish_packet(self.kind.version, &topic, payload.as_bytes(), self.kind.qos, dup, id(number))
    }

    /// Checks that every message is in exactly one window.
    #[track_caller]
    fn assert_counted_once(&self, weir: &Weir) {
        let shown = weir.json(&format!("/api/v1/devices/{}", self.name));
        let windows = weir.list("windows", &format!("&device={}", self.name));
        let total = |name: &str| windows.iter().filter_map(|window| window[name].as_f64()).sum::<f64>() as u64;
        assert_eq!((total("count"), total("sum")), (self.count, self.count * (self.count - 1) / 2), "{shown}");
        assert_eq!(shown["accepted"], self.count, "{shown}");
    }
}

fn id(number: u64) -> u16 {
    (number % 65_535) as u16 + 1
}

const FAST: &[(&str, &str)] = &[("window.idle_timeout", "'500ms'"), ("window.allowed_lateness", "'1m'")];

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [FAST, more].concat()
}

/// Readings that were rejected as duplicates, of all devices.
fn duplicates(weir: &Weir) -> f64 {
    weir.metric("weir_readings_rejected_total{reason=\"duplicate\"}")
}

#[test]
fn a_lost_connection_counts_nothing_twice() {
    let mut random = Random::new(announced_seed("redelivery after lost connections"));
    let weir = WEIR.start(FAST);
    let shared = DeviceControl::new(&weir);
    let devices: Vec<RedeliveringDevice> = std::thread::scope(|scope| {
        let devices: Vec<_> = kinds()
            .into_iter()
            .map(|kind| {
                let cuts = Some(random.fork());
                let device = RedeliveringDevice { cuts, ..RedeliveringDevice::new(kind, 2_000, 64) };
                let shared = &shared;
                scope.spawn(move || device.run(shared))
            })
            .collect();
        devices.into_iter().map(|device| device.join().expect("a device did not panic")).collect()
    });
    weir.wait_closed();
    for device in &devices {
        assert!(device.resent > 0, "{}: no connection was cut in time: the test shows nothing", device.name);
        device.assert_counted_once(&weir);
    }
    assert!(duplicates(&weir) > 0.0, "nothing came twice: the test shows nothing");
    weir.assert_accounted();
}

/// Kills weir again and again under devices of all kinds.
fn killed(name: &str, settings: &[(&str, &str)], count: u64, in_flight: usize, kills: u64) {
    let mut random = Random::new(announced_seed(name));
    let mut weir = WEIR.start(&with(settings));
    let shared = DeviceControl::new(&weir);
    let total = count * kinds().len() as u64;
    let mut kill_at: Vec<u64> = (0..kills).map(|_| random.below(total * 9 / 10)).collect();
    kill_at.sort_unstable();
    let devices: Vec<RedeliveringDevice> = std::thread::scope(|scope| {
        let devices: Vec<_> = kinds()
            .into_iter()
            .map(|kind| {
                let device = RedeliveringDevice::new(kind, count, in_flight);
                let shared = &shared;
                scope.spawn(move || device.run(shared))
            })
            .collect();
        for at in &kill_at {
            wait_for("the devices get on", || {
                let ended = devices.iter().any(|device| device.is_finished());
                (shared.done.load(Ordering::Relaxed) >= *at || ended).then_some(())
            });
            weir.kill();
            weir.restart();
            *shared.address.lock().expect("no device panicked") = weir.mqtt();
        }
        devices.into_iter().map(|device| device.join().expect("a device did not panic")).collect()
    });
    weir.wait_closed();
    println!("killed at {kill_at:?}, {} messages were duplicates", duplicates(&weir));
    assert!(devices.iter().any(|device| device.resent > 0), "no kill hit an unacknowledged message");
    for device in &devices {
        device.assert_counted_once(&weir);
    }
    weir.assert_accounted();
}

#[test]
fn a_kill_counts_nothing_twice() {
    killed("redelivery after kill -9", &[("state.checkpoint_interval", "'1h'")], 1_500, 64, 4);
}

#[test]
fn a_kill_after_checkpoints_counts_nothing_twice() {
    killed("redelivery after kill -9 and checkpoints", &[("state.checkpoint_interval", "'100ms'")], 1_500, 64, 4);
}

#[test]
fn as_many_in_flight_as_weir_allows() {
    killed("redelivery of a thousand", &[("state.checkpoint_interval", "'100ms'")], 6_000, 1_000, 4);
}

/// The first copies of redelivered messages are only in the checkpoint: their journal segment was freed.
#[test]
fn what_the_journal_no_longer_has_is_known() {
    let mut weir = WEIR.start(&with(&[
        ("state.checkpoint_interval", "'100ms'"),
        ("mqtt.max_packet_size", "'64KiB'"),
        ("journal.commit_max_bytes", "'512KiB'"),
        ("journal.segment_size", "'1MiB'"),
        // A savepoint would keep the journal.
        ("state.savepoint_interval", "'off'"),
    ]));
    let mut devices: Vec<RedeliveringDevice> =
        kinds().into_iter().map(|kind| RedeliveringDevice::new(kind, 64, 64)).collect();
    for device in &mut devices {
        let mut client = device.connect(weir.mqtt()).expect("it connects");
        for number in 0..64 {
            client.send(&device.publish(number, false)).expect("it can be sent");
            device.pending.push_back((number, false));
        }
        // weir took all messages; the device loses the acknowledgements.
        for _ in 0..64 {
            client.read().expect("an answer");
        }
        device.next = 64;
    }
    let mut other = TestClient::connect(weir.mqtt(), MqttVersion::V4, "other");
    for seq in 0..80 {
        let filler = "x".repeat(20_000);
        other.telemetry("other", &format!(r#"{{"metric":"m","value":1,"seq":{seq},"comment":"{filler}"}}"#));
    }
    wait_for("the first segment is freed", || {
        let segments = fs::read_dir(weir.data().join("journal")).expect("a journal");
        let first = segments.map(|entry| entry.expect("an entry").file_name()).min()?;
        (!first.to_string_lossy().starts_with("00000000000000000000.")).then_some(())
    });
    weir.kill();
    weir.restart();
    let shared = DeviceControl::new(&weir);
    let devices: Vec<RedeliveringDevice> = devices.into_iter().map(|device| device.run(&shared)).collect();
    weir.wait_closed();
    for device in &devices {
        device.assert_counted_once(&weir);
    }
    assert!((duplicates(&weir) - 64.0 * devices.len() as f64).abs() < 0.5);
    weir.assert_accounted();
}

/// A QoS 2 exchange whose middle is lost: the release of a message that weir no longer knows of is answered.
#[test]
fn a_release_after_a_restart_is_answered() {
    let mut weir = WEIR.start(FAST);
    let kinds: Vec<SessionCase> = kinds().into_iter().filter(|kind| kind.qos == 2).collect();
    let mut devices: Vec<RedeliveringDevice> =
        kinds.into_iter().map(|kind| RedeliveringDevice::new(kind, 10, 10)).collect();
    for device in &mut devices {
        let mut client = device.connect(weir.mqtt()).expect("it connects");
        for number in 0..10 {
            client.send(&device.publish(number, false)).expect("it can be sent");
            assert_eq!(client.expect(PUBREC).id(), id(number));
            device.pending.push_back((number, true));
        }
        device.next = 10;
    }
    for _ in 0..2 {
        weir.kill();
        weir.restart();
        for device in &devices {
            let mut client = device.connect(weir.mqtt()).expect("it connects");
            for number in 0..10 {
                client.send(&mqtt::packet(0x62, &id(number).to_be_bytes())).expect("it can be sent");
                assert_eq!(client.expect(PUBCOMP).id(), id(number));
            }
        }
    }
    weir.wait_closed();
    for device in &devices {
        device.assert_counted_once(&weir);
    }
    weir.assert_accounted();
}

#[test]
fn paho_across_a_kill() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let listen = format!("'{free}'");
    let mut weir = WEIR.start(&with(&[("mqtt.listen", &listen), ("state.checkpoint_interval", "'100ms'")]));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers/paho_redelivery.py");
    let (start, count) = (window_before(120).to_string(), 1_000_u64);
    let mut clients = Vec::new();
    for (version, qos, session) in [
        ("3.1.1", "1", "clean"),
        ("3.1.1", "1", "kept"),
        ("3.1.1", "2", "kept"),
        ("5", "1", "clean"),
        ("5", "2", "clean"),
    ] {
        let device = format!("paho-{version}-{qos}-{session}");
        let (port, count) = (free.port().to_string(), count.to_string());
        let mut child = Command::new(weir_test_kit::programs::python())
            .arg(&script)
            .args([&port, version, qos, session, &device, &start, &count])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be started");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        clients.push((device, child, said.lines()));
    }
    for _ in 0..2 {
        // Each client has 20 in flight nearly always: whenever weir is killed some are.
        for (_, _, said) in &mut clients {
            said.next().expect("it gets on").expect("text");
        }
        weir.kill();
        weir.restart();
    }
    for (device, mut child, said) in clients {
        let last = said.map_while(Result::ok).last();
        assert_eq!(last.as_deref(), Some("done"), "{device}");
        assert!(child.wait().expect("it ends").success(), "{device}");
        weir.wait_closed();
        let shown: Value = weir.json(&format!("/api/v1/devices/{device}"));
        let windows = weir.list("windows", &format!("&device={device}"));
        let total = |name: &str| windows.iter().filter_map(|window| window[name].as_f64()).sum::<f64>() as u64;
        assert_eq!((total("count"), total("sum")), (count, count * (count - 1) / 2), "{shown}");
    }
    println!("{} messages were duplicates", duplicates(&weir));
    weir.assert_accounted();
}
