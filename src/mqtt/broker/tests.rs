//! Sessions, subscriptions and who gets what.

use super::retained_delivery::{MAX_WAITING, TOPICS_PER_TURN};
use super::sessions::AttachError;
use super::subscribe::MAX_SESSION_LEVELS;
use super::*;
use crate::mqtt::ProtocolVersion;
use crate::mqtt::session::will::Will;
use crate::mqtt::testing::{self, SentPacket, SteppedClock, attaching, packets};
use crate::mqtt::wire::codec::{RetainHandling, SubscribeOutcome, TopicSubscription};
use crate::mqtt::wire::topic;

fn broker(max_connections: usize) -> Broker {
    let config = MqttConfig { max_connections, max_queued_messages: 2, ..MqttConfig::default() };
    Broker::new(&config, Arc::default(), Timeline::default())
}

fn attach(broker: &Broker, client_id: &str, clean: bool) -> Result<AttachedSession, AttachError> {
    broker.attach(&AttachRequest { clean, ..attaching(client_id) })
}

fn subscribe(broker: &Broker, to: &AttachedSession, filter: &str, qos: u8) -> SubscribeOutcome {
    subscribe_with(broker, to, &options(filter, qos))
}

/// With the retained messages that come with it, as far as there is room for them.
fn subscribe_with(broker: &Broker, to: &AttachedSession, filter: &TopicSubscription) -> SubscribeOutcome {
    let outcome = broker.subscribe(&to.session, to.connection, filter);
    while to.session.awaits_retained() && broker.queue_retained(&to.session, to.connection) {}
    outcome
}

fn options(filter: &str, qos: u8) -> TopicSubscription {
    TopicSubscription {
        filter: filter.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain: RetainHandling::Always,
        identifier: None,
    }
}

fn received(attached: &AttachedSession) -> Vec<(String, u8, bool)> {
    let mut out = Vec::new();
    attached.session.write(attached.connection, ProtocolVersion::V4, usize::MAX, usize::MAX, Instant::now, &mut out);
    let publishes = packets(&out, ProtocolVersion::V4).into_iter().map(|packet| match packet {
        SentPacket::Publish { topic, qos, retain, .. } => (topic, qos, retain),
        other => panic!("{other:?}"),
    });
    publishes.collect()
}

#[test]
fn overlapping_subscriptions_deliver_once_with_the_highest_qos() {
    let broker = broker(10);
    let one = attach(&broker, "one", true).unwrap();
    subscribe(&broker, &one, "a/+", 0);
    subscribe(&broker, &one, "a/#", 2);
    subscribe(&broker, &one, "a/b", 1);
    broker.publish("a/b", "x".into(), 2, false);
    broker.publish("a/c", "x".into(), 1, false);
    assert_eq!(received(&one), [("a/b".into(), 2, false), ("a/c".into(), 1, false)]);
}

#[test]
fn a_full_queue_misses_the_newest() {
    let broker = broker(10);
    let one = attach(&broker, "one", true).unwrap();
    subscribe(&broker, &one, "#", 1);
    for topic in ["a", "b", "c"] {
        broker.publish(topic, "x".into(), 1, false);
    }
    assert_eq!(broker.stats().queued_messages, 2);
    assert_eq!(received(&one), [("a".into(), 1, false), ("b".into(), 1, false)]);
    assert_eq!(broker.stats().queued_messages, 0);
}

/// Many sessions with a little each are bounded too, and a client that keeps up does not notice.
#[test]
fn all_sessions_together_are_bounded() {
    let config = MqttConfig { max_queued_bytes_total: 10_000, ..MqttConfig::default() };
    let broker = Broker::new(&config, Arc::default(), Timeline::default());
    let slow: Vec<_> = (0..20).map(|id| attach(&broker, &format!("slow-{id}"), true).unwrap()).collect();
    let quick = attach(&broker, "quick", true).unwrap();
    for one in slow.iter().chain([&quick]) {
        subscribe(&broker, one, "a", 1);
    }
    for count in 1..=100 {
        broker.publish("a", "x".repeat(100).into(), 1, false);
        assert_eq!(received(&quick).len(), 1, "message {count}");
        quick.session.acknowledge(quick.connection, crate::mqtt::wire::frame::PUBACK, count, 0).unwrap();
    }
    let held = broker.stats().held_bytes;
    // Each message once, and twenty places in sessions for it.
    assert!((10_000..13_000).contains(&held), "{held}");
    for one in slow.iter().chain([&quick]) {
        broker.detach(&one.session, one.connection, 0, None);
    }
    assert_eq!(broker.stats().held_bytes, 0);
}

