//! The health of the stores of sessions and retained messages, and the retained messages that are written anew after a
//! failure of theirs. Sessions and wills: `storing`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Broker;
use crate::state::named_values::{NamedValue, NamedValues, OutageReport};
use crate::sync::lock;

/// Retained messages that are put into the store under one lock.
const REWRITE_PAGE: usize = 1_000;

/// Attempts to write everything at an orderly stop.
pub(super) const STOP_ATTEMPTS: usize = 2;

/// State of the store of sessions and wills, or of the store of retained messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// Name of the store's directory below the data directory.
    pub directory: &'static str,
    /// What the store holds, in the plural.
    pub what: &'static str,
    /// How many of these have changes that are not on disk.
    pub unstored: usize,
    /// Time since the oldest change that is not on disk; zero where all are.
    pub unstored_for: Duration,
    /// Why the store cannot be written, and for how long; `None` where it can.
    pub failure: Option<(String, Duration)>,
    /// Whether everything is being written anew after a failure.
    pub is_rewriting: bool,
}

fn health<V: NamedValue>(values: &NamedValues<V>, unstored: usize, oldest: Option<Duration>) -> StoreHealth {
    let (labels, now, outage) = (V::LABELS, values.now(), values.outage());
    let lasting = |outage: &OutageReport| now.saturating_sub(outage.since);
    let is_rewriting = outage.as_ref().is_some_and(|outage| outage.is_rewriting);
    let of_owner = oldest.map(|since| now.saturating_sub(since));
    let unstored_for = values.unwritten_for().max(of_owner).unwrap_or_default();
    let failure = outage.filter(|outage| !outage.is_rewriting).map(|outage| (outage.error.clone(), lasting(&outage)));
    StoreHealth { directory: labels.directory, what: labels.what, unstored, unstored_for, failure, is_rewriting }
}

impl Broker {
    /// States that all sessions, wills and retained messages of an earlier run are restored.
    pub fn mark_restored(&self) {
        self.restored.store(true, Ordering::Release);
    }

    /// Whether all sessions, wills and retained messages of an earlier run are restored. Before that, their numbers say
    /// nothing.
    pub fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }

    /// Health of the stores that this broker has.
    pub fn store_health(&self) -> Vec<StoreHealth> {
        let sessions = self.session_store.get().map(|store| {
            let oldest = self.oldest_unstored_session(store);
            health(store.values(), self.unstored_sessions(), oldest)
        });
        let retained = lock(&self.retained).store();
        let retained = retained.map(|store| health(store.values(), self.unstored_retained(), None));
        sessions.into_iter().chain(retained).collect()
    }

    /// Number of retained messages whose changes are not on disk yet; 0 without a store.
    fn unstored_retained(&self) -> usize {
        let (store, messages) = {
            let retained = lock(&self.retained);
            (retained.store(), retained.len())
        };
        let Some(store) = store else { return 0 };
        // Read before the outage: what a failure drops was counted, or is counted as part of the outage.
        let unwritten = store.values().unwritten();
        // At least 1: the removal of the last message may be what is not on disk.
        if store.values().is_to_rewrite() { messages.max(1) } else { unwritten }
    }

    /// Writes all retained messages anew if their store asks for it.
    pub(crate) fn rewrite_retained(&self) {
        let Some(store) = lock(&self.retained).store() else { return };
        let Some(rewrite) = store.values().rewrite_wanted() else { return };
        let mut after = None;
        loop {
            // A statement of its own: the lock is released between pages, since publishes wait for it.
            let last = lock(&self.retained).put_again(after.as_deref(), REWRITE_PAGE);
            match last {
                Some(topic) => after = Some(topic),
                None => break,
            }
        }
        store.values().end_rewrite(rewrite);
    }

    /// Stores all changed retained messages at an orderly stop, within the time limit of the store. A store that failed gets
    /// another attempt; what is lost is said in the log.
    pub fn sync_retained(&self) {
        let Some(store) = lock(&self.retained).store() else { return };
        for _ in 0..STOP_ATTEMPTS {
            store.values().retry();
            self.rewrite_retained();
            if !store.values().sync() {
                break;
            }
        }
        store.values().report_loss();
    }
}
