//! Tests of the protocol: bytes go in; bytes, records and events come out.

mod topics_in_turn;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::mqtt::broker::unmatched::UnmatchedRun;
use crate::mqtt::connection::publish_decision::PublishDecision;
use crate::mqtt::testing::{PacketBuilder, SentPacket, client, describe, packets};
use crate::mqtt::wire::frame::{NextFrame, OutgoingPublish};
use crate::mqtt::wire::topic;
use crate::mqtt::wire::topic_suggestion::PayloadLook;

const TOPIC: &str = "devices/a/telemetry";

#[derive(Debug, Default)]
struct Stub {
    subscriptions: Vec<&'static str>,
    held: BTreeSet<u16>,
    retained: Option<(String, Vec<u8>)>,
    unmatched: RefCell<Vec<Vec<(String, u64, bool)>>>,
    /// Decisions for single topics. Publishes on all other topics are allowed.
    decisions: Vec<(&'static str, PublishDecision)>,
    /// Number of changes of `decisions`.
    changes: u64,
    noted: RefCell<Vec<String>>,
    ignored: Cell<(u16, u64)>,
}

impl ProtocolContext for Stub {
    fn allows_levels(&self, topic: &str) -> bool {
        topic.split('/').count() <= 64
    }
    fn may_request_response_on(&self, topic: &str) -> Result<bool, CloseReason> {
        Ok(!topic.starts_with("foreign/"))
    }
    fn is_ingest(&self, topic: &str) -> bool {
        topic::matches("devices/+/telemetry", topic)
    }
    fn ignoring_map(&self, topic: &str) -> Option<u16> {
        topic.starts_with("ignored/").then_some(0)
    }
    fn is_reserved(&self, topic: &str) -> bool {
        topic::is_reserved(topic)
    }
    fn show_unjournaled(&self, _topic: &str, _payload: &[u8], _ignoring: Option<u16>) {}
    fn note_ignored(&self, map: u16, count: u64) {
        self.ignored.set((map, count));
    }
    fn decide_publish(&self, topic: &str) -> Result<PublishDecision, CloseReason> {
        let found = self.decisions.iter().find(|(name, _)| *name == topic);
        Ok(found.map_or(PublishDecision::Allowed { own_device: None }, |(_, decision)| decision.clone()))
    }
    fn note_denied(&self, topic: &str) {
        self.noted.borrow_mut().push(topic.to_owned());
    }
    fn subscriptions_version(&self) -> u64 {
        self.subscriptions.len() as u64 + self.changes
    }
    fn has_subscribers(&self, topic: &str) -> bool {
        self.subscriptions.iter().any(|filter| topic::matches(filter, topic))
    }
    fn note_unmatched(&self, runs: &mut dyn Iterator<Item = (&str, UnmatchedRun)>) {
        let runs = runs.map(|(topic, run)| (topic.to_owned(), run.count, run.look == PayloadLook::Readings));
        self.unmatched.borrow_mut().push(runs.collect());
    }
    fn is_retained(&self, topic: &str, payload: &[u8]) -> bool {
        self.retained == Some((topic.to_owned(), payload.to_owned()))
    }
    fn holds(&self, packet_id: u16) -> bool {
        self.held.contains(&packet_id)
    }
}

/// A protocol, its context, and its whole output.
struct ProtocolCase {
    version: ProtocolVersion,
    client: PacketBuilder,
    protocol: Protocol,
    context: Stub,
    records: Records,
    out: Vec<u8>,
    events: Vec<String>,
    now: Instant,
}

impl ProtocolCase {
    /// What was noted of publishes on other topics, a line each time.
    fn noted(&self) -> Vec<String> {
        let run = |(topic, count, readings): &(String, u64, bool)| {
            format!("{topic} {count}{}", if *readings { " readings" } else { "" })
        };
        let noted = self.context.unmatched.borrow();
        noted.iter().map(|runs| runs.iter().map(run).collect::<Vec<_>>().join(", ")).collect()
    }

    fn new(version: ProtocolVersion) -> Self {
        Self::with(version, 10)
    }

