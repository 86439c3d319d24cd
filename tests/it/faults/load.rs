//! Helpers: devices that publish until they are stopped and send unacknowledged messages again.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use weir_test_kit::mqtt::{MqttVersion, PUBACK, TestClient, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

/// Size of a load.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    pub devices: u64,
    /// Unacknowledged messages of one device.
    pub in_flight: usize,
    /// Bytes of a message beyond its reading.
    pub padding_bytes: usize,
}

struct LoadControl {
    options: LoadOptions,
    address: Mutex<SocketAddr>,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    start_ms: i64,
}

/// Devices `d0`, `d1`, … in threads; reading number n has value n and sequence number n.
pub struct Load {
    shared: Arc<LoadControl>,
    devices: Vec<JoinHandle<u64>>,
}

impl Load {
    pub fn start(weir: &Weir, options: LoadOptions) -> Self {
        let shared = Arc::new(LoadControl {
            options,
            address: Mutex::new(weir.mqtt()),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            start_ms: window_before(36_000),
        });
        let spawn = |index| {
            let device =
                LoadDevice { shared: shared.clone(), id: format!("d{index}"), pending: VecDeque::new(), next: 0 };
            std::thread::spawn(move || device.run())
        };
        let devices = (0..options.devices).map(spawn).collect();
        Self { shared, devices }
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Tells the devices the new address after a restart.
    pub fn moved(&self, weir: &Weir) {
        *self.shared.address.lock().expect("no device panicked") = weir.mqtt();
    }

    /// Ends the sending of new messages.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Waits until everything sent is acknowledged; returns the number of readings of each device.
    #[track_caller]
    pub fn finish(self) -> Vec<u64> {
        self.stop();
        wait_for("everything sent is acknowledged", || self.devices.iter().all(JoinHandle::is_finished).then_some(()));
        self.devices.into_iter().map(|device| device.join().expect("a device did not panic")).collect()
    }
}

struct LoadDevice {
    shared: Arc<LoadControl>,
    id: String,
    /// Sent and not acknowledged, in their order.
    pending: VecDeque<u64>,
    next: u64,
}

impl LoadDevice {
    fn run(mut self) -> u64 {
        let stopped = |device: &Self| device.shared.stop.load(Ordering::Relaxed) && device.pending.is_empty();
        while !stopped(&self) {
            let address = *self.shared.address.lock().expect("no device panicked");
            let connected = TestClient::try_connect(address, MqttVersion::V4, &self.id);
            if !connected.is_ok_and(|client| self.connection(client).is_ok()) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.next
    }

    fn connection(&mut self, mut client: TestClient) -> io::Result<()> {
        let mut bytes: Vec<u8> = self.pending.iter().flat_map(|seq| self.packet(*seq, true)).collect();
        loop {
            while !self.shared.stop.load(Ordering::Relaxed) && self.pending.len() < self.shared.options.in_flight {
                bytes.extend(self.packet(self.next, false));
                self.pending.push_back(self.next);
                self.next += 1;
            }
            if self.pending.is_empty() {
                return Ok(());
            }
            client.send(&bytes)?;
            bytes.clear();
            let mut answer = Some(client.read()?);
            while let Some(packet) = answer {
                if packet.kind != PUBACK {
                    // weir closes the connection.
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                let seq = self.pending.pop_front().expect("an acknowledgement of something pending");
                assert_eq!(packet.id(), packet_id(seq), "acknowledgements come in the order of publishes");
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                answer = client.take();
            }
        }
    }

    fn packet(&self, seq: u64, dup: bool) -> Vec<u8> {
        let timestamp = self.shared.start_ms + seq as i64;
        let padding = "x".repeat(self.shared.options.padding_bytes);
        let payload =
            format!(r#"{{"metric":"m","value":{seq},"timestamp":{timestamp},"seq":{seq},"note":"{padding}"}}"#);
        let topic = format!("devices/{}/telemetry", self.id);
        publish_packet(MqttVersion::V4, &topic, payload.as_bytes(), 1, dup, packet_id(seq))
    }
}

fn packet_id(seq: u64) -> u16 {
    (seq % 60_000) as u16 + 1
}

/// Checks that every reading of every device is counted in exactly one window.
#[track_caller]
pub fn assert_counted(weir: &Weir, readings: &[u64]) {
    weir.wait_closed();
    for (index, count) in readings.iter().enumerate() {
        let device = weir.json(&format!("/api/v1/devices/d{index}"));
        assert_eq!(device["accepted"], *count, "{device}");
        assert_windows(weir, &format!("d{index}"), *count);
    }
    weir.assert_accounted();
}

/// Checks that the readings 0 to `count` of the device, whose values are their numbers, are in its windows exactly
/// once.
#[track_caller]
pub fn assert_windows(weir: &Weir, device: &str, count: u64) {
    // A window that has fired is shown once its log's writer has written it.
    let totals = wait_for("the windows are shown", || {
        let windows = weir.list("windows", &format!("&device={device}"));
        let total = |name: &str| windows.iter().filter_map(|window| window[name].as_f64()).sum::<f64>() as u64;
        (total("count") >= count).then(|| (total("count"), total("sum")))
    });
    assert_eq!(totals, (count, (0..count).sum()), "{device}");
}
