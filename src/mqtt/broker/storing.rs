//! Sessions across a restart: changed sessions and wills are stored in rounds, about once a second.
//!
//! A crash forgets the changes since the last round: a message that was queued in that second is missing, one that was
//! acknowledged comes again. An orderly stop stores everything, packet identifiers included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Broker;
use super::meters::MqttLimit;
use super::session_store::SessionStore;
use super::sessions::{SessionTimer, Sessions};
use crate::access::{Permissions, Policy};
use crate::log::Lsn;
use crate::mqtt::session::stored::StoredSession;
use crate::mqtt::session::{Session, SessionState};
use crate::mqtt::wire::codec::{RetainHandling, TopicSubscription};
use crate::sync::lock;

/// Largest average rate at which one session is stored, in bytes per second: a long queue that always changes is stored less
/// often.
const SESSION_BYTES_PER_SECOND: usize = 64 * 1024;
/// Bound of one round: bytes of wills, and again of sessions. The rest follows in the next round.
const ROUND_BYTES: usize = 4 * 1024 * 1024;

impl Broker {
    /// Restores the sessions and wills of `store` that `policy` allows, and stores changes there from now on. `journal_end` is
    /// the end of the journal before this start.
    pub(crate) fn keep_sessions(&self, store: SessionStore, journal_end: Lsn, policy: &Policy) {
        let loaded = store.load(&self.timeline);
        // Set first: `discard` removes sessions from the store.
        let store = self.session_store.get_or_init(|| store);
        let (now, mut restored) = (self.timeline.now(), 0);
        let judges_age = self.timeline.judges_age();
        let mut sessions = lock(&self.sessions);
        for mut stored in loaded.sessions {
            // Each start appends to the journal. So a position that equals its end proves that no run came in between.
            let exactly = stored.stopped_at == Some(journal_end);
            let disconnected_ms = stored.disconnected_ms.unwrap_or(i64::MAX).min(self.timeline.wall_ms(now));
            // While the clock may be wrong, no session ends by its age: its time begins anew.
            let disconnected_ms = if judges_age { disconnected_ms } else { self.timeline.wall_ms(now) };
            let expires = self.session_expiry(stored.expiry_s).map(|life| {
                let life_ms = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
                self.timeline.at_wall_ms(disconnected_ms.saturating_add(life_ms))
            });
            let room = sessions.by_client.len() < self.max_connections;
            if !room {
                self.meters.limit(MqttLimit::Sessions);
            }
            let login = stored.owner.to_login();
            let identity = policy.renew(&login.identity, &login.proof);
            let Some(identity) = identity.filter(|_| room && expires.is_none_or(|at| at > now)) else {
                store.remove(stored.owner.user.as_deref(), &stored.owner.client_id);
                continue;
            };
            stored.disconnected_ms = Some(disconnected_ms);
            self.accounts.of(identity.user.as_ref()).set_quotas(&policy.quotas(&identity));
            let permissions = policy.permissions(&identity, Arc::clone(&stored.owner.client_id));
            self.restore(&mut sessions, stored, exactly, expires, permissions);
            restored += 1;
        }
        if restored > 0 {
            tracing::info!(sessions = restored, "MQTT sessions restored");
        }
        self.restore_wills(&mut sessions, loaded.wills);
        self.timers_changed.notify_one();
    }

    fn restore(
        &self,
        sessions: &mut Sessions,
        mut stored: StoredSession,
        exactly: bool,
        expires: Option<Instant>,
        permissions: Permissions,
    ) {
        let number = sessions.number();
        let subscriptions = std::mem::take(&mut stored.subscriptions);
        let (limits, totals) = (self.queue_limits, Arc::clone(&self.totals));
        let account = self.accounts.of(stored.owner.user.as_ref());
        let session = Session::restored(number, stored, exactly, permissions.clone(), limits, totals, account);
        let session = Arc::new(session);
        let mut state = session.any();
        for filter in &subscriptions {
            // Where a bound is lower than before, the remaining subscriptions are dropped and counted.
            if self.insert_into(&session, &mut state, filter).is_ok() && filter.retain == RetainHandling::Always {
                self.await_retained(&session, &mut state, &filter.filter);
            }
        }
        state.offline = Some(number);
        // The access rules may have changed since the session was stored.
        state.holds_denied = true;
        let withdrawal = self.permit(&session, &mut state, permissions);
        if let Some(at) = expires {
            let key = (at, sessions.number());
            state.expires = Some(key);
            sessions.timers.insert(key, SessionTimer::Session(Arc::clone(&session)));
        }
        drop(state);
        self.tell_of(&session, withdrawal);
        sessions.insert(&session);
        sessions.offline.insert(number, session);
    }

