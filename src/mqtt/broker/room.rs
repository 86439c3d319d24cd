//! Room for connections, sessions and subscriptions: quotas of users and tenants, and who gives way at a bound of all users.
//!
//! At a quota its user pays: its own session that has been absent longest goes, or the request is refused. At a bound of all
//! users, the user that holds most pays, if the one that asks holds less; otherwise the one that asks is refused. Tenants
//! are compared first, then users, see [`Account::outweighs`].

use std::sync::Arc;

use super::Broker;
use super::meters::MqttLimit;
use super::sessions::{AttachError, Sessions};
use super::subscribe::{MAX_LEVELS, MAX_SUBSCRIPTIONS};
use crate::mqtt::session::account::{Account, Holding};
use crate::mqtt::session::{DISCARDED, Session};
use crate::sync::lock;

impl Broker {
    /// Makes sure that a user may have one connection more.
    ///
    /// # Errors
    /// The user or its tenant is at a quota, or all connections are taken and no user has clearly more of them.
    pub(super) fn admit_connection(&self, sessions: &mut Sessions, account: &Account) -> Result<(), AttachError> {
        if account.full(Holding::Connections, 1).is_some() {
            self.meters.over_quota("connections");
            return Err(AttachError::Quota);
        }
        if sessions.staying_connections() < self.max_connections {
            return Ok(());
        }
        // With one connection less, the other user must not have fewer than this one: two users would push each other out in
        // turn.
        let heaviest = self.accounts.heaviest(Holding::Connections, None);
        let newest = heaviest.filter(|heaviest| heaviest.outweighs(account, Holding::Connections, 1));
        let newest = newest.and_then(|heaviest| newest_connected(sessions, &heaviest));
        let Some(session) = newest else {
            self.meters.limit(MqttLimit::Connections);
            return Err(AttachError::TooManyConnections);
        };
        session.push_out(&mut session.any());
        let ends = session.any().expiry_s == 0;
        sessions.note_leaving(&session, ends);
        self.meters.pushed_out("connection");
        Ok(())
    }

    /// Makes sure that a user may have one session more. Sessions without a connection are discarded for it, those that have been
    /// absent longest first.
    ///
    /// # Errors
    /// The user or its tenant is at a quota, or all sessions are taken and no other user has more of them; and no session of the
    /// user is without a connection.
    pub(super) fn admit_session(&self, sessions: &mut Sessions, account: &Account) -> Result<(), AttachError> {
        while let Some(full) = account.full(Holding::Sessions, 1) {
            // A tenant's quota is the tenant's affair: its user with most sessions gives way, as at the bound of all users.
            let heaviest = match full.number == account.number {
                true => None,
                false => self.accounts.heaviest(Holding::Sessions, Some(full)),
            };
            let heaviest = heaviest.filter(|heaviest| heaviest.outweighs(account, Holding::Sessions, 0));
            let absent =
                heaviest.and_then(|heaviest| longest_absent(sessions, |other| other.number == heaviest.number));
            let absent = absent.or_else(|| longest_absent(sessions, |other| other.number == account.number));
            self.meters.over_quota("sessions");
            let Some(session) = absent else { return Err(AttachError::Quota) };
            self.discard(sessions, &session);
        }
        if sessions.staying_sessions() < self.max_connections {
            return Ok(());
        }
        self.meters.limit(MqttLimit::Sessions);
        let heaviest = self.accounts.heaviest(Holding::Sessions, None);
        if let Some(session) = heaviest.and_then(|heaviest| session_to_discard(sessions, account, &heaviest)) {
            self.meters.pushed_out("session");
            if session.any().offline.is_some() {
                self.discard(sessions, &session);
            } else {
                self.push_out_session(sessions, &session);
            }
            return Ok(());
        }
        match longest_absent(sessions, |other| other.number == account.number) {
            Some(session) => {
                self.discard(sessions, &session);
                Ok(())
            }
            None => Err(AttachError::TooManyConnections),
        }
    }

