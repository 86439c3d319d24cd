//! Sessions and their connections: attach, take-over, detach, expiry.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::Broker;
use crate::access::{Login, Permissions, Policy};
use crate::log::Lsn;
use crate::mqtt::session::account::{Account, Holding};
use crate::mqtt::session::delivery::Delivery;
use crate::mqtt::session::will::Will;
use crate::mqtt::session::{ConnectionId, DISCARDED, Session, SessionState};
use crate::sync::lock;

/// User and client identifier. Each user has sessions of its own: a client that uses the client identifier of another user
/// neither disturbs nor resumes that user's session. All clients without a user name count as one user.
type SessionKey = (Option<Arc<str>>, Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) by_client: HashMap<SessionKey, Arc<Session>>,
    /// Sessions without a connection in the order in which they lost it.
    pub(super) offline: BTreeMap<u64, Arc<Session>>,
    /// Timers by time: at most two per session without a connection.
    pub(super) timers: BTreeMap<(Instant, u64), SessionTimer>,
    /// Wills that are due.
    pub(super) wills: Vec<Arc<Will>>,
    pub(super) online: usize,
    /// Sessions whose connections were pushed out and have not ended yet, by number. The value says whether the session ends
    /// with its connection.
    leaving: HashMap<u64, bool>,
    /// Largest number of connected sessions since the start.
    pub(super) most_online: usize,
    /// Number of sessions that expired since the start.
    pub(super) expired: usize,
    last_number: u64,
}

#[derive(Debug)]
pub(super) enum SessionTimer {
    /// The session ends.
    Session(Arc<Session>),
    /// The session's will is published.
    Will(Arc<Session>),
}

impl Sessions {
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Number of connections, without those that were pushed out.
    pub(super) fn staying_connections(&self) -> usize {
        self.online.saturating_sub(self.leaving.len())
    }

    /// Number of sessions, without those that end with a connection that was pushed out.
    pub(super) fn staying_sessions(&self) -> usize {
        self.by_client.len() - self.leaving.values().filter(|ends| **ends).count()
    }

    /// Notes that the connection of a session was pushed out, and whether the session ends with it.
    pub(super) fn note_leaving(&mut self, session: &Session, ends: bool) {
        self.leaving.insert(session.id, ends);
    }

    /// A session of this user that outlives a connection that was pushed out, and is not without a connection yet.
    pub(super) fn leaving_of(&self, account: &Account) -> Option<Arc<Session>> {
        if self.leaving.is_empty() {
            return None;
        }
        let leaves = |session: &&Arc<Session>| self.leaving.get(&session.id) == Some(&false);
        let of_account = self.by_client.values().filter(|session| session.account.number == account.number);
        of_account.filter(leaves).max_by_key(|session| session.id).map(Arc::clone)
    }

    /// Adds a session of a client that has none.
    pub(super) fn insert(&mut self, session: &Arc<Session>) {
        session.account.add(Holding::Sessions, 1);
        self.by_client.insert((session.user.clone(), Arc::clone(&session.client_id)), Arc::clone(session));
    }

    /// Removes a session; does nothing if it was removed before.
    fn remove(&mut self, session: &Session) {
        if self.by_client.remove(&(session.user.clone(), Arc::clone(&session.client_id))).is_some() {
            self.leaving.remove(&session.id);
            session.account.remove(Holding::Sessions, 1);
        }
    }
}

/// Request of a new connection for a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttachRequest<'a> {
    /// Who the client is.
    pub login: &'a Login,
    /// Access policy in force.
    pub policy: &'a Policy,
    pub client_id: &'a str,
    /// Whether an existing session is discarded.
    pub clean: bool,
    /// Receive maximum of the client.
    pub receive_maximum: u16,
    /// Seconds that the session shall outlive this connection.
    pub expiry_s: u32,
}

/// A session given to a connection.
#[derive(Debug)]
pub(crate) struct AttachedSession {
    pub session: Arc<Session>,
    pub connection: ConnectionId,
    pub session_present: bool,
    /// See [`Session::resume`].
    pub received_until: Lsn,
}

/// Why a client gets no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachError {
    /// As many sessions are connected as `mqtt.max_connections` allows.
    TooManyConnections,
    /// The user or its tenant is at a quota.
    Quota,
}

impl Broker {
    /// Lets the existing connection of a client process everything that the client has sent. Called before a new connection of
    /// the client is attached: an unread DISCONNECT would otherwise leave the client with a will and a session that it has ended.
    pub(crate) async fn settle(&self, user: Option<&Arc<str>>, client_id: &str) {
        let key = (user.cloned(), client_id.into());
        let existing = lock(&self.sessions).by_client.get(&key).cloned();
        if let Some(session) = existing {
            session.settle().await;
        }
    }

