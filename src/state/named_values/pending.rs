//! The changes that a store has yet to write, and its outage. Pure: no lock, no clock, no store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::defects::{self, Defect};

/// A position in the sequence of changes of a store. It stands for all changes before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

/// One request that the owner of a store put all its values once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RewriteId(u64);

/// Why and since when a store is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutageReport {
    /// The newest error.
    pub error: String,
    /// Monotonic time of the first failure.
    pub since: Duration,
    /// Whether the store is open again and all values are being written.
    pub is_rewriting: bool,
}

/// Changes by name, in the order of names; `None` removes the value.
pub(super) type ChangedValues<V> = Vec<(Box<str>, Option<V>)>;

/// What the writer of a store is to do.
#[derive(Debug)]
pub(super) enum StoreWork<V> {
    /// Nothing until a change comes.
    None,
    /// Nothing until this monotonic time.
    Wait(Duration),
    /// Write these changes.
    Write(ChangedValues<V>),
    /// Open the store again.
    Reopen,
}

/// Changes that are not on disk, and how far the writer is.
#[derive(Debug)]
pub(super) struct PendingChanges<V> {
    /// The newest state of each changed name, so never more entries than there are names; `None` removes the value.
    values: BTreeMap<Box<str>, Option<V>>,
    /// Monotonic time of the oldest change in `values`.
    values_since: Option<Duration>,
    /// Number of values that are being written.
    writing: usize,
    /// Monotonic time of the oldest change that is being written.
    writing_since: Option<Duration>,
    /// All changes made so far.
    changed: Mark,
    /// Changes that are being written, or were written last.
    begun: Mark,
    /// Changes that do not wait any more: they were written, or dropped in an outage.
    taken: Mark,
    /// Changes that are on disk.
    written: Mark,
    outage: Option<Outage>,
    /// Rewrites that were requested.
    rewrites: u64,
}

#[derive(Debug)]
struct Outage {
    error: String,
    since: Duration,
    stage: OutageStage,
}

#[derive(Debug)]
enum OutageStage {
    /// The store is closed; changes are dropped. It is opened again at `retry_at`.
    Closed { retry_at: Duration },
    /// The store is being opened.
    Opening,
    /// The store is open, and its owner puts all its values. `stale`: names in the store that were not put or removed since.
    Rewriting { rewrite: RewriteId, stale: BTreeSet<Box<str>> },
    /// All values were put. The outage ends when the changes up to `until` are on disk.
    Finishing { until: Mark },
}

impl<V> Default for PendingChanges<V> {
    fn default() -> Self {
        let [changed, begun, taken, written] = [Mark::default(); 4];
        Self {
            values: BTreeMap::new(),
            values_since: None,
            writing: 0,
            writing_since: None,
            changed,
            begun,
            taken,
            written,
            outage: None,
            rewrites: 0,
        }
    }
}

impl<V> PendingChanges<V> {
    /// Takes a change, or drops it while the store is closed.
    pub fn change(&mut self, name: Box<str>, value: Option<V>, since: Duration) {
        self.changed.0 += 1;
        match self.outage.as_mut().map(|outage| &mut outage.stage) {
            Some(OutageStage::Closed { .. } | OutageStage::Opening) => self.taken = self.changed,
            stage => {
                if let Some(OutageStage::Rewriting { stale, .. }) = stage {
                    stale.remove(&name);
                }
                self.values.insert(name, value);
                self.values_since = Some(self.values_since.map_or(since, |oldest| oldest.min(since)));
            }
        }
    }

    pub fn unwritten(&self) -> usize {
        self.writing + self.values.len()
    }

    /// Monotonic time of the oldest change that is not on disk.
    pub fn oldest(&self) -> Option<Duration> {
        let outage = self.outage.as_ref().map(|outage| outage.since);
        [outage, self.writing_since, self.values_since].into_iter().flatten().min()
    }

    pub fn outage(&self) -> Option<OutageReport> {
        let Outage { error, since, stage } = self.outage.as_ref()?;
        let is_rewriting = matches!(stage, OutageStage::Rewriting { .. } | OutageStage::Finishing { .. });
        Some(OutageReport { error: error.clone(), since: *since, is_rewriting })
    }

    /// Whether the store is closed: its changes are dropped.
    pub fn is_closed(&self) -> bool {
        let stage = self.outage.as_ref().map(|outage| &outage.stage);
        matches!(stage, Some(OutageStage::Closed { .. } | OutageStage::Opening))
    }

    pub fn is_to_rewrite(&self) -> bool {
        if defects::is(Defect::ForgetStoreOutage) {
            return false;
        }
        self.outage.as_ref().is_some_and(|outage| !matches!(outage.stage, OutageStage::Finishing { .. }))
    }

