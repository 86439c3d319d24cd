//! The MQTT server through real sockets, with a journal whose syncs the tests command.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use tokio::time::timeout;

use super::*;
use crate::access::Policy;
use crate::clock::SystemClock;
use crate::mqtt::ProtocolVersion;
use crate::mqtt::testing::{PacketBuilder, SentPacket, TestJournal, client, packets};
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::frame::{self, NextFrame, OutgoingPublish};
use crate::random::Random;

const TOPIC: &str = "devices/a/telemetry";
/// Only a guard against a test that would hang.
const PATIENCE: Duration = Duration::from_secs(20);
const BOTH: [ProtocolVersion; 2] = [ProtocolVersion::V4, ProtocolVersion::V5];

struct RunningServer {
    journal: Arc<TestJournal>,
    address: SocketAddr,
    broker: Arc<Broker>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn access() -> Arc<Access> {
    Arc::new(Access::new(Policy::without_users(true)))
}

async fn start(journal: Arc<TestJournal>, change: impl FnOnce(&mut MqttConfig)) -> RunningServer {
    let mut config = MqttConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..MqttConfig::default() };
    change(&mut config);
    let server = MqttServer::bind_to(
        &config,
        &IngestConfig::default(),
        Arc::clone(&journal) as Arc<dyn IngestJournal>,
        access(),
        Arc::new(SystemClock),
    )
    .await
    .unwrap();
    let (address, broker, cancel) = (server.local_addr(), server.broker(), CancellationToken::new());
    let task = tokio::spawn(server.run(cancel.clone()));
    RunningServer { journal, address, broker, cancel, task }
}

async fn eager() -> RunningServer {
    start(TestJournal::eager(), |_| {}).await
}

/// A client's end of a socket.
struct TestPeer {
    version: ProtocolVersion,
    stream: TcpStream,
    read: Vec<u8>,
}