#[test]
fn retained_messages_come_with_the_subscription() {
    let broker = broker(10);
    broker.publish("a/1", "x".into(), 1, true);
    let one = attach(&broker, "one", true).unwrap();
    subscribe(&broker, &one, "a/#", 0);
    assert_eq!(received(&one), [("a/1".into(), 0, true)]);
    let new_only = TopicSubscription { retain: RetainHandling::New, ..options("a/#", 1) };
    subscribe_with(&broker, &one, &new_only);
    assert_eq!(received(&one), [], "the subscription is not new");
    broker.publish("a/1", "y".into(), 1, true);
    assert_eq!(received(&one), [("a/1".into(), 1, false)], "live messages lose the flag");
    let as_published =
        TopicSubscription { retain_as_published: true, retain: RetainHandling::Never, ..options("a/#", 1) };
    subscribe_with(&broker, &one, &as_published);
    broker.publish("a/1", "z".into(), 1, true);
    assert_eq!(received(&one), [("a/1".into(), 1, true)]);
}

/// A subscriber that does not read has a few of them waiting for it, not all there are; one that reads gets each once.
#[test]
fn retained_messages_wait_for_their_client_to_read() {
    const COUNT: usize = 3 * MAX_WAITING;
    let broker = broker(10);
    let topics: Vec<String> = (0..COUNT).map(|index| format!("a/{index:04}")).collect();
    for topic in &topics {
        broker.publish(topic, "x".into(), 1, true);
    }
    let one = attach(&broker, "one", true).unwrap();
    for filter in ["a/#", "+/none", "a/0007"] {
        subscribe(&broker, &one, filter, 0);
    }
    assert!((MAX_WAITING..2 * MAX_WAITING).contains(&broker.stats().queued_messages));
    let mut found = Vec::new();
    while one.session.awaits_retained() || broker.stats().queued_messages > 0 {
        found.extend(received(&one).into_iter().map(|(topic, ..)| topic));
        broker.queue_retained(&one.session, one.connection);
    }
    assert_eq!(found.iter().filter(|topic| *topic == "a/0007").count(), 2, "one for each subscription");
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, topics);
}

/// What is retained once a subscription stands comes as any message does, and not a second time as a retained one.
#[test]
fn what_is_retained_after_a_subscribe_comes_once() {
    let broker = broker(10);
    for topic in ["a/1", "a/2"] {
        broker.publish(topic, "old".into(), 1, true);
    }
    let one = attach(&broker, "one", false).unwrap();
    broker.subscribe(&one.session, one.connection, &options("a/+", 1));
    for topic in ["a/2", "a/3"] {
        broker.publish(topic, "new".into(), 1, true);
    }
    while broker.queue_retained(&one.session, one.connection) {}
    let topics = |attached: &AttachedSession| -> Vec<_> {
        received(attached).into_iter().map(|(topic, _, retain)| (topic, retain)).collect()
    };
    assert_eq!(topics(&one), [("a/2".into(), false), ("a/3".into(), false), ("a/1".into(), true)]);
    // A client that is away gets no message of QoS 0: when it comes back, what was due is what is retained then.
    broker.subscribe(&one.session, one.connection, &options("a/+", 1));
    broker.detach(&one.session, one.connection, 60, None);
    broker.publish("a/3", "newer".into(), 0, true);
    let one = attach(&broker, "one", false).unwrap();
    while broker.queue_retained(&one.session, one.connection) {}
    let mut again = topics(&one);
    again.sort_unstable();
    again.dedup();
    assert_eq!(again.into_iter().filter(|(_, retain)| *retain).count(), 3);
}

/// One wildcard after another makes a turn no longer than one: others get theirs.
#[test]
fn a_turn_looks_at_a_bounded_number_of_retained_topics() {
    let broker = broker(10);
    for index in 0..2_000 {
        broker.publish(&format!("a/{index}"), "x".into(), 1, true);
    }
    let one = attach(&broker, "one", true).unwrap();
    for index in 0..10 {
        broker.subscribe(&one.session, one.connection, &options(&format!("+/none-{index}"), 0));
    }
    let mut turns = 1;
    while broker.queue_retained(&one.session, one.connection) {
        turns += 1;
    }
    let least = 10 * 2_000 / TOPICS_PER_TURN;
    assert!((least..2 * least).contains(&turns), "{turns} turns for 20,000 comparisons");
    assert!(!one.session.awaits_retained() && received(&one).is_empty());
}