    /// Gives a session to a new connection: the client's existing session, which is taken from the connection that owns it, or
    /// a new one. At a quota or a bound of sessions, another session without a connection is discarded, see `room`.
    ///
    /// # Errors
    /// The client has no connection yet, and the user, its tenant or all users together have as many connections or sessions as
    /// they may.
    pub(crate) fn attach(&self, attach: &AttachRequest<'_>) -> Result<AttachedSession, AttachError> {
        let now = self.timeline.now();
        let identity = &attach.login.identity;
        let client_id: Arc<str> = attach.client_id.into();
        let account = self.accounts.of(identity.user.as_ref());
        account.set_quotas(&attach.policy.quotas(identity));
        let mut sessions = lock(&self.sessions);
        let key = (identity.user.clone(), Arc::clone(&client_id));
        let existing = sessions.by_client.get(&key).cloned();
        let taken_over = existing.as_ref().is_some_and(|session| session.any().offline.is_none());
        if !taken_over {
            self.admit_connection(&mut sessions, &account)?;
        }
        let over = |session: &Session| session.any().is_over(now);
        let existing = match existing {
            None => {
                self.admit_session(&mut sessions, &account)?;
                None
            }
            Some(session) if attach.clean || over(&session) => {
                self.discard(&mut sessions, &session);
                None
            }
            continued => continued,
        };
        if !taken_over {
            sessions.online += 1;
            sessions.most_online = sessions.most_online.max(sessions.online);
            account.add(Holding::Connections, 1);
        }
        let permissions = attach.policy.permissions(identity, Arc::clone(&client_id));
        match existing {
            Some(session) => Ok(self.resume(sessions, session, attach, permissions)),
            None => Ok(self.begin(&mut sessions, account, client_id, attach, permissions)),
        }
    }

    /// Gives an existing session to a new connection.
    fn resume(
        &self,
        mut sessions: MutexGuard<'_, Sessions>,
        session: Arc<Session>,
        attach: &AttachRequest<'_>,
        permissions: Permissions,
    ) -> AttachedSession {
        let connection = sessions.number();
        sessions.leaving.remove(&session.id);
        let (received_until, withdrawal) = {
            let mut state = session.any();
            // The client is back before its will was due [MQTT-3.1.3-9].
            if let Some(will) = Self::stop_timers(&mut sessions, &mut state) {
                self.discard_will(&will);
            }
            if let Some(place) = state.offline.take() {
                sessions.offline.remove(&place);
                self.await_retained_anew(&mut state);
            }
            state.disconnected_ms = None;
            session.set_expiry(&mut state, attach.expiry_s);
            session.hand_over(&mut state, connection);
            let received_until = session.resume(&mut state, attach.receive_maximum.min(self.max_inflight));
            state.login = attach.login.clone();
            (received_until, self.permit(&session, &mut state, permissions))
        };
        if attach.expiry_s == 0 {
            self.forget_stored(&session);
        }
        self.tell_of(&session, withdrawal);
        AttachedSession { session, connection, session_present: true, received_until }
    }

    /// Makes a new session for a new connection.
    fn begin(
        &self,
        sessions: &mut Sessions,
        account: Arc<Account>,
        client_id: Arc<str>,
        attach: &AttachRequest<'_>,
        permissions: Permissions,
    ) -> AttachedSession {
        let connection = sessions.number();
        let delivery = Delivery::new(self.queue_limits, attach.receive_maximum.min(self.max_inflight));
        let (login, totals) = (attach.login.clone(), Arc::clone(&self.totals));
        let session = Arc::new(Session::new(connection, login, permissions, client_id, delivery, totals, account));
        session.set_expiry(&mut session.any(), attach.expiry_s);
        sessions.insert(&session);
        AttachedSession { session, connection, session_present: false, received_until: Lsn(0) }
    }

    /// Session expiry for a client that asks for `wanted_s` seconds (`u32::MAX`: no expiry), within
    /// `mqtt.max_session_expiry`; `None`: no expiry.
    pub(crate) fn session_expiry(&self, wanted_s: u32) -> Option<Duration> {
        let wanted = (wanted_s < u32::MAX).then(|| Duration::from_secs(u64::from(wanted_s)));
        match (wanted, self.max_session_expiry) {
            (Some(wanted), Some(max)) => Some(wanted.min(max)),
            (wanted, max) => wanted.or(max),
        }
    }

