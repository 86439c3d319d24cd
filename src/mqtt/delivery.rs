//! What one session is to receive: the queue, the window of unacknowledged messages, packet identifiers. Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Version;
use super::close::Close;
use super::frame::{self, Outgoing};
use super::properties;

/// A message on its way to subscribers; all of them share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub topic: Box<str>,
    pub payload: Bytes,
    /// Encoded properties of 5.0, without topic alias and message expiry interval.
    pub properties: Bytes,
    pub qos: u8,
    /// The RETAIN flag as it was published.
    pub retain: bool,
    /// Session that published it; 0: weir.
    pub publisher: u64,
    /// From then on it is delivered to nobody further [MQTT-3.3.2-5].
    pub expires: Option<Instant>,
}

impl Message {
    /// A message of weir's own.
    pub fn new(topic: &str, payload: Bytes, qos: u8, retain: bool) -> Self {
        Self { topic: topic.into(), payload, properties: Bytes::new(), qos, retain, publisher: 0, expires: None }
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// What it counts for in bounds of bytes.
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }
}

/// Bounds of one session's queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub messages: usize,
    pub bytes: usize,
    /// Entries beyond `messages` for retained messages sent at a subscribe: they share what the retained store holds.
    pub retained: usize,
}

/// Numbers that the sequence of packet ids may run ahead of the oldest unacknowledged one, beyond the window.
const MAX_AHEAD: usize = 1_024;

/// How a subscriber is to get a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub qos: u8,
    /// The RETAIN flag to send.
    pub retain: bool,
    /// Identifiers of all subscriptions that matched; none without allocation.
    pub identifiers: Vec<u32>,
    /// The shared subscription that chose this subscriber.
    pub share: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
struct Queued {
    message: Arc<Message>,
    grant: Grant,
    /// Whether it counts in the bounds.
    counted: bool,
}

/// A message of a shared subscription that its subscriber can no longer take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Returned {
    pub share: Arc<str>,
    pub message: Arc<Message>,
}

#[derive(Debug, Clone)]
enum InFlight {
    /// PUBLISH sent; awaits PUBACK (QoS 1) or PUBREC (QoS 2).
    Published(Queued),
    /// PUBREL sent; awaits PUBCOMP.
    Released,
}

/// What became of an offered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It waits to be sent.
    Queued,
    /// The queue is at its bound: this subscriber misses it.
    Full,
}

/// What [`Delivery::write`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    /// PUBLISH packets by QoS.
    pub sent: [u64; 3],
    /// Messages dropped because the client takes no packets that large.
    pub too_large: u64,
    /// Messages dropped because their time was over.
    pub expired: u64,
    /// Whether it stopped at `max_bytes` with more to send.
    pub more: bool,
}

/// Outgoing messages of one session. Packet ids follow a sequence, so `inflight` is in sending order and an id is
/// found by subtraction.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: VecDeque<Queued>,
    counted_messages: usize,
    queued_bytes: usize,
    /// `None`: acknowledged out of order.
    inflight: VecDeque<Option<InFlight>>,
    /// Sequence number of `inflight[0]`; packet id = sequence number % 65,535 + 1.
    first: u64,
    /// Entries of `inflight` that are not `None`.
    unacknowledged: usize,
    /// `inflight` below this index was sent on this connection.
    sent: usize,
    /// Entries below `sent` that are not `None`.
    sent_open: usize,
    window: usize,
    aliases: Aliases,
    limits: QueueLimits,
}

/// Topics that this connection's client knows by an alias [section 3.3.2.3.4].
#[derive(Debug, Default)]
struct Aliases {
    max: usize,
    /// The topic of alias 1 and so on.
    topics: Vec<Box<str>>,
}

/// Topic aliases that weir sets at most, whatever the client allows.
const MAX_ALIASES: u16 = 16;
/// Longer topics get none.
const MAX_ALIAS_TOPIC_BYTES: usize = 1_024;