    /// Makes room for a subscription of a filter with this number of levels where a bound of all users is reached: ends sessions
    /// of the user that holds most, if it holds more than twice as much as `account`.
    pub(super) fn make_room_for_subscription(&self, account: &Account, levels: usize) {
        /// A session has thousands of subscriptions at most, so few sessions make room for one subscription.
        const MAX_DISCARDED: usize = 64;
        for _ in 0..MAX_DISCARDED {
            let bound = {
                let subscriptions = self.read_subscriptions();
                if subscriptions.len() >= MAX_SUBSCRIPTIONS {
                    Holding::Subscriptions
                } else if subscriptions.levels() + levels > MAX_LEVELS {
                    Holding::Levels
                } else {
                    return;
                }
            };
            let more = if bound == Holding::Subscriptions { 1 } else { levels };
            let heaviest = self.accounts.heaviest(bound, None);
            let heaviest = heaviest.filter(|heaviest| heaviest.outweighs(account, bound, account.used(bound) + more));
            if !heaviest.is_some_and(|heaviest| self.discard_subscriber(&heaviest)) {
                return;
            }
        }
    }

    /// Ends a session of this user that has subscriptions: the one that has been absent longest, or else the connected one with
    /// most subscriptions. Returns whether there was one.
    fn discard_subscriber(&self, of: &Account) -> bool {
        let mut sessions = lock(&self.sessions);
        let filters = |session: &Session| session.any().filters.len();
        let absent =
            longest_absent_where(&sessions, |session| session.account.number == of.number && filters(session) > 0);
        if let Some(session) = absent {
            self.meters.pushed_out("session");
            self.discard(&mut sessions, &session);
            return true;
        }
        let connected = sessions.by_client.values().filter(|session| session.account.number == of.number);
        let Some(session) = connected.filter(|session| session.is_connected()).max_by_key(|session| filters(session))
        else {
            return false;
        };
        let session = Arc::clone(session);
        if filters(&session) == 0 {
            return false;
        }
        self.meters.pushed_out("session");
        self.push_out_session(&mut sessions, &session);
        true
    }

    /// Ends a session that has a connection, with that connection. Until the connection has noticed, the session is still there,
    /// without subscriptions.
    fn push_out_session(&self, sessions: &mut Sessions, session: &Arc<Session>) {
        let mut state = session.any();
        session.push_out(&mut state);
        self.end_subscriptions(session, &mut state);
        session.set_expiry(&mut state, 0);
        self.forget_stored(session);
        sessions.note_leaving(session, true);
    }
}

/// The session that makes room for a session of `account` at the bound of all users: of the user with most sessions, if
/// `account` has fewer. Normally one without a connection; a connected one only where that user has far more.
fn session_to_discard(sessions: &Sessions, account: &Account, heaviest: &Account) -> Option<Arc<Session>> {
    if !heaviest.outweighs(account, Holding::Sessions, 0) {
        return None;
    }
    let of_heaviest = |other: &Account| other.number == heaviest.number;
    if let Some(session) = longest_absent(sessions, of_heaviest) {
        return Some(session);
    }
    if let Some(session) = sessions.leaving_of(heaviest) {
        return Some(session);
    }
    if heaviest.outweighs(account, Holding::Sessions, 1) {
        return newest_connected(sessions, heaviest);
    }
    // Several users have as many sessions as the heaviest.
    let weight = heaviest.weight(Holding::Sessions);
    longest_absent(sessions, |other| other.weight(Holding::Sessions) >= weight)
}

/// The session without a connection that has been absent longest, of those whose account is `wanted`.
fn longest_absent(sessions: &Sessions, wanted: impl Fn(&Account) -> bool) -> Option<Arc<Session>> {
    longest_absent_where(sessions, |session| wanted(&session.account))
}

fn longest_absent_where(sessions: &Sessions, wanted: impl Fn(&Session) -> bool) -> Option<Arc<Session>> {
    sessions.offline.values().find(|session| wanted(session)).map(Arc::clone)
}

/// The newest connection of a user.
fn newest_connected(sessions: &Sessions, of: &Account) -> Option<Arc<Session>> {
    let connected = sessions.by_client.values().filter(|session| session.account.number == of.number);
    let connected = connected.filter(|session| session.owner() != DISCARDED && session.is_connected());
    connected.max_by_key(|session| session.owner()).map(Arc::clone)
}

#[cfg(test)]
mod tests;
