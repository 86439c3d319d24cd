//! The protocol of one connection after its CONNECT: a pure state machine.
//!
//! Frames and "now" in; bytes to send, records to journal and [`ProtocolEvent`]s out. No socket, no clock, no lock: what lies
//! outside is asked through [`ProtocolContext`].

use std::sync::Arc;
use std::time::Instant;

use super::acks::Acks;
use super::keep_alive::KeepAlive;
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
use crate::mqtt::wire::frame::{self, Frame, PublishPacket};
use crate::mqtt::wire::properties::{PropertyCarrier, PublishProperties};

/// Topic aliases that a client may set, announced in CONNACK.
pub(crate) const TOPIC_ALIAS_MAXIMUM: u16 = 10;
/// Bytes of all topics behind a connection's aliases at most.
const MAX_ALIAS_BYTES: usize = 64 * 1024;
/// Longest user name in bytes, with its length: it is the device that a client may speak for.
const OWN_DEVICE_BYTES: usize = MAX_USER_BYTES + 2;
/// Unreleased QoS 2 publishes of a 3.1.1 connection at most; it knows no receive maximum. Two bytes each.
const MAX_UNRELEASED: usize = 10_000;

/// Reason code 0x87 of MQTT 5.0.
const NOT_AUTHORIZED: u8 = 0x87;
/// Reason code 0x99 of MQTT 5.0.
const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
/// Reason code 0x10 of MQTT 5.0.
const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;

/// Work that a packet asks for and that the connection carries out.
#[derive(Debug, PartialEq)]
pub(crate) enum ProtocolEvent<'a> {
    /// Nothing.
    None,
    /// Pass this publish on to subscribers.
    Forward(ForwardedPublish<'a>),
    /// PUBACK, PUBREC or PUBCOMP for a message sent to the client.
    Acknowledged { kind: u8, packet_id: u16, reason: u8 },
    /// PUBREL: forget a QoS 2 publish and answer PUBCOMP.
    Release { packet_id: u16 },
    /// SUBSCRIBE.
    Subscribe(SubscribePacket),
    /// UNSUBSCRIBE.
    Unsubscribe { packet_id: u16, filters: Vec<String> },
}

/// A publish for subscribers.
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
    /// Whether the client speaks MQTT 3.1.
    pub is_3_1: bool,
    pub client_id: Arc<str>,
    pub keep_alive_s: u16,
    /// Seconds that the session outlives the connection.
    pub expiry_s: u32,
    /// Receive maximum of weir.
    pub max_inflight: u16,
    /// Journal position below which the QoS 2 publishes of an earlier connection stand.
    pub received_until: Lsn,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Protocol {
    version: ProtocolVersion,
    is_3_1: bool,
    client_id: Arc<str>,
    max_inflight: usize,
    expiry_s: u32,
    keep_alive: KeepAlive,
    topic: TopicCache,
    aliases: Vec<Option<Box<[u8]>>>,
    alias_bytes: usize,
    acks: Acks,
    /// QoS 2 publishes of the current read; the journal does not have them yet.
    fresh: PacketIds,
    /// QoS 2 publishes of this connection that the client has not released.
    unreleased: usize,
    received: ReceivedCounts,
}

impl Protocol {
    pub fn new(options: ProtocolOptions, now: Instant) -> Self {
        let mut acks = Acks::default();
        acks.seal(Some(options.received_until), now);
        Self {
            version: options.version,
            is_3_1: options.is_3_1,
            client_id: options.client_id,
            max_inflight: usize::from(options.max_inflight),
            expiry_s: options.expiry_s,
            keep_alive: KeepAlive::new(options.keep_alive_s, now),
            topic: TopicCache::default(),
            aliases: Vec::new(),
            alias_bytes: 0,
            acks,
            fresh: PacketIds::default(),
            unreleased: 0,
            received: ReceivedCounts::default(),
        }
    }

    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Seconds that the session outlives the connection.
    pub fn expiry_s(&self) -> u32 {
        self.expiry_s
    }

    /// Bytes arrived, or weir was not reading.
    pub fn heard(&mut self, now: Instant) {
        self.keep_alive.heard(now);
    }

    /// When the connection ends if nothing arrives.
    pub fn keep_alive_deadline(&self) -> Option<Instant> {
        self.keep_alive.deadline()
    }

    /// Whether so many acknowledgements are outstanding that the socket is not to be read.
    pub fn is_full(&self) -> bool {
        self.acks.len() >= self.max_inflight
    }

    /// Acknowledgements that are outstanding.
    pub fn acks(&self) -> &Acks {
        &self.acks
    }

    /// Takes the numbers of what was received.
    pub fn take_received(&mut self) -> ReceivedCounts {
        std::mem::take(&mut self.received)
    }

    /// Bytes by which a record may exceed its packet: client identifier, own device, topic behind an alias, framing.
    #[inline]
    pub fn record_overhead(&self) -> usize {
        const FRAMING: usize = 16;
        self.client_id.len() + OWN_DEVICE_BYTES + self.alias_bytes + FRAMING
    }

    /// The records of an append begin anew: the next publish names its origin.
    pub fn begin_append(&mut self) {
        self.topic.encoded = false;
    }

    /// The publishes read until now are in the journal below `until` (`None`: none was journaled). Returns the QoS 2
    /// ids among them and the position to remember them with.
    pub fn appended(&mut self, until: Option<Lsn>, read_at: Instant) -> (&mut PacketIds, Lsn) {
        let last = self.acks.seal(until, read_at);
        (&mut self.fresh, last)
    }