/// How a topic is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alias {
    None,
    /// With the topic, which it stands for from then on.
    New(u16),
    /// In the place of the topic.
    Known(u16),
}

impl Aliases {
    fn of(&self, topic: &str) -> Alias {
        if self.max == 0 {
            return Alias::None;
        }
        match self.topics.iter().position(|known| **known == *topic) {
            Some(index) => Alias::Known(index as u16 + 1),
            None if self.topics.len() < self.max && topic.len() <= MAX_ALIAS_TOPIC_BYTES => {
                Alias::New(self.topics.len() as u16 + 1)
            }
            None => Alias::None,
        }
    }
}

impl Delivery {
    /// `window`: unacknowledged messages at most.
    pub fn new(limits: QueueLimits, window: u16) -> Self {
        Self {
            queue: VecDeque::new(),
            counted_messages: 0,
            queued_bytes: 0,
            inflight: VecDeque::new(),
            first: 0,
            unacknowledged: 0,
            sent: 0,
            sent_open: 0,
            window: usize::from(window),
            aliases: Aliases::default(),
            limits,
        }
    }

    /// Messages that wait to be sent.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Their bytes.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Queues a message. `from_store`: a retained message sent because of a subscribe. Where the queue is full, what
    /// expired by `now` makes room.
    pub fn offer(&mut self, message: &Arc<Message>, grant: Grant, from_store: bool, now: Instant) -> Offer {
        if self.is_full(message, from_store) {
            self.drop_expired(now);
            if self.is_full(message, from_store) {
                return Offer::Full;
            }
        }
        if !from_store {
            self.counted_messages += 1;
            self.queued_bytes += message.bytes();
        }
        self.queue.push_back(Queued { message: Arc::clone(message), grant, counted: !from_store });
        Offer::Queued
    }

    fn is_full(&self, message: &Message, from_store: bool) -> bool {
        if from_store {
            return self.queue.len() >= self.limits.messages + self.limits.retained;
        }
        self.counted_messages >= self.limits.messages || self.queued_bytes + message.bytes() > self.limits.bytes
    }

    #[cold]
    fn drop_expired(&mut self, now: Instant) {
        let (mut messages, mut bytes) = (0, 0);
        self.queue.retain(|queued| {
            let expired = queued.message.is_expired(now);
            if expired && queued.counted {
                messages += 1;
                bytes += queued.message.bytes();
            }
            !expired
        });
        self.counted_messages -= messages;
        self.queued_bytes -= bytes;
    }

    /// The session continues on a new connection: what is unacknowledged is sent again [MQTT-4.4.0-1].
    pub fn resume(&mut self, window: u16) {
        self.window = usize::from(window);
        self.sent = 0;
        self.sent_open = 0;
        self.aliases = Aliases::default(); // they end with the connection [MQTT-3.3.2-7]
    }

    /// The client of this connection takes so many topic aliases.
    pub fn allow_aliases(&mut self, max: u16) {
        self.aliases.max = usize::from(max.min(MAX_ALIASES));
    }

    /// Takes out what shared subscriptions gave to this session and another subscriber can have: what was not sent, and
    /// what was sent at QoS 1 [section 4.8.2]. What was sent at QoS 2 is this client's alone [MQTT-4.8.2-5].
    pub fn take_shared(&mut self) -> Vec<Returned> {
        let sent = self.inflight.iter().flatten().filter_map(|stage| match stage {
            InFlight::Published(queued) if queued.grant.qos == 1 => Some(queued),
            _ => None,
        });
        let returned = sent.chain(&self.queue).filter_map(|queued| {
            let share = queued.grant.share.clone()?;
            Some(Returned { share, message: Arc::clone(&queued.message) })
        });
        returned.collect()
    }

    /// Forgets everything: the session is discarded.
    pub fn clear(&mut self) {
        *self = Self::new(self.limits, 0);
    }

