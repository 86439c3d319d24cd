//! Wills over a restart.
//!
//! A will is in the store from about a second after its CONNECT until about a second after its client took it back, or
//! until what came of it is on disk: the journal's record, the retained message, the sessions that it waits in. So a crash
//! may have it published twice, and loses none that was stored. What the store has when weir ends is due after the next
//! start: MQTT 5.0 section 3.1.2.5 lets a server defer wills, not forget them.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use super::Broker;
use super::meters::MqttLimit;
use super::session_store::SessionStore;
use super::sessions::{SessionTimer, Sessions};
use crate::log::Lsn;
use crate::mqtt::session::Session;
use crate::mqtt::session::will::Will;
use crate::state::named_values::Mark;
use crate::sync::lock;

/// The wills that a restart is to find. Its lock is the last to be taken.
#[derive(Debug, Default)]
pub(super) struct Wills {
    /// Those that the store does not have yet, or not as they are now, by number: no more than sessions and due wills.
    unstored: BTreeMap<u64, Arc<Will>>,
    /// Numbers of those that it has: no more than sessions, due wills and `published` together.
    stored: BTreeSet<u64>,
    /// Published wills, oldest first; the store has them until what came of them is on disk.
    published: VecDeque<PublishedWill>,
    /// Taken back since the last round; the store has them until the next.
    discarded: Vec<u64>,
    last_number: u64,
}

/// A will that was published.
#[derive(Debug)]
struct PublishedWill {
    number: u64,
    /// The journal has it once it is durable to here.
    journal: Lsn,
    /// Where it is retained: the store of retained messages has it once it is written to here.
    retained: Option<Mark>,
    /// Whether a round has stored the sessions that it waits in.
    queued: bool,
}

impl Wills {
    pub(super) fn len(&self) -> usize {
        self.stored.len() + self.unstored.keys().filter(|number| !self.stored.contains(number)).count()
    }

    /// Those of which the store does not know what became of them.
    pub(super) fn unstored(&self) -> usize {
        self.unstored.len() + self.discarded.len()
    }

    fn remove(&mut self, number: u64, store: &SessionStore) {
        self.unstored.remove(&number);
        if self.stored.remove(&number) {
            store.remove_will(number);
        }
    }
}

impl Broker {
    /// Takes the will of the client that `session` has been attached for: a crash from about a second later on does not
    /// lose it.
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

    /// The will is not to be published any more.
    pub(crate) fn discard_will(&self, will: &Will) {
        let mut wills = lock(&self.wills);
        wills.unstored.remove(&will.number);
        if wills.stored.contains(&will.number) {
            wills.discarded.push(will.number);
        }
    }

    /// The will is due. A restart is to find it due as well, though its client may have a session again by then.
    pub(super) fn due_now(&self, will: Arc<Will>) -> Arc<Will> {
        if will.delay_s == 0 {
            return will;
        }
        let will = Arc::new(Will { delay_s: 0, ..(*will).clone() });
        let mut wills = lock(&self.wills);
        if wills.stored.contains(&will.number) || wills.unstored.contains_key(&will.number) {
            wills.unstored.insert(will.number, Arc::clone(&will));
        }
        will
    }

    /// The will was published. `journal`: where the journal ends that has it; 0 where it does not go there.
    pub(crate) fn will_published(&self, will: &Will, journal: Lsn) {
        let retained = if will.message.retain { lock(&self.retained).mark() } else { None };
        let mut wills = lock(&self.wills);
        if wills.stored.contains(&will.number) {
            wills.published.push_back(PublishedWill { number: will.number, journal, retained, queued: false });
        } else {
            wills.unstored.remove(&will.number);
        }
    }

    /// Goes on with wills that were not taken back before weir ended, in the order of their numbers: those of the sessions
    /// that were restored wait as long as they may, the others are due.
    pub(super) fn restore_wills(&self, sessions: &mut Sessions, stored: Vec<Will>) {
        {
            let mut wills = lock(&self.wills);
            wills.stored = stored.iter().map(|will| will.number).collect();
            wills.last_number = wills.last_number.max(stored.last().map_or(0, |will| will.number));
        }
        let mut seen = HashSet::new();
        let mut due = Vec::new();
        for will in stored.into_iter().rev() {
            let key = (will.login.identity.user.clone(), Arc::clone(&will.client_id));
            // Of one client only the newest can be its last connection's: those before are no longer held back by it.
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

    /// Returns the will if it is due.
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

    /// Removes wills that were taken back, and published ones where what came of them is on disk: with the journal up to
    /// `durable`, and with what the round before this one stored.
    pub(super) fn remove_wills(&self, store: &SessionStore, durable: Lsn) {
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
            if is_over || (published.queued && published.journal <= durable && is_retained(published.retained)) {
                wills.remove(published.number, store);
            } else {
                wills.published.push_back(PublishedWill { queued: true, ..published });
            }
        }
    }

    /// Stores wills that the store does not have, no more than about `max_bytes`.
    pub(super) fn store_wills(&self, store: &SessionStore, max_bytes: usize) {
        let mut bytes = 0;
        while bytes <= max_bytes {
            // Locked anew for each one, since connections wait; and until the store has it, since a removal comes later.
            let mut wills = lock(&self.wills);
            let Some((number, will)) = wills.unstored.pop_first() else { return };
            store.put_will(&will);
            wills.stored.insert(number);
            bytes += will.message.bytes() + will.client_id.len();
        }
    }
}