    fn with(version: ProtocolVersion, max_inflight: u16) -> Self {
        let now = Instant::now();
        let options = ProtocolOptions {
            is_3_1: false,
            version,
            client_id: "c".into(),
            user: None,
            keep_alive_s: 0,
            expiry_s: 0,
            max_inflight,
            received_until: Lsn(0),
        };
        Self {
            version,
            client: client(version),
            protocol: Protocol::new(options, now),
            context: Stub::default(),
            records: Records::default(),
            out: Vec::new(),
            events: Vec::new(),
            now,
        }
    }

    /// Feeds packets. Returns an error at the first packet that ends the connection.
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), CloseReason> {
        while let NextFrame::Frame(frame) = frame::next(bytes, 100_000)? {
            bytes = &bytes[frame.bytes.len()..];
            let event = self.protocol.on_frame(&frame, &self.context, &mut self.records, &mut self.out)?;
            match event {
                ProtocolEvent::None => {}
                ProtocolEvent::Forward(forward) => {
                    let payload = String::from_utf8_lossy(forward.payload);
                    self.events.push(format!("forward {} {} {payload}", forward.topic, forward.qos));
                }
                event => self.events.push(format!("{event:?}")),
            }
        }
        Ok(())
    }

    fn publish(&mut self, topic: &str, qos: u8, packet_id: u16, payload: &str) -> Result<(), CloseReason> {
        let bytes = self.client.publish(topic, qos, packet_id, payload.as_bytes());
        self.feed(&bytes)
    }

    /// Publishes with RETAIN on [`TOPIC`] this long after the CONNECT.
    fn retain(&mut self, after: Duration, payload: &str) {
        self.protocol.begin_read(self.now + after);
        let payload = payload.as_bytes();
        let (qos, packet_id, properties) = (0, 0, &[][..]);
        let outgoing = OutgoingPublish { dup: false, qos, retain: true, packet_id, topic: TOPIC, properties, payload };
        let bytes = self.client.publish_with(outgoing);
        self.feed(&bytes).unwrap();
    }

    fn publish_with_properties(&mut self, topic: &str, properties: &[u8], payload: &str) -> Result<(), CloseReason> {
        let payload = payload.as_bytes();
        let outgoing = OutgoingPublish { dup: false, qos: 0, retain: false, packet_id: 0, topic, properties, payload };
        let bytes = self.client.publish_with(outgoing);
        self.feed(&bytes)
    }

    /// Ends the current read: the publishes that were journaled stand below `until`. Returns their records as text.
    fn append(&mut self, until: Option<u64>) -> Vec<String> {
        let described = describe(&self.records);
        self.records.clear();
        let (fresh, _) = self.protocol.appended(until.map(Lsn), self.now);
        self.context.held.extend(fresh.drain());
        self.protocol.begin_append();
        described
    }

    fn acks(&mut self, durable: u64) -> Vec<(u8, u16, u8)> {
        self.protocol.write_acks(Lsn(durable), &mut self.out);
        let acks = packets(&self.out, self.version).into_iter().map(|packet| match packet {
            SentPacket::Ack { kind, packet_id, reason } => (kind, packet_id, reason),
            other => panic!("{other:?}"),
        });
        let acks = acks.collect();
        self.out.clear();
        acks
    }
}

const BOTH: [ProtocolVersion; 2] = [ProtocolVersion::V4, ProtocolVersion::V5];

#[test]
fn publishes_on_ingest_topics_are_journaled_and_acknowledged_once_durable() {
    for version in BOTH {
        let mut case = ProtocolCase::new(version);
        case.publish(TOPIC, 1, 1, "x").unwrap();
        case.publish(TOPIC, 0, 0, "y").unwrap();
        case.publish(TOPIC, 2, 2, "z").unwrap();
        let records = case.append(Some(3));
        assert_eq!(
            records,
            ["c devices/a/telemetry 1/1 x", "=c devices/a/telemetry 0/0 y", "=c devices/a/telemetry 2/2 z"]
        );
        assert_eq!(case.acks(2), []);
        assert_eq!(case.acks(3), [(frame::PUBACK, 1, 0), (frame::PUBREC, 2, 0)]);
        let received = case.protocol.take_received();
        assert_eq!((received.ingest, received.ingest_bytes, received.other), ([1, 1, 1], 3, [0, 0, 0]));
        assert_eq!(case.events, [""; 0]);
    }
}

