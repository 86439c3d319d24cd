//! Subscriptions, retained messages and sessions without a connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::codec::{Filter, RetainHandling, SubscribeOutcome};
use super::delivery::{Delivery, Grant, Message, Offer, QueueLimits, Returned};
use super::handle::{ConnectionId, DISCARDED, Handle, Kept, Totals, lock};
use super::meters::Meters;
use super::retained::Retained;
use super::retained_store::RetainedStore;
use super::subscriptions::{Subscriber, Subscriptions};
use super::timeline::Timeline;
use super::topic;
use super::will::Will;
use crate::config::Mqtt;
use crate::log::Lsn;

/// Levels of all filters of one session at most, so that deep ones do not make it costly: each level takes some 150 bytes.
const MAX_SESSION_LEVELS: usize = 100_000;
/// Levels of all filters at most.
const MAX_LEVELS: usize = 1_500_000;
/// Subscriptions of all sessions at most.
const MAX_SUBSCRIPTIONS: usize = 200_000;

/// Numbers for metrics and status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Connections whose CONNECT was accepted.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Shared subscriptions among them.
    pub shared_subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// The most connections there were.
    pub most_connections: usize,
    /// Sessions that ended because their time was over.
    pub sessions_expired: usize,
    /// Messages waiting for subscribers.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
}

/// What all connections share. Locks are taken in the order sessions, one session, subscriptions, and held briefly.
#[derive(Debug)]
pub struct Broker {
    sessions: Mutex<Sessions>,
    subscriptions: RwLock<Subscriptions>,
    /// Grows with each change of `subscriptions`.
    version: AtomicU64,
    retained: Mutex<Retained>,
    /// The newest `$SYS` messages, which come with a subscription like retained ones.
    system: Mutex<Retained>,
    totals: Arc<Totals>,
    queue_limits: QueueLimits,
    max_connections: usize,
    max_inflight: u16,
    max_session_subscriptions: usize,
    max_topic_levels: usize,
    max_session_expiry: Option<Duration>,
    meters: Arc<Meters>,
    timeline: Timeline,
    /// Told when a timer is set that may be earlier than all others, and when a will is due.
    timers_changed: Notify,
}

/// User and client identifier. Each user has sessions of its own: with another's client identifier a client neither
/// disturbs nor resumes the other's. Those without a user name are one user.
type SessionKey = (Option<Arc<str>>, Arc<str>);

#[derive(Debug, Default)]
struct Sessions {
    by_client: HashMap<SessionKey, Arc<Handle>>,
    /// Sessions without a connection in the order in which they lost it.
    offline: BTreeMap<u64, Arc<Handle>>,
    /// What is due when: at most two entries per session without a connection.
    timers: BTreeMap<(Instant, u64), Timer>,
    /// Wills that are due.
    wills: Vec<Will>,
    online: usize,
    /// The most that were online.
    most_online: usize,
    /// Ended because their time was over.
    expired: usize,
    last_number: u64,
}

#[derive(Debug)]
enum Timer {
    /// The session ends.
    Session(Arc<Handle>),
    /// The session's will is published.
    Will(Arc<Handle>),
}

impl Sessions {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// What a connection asks for when it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attach<'a> {
    /// Whose session it is; `None`: the client came without credentials.
    pub user: Option<&'a Arc<str>>,
    pub client_id: &'a str,
    /// Whether an existing session is discarded.
    pub clean: bool,
    /// Receive maximum of the client.
    pub receive_maximum: u16,
    /// Seconds that the session is to outlive this connection.
    pub expiry_s: u32,
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
    pub(crate) fn new(config: &Mqtt, meters: Arc<Meters>, timeline: Timeline) -> Self {
        let queue_limits = QueueLimits {
            messages: config.max_queued_messages,
            bytes: config.max_queued_bytes,
            retained: config.max_retained_messages,
        };
        Self {
            sessions: Mutex::default(),
            subscriptions: RwLock::default(),
            version: AtomicU64::new(1),
            retained: Mutex::new(Retained::new(config.max_retained_messages, config.max_retained_bytes)),
            system: Mutex::new(Retained::new(usize::MAX, usize::MAX)),
            totals: Arc::default(),
            queue_limits,
            max_connections: config.max_connections,
            max_inflight: config.max_inflight,
            max_session_subscriptions: config.max_subscriptions_per_client,
            max_topic_levels: config.max_topic_levels,
            max_session_expiry: config.max_session_expiry_ms.map(|ms| Duration::from_millis(ms.unsigned_abs())),
            meters,
            timeline,
            timers_changed: Notify::new(),
        }
    }

