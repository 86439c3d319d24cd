//! Wills across a restart: which wills are stored, and when a stored will is removed.
//!
//! A will is stored about a second after its CONNECT. It is removed about a second after its client sent DISCONNECT, or,
//! once published, when its effects are on disk: the record in the journal, the retained message, the sessions whose queues
//! hold it. So a crash may publish a will twice and never loses a stored one. The wills in the store when weir ends are
//! published after the next start: MQTT 5.0 section 3.1.2.5 lets a server defer wills, not forget them.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::meters::MqttLimit;
use super::session_store::SessionStore;
use super::sessions::{SessionTimer, Sessions};
use crate::log::Lsn;
use crate::mqtt::session::Session;
use crate::mqtt::session::will::Will;
use crate::state::named_values::Mark;
use crate::sync::lock;

/// State of the stored wills. Its lock is the last in the broker's lock order.
#[derive(Debug, Default)]
pub(super) struct Wills {
    /// Wills that are not stored in their present form, by number. At most as many as sessions and due wills.
    unstored: BTreeMap<u64, Arc<Will>>,
    /// Wills in the store, by number. At most as many as sessions, due wills and `published` together.
    stored: BTreeMap<u64, Arc<Will>>,
    /// Published wills whose effects are not on disk yet, oldest first.
    published: VecDeque<PublishedWill>,
    /// Numbers of wills that were discarded since the last round. The next round removes them from the store.
    discarded: Vec<u64>,
    last_number: u64,
}

/// A published will that is still in the store.
#[derive(Debug)]
struct PublishedWill {
    number: u64,
    /// Journal position that must be durable; 0 where the will is not journaled.
    journal: Lsn,
    /// Position that the store of retained messages must have written; `None` where the will is not retained.
    retained: Option<Mark>,
    /// Time of the first round after the publication, in the time of the session store. Sessions whose queues hold the will
    /// wait to be stored since then or longer.
    seen: Option<Duration>,
}

impl Wills {
    pub(super) fn len(&self) -> usize {
        self.stored.len() + self.unstored.keys().filter(|number| !self.stored.contains_key(number)).count()
    }

    /// Number of wills whose outcome is not stored yet.
    pub(super) fn unstored(&self) -> usize {
        self.unstored.len() + self.discarded.len()
    }

    /// Whether all wills were put into the store.
    pub(super) fn are_put(&self) -> bool {
        self.unstored.is_empty()
    }

    /// A round begins at `now`, in the time of the session store. Called before the round looks for changed sessions.
    pub(super) fn begin_round(&mut self, now: Duration) {
        for published in &mut self.published {
            published.seen.get_or_insert(now);
        }
    }

    /// Makes all wills of the store unstored: the store failed, and they are written once more.
    pub(super) fn rewrite(&mut self) {
        for (number, will) in &self.stored {
            self.unstored.entry(*number).or_insert_with(|| Arc::clone(will));
        }
    }

    fn remove(&mut self, number: u64, store: &SessionStore) {
        self.unstored.remove(&number);
        if self.stored.remove(&number).is_some() {
            store.remove_will(number);
        }
    }
}

impl Broker {
    /// Registers the will of the client of `session`. The next round stores it, about a second later.
    pub(crate) fn take_will(&self, mut will: Will, session: &Session) -> Arc<Will> {
        will.message.publisher = session.id;
        let mut wills = lock(&self.wills);
        wills.last_number += 1;
        will.number = wills.last_number;
        let will = Arc::new(will);
        if self.session_store.get().is_some() {
            wills.unstored.insert(will.number, Arc::clone(&will));
        }
        will
    }

    /// Discards a will: it is not published.
    pub(crate) fn discard_will(&self, will: &Will) {
        let mut wills = lock(&self.wills);
        wills.unstored.remove(&will.number);
        if wills.stored.contains_key(&will.number) {
            wills.discarded.push(will.number);
        }
    }

    /// Marks a will as due, also for a restart: the client may have a session again by then, which must not delay the will.
    pub(super) fn due_now(&self, will: Arc<Will>) -> Arc<Will> {
        if will.delay_s == 0 {
            return will;
        }
        let will = Arc::new(Will { delay_s: 0, ..(*will).clone() });
        let mut wills = lock(&self.wills);
        if wills.stored.contains_key(&will.number) || wills.unstored.contains_key(&will.number) {
            wills.unstored.insert(will.number, Arc::clone(&will));
        }
        will
    }

