//! Errors that requests are replaying. The operator learns of a replay only when the journal's record reaches it; until then
//! these claims keep a second request from replaying the same error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::sync::lock;

/// Errors claimed at a time. Beyond it requests are refused until the pipeline has caught up.
const MAX_CLAIMS: usize = 100_000;

/// The claimed errors, each with the journal position of its replay; `None` until the replay is in the journal.
#[derive(Debug, Default)]
pub(super) struct ReplayClaims {
    claims: Mutex<BTreeMap<u64, Option<u64>>>,
}

/// The errors that one request replays. When it is dropped, errors that did not reach the journal are free again; the others
/// are free once the pipeline has passed their position.
#[derive(Debug)]
pub(super) struct ReplayClaim {
    claims: Arc<ReplayClaims>,
    open: BTreeSet<u64>,
}

impl ReplayClaims {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Option<u64>>> {
        lock(&self.claims)
    }

    /// Claims the errors of `seqs` that no other request has claimed. Returns the claim, and the sequence numbers that other
    /// requests hold; `None` where the bound is reached. The pipeline has processed the journal below `processed`. A caller
    /// asks the operator which errors were replayed only after claiming them: before, another request could replay them
    /// between the two.
    pub fn claim(claims: &Arc<Self>, seqs: &[u64], processed: u64) -> Option<(ReplayClaim, BTreeSet<u64>)> {
        let mut held = claims.lock();
        held.retain(|_, position| position.is_none_or(|position| position >= processed));
        if held.len() + seqs.len() > MAX_CLAIMS {
            return None;
        }
        let (taken, open): (BTreeSet<u64>, BTreeSet<u64>) = seqs.iter().partition(|seq| held.contains_key(seq));
        held.extend(open.iter().map(|seq| (*seq, None)));
        drop(held);
        Some((ReplayClaim { claims: claims.clone(), open }, taken))
    }
}

impl ReplayClaims {
    /// Those of these errors whose replay is in the journal, while the claims last. The pipeline may have processed some.
    pub fn appended(&self, seqs: &[u64]) -> BTreeSet<u64> {
        let held = self.lock();
        seqs.iter().filter(|seq| held.get(seq).is_some_and(Option::is_some)).copied().collect()
    }
}

impl ReplayClaim {
    /// The replay of `seq` is in the journal at `position`.
    pub fn appended(&mut self, seq: u64, position: u64) {
        if self.open.remove(&seq) {
            self.claims.lock().insert(seq, Some(position));
        }
    }
}

impl Drop for ReplayClaim {
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
        let claims = Arc::new(ReplayClaims::default());
        let (mut first, taken) = ReplayClaims::claim(&claims, &[1, 2, 3], 0).unwrap();
        assert!(taken.is_empty());
        let (second, taken) = ReplayClaims::claim(&claims, &[2, 4], 0).unwrap();
        assert_eq!(taken, [2].into());
        drop(second);
        first.appended(2, 10);
        drop(first);
        // 1 and 3 never reached the journal; 2 did, and has not been processed.
        let (third, taken) = ReplayClaims::claim(&claims, &[1, 2, 3, 4], 10).unwrap();
        assert_eq!(taken, [2].into());
        drop(third);
        let (_, taken) = ReplayClaims::claim(&claims, &[2], 11).unwrap();
        assert!(taken.is_empty());
    }

    #[test]
    fn claims_are_bounded() {
        let claims = Arc::new(ReplayClaims::default());
        let many: Vec<u64> = (0..MAX_CLAIMS as u64).collect();
        let (held, _) = ReplayClaims::claim(&claims, &many, 0).unwrap();
        assert!(ReplayClaims::claim(&claims, &[u64::MAX], 0).is_none());
        drop(held);
        assert!(ReplayClaims::claim(&claims, &[u64::MAX], 0).is_some());
    }
}