/// A subscription that ends, or is no longer allowed, brings no further retained messages.
#[test]
fn an_unsubscribe_ends_what_is_still_to_come() {
    let broker = broker(10);
    for index in 0..2 * MAX_WAITING {
        broker.publish(&format!("a/{index}"), "x".into(), 1, true);
    }
    let one = attach(&broker, "one", true).unwrap();
    subscribe(&broker, &one, "a/#", 0);
    assert!(broker.unsubscribe(&one.session, one.connection, "a/#"));
    received(&one);
    assert!(!broker.queue_retained(&one.session, one.connection) && !one.session.awaits_retained());
}

#[test]
fn no_local_spares_the_publisher() {
    let broker = broker(10);
    let one = attach(&broker, "one", true).unwrap();
    broker.subscribe(&one.session, one.connection, &TopicSubscription { no_local: true, ..options("a", 1) });
    let own = Message { publisher: one.session.id, ..Message::new("a", "x".into(), 1, false) };
    broker.deliver_will(&Arc::new(own), None);
    broker.publish("a", "x".into(), 1, false);
    assert_eq!(received(&one).len(), 1);
}

#[test]
fn a_kept_session_receives_what_it_missed() {
    let broker = broker(10);
    let one = attach(&broker, "one", false).unwrap();
    subscribe(&broker, &one, "a", 1);
    broker.detach(&one.session, one.connection, 60, None);
    assert_eq!((broker.stats().connections, broker.stats().sessions), (0, 1));
    broker.publish("a", "x".into(), 1, false);
    broker.publish("a", "x".into(), 0, false);
    let again = attach(&broker, "one", false).unwrap();
    assert!(again.session_present);
    assert_eq!(received(&again), [("a".into(), 1, false)]);
    let fresh = attach(&broker, "one", true).unwrap();
    assert!(!fresh.session_present);
    assert_eq!(broker.stats().subscriptions, 0);
}

#[test]
fn a_taken_over_connection_loses_its_session_and_is_not_counted_twice() {
    let broker = broker(1);
    for clean in [false, true] {
        let old = attach(&broker, "one", clean).unwrap();
        let new = attach(&broker, "one", clean).unwrap();
        assert_ne!(old.session.owner(), old.connection);
        assert_eq!(subscribe(&broker, &old, "a", 1), SubscribeOutcome::QuotaExceeded);
        broker.detach(&old.session, old.connection, 0, None);
        assert_eq!((broker.stats().connections, broker.stats().sessions), (1, 1));
        assert_eq!(new.session.owner(), new.connection);
        broker.detach(&new.session, new.connection, 0, None);
        assert_eq!((broker.stats().connections, broker.stats().sessions), (0, 0));
    }
}

#[test]
fn connections_and_sessions_are_bounded() {
    let broker = broker(2);
    let one = attach(&broker, "one", false).unwrap();
    broker.detach(&one.session, one.connection, 60, None);
    let two = attach(&broker, "two", false).unwrap();
    broker.detach(&two.session, two.connection, 60, None);
    let three = attach(&broker, "three", false).unwrap();
    assert_eq!(broker.stats().sessions, 2);
    assert!(attach(&broker, "two", false).unwrap().session_present, "the older session went");
    assert_eq!(attach(&broker, "four", true).unwrap_err(), AttachError::TooManyConnections);
    assert!(attach(&broker, "three", false).is_ok(), "a client may replace its own connection");
    assert_ne!(three.session.owner(), three.connection);
}

