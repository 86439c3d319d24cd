//! Errors that requests are replaying: the operator hears of a replay only once it has come through the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::sync::lock;

/// Errors claimed at a time; beyond it requests are refused until the pipeline has caught up.
const MAX_CLAIMS: usize = 100_000;

/// By error: the journal position of its replay, `None` until it has one.
#[derive(Debug, Default)]
pub(in crate::http) struct Claims {
    claims: Mutex<BTreeMap<u64, Option<u64>>>,
}

/// The errors that one request replays. Dropped, it gives back those that did not reach the journal; the others are given
/// back once the pipeline has passed their position.
#[derive(Debug)]
pub(in crate::http) struct Claim {
    claims: Arc<Claims>,
    open: BTreeSet<u64>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Option<u64>>> {
        lock(&self.claims)
    }

    /// Claims those of `seqs` that no other request has, and returns those that one has; `None` beyond the bound.
    /// `processed`: the pipeline has processed the journal below this position. Whoever claims asks the operator after
    /// that, not before.
    pub fn claim(claims: &Arc<Self>, seqs: &[u64], processed: u64) -> Option<(Claim, BTreeSet<u64>)> {
        let mut held = claims.lock();
        held.retain(|_, position| position.is_none_or(|position| position >= processed));
        if held.len() + seqs.len() > MAX_CLAIMS {
            return None;
        }
        let (taken, open): (BTreeSet<u64>, BTreeSet<u64>) = seqs.iter().partition(|seq| held.contains_key(seq));
        held.extend(open.iter().map(|seq| (*seq, None)));
        drop(held);
        Some((Claim { claims: claims.clone(), open }, taken))
    }
}

impl Claim {
    /// The replay of `seq` is in the journal at `position`.
    pub fn appended(&mut self, seq: u64, position: u64) {
        if self.open.remove(&seq) {
            self.claims.lock().insert(seq, Some(position));
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut held = self.claims.lock();
        for seq in &self.open {
            held.remove(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_claimed_by_one_until_the_pipeline_has_passed_it() {
        let claims = Arc::new(Claims::default());
        let (mut first, taken) = Claims::claim(&claims, &[1, 2, 3], 0).unwrap();
        assert!(taken.is_empty());
        let (second, taken) = Claims::claim(&claims, &[2, 4], 0).unwrap();
        assert_eq!(taken, [2].into());
        drop(second);
        first.appended(2, 10);
        drop(first);
        // 1 and 3 never reached the journal; 2 did, and has not been processed.
        let (third, taken) = Claims::claim(&claims, &[1, 2, 3, 4], 10).unwrap();
        assert_eq!(taken, [2].into());
        drop(third);
        let (_, taken) = Claims::claim(&claims, &[2], 11).unwrap();
        assert!(taken.is_empty());
    }

    #[test]
    fn claims_are_bounded() {
        let claims = Arc::new(Claims::default());
        let many: Vec<u64> = (0..MAX_CLAIMS as u64).collect();
        let (held, _) = Claims::claim(&claims, &many, 0).unwrap();
        assert!(Claims::claim(&claims, &[u64::MAX], 0).is_none());
        drop(held);
        assert!(Claims::claim(&claims, &[u64::MAX], 0).is_some());
    }
}
