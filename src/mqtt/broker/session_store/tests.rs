//! Sessions over a restart: the broker before and after it.

mod wills;

use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::access::{Identity, Login, Proof};
use crate::clock::SystemClock;
use crate::config::MqttConfig;
use crate::disk::RealDisk;
use crate::log::Lsn;
use crate::mqtt::ProtocolVersion;
use crate::mqtt::broker::{AttachRequest, AttachedSession, Broker};
use crate::mqtt::session::message::Message;
use crate::mqtt::session::packet_ids::PacketIds;
use crate::mqtt::session::stored::SESSION;
use crate::mqtt::testing::{SentPacket, SteppedClock, attaching, packets, policy};
use crate::mqtt::wire::codec::{RetainHandling, TopicSubscription};
use crate::mqtt::wire::frame;

/// A broker, its store in a directory, and the clock of both.
struct Life {
    broker: Broker,
    clock: Arc<SteppedClock>,
}

impl Life {
    /// Starts with the store in `directory`.
    fn begin(directory: &Path, clock: Arc<SteppedClock>, journal_end: Lsn) -> Self {
        Self::begin_with(&MqttConfig::default(), directory, clock, journal_end)
    }

    fn begin_with(config: &MqttConfig, directory: &Path, clock: Arc<SteppedClock>, journal_end: Lsn) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let store = SessionStore::open(directory, disk, Arc::new(SystemClock), Duration::from_secs(60)).unwrap();
        let broker = Broker::new(config, Arc::default(), Timeline::new(clock.clone()));
        broker.keep_sessions(store, journal_end, policy());
        Self { broker, clock }
    }

    fn attach(&self, client_id: &str, clean: bool, expiry_s: u32) -> AttachedSession {
        self.broker.attach(&AttachRequest { clean, expiry_s, ..attaching(client_id) }).unwrap()
    }

    /// Stores what changed and waits until it is on disk. The journal is durable up to `durable`.
    fn round(&self, durable: Lsn) {
        self.broker.store_sessions(durable);
        while self.broker.stats().unstored_sessions > 0 {
            std::thread::yield_now();
        }
    }

    fn subscribe(&self, to: &AttachedSession, filter: &str, qos: u8) {
        let filter = TopicSubscription {
            filter: filter.into(),
            qos,
            no_local: false,
            retain_as_published: true,
            retain: RetainHandling::Always,
            identifier: Some(7),
        };
        self.broker.subscribe(&to.session, to.connection, &filter);
    }
}

fn sent(attached: &AttachedSession) -> Vec<SentPacket> {
    let mut out = Vec::new();
    attached.session.write(attached.connection, ProtocolVersion::V4, usize::MAX, usize::MAX, Instant::now, &mut out);
    packets(&out, ProtocolVersion::V4)
}

/// A copy of the stores in a directory, as another process would find them: the thread of an earlier life still has them
/// open.
fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::TempDir::new().unwrap();
    let name = Encoded::LABELS.directory;
    std::fs::create_dir(to.path().join(name)).unwrap();
    for entry in std::fs::read_dir(from.join(name)).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file())
    {
        std::fs::copy(entry.path(), to.path().join(name).join(entry.file_name())).unwrap();
    }
    to
}

fn publish(packet_id: u16, dup: bool, qos: u8, payload: &[u8]) -> SentPacket {
    SentPacket::Publish { packet_id, dup, qos, retain: false, topic: "t".into(), payload: payload.to_vec() }
}

