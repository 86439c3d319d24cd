//! Publishes results over MQTT as they enter the output logs: windows on `weir/windows/DEVICE/METRIC`, errors on
//! `weir/errors/REASON`. What is of a tenant's devices is published below the prefix of the tenant.
//!
//! This module does not read the logs: the follower (`results::follow`) reads and decodes results. It does not queue
//! messages either: the broker queues them, and counts those that slow subscribers miss.

use std::sync::Arc;

use super::broker::Broker;
use crate::config::Tenants;
use crate::core::output::ErrorEntry;
use crate::results::follow::ResultSubscriber;
use crate::results::record::{DecodedResult, ResultKind, ResultRecord};

const WINDOWS: &str = "weir/windows/";
const ERRORS: &str = "weir/errors/";
/// QoS with which results are published. A subscriber that was granted a lower QoS receives them with the lower QoS.
const QOS: u8 = 1;

/// Publishes the results that the follower hands to it. Results are not retained.
#[derive(Debug)]
pub struct ResultPublisher {
    broker: Arc<Broker>,
    windows: bool,
    errors: bool,
    tenants: Tenants,
    /// Buffer for the topic of the current result.
    topic: String,
}

impl ResultPublisher {
    /// Makes a publisher. It publishes windows if `windows` is set, and errors if `errors` is set.
    pub fn new(broker: Arc<Broker>, windows: bool, errors: bool, tenants: Tenants) -> Self {
        Self { broker, windows, errors, tenants, topic: String::new() }
    }

    /// Whether there may be a subscriber below `place`, of weir's own or of a tenant.
    fn may_be_heard(&self, place: &str) -> bool {
        let below = |prefix: &str| self.broker.may_have_subscribers(&format!("{prefix}{place}"));
        self.broker.may_have_subscribers(place) || self.tenants.iter().any(|tenant| below(&tenant.prefix))
    }
}

impl ResultSubscriber for ResultPublisher {
    fn listens_to(&self, kind: ResultKind) -> bool {
        match kind {
            ResultKind::Window => self.windows && self.may_be_heard(WINDOWS),
            ResultKind::Error => self.errors && self.may_be_heard(ERRORS),
        }
    }

    /// Publishes one result. Never waits: a subscriber whose queue is full misses the result, which the broker counts.
    fn receive(&mut self, record: &ResultRecord<'_>) {
        self.topic.clear();
        match &record.result {
            DecodedResult::Window(window) => {
                let (prefix, id) = split_device_id(window.device_id);
                self.topic.extend([prefix, WINDOWS, id, "/", window.metric]);
            }
            DecodedResult::Error(entry) => {
                self.topic.extend([prefix_of(entry, &self.tenants), ERRORS, entry.reason.as_str()]);
            }
        }
        if self.broker.has_subscribers(&self.topic) {
            self.broker.publish(&self.topic, record.json(), QOS, false);
        }
    }
}

/// The prefix of the tenant that an error is of. An error without a device belongs to the tenant of its topic.
fn prefix_of<'a>(entry: &ErrorEntry<'a>, tenants: &'a Tenants) -> &'a str {
    let of_topic = || tenants.of_topic(entry.topic).map_or("", |tenant| &*tenant.prefix);
    entry.device_id.map_or_else(of_topic, |id| split_device_id(id).0)
}

