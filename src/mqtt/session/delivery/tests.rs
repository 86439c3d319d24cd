//! Queue, window, packet identifiers and the bytes that are sent.

use super::*;
use crate::mqtt::testing::{SentPacket, packets};
use proptest::prelude::*;

const LIMITS: QueueLimits = QueueLimits { messages: 3, bytes: 100, total_bytes: usize::MAX };

fn message(payload: &[u8]) -> Arc<Message> {
    Arc::new(Message::new("t", payload.to_vec().into(), 2, false))
}

fn offer(delivery: &mut Delivery, payload: &[u8], qos: u8) -> OfferOutcome {
    let grant = DeliveryGrant { qos, ..DeliveryGrant::default() };
    delivery.offer(&message(payload), grant, Instant::now())
}

fn sent(delivery: &mut Delivery) -> Vec<SentPacket> {
    let mut out = Vec::new();
    delivery.write(ProtocolVersion::V4, usize::MAX, usize::MAX, Instant::now(), &mut out);
    packets(&out, ProtocolVersion::V4)
}

fn publish(packet_id: u16, dup: bool, qos: u8, payload: &[u8]) -> SentPacket {
    SentPacket::Publish { packet_id, dup, qos, retain: false, topic: "t".into(), payload: payload.to_vec() }
}

#[test]
fn the_window_bounds_what_is_unacknowledged() {
    let mut delivery = Delivery::new(LIMITS, 2);
    for payload in [b"a", b"b", b"c"] {
        assert_eq!(offer(&mut delivery, payload, 1), OfferOutcome::Queued);
    }
    assert_eq!(sent(&mut delivery), [publish(1, false, 1, b"a"), publish(2, false, 1, b"b")]);
    assert_eq!(sent(&mut delivery), []);
    assert_eq!(delivery.acknowledge(frame::PUBACK, 2, 0), Ok(false));
    assert_eq!(sent(&mut delivery), [publish(3, false, 1, b"c")]);
    assert_eq!(delivery.queued(), 0);
}

/// A client that reads and never acknowledges is sent a bounded number of bytes, not a window of the largest packets.
#[test]
fn bytes_bound_what_is_unacknowledged_too() {
    let mut delivery = Delivery::new(LIMITS, 100);
    for _ in 0..3 {
        offer(&mut delivery, &[0; 98], 2);
        sent(&mut delivery);
    }
    assert_eq!((delivery.unacknowledged, delivery.inflight_bytes, delivery.queued()), (2, 198, 1));
    // Once it has taken a message, only its identifier is kept.
    delivery.acknowledge(frame::PUBREC, 1, 0).unwrap();
    assert_eq!(sent(&mut delivery).len(), 1);
    assert_eq!((delivery.unacknowledged, delivery.inflight_bytes), (3, 198));
    delivery.acknowledge(frame::PUBREC, 2, 0x80).unwrap();
    delivery.acknowledge(frame::PUBREC, 3, 0).unwrap();
    for packet_id in [1, 3] {
        delivery.acknowledge(frame::PUBCOMP, packet_id, 0).unwrap();
    }
    assert_eq!((delivery.unacknowledged, delivery.held()), (0, 0));
}

#[test]
fn those_who_are_behind_miss_messages_before_the_others() {
    let mut delivery = Delivery::new(QueueLimits { total_bytes: 1_000, ..LIMITS }, 100);
    let (heavy, light) = (Account::of_weir(), Account::of_weir());
    heavy.change_queued(0, 750);
    let out = |delivery: &Delivery, account: &Account| {
        [999, 1_000, 1_249, 1_250, 1_999, 2_000].map(|held| delivery.is_out_of_room(held, account))
    };
    assert_eq!(out(&delivery, &heavy), [false, false, false, true, true, true]);
    assert_eq!(out(&delivery, &light), [false, false, false, false, false, true]);
    offer(&mut delivery, b"x", 1);
    assert_eq!(out(&delivery, &heavy), [false, true, true, true, true, true]);
    assert_eq!(out(&delivery, &light), [false, false, false, false, false, true]);
}

#[test]
fn qos_0_needs_no_window_but_keeps_its_place() {
    let mut delivery = Delivery::new(LIMITS, 1);
    offer(&mut delivery, b"a", 1);
    offer(&mut delivery, b"b", 0);
    offer(&mut delivery, b"c", 1);
    assert_eq!(sent(&mut delivery), [publish(1, false, 1, b"a"), publish(0, false, 0, b"b")]);
    delivery.acknowledge(frame::PUBACK, 1, 0).unwrap();
    assert_eq!(sent(&mut delivery), [publish(2, false, 1, b"c")]);
}

#[test]
fn the_queue_is_bounded_by_count_and_bytes() {
    let mut delivery = Delivery::new(LIMITS, 1);
    assert_eq!(offer(&mut delivery, &[0; 99], 1), OfferOutcome::Queued);
    assert_eq!(offer(&mut delivery, b"x", 1), OfferOutcome::Full, "bytes");
    sent(&mut delivery);
    for _ in 0..3 {
        assert_eq!(offer(&mut delivery, b"x", 1), OfferOutcome::Queued);
    }
    assert_eq!(offer(&mut delivery, b"x", 1), OfferOutcome::Full, "count");
    for _ in 0..2 {
        delivery.offer_retained(&message(b"x"), DeliveryGrant { qos: 1, ..DeliveryGrant::default() });
    }
    assert_eq!((delivery.queued(), delivery.queued_bytes()), (5, 6));
}

