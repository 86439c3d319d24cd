//! The broker: subscriptions, retained messages, wills, and sessions with or without a connection.
//!
//! Everything that one connection does to others goes through the [`Broker`]. Bytes on a socket are `connection`'s; how
//! a session queues and sends is `session`'s.

mod accounts;
mod host_state;
pub(super) mod ignored;
pub(super) mod meters;
mod missed;
mod restrict;
pub(super) mod retained;
mod retained_delivery;
mod retained_room;
mod retained_store;
mod room;
pub(super) mod session_store;
mod sessions;
mod store_health;
mod storing;
mod subscribe;
mod subscriptions;
pub(super) mod system;
pub(super) mod traffic;
mod trie;
pub(super) mod unmatched;
mod usage;
mod wills;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::session::SessionTotals;
use super::session::account::Account;
use super::session::delivery::{DeliveryGrant, OfferOutcome, QueueLimits, ReturnedMessage};
use super::session::message::Message;
use super::session::timeline::Timeline;
use crate::config::{MqttConfig, Tenants};
use crate::sync::{self, lock};
use accounts::UserAccounts;
use host_state::HostState;
use meters::MqttMeters;
pub(crate) use missed::DeliveryReport;
use missed::MissedMessages;
use retained::RetainedMessages;
pub use retained_store::RetainedStore;
pub use session_store::SessionStore;
use sessions::Sessions;
pub(crate) use sessions::{AttachError, AttachRequest, AttachedSession};
pub use store_health::StoreHealth;
use storing::StoreRounds;
use subscriptions::Subscriptions;
pub use unmatched::{UnmatchedTopicList, UnmatchedTopicUsage};
pub use usage::{UsageOf, UserUsage};
use wills::Wills;

/// Numbers for metrics and status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Connections whose CONNECT was accepted.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Memberships in shared subscriptions.
    pub shared_subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Bytes of the retained messages.
    pub retained_bytes: usize,
    /// Largest number of connections since the start.
    pub most_connections: usize,
    /// Sessions that expired since the start.
    pub sessions_expired: usize,
    /// Messages waiting for subscribers.
    pub queued_messages: usize,
    /// Bytes of the messages that wait for subscribers.
    pub queued_bytes: usize,
    /// Memory of all queued and unacknowledged messages, in bytes.
    pub held_bytes: usize,
    /// Wills that a restart would find: of connected clients, waiting for their delay, or just published.
    pub wills: usize,
    /// Sessions and wills that changed and are not on disk yet.
    pub unstored_sessions: usize,
}

/// State that all connections share. Locks are taken in this order: sessions, one session, subscriptions, retained
/// messages, wills, accounts. None is held across I/O.
#[derive(Debug)]
pub struct Broker {
    sessions: Mutex<Sessions>,
    subscriptions: RwLock<Subscriptions>,
    /// Version of `subscriptions`: grows with each change.
    version: AtomicU64,
    retained: Mutex<RetainedMessages>,
    /// Newest `$SYS` messages. A new subscription gets them like retained messages.
    system: Mutex<RetainedMessages>,
    wills: Mutex<Wills>,
    accounts: UserAccounts,
    /// Account of weir's own messages.
    weir: Arc<Account>,
    missed: MissedMessages,
    host: HostState,
    /// Store of sessions and wills; unset until [`Broker::keep_sessions`].
    session_store: OnceLock<SessionStore>,
    /// Progress of the rounds that store sessions and wills.
    rounds: Mutex<StoreRounds>,
    /// Whether sessions, wills and retained messages were read from disk.
    restored: AtomicBool,
    totals: Arc<SessionTotals>,
    queue_limits: QueueLimits,
    max_connections: usize,
    max_inflight: u16,
    max_session_subscriptions: usize,
    max_topic_levels: usize,
    max_session_expiry: Option<Duration>,
    meters: Arc<MqttMeters>,
    timeline: Timeline,
    /// Notified when a timer is set that may be the earliest, and when a will is due.
    timers_changed: Notify,
}

