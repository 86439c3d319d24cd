//! Subscriptions, retained messages and sessions without a connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use super::codec::{Filter, RetainHandling, SubscribeOutcome};
use super::delivery::{Delivery, Message, Offer, QueueLimits};
use super::handle::{ConnectionId, DISCARDED, Handle, Totals, lock};
use super::meters::Meters;
use super::retained::{self, Retained};
use super::topic;
use super::trie::Trie;
use crate::config::Mqtt;
use crate::log::Lsn;

/// Subscriptions of one session at most.
const MAX_SESSION_SUBSCRIPTIONS: usize = 1_000;
/// Subscriptions of all sessions at most.
const MAX_SUBSCRIPTIONS: usize = 100_000;

/// Numbers for metrics and status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Connections whose CONNECT was accepted.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages waiting for subscribers.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
}

/// What all connections share. Locks are taken in the order sessions, one session, subscriptions, and held briefly.
#[derive(Debug)]
pub struct Broker {
    sessions: Mutex<Sessions>,
    subscriptions: RwLock<Trie<Subscriber>>,
    /// Grows with each change of `subscriptions`.
    version: AtomicU64,
    retained: Mutex<Retained>,
    totals: Arc<Totals>,
    queue_limits: QueueLimits,
    max_connections: usize,
    max_inflight: u16,
    meters: Arc<Meters>,
}

#[derive(Debug, Default)]
struct Sessions {
    by_client: HashMap<Arc<str>, Arc<Handle>>,
    /// Sessions without a connection in the order in which they lost it.
    offline: BTreeMap<u64, Arc<Handle>>,
    online: usize,
    last_number: u64,
}

#[derive(Debug, Clone)]
struct Subscriber {
    handle: Arc<Handle>,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
}

/// What a connection asks for when it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attach<'a> {
    pub client_id: &'a str,
    /// Whether an existing session is discarded.
    pub clean: bool,
    /// Receive maximum of the client.
    pub receive_maximum: u16,
}

/// A session given to a connection.
#[derive(Debug)]
pub(crate) struct Attached {
    pub handle: Arc<Handle>,
    pub connection: ConnectionId,
    pub session_present: bool,
    /// See [`Handle::resume`].
    pub received_until: Lsn,
}

/// `max_connections` are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyConnections;

impl Broker {
    pub(crate) fn new(config: &Mqtt, meters: Arc<Meters>) -> Self {
        let queue_limits = QueueLimits {
            messages: config.max_queued_messages,
            bytes: config.max_queued_bytes,
            retained: retained::MAX_MESSAGES,
        };
        Self {
            sessions: Mutex::default(),
            subscriptions: RwLock::default(),
            version: AtomicU64::new(1),
            retained: Mutex::default(),
            totals: Arc::default(),
            queue_limits,
            max_connections: config.max_connections,
            max_inflight: config.max_inflight,
            meters,
        }
    }

    /// Whether a message on any topic that begins with `prefix` (ending in `/`) could have a subscriber.
    pub fn may_have_subscribers(&self, prefix: &str) -> bool {
        let subscriptions = self.read_subscriptions();
        subscriptions.len() > 0 && subscriptions.may_match_below(prefix)
    }

    /// Delivers a message of weir's own to all matching subscribers; never blocks.
    pub fn publish(&self, topic: &str, payload: Bytes, qos: u8, retain: bool) {
        self.deliver(&Arc::new(Message::new(topic, payload, qos, retain)));
    }

    /// Numbers for metrics and status.
    pub fn stats(&self) -> BrokerStats {
        let (connections, sessions) = {
            let sessions = lock(&self.sessions);
            (sessions.online, sessions.by_client.len())
        };
        BrokerStats {
            connections,
            sessions,
            subscriptions: self.read_subscriptions().len(),
            retained: lock(&self.retained).len(),
            queued_messages: self.totals.messages.load(Ordering::Relaxed),
            queued_bytes: self.totals.bytes.load(Ordering::Relaxed),
        }
    }

    /// Grows with each change of the subscriptions: what [`Broker::has_subscribers`] said holds while it stays.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether a message on `topic` has a subscriber.
    pub(crate) fn has_subscribers(&self, topic: &str) -> bool {
        let mut found = false;
        self.read_subscriptions().for_each_match(topic, &mut |_, _| found = true);
        found
    }

