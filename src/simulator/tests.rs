use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::simulator::message::MessageContent;

/// A broker that acknowledges and remembers, and can lose connections.
#[derive(Default)]
struct FakeBroker {
    /// Payloads in order of arrival, by topic.
    received: Mutex<BTreeMap<String, Vec<String>>>,
    /// Every so many publishes it ends the connection instead of acknowledging; 0: never.
    loses_every: u64,
    publishes: Mutex<u64>,
    connects: Mutex<u64>,
}

impl FakeBroker {
    async fn start(loses_every: u64) -> (Arc<Self>, SocketAddr) {
        let broker = Arc::new(Self { loses_every, ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&broker);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let broker = Arc::clone(&shared);
                tokio::spawn(async move { broker.serve(stream).await });
            }
        });
        (broker, address)
    }

    /// Serves one connection; `None` when it ends.
    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        loop {
            let kind = stream.read_u8().await.ok()?;
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let byte = stream.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            let answer = match kind >> 4 {
                1 => {
                    *self.connects.lock().unwrap() += 1;
                    vec![0x20, 2, 0, 0]
                }
                3 => self.publish(kind, &body)?,
                6 => vec![0x70, 2, body[0], body[1]],
                12 => vec![0xd0, 0],
                _ => return None,
            };
            stream.write_all(&answer).await.ok()?;
        }
    }

    fn publish(&self, kind: u8, body: &[u8]) -> Option<Vec<u8>> {
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let qos = kind >> 1 & 3;
        let payload_start = topic_end + if qos > 0 { 2 } else { 0 };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (topic, payload) = (text(&body[2..topic_end]), text(&body[payload_start..]));
        self.received.lock().unwrap().entry(topic).or_default().push(payload);
        let mut publishes = self.publishes.lock().unwrap();
        *publishes += 1;
        if self.loses_every > 0 && publishes.is_multiple_of(self.loses_every) {
            return None;
        }
        match qos {
            0 => Some(Vec::new()),
            1 => Some(vec![0x40, 2, body[topic_end], body[topic_end + 1]]),
            _ => Some(vec![0x50, 2, body[topic_end], body[topic_end + 1]]),
        }
    }

    /// Waits until it has read so many publishes: nothing else says so for QoS 0.
    async fn has_read(&self, publishes: u64) {
        while *self.publishes.lock().unwrap() < publishes {
            tokio::task::yield_now().await;
        }
    }

    /// How often each sequence number of the device came as a reading.
    fn readings(&self, device_id: &str) -> BTreeMap<u64, u64> {
        let received = self.received.lock().unwrap();
        let payloads = received.get(&format!("devices/{device_id}/telemetry")).map_or(&[][..], Vec::as_slice);
        let mut counts = BTreeMap::new();
        for message in payloads.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok()) {
            let elements = message.as_array().cloned().unwrap_or_else(|| vec![message]);
            for element in elements.iter().filter(|element| element.get("metrics").is_some()) {
                *counts.entry(element["seq"].as_u64().unwrap()).or_default() += 1;
            }
        }
        counts
    }
}

fn options(address: SocketAddr, change: impl FnOnce(&mut FleetOptions)) -> FleetOptions {
    let mut options = FleetOptions {
        address,
        devices: 3,
        interval: Duration::ZERO,
        length: RunLength::Messages(300),
        drain: Duration::from_secs(30),
        record: true,
        boot: "b".into(),
        ..FleetOptions::default()
    };
    change(&mut options);
    options
}

/// Runs a fleet against a broker; everything must be acknowledged and every reading must have come. Returns the
/// broker and the report.
async fn check(loses_every: u64, change: impl FnOnce(&mut FleetOptions)) -> (Arc<FakeBroker>, FleetReport) {
    let (broker, address) = FakeBroker::start(loses_every).await;
    let options = options(address, change);
    let report = run(options.clone(), CancellationToken::new(), Arc::default()).await.unwrap();
    if options.qos == 0 {
        broker.has_read(report.totals.published).await;
    }
    assert_eq!(report.ledgers.len(), options.devices);
    for (index, ledger) in report.ledgers.iter().enumerate() {
        assert_eq!(ledger.device_id, options.device_id(index));
        assert_eq!(ledger.entries.len(), 300);
        let came = broker.readings(&ledger.device_id);
        for entry in &ledger.entries {
            assert_eq!(entry.is_acknowledged(), options.qos > 0, "qos {} {:?} {entry:?}", options.qos, report.totals);
            if matches!(entry.message.content, MessageContent::Readings(_)) {
                assert!(came.contains_key(&entry.message.seq), "{entry:?}");
            }
        }
        let readings =
            ledger.entries.iter().filter(|entry| matches!(entry.message.content, MessageContent::Readings(_)));
        assert_eq!(came.len(), readings.count());
    }
    assert_eq!(report.totals.connected, 0);
    (broker, report)
}

#[tokio::test]
async fn everything_arrives_once_on_a_quiet_line() {
    for qos in 0..=2 {
        let (broker, report) = check(0, |options| options.qos = qos).await;
        assert_eq!(report.totals.published, 900);
        assert_eq!(report.totals.errors, 0);
        assert!(broker.readings("sim-00000").values().all(|count| *count == 1));
        assert_eq!(*broker.connects.lock().unwrap(), 3);
    }
}

#[tokio::test]
async fn what_a_lost_connection_took_is_published_again() {
    for qos in 1..=2 {
        let (broker, report) = check(97, |options| options.qos = qos).await;
        assert!(report.totals.errors > 0);
        assert!(report.totals.published > 900);
        assert!(*broker.connects.lock().unwrap() > 3);
    }
}

#[tokio::test]
async fn churn_and_redelivery_repeat_messages() {
    let (broker, report) = check(0, |options| {
        options.churn_share = 0.05;
        options.redelivery_share = 0.2;
    })
    .await;
    assert!(report.totals.connections > 10);
    assert!(broker.readings("sim-00001").values().any(|count| *count > 1));
}

#[tokio::test]
async fn a_device_that_was_away_uploads_a_backlog() {
    let (broker, report) = check(0, |options| {
        options.offline_share = 1.0;
        options.interval = Duration::from_millis(1);
    })
    .await;
    let received = broker.received.lock().unwrap();
    assert!(received["devices/sim-00000/telemetry"].iter().any(|payload| payload.starts_with('[')));
    assert!(report.totals.connections > 3);
}

#[tokio::test]
async fn a_cancelled_run_ends() {
    let (_broker, address) = FakeBroker::start(0).await;
    let cancel = CancellationToken::new();
    let progress = Arc::new(FleetProgress::default());
    let options = options(address, |options| {
        options.length = RunLength::Endless;
        options.record = false;
    });
    let running = tokio::spawn(run(options, cancel.clone(), Arc::clone(&progress)));
    while progress.snapshot().acknowledged < 100 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    let report = running.await.unwrap().unwrap();
    assert!(report.totals.acknowledged >= 100);
    assert!(report.ledgers.is_empty());
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_anything_listens_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let report = run(options(address, |_| ()), cancel, Arc::default()).await.unwrap();
    assert_eq!(report, FleetReport::default());
}

#[tokio::test]
async fn nobody_listening_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = reach(address, Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("no MQTT listener"), "{error}");
}