impl Broker {
    pub(crate) fn new(config: &MqttConfig, meters: Arc<MqttMeters>, timeline: Timeline) -> Self {
        let queue_limits = QueueLimits {
            messages: config.max_queued_messages,
            bytes: config.max_queued_bytes,
            total_bytes: config.max_queued_bytes_total,
        };
        Self {
            sessions: Mutex::default(),
            subscriptions: RwLock::default(),
            version: AtomicU64::new(1),
            retained: Mutex::new(RetainedMessages::new(config.max_retained_messages, config.max_retained_bytes)),
            system: Mutex::new(RetainedMessages::new(usize::MAX, usize::MAX)),
            wills: Mutex::default(),
            accounts: UserAccounts::new(Tenants::default()),
            weir: Account::of_weir(),
            missed: MissedMessages::default(),
            host: HostState::default(),
            session_store: OnceLock::new(),
            rounds: Mutex::default(),
            restored: AtomicBool::new(false),
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

    /// Users of `tenants` count for their tenant. To be called before there are sessions.
    pub(crate) fn with_tenants(mut self, tenants: Tenants) -> Self {
        self.accounts = UserAccounts::new(tenants);
        self
    }

    /// Whether a message on any topic that begins with `prefix` (ending in `/`) could have a subscriber.
    pub fn may_have_subscribers(&self, prefix: &str) -> bool {
        self.read_subscriptions().any_below(prefix)
    }

    /// Delivers a message of weir to all matching subscribers. Never waits for a subscriber.
    pub fn publish(&self, topic: &str, payload: Bytes, qos: u8, retain: bool) {
        self.deliver(&Arc::new(Message::new(topic, payload, qos, retain)), &self.weir);
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
        // Read before the unstored ones: a reader that sees a will and then nothing unstored knows that the will is stored.
        let wills = lock(&self.wills).len();
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
            held_bytes: self.totals.held_bytes(),
            wills,
            unstored_sessions: self.unstored_sessions(),
        }
    }

    /// Version of the subscriptions. An answer of [`Broker::has_subscribers`] holds until the version changes.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether a message on `topic` has a subscriber.
    pub(crate) fn has_subscribers(&self, topic: &str) -> bool {
        self.read_subscriptions().any(topic)
    }

    /// Sets the retained message if RETAIN is set, which then belongs to `publisher`, and queues the message once for each
    /// matching subscriber and once for each matching shared subscription. Never waits: a full queue misses the message, which is
    /// counted.
    pub(crate) fn deliver(&self, message: &Arc<Message>, publisher: &Arc<Account>) -> DeliveryReport {
        let retained = !message.retain || self.retain(message, publisher);
        let report = self.pass_on(message);
        DeliveryReport { over_quota: report.over_quota || !retained, ..report }
    }

    /// Publishes the will of a client of this user, see [`Broker::deliver`].
    pub(crate) fn deliver_will(&self, message: &Arc<Message>, user: Option<&Arc<str>>) {
        self.deliver(message, &self.accounts.of(user));
    }

    /// Removes expired retained messages.
    pub(crate) fn expire_retained(&self) {
        let now = self.timeline.now();
        lock(&self.retained).expire(now);
    }

    /// Whether a message with this payload is retained on `topic`.
    pub(crate) fn is_retained(&self, topic: &str, payload: &[u8]) -> bool {
        let now = self.timeline.now();
        lock(&self.retained).has(topic, payload, now)
    }

    /// Keeps a `$SYS` message for later subscribers and delivers it to the present ones.
    pub(crate) fn publish_system(&self, topic: &str, value: String) {
        let message = Arc::new(Message::new(topic, value.into(), 0, true));
        // These messages have no bounds, so none is refused.
        let _ = lock(&self.system).set(&message, &self.weir);
        self.pass_on(&message);
    }

    fn pass_on(&self, message: &Arc<Message>) -> DeliveryReport {
        let mut report = DeliveryReport::default();
        let (found, shares) = {
            let subscriptions = self.read_subscriptions();
            let Message { topic, qos, retain, publisher, .. } = &**message;
            let found = subscriptions.matching(topic, *qos, *retain, *publisher, &mut report.touched);
            (found, subscriptions.shares(topic, &mut report.touched))
        };
        if found.is_empty() && shares.is_empty() {
            return report;
        }
        message.count_in(&self.totals.held_bytes);
        let now = self.timeline.now();
        for (session, grant) in found {
            let qos = grant.qos;
            match session.offer(message, grant, now) {
                None | Some(OfferOutcome::Queued) => {}
                Some(missed) => report.over_quota |= self.miss(message, &session, qos, missed),
            }
        }
        for share in shares {
            let passed = self.pass_to_share(&share, message, now);
            report.touched += passed.touched;
            report.over_quota |= passed.over_quota;
        }
        report
    }

    /// Delivers a message to one member of a shared subscription: the first in turn with room in its queue.
    fn pass_to_share(&self, share: &Arc<str>, message: &Arc<Message>, now: Instant) -> DeliveryReport {
        let members = self.read_subscriptions().turn(share);
        let mut report = DeliveryReport { touched: members.len(), over_quota: false };
        let mut last = None;
        for member in members {
            let grant = DeliveryGrant { share: Some(Arc::clone(share)), ..member.grant(message.qos, message.retain) };
            let qos = grant.qos;
            match member.session.offer(message, grant, now) {
                Some(OfferOutcome::Queued) => return report,
                Some(missed) => last = Some((member, qos, missed)),
                None => {}
            }
        }
        match last {
            Some((member, qos, missed)) => report.over_quota = self.miss(message, &member.session, qos, missed),
            None => self.meters.dropped_queue_full.increment(1),
        }
        report
    }

    /// Delivers the messages that an ended session returns to other members of its shared subscriptions.
    fn return_shared(&self, returned: Vec<ReturnedMessage>) {
        let now = self.timeline.now();
        for ReturnedMessage { share, message } in returned {
            if !message.is_expired(now) {
                self.pass_to_share(&share, &message, now);
            }
        }
    }

    fn read_subscriptions(&self) -> RwLockReadGuard<'_, Subscriptions> {
        sync::read(&self.subscriptions)
    }

    fn write_subscriptions(&self) -> RwLockWriteGuard<'_, Subscriptions> {
        sync::write(&self.subscriptions)
    }
}

#[cfg(test)]
mod tests;