    /// Appends packets until `out` holds `max_bytes` or the window is full.
    pub fn write(
        &mut self,
        version: Version,
        max_packet_bytes: usize,
        max_bytes: usize,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Written {
        let to = Target { version, max_packet_bytes, now };
        let mut written = Written::default();
        while self.sent < self.inflight.len() && self.sent_open < self.window {
            if out.len() >= max_bytes {
                written.more = true;
                return written;
            }
            self.resend(&to, &mut written, out);
        }
        while let Some(front) = self.queue.front() {
            if front.grant.qos > 0 && !self.has_window() {
                return written;
            }
            if out.len() >= max_bytes {
                written.more = true;
                return written;
            }
            let Some(queued) = self.pop() else { return written };
            self.send(queued, &to, &mut written, out);
        }
        written
    }

    fn has_window(&self) -> bool {
        let span = (self.window + MAX_AHEAD).min(usize::from(u16::MAX) - 1);
        self.sent == self.inflight.len() && self.unacknowledged < self.window && self.inflight.len() < span
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        if queued.counted {
            self.counted_messages -= 1;
            self.queued_bytes -= queued.message.bytes();
        }
        Some(queued)
    }

    fn send(&mut self, queued: Queued, to: &Target, written: &mut Written, out: &mut Vec<u8>) {
        let qos = queued.grant.qos;
        if queued.message.is_expired(to.now) {
            written.expired += 1;
            self.skip(qos);
            return;
        }
        let packet_id = if qos > 0 { self.packet_id(self.inflight.len()) } else { 0 };
        if !put(&queued, packet_id, false, to, &mut self.aliases, out) {
            written.too_large += 1;
            self.skip(qos);
            return;
        }
        written.sent[usize::from(qos)] += 1;
        if qos > 0 {
            self.inflight.push_back(Some(InFlight::Published(queued)));
            self.unacknowledged += 1;
            self.sent = self.inflight.len();
            self.sent_open += 1;
        }
    }

    /// A message that is not sent takes its number all the same: what a client sees of the sequence tells what it missed.
    fn skip(&mut self, qos: u8) {
        if qos > 0 {
            self.inflight.push_back(None);
            self.sent = self.inflight.len();
            self.forget_acknowledged();
        }
    }

    fn resend(&mut self, to: &Target, written: &mut Written, out: &mut Vec<u8>) {
        let index = self.sent;
        let packet_id = self.packet_id(index);
        self.sent += 1;
        match &self.inflight[index] {
            None => {}
            Some(InFlight::Released) => {
                self.sent_open += 1;
                frame::put_ack(frame::PUBREL, packet_id, 0, to.version, out);
            }
            Some(InFlight::Published(queued)) => {
                self.sent_open += 1;
                if put(queued, packet_id, true, to, &mut self.aliases, out) {
                    written.sent[usize::from(queued.grant.qos)] += 1;
                } else {
                    written.too_large += 1;
                    self.remove(index);
                }
            }
        }
    }

    fn packet_id(&self, index: usize) -> u16 {
        ((self.first + index as u64) % u64::from(u16::MAX)) as u16 + 1
    }

    fn index(&self, packet_id: u16) -> Option<usize> {
        let first = self.packet_id(0);
        let ids = usize::from(u16::MAX);
        let index = (usize::from(packet_id) + ids - usize::from(first)) % ids;
        (packet_id > 0 && self.inflight.get(index)?.is_some()).then_some(index)
    }

    fn remove(&mut self, index: usize) {
        if self.inflight[index].take().is_some() {
            self.unacknowledged -= 1;
            self.sent_open -= usize::from(index < self.sent);
        }
        self.forget_acknowledged();
    }

    fn forget_acknowledged(&mut self) {
        while let Some(None) = self.inflight.front() {
            self.inflight.pop_front();
            self.first += 1;
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// A PUBACK, PUBREC or PUBCOMP of the client. Returns whether a PUBREL answers it. One that does not belong to the
    /// message's QoS or stage is a protocol error; one for an unknown packet id is none, for it may be old.
    pub fn acknowledge(&mut self, kind: u8, packet_id: u16, reason: u8) -> Result<bool, Close> {
        let refused = reason >= 0x80;
        let Some(index) = self.index(packet_id) else { return Ok(kind == frame::PUBREC && !refused) };
        match (kind, &self.inflight[index]) {
            (frame::PUBACK, Some(InFlight::Published(queued))) if queued.grant.qos == 1 => self.remove(index),
            (frame::PUBCOMP, Some(InFlight::Released)) => self.remove(index),
            (frame::PUBREC, Some(InFlight::Published(queued))) if queued.grant.qos == 2 => {
                if refused {
                    self.remove(index); // [section 4.3.3]
                    return Ok(false);
                }
                self.inflight[index] = Some(InFlight::Released);
                return Ok(true);
            }
            (frame::PUBREC, Some(InFlight::Released)) => return Ok(!refused),
            _ => return Err(Close::Protocol),
        }
        Ok(false)
    }
}

/// Where packets go.
struct Target {
    version: Version,
    /// Largest packet that the client takes.
    max_packet_bytes: usize,
    now: Instant,
}

/// Appends the PUBLISH; `false` if the client does not take packets that large [MQTT-3.1.2-24].
fn put(queued: &Queued, packet_id: u16, dup: bool, to: &Target, aliases: &mut Aliases, out: &mut Vec<u8>) -> bool {
    let Queued { message, grant, .. } = queued;
    let alias = aliases.of(&message.topic);
    let own = to.version == Version::V5
        && (message.expires.is_some() || !grant.identifiers.is_empty() || alias != Alias::None);
    let mut properties = Vec::new();
    if own {
        if let Alias::New(number) | Alias::Known(number) = alias {
            properties::put_alias(number, &mut properties);
        }
        properties::put_delivery(message.expires, to.now, &grant.identifiers, &mut properties);
        properties.extend_from_slice(&message.properties);
    }
    let outgoing = Outgoing {
        dup,
        qos: grant.qos,
        retain: grant.retain,
        packet_id,
        topic: if matches!(alias, Alias::Known(_)) { "" } else { &message.topic },
        properties: if own { &properties } else { &message.properties },
        payload: &message.payload,
    };
    if outgoing.packet_bytes(to.version) > to.max_packet_bytes {
        return false;
    }
    outgoing.encode(to.version, out);
    if let Alias::New(_) = alias {
        aliases.topics.push(message.topic.clone());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::testing::{Sent, packets};
    use proptest::prelude::*;

    const LIMITS: QueueLimits = QueueLimits { messages: 3, bytes: 100, retained: 2 };

    fn message(payload: &[u8]) -> Arc<Message> {
        Arc::new(Message::new("t", payload.to_vec().into(), 2, false))
    }

    fn offer(delivery: &mut Delivery, payload: &[u8], qos: u8, from_store: bool) -> Offer {
        let grant = Grant { qos, retain: from_store, ..Grant::default() };
        delivery.offer(&message(payload), grant, from_store, Instant::now())
    }

    fn sent(delivery: &mut Delivery) -> Vec<Sent> {
        let mut out = Vec::new();
        delivery.write(Version::V4, usize::MAX, usize::MAX, Instant::now(), &mut out);
        packets(&out, Version::V4)
    }

    fn publish(packet_id: u16, dup: bool, qos: u8, payload: &[u8]) -> Sent {
        Sent::Publish { packet_id, dup, qos, retain: false, topic: "t".into(), payload: payload.to_vec() }
    }

    #[test]
    fn the_window_bounds_what_is_unacknowledged() {
        let mut delivery = Delivery::new(LIMITS, 2);
        for payload in [b"a", b"b", b"c"] {
            assert_eq!(offer(&mut delivery, payload, 1, false), Offer::Queued);
        }
        assert_eq!(sent(&mut delivery), [publish(1, false, 1, b"a"), publish(2, false, 1, b"b")]);
        assert_eq!(sent(&mut delivery), []);
        assert_eq!(delivery.acknowledge(frame::PUBACK, 2, 0), Ok(false));
        assert_eq!(sent(&mut delivery), [publish(3, false, 1, b"c")]);
        assert_eq!(delivery.queued(), 0);
    }

    #[test]
    fn qos_0_needs_no_window_but_keeps_its_place() {
        let mut delivery = Delivery::new(LIMITS, 1);
        offer(&mut delivery, b"a", 1, false);
        offer(&mut delivery, b"b", 0, false);
        offer(&mut delivery, b"c", 1, false);
        assert_eq!(sent(&mut delivery), [publish(1, false, 1, b"a"), publish(0, false, 0, b"b")]);
        delivery.acknowledge(frame::PUBACK, 1, 0).unwrap();
        assert_eq!(sent(&mut delivery), [publish(2, false, 1, b"c")]);
    }

    #[test]
    fn the_queue_is_bounded_by_count_and_bytes() {
        let mut delivery = Delivery::new(LIMITS, 1);
        assert_eq!(offer(&mut delivery, &[0; 99], 1, false), Offer::Queued);
        assert_eq!(offer(&mut delivery, b"x", 1, false), Offer::Full, "bytes");
        sent(&mut delivery);
        for _ in 0..3 {
            assert_eq!(offer(&mut delivery, b"x", 1, false), Offer::Queued);
        }
        assert_eq!(offer(&mut delivery, b"x", 1, false), Offer::Full, "count");
        for _ in 0..2 {
            assert_eq!(offer(&mut delivery, b"x", 1, true), Offer::Queued, "retained");
        }
        assert_eq!(offer(&mut delivery, b"x", 1, true), Offer::Full, "retained");
        assert_eq!((delivery.queued(), delivery.queued_bytes()), (5, 6));
    }

    #[test]
    fn qos_2_goes_through_its_four_packets() {
        let mut delivery = Delivery::new(LIMITS, 1);
        offer(&mut delivery, b"a", 2, false);
        offer(&mut delivery, b"b", 2, false);
        assert_eq!(sent(&mut delivery), [publish(1, false, 2, b"a")]);
        assert_eq!(delivery.acknowledge(frame::PUBCOMP, 1, 0), Err(Close::Protocol), "too early");
        assert_eq!(delivery.acknowledge(frame::PUBACK, 1, 0), Err(Close::Protocol), "of QoS 1");
        assert_eq!(delivery.acknowledge(frame::PUBREC, 1, 0), Ok(true));
        assert_eq!(delivery.acknowledge(frame::PUBREC, 1, 0), Ok(true), "repeated");
        assert_eq!(delivery.acknowledge(frame::PUBREC, 9, 0), Ok(true), "unknown");
        assert_eq!(delivery.acknowledge(frame::PUBREC, 9, 0x80), Ok(false), "unknown and refused");
        assert_eq!(sent(&mut delivery), [], "the window is still taken");
        assert_eq!(delivery.acknowledge(frame::PUBCOMP, 1, 0), Ok(false));
        assert_eq!(sent(&mut delivery), [publish(2, false, 2, b"b")]);
        assert_eq!(delivery.acknowledge(frame::PUBREC, 2, 0x97), Ok(false), "refused by the client");
        assert_eq!(delivery.unacknowledged, 0);
    }

    #[test]
    fn a_resumed_session_sends_again_what_is_unacknowledged() {
        let mut delivery = Delivery::new(QueueLimits { messages: 10, ..LIMITS }, 3);
        for (payload, qos) in [(b"a", 1), (b"b", 2), (b"c", 2), (b"d", 1)] {
            offer(&mut delivery, payload, qos, false);
        }
        sent(&mut delivery);
        delivery.acknowledge(frame::PUBREC, 2, 0).unwrap();
        delivery.resume(10);
        let expected = [
            publish(1, true, 1, b"a"),
            Sent::Ack { kind: frame::PUBREL, packet_id: 2, reason: 0 },
            publish(3, true, 2, b"c"),
            publish(4, false, 1, b"d"),
        ];
        assert_eq!(sent(&mut delivery), expected);
        assert_eq!(sent(&mut delivery), []);
    }

    #[test]
    fn a_smaller_window_holds_for_what_is_sent_again() {
        let mut delivery = Delivery::new(LIMITS, 3);
        for payload in [b"a", b"b", b"c"] {
            offer(&mut delivery, payload, 1, false);
        }
        assert_eq!(sent(&mut delivery).len(), 3);
        delivery.resume(1);
        offer(&mut delivery, b"d", 1, false);
        for (id, payload) in [(1, b"a"), (2, b"b"), (3, b"c")] {
            assert_eq!(sent(&mut delivery), [publish(id, true, 1, payload)]);
            delivery.acknowledge(frame::PUBACK, id, 0).unwrap();
        }
        assert_eq!(sent(&mut delivery), [publish(4, false, 1, b"d")]);
    }

    #[test]
    fn expired_messages_are_not_sent_and_make_room() {
        let now = Instant::now();
        let second = std::time::Duration::from_secs(1);
        let expiring = Arc::new(Message { expires: Some(now + second), ..Message::new("t", "x".into(), 1, false) });
        let grant = Grant { qos: 1, ..Grant::default() };
        let mut delivery = Delivery::new(LIMITS, 10);
        for _ in 0..3 {
            assert_eq!(delivery.offer(&expiring, grant.clone(), false, now), Offer::Queued);
        }
        assert_eq!(delivery.offer(&expiring, grant.clone(), false, now), Offer::Full);
        assert_eq!(delivery.offer(&message(b"y"), grant.clone(), false, now + second), Offer::Queued);
        assert_eq!((delivery.queued(), delivery.queued_bytes()), (1, 2));
        assert_eq!(delivery.offer(&expiring, grant, false, now), Offer::Queued);
        let mut out = Vec::new();
        let written = delivery.write(Version::V5, usize::MAX, usize::MAX, now + second, &mut out);
        assert_eq!((written.sent, written.expired), ([0, 1, 0], 1));
    }

    #[test]
    fn identifiers_and_the_rest_of_the_life_stand_before_what_is_forwarded() {
        let now = Instant::now();
        let expires = Some(now + std::time::Duration::from_secs(5));
        let message = Message { expires, properties: vec![1, 1].into(), ..Message::new("t", "x".into(), 0, false) };
        let grant = Grant { identifiers: vec![7, 8], ..Grant::default() };
        let mut delivery = Delivery::new(LIMITS, 1);
        delivery.offer(&Arc::new(message), grant, false, now);
        let mut out = Vec::new();
        delivery.write(Version::V5, usize::MAX, usize::MAX, now, &mut out);
        assert_eq!(out, [0x30, 16, 0, 1, b't', 11, 2, 0, 0, 0, 5, 0x0B, 7, 0x0B, 8, 1, 1, b'x']);
    }

    #[test]
    fn topics_are_named_once_where_the_client_takes_aliases() {
        let mut delivery = Delivery::new(LIMITS, 1);
        delivery.allow_aliases(1);
        let sent = |delivery: &mut Delivery, topic: &str| {
            let message = Arc::new(Message::new(topic, "x".into(), 0, false));
            delivery.offer(&message, Grant::default(), false, Instant::now());
            let mut out = Vec::new();
            delivery.write(Version::V5, usize::MAX, usize::MAX, Instant::now(), &mut out);
            out
        };
        assert_eq!(sent(&mut delivery, "t"), [0x30, 8, 0, 1, b't', 3, 0x23, 0, 1, b'x']);
        assert_eq!(sent(&mut delivery, "t"), [0x30, 7, 0, 0, 3, 0x23, 0, 1, b'x']);
        assert_eq!(sent(&mut delivery, "u"), [0x30, 5, 0, 1, b'u', 0, b'x'], "there is no second alias");
        delivery.resume(1);
        assert_eq!(sent(&mut delivery, "t"), [0x30, 5, 0, 1, b't', 0, b'x'], "a new connection knows none");
    }

    #[test]
    fn what_a_shared_subscription_gave_can_be_taken_back() {
        let mut delivery = Delivery::new(LIMITS, 2);
        let share: Arc<str> = "$share/g/t".into();
        for (payload, qos, share) in [(b"a", 1, Some(&share)), (b"b", 2, Some(&share)), (b"c", 1, Some(&share))] {
            let grant = Grant { qos, share: share.cloned(), ..Grant::default() };
            delivery.offer(&message(payload), grant, false, Instant::now());
        }
        sent(&mut delivery);
        let payloads: Vec<_> =
            delivery.take_shared().into_iter().map(|returned| returned.message.payload.clone()).collect();
        assert_eq!(payloads, ["a", "c"], "what is under way at QoS 2 stays");
    }

    #[test]
    fn what_the_client_cannot_take_is_dropped() {
        let mut delivery = Delivery::new(LIMITS, 1);
        offer(&mut delivery, &[1; 50], 1, false);
        offer(&mut delivery, b"b", 1, false);
        let mut out = Vec::new();
        let written = delivery.write(Version::V5, 20, usize::MAX, Instant::now(), &mut out);
        assert_eq!((written.sent, written.too_large), ([0, 1, 0], 1));
    }

    #[test]
    fn output_is_bounded_per_call() {
        let mut delivery = Delivery::new(LIMITS, 10);
        for _ in 0..3 {
            offer(&mut delivery, b"x", 0, false);
        }
        let mut out = Vec::new();
        assert!(delivery.write(Version::V4, usize::MAX, 1, Instant::now(), &mut out).more);
        assert!(delivery.write(Version::V4, usize::MAX, usize::MAX, Instant::now(), &mut out).sent == [2, 0, 0]);
    }

    proptest! {
        /// Whatever the client acknowledges, ids in flight are distinct, and the window and the span hold.
        #[test]
        fn ids_in_flight_are_distinct(
            window in 1_u16..6,
            steps in proptest::collection::vec((0_u8..4, 0_usize..6), 0..400),
        ) {
            let mut delivery = Delivery::new(QueueLimits { messages: 100, bytes: 10_000, retained: 0 }, window);
            delivery.first = u64::from(u16::MAX) - 20; // the ids wrap around within the test
            let mut open: Vec<u16> = Vec::new();
            for (step, pick) in steps {
                match step {
                    0 | 1 => {
                        offer(&mut delivery, b"x", 1, false);
                        for packet in sent(&mut delivery) {
                            let Sent::Publish { packet_id, .. } = packet else { panic!("{packet:?}") };
                            prop_assert!(!open.contains(&packet_id));
                            open.push(packet_id);
                        }
                    }
                    2 if !open.is_empty() => {
                        let id = open.remove(pick % open.len());
                        delivery.acknowledge(frame::PUBACK, id, 0).unwrap();
                        prop_assert_eq!(delivery.index(id), None);
                    }
                    _ => {
                        delivery.resume(window);
                        let again: Vec<_> = sent(&mut delivery)
                            .iter()
                            .filter_map(|packet| match packet {
                                Sent::Publish { packet_id, dup: true, .. } => Some(*packet_id),
                                Sent::Publish { packet_id, .. } => {
                                    open.push(*packet_id);
                                    None
                                }
                                Sent::Ack { .. } | Sent::Other(_) => None,
                            })
                            .collect();
                        prop_assert_eq!(&again[..], &open[..again.len()]);
                    }
                }
                prop_assert!(open.len() <= usize::from(window));
                prop_assert_eq!(delivery.unacknowledged, open.len());
            }
        }
    }
}