    pub fn changed(&self) -> Mark {
        self.changed
    }

    pub fn is_written(&self, mark: Mark) -> bool {
        self.written >= mark
    }

    pub fn has_taken(&self, mark: Mark) -> bool {
        !self.is_closed() && self.taken >= mark
    }

    /// Whether everything is on disk.
    pub fn is_whole(&self) -> bool {
        self.outage.is_none() && self.unwritten() == 0
    }

    pub fn rewrite_wanted(&self) -> Option<RewriteId> {
        match &self.outage.as_ref()?.stage {
            OutageStage::Rewriting { rewrite, .. } => Some(*rewrite),
            _ => None,
        }
    }

    /// All values were put since `rewrite` was requested: the names that are left in the store are removed.
    pub fn end_rewrite(&mut self, ended: RewriteId, now: Duration) {
        let stale = match self.outage.as_mut().map(|outage| &mut outage.stage) {
            Some(OutageStage::Rewriting { rewrite, stale }) if *rewrite == ended => std::mem::take(stale),
            _ => return,
        };
        for name in stale.into_iter().filter(|_| !defects::is(Defect::KeepStaleValues)) {
            self.change(name, None, now);
        }
        if let Some(outage) = &mut self.outage {
            outage.stage = OutageStage::Finishing { until: self.changed };
        }
    }

    /// Makes a closed store be opened again at once. `false` where it is not closed.
    pub fn retry_now(&mut self) -> bool {
        match &mut self.outage {
            Some(Outage { stage: OutageStage::Closed { retry_at }, .. }) => {
                *retry_at = Duration::ZERO;
                true
            }
            Some(Outage { stage: OutageStage::Opening, .. }) => true,
            _ => false,
        }
    }

    /// Whether an attempt to open the store again is due at once, or under way.
    pub fn is_retrying(&self) -> bool {
        match self.outage.as_ref().map(|outage| &outage.stage) {
            Some(OutageStage::Closed { retry_at }) => retry_at.is_zero(),
            stage => matches!(stage, Some(OutageStage::Opening)),
        }
    }

    /// The next work of the writer, which must report its end: [`Self::write_done`], [`Self::opened`] or [`Self::fail`].
    pub fn next_work(&mut self, now: Duration) -> StoreWork<V> {
        match self.outage.as_mut().map(|outage| &mut outage.stage) {
            Some(OutageStage::Closed { retry_at }) if *retry_at > now => return StoreWork::Wait(*retry_at),
            Some(stage @ OutageStage::Closed { .. }) => {
                *stage = OutageStage::Opening;
                return StoreWork::Reopen;
            }
            // An empty batch is written too: its sync ends the outage.
            Some(OutageStage::Finishing { .. }) => {}
            _ if self.values.is_empty() => return StoreWork::None,
            _ => {}
        }
        self.writing = self.values.len();
        self.writing_since = self.values_since.take();
        self.begun = self.changed;
        StoreWork::Write(std::mem::take(&mut self.values).into_iter().collect())
    }

    /// The changes of [`StoreWork::Write`] are on disk. Returns the outage where it ends.
    pub fn write_done(&mut self) -> Option<OutageReport> {
        self.writing = 0;
        self.writing_since = None;
        self.taken = self.begun;
        match self.outage.as_ref().map(|outage| &outage.stage) {
            // A value that was dropped in the outage may have an earlier position than its rewrite.
            Some(OutageStage::Rewriting { .. }) => return None,
            Some(OutageStage::Finishing { until }) if self.begun < *until => return None,
            _ => {}
        }
        self.written = self.begun;
        let ended = self.outage();
        self.outage = None;
        ended
    }

    /// The store was opened again and holds these names.
    pub fn opened(&mut self, names: BTreeSet<Box<str>>) {
        self.rewrites += 1;
        if let Some(outage) = &mut self.outage {
            let rewrite = RewriteId(self.rewrites);
            outage.stage = OutageStage::Rewriting { rewrite, stale: names };
            self.taken = self.changed;
        }
    }

