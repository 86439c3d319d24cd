//! SUBSCRIBE and UNSUBSCRIBE of a session: limits, access rules, retained messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Broker;
use super::meters::MqttLimit;
use super::subscriptions::Subscriber;
use crate::mqtt::session::account::Holding;
use crate::mqtt::session::{ConnectionId, Session, SessionState};
use crate::mqtt::wire::codec::{RetainHandling, SubscribeOutcome, TopicSubscription};
use crate::mqtt::wire::topic;

/// Largest sum of the levels of one session's filters. It bounds memory: each level takes about 150 bytes.
pub(super) const MAX_SESSION_LEVELS: usize = 100_000;
/// Largest sum of the levels of all filters.
pub(super) const MAX_LEVELS: usize = 1_500_000;
/// Largest number of subscriptions of all sessions.
pub(super) const MAX_SUBSCRIPTIONS: usize = 200_000;

impl Broker {
    /// Whether a topic or filter is within `mqtt.max_topic_levels`. One that is not is counted.
    pub(crate) fn allows_levels(&self, topic: &str) -> bool {
        let allowed = topic::depth(topic) <= self.max_topic_levels;
        if !allowed {
            self.meters.limit(MqttLimit::TopicLevels);
        }
        allowed
    }

    /// Subscribes the session to one filter. [`Broker::queue_retained`] queues the retained messages later.
    pub(crate) fn subscribe(
        &self,
        session: &Arc<Session>,
        connection: ConnectionId,
        filter: &TopicSubscription,
    ) -> SubscribeOutcome {
        if !self.allows_levels(&filter.filter) {
            return SubscribeOutcome::QuotaExceeded;
        }
        if topic::is_shared(&filter.filter) && topic::split_shared(&filter.filter).is_none() {
            return SubscribeOutcome::InvalidFilter;
        }
        self.make_room_for_subscription(&session.account, topic::levels(&filter.filter));
        match self.insert(session, connection, filter) {
            Ok(()) => SubscribeOutcome::Granted(filter.qos),
            Err(refused) => refused,
        }
    }

    fn insert(
        &self,
        session: &Arc<Session>,
        connection: ConnectionId,
        filter: &TopicSubscription,
    ) -> Result<(), SubscribeOutcome> {
        // The session stays locked: a connection that loses the session meanwhile must not leave a subscription behind.
        let mut state = session.own(connection).ok_or(SubscribeOutcome::QuotaExceeded)?;
        if !state.permissions.may_subscribe(topic::delivered_by(&filter.filter)) {
            self.meters.subscriptions_denied.increment(1);
            return Err(SubscribeOutcome::NotAuthorized);
        }
        if !state.filters.contains(filter.filter.as_str()) && session.account.full(Holding::Subscriptions, 1).is_some()
        {
            self.meters.over_quota("subscriptions");
            return Err(SubscribeOutcome::QuotaExceeded);
        }
        let new = self.insert_into(session, &mut state, filter)?;
        let send = match filter.retain {
            RetainHandling::Always => true,
            RetainHandling::New => new,
            RetainHandling::Never => false,
        };
        // Shared subscriptions get no retained messages [section 3.8.4].
        if send && !topic::is_shared(&filter.filter) {
            self.await_retained(session, &mut state, &filter.filter);
        }
        Ok(())
    }

    /// Adds a subscription to a locked session. Returns whether it is new.
    pub(super) fn insert_into(
        &self,
        session: &Arc<Session>,
        state: &mut SessionState,
        filter: &TopicSubscription,
    ) -> Result<bool, SubscribeOutcome> {
        let new = !state.filters.contains(filter.filter.as_str());
        let mut subscriptions = self.write_subscriptions();
        let levels = topic::levels(&filter.filter);
        let full = state.filters.len() >= self.max_session_subscriptions
            || state.levels + levels > MAX_SESSION_LEVELS
            || subscriptions.len() >= MAX_SUBSCRIPTIONS
            || subscriptions.levels() + levels > MAX_LEVELS;
        if new && full {
            self.meters.limit(MqttLimit::Subscriptions);
            return Err(SubscribeOutcome::QuotaExceeded);
        }
        if new {
            state.levels += levels;
        }
        subscriptions.insert(&filter.filter, Subscriber::new(session, filter));
        state.filters.insert(filter.filter.as_str().into());
        session.touch();
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(new)
    }

    /// Ends a subscription. Returns whether it existed.
    pub(crate) fn unsubscribe(&self, session: &Session, connection: ConnectionId, filter: &str) -> bool {
        let Some(mut state) = session.own(connection) else { return false };
        let existed = state.filters.remove(filter);
        if existed {
            state.levels -= topic::levels(filter);
            state.retained_due.remove(filter);
            session.touch();
            self.write_subscriptions().remove(filter, session.id);
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        existed
    }
}
