//! What one session is to receive: the queue, the window of unacknowledged messages, packet identifiers. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Version;
use super::frame::{self, Outgoing};

/// A message on its way to subscribers; all of them share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub topic: Box<str>,
    pub payload: Bytes,
    /// Encoded properties of 5.0, without a topic alias.
    pub properties: Bytes,
    pub qos: u8,
    /// The RETAIN flag as it was published.
    pub retain: bool,
    /// Session that published it; 0: weir.
    pub publisher: u64,
}

impl Message {
    /// A message of weir's own.
    pub fn new(topic: &str, payload: Bytes, qos: u8, retain: bool) -> Self {
        Self { topic: topic.into(), payload, properties: Bytes::new(), qos, retain, publisher: 0 }
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

#[derive(Debug, Clone)]
struct Queued {
    message: Arc<Message>,
    qos: u8,
    retain: bool,
    /// Whether it counts in the bounds.
    counted: bool,
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
    window: usize,
    limits: QueueLimits,
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
            window: usize::from(window),
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

    /// Queues a message at the granted QoS. `from_store`: a retained message sent because of a subscribe.
    pub fn offer(&mut self, message: &Arc<Message>, qos: u8, retain: bool, from_store: bool) -> Offer {
        let bytes = self.queued_bytes + message.bytes();
        let full = if from_store {
            self.queue.len() >= self.limits.messages + self.limits.retained
        } else {
            self.counted_messages >= self.limits.messages || bytes > self.limits.bytes
        };
        if full {
            return Offer::Full;
        }
        if !from_store {
            self.counted_messages += 1;
            self.queued_bytes = bytes;
        }
        self.queue.push_back(Queued { message: Arc::clone(message), qos, retain, counted: !from_store });
        Offer::Queued
    }

    /// The session continues on a new connection: what is unacknowledged is sent again [MQTT-4.4.0-1].
    pub fn resume(&mut self, window: u16) {
        self.window = usize::from(window);
        self.sent = 0;
    }

    /// Forgets everything: the session is discarded.
    pub fn clear(&mut self) {
        *self = Self::new(self.limits, 0);
    }

    /// Appends packets until `out` holds `max_bytes` or the window is full.
    pub fn write(&mut self, version: Version, max_packet_bytes: usize, max_bytes: usize, out: &mut Vec<u8>) -> Written {
        let mut written = Written::default();
        while self.sent < self.inflight.len() {
            if out.len() >= max_bytes {
                written.more = true;
                return written;
            }
            self.resend(version, max_packet_bytes, &mut written, out);
        }
        while let Some(front) = self.queue.front() {
            if front.qos > 0 && !self.has_window() {
                return written;
            }
            if out.len() >= max_bytes {
                written.more = true;
                return written;
            }
            let Some(queued) = self.pop() else { return written };
            self.send(queued, version, max_packet_bytes, &mut written, out);
        }
        written
    }

    fn has_window(&self) -> bool {
        let span = (self.window + MAX_AHEAD).min(usize::from(u16::MAX) - 1);
        self.unacknowledged < self.window && self.inflight.len() < span
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        if queued.counted {
            self.counted_messages -= 1;
            self.queued_bytes -= queued.message.bytes();
        }
        Some(queued)
    }

    fn send(&mut self, queued: Queued, version: Version, max: usize, written: &mut Written, out: &mut Vec<u8>) {
        let packet_id = if queued.qos > 0 { self.packet_id(self.inflight.len()) } else { 0 };
        if !put(&queued, packet_id, false, version, max, out) {
            written.too_large += 1;
            return;
        }
        written.sent[usize::from(queued.qos)] += 1;
        if queued.qos > 0 {
            self.inflight.push_back(Some(InFlight::Published(queued)));
            self.unacknowledged += 1;
            self.sent = self.inflight.len();
        }
    }

    fn resend(&mut self, version: Version, max: usize, written: &mut Written, out: &mut Vec<u8>) {
        let index = self.sent;
        let packet_id = self.packet_id(index);
        self.sent += 1;
        match &self.inflight[index] {
            None => {}
            Some(InFlight::Released) => frame::put_ack(frame::PUBREL, packet_id, 0, version, out),
            Some(InFlight::Published(queued)) => {
                if put(queued, packet_id, true, version, max, out) {
                    written.sent[usize::from(queued.qos)] += 1;
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
        }
        while let Some(None) = self.inflight.front() {
            self.inflight.pop_front();
            self.first += 1;
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// A PUBACK, PUBREC or PUBCOMP of the client. Returns the reason code of the PUBREL that answers it, if one does.
    pub fn acknowledge(&mut self, kind: u8, packet_id: u16, reason: u8) -> Option<u8> {
        const NOT_FOUND: u8 = 0x92;
        let index = self.index(packet_id);
        let stage = index.and_then(|index| self.inflight[index].as_ref().map(|stage| (index, stage)));
        match (kind, stage) {
            (frame::PUBACK, Some((index, InFlight::Published(queued)))) if queued.qos == 1 => {
                self.remove(index);
                None
            }
            (frame::PUBCOMP, Some((index, InFlight::Released))) => {
                self.remove(index);
                None
            }
            (frame::PUBREC, Some((index, InFlight::Published(queued)))) if queued.qos == 2 => {
                if reason >= 0x80 {
                    self.remove(index); // the client refused it [section 4.3.3]
                    return None;
                }
                self.inflight[index] = Some(InFlight::Released);
                Some(0)
            }
            (frame::PUBREC, Some((_, InFlight::Released))) => Some(0),
            (frame::PUBREC, _) => Some(NOT_FOUND),
            _ => None,
        }
    }
}

/// Appends the PUBLISH; `false` if the client does not take packets that large [MQTT-3.1.2-24].
fn put(queued: &Queued, packet_id: u16, dup: bool, version: Version, max: usize, out: &mut Vec<u8>) -> bool {
    let outgoing = Outgoing {
        dup,
        qos: queued.qos,
        retain: queued.retain,
        packet_id,
        topic: &queued.message.topic,
        properties: &queued.message.properties,
        payload: &queued.message.payload,
    };
    if outgoing.packet_bytes(version) > max {
        return false;
    }
    outgoing.encode(version, out);
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

    fn sent(delivery: &mut Delivery) -> Vec<Sent> {
        let mut out = Vec::new();
        delivery.write(Version::V4, usize::MAX, usize::MAX, &mut out);
        packets(&out, Version::V4)
    }

    fn publish(packet_id: u16, dup: bool, qos: u8, payload: &[u8]) -> Sent {
        Sent::Publish { packet_id, dup, qos, retain: false, topic: "t".into(), payload: payload.to_vec() }
    }

    #[test]
    fn the_window_bounds_what_is_unacknowledged() {
        let mut delivery = Delivery::new(LIMITS, 2);
        for payload in [b"a", b"b", b"c"] {
            assert_eq!(delivery.offer(&message(payload), 1, false, false), Offer::Queued);
        }
        assert_eq!(sent(&mut delivery), [publish(1, false, 1, b"a"), publish(2, false, 1, b"b")]);
        assert_eq!(sent(&mut delivery), []);
        assert_eq!(delivery.acknowledge(frame::PUBACK, 2, 0), None);
        assert_eq!(sent(&mut delivery), [publish(3, false, 1, b"c")]);
        assert_eq!(delivery.queued(), 0);
    }

    #[test]
    fn qos_0_needs_no_window_but_keeps_its_place() {
        let mut delivery = Delivery::new(LIMITS, 1);
        delivery.offer(&message(b"a"), 1, false, false);
        delivery.offer(&message(b"b"), 0, false, false);
        delivery.offer(&message(b"c"), 1, false, false);
        assert_eq!(sent(&mut delivery), [publish(1, false, 1, b"a"), publish(0, false, 0, b"b")]);
        delivery.acknowledge(frame::PUBACK, 1, 0);
        assert_eq!(sent(&mut delivery), [publish(2, false, 1, b"c")]);
    }

    #[test]
    fn the_queue_is_bounded_by_count_and_bytes() {
        let mut delivery = Delivery::new(LIMITS, 1);
        assert_eq!(delivery.offer(&message(&[0; 99]), 1, false, false), Offer::Queued);
        assert_eq!(delivery.offer(&message(b"x"), 1, false, false), Offer::Full, "bytes");
        sent(&mut delivery);
        for _ in 0..3 {
            assert_eq!(delivery.offer(&message(b"x"), 1, false, false), Offer::Queued);
        }
        assert_eq!(delivery.offer(&message(b"x"), 1, false, false), Offer::Full, "count");
        for _ in 0..2 {
            assert_eq!(delivery.offer(&message(b"x"), 1, true, true), Offer::Queued, "retained");
        }
        assert_eq!(delivery.offer(&message(b"x"), 1, true, true), Offer::Full, "retained");
        assert_eq!((delivery.queued(), delivery.queued_bytes()), (5, 6));
    }

    #[test]
    fn qos_2_goes_through_its_four_packets() {
        let mut delivery = Delivery::new(LIMITS, 1);
        delivery.offer(&message(b"a"), 2, false, false);
        delivery.offer(&message(b"b"), 2, false, false);
        assert_eq!(sent(&mut delivery), [publish(1, false, 2, b"a")]);
        assert_eq!(delivery.acknowledge(frame::PUBCOMP, 1, 0), None, "too early: ignored");
        assert_eq!(delivery.acknowledge(frame::PUBREC, 1, 0), Some(0));
        assert_eq!(delivery.acknowledge(frame::PUBREC, 1, 0), Some(0), "repeated");
        assert_eq!(delivery.acknowledge(frame::PUBREC, 9, 0), Some(0x92), "unknown");
        assert_eq!(sent(&mut delivery), [], "the window is still taken");
        assert_eq!(delivery.acknowledge(frame::PUBCOMP, 1, 0), None);
        assert_eq!(sent(&mut delivery), [publish(2, false, 2, b"b")]);
        assert_eq!(delivery.acknowledge(frame::PUBREC, 2, 0x97), None, "refused by the client");
        assert_eq!(delivery.unacknowledged, 0);
    }

    #[test]
    fn a_resumed_session_sends_again_what_is_unacknowledged() {
        let mut delivery = Delivery::new(QueueLimits { messages: 10, ..LIMITS }, 3);
        for (payload, qos) in [(b"a", 1), (b"b", 2), (b"c", 2), (b"d", 1)] {
            delivery.offer(&message(payload), qos, false, false);
        }
        sent(&mut delivery);
        delivery.acknowledge(frame::PUBREC, 2, 0);
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
    fn what_the_client_cannot_take_is_dropped() {
        let mut delivery = Delivery::new(LIMITS, 1);
        delivery.offer(&message(&[1; 50]), 1, false, false);
        delivery.offer(&message(b"b"), 1, false, false);
        let mut out = Vec::new();
        let written = delivery.write(Version::V5, 20, usize::MAX, &mut out);
        assert_eq!((written.sent, written.too_large), ([0, 1, 0], 1));
    }

    #[test]
    fn output_is_bounded_per_call() {
        let mut delivery = Delivery::new(LIMITS, 10);
        for _ in 0..3 {
            delivery.offer(&message(b"x"), 0, false, false);
        }
        let mut out = Vec::new();
        assert!(delivery.write(Version::V4, usize::MAX, 1, &mut out).more);
        assert!(delivery.write(Version::V4, usize::MAX, usize::MAX, &mut out).sent == [2, 0, 0]);
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
                        delivery.offer(&message(b"x"), 1, false, false);
                        for packet in sent(&mut delivery) {
                            let Sent::Publish { packet_id, .. } = packet else { panic!("{packet:?}") };
                            prop_assert!(!open.contains(&packet_id));
                            open.push(packet_id);
                        }
                    }
                    2 if !open.is_empty() => {
                        let id = open.remove(pick % open.len());
                        delivery.acknowledge(frame::PUBACK, id, 0);
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