/// The prefix of the tenant that a device belongs to, and the id that the tenant knows. That id has no `/`.
fn split_device_id(device_id: &str) -> (&str, &str) {
    device_id.rfind('/').map_or(("", device_id), |at| device_id.split_at(at + 1))
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::config::MqttConfig;
    use crate::log::Lsn;
    use crate::mqtt::ProtocolVersion;
    use crate::mqtt::broker::{AttachRequest, AttachedSession};
    use crate::mqtt::session::timeline::Timeline;
    use crate::mqtt::testing::{SentPacket, attaching, packets};
    use crate::mqtt::wire::codec::{RetainHandling, SubscribeOutcome, TopicSubscription};
    use crate::results::follow::ResultFollower;
    use crate::results::log::{ResultLogs, ResultPositions};
    use crate::results::testing::{append_errors, append_windows, result_logs};

    struct PublisherCase {
        broker: Arc<Broker>,
        results: Arc<ResultLogs>,
        follower: ResultFollower,
        subscriber: AttachedSession,
    }

    impl PublisherCase {
        fn new() -> Self {
            let broker = Arc::new(Broker::new(&MqttConfig::default(), Arc::default(), Timeline::default()));
            let attach = AttachRequest { expiry_s: 0, ..attaching("s") };
            let subscriber = broker.attach(&attach).unwrap();
            let results = result_logs();
            Self { broker, follower: ResultFollower::new(results.clone()), results, subscriber }
        }

        fn subscribe(&self, filter: &str) {
            let filter = TopicSubscription {
                filter: filter.into(),
                qos: 1,
                no_local: false,
                retain_as_published: false,
                retain: RetainHandling::Always,
                identifier: None,
            };
            let granted = self.broker.subscribe(&self.subscriber.session, self.subscriber.connection, &filter);
            assert_eq!(granted, SubscribeOutcome::Granted(1));
        }

        /// Publishes windows from the position `from` on, and all errors.
        fn publish(&self, from: u64) {
            let publisher = ResultPublisher::new(Arc::clone(&self.broker), true, true, Tenants::default());
            let from = ResultPositions { windows: Lsn(from), errors: Lsn(0) };
            self.follower.subscribe(from, Box::new(publisher));
        }

        /// Runs the follower until it has handed on everything that the logs hold.
        fn follow(&self) {
            self.follower.catch_up();
        }

        /// Topic, QoS and `seq` (from the JSON payload) of each message that is sent to the subscriber.
        fn received(&self) -> Vec<(String, u8, u64)> {
            let (session, connection) = (&self.subscriber.session, self.subscriber.connection);
            let mut out = Vec::new();
            session.write(connection, ProtocolVersion::V4, usize::MAX, usize::MAX, Instant::now, &mut out);
            let messages = packets(&out, ProtocolVersion::V4).into_iter().map(|packet| match packet {
                SentPacket::Publish { topic, qos, payload, retain: false, .. } => {
                    let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
                    (topic, qos, json["seq"].as_u64().unwrap())
                }
                other => panic!("{other:?}"),
            });
            messages.collect()
        }
    }

    #[test]
    fn results_are_published_from_the_position_on() {
        let case = PublisherCase::new();
        case.subscribe("weir/#");
        append_windows(&case.results, &["temperature", "humidity", "a/b"]);
        append_errors(&case.results, &["late"]);
        case.publish(1);
        case.follow();
        let expected = [
            ("weir/windows/pump-7/humidity".into(), 1, 1),
            ("weir/windows/pump-7/a/b".into(), 1, 2),
            ("weir/errors/late".into(), 1, 0),
        ];
        assert_eq!(case.received(), expected);
    }

    #[test]
    fn without_subscribers_results_are_passed_over() {
        let case = PublisherCase::new();
        case.publish(0);
        append_windows(&case.results, &["temperature"]);
        case.follow();
        case.subscribe("weir/windows/+/humidity");
        append_windows(&case.results, &["temperature", "humidity"]);
        case.follow();
        assert_eq!(case.received(), [("weir/windows/pump-7/humidity".into(), 1, 2)]);
    }

    #[test]
    fn the_thread_follows_and_stops() {
        let case = PublisherCase::new();
        case.subscribe("weir/#");
        case.publish(0);
        let follower = case.follower.clone();
        let thread = thread::spawn(move || follower.run());
        append_windows(&case.results, &["temperature"]);
        while case.broker.stats().queued_messages == 0 {
            thread::yield_now();
        }
        case.follower.stop();
        thread.join().unwrap();
        assert_eq!(case.received().len(), 1);
    }
}
