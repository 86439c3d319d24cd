//! Delivery of retained messages to new subscriptions: some at a time, as fast as the client takes them.
//!
//! A wildcard filter has to be compared with every retained topic, and one SUBSCRIBE may hold thousands of filters. Done at
//! once, this would hold up other clients, and a subscriber that does not read would fill its queue with every retained
//! message.

use std::sync::Arc;

use super::Broker;
use crate::mqtt::session::delivery::DeliveryGrant;
use crate::mqtt::session::message::Message;
use crate::mqtt::session::{ConnectionId, Session, SessionState};
use crate::sync::lock;

/// Retained topics that are compared with filters in one turn: tens of microseconds.
pub(super) const TOPICS_PER_TURN: usize = 256;
/// Queued messages of a client from which on no further retained messages are queued.
pub(super) const MAX_WAITING: usize = 256;

impl Broker {
    /// Queues some of the retained messages for new subscriptions of a session. Returns whether there is more to do at once: to
    /// send, or to search.
    pub(crate) fn queue_retained(&self, session: &Session, connection: ConnectionId) -> bool {
        let Some(mut state) = session.own(connection) else { return false };
        let (now, mut left) = (self.timeline.now(), TOPICS_PER_TURN);
        let mut queued = false;
        while left > 0
            && state.queued() < MAX_WAITING
            && let Some((filter, due)) = state.retained_due.pop_first()
        {
            let subscriber = self.read_subscriptions().find(&filter, session.id).cloned();
            let Some(subscriber) = subscriber else { continue };
            let part = lock(&self.retained).matching(&filter, &due, left, now);
            left = left.saturating_sub(part.looked_at.max(1));
            let mut messages = part.messages;
            match part.rest {
                Some(rest) => drop(state.retained_due.insert(filter, rest)),
                // `$SYS` has a few dozen messages, so they are not counted.
                None if filter.starts_with("$SYS") => messages.extend(self.system_messages(&filter)),
                None => {}
            }
            queued |= !messages.is_empty();
            let grant = |message: &Message| DeliveryGrant { retain: true, ..subscriber.grant(message.qos, true) };
            session.offer_retained(&mut state, &messages, grant);
        }
        session.note_retained_due(&state);
        queued || (state.queued() < MAX_WAITING && !state.retained_due.is_empty())
    }

    fn system_messages(&self, filter: &str) -> Vec<Arc<Message>> {
        let system = lock(&self.system);
        system.matching(filter, &system.due(), usize::MAX, self.timeline.now()).messages
    }

    /// Remembers that all present retained messages are to be queued for a new subscription.
    pub(super) fn await_retained(&self, session: &Session, state: &mut SessionState, filter: &str) {
        session.await_retained(state, filter, lock(&self.retained).due());
    }

    /// Extends the pending deliveries of a session whose client connects again: messages that were retained in its absence, and
    /// that were not queued because they are QoS 0, are to be queued too.
    pub(super) fn await_retained_anew(&self, state: &mut SessionState) {
        if !state.retained_due.is_empty() {
            let due = lock(&self.retained).due();
            state.retained_due.values_mut().for_each(|rest| rest.extend_to(&due));
        }
    }
}