#[test]
fn an_origin_is_named_once_per_append_and_topic() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    for topic in [TOPIC, TOPIC, "other", TOPIC, "devices/b/telemetry"] {
        case.publish(topic, 0, 0, "x").unwrap();
    }
    assert_eq!(
        case.append(Some(4)),
        [
            "c devices/a/telemetry 0/0 x",
            "=c devices/a/telemetry 0/0 x",
            "c devices/a/telemetry 0/0 x",
            "c devices/b/telemetry 0/0 x"
        ]
    );
    case.publish("devices/b/telemetry", 0, 0, "x").unwrap();
    assert_eq!(case.append(Some(5)), ["c devices/b/telemetry 0/0 x"]);
}

#[test]
fn acknowledgements_keep_the_order_of_the_publishes() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    case.publish(TOPIC, 1, 5, "x").unwrap();
    case.append(Some(1));
    case.publish("other", 1, 6, "x").unwrap();
    case.append(None);
    assert_eq!(case.acks(0), [], "what is not journaled waits for what came before it");
    assert_eq!(case.acks(1), [(frame::PUBACK, 5, 0), (frame::PUBACK, 6, 0)]);
    case.publish("other", 1, 7, "x").unwrap();
    case.append(None);
    assert_eq!(case.acks(1), [(frame::PUBACK, 7, 0)]);
}

#[test]
fn a_repeated_qos_2_publish_is_acknowledged_and_not_taken_again() {
    for version in BOTH {
        let mut case = ProtocolCase::new(version);
        case.context.subscriptions = vec!["#"];
        case.publish(TOPIC, 2, 9, "x").unwrap();
        case.publish(TOPIC, 2, 9, "x").unwrap();
        assert_eq!(case.append(Some(1)).len(), 1);
        case.publish(TOPIC, 2, 9, "x").unwrap();
        assert_eq!(case.append(None).len(), 0);
        assert_eq!(case.acks(0), [], "not even the repetition, before the first is durable");
        assert_eq!(case.acks(1), [(frame::PUBREC, 9, 0); 3]);
        assert_eq!(case.events, ["forward devices/a/telemetry 2 x"]);
        assert_eq!(case.protocol.take_received().repeated, 2);
        let release = case.client.ack(frame::PUBREL, 9);
        case.feed(&release).unwrap();
        assert_eq!(case.events[1..], ["Release { packet_id: 9 }"]);
    }
}

/// A client that sends PUBREL before it received PUBREC breaks the rules. Its next publish with that identifier is
/// still no repetition: as a repetition it would be acknowledged and lost.
#[test]
fn a_release_before_the_append_frees_its_identifier() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    for payload in ["x", "y"] {
        case.publish(TOPIC, 2, 9, payload).unwrap();
        let release = case.client.ack(frame::PUBREL, 9);
        case.feed(&release).unwrap();
    }
    assert_eq!(case.append(Some(1)).len(), 2);
    assert_eq!(case.protocol.take_received().repeated, 0);
    assert!(case.context.held.is_empty());
}

#[test]
fn a_repetition_after_a_take_over_waits_for_the_append_of_the_connection_before() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    case.protocol.appended(Some(Lsn(7)), case.now);
    case.context.held.insert(9);
    case.publish(TOPIC, 2, 9, "x").unwrap();
    case.append(None);
    assert_eq!(case.protocol.acks().waits_for(), Some(Lsn(7)));
    assert_eq!(case.acks(6), []);
    assert_eq!(case.acks(7), [(frame::PUBREC, 9, 0)]);
}

#[test]
fn subscribers_are_looked_up_when_they_change() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    case.publish(TOPIC, 0, 0, "1").unwrap();
    case.context.subscriptions = vec!["devices/#"];
    case.publish(TOPIC, 0, 0, "2").unwrap();
    case.context.subscriptions = vec!["devices/#", "x"];
    case.publish("unwanted", 1, 1, "3").unwrap();
    assert_eq!(case.events, ["forward devices/a/telemetry 0 2"]);
    assert_eq!(describe(&case.records).len(), 2, "journaled with and without subscribers");
}