impl RunningServer {
    async fn socket(&self, version: ProtocolVersion) -> TestPeer {
        TestPeer { version, stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    /// Connects with a clean session.
    async fn connect(&self, version: ProtocolVersion, client_id: &str) -> TestPeer {
        self.connect_as(client(version), version, client_id).await.0
    }

    /// Connects; also whether the session was present.
    async fn connect_as(&self, client: PacketBuilder, version: ProtocolVersion, client_id: &str) -> (TestPeer, bool) {
        let mut peer = self.socket(version).await;
        peer.send(&client.connect(client_id)).await;
        match peer.receive().await {
            Some(SentPacket::Other(connack)) if connack[0] == 0x20 && connack[3] == 0 => (peer, connack[2] == 1),
            other => panic!("{other:?}"),
        }
    }

    /// Ends when no connection is left.
    async fn until_idle(&self) {
        self.until(|running| running.broker.stats().connections == 0).await;
    }

    async fn until(&self, holds: impl Fn(&RunningServer) -> bool) {
        let turn = async {
            while !holds(self) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, turn).await.expect("it never came to pass");
    }
}

impl TestPeer {
    fn client(&self) -> PacketBuilder {
        client(self.version)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn publish(&mut self, topic: &str, qos: u8, packet_id: u16, payload: &str) {
        let bytes = self.client().publish(topic, qos, packet_id, payload.as_bytes());
        self.send(&bytes).await;
    }

    async fn subscribe(&mut self, filters: &[(&str, u8)]) {
        let bytes = self.client().subscribe(1, filters);
        self.send(&bytes).await;
        assert!(matches!(self.receive().await, Some(SentPacket::Other(suback)) if suback[0] == 0x90));
    }

    /// The next packet; `None` at the end of the stream.
    async fn receive(&mut self) -> Option<SentPacket> {
        loop {
            if let Ok(NextFrame::Frame(frame)) = frame::next(&self.read, usize::MAX) {
                let packet = packets(frame.bytes, self.version).pop();
                let len = frame.bytes.len();
                self.read.drain(..len);
                return packet;
            }
            match timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("nothing came") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn expect_ack(&mut self, kind: u8, packet_id: u16) {
        assert_eq!(self.receive().await, Some(SentPacket::Ack { kind, packet_id, reason: 0 }));
    }

    /// All that was sent before has been taken: the answer to a PINGREQ says so.
    async fn expect_pong(&mut self) {
        self.send(&[0xC0, 0]).await;
        assert_eq!(self.receive().await, Some(SentPacket::Other(vec![0xD0, 0])));
    }

    async fn expect_message(&mut self, topic: &str, payload: &str) -> (u8, u16, bool, bool) {
        match self.receive().await {
            Some(SentPacket::Publish { packet_id, dup, qos, retain, topic: name, payload: bytes }) => {
                assert_eq!((name.as_str(), &bytes[..]), (topic, payload.as_bytes()));
                (qos, packet_id, dup, retain)
            }
            other => panic!("{other:?}"),
        }
    }

    /// The stream ends, after a DISCONNECT with the reason where the version has one.
    async fn expect_close(&mut self, close: CloseReason) {
        if self.version == ProtocolVersion::V5 {
            let code = close.code().unwrap();
            assert_eq!(self.receive().await, Some(SentPacket::Other(vec![0xE0, 1, code])), "{close:?}");
        }
        assert_eq!(self.receive().await, None);
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_synced() {
    let running = start(Arc::default(), |_| {}).await;
    for version in BOTH {
        let mut peer = running.connect(version, "c").await;
        peer.publish(TOPIC, 1, 1, "x").await;
        peer.publish("other", 1, 2, "y").await;
        peer.publish(TOPIC, 2, 3, "z").await;
        peer.expect_pong().await; // before the PUBACKs, which are not due
        let taken = running.journal.records();
        assert_eq!(taken[taken.len() - 2..], ["c devices/a/telemetry 1/1 x", "c devices/a/telemetry 2/3 z"]);
        running.journal.sync();
        peer.expect_ack(frame::PUBACK, 1).await;
        let reason = if version == ProtocolVersion::V5 { 0x10 } else { 0 }; // no matching subscribers
        assert_eq!(peer.receive().await, Some(SentPacket::Ack { kind: frame::PUBACK, packet_id: 2, reason }));
        peer.expect_ack(frame::PUBREC, 3).await;
    }
}

#[tokio::test]
async fn many_publishes_keep_their_order_in_and_out() {
    let running = start(TestJournal::eager(), |config| config.max_inflight = 50).await;
    let mut peer = running.connect(ProtocolVersion::V4, "c").await;
    let ids: Vec<u16> = (1..=5_000).collect();
    let (mut reader, mut writer) = peer.stream.split();
    let packets: Vec<u8> =
        ids.iter().flat_map(|id| client(ProtocolVersion::V4).publish(TOPIC, 1, *id, &[b'x'; 130])).collect();
    let mut acks = vec![0; ids.len() * 4];
    let (sent, received) = tokio::join!(writer.write_all(&packets), reader.read_exact(&mut acks));
    sent.unwrap();
    received.unwrap();
    let acked: Vec<u16> = acks.chunks(4).map(|ack| u16::from_be_bytes([ack[2], ack[3]])).collect();
    assert_eq!(acked, ids);
    assert_eq!(running.journal.records().len(), ids.len());
}

#[tokio::test]
async fn messages_reach_subscribers_of_both_versions_at_the_lower_qos() {
    let running = eager().await;
    let mut old = running.connect(ProtocolVersion::V4, "old").await;
    let mut new = running.connect(ProtocolVersion::V5, "new").await;
    old.subscribe(&[("a/#", 1)]).await;
    new.subscribe(&[("a/+", 2)]).await;
    let mut sender = running.connect(ProtocolVersion::V5, "sender").await;
    let properties = [0x03, 0, 1, b't', 0x23, 0, 1];
    let publish = OutgoingPublish {
        dup: false,
        qos: 2,
        retain: false,
        packet_id: 1,
        topic: "a/b",
        properties: &properties,
        payload: b"x",
    };
    let bytes = sender.client().publish_with(publish);
    sender.send(&bytes).await;
    sender.expect_ack(frame::PUBREC, 1).await;
    assert_eq!(old.expect_message("a/b", "x").await, (1, 1, false, false));
    assert_eq!(new.expect_message("a/b", "x").await, (2, 1, false, false));
    let ack = new.client().ack(frame::PUBREC, 1);
    new.send(&ack).await;
    new.expect_ack(frame::PUBREL, 1).await;
    let ack = new.client().ack(frame::PUBCOMP, 1);
    new.send(&ack).await;
    let ack = old.client().ack(frame::PUBACK, 1);
    old.send(&ack).await;
    sender.publish("a/b", 0, 0, "y").await;
    assert_eq!(old.expect_message("a/b", "y").await.0, 0);
    assert_eq!(new.expect_message("a/b", "y").await.0, 0);
    assert!(running.journal.records().is_empty(), "no ingest topic");
}

#[tokio::test]
async fn subscribers_see_ingest_topics_too() {
    let running = eager().await;
    let mut subscriber = running.connect(ProtocolVersion::V4, "s").await;
    subscriber.subscribe(&[("devices/#", 0)]).await;
    let mut device = running.connect(ProtocolVersion::V4, "d").await;
    device.publish(TOPIC, 1, 1, "x").await;
    device.expect_ack(frame::PUBACK, 1).await;
    subscriber.expect_message(TOPIC, "x").await;
    assert_eq!(running.journal.records(), ["d devices/a/telemetry 1/1 x"]);
}

#[tokio::test]
async fn subscriptions_end() {
    let running = eager().await;
    let mut peer = running.connect(ProtocolVersion::V5, "c").await;
    peer.subscribe(&[("a", 0)]).await;
    let bytes = peer.client().unsubscribe(2, &["a", "b"]);
    peer.send(&bytes).await;
    assert_eq!(peer.receive().await, Some(SentPacket::Other(vec![0xB0, 5, 0, 2, 0, 0, 0x11])));
    peer.publish("a", 0, 0, "x").await;
    peer.expect_pong().await;
}

#[tokio::test]
async fn retained_messages_come_with_the_subscription() {
    let running = eager().await;
    let mut peer = running.connect(ProtocolVersion::V4, "c").await;
    let outgoing = OutgoingPublish {
        dup: false,
        qos: 1,
        retain: true,
        packet_id: 1,
        topic: "state",
        properties: &[],
        payload: b"on",
    };
    let bytes = peer.client().publish_with(outgoing);
    peer.send(&bytes).await;
    peer.expect_ack(frame::PUBACK, 1).await;
    let bytes = peer.client().subscribe(1, &[("#", 1)]);
    peer.send(&bytes).await;
    assert_eq!(peer.receive().await, Some(SentPacket::Other(vec![0x90, 3, 0, 1, 1])));
    assert_eq!(peer.expect_message("state", "on").await, (1, 1, false, true));
}

#[tokio::test]
async fn a_new_connection_takes_the_session_over() {
    let running = eager().await;
    for version in BOTH {
        let mut old = running.connect(version, "same").await;
        let mut new = running.connect(version, "same").await;
        old.expect_close(CloseReason::TakenOver).await;
        new.expect_pong().await;
        assert_eq!(running.broker.stats().connections, 1);
    }
}

#[tokio::test]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let running = eager().await;
    for version in BOTH {
        let mut watcher = running.connect(version, "watcher").await;
        watcher.subscribe(&[("gone/#", 1), (TOPIC, 0)]).await;
        for (goodbye, topic) in [(true, "gone/a"), (false, "gone/b"), (false, TOPIC)] {
            let (mut peer, _) = running.connect_as(client(version).will(topic, b"bye", 1), version, "c").await;
            if goodbye {
                peer.send(&[0xE0, 0]).await;
                assert_eq!(peer.receive().await, None);
            }
            drop(peer);
            running.until(|running| running.broker.stats().connections == 1).await;
        }
        watcher.expect_message("gone/b", "bye").await;
        watcher.expect_message(TOPIC, "bye").await;
    }
    assert_eq!(running.journal.records(), ["c devices/a/telemetry 0/0 bye"; 2]);
}

#[tokio::test]
async fn a_kept_session_is_delivered_what_it_missed_and_what_it_did_not_acknowledge() {
    let running = eager().await;
    for version in BOTH {
        let kept = client(version).kept();
        let (mut peer, present) = running.connect_as(kept.clone(), version, "kept").await;
        assert!(!present);
        peer.subscribe(&[("a", 1)]).await;
        running.broker.publish("a", "1".into(), 1, false);
        assert_eq!(peer.expect_message("a", "1").await, (1, 1, false, false));
        drop(peer);
        running.until_idle().await;
        running.broker.publish("a", "2".into(), 1, false);
        let (mut peer, present) = running.connect_as(kept.clone(), version, "kept").await;
        assert!(present);
        assert_eq!(peer.expect_message("a", "1").await, (1, 1, true, false));
        assert_eq!(peer.expect_message("a", "2").await, (1, 2, false, false));
        drop(peer);
        let mut peer = running.connect(version, "kept").await;
        peer.expect_pong().await;
        assert_eq!(running.broker.stats().subscriptions, 0, "a clean start forgets");
        drop(peer);
        running.until_idle().await;
    }
}

#[tokio::test]
async fn a_qos_2_publish_counts_once_across_connections() {
    let running = start(Arc::default(), |_| {}).await;
    let kept = client(ProtocolVersion::V5).kept();
    let (mut peer, _) = running.connect_as(kept.clone(), ProtocolVersion::V5, "kept").await;
    peer.publish(TOPIC, 2, 7, "x").await;
    peer.expect_pong().await;
    drop(peer);
    running.until_idle().await;
    let (mut peer, _) = running.connect_as(kept, ProtocolVersion::V5, "kept").await;
    let again = OutgoingPublish {
        dup: true,
        qos: 2,
        retain: false,
        packet_id: 7,
        topic: TOPIC,
        properties: &[],
        payload: b"x",
    };
    let bytes = peer.client().publish_with(again);
    peer.send(&bytes).await;
    peer.expect_pong().await; // no PUBREC: the append of the first connection is not synced
    running.journal.sync();
    peer.expect_ack(frame::PUBREC, 7).await;
    let release = peer.client().ack(frame::PUBREL, 7);
    peer.send(&release).await;
    peer.expect_ack(frame::PUBCOMP, 7).await;
    peer.send(&release).await;
    peer.expect_ack(frame::PUBCOMP, 7).await; // complete either way
    assert_eq!(running.journal.records().len(), 1);
}

#[tokio::test]
async fn a_full_journal_stops_reading_and_goes_on() {
    let running = eager().await;
    let mut peer = running.connect(ProtocolVersion::V4, "c").await;
    running.journal.set_full(true);
    peer.publish(TOPIC, 1, 1, "1").await;
    running.until(|running| running.journal.waiting_for_room() > 0).await;
    peer.publish(TOPIC, 1, 2, "2").await;
    peer.send(&[0xC0, 0]).await;
    let mut other = running.connect(ProtocolVersion::V4, "other").await;
    other.expect_pong().await; // the others are served meanwhile
    assert!(running.journal.records().is_empty());
    running.journal.set_full(false);
    peer.expect_ack(frame::PUBACK, 1).await;
    let answers = [peer.receive().await, peer.receive().await];
    let ack = Some(SentPacket::Ack { kind: frame::PUBACK, packet_id: 2, reason: 0 });
    assert!(answers.contains(&ack) && answers.contains(&Some(SentPacket::Other(vec![0xD0, 0]))), "{answers:?}");
    assert_eq!(running.journal.records(), ["c devices/a/telemetry 1/1 1", "c devices/a/telemetry 1/2 2"]);
}

#[tokio::test]
async fn what_followed_in_the_same_read_survives_a_full_journal() {
    // Small packets make small appends: the journal becomes full in the middle of what one read brought.
    let running = start(TestJournal::eager(), |config| config.max_packet_size_bytes = 100).await;
    let mut peer = running.connect(ProtocolVersion::V4, "c").await;
    running.journal.set_full(true);
    let bytes: Vec<u8> = (1..=20).flat_map(|id| peer.client().publish(TOPIC, 1, id, b"some payload")).collect();
    peer.send(&bytes).await;
    running.until(|running| running.journal.waiting_for_room() > 0).await;
    running.journal.set_full(false);
    for id in 1..=20 {
        peer.expect_ack(frame::PUBACK, id).await;
    }
    assert_eq!(running.journal.records().len(), 20);
}

#[tokio::test]
async fn large_packets_arrive_in_pieces() {
    let running = start(TestJournal::eager(), |config| config.max_packet_size_bytes = 300_000).await;
    let mut peer = running.connect(ProtocolVersion::V4, "c").await;
    let payload = "x".repeat(290_000);
    let mut bytes = peer.client().publish(TOPIC, 1, 1, payload.as_bytes());
    bytes.extend(peer.client().publish(TOPIC, 1, 2, b"small"));
    for piece in bytes.chunks(7_001) {
        peer.send(piece).await;
        peer.stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    peer.expect_ack(frame::PUBACK, 1).await;
    peer.expect_ack(frame::PUBACK, 2).await;
    assert_eq!(running.journal.records()[0].len(), "c devices/a/telemetry 1/1 ".len() + payload.len());
}

#[tokio::test]
async fn offences_are_answered_with_their_reason_and_end_only_their_connection() {
    let running = start(TestJournal::eager(), |config| config.max_packet_size_bytes = 1_000).await;
    let mut bystander = running.connect(ProtocolVersion::V4, "bystander").await;
    for version in BOTH {
        let offences: [(&[u8], CloseReason); 6] = [
            (&[0x30, 0xFF, 0x7F], CloseReason::PacketTooLarge),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], CloseReason::Malformed),
            (&[0x36, 3, 0, 1, b'a'], CloseReason::Malformed),
            (&[0x30, 4, 0, 1, b'#', 0], CloseReason::TopicName),
            (&[0x20, 2, 0, 0], CloseReason::Protocol),
            (&[0x82, 4, 0, 1, 0, 0], CloseReason::Malformed),
        ];
        for (bytes, close) in offences {
            let mut peer = running.connect(version, "offender").await;
            peer.send(bytes).await;
            peer.expect_close(close).await;
        }
    }
    let mut peer = running.connect(ProtocolVersion::V4, "offender").await;
    peer.publish("weir/windows/a/b", 1, 1, "x").await;
    peer.expect_close(CloseReason::NotAuthorized).await;
    bystander.expect_pong().await;
}

#[tokio::test]
async fn what_came_before_an_offence_counts() {
    let running = eager().await;
    let mut peer = running.connect(ProtocolVersion::V5, "c").await;
    let mut bytes = peer.client().publish(TOPIC, 0, 0, b"x");
    bytes.extend_from_slice(&[0x20, 2, 0, 0]);
    peer.send(&bytes).await;
    peer.expect_close(CloseReason::Protocol).await;
    assert_eq!(running.journal.records(), ["c devices/a/telemetry 0/0 x"]);
}

#[tokio::test]
async fn bad_beginnings_are_closed() {
    let running = start(TestJournal::eager(), |config| config.connect_timeout_ms = 30).await;
    let beginnings: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x30, 3, 0, 1, b'a'],
        &[0x10, 0xFF, 0xFF, 0xFF, 0x7F],
        &[0x10, 2, 0, 0],
        &[0x10, 40, 0, 4], // and nothing more: too slow
    ];
    for bytes in beginnings {
        let mut peer = running.socket(ProtocolVersion::V4).await;
        peer.send(bytes).await;
        assert_eq!(peer.receive().await, None, "{bytes:?}");
    }
    let mut peer = running.socket(ProtocolVersion::V4).await;
    peer.send(&[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 3, 2, 0, 0, 0, 0]).await;
    assert_eq!(peer.receive().await, Some(SentPacket::Other(vec![0x20, 2, 0, 1])));
    assert_eq!(peer.receive().await, None);
}

#[tokio::test]
async fn a_full_server_refuses_and_recovers() {
    let running = start(TestJournal::eager(), |config| config.max_connections = 1).await;
    let first = running.connect(ProtocolVersion::V4, "first").await;
    for (version, expected) in
        [(ProtocolVersion::V4, vec![0x20, 2, 0, 3]), (ProtocolVersion::V5, vec![0x20, 3, 0, 0x97, 0])]
    {
        let mut peer = running.socket(version).await;
        peer.send(&client(version).connect("second")).await;
        assert_eq!(peer.receive().await, Some(SentPacket::Other(expected)));
        assert_eq!(peer.receive().await, None);
    }
    drop(first);
    running.until_idle().await;
    running.connect(ProtocolVersion::V4, "second").await.expect_pong().await;
}

#[tokio::test]
async fn a_silent_client_is_ended() {
    let running = eager().await;
    let (mut peer, _) = running.connect_as(client(ProtocolVersion::V5).keep_alive(1), ProtocolVersion::V5, "c").await;
    peer.expect_close(CloseReason::KeepAlive).await;
}

#[tokio::test]
async fn a_stop_tells_the_clients_and_ends() {
    let running = start(Arc::default(), |_| {}).await;
    let mut old = running.connect(ProtocolVersion::V4, "old").await;
    let mut new = running.connect(ProtocolVersion::V5, "new").await;
    let mut silent = running.socket(ProtocolVersion::V4).await;
    running.cancel.cancel();
    old.expect_close(CloseReason::ShuttingDown).await;
    new.expect_close(CloseReason::ShuttingDown).await;
    assert_eq!(silent.receive().await, None);
    drop((old, new, silent));
    timeout(PATIENCE, running.task).await.expect("it does not end").unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn an_overflowing_subscriber_misses_the_newest() {
    let running = start(TestJournal::eager(), |config| config.max_queued_messages = 3).await;
    let kept = client(ProtocolVersion::V4).kept();
    let (mut peer, _) = running.connect_as(kept.clone(), ProtocolVersion::V4, "slow").await;
    peer.subscribe(&[("a", 1)]).await;
    drop(peer);
    running.until_idle().await;
    for payload in ["1", "2", "3", "4", "5"] {
        running.broker.publish("a", payload.into(), 1, false);
    }
    assert_eq!(running.broker.stats().queued_messages, 3);
    let (mut peer, _) = running.connect_as(kept, ProtocolVersion::V4, "slow").await;
    for payload in ["1", "2", "3"] {
        peer.expect_message("a", payload).await;
    }
    peer.expect_pong().await;
}

#[tokio::test]
async fn random_bytes_leave_it_serving() {
    let running = eager().await;
    let mut random = Random::new(0x9E37_79B9_7F4A_7C15);
    for round in 0..300 {
        let mut peer = running.socket(ProtocolVersion::V5).await;
        if round % 2 == 0 {
            peer.send(&client(ProtocolVersion::V5).connect("garbage")).await;
        }
        let len = random.index(300);
        let bytes = random.bytes(len);
        // weir may be gone before everything is written.
        let _ = peer.stream.write_all(&bytes).await;
        let _ = peer.stream.shutdown().await;
    }
    running.connect(ProtocolVersion::V4, "c").await.expect_pong().await;
    running.until_idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_real_log_acknowledgements_follow_the_sync() {
    use crate::disk::sim::SimDisk;
    use crate::log::{LogOptions, Lsn, Retention, SyncPolicy};

    let disk = SimDisk::new();
    let options = LogOptions {
        name: "journal",
        dir: "journal".into(),
        segment_bytes: 1 << 22,
        commit_max_bytes: 1 << 20,
        queue_max_bytes: 1 << 21,
        tail_max_bytes: 1 << 21,
        sync: SyncPolicy::EveryCommit,
        min_free_bytes: 0,
        retention: Retention::default(),
        clock_tolerance_ms: 60_000,
    };
    let (log, _) = Log::open(Arc::new(disk), Arc::new(SystemClock), options, Lsn(0)).unwrap();
    let config = MqttConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..MqttConfig::default() };
    let server = MqttServer::bind(&config, &IngestConfig::default(), log.clone(), access(), Arc::new(SystemClock))
        .await
        .unwrap();
    let (address, cancel) = (server.local_addr(), CancellationToken::new());
    let task = tokio::spawn(server.run(cancel.clone()));
    let publishers = (0..8).map(|number| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let (mut reader, mut writer) = stream.split();
            writer.write_all(&client(ProtocolVersion::V4).connect(&format!("c{number}"))).await.unwrap();
            let mut connack = [0; 4];
            reader.read_exact(&mut connack).await.unwrap();
            let publishes: Vec<u8> =
                (1..=2_000).flat_map(|id| client(ProtocolVersion::V4).publish(TOPIC, 1, id, &[b'x'; 100])).collect();
            let mut acks = vec![0; 2_000 * 4];
            let (sent, received) = tokio::join!(writer.write_all(&publishes), reader.read_exact(&mut acks));
            sent.unwrap();
            received.unwrap();
            acks.chunks(4).map(|ack| u16::from_be_bytes([ack[2], ack[3]])).eq(1..=2_000)
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        assert!(timeout(PATIENCE, publisher).await.expect("acknowledgements are missing").unwrap());
    }
    assert_eq!(log.durable(), Lsn(16_000));
    cancel.cancel();
    task.await.unwrap();
}