#[test]
fn a_session_goes_on_after_a_restart() {
    let directory = tempfile::TempDir::new().unwrap();
    let life = Life::begin(directory.path(), Arc::default(), Lsn(0));
    let one = life.attach("one", true, 60);
    life.subscribe(&one, "t", 2);
    life.subscribe(&one, "$share/g/s/+", 1);
    for (payload, qos) in [("a", 1), ("b", 2), ("c", 2)] {
        life.broker.publish("t", payload.into(), qos, false);
    }
    assert_eq!(sent(&one), [publish(1, false, 1, b"a"), publish(2, false, 2, b"b"), publish(3, false, 2, b"c")]);
    one.session.acknowledge(one.connection, frame::PUBREC, 2, 0).unwrap();
    life.broker.publish("t", "d".into(), 1, false);
    life.broker.publish("t", "lost".into(), 0, false);
    let mut ids = PacketIds::default();
    ids.insert(9);
    one.session.hold(one.connection, &mut ids, Lsn(5));
    assert_eq!(life.broker.stats().unstored_sessions, 1);
    life.broker.sync_sessions(Lsn(5));
    assert_eq!(life.broker.stats().unstored_sessions, 0);

    let after = copied(directory.path());
    let life = Life::begin(after.path(), life.clock, Lsn(5));
    let stats = life.broker.stats();
    assert_eq!((stats.sessions, stats.connections, stats.subscriptions, stats.shared_subscriptions), (1, 0, 2, 1));
    assert_eq!(stats.queued_messages, 1);
    life.broker.publish("s/1", "e".into(), 1, false);
    let one = life.attach("one", false, 60);
    assert!(one.session_present && one.session.holds(one.connection, 9));
    let again = sent(&one);
    let released = SentPacket::Ack { kind: frame::PUBREL, packet_id: 2, reason: 0 };
    assert_eq!(again[..2], [publish(1, true, 1, b"a"), released]);
    assert_eq!(again[2..4], [publish(3, true, 2, b"c"), publish(4, false, 1, b"d")]);
    assert_eq!(again.len(), 5, "the shared subscription goes on");
}

/// Bytes that the first version wrote: a session without a connection, with a subscription, a message in flight and one that
/// waits.
#[test]
fn a_session_of_the_first_version_is_read() {
    let head =
        [&[1, 0, 0, 0, 4][..], b"kept", &[255, 255, 255, 255, 15, 1, 250, 203, 252, 238, 191, 104, 0, 0]].concat();
    let filter = [&[1, 10][..], b"commands/+", &[2, 0]].concat();
    let in_flight = [&[0, 1, 2, 1, 1, 0, 10][..], b"commands/a", &[0, 4], b"sent"].concat();
    let waiting = [&[1, 1, 1, 0, 10][..], b"commands/b", &[0, 5], b"waits"].concat();
    let bytes = [&head[..], &[0], &filter, &in_flight, &waiting].concat();
    let session = StoredSession::decode(&bytes, &Timeline::default()).unwrap();
    assert_eq!(&*session.owner.client_id, "kept");
    assert_eq!((session.expiry_s, session.disconnected_ms), (u32::MAX, Some(1_795_278_476_029)));
    assert_eq!((&*session.subscriptions[0].filter, session.subscriptions[0].qos), ("commands/+", 2));
    assert_eq!(session.encode(&Timeline::default()), bytes, "it is written so still");
}

#[test]
fn what_ended_does_not_come_back() {
    let directory = tempfile::TempDir::new().unwrap();
    let life = Life::begin(directory.path(), Arc::default(), Lsn(0));
    let lasting = |id: &str| life.attach(id, true, 60);
    let [gone, cleaned, ending, expiring, kept] = ["gone", "cleaned", "ending", "expiring", "kept"].map(lasting);
    life.broker.sync_sessions(Lsn(0));
    life.broker.detach(&gone.session, gone.connection, 0, None);
    drop(cleaned);
    life.attach("cleaned", true, 0);
    drop(ending);
    life.attach("ending", false, 0);
    life.broker.detach(&expiring.session, expiring.connection, 5, None);
    life.broker.detach(&kept.session, kept.connection, 60, None);
    life.attach("never", true, 0);
    life.broker.sync_sessions(Lsn(0));

    let after = copied(directory.path());
    life.clock.advance(10_000);
    let life = Life::begin(after.path(), life.clock, Lsn(0));
    assert_eq!(life.broker.stats().sessions, 1);
    assert!(life.attach("kept", false, 60).session_present);
    let again = life.attach("other", true, 60);
    life.broker.detach(&again.session, again.connection, 60, None);
    life.clock.advance(51_000);
    life.broker.due();
    assert_eq!(life.broker.stats().sessions, 2, "the one that is connected, and the one with 9 s left");
}