    /// Ends the connection of a session, which outlives it by `expiry_s`. Returns the will if it is to be published now. A will
    /// with a delay comes from [`Broker::due`] later, unless the client connects again before.
    pub(crate) fn detach(
        &self,
        session: &Arc<Session>,
        connection: ConnectionId,
        expiry_s: u32,
        will: Option<Arc<Will>>,
    ) -> Option<Arc<Will>> {
        let mut sessions = lock(&self.sessions);
        match session.owner() {
            owner if owner == connection || session.is_revoked(connection) => {}
            // A newer connection took the session over and is counted in place of this one. A will with a delay is discarded,
            // since the client is back [MQTT-3.1.4-3], unless a clean start ended the session.
            DISCARDED => return will.map(|will| self.due_now(will)),
            _ => match will {
                Some(will) if will.delay_s > 0 => {
                    self.discard_will(&will);
                    return None;
                }
                will => return will,
            },
        }
        sessions.online -= 1;
        sessions.leaving.remove(&session.id);
        session.account.remove(Holding::Connections, 1);
        let is_gone = session.is_revoked(connection) && session.any().expiry_s == 0;
        if expiry_s == 0 || is_gone {
            self.discard(&mut sessions, session);
            return will.map(|will| self.due_now(will));
        }
        let now = self.timeline.now();
        let expiry = self.session_expiry(expiry_s);
        let place = sessions.number();
        let mut state = session.any();
        state.offline = Some(place);
        state.disconnected_ms = Some(self.timeline.wall_ms(now));
        session.set_expiry(&mut state, expiry_s);
        session.hand_over(&mut state, 0);
        let mut due_now = None;
        if let Some(will) = will {
            let delay = Duration::from_secs(u64::from(will.delay_s));
            let at = now + expiry.map_or(delay, |expiry| delay.min(expiry));
            if at == now {
                due_now = Some(self.due_now(will));
            } else {
                let key = (at, sessions.number());
                state.will = Some((will, key));
                sessions.timers.insert(key, SessionTimer::Will(Arc::clone(session)));
            }
        }
        if let Some(expiry) = expiry {
            let key = (now + expiry, sessions.number());
            state.expires = Some(key);
            sessions.timers.insert(key, SessionTimer::Session(Arc::clone(session)));
        }
        drop(state);
        sessions.offline.insert(place, Arc::clone(session));
        self.timers_changed.notify_one();
        due_now
    }

    /// Removes the timers of a session; returns the will that waited for its delay.
    fn stop_timers(sessions: &mut Sessions, state: &mut SessionState) -> Option<Arc<Will>> {
        if let Some(key) = state.expires.take() {
            sessions.timers.remove(&key);
        }
        let (will, key) = state.will.take()?;
        sessions.timers.remove(&key);
        Some(will)
    }

    pub(super) fn discard(&self, sessions: &mut Sessions, session: &Arc<Session>) {
        sessions.remove(session);
        let mut state = session.any();
        if let Some(place) = state.offline.take() {
            sessions.offline.remove(&place);
        }
        // With the session the delay of its will ends [MQTT-3.1.2-8].
        if let Some(will) = Self::stop_timers(sessions, &mut state) {
            sessions.wills.push(self.due_now(will));
            self.timers_changed.notify_one();
        }
        let returned = session.hand_over(&mut state, DISCARDED);
        if session.is_lasting() {
            self.forget_stored(session);
        }
        self.end_subscriptions(session, &mut state);
        drop(state);
        self.return_shared(returned);
    }

    /// Ends all subscriptions of a session.
    pub(super) fn end_subscriptions(&self, session: &Session, state: &mut SessionState) {
        let filters = std::mem::take(&mut state.filters);
        state.levels = 0;
        state.retained_due.clear();
        if !filters.is_empty() {
            let mut subscriptions = self.write_subscriptions();
            for filter in filters {
                subscriptions.remove(&filter, session.id);
            }
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Ends expired sessions. Returns the wills that are due, and the time of the next timer.
    pub(crate) fn due(&self) -> (Vec<Arc<Will>>, Option<Instant>) {
        let now = self.timeline.now();
        let mut sessions = lock(&self.sessions);
        while let Some(entry) = sessions.timers.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                SessionTimer::Session(session) => {
                    sessions.expired += 1;
                    self.discard(&mut sessions, &session);
                }
                SessionTimer::Will(session) => {
                    let will = session.any().will.take();
                    sessions.wills.extend(will.map(|(will, _)| self.due_now(will)));
                }
            }
        }
        let next = sessions.timers.first_key_value().map(|((at, _), _)| *at);
        (std::mem::take(&mut sessions.wills), next)
    }

    /// Completes when [`Broker::due`] must be called earlier than it said.
    pub(crate) async fn timers_changed(&self) {
        self.timers_changed.notified().await;
    }
}