#[test]
fn what_is_retained_comes_again_within_ten_seconds_of_the_connect() {
    for version in [ProtocolVersion::V4, ProtocolVersion::V5] {
        let mut case = ProtocolCase::new(version);
        let just_before = RETAINED_REPEATS_WITHIN - Duration::from_millis(1);
        case.context.retained = Some((TOPIC.into(), b"state".to_vec()));
        case.retain(just_before, "state");
        case.retain(just_before, "other");
        case.publish(TOPIC, 0, 0, "state").unwrap();
        case.retain(RETAINED_REPEATS_WITHIN, "state");
        let first = format!("c {TOPIC} 0/0 state again");
        let expected = [first.as_str(), "=other", "=state", "=state"];
        let described = describe(&case.records);
        let is_as = |(found, wanted): (&String, &&str)| match wanted.strip_prefix('=') {
            Some(payload) => {
                *found == format!("c {TOPIC} 0/0 {payload}") || *found == format!("=c {TOPIC} 0/0 {payload}")
            }
            None => found == wanted,
        };
        assert!(described.iter().zip(&expected).all(is_as) && described.len() == 4, "{described:?}");
        assert_eq!(case.events.iter().filter(|event| event.starts_with("forward")).count(), 3, "{:?}", case.events);
    }
}

#[test]
fn payloads_are_looked_at_now_and_then() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    let reading = r#"{"metric":"t","value":1}"#;
    let mut read = |after_ms: u64, publishes: &[(&str, &str)]| {
        case.protocol.begin_read(case.now + Duration::from_millis(after_ms));
        publishes.iter().for_each(|(topic, payload)| case.publish(topic, 0, 0, payload).unwrap());
        case.protocol.end_read(&case.context);
        case.noted().pop().unwrap()
    };
    assert_eq!(read(0, &[("a", "1"), ("b", reading), ("a", reading)]), "a 2, b 1 readings");
    assert_eq!(read(10, &[("a", reading), ("b", "1")]), "a 1, b 1 readings", "again in a second");
    assert_eq!(read(1_010, &[("a", reading)]), "a 1 readings");
    // Of more topics than are looked at in a second, the others are not.
    let many: Vec<_> = (0..20).map(|topic| format!("m/{topic}")).collect();
    let many: Vec<_> = many.iter().map(|topic| (topic.as_str(), reading)).collect();
    let last = read(1_020, &many);
    assert!(last.starts_with("m/14 1 readings, m/15 1, "), "the sixteenth and the seventeenth look: {last}");
    assert_eq!(read(2_030, &many[..3]).matches("readings").count(), 3);
}

#[test]
fn a_retained_publish_reaches_the_broker_without_subscribers() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    let outgoing = OutgoingPublish {
        dup: false,
        qos: 0,
        retain: true,
        packet_id: 0,
        topic: "state",
        properties: &[],
        payload: b"on",
    };
    let bytes = case.client.publish_with(outgoing);
    case.feed(&bytes).unwrap();
    assert_eq!(case.events, ["forward state 0 on"]);
}

#[test]
fn reserved_topics_are_refused_by_the_means_of_the_version() {
    for topic in ["weir/windows/a/b", "$SYS/x"] {
        let mut case = ProtocolCase::new(ProtocolVersion::V5);
        for qos in 0..=2 {
            case.publish(topic, qos, u16::from(qos), "x").unwrap();
        }
        case.append(None);
        assert_eq!(case.acks(0), [(frame::PUBACK, 1, 0x87), (frame::PUBREC, 2, 0x87)]);
        assert_eq!(case.protocol.take_received().refused, 3);
    }
    for qos in 0..=2 {
        let mut case = ProtocolCase::new(ProtocolVersion::V4);
        assert_eq!(case.publish("weir/windows/a/b", qos, u16::from(qos), "x"), Err(CloseReason::NotAuthorized));
        case.publish("$SYS/x", qos, u16::from(qos), "x").unwrap();
        assert_eq!((case.protocol.take_received().refused, &case.events[..]), (2, &[][..]), "dropped");
    }
}

