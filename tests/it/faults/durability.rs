//! `kill -9` under load: every acknowledged (device, seq) is counted exactly once.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::WEIR;
use weir::random::Random;
use weir_test_kit::mqtt::{MqttVersion, PUBACK, TestClient, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::seed::announced_seed;
use weir_test_kit::wait::{wait_for, window_before};

const CONNECTIONS: u64 = 20;
const MESSAGES: u64 = 2_000;
const KILLS: u64 = 4;
const IN_FLIGHT: usize = 100;

/// State that the senders share with the thread that kills weir.
struct SenderControl {
    address: Mutex<SocketAddr>,
    acknowledged: AtomicU64,
}

/// A device that publishes `MESSAGES` readings and sends unacknowledged ones again after a lost connection.
struct ResendingSender<'a> {
    shared: &'a SenderControl,
    device: String,
    start_ms: i64,
    /// Sequence numbers that were sent and not acknowledged, in their order.
    pending: VecDeque<u64>,
    next: u64,
    resent: u64,
}

impl ResendingSender<'_> {
    /// Returns how many messages were sent a second time.
    fn run(mut self) -> u64 {
        while self.next < MESSAGES || !self.pending.is_empty() {
            // The connection ends whenever weir is killed; what is pending then is sent again.
            let address = *self.shared.address.lock().expect("no sender panicked");
            if let Ok(client) = TestClient::try_connect(address, MqttVersion::V4, &self.device)
                && self.connection(client).is_ok()
            {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.resent
    }

    fn connection(&mut self, mut client: TestClient) -> io::Result<()> {
        let again: Vec<u64> = self.pending.iter().copied().collect();
        self.resent += again.len() as u64;
        let mut bytes: Vec<u8> = again.iter().flat_map(|seq| self.packet(*seq, true)).collect();
        loop {
            while self.next < MESSAGES && self.pending.len() < IN_FLIGHT {
                bytes.extend(self.packet(self.next, false));
                self.pending.push_back(self.next);
                self.next += 1;
            }
            client.send(&bytes)?;
            bytes.clear();
            if self.pending.is_empty() {
                return Ok(());
            }
            let mut answer = Some(client.read()?);
            while let Some(packet) = answer {
                self.acknowledged(&packet);
                answer = client.take();
            }
        }
    }

    fn acknowledged(&mut self, packet: &weir_test_kit::mqtt::ReceivedPacket) {
        assert_eq!(packet.kind, PUBACK, "{packet:?}");
        let seq = self.pending.pop_front().expect("an acknowledgement of something pending");
        assert_eq!(packet.id(), packet_id(seq), "acknowledgements come in the order of publishes");
        self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn packet(&self, seq: u64, dup: bool) -> Vec<u8> {
        let timestamp = self.start_ms + seq as i64 * 10;
        let payload = format!(r#"{{"metric":"m","value":{seq},"timestamp":{timestamp},"seq":{seq}}}"#);
        let topic = format!("devices/{}/telemetry", self.device);
        publish_packet(MqttVersion::V4, &topic, payload.as_bytes(), 1, dup, packet_id(seq))
    }
}

fn packet_id(seq: u64) -> u16 {
    (seq % 60_000) as u16 + 1
}

#[test]
fn what_was_acknowledged_survives_kill_nine() {
    let mut random = Random::new(announced_seed("kill -9"));
    let settings = [("window.idle_timeout", "'1s'"), ("state.checkpoint_interval", "'300ms'")];
    let mut weir = WEIR.start(&settings);
    let shared = SenderControl { address: Mutex::new(weir.mqtt()), acknowledged: AtomicU64::new(0) };
    let start_ms = window_before(60);
    let mut kill_at: Vec<u64> = (0..KILLS).map(|_| random.below(CONNECTIONS * MESSAGES * 9 / 10)).collect();
    kill_at.sort_unstable();
    let resent: u64 = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|index| {
                let device = format!("dev-{index}");
                let sender =
                    ResendingSender { shared: &shared, device, start_ms, pending: VecDeque::new(), next: 0, resent: 0 };
                scope.spawn(move || sender.run())
            })
            .collect();
        for at in &kill_at {
            wait_for("the senders get on", || {
                (shared.acknowledged.load(Ordering::Relaxed) >= *at || senders.iter().any(|one| one.is_finished()))
                    .then_some(())
            });
            weir.kill();
            weir.restart();
            *shared.address.lock().expect("no sender panicked") = weir.mqtt();
        }
        senders.into_iter().map(|sender| sender.join().expect("a sender did not panic")).sum()
    });
    println!("killed at {kill_at:?} acknowledgements, {resent} messages sent again");
    assert!(resent > 0, "no kill hit an unacknowledged message: the test shows nothing");

    weir.wait_closed();
    for index in 0..CONNECTIONS {
        let device = weir.json(&format!("/api/v1/devices/dev-{index}"));
        assert_eq!(device["accepted"], MESSAGES, "{device}");
        assert_eq!(device["sequence_ranges"], serde_json::json!([[0, MESSAGES - 1]]), "{device}");
        assert_eq!(device["sequence_missing"], 0, "{device}");
        let windows = weir.list("windows", &format!("&device=dev-{index}"));
        let total = |name: &str| windows.iter().filter_map(|window| window[name].as_f64()).sum::<f64>();
        assert_eq!(total("count") as u64, MESSAGES, "dev-{index}");
        assert_eq!(total("sum") as u64, MESSAGES * (MESSAGES - 1) / 2, "dev-{index}");
    }
    let rejected: Vec<Value> = weir.list("errors", "");
    assert_eq!(rejected, Vec::<Value>::new());
    weir.assert_accounted();
}

