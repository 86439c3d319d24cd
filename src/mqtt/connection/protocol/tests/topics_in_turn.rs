//! A connection that publishes on several topics in turn.

use super::*;

/// Whichever topics come, and whatever changes meanwhile: the answers are those of the topic at hand.
#[test]
fn topics_in_turn_keep_their_own_answers() {
    for topics in [2, 8, 15, 16, 17, 40] {
        let mut case = ProtocolCase::new(ProtocolVersion::V4);
        let own = |device: &str| PublishDecision::Allowed { own_device: Some(device.into()) };
        case.context.decisions = vec![("devices/1/telemetry", own("b"))];
        let long = format!("devices/{}/telemetry", "l".repeat(300));
        for round in 0..6_u64 {
            match round {
                2 => case.context.subscriptions = vec!["devices/0/telemetry"],
                3 => case.context.decisions.push(("devices/0/telemetry", own("c"))),
                _ => {}
            }
            case.context.changes += u64::from(round == 3);
            let mut expected = Vec::new();
            for index in 0..topics {
                let ingest = format!("devices/{index}/telemetry");
                for topic in [ingest.as_str(), "other", "ignored/a", &long] {
                    case.publish(topic, 0, 0, "x").unwrap();
                }
                let device = match index {
                    0 if round >= 3 => "(c)",
                    1 => "(b)",
                    _ => "",
                };
                expected.extend([format!("c{device} {ingest} 0/0 x"), format!("c {long} 0/0 x")]);
                case.protocol.end_read(&case.context);
                assert_eq!(case.context.ignored.get(), (0, 1));
            }
            let records = case.append(Some(1));
            assert_eq!(records.len(), expected.len());
            let forwards = std::mem::take(&mut case.events);
            assert_eq!(forwards.len(), usize::from(round >= 2), "{topics} topics, round {round}");
            for (record, expected) in records.iter().zip(expected) {
                assert_eq!(*record, expected, "{topics} topics, round {round}");
            }
        }
    }
}

/// Each time that a denied topic follows another one, the denial is reported.
#[test]
fn denied_topics_in_turn_are_denied_each_time() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    case.context.decisions = vec![("devices/d/telemetry", PublishDecision::Denied(OnDeniedPublish::Ignore))];
    for _ in 0..3 {
        case.publish("devices/d/telemetry", 0, 0, "x").unwrap();
        case.publish("devices/d/telemetry", 0, 0, "x").unwrap();
        case.publish("devices/a/telemetry", 0, 0, "x").unwrap();
    }
    assert_eq!(*case.context.noted.borrow(), ["devices/d/telemetry"; 3]);
    assert_eq!(case.append(Some(1)), ["c devices/a/telemetry 0/0 x"; 3]);
}

#[test]
fn publishes_on_other_topics_are_noted_once_per_read_and_topic() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    case.context.subscriptions = vec!["x"];
    for topic in ["x", "x", TOPIC, "y", "y", "y", "$SYS/broker/connection/b/state", "x"] {
        case.publish(topic, 0, 0, "p").unwrap();
    }
    case.protocol.end_read(&case.context);
    case.protocol.end_read(&case.context);
    case.publish("x", 0, 0, "p").unwrap();
    case.protocol.end_read(&case.context);
    assert_eq!(case.noted(), ["x 3, y 3", "x 1"]);
    // The state of a bridge is unmatched too, since nobody subscribes to it; it is not listed.
    assert_eq!(case.protocol.take_received().unmatched, 4);
}

#[test]
fn a_client_with_many_topics_notes_them_together() {
    let mut case = ProtocolCase::new(ProtocolVersion::V4);
    case.protocol.begin_read(case.now);
    for turn in 0..3 {
        for topic in 0..20 {
            case.publish(&format!("t/{topic}"), 0, 0, "p").unwrap_or_else(|close| panic!("{turn}: {close:?}"));
        }
    }
    case.protocol.end_read(&case.context);
    let noted = case.context.unmatched.borrow();
    assert_eq!(noted.len(), 4, "60 publishes on 20 topics, 16 at a time");
    assert_eq!(noted.iter().flatten().map(|(_, count, _)| count).sum::<u64>(), 60);
    let long = ["x".repeat(256), "x".repeat(257)];
    drop(noted);
    long.iter().for_each(|topic| case.publish(topic, 0, 0, "p").unwrap());
    case.protocol.end_read(&case.context);
    assert_eq!(case.noted().last(), Some(&format!("{} 1", long[0])), "longer ones are not listed");
}