#[test]
fn denied_publishes_are_refused_by_the_means_of_the_version() {
    let denied = |version, action| {
        let mut case = ProtocolCase::new(version);
        case.context.decisions = vec![(TOPIC, PublishDecision::Denied(action))];
        case.context.subscriptions = vec!["#"];
        case
    };
    let mut case = denied(ProtocolVersion::V5, OnDeniedPublish::Disconnect);
    for qos in 0..=2 {
        case.publish(TOPIC, qos, u16::from(qos), "x").unwrap();
    }
    case.append(None);
    assert_eq!(case.acks(0), [(frame::PUBACK, 1, 0x87), (frame::PUBREC, 2, 0x87)]);
    assert_eq!(case.protocol.take_received().denied, 3);
    assert_eq!((&case.events[..], case.records.is_empty()), (&[][..], true));
    assert_eq!(*case.context.noted.borrow(), [TOPIC], "once as long as the topic stays");
    for qos in 0..=2 {
        let mut case = denied(ProtocolVersion::V4, OnDeniedPublish::Disconnect);
        assert_eq!(case.publish(TOPIC, qos, u16::from(qos), "x"), Err(CloseReason::NotAuthorized));
        let mut case = denied(ProtocolVersion::V4, OnDeniedPublish::Ignore);
        case.publish(TOPIC, qos, u16::from(qos), "x").unwrap();
        case.append(None);
        assert_eq!(case.acks(0).len(), usize::from(qos > 0), "acknowledged");
        assert_eq!((&case.events[..], case.records.is_empty()), (&[][..], true), "and dropped");
    }
}

#[test]
fn a_payload_that_is_not_of_its_format_goes_nowhere() {
    let mut case = ProtocolCase::new(ProtocolVersion::V5);
    case.context.subscriptions = vec!["#"];
    let mut publish = |topic, qos: u8, packet_id, properties: &[u8], payload: &[u8]| {
        let outgoing = OutgoingPublish { dup: false, qos, retain: true, packet_id, topic, properties, payload };
        let bytes = case.client.publish_with(outgoing);
        case.feed(&bytes).unwrap();
    };
    for topic in [TOPIC, "state"] {
        publish(topic, 0, 0, &[1, 1], &[0xFF]);
        publish(topic, 1, 1, &[1, 1], &[0xFF]);
        publish(topic, 2, 2, &[1, 1], &[0xFF]);
    }
    publish("state", 2, 2, &[1, 1], "é".as_bytes());
    publish("state", 1, 3, &[1, 0], &[0xFF]);
    case.append(None);
    let refused = [(frame::PUBACK, 1, 0x99), (frame::PUBREC, 2, 0x99)];
    assert_eq!(case.acks(0), [refused, refused, [(frame::PUBREC, 2, 0), (frame::PUBACK, 3, 0)]].concat());
    let received = case.protocol.take_received();
    assert_eq!((received.misformatted, received.ingest, received.other), (6, [0, 0, 0], [0, 1, 1]));
    assert_eq!(case.events, ["forward state 2 é", "forward state 1 \u{FFFD}"]);
    assert!(case.records.is_empty());
}

#[test]
fn another_answer_of_the_access_rules_holds_from_the_next_publish() {
    let mut case = ProtocolCase::new(ProtocolVersion::V5);
    case.publish(TOPIC, 0, 0, "1").unwrap();
    case.context.decisions = vec![(TOPIC, PublishDecision::Denied(OnDeniedPublish::Disconnect))];
    case.context.changes = 1;
    case.publish(TOPIC, 0, 0, "2").unwrap();
    case.context.decisions = vec![(TOPIC, PublishDecision::Allowed { own_device: Some("a".into()) })];
    case.context.changes = 2;
    case.publish(TOPIC, 0, 0, "3").unwrap();
    case.publish(TOPIC, 0, 0, "4").unwrap();
    let records = case.append(Some(9));
    assert_eq!(records, [format!("c {TOPIC} 0/0 1"), format!("c(a) {TOPIC} 0/0 3"), format!("=c(a) {TOPIC} 0/0 4")]);
}

#[test]
fn bad_topic_names_end_the_connection() {
    for version in BOTH {
        for topic in ["a/+", "#"] {
            assert_eq!(ProtocolCase::new(version).publish(topic, 0, 0, "x"), Err(CloseReason::TopicName), "{topic:?}");
        }
        for topic in ["", "a\0b", "a\u{1}"] {
            assert_eq!(ProtocolCase::new(version).publish(topic, 0, 0, "x"), Err(CloseReason::Malformed));
        }
        let not_utf8 = [0x30, 4, 0, 2, 0xFF, 0xFE];
        assert_eq!(ProtocolCase::new(ProtocolVersion::V4).feed(&not_utf8), Err(CloseReason::Malformed));
    }
}