#[test]
fn subscriptions_are_bounded_and_checked() {
    let broker = broker(1);
    let one = attach(&broker, "one", true).unwrap();
    assert_eq!(subscribe(&broker, &one, "$share/g", 1), SubscribeOutcome::InvalidFilter);
    for index in 0..MqttConfig::default().max_subscriptions_per_client {
        assert_eq!(subscribe(&broker, &one, &format!("t/{index}"), 1), SubscribeOutcome::Granted(1));
    }
    assert_eq!(subscribe(&broker, &one, "more", 1), SubscribeOutcome::QuotaExceeded);
    let two = attach(&broker, "one", true).unwrap();
    let deep = |index: usize| format!("{index}{}", "/".repeat(200));
    for index in 0..MAX_SESSION_LEVELS / topic::levels(&deep(9_999)) {
        assert_eq!(subscribe(&broker, &two, &deep(index), 1), SubscribeOutcome::Granted(1));
    }
    assert_eq!(subscribe(&broker, &two, &deep(9_999), 1), SubscribeOutcome::QuotaExceeded);
    assert!(broker.unsubscribe(&two.session, two.connection, &deep(0)));
    assert_eq!(subscribe(&broker, &two, &deep(9_999), 1), SubscribeOutcome::Granted(1));
    broker.detach(&two.session, two.connection, 0, None);
    assert_eq!(broker.read_subscriptions().levels(), 0);
    let one = attach(&broker, "one", true).unwrap();
    subscribe(&broker, &one, "t/0", 1);
    assert_eq!(subscribe(&broker, &one, "t/0", 2), SubscribeOutcome::Granted(2));
    assert!(broker.unsubscribe(&one.session, one.connection, "t/0"));
    assert!(!broker.unsubscribe(&one.session, one.connection, "t/0"));
}

/// Filters of 60 KiB are few: a session keeps a few megabytes of text, however many subscriptions it may have.
#[test]
fn long_filters_count_for_what_they_take() {
    let broker = broker(1);
    let one = attach(&broker, "one", true).unwrap();
    let long = |index: usize| format!("{index}{}", "x".repeat(60 << 10));
    let granted =
        (0..1_000).take_while(|index| subscribe(&broker, &one, &long(*index), 1) == SubscribeOutcome::Granted(1));
    let granted = granted.count();
    assert!((10..200).contains(&granted), "{granted} filters were granted");
    assert!(broker.unsubscribe(&one.session, one.connection, &long(0)));
    assert_eq!(subscribe(&broker, &one, &long(1_000), 1), SubscribeOutcome::Granted(1));
    broker.detach(&one.session, one.connection, 0, None);
    assert_eq!(broker.read_subscriptions().levels(), 0);
}

#[test]
fn the_version_tells_of_changes() {
    let broker = broker(1);
    let one = attach(&broker, "one", true).unwrap();
    let before = broker.version();
    assert!(!broker.has_subscribers("a") && !broker.may_have_subscribers("weir/windows/"));
    subscribe(&broker, &one, "#", 1);
    assert!(broker.version() > before);
    assert!(broker.has_subscribers("a") && broker.may_have_subscribers("weir/windows/"));
    let before = broker.version();
    broker.detach(&one.session, one.connection, 0, None);
    assert!(broker.version() > before);
}

/// A broker whose time the test moves.
fn timed(config: MqttConfig) -> (Broker, Arc<SteppedClock>) {
    let clock = Arc::new(SteppedClock::default());
    (Broker::new(&config, Arc::default(), Timeline::new(clock.clone())), clock)
}

fn will(delay_s: u32) -> Option<Arc<Will>> {
    Some(Arc::new(testing::will("one", delay_s)))
}

#[test]
fn a_session_ends_after_its_time() {
    let (broker, clock) = timed(MqttConfig { max_session_expiry_ms: Some(5_000), ..MqttConfig::default() });
    for (expiry_s, kept_ms) in [(2, 2_000), (60, 5_000), (u32::MAX, 5_000)] {
        let one = attach(&broker, "one", true).unwrap();
        broker.detach(&one.session, one.connection, expiry_s, None);
        clock.advance(kept_ms - 1);
        let (wills, next) = broker.due();
        assert!(wills.is_empty() && next.is_some());
        assert_eq!(broker.stats().sessions, 1);
        clock.advance(1);
        assert_eq!(broker.due().1, None);
        assert_eq!(broker.stats().sessions, 0);
    }
}

#[test]
fn an_expired_session_is_gone_before_the_timer_looked() {
    let (broker, clock) = timed(MqttConfig::default());
    let one = attach(&broker, "one", true).unwrap();
    broker.detach(&one.session, one.connection, 1, None);
    clock.advance(1_000);
    assert!(!attach(&broker, "one", false).unwrap().session_present);
}