    /// Stores changed wills and sessions: one round. The journal is durable up to `durable`.
    pub(crate) fn store_sessions(&self, durable: Lsn) {
        let Some(store) = self.session_store.get() else { return };
        let mut last_round = lock(&self.last_round);
        // A slow disk gets the next round after it has written this one.
        if !store.is_written(*last_round) {
            return;
        }
        self.remove_wills(store, durable);
        self.store_wills(store, ROUND_BYTES);
        self.store_changed(store);
        *last_round = store.mark();
    }

    fn store_changed(&self, store: &SessionStore) {
        let (now, mut bytes) = (self.timeline.now(), 0);
        for session in self.sessions_where(Session::is_to_store) {
            if bytes > ROUND_BYTES {
                return;
            }
            // The session stays locked until the store has it: its end removes it from the store and must come later.
            let mut state = session.any();
            let waits = state.stored.is_some_and(|(at, bytes)| {
                now.saturating_duration_since(at) < Duration::from_secs((bytes / SESSION_BYTES_PER_SECOND) as u64)
            });
            if !waits {
                let stored = self.store_session(store, &session, &state, None);
                state.stored = Some((now, stored));
                bytes += stored;
            }
        }
    }

    /// Stores every session and every unpublished will at an orderly stop, within the time limit of the store. At this point
    /// no client is connected, retained messages are stored, and the journal is durable up to its end, `stopped_at`.
    pub fn sync_sessions(&self, stopped_at: Lsn) {
        let Some(store) = self.session_store.get() else { return };
        // Waits for a round that has begun: it would overwrite the final state with an older one.
        let mut last_round = lock(&self.last_round);
        self.remove_wills(store, stopped_at);
        for session in self.sessions_where(Session::is_lasting) {
            let state = session.any();
            self.store_session(store, &session, &state, Some(stopped_at));
        }
        self.store_wills(store, usize::MAX);
        *last_round = store.mark();
        store.sync();
        if store.is_written(*last_round) {
            self.remove_wills(store, stopped_at);
            store.sync();
        }
    }

    fn sessions_where(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        lock(&self.sessions).by_client.values().filter(|session| wanted(session)).map(Arc::clone).collect()
    }

    /// Stores one session; returns its estimated size in bytes.
    fn store_session(
        &self,
        store: &SessionStore,
        session: &Session,
        state: &SessionState,
        stopped_at: Option<Lsn>,
    ) -> usize {
        const FRAMING: usize = 256;
        let Some(mut stored) = session.to_stored(state, stopped_at) else { return 0 };
        {
            let subscriptions = self.read_subscriptions();
            let find = |filter: &str| {
                let due = state.retained_due.contains_key(filter);
                let retain = if due { RetainHandling::Always } else { RetainHandling::Never };
                Some(TopicSubscription { retain, ..subscriptions.find(filter, session.id)?.to_subscription(filter) })
            };
            stored.subscriptions = state.filters.iter().filter_map(|filter| find(filter)).collect();
        }
        let filters: usize = state.filters.iter().map(|filter| filter.len() + 8).sum();
        let bytes = stored.delivery.bytes() + stored.received.len() * 2 + filters + FRAMING;
        store.put(&stored, &self.timeline);
        bytes
    }

    /// Number of sessions and wills whose changes are not on disk yet; 0 without a store.
    pub(super) fn unstored_sessions(&self) -> usize {
        let Some(store) = self.session_store.get() else { return 0 };
        let sessions = lock(&self.sessions).by_client.values().filter(|session| session.is_to_store()).count();
        sessions + lock(&self.wills).unstored() + store.unwritten()
    }

    /// Removes a session from the store: it has ended, or no longer outlives its connection.
    pub(super) fn forget_stored(&self, session: &Session) {
        if let Some(store) = self.session_store.get() {
            store.remove(session.user.as_deref(), &session.client_id);
        }
    }
}