    /// Notes that a will was published. `journal` is the journal position after its record, 0 where it is not journaled.
    pub(crate) fn will_published(&self, will: &Will, journal: Lsn) {
        let retained = if will.message.retain { lock(&self.retained).mark() } else { None };
        let mut wills = lock(&self.wills);
        if wills.stored.contains_key(&will.number) {
            wills.published.push_back(PublishedWill { number: will.number, journal, retained, seen: None });
        } else {
            wills.unstored.remove(&will.number);
        }
    }

    /// Restores the stored wills, in the order of their numbers. A will whose session was restored waits for the rest of its
    /// delay; the others are due at once.
    pub(super) fn restore_wills(&self, sessions: &mut Sessions, stored: Vec<Will>) {
        {
            let mut wills = lock(&self.wills);
            wills.stored = stored.iter().map(|will| (will.number, Arc::new(will.clone()))).collect();
            wills.last_number = wills.last_number.max(stored.last().map_or(0, |will| will.number));
        }
        let mut seen = HashSet::new();
        let mut due = Vec::new();
        for will in stored.into_iter().rev() {
            let key = (will.login.identity.user.clone(), Arc::clone(&will.client_id));
            // Only the newest will of a client belongs to its last connection; earlier ones are due.
            let waits_for = sessions.by_client.get(&key).filter(|_| seen.insert(key)).cloned();
            due.extend(match waits_for {
                Some(session) => self.restore_will(sessions, &session, will),
                None => Some(self.due_now(Arc::new(will))),
            });
        }
        let count = lock(&self.wills).stored.len();
        if count > 0 {
            tracing::info!(due = due.len(), waiting = count - due.len(), "MQTT wills of clients that weir lost");
        }
        due.reverse();
        sessions.wills.extend(due);
    }

    /// Restores the will of a restored session; returns the will if it is due.
    fn restore_will(&self, sessions: &mut Sessions, session: &Arc<Session>, mut will: Will) -> Option<Arc<Will>> {
        will.message.publisher = session.id;
        let will = Arc::new(will);
        let mut state = session.any();
        let lost_ms = state.disconnected_ms.unwrap_or(0);
        let after_delay = self.timeline.at_wall_ms(lost_ms.saturating_add(i64::from(will.delay_s) * 1_000));
        let at = state.expires.map_or(after_delay, |(end, _)| end.min(after_delay));
        if at <= self.timeline.now() {
            return Some(self.due_now(will));
        }
        let key = (at, sessions.number());
        state.will = Some((will, key));
        sessions.timers.insert(key, SessionTimer::Will(Arc::clone(session)));
        None
    }

    /// Removes from the store the discarded wills, and the published wills whose effects are on disk: the journal is durable up to
    /// `durable`, and everything that earlier rounds put into the store is on disk.
    pub(super) fn remove_wills(&self, store: &SessionStore, durable: Lsn) {
        let oldest = self.oldest_unstored_session(store);
        let is_queued = |seen: Option<Duration>| seen.is_some_and(|seen| oldest.is_none_or(|oldest| oldest > seen));
        let retained_store = lock(&self.retained).store();
        let is_retained =
            |mark: Option<Mark>| retained_store.as_ref().zip(mark).is_none_or(|(store, mark)| store.is_written(mark));
        let mut wills = lock(&self.wills);
        for number in std::mem::take(&mut wills.discarded) {
            wills.remove(number, store);
        }
        for left in (0..wills.published.len()).rev() {
            let Some(published) = wills.published.pop_front() else { return };
            let is_over = left >= self.max_connections;
            if is_over {
                self.meters.limit(MqttLimit::Wills);
            }
            let PublishedWill { number, journal, retained, seen } = published;
            if is_over || (is_queued(seen) && journal <= durable && is_retained(retained)) {
                wills.remove(number, store);
            } else {
                wills.published.push_back(published);
            }
        }
    }

    /// Stores wills that are not in the store, about `max_bytes` at most.
    pub(super) fn store_wills(&self, store: &SessionStore, max_bytes: usize) {
        let mut bytes = 0;
        while bytes <= max_bytes {
            // The lock is released between wills, since connections wait for it, and held until the store has the will, so that
            // a removal cannot come first.
            let mut wills = lock(&self.wills);
            let Some((number, will)) = wills.unstored.pop_first() else { return };
            store.put_will(&will);
            bytes += will.message.bytes() + will.client_id.len();
            wills.stored.insert(number, will);
        }
    }
}
