//! Messages with the RETAIN flag that come again.

use super::*;

/// A message with RETAIN; `again`: the connection found it retained.
fn retained(topic: &str, payload: &str, packet_id: u16, again: bool) -> Input {
    let publish = PublishRecord {
        client_id: "c",
        topic,
        own_device: None,
        user: None,
        packet_id,
        qos: 1,
        dup: false,
        retain: true,
        repeats_retained: again,
        payload: payload.as_bytes(),
    };
    let mut bytes = Vec::new();
    record::encode_publish(&publish, false, &mut bytes);
    Input::Encoded(bytes)
}

const TOPIC: &str = "devices/a/telemetry";
const READING: &str = r#"{"metric":"m","value":1}"#;
const OTHER: &str = r#"{"metric":"m","value":2}"#;

fn harness() -> OperatorHarness {
    let telemetry_topics = vec!["devices/+/telemetry".into(), "readings".into()];
    OperatorHarness::new(Settings { telemetry_topics, ..Settings::default() })
}

#[test]
fn a_message_that_comes_again_is_counted_and_no_reading() {
    let mut harness = harness();
    harness.check(T0, &[retained(TOPIC, READING, 1, false)], &[]);
    let again = [retained(TOPIC, READING, 2, true), retained(TOPIC, READING, 3, true)];
    harness.check(T0 + 1_000, &again, &[]);
    let totals = harness.operator.totals().clone();
    assert_eq!((totals.messages, totals.received, totals.retained_repeats), (3, 1, 2));
    let device = harness.operator.device("a").unwrap().summary;
    assert_eq!((device.accepted, device.retained_repeats, device.last_seen_ms), (1, 2, T0));
    assert_eq!(harness.closed(), ["a/m@0#0=1.0"]);
}

#[test]
fn what_the_journal_does_not_hold_is_a_reading() {
    let mut harness = harness();
    harness.check(T0, &[retained(TOPIC, READING, 1, true)], &[]);
    harness.check(T0, &[retained(TOPIC, OTHER, 2, true), retained(TOPIC, READING, 3, true)], &[]);
    // Now the journal holds it, as the last message of the topic.
    harness.check(T0, &[retained(TOPIC, READING, 4, true)], &[]);
    let clear = retained(TOPIC, "", 5, false);
    harness.apply(T0, &[clear, retained(TOPIC, READING, 6, true)]);
    assert_eq!(harness.operator.totals().retained_repeats, 1);
    assert_eq!(harness.operator.device("a").unwrap().summary.accepted, 4);
}

#[test]
fn each_topic_has_a_message_and_the_payload_may_name_the_device() {
    let mut harness = harness();
    let named = r#"[{"device_id":"a","metric":"m","value":4}]"#;
    let all = |again| {
        [retained(TOPIC, READING, 1, again), retained("readings", named, 2, again), retained("readings", "[", 3, again)]
    };
    harness.check(T0, &all(false), &["malformed -/- 0"]);
    // The message that is no JSON names no device.
    harness.check(T0, &all(true), &["malformed -/- 0"]);
    assert_eq!(harness.operator.totals().retained_repeats, 2);
    assert_eq!(harness.closed(), ["a/m@0#0=5.0"]);
}

#[test]
fn a_rejected_message_is_told_once() {
    let mut harness = harness();
    harness.check(T0, &[retained(TOPIC, READING, 1, false), retained(TOPIC, "[", 2, false)], &["malformed a/- 0"]);
    harness.check(T0, &[retained(TOPIC, "[", 3, true)], &[]);
}

#[test]
fn a_repetition_is_known_when_it_is_delivered_again() {
    let mut harness = harness();
    harness.check(T0, &[retained(TOPIC, READING, 1, false), retained(TOPIC, READING, 2, true)], &[]);
    let later = Input::Publish {
        user: None,
        client: "c".into(),
        topic: TOPIC.into(),
        packet_id: 2,
        qos: 1,
        dup: true,
        payload: READING.into(),
    };
    harness.apply(T0 + 20_000, &[later]);
    let totals = harness.operator.totals();
    assert_eq!((totals.received, totals.in_windows), (2, 1), "it is a duplicate");
}

#[test]
fn it_is_remembered_over_a_snapshot() {
    let mut harness = harness();
    harness.check(T0, &[retained(TOPIC, READING, 1, false), retained(TOPIC, READING, 2, true)], &[]);
    let (header, mut groups) = (harness.operator.begin_snapshot(), Vec::new());
    while !harness.operator.snapshot_step(64, &mut groups) {}
    let groups = groups.iter().map(|blob| (blob.group, blob.bytes.as_slice()));
    harness.operator = Operator::restore(&header, groups).unwrap();
    harness.check(T0, &[retained(TOPIC, READING, 3, true)], &[]);
    let (totals, device) = (harness.operator.totals(), harness.operator.device("a").unwrap().summary);
    assert_eq!((totals.received, totals.retained_repeats, device.retained_repeats), (1, 2, 2));
}