    /// Goes on with the retained messages that `store` has, and keeps them there from now on.
    pub fn keep_retained(&self, store: RetainedStore) {
        let stored = store.load(&self.timeline);
        let mut retained = lock(&self.retained);
        for message in stored {
            if !retained.set(&Arc::new(message)) {
                self.meters.limit("mqtt_retained");
            }
        }
        retained.keep_in(store, self.timeline.clone());
    }

    /// Retained messages that changed are in their store when this returns, within its time limit.
    pub fn sync_retained(&self) {
        let store = lock(&self.retained).store();
        if let Some(store) = store {
            store.sync();
        }
    }

    /// Whether a message on any topic that begins with `prefix` (ending in `/`) could have a subscriber.
    pub fn may_have_subscribers(&self, prefix: &str) -> bool {
        self.read_subscriptions().any_below(prefix)
    }

    /// Delivers a message of weir's own to all matching subscribers; never blocks.
    pub fn publish(&self, topic: &str, payload: Bytes, qos: u8, retain: bool) {
        self.deliver(&Arc::new(Message::new(topic, payload, qos, retain)));
    }

    /// Numbers for metrics and status.
    pub fn stats(&self) -> BrokerStats {
        let (connections, sessions, most_connections, sessions_expired) = {
            let sessions = lock(&self.sessions);
            (sessions.online, sessions.by_client.len(), sessions.most_online, sessions.expired)
        };
        let (subscriptions, shared_subscriptions) = {
            let subscriptions = self.read_subscriptions();
            (subscriptions.len(), subscriptions.shared_len())
        };
        let (retained, retained_bytes) = {
            let retained = lock(&self.retained);
            (retained.len(), retained.bytes())
        };
        BrokerStats {
            connections,
            sessions,
            subscriptions,
            shared_subscriptions,
            retained,
            retained_bytes,
            most_connections,
            sessions_expired,
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
        self.read_subscriptions().any(topic)
    }

    /// Stores a retained message and queues the message for each matching subscriber once, and once for each matching
    /// shared subscription. Never blocks: a full queue misses it, counted.
    pub(crate) fn deliver(&self, message: &Arc<Message>) {
        if message.retain && !lock(&self.retained).set(message) {
            self.meters.limit("mqtt_retained");
        }
        self.pass_on(message);
    }

    /// Forgets retained messages whose time is over.
    pub(crate) fn expire_retained(&self) {
        let now = self.timeline.now();
        lock(&self.retained).expire(now);
    }

    /// Keeps a `$SYS` message for later subscribers and passes it on to those there are.
    pub(crate) fn publish_system(&self, topic: &str, value: String) {
        let message = Arc::new(Message::new(topic, value.into(), 0, true));
        lock(&self.system).set(&message);
        self.pass_on(&message);
    }

    fn pass_on(&self, message: &Arc<Message>) {
        let (found, shares) = {
            let subscriptions = self.read_subscriptions();
            let found = subscriptions.matching(&message.topic, message.qos, message.retain, message.publisher);
            (found, subscriptions.shares(&message.topic))
        };
        if found.is_empty() && shares.is_empty() {
            return;
        }
        let now = self.timeline.now();
        for (handle, grant) in found {
            if handle.offer(message, grant, false, now) == Some(Offer::Full) {
                self.meters.dropped_queue_full.increment(1);
            }
        }
        for share in shares {
            self.pass_to_share(&share, message, now);
        }
    }

    /// One member gets the message: the first in turn that has room.
    fn pass_to_share(&self, share: &Arc<str>, message: &Arc<Message>, now: Instant) {
        let members = self.read_subscriptions().turn(share);
        for member in members {
            let grant = Grant { share: Some(Arc::clone(share)), ..member.grant(message.qos, message.retain) };
            if member.handle.offer(message, grant, false, now) == Some(Offer::Queued) {
                return;
            }
        }
        self.meters.dropped_queue_full.increment(1);
    }

    /// What a session that ended leaves to the other members of its shared subscriptions.
    fn return_shared(&self, returned: Vec<Returned>) {
        let now = self.timeline.now();
        for Returned { share, message } in returned {
            if !message.is_expired(now) {
                self.pass_to_share(&share, &message, now);
            }
        }
    }

    /// Whether a topic or filter has as many levels as it may; one with more is counted.
    pub(crate) fn allows_levels(&self, topic: &str) -> bool {
        let allowed = topic::levels(topic) <= self.max_topic_levels;
        if !allowed {
            self.meters.limit("mqtt_topic_levels");
        }
        allowed
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
        if !self.allows_levels(&filter.filter) {
            return SubscribeOutcome::QuotaExceeded;
        }
        let shared = topic::is_shared(&filter.filter);
        if shared && topic::split_shared(&filter.filter).is_none() {
            return SubscribeOutcome::InvalidFilter;
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
        // Not to shared subscriptions [section 3.8.4].
        if send && !shared {
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
        let levels = topic::levels(&filter.filter);
        let full = kept.filters.len() >= self.max_session_subscriptions
            || kept.levels + levels > MAX_SESSION_LEVELS
            || subscriptions.len() >= MAX_SUBSCRIPTIONS
            || subscriptions.levels() + levels > MAX_LEVELS;
        if new && full {
            self.meters.limit("mqtt_subscriptions");
            return Err(SubscribeOutcome::QuotaExceeded);
        }
        if new {
            kept.levels += levels;
        }
        subscriptions.insert(&filter.filter, Subscriber::new(handle, filter));
        kept.filters.insert(filter.filter.as_str().into());
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(new)
    }

    fn send_retained(&self, handle: &Arc<Handle>, filter: &Filter) {
        let now = self.timeline.now();
        let store = if filter.filter.starts_with("$SYS") { &self.system } else { &self.retained };
        let messages = lock(store).matching(&filter.filter, now);
        for message in messages {
            let identifiers = filter.identifier.into_iter().collect();
            let grant = Grant { qos: filter.qos.min(message.qos), retain: true, identifiers, share: None };
            if handle.offer(&message, grant, true, now) == Some(Offer::Full) {
                self.meters.dropped_queue_full.increment(1);
            }
        }
    }

    /// Ends one subscription; whether there was one.
    pub(crate) fn unsubscribe(&self, handle: &Handle, connection: ConnectionId, filter: &str) -> bool {
        let Some(mut kept) = handle.own(connection) else { return false };
        let existed = kept.filters.remove(filter);
        if existed {
            kept.levels -= topic::levels(filter);
            self.write_subscriptions().remove(filter, handle.id);
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        existed
    }

    /// Gives a session to a new connection: the client's existing one (taken from the connection that has it), or a
    /// new one. At the bound of sessions the one that has been without a connection for longest is discarded.
    pub(crate) fn attach(&self, attach: &Attach<'_>) -> Result<Attached, TooManyConnections> {
        let now = self.timeline.now();
        let mut sessions = lock(&self.sessions);
        let client_id: Arc<str> = attach.client_id.into();
        let key = (attach.user.cloned(), Arc::clone(&client_id));
        let existing = sessions.by_client.get(&key).cloned();
        let taken_over = existing.as_ref().is_some_and(|handle| handle.any().offline.is_none());
        if !taken_over {
            if sessions.online >= self.max_connections {
                return Err(TooManyConnections);
            }
            sessions.online += 1;
            sessions.most_online = sessions.most_online.max(sessions.online);
        }
        let connection = sessions.number();
        let window = attach.receive_maximum.min(self.max_inflight);
        let over = |handle: &Handle| handle.any().is_over(now);
        match existing {
            Some(handle) if !attach.clean && !over(&handle) => {
                let received_until = {
                    let mut kept = handle.any();
                    // The client is back before its will was due [MQTT-3.1.3-9].
                    Self::stop_timers(&mut sessions, &mut kept);
                    if let Some(place) = kept.offline.take() {
                        sessions.offline.remove(&place);
                    }
                    kept.ends_with_connection = attach.expiry_s == 0;
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
                let totals = Arc::clone(&self.totals);
                let handle = Handle::new(connection, key.0.clone(), client_id, connection, delivery, totals);
                let handle = Arc::new(handle);
                handle.any().ends_with_connection = attach.expiry_s == 0;
                sessions.by_client.insert(key, Arc::clone(&handle));
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

    /// How long a session is kept whose client wants this many seconds (`u32::MAX`: for ever); `None`: for ever.
    pub(crate) fn session_expiry(&self, wanted_s: u32) -> Option<Duration> {
        let wanted = (wanted_s < u32::MAX).then(|| Duration::from_secs(u64::from(wanted_s)));
        match (wanted, self.max_session_expiry) {
            (Some(wanted), Some(max)) => Some(wanted.min(max)),
            (wanted, max) => wanted.or(max),
        }
    }

    /// The connection ended. The session outlives it by `expiry_s`. Returns the will if it is to be published now; one
    /// that has to wait comes from [`Broker::due`] later, unless the client is back before.
    pub(crate) fn detach(
        &self,
        handle: &Arc<Handle>,
        connection: ConnectionId,
        expiry_s: u32,
        will: Option<Will>,
    ) -> Option<Will> {
        let mut sessions = lock(&self.sessions);
        match handle.owner() {
            owner if owner == connection => {}
            // Taken over: the session belongs to a newer connection, which also counts for this one. A will that can
            // wait is not due, for the client is back [MQTT-3.1.4-3], unless its session ended with a clean start.
            DISCARDED => return will,
            _ => return will.filter(|will| will.delay_s == 0),
        }
        sessions.online -= 1;
        if expiry_s == 0 {
            self.discard(&mut sessions, handle);
            return will;
        }
        let now = self.timeline.now();
        let expiry = self.session_expiry(expiry_s);
        let place = sessions.number();
        let mut kept = handle.any();
        kept.offline = Some(place);
        handle.hand_over(&mut kept, 0);
        let mut due_now = None;
        if let Some(will) = will {
            let delay = Duration::from_secs(u64::from(will.delay_s));
            let at = now + expiry.map_or(delay, |expiry| delay.min(expiry));
            if at == now {
                due_now = Some(will);
            } else {
                let key = (at, sessions.number());
                kept.will = Some((will, key));
                sessions.timers.insert(key, Timer::Will(Arc::clone(handle)));
            }
        }
        if let Some(expiry) = expiry {
            let key = (now + expiry, sessions.number());
            kept.expires = Some(key);
            sessions.timers.insert(key, Timer::Session(Arc::clone(handle)));
        }
        drop(kept);
        sessions.offline.insert(place, Arc::clone(handle));
        self.timers_changed.notify_one();
        due_now
    }

    /// Forgets the session's timers; returns a will that waited.
    fn stop_timers(sessions: &mut Sessions, kept: &mut Kept) -> Option<Will> {
        if let Some(key) = kept.expires.take() {
            sessions.timers.remove(&key);
        }
        let (will, key) = kept.will.take()?;
        sessions.timers.remove(&key);
        Some(will)
    }

    fn discard(&self, sessions: &mut Sessions, handle: &Arc<Handle>) {
        sessions.by_client.remove(&(handle.user.clone(), Arc::clone(&handle.client_id)));
        let mut kept = handle.any();
        if let Some(place) = kept.offline.take() {
            sessions.offline.remove(&place);
        }
        // The session has ended, so its will waits no longer [MQTT-3.1.2-8].
        if let Some(will) = Self::stop_timers(sessions, &mut kept) {
            sessions.wills.push(will);
            self.timers_changed.notify_one();
        }
        let returned = handle.hand_over(&mut kept, DISCARDED);
        let filters = std::mem::take(&mut kept.filters);
        if !filters.is_empty() {
            let mut subscriptions = self.write_subscriptions();
            for filter in filters {
                subscriptions.remove(&filter, handle.id);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        drop(kept);
        self.return_shared(returned);
    }

    /// Ends the sessions whose time is over; returns the wills that are due, and when to look again.
    pub(crate) fn due(&self) -> (Vec<Will>, Option<Instant>) {
        let now = self.timeline.now();
        let mut sessions = lock(&self.sessions);
        while let Some(entry) = sessions.timers.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Timer::Session(handle) => {
                    sessions.expired += 1;
                    self.discard(&mut sessions, &handle);
                }
                Timer::Will(handle) => {
                    let will = handle.any().will.take();
                    sessions.wills.extend(will.map(|(will, _)| will));
                }
            }
        }
        let next = sessions.timers.first_key_value().map(|((at, _), _)| *at);
        (std::mem::take(&mut sessions.wills), next)
    }

    /// Completes when [`Broker::due`] is to be called earlier than it said.
    pub(crate) async fn timers_changed(&self) {
        self.timers_changed.notified().await;
    }

    fn read_subscriptions(&self) -> RwLockReadGuard<'_, Subscriptions> {
        self.subscriptions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_subscriptions(&self) -> RwLockWriteGuard<'_, Subscriptions> {
        self.subscriptions.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Version;
    use crate::mqtt::testing::{ManualClock, Sent, packets};

    fn broker(max_connections: usize) -> Broker {
        let config = Mqtt { max_connections, max_queued_messages: 2, ..Mqtt::default() };
        Broker::new(&config, Arc::default(), Timeline::default())
    }

    fn attach(broker: &Broker, client_id: &str, clean: bool) -> Result<Attached, TooManyConnections> {
        broker.attach(&Attach { user: None, client_id, clean, receive_maximum: 100, expiry_s: 60 })
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
            identifier: None,
        }
    }

    fn received(attached: &Attached) -> Vec<(String, u8, bool)> {
        let mut out = Vec::new();
        attached.handle.write(attached.connection, Version::V4, usize::MAX, usize::MAX, Instant::now, &mut out);
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
        broker.detach(&one.handle, one.connection, 60, None);
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
            broker.detach(&old.handle, old.connection, 0, None);
            assert_eq!((broker.stats().connections, broker.stats().sessions), (1, 1));
            assert_eq!(new.handle.owner(), new.connection);
            broker.detach(&new.handle, new.connection, 0, None);
            assert_eq!((broker.stats().connections, broker.stats().sessions), (0, 0));
        }
    }

    #[test]
    fn connections_and_sessions_are_bounded() {
        let broker = broker(2);
        let one = attach(&broker, "one", false).unwrap();
        broker.detach(&one.handle, one.connection, 60, None);
        let two = attach(&broker, "two", false).unwrap();
        broker.detach(&two.handle, two.connection, 60, None);
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
        assert_eq!(subscribe(&broker, &one, "$share/g", 1), SubscribeOutcome::InvalidFilter);
        for index in 0..Mqtt::default().max_subscriptions_per_client {
            assert_eq!(subscribe(&broker, &one, &format!("t/{index}"), 1), SubscribeOutcome::Granted(1));
        }
        assert_eq!(subscribe(&broker, &one, "more", 1), SubscribeOutcome::QuotaExceeded);
        let two = attach(&broker, "one", true).unwrap();
        let deep = |index: usize| format!("{index}{}", "/".repeat(200));
        for index in 0..MAX_SESSION_LEVELS / 201 {
            assert_eq!(subscribe(&broker, &two, &deep(index), 1), SubscribeOutcome::Granted(1));
        }
        assert_eq!(subscribe(&broker, &two, &deep(9_999), 1), SubscribeOutcome::QuotaExceeded);
        assert!(broker.unsubscribe(&two.handle, two.connection, &deep(0)));
        assert_eq!(subscribe(&broker, &two, &deep(9_999), 1), SubscribeOutcome::Granted(1));
        broker.detach(&two.handle, two.connection, 0, None);
        assert_eq!(broker.read_subscriptions().levels(), 0);
        let one = attach(&broker, "one", true).unwrap();
        subscribe(&broker, &one, "t/0", 1);
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
        broker.detach(&one.handle, one.connection, 0, None);
        assert!(broker.version() > before);
    }

    /// A broker whose time the test moves.
    fn timed(config: Mqtt) -> (Broker, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        (Broker::new(&config, Arc::default(), Timeline::new(clock.clone())), clock)
    }

    fn will(delay_s: u32) -> Option<Will> {
        let message = Message::new("gone", "x".into(), 0, false);
        Some(Will { client_id: "one".into(), message, expiry_s: None, delay_s })
    }

    #[test]
    fn a_session_ends_after_its_time() {
        let (broker, clock) = timed(Mqtt { max_session_expiry_ms: Some(5_000), ..Mqtt::default() });
        for (expiry_s, kept_ms) in [(2, 2_000), (60, 5_000), (u32::MAX, 5_000)] {
            let one = attach(&broker, "one", true).unwrap();
            broker.detach(&one.handle, one.connection, expiry_s, None);
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
        let (broker, clock) = timed(Mqtt::default());
        let one = attach(&broker, "one", true).unwrap();
        broker.detach(&one.handle, one.connection, 1, None);
        clock.advance(1_000);
        assert!(!attach(&broker, "one", false).unwrap().session_present);
    }

    #[test]
    fn a_will_waits_for_its_delay_or_the_end_of_its_session() {
        let (broker, clock) = timed(Mqtt::default());
        for (delay_s, expiry_s, due_ms) in [(3, 10, 3_000), (10, 3, 3_000)] {
            let one = attach(&broker, "one", true).unwrap();
            assert_eq!(broker.detach(&one.handle, one.connection, expiry_s, will(delay_s)), None);
            clock.advance(due_ms - 1);
            assert_eq!(broker.due().0, []);
            clock.advance(1);
            assert_eq!(broker.due().0.len(), 1);
        }
        let one = attach(&broker, "one", true).unwrap();
        assert!(broker.detach(&one.handle, one.connection, 10, will(0)).is_some(), "no delay");
        let one = attach(&broker, "one", true).unwrap();
        assert!(broker.detach(&one.handle, one.connection, 0, will(5)).is_some(), "no session");
    }

    #[test]
    fn a_client_that_is_back_in_time_has_no_will_published() {
        let (broker, clock) = timed(Mqtt::default());
        let one = attach(&broker, "one", true).unwrap();
        broker.detach(&one.handle, one.connection, 10, will(3));
        let again = attach(&broker, "one", false).unwrap();
        clock.advance(60_000);
        assert_eq!(broker.due().0, []);
        broker.detach(&again.handle, again.connection, 10, will(3));
        attach(&broker, "one", true).unwrap();
        assert_eq!(broker.due().0.len(), 1, "a clean start ends the session");
    }

    #[test]
    fn a_take_over_publishes_a_will_unless_it_can_wait() {
        let (broker, _) = timed(Mqtt::default());
        for (clean, delay_s, published) in [(false, 0, true), (false, 5, false), (true, 5, true)] {
            let old = attach(&broker, "one", true).unwrap();
            attach(&broker, "one", clean).unwrap();
            assert_eq!(broker.detach(&old.handle, old.connection, 60, will(delay_s)).is_some(), published);
        }
    }

    #[test]
    fn a_session_that_ends_with_its_connection_ends_at_a_take_over() {
        let broker = broker(10);
        let ending = Attach { user: None, client_id: "one", clean: true, receive_maximum: 1, expiry_s: 0 };
        let old = broker.attach(&ending).unwrap();
        subscribe(&broker, &old, "a", 1);
        let new = attach(&broker, "one", false).unwrap();
        assert!(!new.session_present && broker.stats().subscriptions == 0);
        assert!(broker.detach(&old.handle, old.connection, 0, will(5)).is_some());
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
            assert!(broker.unsubscribe(&member.handle, member.connection, "$share/g/t/#"));
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
        broker.detach(&one.handle, one.connection, 0, None);
        assert_eq!(received(&two).len(), 2);
        broker.detach(&two.handle, two.connection, 0, None);
    }

    #[test]
    fn identifiers_of_all_matching_subscriptions_are_sent() {
        let broker = broker(10);
        let one = attach(&broker, "one", true).unwrap();
        for (filter, identifier) in [("a/+", 7), ("a/#", 8)] {
            let filter = Filter { identifier: Some(identifier), ..options(filter, 1) };
            broker.subscribe(&one.handle, one.connection, &filter);
        }
        let mut found = broker.read_subscriptions().matching("a/b", 2, false, 0);
        let (_, grant) = found.pop().unwrap();
        assert!(found.is_empty());
        assert_eq!((grant.qos, grant.identifiers.len()), (1, 2));
    }
}