/// What expires late is not looked for: a full queue costs no more for each message that it misses.
#[test]
fn a_full_queue_is_searched_once_something_in_it_has_expired() {
    let now = Instant::now();
    let at = |seconds| now + std::time::Duration::from_secs(seconds);
    let expiring =
        |seconds| Arc::new(Message { expires: Some(at(seconds)), ..Message::new("t", "x".into(), 1, false) });
    let mut delivery = Delivery::new(LIMITS, 10);
    for seconds in [9, 5, 7] {
        delivery.offer(&expiring(seconds), DeliveryGrant::default(), now);
    }
    assert_eq!(delivery.next_expiry, Some(at(5)));
    assert_eq!(delivery.offer(&expiring(20), DeliveryGrant::default(), at(4)), OfferOutcome::Full);
    assert_eq!(delivery.offer(&expiring(20), DeliveryGrant::default(), at(5)), OfferOutcome::Queued);
    assert_eq!((delivery.next_expiry, delivery.queued()), (Some(at(7)), 3));
}

#[test]
fn qos_2_goes_through_its_four_packets() {
    let mut delivery = Delivery::new(LIMITS, 1);
    offer(&mut delivery, b"a", 2);
    offer(&mut delivery, b"b", 2);
    assert_eq!(sent(&mut delivery), [publish(1, false, 2, b"a")]);
    assert_eq!(delivery.acknowledge(frame::PUBCOMP, 1, 0), Err(CloseReason::Protocol), "too early");
    assert_eq!(delivery.acknowledge(frame::PUBACK, 1, 0), Err(CloseReason::Protocol), "of QoS 1");
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
        offer(&mut delivery, payload, qos);
    }
    sent(&mut delivery);
    delivery.acknowledge(frame::PUBREC, 2, 0).unwrap();
    delivery.resume(10);
    let expected = [
        publish(1, true, 1, b"a"),
        SentPacket::Ack { kind: frame::PUBREL, packet_id: 2, reason: 0 },
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
        offer(&mut delivery, payload, 1);
    }
    assert_eq!(sent(&mut delivery).len(), 3);
    delivery.resume(1);
    offer(&mut delivery, b"d", 1);
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
    let grant = DeliveryGrant { qos: 1, ..DeliveryGrant::default() };
    let mut delivery = Delivery::new(LIMITS, 10);
    for _ in 0..3 {
        assert_eq!(delivery.offer(&expiring, grant.clone(), now), OfferOutcome::Queued);
    }
    assert_eq!(delivery.offer(&expiring, grant.clone(), now), OfferOutcome::Full);
    assert_eq!(delivery.offer(&message(b"y"), grant.clone(), now + second), OfferOutcome::Queued);
    assert_eq!((delivery.queued(), delivery.queued_bytes()), (1, 2));
    assert_eq!(delivery.offer(&expiring, grant, now), OfferOutcome::Queued);
    let mut out = Vec::new();
    let written = delivery.write(ProtocolVersion::V5, usize::MAX, usize::MAX, now + second, &mut out);
    assert_eq!((written.sent, written.expired), ([0, 1, 0], 1));
}

#[test]
fn identifiers_and_the_rest_of_the_life_stand_before_what_is_forwarded() {
    let now = Instant::now();
    let expires = Some(now + std::time::Duration::from_secs(5));
    let message = Message { expires, properties: vec![1, 1].into(), ..Message::new("t", "x".into(), 0, false) };
    let grant = DeliveryGrant { identifiers: vec![7, 8], ..DeliveryGrant::default() };
    let mut delivery = Delivery::new(LIMITS, 1);
    delivery.offer(&Arc::new(message), grant, now);
    let mut out = Vec::new();
    delivery.write(ProtocolVersion::V5, usize::MAX, usize::MAX, now, &mut out);
    assert_eq!(out, [0x30, 16, 0, 1, b't', 11, 2, 0, 0, 0, 5, 0x0B, 7, 0x0B, 8, 1, 1, b'x']);
}

#[test]
fn topics_are_named_once_where_the_client_takes_aliases() {
    let mut delivery = Delivery::new(LIMITS, 1);
    delivery.allow_aliases(1);
    let sent = |delivery: &mut Delivery, topic: &str| {
        let message = Arc::new(Message::new(topic, "x".into(), 0, false));
        delivery.offer(&message, DeliveryGrant::default(), Instant::now());
        let mut out = Vec::new();
        delivery.write(ProtocolVersion::V5, usize::MAX, usize::MAX, Instant::now(), &mut out);
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
        let grant = DeliveryGrant { qos, share: share.cloned(), ..DeliveryGrant::default() };
        delivery.offer(&message(payload), grant, Instant::now());
    }
    sent(&mut delivery);
    let payloads: Vec<_> =
        delivery.take_shared().into_iter().map(|returned| returned.message.payload.clone()).collect();
    assert_eq!(payloads, ["a", "c"], "what is under way at QoS 2 stays");
}

