//! The protocol of one connection after its CONNECT: a pure state machine.
//!
//! It takes frames and the time, and returns bytes to send, records for the journal and [`ProtocolEvent`]s. It has no
//! socket, no clock and no lock: it asks a [`ProtocolContext`] about everything outside of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acks::Acks;
use super::keep_alive::{KeepAlive, Silence};
use super::protocol_context::ProtocolContext;
use super::topic_cache::{PublishRefusal, TopicCache};
use crate::access::MAX_USER_BYTES;
use crate::config::OnDeniedPublish;
use crate::core::record;
use crate::log::{Lsn, Records};
use crate::mqtt::ProtocolVersion;
use crate::mqtt::broker::traffic::ReceivedCounts;
use crate::mqtt::session::packet_ids::PacketIds;
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::codec::{self, SubscribePacket};
use crate::mqtt::wire::frame::{self, Frame, IncomingPublish};
use crate::mqtt::wire::properties::{PropertyCarrier, PublishProperties};

/// Largest topic alias that a client may set. CONNACK announces it.
pub(crate) const TOPIC_ALIAS_MAXIMUM: u16 = 10;
/// Largest sum of the lengths, in bytes, of the topics behind a connection's aliases.
const MAX_ALIAS_BYTES: usize = 64 * 1024;
/// Bytes that the longest user name takes in a record, with its length field. It is there twice where it is also the device
/// that the client may speak for.
const USER_BYTES: usize = 2 * (MAX_USER_BYTES + 2);
/// Largest number of unreleased QoS 2 publishes of a 3.1.1 connection: MQTT 3.1.1 has no receive maximum. Each takes
/// two bytes of memory.
const MAX_UNRELEASED: usize = 10_000;

/// Time after a client's CONNECT in which it publishes again what is retained on its topics: a bridge sends its retained messages,
/// a device tells its state. Such a message is no reading.
const RETAINED_REPEATS_WITHIN: Duration = Duration::from_secs(10);

/// Reason code 0x87 of MQTT 5.0: not authorized.
const NOT_AUTHORIZED: u8 = 0x87;
/// Reason code 0x97 of MQTT 5.0: quota exceeded.
const QUOTA_EXCEEDED: u8 = 0x97;
/// Reason code 0x99 of MQTT 5.0: payload format invalid.
const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
/// Reason code 0x10 of MQTT 5.0: no matching subscribers.
const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;

/// Work that a packet asks for and that the connection carries out.
#[derive(Debug, PartialEq)]
pub(crate) enum ProtocolEvent<'a> {
    /// Nothing is left to do for the packet.
    None,
    /// Deliver this publish to subscribers, and retain it if its RETAIN flag is set.
    Forward(ForwardedPublish<'a>),
    /// The client acknowledged a message that was sent to it: PUBACK, PUBREC or PUBCOMP, as `kind` says.
    Acknowledged { kind: u8, packet_id: u16, reason: u8 },
    /// PUBREL: forget the packet identifier of a QoS 2 publish and answer with PUBCOMP.
    Release { packet_id: u16 },
    /// SUBSCRIBE: add the subscriptions and answer with SUBACK.
    Subscribe(SubscribePacket),
    /// UNSUBSCRIBE: end the subscriptions and answer with UNSUBACK.
    Unsubscribe { packet_id: u16, filters: Vec<String> },
}

/// A publish that the broker delivers to subscribers.
#[derive(Debug, PartialEq)]
pub(crate) struct ForwardedPublish<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub properties: PublishProperties<'a>,
    pub qos: u8,
    pub retain: bool,
}

/// Options of a new [`Protocol`].
#[derive(Debug, Clone)]
pub(crate) struct ProtocolOptions {
    pub version: ProtocolVersion,
    /// Whether the client speaks MQTT 3.1. `version` is 3.1.1 then.
    pub is_3_1: bool,
    /// Client identifier.
    pub client_id: Arc<str>,
    /// User of the client; `None`: it is anonymous.
    pub user: Option<Arc<str>>,
    /// Keep-alive interval in seconds; 0: off.
    pub keep_alive_s: u16,
    /// Seconds that the session outlives the connection.
    pub expiry_s: u32,
    /// Receive maximum of weir. The socket is not read while as many acknowledgements are outstanding.
    pub max_inflight: u16,
    /// Journal position after the last QoS 2 publish of the session's earlier connections. A repetition of such a publish is
    /// acknowledged once the journal is durable up to here.
    pub received_until: Lsn,
}

