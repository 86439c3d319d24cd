//! Sessions across a restart: changed sessions and wills are stored in rounds, about once a second.
//!
//! After a failure of the store everything is written anew, in rounds too (`state::named_values`).
//!
//! A crash forgets the changes since the last round: a message that was queued in that second is missing, one that was
//! acknowledged comes again. An orderly stop stores everything, packet identifiers included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Broker;
use super::meters::MqttLimit;
use super::session_store::SessionStore;
use super::sessions::{SessionTimer, Sessions};
use super::store_health::STOP_ATTEMPTS;
use crate::access::{Permissions, Policy};
use crate::log::Lsn;
use crate::mqtt::session::stored::StoredSession;
use crate::mqtt::session::{Session, SessionState};
use crate::mqtt::wire::codec::{RetainHandling, TopicSubscription};
use crate::state::named_values::{Mark, RewriteId};
use crate::sync::lock;

/// Largest average rate at which one session is stored, in bytes per second: a long queue that always changes is stored less
/// often.
const SESSION_BYTES_PER_SECOND: usize = 64 * 1024;
/// Longest time between two stores of a session that always changes.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Bound of one round: bytes of wills, and again of sessions. The rest follows in the next round.
const ROUND_BYTES: usize = 4 * 1024 * 1024;

/// Progress of the rounds.
#[derive(Debug, Default)]
pub(super) struct StoreRounds {
    /// Position in the store after the last round.
    last: Mark,
    /// The rewrite that the store asked for after a failure, and the sessions that it has yet to put.
    rewrite: Option<(RewriteId, Vec<Arc<Session>>)>,
    /// Whether the final state is stored: an orderly stop.
    are_over: bool,
}

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

    /// Stores changed wills and sessions: one round. The journal is durable up to `durable`. Returns whether more is to be
    /// stored at once.
    pub(crate) fn store_sessions(&self, durable: Lsn) -> bool {
        let Some(store) = self.session_store.get() else { return false };
        let changed = self.changed_sessions(store);
        let mut rounds = lock(&self.rounds);
        // A slow disk gets the next round after it has written this one, a closed store after it was opened again.
        if rounds.are_over || !store.values().has_taken(rounds.last) {
            return false;
        }
        if store.values().is_written(rounds.last) {
            self.remove_wills(store, durable);
        }
        let rewrite = self.begin_rewrite(store, &mut rounds);
        self.store_wills(store, ROUND_BYTES);
        let is_full = if rewrite.is_some() {
            self.rewrite_sessions(store, &mut rounds)
        } else {
            self.store_changed(store, changed)
        };
        if let Some(rewrite) = rewrite.filter(|_| !is_full && lock(&self.wills).are_put()) {
            store.values().end_rewrite(rewrite);
        }
        rounds.last = store.values().mark();
        is_full
    }

    /// Waits until the store has taken the last round; `false` where it cannot. Blocks, 5 s at most.
    pub(crate) fn wait_for_round(&self) -> bool {
        let Some(store) = self.session_store.get() else { return false };
        let last = lock(&self.rounds).last;
        store.values().wait_taken(last)
    }

    /// Sessions to store, those that wait longest first, and since when each waits.
    fn changed_sessions(&self, store: &SessionStore) -> Vec<(Duration, Arc<Session>)> {
        let now = store.values().now();
        lock(&self.wills).begin_round(now);
        let changed = self.sessions_where(Session::is_to_store).into_iter();
        let mut changed: Vec<_> = changed.map(|session| (session.waits_since(now), session)).collect();
        changed.sort_by_key(|(since, session)| (*since, session.id));
        changed
    }

    /// Since when the session waits that has waited longest to be stored, in the time of the store.
    pub(super) fn oldest_unstored_session(&self, store: &SessionStore) -> Option<Duration> {
        let now = store.values().now();
        let sessions = lock(&self.sessions);
        let changed = sessions.by_client.values().filter(|session| session.is_to_store());
        changed.map(|session| session.waits_since(now)).min()
    }

    /// The rewrite that the store asks for. At its begin all sessions and wills count as changed.
    fn begin_rewrite(&self, store: &SessionStore, rounds: &mut StoreRounds) -> Option<RewriteId> {
        let wanted = store.values().rewrite_wanted();
        if rounds.rewrite.as_ref().map(|(rewrite, _)| *rewrite) != wanted {
            rounds.rewrite = wanted.map(|rewrite| {
                let sessions = self.sessions_where(Session::is_lasting);
                sessions.iter().for_each(|session| session.touch());
                lock(&self.wills).rewrite();
                (rewrite, sessions)
            });
        }
        wanted
    }

    /// Stores sessions of the rewrite; returns whether some are left for the next round.
    fn rewrite_sessions(&self, store: &SessionStore, rounds: &mut StoreRounds) -> bool {
        let Some((_, left)) = &mut rounds.rewrite else { return false };
        let mut bytes = 0;
        while bytes <= ROUND_BYTES {
            let Some(session) = left.pop() else { return false };
            bytes += self.store_session(store, &session, &mut session.any(), None);
        }
        !left.is_empty()
    }

    /// Stores changed sessions; returns whether some are left for the next round.
    fn store_changed(&self, store: &SessionStore, changed: Vec<(Duration, Arc<Session>)>) -> bool {
        let (now, mut bytes) = (self.timeline.now(), 0);
        for (_, session) in changed {
            if bytes > ROUND_BYTES {
                return true;
            }
            // The session stays locked until the store has it: its end removes it from the store and must come later.
            let mut state = session.any();
            let waits = state.stored.is_some_and(|(at, bytes)| {
                let wait = Duration::from_secs((bytes / SESSION_BYTES_PER_SECOND) as u64).min(LONGEST_WAIT);
                now.saturating_duration_since(at) < wait
            });
            if !waits {
                bytes += self.store_session(store, &session, &mut state, None);
            }
        }
        false
    }

    /// Stores every session and every unpublished will at an orderly stop, within the time limit of the store. At this point
    /// no client is connected, retained messages are stored, and the journal is durable up to its end, `stopped_at`. A store
    /// that failed gets another attempt; what is lost is said in the log.
    pub fn sync_sessions(&self, stopped_at: Lsn) {
        let Some(store) = self.session_store.get() else { return };
        // Waits for a round that has begun: it would overwrite the final state with an older one.
        let mut rounds = lock(&self.rounds);
        rounds.are_over = true;
        lock(&self.wills).begin_round(store.values().now());
        for _ in 0..STOP_ATTEMPTS {
            store.values().retry();
            if store.values().is_written(rounds.last) {
                self.remove_wills(store, stopped_at);
            }
            let rewrite = self.begin_rewrite(store, &mut rounds);
            for session in self.sessions_where(Session::is_lasting) {
                self.store_session(store, &session, &mut session.any(), Some(stopped_at));
            }
            self.store_wills(store, usize::MAX);
            if let Some(rewrite) = rewrite {
                store.values().end_rewrite(rewrite);
            }
            if !store.values().sync() {
                break;
            }
        }
        rounds.last = store.values().mark();
        if store.values().is_written(rounds.last) {
            self.remove_wills(store, stopped_at);
            store.values().sync();
        }
        store.values().report_loss();
    }

    fn sessions_where(&self, wanted: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        lock(&self.sessions).by_client.values().filter(|session| wanted(session)).map(Arc::clone).collect()
    }

    /// Stores one session; returns its estimated size in bytes.
    fn store_session(
        &self,
        store: &SessionStore,
        session: &Session,
        state: &mut SessionState,
        stopped_at: Option<Lsn>,
    ) -> usize {
        const FRAMING: usize = 256;
        let since = session.waits_since(store.values().now());
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
        store.put(&stored, &self.timeline, since);
        state.stored = Some((self.timeline.now(), bytes));
        bytes
    }

    /// Number of sessions and wills whose changes are not on disk yet; 0 without a store.
    pub(super) fn unstored_sessions(&self) -> usize {
        let Some(store) = self.session_store.get() else { return 0 };
        let (changed, lasting) = {
            let sessions = lock(&self.sessions);
            let count = |wanted: fn(&Session) -> bool| sessions.by_client.values().filter(|one| wanted(one)).count();
            (count(Session::is_to_store), count(Session::is_lasting))
        };
        let (unstored_wills, wills) = {
            let wills = lock(&self.wills);
            (wills.unstored(), wills.len())
        };
        // Read before the outage: what a failure drops was counted, or is counted as part of the outage.
        let unwritten = store.values().unwritten();
        // At least 1: the end of the last session may be what is not on disk.
        if store.values().is_to_rewrite() { (lasting + wills).max(1) } else { changed + unstored_wills + unwritten }
    }

    /// Removes a session from the store: it has ended, or no longer outlives its connection.
    pub(super) fn forget_stored(&self, session: &Session) {
        if let Some(store) = self.session_store.get() {
            store.remove(session.user.as_deref(), &session.client_id);
        }
    }
}