    /// A write failed, or an attempt to open the store again: the store is closed, and what waits is dropped. Returns whether
    /// an outage begins.
    pub fn fail(&mut self, error: String, now: Duration, retry_at: Duration) -> bool {
        let oldest = self.oldest().unwrap_or(now);
        self.values.clear();
        self.writing = 0;
        [self.values_since, self.writing_since] = [None; 2];
        self.taken = self.changed;
        if defects::is(Defect::ForgetStoreOutage) {
            self.written = self.changed;
        }
        let begins = self.outage.is_none();
        let retry_at = if defects::is(Defect::GiveUpStore) { Duration::MAX } else { retry_at };
        self.outage = Some(Outage { error, since: oldest, stage: OutageStage::Closed { retry_at } });
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn changes(pending: &mut PendingChanges<u8>, names: &[&str]) {
        for name in names {
            pending.change((*name).into(), Some(1), SECOND);
        }
    }

    #[track_caller]
    fn begin(pending: &mut PendingChanges<u8>, expected: &[(&str, Option<u8>)]) {
        let StoreWork::Write(batch) = pending.next_work(SECOND * 9) else { panic!("nothing to write") };
        let batch: Vec<_> = batch.iter().map(|(name, value)| (&**name, *value)).collect();
        assert_eq!(batch, expected);
    }

    #[track_caller]
    fn fail(pending: &mut PendingChanges<u8>) {
        pending.fail("no space".into(), SECOND * 9, SECOND * 10);
        assert!(matches!(pending.next_work(SECOND * 9), StoreWork::Wait(until) if until == SECOND * 10));
    }

    #[track_caller]
    fn reopen(pending: &mut PendingChanges<u8>, names: &[&str]) -> RewriteId {
        assert!(matches!(pending.next_work(SECOND * 10), StoreWork::Reopen));
        pending.opened(names.iter().map(|name| Box::from(*name)).collect());
        pending.rewrite_wanted().expect("everything is to be written anew")
    }

    #[test]
    fn the_newest_state_of_each_name_is_written() {
        let mut pending = PendingChanges::default();
        changes(&mut pending, &["a", "b", "a"]);
        let mark = pending.changed();
        begin(&mut pending, &[("a", Some(1)), ("b", Some(1))]);
        changes(&mut pending, &["c"]);
        assert!((pending.unwritten(), pending.is_written(mark)) == (3, false));
        assert_eq!(pending.write_done(), None);
        assert!((pending.unwritten(), pending.is_written(mark)) == (1, true));
        assert!(!pending.is_written(pending.changed()));
    }

    #[test]
    fn after_a_failure_all_is_written_and_the_rest_is_removed() {
        let mut pending = PendingChanges::default();
        changes(&mut pending, &["a"]);
        begin(&mut pending, &[("a", Some(1))]);
        changes(&mut pending, &["b"]);
        fail(&mut pending);
        changes(&mut pending, &["c"]);
        let dropped = pending.changed();
        assert!((pending.unwritten(), pending.is_to_rewrite(), pending.is_written(dropped)) == (0, true, false));
        let rewrite = reopen(&mut pending, &["a", "removed", "removed meanwhile"]);
        changes(&mut pending, &["a"]);
        begin(&mut pending, &[("a", Some(1))]);
        pending.change("removed meanwhile".into(), None, SECOND);
        changes(&mut pending, &["b", "c"]);
        assert_eq!(pending.write_done(), None);
        assert!(!pending.is_written(dropped), "a value that was dropped is not on disk");
        pending.end_rewrite(rewrite, SECOND);
        assert!(!pending.is_to_rewrite() && pending.outage().is_some());
        begin(&mut pending, &[("b", Some(1)), ("c", Some(1)), ("removed", None), ("removed meanwhile", None)]);
        assert!(pending.write_done().is_some_and(|outage| outage.since == SECOND));
        assert!(pending.is_whole() && pending.is_written(dropped));
    }

    #[test]
    fn a_rewrite_ends_by_a_sync_also_where_nothing_changed() {
        let mut pending = PendingChanges::default();
        fail(&mut pending);
        let rewrite = reopen(&mut pending, &[]);
        assert!(matches!(pending.next_work(SECOND), StoreWork::None));
        pending.end_rewrite(rewrite, SECOND);
        begin(&mut pending, &[]);
        assert!(pending.write_done().is_some() && pending.is_whole());
    }

    #[test]
    fn a_rewrite_of_before_another_failure_ends_nothing() {
        let mut pending = PendingChanges::default();
        fail(&mut pending);
        let first = reopen(&mut pending, &["a"]);
        fail(&mut pending);
        pending.end_rewrite(first, SECOND);
        assert!(pending.is_closed());
        let second = reopen(&mut pending, &["a"]);
        pending.end_rewrite(first, SECOND);
        assert!(first != second && pending.is_to_rewrite());
    }

    #[test]
    fn a_closed_store_can_be_opened_at_once() {
        let mut pending: PendingChanges<u8> = PendingChanges::default();
        assert!(!pending.retry_now());
        fail(&mut pending);
        assert!(pending.retry_now() && pending.is_retrying());
        assert!(matches!(pending.next_work(SECOND * 9), StoreWork::Reopen));
        assert!(pending.is_retrying());
        fail(&mut pending);
        assert!(!pending.is_retrying());
    }
}