/// Protocol state of one connection.
#[derive(Debug)]
pub(crate) struct Protocol {
    version: ProtocolVersion,
    is_3_1: bool,
    client_id: Arc<str>,
    user: Option<Arc<str>>,
    max_inflight: usize,
    expiry_s: u32,
    keep_alive: KeepAlive,
    topic: TopicCache,
    aliases: Vec<Option<Box<[u8]>>>,
    alias_bytes: usize,
    acks: Acks,
    /// Packet identifiers of the QoS 2 publishes of the current read. The journal does not have these publishes yet.
    fresh: PacketIds,
    /// Number of QoS 2 publishes of this connection that the client has not released.
    unreleased: usize,
    /// End of [`RETAINED_REPEATS_WITHIN`] after the CONNECT.
    may_repeat_until: Instant,
    /// Whether the present read is before `may_repeat_until`.
    may_repeat: bool,
    /// QoS of the last publish that was forwarded.
    last_qos: u8,
    received: ReceivedCounts,
}

impl Protocol {
    /// Makes the protocol of a connection whose CONNECT was accepted at `now`.
    pub fn new(options: ProtocolOptions, now: Instant) -> Self {
        let mut acks = Acks::default();
        acks.seal(Some(options.received_until), now);
        Self {
            version: options.version,
            is_3_1: options.is_3_1,
            client_id: options.client_id,
            user: options.user,
            max_inflight: usize::from(options.max_inflight),
            expiry_s: options.expiry_s,
            keep_alive: KeepAlive::new(options.keep_alive_s, now),
            topic: TopicCache::default(),
            aliases: Vec::new(),
            alias_bytes: 0,
            acks,
            fresh: PacketIds::default(),
            unreleased: 0,
            may_repeat_until: now + RETAINED_REPEATS_WITHIN,
            may_repeat: true,
            last_qos: 0,
            received: ReceivedCounts::default(),
        }
    }

    /// MQTT version of the connection.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Seconds that the session outlives the connection.
    pub fn expiry_s(&self) -> u32 {
        self.expiry_s
    }

    /// Notes that bytes arrived, or that weir was not reading: the keep-alive interval begins anew.
    pub fn heard(&mut self, now: Instant) {
        self.keep_alive.heard(now);
    }

    /// Time at which the connection ends if nothing arrives; `None`: keep-alive is off.
    pub fn keep_alive_deadline(&self) -> Option<Instant> {
        self.keep_alive.deadline()
    }

    /// Judges a client whose socket was just found empty, see [`KeepAlive::judge`].
    pub fn judge_silence(&mut self, now: Instant, stalled_until: Option<Instant>) -> Silence {
        self.keep_alive.judge(now, stalled_until)
    }

    /// Whether so many acknowledgements are outstanding that the socket must not be read.
    pub fn is_full(&self) -> bool {
        self.acks.len() >= self.max_inflight
    }

    /// Outstanding acknowledgements.
    pub fn acks(&self) -> &Acks {
        &self.acks
    }

    /// Notes that a quota kept the last publish from being retained or from a subscriber that should have got it. MQTT 5.0 has a
    /// reason code for QoS 1 and 2. A publish in the journal was accepted, so its acknowledgement stays.
    pub fn note_over_quota(&mut self) {
        if self.version != ProtocolVersion::V5 || self.topic.current.ingest || self.last_qos == 0 {
            return;
        }
        // A PUBREC with an error ends the exchange [section 4.3.3]: the client sends no PUBREL, and may use the identifier again.
        if let Some(packet_id) = self.acks.refuse_last(QUOTA_EXCEEDED)
            && self.last_qos == 2
        {
            self.fresh.remove(packet_id);
            self.unreleased = self.unreleased.saturating_sub(1);
        }
    }

    /// Returns the counts of received packets since the last call, and sets them to 0.
    pub fn take_received(&mut self) -> ReceivedCounts {
        std::mem::take(&mut self.received)
    }

    /// Largest number of bytes by which a journal record may exceed its packet: client identifier, own device, topic
    /// behind an alias, framing.
    #[inline]
    pub fn record_overhead(&self) -> usize {
        const FRAMING: usize = 16;
        self.client_id.len() + USER_BYTES + self.alias_bytes + FRAMING
    }

