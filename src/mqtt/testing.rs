//! What the tests of the door share: packets of a client, packets read back, a waker that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use bytes::BytesMut;
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{
    Connect, ConnectProperties, Filter, LastWill, Packet, Protocol, RetainForwardRule, Subscribe, Unsubscribe, qos,
};

use super::Version;
use super::frame::{self, Next, Outgoing, Publish};

/// Builds packets as a client sends them.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    version: Version,
    keep_alive: u16,
    kept: bool,
    will: Option<LastWill>,
}

pub(crate) fn client(version: Version) -> Client {
    Client { version, keep_alive: 0, kept: false, will: None }
}

impl Client {
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Not clean, and for 5.0 with a session expiry of an hour.
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
        let properties = (self.version == Version::V5 && self.kept).then(|| ConnectProperties {
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
        self.publish_with(Outgoing { dup: false, qos, retain: false, packet_id, topic, properties: &[], payload })
    }

    pub fn publish_with(&self, outgoing: Outgoing<'_>) -> Vec<u8> {
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
            Version::V4 => V4.write(packet, &mut bytes),
            Version::V5 => V5.write(packet, &mut bytes),
        }
        .unwrap();
        bytes.to_vec()
    }
}

/// A packet that weir sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    Publish { packet_id: u16, dup: bool, qos: u8, retain: bool, topic: String, payload: Vec<u8> },
    Ack { kind: u8, packet_id: u16, reason: u8 },
    Other(Vec<u8>),
}

/// The packets in `bytes`, which must be whole.
pub(crate) fn packets(mut bytes: &[u8], version: Version) -> Vec<Sent> {
    let mut sent = Vec::new();
    while !bytes.is_empty() {
        let Ok(Next::Frame(frame)) = frame::next(bytes, usize::MAX) else { panic!("not a packet: {bytes:?}") };
        sent.push(match frame.kind {
            frame::PUBLISH => {
                let publish = Publish::parse(frame.flags, frame.body, version).unwrap();
                Sent::Publish {
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
                Sent::Ack { kind: frame.kind, packet_id, reason }
            }
            _ => Sent::Other(frame.bytes.to_vec()),
        });
        bytes = &bytes[frame.bytes.len()..];
    }
    sent
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
