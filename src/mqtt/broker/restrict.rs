//! Changed access rules, applied to existing sessions.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Broker;
use crate::access::{Login, Permissions, Policy};
use crate::mqtt::session::delivery::ReturnedMessage;
use crate::mqtt::session::{DISCARDED, Session, SessionState};
use crate::mqtt::wire::topic;
use crate::sync::lock;
use crate::telemetry::audit::{self, AuditActor, AuditEvent};

/// Subscriptions and messages that a session lost, for the audit log once the session is unlocked.
#[derive(Debug, Default)]
pub(super) struct Withdrawal {
    filters: Vec<Box<str>>,
    returned: Vec<ReturnedMessage>,
}

impl Broker {
    /// Applies `policy` to all sessions, with or without a connection. A client that may no longer log in is disconnected, and its
    /// session ends if its user is gone. Other sessions lose forbidden subscriptions and the messages queued for them. When this
    /// returns, every further publish is judged by `policy` too.
    pub(crate) fn restrict(&self, policy: &Policy) {
        let sessions: Vec<_> = lock(&self.sessions).by_client.values().map(Arc::clone).collect();
        for session in &sessions {
            self.judge(session, policy);
        }
        // The new version makes connections ask again about the topics that they cached.
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Applies `policy` to one session, see [`Broker::restrict`].
    pub(crate) fn judge(&self, session: &Arc<Session>, policy: &Policy) {
        let mut sessions = lock(&self.sessions);
        let mut state = session.any();
        if session.owner() == DISCARDED {
            return;
        }
        let renewed = policy.renew(&state.login.identity, &state.login.proof);
        let identity = match renewed {
            Some(identity) => identity,
            None => {
                session.revoke(&mut state);
                // With another password or certificate the user is the same, so its queued messages stay.
                let Login { identity, proof, .. } = &state.login;
                match identity.user.as_ref().and_then(|user| policy.identity_of(user, proof)) {
                    Some(identity) => identity,
                    None if state.offline.is_some() => {
                        drop(state);
                        return self.discard(&mut sessions, session);
                    }
                    None => {
                        session.set_expiry(&mut state, 0);
                        self.forget_stored(session);
                        return;
                    }
                }
            }
        };
        drop(sessions);
        session.account.set_quotas(&policy.quotas(&identity));
        let permissions = policy.permissions(&identity, Arc::clone(&session.client_id));
        state.login.identity = identity;
        let withdrawal = self.permit(session, &mut state, permissions);
        drop(state);
        self.tell_of(session, withdrawal);
    }

    /// Sets the permissions of a session's client and removes forbidden subscriptions and messages.
    pub(super) fn permit(&self, session: &Session, state: &mut SessionState, permissions: Permissions) -> Withdrawal {
        let are_same = state.permissions == permissions;
        // Set also where nothing differs, so that the previous policy's roles can be freed.
        state.permissions = permissions;
        if are_same && !state.holds_denied {
            return Withdrawal::default();
        }
        let denied = |filter: &str| !state.permissions.may_subscribe(topic::delivered_by(filter));
        let filters: Vec<Box<str>> = state.filters.iter().filter(|filter| denied(filter)).cloned().collect();
        if !filters.is_empty() {
            let mut subscriptions = self.write_subscriptions();
            for filter in &filters {
                state.filters.remove(filter);
                state.retained_due.remove(filter);
                state.levels -= topic::levels(filter);
                subscriptions.remove(filter, session.id);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        let withdrawn = session.withdraw(state);
        state.holds_denied = withdrawn.left;
        self.meters.dropped_withdrawn.increment(withdrawn.messages - withdrawn.returned.len() as u64);
        Withdrawal { filters, returned: withdrawn.returned }
    }

    /// Delivers returned messages to other members of shared subscriptions, and reports the losses in the audit log.
    pub(super) fn tell_of(&self, session: &Session, withdrawal: Withdrawal) {
        self.return_shared(withdrawal.returned);
        if withdrawal.filters.is_empty() {
            return;
        }
        self.meters.subscriptions_withdrawn.increment(withdrawal.filters.len() as u64);
        let who = AuditActor { client_id: Some(&session.client_id), user: session.user.as_deref(), address: None };
        for filter in &withdrawal.filters {
            audit::record(AuditEvent::SubscribeDenied, &who, filter, "the rules changed: the subscription has ended");
        }
    }
}

#[cfg(test)]
mod tests;
