//! What sessions subscribe to, and the retained messages that come with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Broker;
use crate::mqtt::codec::{Filter, RetainHandling, SubscribeOutcome};
use crate::mqtt::delivery::{Grant, Offer};
use crate::mqtt::handle::{ConnectionId, Handle, Kept, lock};
use crate::mqtt::subscriptions::Subscriber;
use crate::mqtt::topic;

/// Levels of all filters of one session at most, so that deep ones do not make it costly: each level takes some 150 bytes.
pub(super) const MAX_SESSION_LEVELS: usize = 100_000;
/// Levels of all filters at most.
const MAX_LEVELS: usize = 1_500_000;
/// Subscriptions of all sessions at most.
const MAX_SUBSCRIPTIONS: usize = 200_000;

impl Broker {
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
        if !kept.permissions.may_subscribe(topic::delivered_by(&filter.filter)) {
            self.meters.subscriptions_denied.increment(1);
            return Err(SubscribeOutcome::NotAuthorized);
        }
        self.insert_into(handle, &mut kept, filter)
    }

    /// Adds a subscription to a locked session; whether it is new.
    pub(super) fn insert_into(
        &self,
        handle: &Arc<Handle>,
        kept: &mut Kept,
        filter: &Filter,
    ) -> Result<bool, SubscribeOutcome> {
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
        handle.touch();
        self.version.fetch_add(1, Ordering::AcqRel);
        Ok(new)
    }

    fn send_retained(&self, handle: &Arc<Handle>, filter: &Filter) {
        let now = self.timeline.now();
        let mut messages = lock(&self.retained).matching(&filter.filter, now);
        if filter.filter.starts_with("$SYS") {
            messages.extend(lock(&self.system).matching(&filter.filter, now));
        }
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
            handle.touch();
            self.write_subscriptions().remove(filter, handle.id);
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        existed
    }
}