#[test]
fn what_the_client_cannot_take_is_dropped() {
    let mut delivery = Delivery::new(LIMITS, 1);
    offer(&mut delivery, &[1; 50], 1);
    offer(&mut delivery, b"b", 1);
    let mut out = Vec::new();
    let written = delivery.write(ProtocolVersion::V5, 20, usize::MAX, Instant::now(), &mut out);
    assert_eq!((written.sent, written.too_large), ([0, 1, 0], 1));
}

#[test]
fn output_is_bounded_per_call() {
    let mut delivery = Delivery::new(LIMITS, 10);
    for _ in 0..3 {
        offer(&mut delivery, b"x", 0);
    }
    let mut out = Vec::new();
    assert!(delivery.write(ProtocolVersion::V4, usize::MAX, 1, Instant::now(), &mut out).more);
    assert!(delivery.write(ProtocolVersion::V4, usize::MAX, usize::MAX, Instant::now(), &mut out).sent == [2, 0, 0]);
}

proptest! {
    /// Whatever the client acknowledges, ids in flight are distinct, and the window and the span hold.
    #[test]
    fn ids_in_flight_are_distinct(
        window in 1_u16..6,
        steps in proptest::collection::vec((0_u8..4, 0_usize..6), 0..400),
    ) {
        let mut delivery = Delivery::new(QueueLimits { messages: 100, bytes: 10_000, ..LIMITS }, window);
        delivery.first = u64::from(u16::MAX) - 20; // the ids wrap session_context within the test
        let mut open: Vec<u16> = Vec::new();
        for (step, pick) in steps {
            match step {
                0 | 1 => {
                    offer(&mut delivery, b"x", 1);
                    for packet in sent(&mut delivery) {
                        let SentPacket::Publish { packet_id, .. } = packet else { panic!("{packet:?}") };
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
                            SentPacket::Publish { packet_id, dup: true, .. } => Some(*packet_id),
                            SentPacket::Publish { packet_id, .. } => {
                                open.push(*packet_id);
                                None
                            }
                            SentPacket::Ack { .. } | SentPacket::Other(_) => None,
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

fn offer_on(delivery: &mut Delivery, topic: &str, qos: u8, retained: bool) {
    let message = Arc::new(Message::new(topic, b"x".as_slice().into(), 2, false));
    let grant = DeliveryGrant { qos, share: Some("g".into()), ..DeliveryGrant::default() };
    match retained {
        true => delivery.offer_retained(&message, grant),
        false => assert_eq!(delivery.offer(&message, grant, Instant::now()), OfferOutcome::Queued),
    }
}

/// Packet identifiers of what is sent now.
fn sent_ids(delivery: &mut Delivery) -> Vec<u16> {
    let id = |sent| match sent {
        SentPacket::Publish { packet_id, .. } | SentPacket::Ack { packet_id, .. } => packet_id,
        other => panic!("{other:?}"),
    };
    sent(delivery).into_iter().map(id).collect()
}

#[test]
fn what_is_withdrawn_leaves_the_rest_as_it_was() {
    let limits = QueueLimits { messages: 10, ..LIMITS };
    let mut delivery = Delivery::new(limits, 4);
    for (topic, qos) in [("no", 1), ("yes", 2), ("no", 2), ("no", 2)] {
        offer_on(&mut delivery, topic, qos, false);
    }
    assert_eq!(sent_ids(&mut delivery), [1, 2, 3, 4]);
    delivery.acknowledge(frame::PUBREC, 4, 0).unwrap();
    for (topic, retained) in [("no", false), ("yes", false), ("yes", true), ("no", true)] {
        offer_on(&mut delivery, topic, 1, retained);
    }
    let allowed = |topic: &str| topic == "yes";
    let online = delivery.withdraw(true, allowed);
    assert_eq!((online.messages, online.returned.len(), online.left), (2, 2, true), "only what waits");
    assert_eq!((delivery.queued(), delivery.queued_bytes()), (2, 4));
    delivery.resume(4);
    let offline = delivery.withdraw(false, allowed);
    // The message sent at QoS 2 is nobody else's.
    assert_eq!((offline.messages, offline.returned.len(), offline.left), (2, 1, false));
    // The one in its second half is released, the window has room for what waits, and identifiers go on.
    assert_eq!(sent_ids(&mut delivery), [2, 4, 5, 6]);
    for (kind, id) in [(frame::PUBREC, 2), (frame::PUBCOMP, 2), (frame::PUBCOMP, 4), (frame::PUBACK, 5)] {
        delivery.acknowledge(kind, id, 0).unwrap();
    }
    delivery.acknowledge(frame::PUBACK, 6, 0).unwrap();
    assert_eq!((delivery.unacknowledged, delivery.inflight.len(), delivery.sent_open), (0, 0, 0));
}