    /// Stores a retained message and queues the message for each matching subscriber, once, at the highest QoS that
    /// its overlapping subscriptions grant [MQTT-3.3.4-2]. Never blocks: a full queue misses it, counted.
    pub(crate) fn deliver(&self, message: &Arc<Message>) {
        if message.retain && !lock(&self.retained).set(message) {
            self.meters.limit("mqtt_retained");
        }
        for (_, subscriber) in self.matching(&message.topic) {
            if subscriber.no_local && subscriber.handle.id == message.publisher {
                continue;
            }
            let qos = subscriber.qos.min(message.qos);
            let retain = message.retain && subscriber.retain_as_published;
            if subscriber.handle.offer(message, qos, retain, false) == Some(Offer::Full) {
                self.meters.dropped_queue_full.increment(1);
            }
        }
    }

    fn matching(&self, topic: &str) -> Vec<(u64, Subscriber)> {
        let mut found: Vec<(u64, Subscriber)> = Vec::new();
        self.read_subscriptions().for_each_match(topic, &mut |id, subscriber| found.push((id, subscriber.clone())));
        found.sort_unstable_by_key(|(id, subscriber)| (*id, std::cmp::Reverse(subscriber.qos)));
        found.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1.retain_as_published |= later.1.retain_as_published;
                first.1.no_local &= later.1.no_local;
            }
            same
        });
        found
    }

    /// Subscribes the session to one filter, and queues the retained messages that come with it.
    pub(crate) fn subscribe(
        &self,
        handle: &Arc<Handle>,
        connection: ConnectionId,
        filter: &Filter,
    ) -> SubscribeOutcome {
        if !topic::valid_filter(&filter.filter) {
            return SubscribeOutcome::InvalidFilter;
        }
        if topic::is_shared(&filter.filter) {
            return SubscribeOutcome::SharedNotSupported;
        }
        let new = match self.insert(handle, connection, filter) {
            Ok(new) => new,
            Err(refused) => return refused,
        };
        let send = match filter.retain {
            RetainHandling::Always => true,
            RetainHandling::New => new,
            RetainHandling::Never => false,
        };
        if send {
            self.send_retained(handle, filter);
        }
        SubscribeOutcome::Granted(filter.qos)
    }

    fn insert(
        &self,
        handle: &Arc<Handle>,
        connection: ConnectionId,
        filter: &Filter,
    ) -> Result<bool, SubscribeOutcome> {
        // The session stays locked: a connection that just lost it must not leave a subscription behind.
        let mut kept = handle.own(connection).ok_or(SubscribeOutcome::QuotaExceeded)?;
        let new = !kept.filters.contains(filter.filter.as_str());
        let mut subscriptions = self.write_subscriptions();
        if new && (kept.filters.len() >= MAX_SESSION_SUBSCRIPTIONS || subscriptions.len() >= MAX_SUBSCRIPTIONS) {
            self.meters.limit("mqtt_subscriptions");
            return Err(SubscribeOutcome::QuotaExceeded);
        }
        let subscriber = Subscriber {
            handle: Arc::clone(handle),
            qos: filter.qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
        };
        subscriptions.insert(&filter.filter, handle.id, subscriber);
        kept.filters.insert(filter.filter.as_str().into());
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(new)
    }

    fn send_retained(&self, handle: &Arc<Handle>, filter: &Filter) {
        let messages = lock(&self.retained).matching(&filter.filter);
        for message in messages {
            if handle.offer(&message, filter.qos.min(message.qos), true, true) == Some(Offer::Full) {
                self.meters.dropped_queue_full.increment(1);
            }
        }
    }

    /// Ends one subscription; whether there was one.
    pub(crate) fn unsubscribe(&self, handle: &Handle, connection: ConnectionId, filter: &str) -> bool {
        let Some(mut kept) = handle.own(connection) else { return false };
        let existed = kept.filters.remove(filter);
        if existed {
            self.write_subscriptions().remove(filter, handle.id);
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        existed
    }

    /// Gives a session to a new connection: the client's existing one (taken from the connection that has it), or a
    /// new one. At the bound of sessions the one that has been without a connection for longest is discarded.
    pub(crate) fn attach(&self, attach: &Attach<'_>) -> Result<Attached, TooManyConnections> {
        let mut sessions = lock(&self.sessions);
        let existing = sessions.by_client.get(attach.client_id).cloned();
        let taken_over = existing.as_ref().is_some_and(|handle| handle.any().offline.is_none());
        if !taken_over {
            if sessions.online >= self.max_connections {
                return Err(TooManyConnections);
            }
            sessions.online += 1;
        }
        sessions.last_number += 1;
        let connection = sessions.last_number;
        let window = attach.receive_maximum.min(self.max_inflight);
        match existing {
            Some(handle) if !attach.clean => {
                let received_until = {
                    let mut kept = handle.any();
                    if let Some(place) = kept.offline.take() {
                        sessions.offline.remove(&place);
                    }
                    handle.hand_over(&mut kept, connection);
                    handle.resume(&mut kept, window)
                };
                Ok(Attached { handle, connection, session_present: true, received_until })
            }
            existing => {
                if let Some(handle) = existing {
                    self.discard(&mut sessions, &handle);
                }
                self.make_room(&mut sessions);
                let delivery = Delivery::new(self.queue_limits, window);
                let client_id: Arc<str> = attach.client_id.into();
                let totals = Arc::clone(&self.totals);
                let handle = Arc::new(Handle::new(connection, Arc::clone(&client_id), connection, delivery, totals));
                sessions.by_client.insert(client_id, Arc::clone(&handle));
                Ok(Attached { handle, connection, session_present: false, received_until: Lsn(0) })
            }
        }
    }

    fn make_room(&self, sessions: &mut Sessions) {
        // Connected sessions are fewer than `max_connections`, so one without a connection is found if any is needed.
        if sessions.by_client.len() >= self.max_connections
            && let Some((_, oldest)) = sessions.offline.pop_first()
        {
            self.meters.limit("mqtt_sessions");
            self.discard(sessions, &oldest);
        }
    }

    /// The connection ended. `keep`: the session outlives it.
    pub(crate) fn detach(&self, handle: &Arc<Handle>, connection: ConnectionId, keep: bool) {
        let mut sessions = lock(&self.sessions);
        if handle.owner() != connection {
            return; // taken over: it belongs to a newer connection, which also counts for this one
        }
        sessions.online -= 1;
        if !keep {
            self.discard(&mut sessions, handle);
            return;
        }
        sessions.last_number += 1;
        let place = sessions.last_number;
        let mut kept = handle.any();
        kept.offline = Some(place);
        handle.hand_over(&mut kept, 0);
        drop(kept);
        sessions.offline.insert(place, Arc::clone(handle));
    }

    fn discard(&self, sessions: &mut Sessions, handle: &Arc<Handle>) {
        sessions.by_client.remove(&handle.client_id);
        let mut kept = handle.any();
        if let Some(place) = kept.offline.take() {
            sessions.offline.remove(&place);
        }
        handle.hand_over(&mut kept, DISCARDED);
        let filters = std::mem::take(&mut kept.filters);
        if !filters.is_empty() {
            let mut subscriptions = self.write_subscriptions();
            for filter in filters {
                subscriptions.remove(&filter, handle.id);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn read_subscriptions(&self) -> RwLockReadGuard<'_, Trie<Subscriber>> {
        self.subscriptions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_subscriptions(&self) -> RwLockWriteGuard<'_, Trie<Subscriber>> {
        self.subscriptions.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Version;
    use crate::mqtt::testing::{Sent, packets};

    fn broker(max_connections: usize) -> Broker {
        let config = Mqtt { max_connections, max_queued_messages: 2, ..Mqtt::default() };
        Broker::new(&config, Arc::default())
    }

    fn attach(broker: &Broker, client_id: &str, clean: bool) -> Result<Attached, TooManyConnections> {
        broker.attach(&Attach { client_id, clean, receive_maximum: 100 })
    }

    fn subscribe(broker: &Broker, to: &Attached, filter: &str, qos: u8) -> SubscribeOutcome {
        broker.subscribe(&to.handle, to.connection, &options(filter, qos))
    }

    fn options(filter: &str, qos: u8) -> Filter {
        Filter {
            filter: filter.into(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain: RetainHandling::Always,
        }
    }

    fn received(attached: &Attached) -> Vec<(String, u8, bool)> {
        let mut out = Vec::new();
        attached.handle.write(attached.connection, Version::V4, usize::MAX, usize::MAX, &mut out);
        let publishes = packets(&out, Version::V4).into_iter().map(|packet| match packet {
            Sent::Publish { topic, qos, retain, .. } => (topic, qos, retain),
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

    #[test]
    fn retained_messages_come_with_the_subscription() {
        let broker = broker(10);
        broker.publish("a/1", "x".into(), 1, true);
        let one = attach(&broker, "one", true).unwrap();
        subscribe(&broker, &one, "a/#", 0);
        assert_eq!(received(&one), [("a/1".into(), 0, true)]);
        let new_only = Filter { retain: RetainHandling::New, ..options("a/#", 1) };
        broker.subscribe(&one.handle, one.connection, &new_only);
        assert_eq!(received(&one), [], "the subscription is not new");
        broker.publish("a/1", "y".into(), 1, true);
        assert_eq!(received(&one), [("a/1".into(), 1, false)], "live messages lose the flag");
        let as_published = Filter { retain_as_published: true, retain: RetainHandling::Never, ..options("a/#", 1) };
        broker.subscribe(&one.handle, one.connection, &as_published);
        broker.publish("a/1", "z".into(), 1, true);
        assert_eq!(received(&one), [("a/1".into(), 1, true)]);
    }

    #[test]
    fn no_local_spares_the_publisher() {
        let broker = broker(10);
        let one = attach(&broker, "one", true).unwrap();
        broker.subscribe(&one.handle, one.connection, &Filter { no_local: true, ..options("a", 1) });
        let own = Message { publisher: one.handle.id, ..Message::new("a", "x".into(), 1, false) };
        broker.deliver(&Arc::new(own));
        broker.publish("a", "x".into(), 1, false);
        assert_eq!(received(&one).len(), 1);
    }

    #[test]
    fn a_kept_session_receives_what_it_missed() {
        let broker = broker(10);
        let one = attach(&broker, "one", false).unwrap();
        subscribe(&broker, &one, "a", 1);
        broker.detach(&one.handle, one.connection, true);
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
            assert_ne!(old.handle.owner(), old.connection);
            assert_eq!(subscribe(&broker, &old, "a", 1), SubscribeOutcome::QuotaExceeded);
            broker.detach(&old.handle, old.connection, false);
            assert_eq!((broker.stats().connections, broker.stats().sessions), (1, 1));
            assert_eq!(new.handle.owner(), new.connection);
            broker.detach(&new.handle, new.connection, false);
            assert_eq!((broker.stats().connections, broker.stats().sessions), (0, 0));
        }
    }

    #[test]
    fn connections_and_sessions_are_bounded() {
        let broker = broker(2);
        let one = attach(&broker, "one", false).unwrap();
        broker.detach(&one.handle, one.connection, true);
        let two = attach(&broker, "two", false).unwrap();
        broker.detach(&two.handle, two.connection, true);
        let three = attach(&broker, "three", false).unwrap();
        assert_eq!(broker.stats().sessions, 2);
        assert!(attach(&broker, "two", false).unwrap().session_present, "the older session went");
        assert_eq!(attach(&broker, "four", true).unwrap_err(), TooManyConnections);
        assert!(attach(&broker, "three", false).is_ok(), "a client may replace its own connection");
        assert_ne!(three.handle.owner(), three.connection);
    }

    #[test]
    fn subscriptions_are_bounded_and_checked() {
        let broker = broker(1);
        let one = attach(&broker, "one", true).unwrap();
        assert_eq!(subscribe(&broker, &one, "a/#/b", 1), SubscribeOutcome::InvalidFilter);
        assert_eq!(subscribe(&broker, &one, "$share/g/a", 1), SubscribeOutcome::SharedNotSupported);
        for index in 0..MAX_SESSION_SUBSCRIPTIONS {
            assert_eq!(subscribe(&broker, &one, &format!("t/{index}"), 1), SubscribeOutcome::Granted(1));
        }
        assert_eq!(subscribe(&broker, &one, "more", 1), SubscribeOutcome::QuotaExceeded);
        assert_eq!(subscribe(&broker, &one, "t/0", 2), SubscribeOutcome::Granted(2));
        assert!(broker.unsubscribe(&one.handle, one.connection, "t/0"));
        assert!(!broker.unsubscribe(&one.handle, one.connection, "t/0"));
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
        broker.detach(&one.handle, one.connection, false);
        assert!(broker.version() > before);
    }
}