#[test]
fn topic_aliases_stand_for_topics() {
    let mut case = ProtocolCase::new(ProtocolVersion::V5);
    case.publish_with_properties(TOPIC, &[0x23, 0, 3], "1").unwrap();
    case.publish_with_properties("", &[0x23, 0, 3], "2").unwrap();
    case.publish_with_properties("devices/b/telemetry", &[0x23, 0, 3], "3").unwrap();
    case.publish_with_properties("", &[0x23, 0, 3], "4").unwrap();
    assert_eq!(
        case.append(Some(4)),
        [
            "c devices/a/telemetry 0/0 1",
            "=c devices/a/telemetry 0/0 2",
            "c devices/b/telemetry 0/0 3",
            "=c devices/b/telemetry 0/0 4"
        ]
    );
    let refused = |properties: &[u8], close| {
        assert_eq!(ProtocolCase::new(ProtocolVersion::V5).publish_with_properties("", properties, "x"), Err(close));
    };
    refused(&[0x23, 0, 0], CloseReason::TopicAlias);
    refused(&[0x23, 0, 11], CloseReason::TopicAlias);
    refused(&[0x23, 0, 10], CloseReason::Protocol);
    refused(&[], CloseReason::Malformed);
}

#[test]
fn topics_behind_aliases_are_bounded() {
    let mut case = ProtocolCase::new(ProtocolVersion::V5);
    let long = "x".repeat(60_000);
    case.publish_with_properties(&long, &[0x23, 0, 1], "").unwrap();
    case.publish_with_properties(&long, &[0x23, 0, 1], "").unwrap();
    assert_eq!(case.publish_with_properties(&long, &[0x23, 0, 2], ""), Err(CloseReason::Quota));
}

#[test]
fn the_receive_maximum_is_held_as_each_version_knows_it() {
    let mut case = ProtocolCase::with(ProtocolVersion::V5, 2);
    case.publish(TOPIC, 1, 1, "x").unwrap();
    case.publish(TOPIC, 2, 2, "x").unwrap();
    assert_eq!(case.publish(TOPIC, 1, 3, "x"), Err(CloseReason::ReceiveMaximum));
    let mut case = ProtocolCase::with(ProtocolVersion::V5, 1);
    case.publish(TOPIC, 2, 1, "x").unwrap();
    case.append(Some(1));
    assert_eq!(case.acks(1).len(), 1);
    assert_eq!(case.publish(TOPIC, 1, 2, "x"), Err(CloseReason::ReceiveMaximum), "not yet released");
    let release = case.client.ack(frame::PUBREL, 1);
    case.feed(&release).unwrap();
    case.publish(TOPIC, 1, 2, "x").unwrap();
    let mut case = ProtocolCase::with(ProtocolVersion::V4, 2);
    for id in 1..=5 {
        case.publish(TOPIC, 1, id, "x").unwrap();
    }
    assert!(case.protocol.is_full(), "the socket is not read");
    case.append(Some(5));
    case.acks(5);
    assert!(!case.protocol.is_full());
}

#[test]
fn a_3_1_1_client_that_never_releases_is_ended() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    for id in 1..=MAX_UNRELEASED as u16 {
        case.publish("other", 2, id, "").unwrap();
    }
    assert_eq!(case.publish("other", 2, u16::MAX, ""), Err(CloseReason::ReceiveMaximum));
}

#[test]
fn pings_are_answered() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    case.feed(&[0xC0, 0]).unwrap();
    assert_eq!(case.out, [0xD0, 0]);
    assert_eq!(case.feed(&[0xC1, 0]), Err(CloseReason::Malformed));
}

