//! Sessions under other access rules than those they began with.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Broker;
use crate::access::{Login, Permissions, Policy};
use crate::mqtt::session::delivery::Returned;
use crate::mqtt::session::{DISCARDED, Handle, Kept};
use crate::mqtt::wire::topic;
use crate::sync::lock;
use crate::telemetry::audit::{self, AuditActor, AuditEvent};

/// What a session lost, to be told of once it is no longer locked.
#[derive(Debug, Default)]
pub(super) struct Withdrawal {
    filters: Vec<Box<str>>,
    returned: Vec<Returned>,
}

impl Broker {
    /// Judges all sessions by `policy`, with or without a connection. Who may not be here any longer is disconnected,
    /// and its session ends if its user is gone. The others lose the subscriptions that they may no longer have, with the
    /// messages waiting for them. When this returns, every further publish is judged by `policy` too.
    pub(crate) fn restrict(&self, policy: &Policy) {
        let handles: Vec<_> = lock(&self.sessions).by_client.values().map(Arc::clone).collect();
        for handle in &handles {
            self.judge(handle, policy);
        }
        // What connections know of their topics is old, whether or not a subscription went.
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Judges one session, see [`Broker::restrict`].
    pub(crate) fn judge(&self, handle: &Arc<Handle>, policy: &Policy) {
        let mut sessions = lock(&self.sessions);
        let mut kept = handle.any();
        if handle.owner() == DISCARDED {
            return;
        }
        let renewed = policy.renew(&kept.login.identity, &kept.login.proof);
        let identity = match renewed {
            Some(identity) => identity,
            None => {
                handle.revoke(&mut kept);
                // With another password or certificate it is the same user: what waits for it is still its own.
                let Login { identity, proof, .. } = &kept.login;
                match identity.user.as_ref().and_then(|user| policy.identity_of(user, proof)) {
                    Some(identity) => identity,
                    None if kept.offline.is_some() => {
                        drop(kept);
                        return self.discard(&mut sessions, handle);
                    }
                    None => {
                        handle.set_expiry(&mut kept, 0);
                        self.forget_stored(handle);
                        return;
                    }
                }
            }
        };
        drop(sessions);
        let permissions = policy.permissions(&identity, Arc::clone(&handle.client_id));
        kept.login.identity = identity;
        let withdrawal = self.permit(handle, &mut kept, permissions);
        drop(kept);
        self.tell_of(handle, withdrawal);
    }

    /// From now on the session's client may do this; the session loses what it may no longer have.
    pub(super) fn permit(&self, handle: &Handle, kept: &mut Kept, permissions: Permissions) -> Withdrawal {
        let are_same = kept.permissions == permissions;
        // Also where they are the same: the roles of the policy before need not be kept.
        kept.permissions = permissions;
        if are_same && !kept.holds_denied {
            return Withdrawal::default();
        }
        let denied = |filter: &str| !kept.permissions.may_subscribe(topic::delivered_by(filter));
        let filters: Vec<Box<str>> = kept.filters.iter().filter(|filter| denied(filter)).cloned().collect();
        if !filters.is_empty() {
            let mut subscriptions = self.write_subscriptions();
            for filter in &filters {
                kept.filters.remove(filter);
                kept.retained_due.remove(filter);
                kept.levels -= topic::levels(filter);
                subscriptions.remove(filter, handle.id);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        let withdrawn = handle.withdraw(kept);
        kept.holds_denied = withdrawn.left;
        self.meters.dropped_withdrawn.increment(withdrawn.messages - withdrawn.returned.len() as u64);
        Withdrawal { filters, returned: withdrawn.returned }
    }

    /// Passes on what others can have, and says what the session lost.
    pub(super) fn tell_of(&self, handle: &Handle, withdrawal: Withdrawal) {
        self.return_shared(withdrawal.returned);
        if withdrawal.filters.is_empty() {
            return;
        }
        self.meters.subscriptions_withdrawn.increment(withdrawal.filters.len() as u64);
        let who = AuditActor { client_id: Some(&handle.client_id), user: handle.user.as_deref(), address: None };
        for filter in &withdrawal.filters {
            audit::record(AuditEvent::SubscribeDenied, &who, filter, "the rules changed: the subscription has ended");
        }
    }
}

#[cfg(test)]
mod tests;
