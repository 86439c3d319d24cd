//! Helpers of the MQTT unit tests: packets of a client, packets read back, a journal in memory, a clock, a counting waker.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::BytesMut;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{
    Connect, ConnectProperties, Filter, LastWill, Packet, Protocol, RetainForwardRule, Subscribe, Unsubscribe, qos,
};

use super::ProtocolVersion;
use super::broker::AttachRequest;
use super::connection::journal_appender::IngestJournal;
use super::session::message::Message;
use super::session::will::Will;
use super::wire::frame::{self, IncomingPublish, NextFrame, OutgoingPublish};
use crate::access::{Login, Policy};
use crate::clock::Clock;
use crate::core::record::{self, Record, RecordDecoder};
use crate::log::{AppendError, Lsn, Records};
use crate::sync::lock;

/// An access policy that allows everything to everybody.
pub(crate) fn policy() -> &'static Policy {
    static POLICY: LazyLock<Policy> = LazyLock::new(|| Policy::without_users(true));
    &POLICY
}

/// A client without credentials.
pub(crate) fn anonymous() -> Login {
    Login { identity: policy().anonymous().unwrap(), ..Login::default() }
}

/// A client without credentials that connects.
pub(crate) fn attaching(client_id: &str) -> AttachRequest<'_> {
    static LOGIN: LazyLock<Login> = LazyLock::new(anonymous);
    AttachRequest { login: &LOGIN, policy: policy(), client_id, clean: true, receive_maximum: 100, expiry_s: 60 }
}

/// A will of a client without credentials, on the topic `gone`.
pub(crate) fn will(client_id: &str, delay_s: u32) -> Will {
    let message = Message::new("gone", "x".into(), 0, false);
    Will { number: 0, client_id: client_id.into(), login: anonymous(), message, expiry_s: None, delay_s }
}

/// Builds packets as a client sends them.
#[derive(Debug, Clone)]
pub(crate) struct PacketBuilder {
    version: ProtocolVersion,
    keep_alive: u16,
    kept: bool,
    will: Option<LastWill>,
}

pub(crate) fn client(version: ProtocolVersion) -> PacketBuilder {
    PacketBuilder { version, keep_alive: 0, kept: false, will: None }
}

impl PacketBuilder {
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Without the clean flag, and for 5.0 with a session expiry of an hour.
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    pub fn will(mut self, topic: &str, message: &[u8], level: u8) -> Self {
        self.will = Some(LastWill {
            topic: topic.to_owned().into(),
            message: message.to_vec().into(),
            qos: qos(level).unwrap(),
            retain: false,
        });
        self
    }

    pub fn connect(&self, client_id: &str) -> Vec<u8> {
        let connect = Connect { keep_alive: self.keep_alive, client_id: client_id.into(), clean_session: !self.kept };
        let properties = (self.version == ProtocolVersion::V5 && self.kept).then(|| ConnectProperties {
            session_expiry_interval: Some(3_600),
            receive_maximum: None,
            max_packet_size: None,
            topic_alias_max: None,
            request_response_info: None,
            request_problem_info: None,
            user_properties: Vec::new(),
            authentication_method: None,
            authentication_data: None,
        });
        self.encode(Packet::Connect(connect, properties, self.will.clone(), None, None))
    }

    pub fn subscribe(&self, packet_id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
        let filters = filters.iter().map(|(path, level)| Filter {
            path: (*path).into(),
            qos: qos(*level).unwrap(),
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::OnEverySubscribe,
        });
        self.encode(Packet::Subscribe(Subscribe { pkid: packet_id, filters: filters.collect() }, None))
    }

    pub fn unsubscribe(&self, packet_id: u16, filters: &[&str]) -> Vec<u8> {
        let filters = filters.iter().map(|filter| (*filter).into()).collect();
        self.encode(Packet::Unsubscribe(Unsubscribe { pkid: packet_id, filters }, None))
    }

    pub fn publish(&self, topic: &str, qos: u8, packet_id: u16, payload: &[u8]) -> Vec<u8> {
        self.publish_with(OutgoingPublish {
            dup: false,
            qos,
            retain: false,
            packet_id,
            topic,
            properties: &[],
            payload,
        })
    }

    pub fn publish_with(&self, outgoing: OutgoingPublish<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        outgoing.encode(self.version, &mut out);
        out
    }

    pub fn ack(&self, kind: u8, packet_id: u16) -> Vec<u8> {
        let mut out = Vec::new();
        frame::put_ack(kind, packet_id, 0, self.version, &mut out);
        out
    }

    fn encode(&self, packet: Packet) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        match self.version {
            ProtocolVersion::V4 => V4.write(packet, &mut bytes),
            ProtocolVersion::V5 => V5.write(packet, &mut bytes),
        }
        .unwrap();
        bytes.to_vec()
    }
}

/// A packet that weir sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SentPacket {
    Publish { packet_id: u16, dup: bool, qos: u8, retain: bool, topic: String, payload: Vec<u8> },
    Ack { kind: u8, packet_id: u16, reason: u8 },
    Other(Vec<u8>),
}