    /// Writes the acknowledgements that `durable` has passed; returns when the oldest of them was read.
    pub fn write_acks(&mut self, durable: Lsn, out: &mut Vec<u8>) -> Option<Instant> {
        self.acks.write(durable, self.version, out)
    }

    /// Takes one packet. PUBLISH on an ingest topic is added to `records`, answers to `out`.
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
            let publish = PublishPacket::parse(frame.flags, frame.body, self.version)?;
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
                // A client that does not wait for PUBREC releases what the journal does not have yet. Kept, its next
                // publish with this identifier would be taken for a repetition.
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
            // Bad flags; then a second CONNECT [MQTT-3.1.0-2], AUTH, what only servers send, and the reserved type.
            frame::PINGREQ => Err(CloseReason::Malformed),
            frame::SUBACK | frame::UNSUBACK | frame::AUTH if frame.flags != 0 => Err(CloseReason::Malformed),
            _ => Err(CloseReason::Protocol),
        }
    }

    fn on_disconnect(&mut self, frame: &Frame<'_>) -> Result<CloseReason, CloseReason> {
        let (close, expiry_s) = codec::decode_disconnect(frame, self.version)?;
        if let Some(expiry_s) = expiry_s {
            // A session that was to end with its connection cannot be kept now [section 3.14.2.2.2].
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
        publish: PublishPacket<'a>,
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
        if let Some(refused) = self.topic.refused {
            return self.refuse(publish, refused);
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
            1 if self.topic.ingest || self.topic.subscribers => self.acks.push(frame::PUBACK, publish.packet_id, 0),
            1 => self.acks.push(frame::PUBACK, publish.packet_id, NO_MATCHING_SUBSCRIBERS),
            _ => self.acks.push(frame::PUBREC, publish.packet_id, 0),
        }
        let counts = if self.topic.ingest { &mut self.received.ingest } else { &mut self.received.other };
        counts[usize::from(publish.qos)] += 1;
        if self.topic.ingest {
            self.journal(&publish, records);
        }
        if !self.topic.subscribers && !publish.retain {
            return Ok(ProtocolEvent::None);
        }
        Ok(ProtocolEvent::Forward(ForwardedPublish {
            topic: self.topic.topic(),
            payload: publish.payload,
            properties,
            qos: publish.qos,
            retain: publish.retain,
        }))
    }

    #[inline]
    fn journal(&mut self, publish: &PublishPacket<'_>, records: &mut Records) {
        self.received.ingest_bytes += publish.payload.len() as u64;
        let publish = record::PublishRecord {
            client_id: &self.client_id,
            topic: self.topic.topic(),
            own_device: self.topic.own_device.as_deref(),
            packet_id: publish.packet_id,
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            payload: publish.payload,
        };
        let same_origin = self.topic.encoded;
        records.push_with(|out| record::encode_publish(&publish, same_origin, out));
        self.topic.encoded = true;
    }

    #[inline]
    fn select_topic(
        &mut self,
        publish: &PublishPacket<'_>,
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

    /// MQTT 5.0 section 4.9. A 3.1.1 client was told no maximum: its socket is not read beyond it instead.
    fn check_receive_maximum(&self) -> Result<(), CloseReason> {
        let exceeded = match self.version {
            ProtocolVersion::V5 => self.acks.pubacks() + self.unreleased >= self.max_inflight,
            ProtocolVersion::V4 => self.unreleased >= MAX_UNRELEASED,
        };
        if exceeded { Err(CloseReason::ReceiveMaximum) } else { Ok(()) }
    }

    /// Whether a QoS 2 publish is new. One that was taken before and not released is acknowledged again, after the
    /// first, and not taken again [MQTT-4.3.3-2].
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

    /// A publish that the client may not make. 5.0 has a reason code for QoS 1 and 2; QoS 0 is dropped and counted.
    /// 3.1.1 can refuse a publish only by closing the connection [MQTT-3.3.5-2]: below `weir/` acknowledging it would be
    /// a lie, and where the access rules deny it the configuration says which of the two. Names that begin with `$` are
    /// nobody's to publish on; there it is acknowledged and dropped, as brokers do.
    fn refuse(
        &mut self,
        publish: PublishPacket<'_>,
        refused: PublishRefusal,
    ) -> Result<ProtocolEvent<'static>, CloseReason> {
        match refused {
            PublishRefusal::Reserved => self.received.refused += 1,
            PublishRefusal::Denied(_) => self.received.denied += 1,
        }
        let reason = match (self.version, refused) {
            (ProtocolVersion::V5, _) => NOT_AUTHORIZED,
            (ProtocolVersion::V4, PublishRefusal::Reserved) if self.topic.topic().starts_with('$') => 0,
            (ProtocolVersion::V4, PublishRefusal::Denied(OnDeniedPublish::Ignore)) => 0,
            (ProtocolVersion::V4, PublishRefusal::Reserved | PublishRefusal::Denied(OnDeniedPublish::Disconnect)) => {
                return Err(CloseReason::NotAuthorized);
            }
        };
        self.answer(&publish, reason);
        Ok(ProtocolEvent::None)
    }

    /// Acknowledges a publish that goes nowhere.
    fn answer(&mut self, publish: &PublishPacket<'_>, reason: u8) {
        match publish.qos {
            0 => {}
            1 => self.acks.push(frame::PUBACK, publish.packet_id, reason),
            _ => self.acks.push(frame::PUBREC, publish.packet_id, reason),
        }
    }
}

#[cfg(test)]
mod tests;
