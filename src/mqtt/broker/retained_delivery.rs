//! Retained messages on their way to new subscriptions: some at a time, as fast as the client takes them.
//!
//! A wildcard has to be compared with every retained topic, and one packet may hold tens of thousands of them: done at
//! once, other clients would wait for it, and each subscriber that does not read would take a place in a queue for every
//! message there is.

use std::sync::Arc;

use super::Broker;
use crate::mqtt::session::delivery::DeliveryGrant;
use crate::mqtt::session::message::Message;
use crate::mqtt::session::{ConnectionId, Session, SessionState};
use crate::sync::lock;

/// Retained topics that are compared with filters in one turn: some ten microseconds.
pub(super) const TOPICS_PER_TURN: usize = 256;
/// While so many messages wait for the client, no further retained ones are queued.
pub(super) const MAX_WAITING: usize = 256;

impl Broker {
    /// Queues some of the retained messages that subscriptions of this session await. Whether there is more to do at
    /// once: something to send, or to look for.
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
                // The numbers of weir itself are a few dozen.
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

    /// The retained messages of a new subscription are to be queued: those that there are.
    pub(super) fn await_retained(&self, session: &Session, state: &mut SessionState, filter: &str) {
        session.await_retained(state, filter, lock(&self.retained).due());
    }

    /// The client comes back before all that were due were queued: what was retained while it was away, and was not queued
    /// for it at QoS 0, is due too.
    pub(super) fn await_retained_anew(&self, state: &mut SessionState) {
        if !state.retained_due.is_empty() {
            let due = lock(&self.retained).due();
            state.retained_due.values_mut().for_each(|rest| rest.extend_to(&due));
        }
    }
}