/// The packets in `bytes`, which must be whole.
pub(crate) fn packets(mut bytes: &[u8], version: ProtocolVersion) -> Vec<SentPacket> {
    let mut sent = Vec::new();
    while !bytes.is_empty() {
        let Ok(NextFrame::Frame(frame)) = frame::next(bytes, usize::MAX) else { panic!("not a packet: {bytes:?}") };
        sent.push(match frame.kind {
            frame::PUBLISH => {
                let publish = IncomingPublish::parse(frame.flags, frame.body, version).unwrap();
                SentPacket::Publish {
                    packet_id: publish.packet_id,
                    dup: publish.dup,
                    qos: publish.qos,
                    retain: publish.retain,
                    topic: String::from_utf8(publish.topic.to_vec()).unwrap(),
                    payload: publish.payload.to_vec(),
                }
            }
            frame::PUBACK | frame::PUBREC | frame::PUBREL | frame::PUBCOMP => {
                let (packet_id, reason) = frame::parse_ack(&frame, version).unwrap();
                SentPacket::Ack { kind: frame.kind, packet_id, reason }
            }
            _ => SentPacket::Other(frame.bytes.to_vec()),
        });
        bytes = &bytes[frame.bytes.len()..];
    }
    sent
}

/// A journal in memory: the test says when it syncs and when it has room.
#[derive(Debug, Default)]
pub(crate) struct TestJournal(Mutex<JournalContents>);

#[derive(Debug, Default)]
struct JournalContents {
    /// Records as text, see [`describe`].
    records: Vec<String>,
    durable: u64,
    /// Whether each append is durable at once.
    eager: bool,
    full: bool,
    waiting: Vec<Waker>,
    waiting_for_room: Vec<Waker>,
}

impl TestJournal {
    /// A journal whose appends are durable at once.
    pub fn eager() -> Arc<Self> {
        let journal = Self::default();
        lock(&journal.0).eager = true;
        Arc::new(journal)
    }

    /// Appended records, one line each.
    pub fn records(&self) -> Vec<String> {
        lock(&self.0).records.clone()
    }

    /// Makes everything that was appended durable.
    pub fn sync(&self) {
        let mut contents = lock(&self.0);
        contents.durable = contents.records.len() as u64;
        contents.waiting.drain(..).for_each(Waker::wake);
    }

    pub fn set_full(&self, full: bool) {
        let mut contents = lock(&self.0);
        contents.full = full;
        if !full {
            contents.waiting_for_room.drain(..).for_each(Waker::wake);
        }
    }

    /// How many tasks wait for room.
    pub fn waiting_for_room(&self) -> usize {
        lock(&self.0).waiting_for_room.len()
    }
}

impl IngestJournal for TestJournal {
    fn append(&self, records: &Records, waker: Option<&Waker>) -> Result<Lsn, AppendError> {
        let mut contents = lock(&self.0);
        if contents.full {
            return Err(AppendError::Full);
        }
        let described = describe(records);
        contents.records.extend(described);
        contents.waiting.extend(waker.cloned());
        let end = Lsn(contents.records.len() as u64);
        if contents.eager {
            contents.durable = end.0;
            contents.waiting.drain(..).for_each(Waker::wake);
        }
        Ok(end)
    }

    fn durable(&self) -> Lsn {
        Lsn(lock(&self.0).durable)
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut contents = lock(&self.0);
        if !contents.full {
            return Poll::Ready(());
        }
        contents.waiting_for_room.push(context.waker().clone());
        Poll::Pending
    }
}

/// The records as `client topic qos/id payload`; an origin taken from the record before is marked with `=`, a message that
/// repeats what is retained with `again`.
pub(crate) fn describe(records: &Records) -> Vec<String> {
    let mut decoder = RecordDecoder::default();
    let described = records.iter().map(|record| match decoder.decode(record).unwrap() {
        Record::Publish(publish, same_origin) => {
            let mark = if same_origin { "=" } else { "" };
            let payload = String::from_utf8_lossy(publish.payload);
            let own = publish.own_device.map(|device| format!("({device})")).unwrap_or_default();
            let again = if publish.repeats_retained { " again" } else { "" };
            let record::PublishRecord { client_id, topic, qos, packet_id, .. } = publish;
            format!("{mark}{client_id}{own} {topic} {qos}/{packet_id} {payload}{again}")
        }
        Record::Tick => "tick".into(),
        Record::Resumed => "resumed".into(),
        Record::Replay(replay) => format!("replay of record {}", replay.position),
        Record::Settings(_) => "settings".into(),
        Record::Forget(_) => "forget".into(),
    });
    described.collect()
}

/// A clock that the test moves.
#[derive(Debug, Default)]
pub(crate) struct SteppedClock(AtomicU64);

impl SteppedClock {
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for SteppedClock {
    fn now_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.load(Ordering::Relaxed) as i64
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Counts how often it is woken.
#[derive(Debug, Default)]
pub(crate) struct CountingWaker(AtomicUsize);

impl CountingWaker {
    pub fn pair() -> (Waker, Arc<Self>) {
        let count = Arc::new(Self::default());
        (Waker::from(Arc::clone(&count)), count)
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