    /// Notes that bytes were read at `now`, and begins a new append for them.
    pub fn begin_read(&mut self, now: Instant) {
        self.heard(now);
        self.may_repeat = now < self.may_repeat_until;
        self.topic.unmatched.begin_read(now);
        self.begin_append();
    }

    /// Notes the publishes of this read on topics that are no ingest topics.
    pub fn end_read(&mut self, context: &impl ProtocolContext) {
        self.topic.end_read(context);
    }

    /// Begins a new append. Its first publish record states its origin (client, topic, own device, user): a record can refer
    /// only to the origin of a record before it in the same append.
    pub fn begin_append(&mut self) {
        self.topic.encoded = false;
    }

    /// Notes that the publishes read until now are in the journal below `until`; `None`: none of them was journaled.
    /// Returns the packet identifiers of the QoS 2 publishes among them, and the journal position to remember them
    /// with.
    pub fn appended(&mut self, until: Option<Lsn>, read_at: Instant) -> (&mut PacketIds, Lsn) {
        let last = self.acks.seal(until, read_at);
        (&mut self.fresh, last)
    }

    /// Appends to `out` the acknowledgements whose journal position `durable` has reached. Returns when the publish of
    /// the oldest was read; `None` if there is no such acknowledgement.
    pub fn write_acks(&mut self, durable: Lsn, out: &mut Vec<u8>) -> Option<Instant> {
        self.acks.write(durable, self.version, out)
    }