/// A stored packet identifier may have been released and used again before a crash. A publish that was lost with the
/// journal's tail would then be taken for a known one. So packet identifiers are restored only after an orderly stop, and
/// only by the start that follows it.
#[test]
fn packet_identifiers_are_known_only_after_an_orderly_stop() {
    let directory = tempfile::TempDir::new().unwrap();
    let life = Life::begin(directory.path(), Arc::default(), Lsn(0));
    let one = life.attach("one", true, 60);
    life.subscribe(&one, "t", 2);
    life.broker.publish("t", "a".into(), 1, false);
    life.broker.publish("t", "b".into(), 2, false);
    assert_eq!(sent(&one), [publish(1, false, 1, b"a"), publish(2, false, 2, b"b")]);
    one.session.acknowledge(one.connection, frame::PUBREC, 2, 0).unwrap();
    life.broker.publish("t", "c".into(), 1, false);
    let mut ids = PacketIds::default();
    ids.insert(9);
    one.session.hold(one.connection, &mut ids, Lsn(5));
    let check = |journal_end, exactly: bool| {
        let after = copied(directory.path());
        let life = Life::begin(after.path(), Arc::default(), journal_end);
        assert_eq!(life.broker.stats().queued_messages, if exactly { 1 } else { 2 });
        let one = life.attach("one", false, 60);
        assert_eq!((one.session_present, one.session.holds(one.connection, 9)), (true, exactly));
        let again = sent(&one);
        if exactly {
            let released = SentPacket::Ack { kind: frame::PUBREL, packet_id: 2, reason: 0 };
            assert_eq!(again, [publish(1, true, 1, b"a"), released, publish(3, false, 1, b"c")]);
        } else {
            // The identifiers are new to the client; messages that it has received are not sent again.
            assert_eq!(again, [publish(32_769, false, 1, b"a"), publish(32_770, false, 1, b"c")]);
        }
    };
    life.round(Lsn(5));
    check(Lsn(5), false);
    life.broker.sync_sessions(Lsn(5));
    check(Lsn(5), true);
    check(Lsn(7), false);
}

#[test]
fn messages_expire_by_the_clock_on_the_wall() {
    let directory = tempfile::TempDir::new().unwrap();
    let life = Life::begin(directory.path(), Arc::default(), Lsn(0));
    let one = life.attach("one", true, 60);
    life.subscribe(&one, "t", 1);
    let now = Timeline::new(life.clock.clone()).now();
    for (payload, seconds) in [("short", 5), ("long", 50)] {
        let expires = Some(now + Duration::from_secs(seconds));
        let message = Message { expires, ..Message::new("t", payload.into(), 1, false) };
        life.broker.deliver_will(&Arc::new(message), None);
    }
    life.broker.detach(&one.session, one.connection, 60, None);
    life.broker.sync_sessions(Lsn(0));
    let after = copied(directory.path());
    life.clock.advance(10_000);
    let life = Life::begin(after.path(), life.clock.clone(), Lsn(0));
    let one = life.attach("one", false, 60);
    let now = Timeline::new(life.clock.clone()).now();
    let mut out = Vec::new();
    one.session.write(one.connection, ProtocolVersion::V4, usize::MAX, usize::MAX, || now, &mut out);
    let payloads: Vec<SentPacket> = packets(&out, ProtocolVersion::V4);
    assert!(matches!(&payloads[..], [SentPacket::Publish { payload, .. }] if payload == b"long"), "{payloads:?}");
}

proptest! {
    /// Whatever is on the disk, decoding neither panics nor takes more memory than there are bytes.
    #[test]
    fn any_bytes_are_a_session_a_will_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = StoredSession::decode(&[&[SESSION][..], &bytes].concat(), &Timeline::default());
        let _ = stored_will::decode(&[&[WILL][..], &bytes].concat());
    }
}