#[test]
fn packets_that_a_client_may_not_send_end_the_connection() {
    for version in BOTH {
        let check = |bytes: &[u8], close| assert_eq!(ProtocolCase::new(version).feed(bytes), Err(close), "{bytes:?}");
        check(&client(version).connect("again"), CloseReason::Protocol);
        check(&[0x20, 2, 0, 0], CloseReason::Protocol); // CONNACK
        check(&[0x90, 3, 0, 1, 0], CloseReason::Protocol); // SUBACK
        check(&[0xB0, 2, 0, 1], CloseReason::Protocol); // UNSUBACK
        check(&[0xD0, 0], CloseReason::Protocol); // PINGRESP
        check(&[0xF0, 0], CloseReason::Protocol); // AUTH
        check(&[0xF1, 0], CloseReason::Malformed); // AUTH with flags [MQTT-3.15.1-1]
        check(&[0x00, 0], CloseReason::Protocol);
        check(&[0xC0, 1, 0], CloseReason::Unframed); // PINGREQ with a body
        check(&[0x91, 3, 0, 1, 0], CloseReason::Malformed); // SUBACK with flags
        check(&[0x60, 2, 0, 1], CloseReason::Malformed); // PUBREL with the wrong flags
        check(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], CloseReason::Malformed);
        check(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], CloseReason::PacketTooLarge);
    }
}

#[test]
fn a_disconnect_ends_the_connection_and_may_change_the_expiry() {
    let mut case = ProtocolCase::new(ProtocolVersion::V5);
    assert_eq!(case.feed(&[0xE0, 0]), Err(CloseReason::Normal));
    assert_eq!(case.feed(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9]), Err(CloseReason::Protocol), "it was 0");
    case.protocol.expiry_s = 5;
    assert_eq!(case.feed(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]), Err(CloseReason::Normal));
    assert_eq!(case.protocol.expiry_s(), 0);
}

#[test]
fn acks_of_the_client_are_handed_on() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    for kind in [frame::PUBACK, frame::PUBREC, frame::PUBCOMP] {
        let bytes = case.client.ack(kind, 3);
        case.feed(&bytes).unwrap();
    }
    assert_eq!(
        case.events,
        [
            "Acknowledged { kind: 4, packet_id: 3, reason: 0 }",
            "Acknowledged { kind: 5, packet_id: 3, reason: 0 }",
            "Acknowledged { kind: 7, packet_id: 3, reason: 0 }"
        ]
    );
}

/// Packets of each type that a client sends.
fn client_packets(version: ProtocolVersion) -> Vec<Vec<u8>> {
    let client = client(version);
    vec![
        client.clone().will("w", b"x", 1).connect("c"),
        client.publish(TOPIC, 0, 0, b"payload"),
        client.publish(TOPIC, 1, 1, b"payload"),
        client.publish(TOPIC, 2, 2, b"payload"),
        client.ack(frame::PUBACK, 1),
        client.ack(frame::PUBREC, 1),
        client.ack(frame::PUBREL, 1),
        client.ack(frame::PUBCOMP, 1),
        client.subscribe(1, &[("a/+", 1), ("#", 2)]),
        client.unsubscribe(1, &["a/+"]),
        vec![0xC0, 0],
        vec![0xE0, 0],
        vec![0xE0, 7, 0, 5, 0x11, 0, 0, 0, 9],
    ]
}

#[test]
fn a_packet_in_pieces_is_waited_for() {
    for version in BOTH {
        for packet in client_packets(version) {
            for len in 0..packet.len() {
                let mut case = ProtocolCase::new(version);
                assert_eq!(case.feed(&packet[..len]), Ok(()), "{len} bytes of {packet:?}");
                assert!(case.out.is_empty() && case.records.is_empty() && case.events.is_empty());
            }
        }
    }
}

#[test]
fn a_packet_cut_short_by_its_own_length_never_panics() {
    for version in BOTH {
        for packet in client_packets(version) {
            let Ok(NextFrame::Frame(frame)) = frame::next(&packet, usize::MAX) else { panic!("not whole") };
            for len in 0..frame.body.len() {
                let mut cut = vec![packet[0]];
                crate::mqtt::wire::fields::put_variable_length(len, &mut cut);
                cut.extend_from_slice(&frame.body[..len]);
                let mut case = ProtocolCase::new(version);
                let ended = case.feed(&cut);
                assert_ne!(ended, Err(CloseReason::Defect), "{version:?} {cut:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_never_panic(
        v5 in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut case = ProtocolCase::new(if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V4 });
        let _ = case.feed(&bytes);
        case.append(Some(1));
    }

    #[test]
    fn damaged_packets_never_panic(
        v5 in any::<bool>(),
        which in 0_usize..13,
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V4 };
        let mut packet = client_packets(version).swap_remove(which);
        let at = at.index(packet.len());
        packet[at] = byte;
        let _ = ProtocolCase::new(version).feed(&packet);
    }
}