#[test]
fn a_will_waits_for_its_delay_or_the_end_of_its_session() {
    let (broker, clock) = timed(MqttConfig::default());
    for (delay_s, expiry_s, due_ms) in [(3, 10, 3_000), (10, 3, 3_000)] {
        let one = attach(&broker, "one", true).unwrap();
        assert_eq!(broker.detach(&one.session, one.connection, expiry_s, will(delay_s)), None);
        clock.advance(due_ms - 1);
        assert_eq!(broker.due().0, []);
        clock.advance(1);
        assert_eq!(broker.due().0.len(), 1);
    }
    let one = attach(&broker, "one", true).unwrap();
    assert!(broker.detach(&one.session, one.connection, 10, will(0)).is_some(), "no delay");
    let one = attach(&broker, "one", true).unwrap();
    assert!(broker.detach(&one.session, one.connection, 0, will(5)).is_some(), "no session");
}

#[test]
fn a_client_that_is_back_in_time_has_no_will_published() {
    let (broker, clock) = timed(MqttConfig::default());
    let one = attach(&broker, "one", true).unwrap();
    broker.detach(&one.session, one.connection, 10, will(3));
    let again = attach(&broker, "one", false).unwrap();
    clock.advance(60_000);
    assert_eq!(broker.due().0, []);
    broker.detach(&again.session, again.connection, 10, will(3));
    attach(&broker, "one", true).unwrap();
    assert_eq!(broker.due().0.len(), 1, "a clean start ends the session");
}

#[test]
fn a_take_over_publishes_a_will_unless_it_can_wait() {
    let (broker, _) = timed(MqttConfig::default());
    for (clean, delay_s, published) in [(false, 0, true), (false, 5, false), (true, 5, true)] {
        let old = attach(&broker, "one", true).unwrap();
        attach(&broker, "one", clean).unwrap();
        assert_eq!(broker.detach(&old.session, old.connection, 60, will(delay_s)).is_some(), published);
    }
}

#[test]
fn a_session_that_ends_with_its_connection_ends_at_a_take_over() {
    let broker = broker(10);
    let ending = AttachRequest { receive_maximum: 1, expiry_s: 0, ..attaching("one") };
    let old = broker.attach(&ending).unwrap();
    subscribe(&broker, &old, "a", 1);
    let new = attach(&broker, "one", false).unwrap();
    assert!(!new.session_present && broker.stats().subscriptions == 0);
    assert!(broker.detach(&old.session, old.connection, 0, will(5)).is_some());
    assert_eq!((broker.stats().connections, broker.stats().sessions), (1, 1));
}

#[test]
fn a_shared_subscription_gives_each_message_to_one_member_in_turn() {
    let broker = broker(10);
    let members: Vec<_> = ["a", "b", "c"].map(|id| attach(&broker, id, true).unwrap()).into();
    for member in &members {
        assert_eq!(subscribe(&broker, member, "$share/g/t/#", 1), SubscribeOutcome::Granted(1));
    }
    for _ in 0..6 {
        broker.publish("t/x", "x".into(), 1, false);
    }
    assert!(members.iter().all(|member| received(member).len() == 2));
    assert_eq!(broker.stats().subscriptions, 3);
    for member in &members {
        assert!(broker.unsubscribe(&member.session, member.connection, "$share/g/t/#"));
    }
    assert!(!broker.has_subscribers("t/x") && broker.stats().subscriptions == 0);
}

#[test]
fn a_member_that_leaves_gives_its_messages_to_another() {
    let broker = broker(10);
    let [one, two] = ["a", "b"].map(|id| attach(&broker, id, true).unwrap());
    subscribe(&broker, &one, "$share/g/t", 1);
    for payload in ["1", "2"] {
        broker.publish("t", payload.into(), 1, false);
    }
    subscribe(&broker, &two, "$share/g/t", 1);
    assert_eq!((received(&one).len(), received(&two).len()), (2, 0));
    broker.detach(&one.session, one.connection, 0, None);
    assert_eq!(received(&two).len(), 2);
    broker.detach(&two.session, two.connection, 0, None);
}

#[test]
fn identifiers_of_all_matching_subscriptions_are_sent() {
    let broker = broker(10);
    let one = attach(&broker, "one", true).unwrap();
    for (filter, identifier) in [("a/+", 7), ("a/#", 8)] {
        let filter = TopicSubscription { identifier: Some(identifier), ..options(filter, 1) };
        broker.subscribe(&one.session, one.connection, &filter);
    }
    let mut found = broker.read_subscriptions().matching("a/b", 2, false, 0, &mut 0);
    let (_, grant) = found.pop().unwrap();
    assert!(found.is_empty());
    assert_eq!((grant.qos, grant.identifiers.len()), (1, 2));
}