    /// Processes one packet. A PUBLISH on an ingest topic is added to `records`; a PINGRESP is appended to `out`.
    /// Returns the work that is left for the connection.
    ///
    /// # Errors
    /// The packet ends the connection: it is a DISCONNECT, MQTT does not allow it, it exceeds a limit, or it is a
    /// publish that can be refused in no other way.
    #[inline]
    pub fn on_frame<'a>(
        &'a mut self,
        frame: &Frame<'a>,
        context: &impl ProtocolContext,
        records: &mut Records,
        out: &mut Vec<u8>,
    ) -> Result<ProtocolEvent<'a>, CloseReason> {
        self.received.packets += 1;
        if frame.kind == frame::PUBLISH {
            let publish = IncomingPublish::parse(frame.flags, frame.body, self.version)?;
            return self.on_publish(publish, context, records);
        }
        self.on_other(frame, out)
    }

    fn on_other(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> Result<ProtocolEvent<'static>, CloseReason> {
        let frame = &if self.is_3_1 { frame.without_repetition() } else { *frame };
        match frame.kind {
            frame::PUBACK | frame::PUBREC | frame::PUBCOMP => {
                let (packet_id, reason) = frame::parse_ack(frame, self.version)?;
                Ok(ProtocolEvent::Acknowledged { kind: frame.kind, packet_id, reason })
            }
            frame::PUBREL => {
                let (packet_id, _) = frame::parse_ack(frame, self.version)?;
                self.unreleased = self.unreleased.saturating_sub(1);
                // A client that does not wait for PUBREC may release a publish that the journal does not have yet. If
                // its identifier were kept, the next publish with this identifier would be taken for a repetition.
                self.fresh.remove(packet_id);
                self.received.answers += 1;
                Ok(ProtocolEvent::Release { packet_id })
            }
            frame::SUBSCRIBE => {
                self.received.answers += 1;
                Ok(ProtocolEvent::Subscribe(codec::decode_subscribe(frame, self.version)?))
            }
            frame::UNSUBSCRIBE => {
                self.received.answers += 1;
                let (packet_id, filters) = codec::decode_unsubscribe(frame, self.version)?;
                Ok(ProtocolEvent::Unsubscribe { packet_id, filters })
            }
            frame::PINGREQ | frame::PINGRESP if !frame.body.is_empty() => Err(CloseReason::Unframed),
            frame::PINGREQ if frame.flags == 0 => {
                self.received.answers += 1;
                frame::put_pingresp(out);
                Ok(ProtocolEvent::None)
            }
            frame::DISCONNECT => Err(self.on_disconnect(frame)?),
            // Packets with bad flags are malformed. The rest are protocol errors: a second CONNECT [MQTT-3.1.0-2],
            // AUTH, packets that only servers send, and the reserved packet type.
            frame::PINGREQ => Err(CloseReason::Malformed),
            frame::SUBACK | frame::UNSUBACK | frame::AUTH if frame.flags != 0 => Err(CloseReason::Malformed),
            _ => Err(CloseReason::Protocol),
        }
    }

    fn on_disconnect(&mut self, frame: &Frame<'_>) -> Result<CloseReason, CloseReason> {
        let (close, expiry_s) = codec::decode_disconnect(frame, self.version)?;
        if let Some(expiry_s) = expiry_s {
            // A client whose session ends with its connection cannot ask at the end to keep it [section 3.14.2.2.2].
            if self.expiry_s == 0 && expiry_s > 0 {
                return Err(CloseReason::Protocol);
            }
            self.expiry_s = expiry_s;
        }
        Ok(close)
    }

    #[inline]
    fn on_publish<'a>(
        &'a mut self,
        publish: IncomingPublish<'a>,
        context: &impl ProtocolContext,
        records: &mut Records,
    ) -> Result<ProtocolEvent<'a>, CloseReason> {
        let properties = if publish.properties.is_empty() {
            PublishProperties::default()
        } else {
            PublishProperties::parse(publish.properties, PropertyCarrier::Publish)?
        };
        self.select_topic(&publish, properties.alias, context)?;
        if publish.qos > 0 {
            self.check_receive_maximum()?;
        }
        if let Some(refused) = self.topic.current.refused {
            return self.refuse(publish, refused);
        }
        if let Some(response) = properties.response_topic
            && !context.may_request_response_on(response)?
        {
            self.received.denied += 1;
            self.answer(&publish, NOT_AUTHORIZED);
            return Ok(ProtocolEvent::None);
        }
        if !properties.allow(publish.payload) {
            self.received.misformatted += 1;
            self.answer(&publish, PAYLOAD_FORMAT_INVALID);
            return Ok(ProtocolEvent::None);
        }
        if publish.qos == 2 && !self.take_packet_id(publish.packet_id, context)? {
            return Ok(ProtocolEvent::None);
        }
        match publish.qos {
            0 => {}
            1 if self.topic.current.ingest || self.topic.current.subscribers => {
                self.acks.push(frame::PUBACK, publish.packet_id, 0)
            }
            1 => self.acks.push(frame::PUBACK, publish.packet_id, NO_MATCHING_SUBSCRIBERS),
            _ => self.acks.push(frame::PUBREC, publish.packet_id, 0),
        }
        let counts = if self.topic.current.ingest { &mut self.received.ingest } else { &mut self.received.other };
        counts[usize::from(publish.qos)] += 1;
        if self.topic.current.ingest {
            let is_repeat =
                publish.retain && self.may_repeat && context.is_retained(self.topic.current.name(), publish.payload);
            self.journal(&publish, is_repeat, records);
        } else {
            self.received.unmatched += u64::from(!self.topic.current.subscribers && !self.topic.current.is_ignored());
            self.topic.count_unmatched(publish.payload, context);
        }
        if !self.topic.current.subscribers && !publish.retain {
            return Ok(ProtocolEvent::None);
        }
        self.last_qos = publish.qos;
        Ok(ProtocolEvent::Forward(ForwardedPublish {
            topic: self.topic.current.name(),
            payload: publish.payload,
            properties,
            qos: publish.qos,
            retain: publish.retain,
        }))
    }

    #[inline]
    fn journal(&mut self, publish: &IncomingPublish<'_>, repeats_retained: bool, records: &mut Records) {
        self.received.ingest_bytes += publish.payload.len() as u64;
        let publish = record::PublishRecord {
            client_id: &self.client_id,
            topic: self.topic.current.name(),
            own_device: self.topic.current.own_device.as_deref(),
            user: self.user.as_deref(),
            packet_id: publish.packet_id,
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            repeats_retained,
            payload: publish.payload,
        };
        let same_origin = self.topic.encoded;
        records.push_with(|out| record::encode_publish(&publish, same_origin, out));
        self.topic.encoded = true;
    }

    #[inline]
    fn select_topic(
        &mut self,
        publish: &IncomingPublish<'_>,
        alias: Option<u16>,
        context: &impl ProtocolContext,
    ) -> Result<(), CloseReason> {
        let Some(alias) = alias else {
            return self.topic.select(publish.topic, context);
        };
        if alias == 0 || alias > TOPIC_ALIAS_MAXIMUM {
            return Err(CloseReason::TopicAlias); // [MQTT-3.3.2-8], [MQTT-3.3.2-9]
        }
        let index = usize::from(alias) - 1;
        if publish.topic.is_empty() {
            // An alias that was never set is a protocol error [section 3.3.2.3.4].
            let topic = self.aliases.get(index).and_then(Option::as_ref).ok_or(CloseReason::Protocol)?;
            return self.topic.select(topic, context);
        }
        self.topic.select(publish.topic, context)?;
        self.set_alias(index, publish.topic)
    }

    fn set_alias(&mut self, index: usize, topic: &[u8]) -> Result<(), CloseReason> {
        if self.aliases.len() <= index {
            self.aliases.resize(index + 1, None);
        }
        let old = self.aliases[index].as_ref().map_or(0, |old| old.len());
        self.alias_bytes = self.alias_bytes - old + topic.len();
        if self.alias_bytes > MAX_ALIAS_BYTES {
            return Err(CloseReason::Quota);
        }
        self.aliases[index] = Some(topic.into());
        Ok(())
    }

    /// Checks the receive maximum, MQTT 5.0 section 4.9. A 3.1.1 client was told no maximum: its socket is not read
    /// beyond it instead, and only its unreleased QoS 2 publishes are checked here.
    fn check_receive_maximum(&self) -> Result<(), CloseReason> {
        let exceeded = match self.version {
            ProtocolVersion::V5 => self.acks.pubacks() + self.unreleased >= self.max_inflight,
            ProtocolVersion::V4 => self.unreleased >= MAX_UNRELEASED,
        };
        if exceeded { Err(CloseReason::ReceiveMaximum) } else { Ok(()) }
    }

    /// Registers the packet identifier of a QoS 2 publish and returns whether the publish is new. A publish that was
    /// taken before and is not released is acknowledged again, after the first acknowledgement, and not taken again
    /// [MQTT-4.3.3-2].
    fn take_packet_id(&mut self, packet_id: u16, context: &impl ProtocolContext) -> Result<bool, CloseReason> {
        if self.fresh.contains(packet_id) || context.holds(packet_id) {
            self.received.repeated += 1;
            self.acks.push(frame::PUBREC, packet_id, 0);
            return Ok(false);
        }
        self.unreleased += 1;
        self.fresh.insert(packet_id);
        Ok(true)
    }

    /// Refuses a publish that the client may not make, and counts it. MQTT 5.0 has a reason code for QoS 1 and 2; a
    /// publish with QoS 0 is dropped.
    ///
    /// MQTT 3.1.1 can refuse a publish only by closing the connection [MQTT-3.3.5-2]. Below `weir/` the connection is
    /// closed, since an acknowledgement would be a lie. Where the access rules deny the publish, the configuration says
    /// whether the connection is closed or the publish is acknowledged and dropped. Topic names that begin with `$` are
    /// not for clients; a publish there is acknowledged and dropped, as other brokers do.
    fn refuse(
        &mut self,
        publish: IncomingPublish<'_>,
        refused: PublishRefusal,
    ) -> Result<ProtocolEvent<'static>, CloseReason> {
        match refused {
            PublishRefusal::Reserved => self.received.refused += 1,
            PublishRefusal::Denied(_) => self.received.denied += 1,
        }
        let reason = match (self.version, refused) {
            (ProtocolVersion::V5, _) => NOT_AUTHORIZED,
            (ProtocolVersion::V4, PublishRefusal::Reserved) if self.topic.current.name().starts_with('$') => 0,
            (ProtocolVersion::V4, PublishRefusal::Denied(OnDeniedPublish::Ignore)) => 0,
            (ProtocolVersion::V4, PublishRefusal::Reserved | PublishRefusal::Denied(OnDeniedPublish::Disconnect)) => {
                return Err(CloseReason::NotAuthorized);
            }
        };
        self.answer(&publish, reason);
        Ok(ProtocolEvent::None)
    }

    /// Acknowledges a publish that is neither journaled nor delivered.
    fn answer(&mut self, publish: &IncomingPublish<'_>, reason: u8) {
        match publish.qos {
            0 => {}
            1 => self.acks.push(frame::PUBACK, publish.packet_id, reason),
            _ => self.acks.push(frame::PUBREC, publish.packet_id, reason),
        }
    }
}

#[cfg(test)]
mod tests;