#[test]
fn results_are_the_same_after_a_kill() {
    let mut weir = WEIR.start(&[("window.idle_timeout", "'500ms'"), ("state.checkpoint_interval", "'1h'")]);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V5, "d");
    let start = window_before(120);
    for seq in 0..200 {
        let payload = format!(r#"{{"metric":"m","value":{seq},"timestamp":{},"seq":{seq}}}"#, start + seq * 300);
        device.telemetry("d", &payload);
    }
    device.telemetry("d", "not a reading");
    weir.wait_closed();
    let before = (weir.list("windows", "&revisions=all"), weir.list("errors", ""));
    assert!(before.0.len() >= 12 && before.1.len() == 1);
    // No checkpoint was taken: everything is processed again and compared with the output logs.
    weir.kill();
    weir.restart();
    assert!(weir.metric("weir_recovery_replayed_records") >= 201.0);
    weir.wait_closed();
    assert_eq!((weir.list("windows", "&revisions=all"), weir.list("errors", "")), before);
    weir.assert_accounted();
}

#[test]
fn qos_2_is_taken_once_across_a_kill() {
    let mut weir = WEIR.start(&[("window.idle_timeout", "'500ms'")]);
    let start = window_before(60);
    let payload = format!(r#"{{"metric":"m","value":1,"timestamp":{start},"seq":0}}"#);
    let packet = |dup| publish_packet(MqttVersion::V4, "devices/d/telemetry", payload.as_bytes(), 2, dup, 7);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    device.send(&packet(false)).expect("it can be sent");
    assert_eq!(device.expect(weir_test_kit::mqtt::PUBREC).id(), 7);
    weir.kill();
    weir.restart();
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    device.send(&packet(true)).expect("it can be sent");
    assert_eq!(device.expect(weir_test_kit::mqtt::PUBREC).id(), 7);
    weir.wait_closed();
    let device = weir.json("/api/v1/devices/d");
    assert_eq!((&device["accepted"], &device["rejected"]["duplicate"]), (&1.into(), &1.into()), "{device}");
}

#[test]
fn changed_settings_have_a_place_in_the_journal() {
    let mut weir = WEIR.start(&[("window.idle_timeout", "'500ms'"), ("state.checkpoint_interval", "'1h'")]);
    let start = window_before(60);
    let publish = |weir: &Weir, seq: i64| {
        let payload = format!(r#"{{"metric":"m","value":50,"timestamp":{},"seq":{seq}}}"#, start + seq);
        TestClient::connect(weir.mqtt(), MqttVersion::V4, "d").telemetry("d", &payload);
    };
    publish(&weir, 0);
    weir.kill();
    weir.environment("WEIR_VALIDATE__METRICS__M__MAX", "10");
    weir.restart();
    publish(&weir, 1);
    wait_for("the second reading is judged", || (weir.list("errors", "").len() == 1).then_some(()));
    weir.kill();
    // No checkpoint was taken: the third start replays across both changes and applies to each reading the settings of
    // its time.
    weir.environment("WEIR_VALIDATE__METRICS__M__MAX", "60");
    weir.restart();
    weir.wait_closed();
    let device = weir.json("/api/v1/devices/d");
    assert_eq!((&device["accepted"], &device["rejected"]["value_out_of_range"]), (&1.into(), &1.into()), "{device}");
    assert_eq!(weir.list("windows", "").len(), 1);
    weir.assert_accounted();
}
