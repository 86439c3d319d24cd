//! Which event times of a series were in windows that fired.
//!
//! A window that fired must not fire again as if it were new. Windows that fired one after another form one run, so that
//! steady data is one run however long it lasts; an absence of the device is the gap between two runs.

use crate::core::codec::{DecodeError, FieldReader, put_i64, put_u64};
use crate::core::rare_list::RareList;

/// Largest number of runs of a series, about 1 KiB. A metric that comes once in five minutes has a run per reading: the
/// gaps of five hours stay open, and of the time before only its longest absences. While a device catches up, its windows fire
/// in any order: then there may be more, and the gaps close when it has caught up.
pub(super) const MAX_RUNS: usize = 64;

/// Event times from `start_ms` to before `end_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FiredRun {
    /// Start of its first window.
    pub start_ms: i64,
    /// End of its last window.
    pub end_ms: i64,
}

/// What bounds the runs of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunLimits {
    /// Runs that ended at or before this time are not told apart any more.
    pub oldest_ms: i64,
    /// Gaps that end after this time stay open: readings of live data may still come for them.
    pub closed_ms: i64,
    /// Number of runs that are kept, if gaps can be closed for it.
    pub max_runs: usize,
}

impl RunLimits {
    /// No limits.
    pub const NONE: Self = Self { max_runs: usize::MAX, ..Self::COUNT };
    /// Limits of the number of runs alone.
    pub const COUNT: Self = Self { oldest_ms: i64::MIN, closed_ms: i64::MAX, max_runs: MAX_RUNS };
}

/// The runs of a series.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct FiredRuns {
    /// The newest run, which is the one that grows; empty if nothing has fired.
    newest: FiredRun,
    /// The other runs, in ascending order. Most series have none. No two runs touch.
    older: RareList<FiredRun>,
}

impl FiredRuns {
    /// These runs, in ascending order.
    fn of(mut runs: Vec<FiredRun>) -> Self {
        let newest = runs.pop().unwrap_or_default();
        Self { newest, older: runs.into() }
    }

    /// End of the newest window that fired.
    pub fn newest_end_ms(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.newest.end_ms)
    }

    /// Whether nothing has fired.
    pub fn is_empty(&self) -> bool {
        self.newest.start_ms == self.newest.end_ms
    }

    /// Whether a window from `start_ms` to `end_ms` overlaps a run.
    pub fn overlap(&self, start_ms: i64, end_ms: i64) -> bool {
        if self.is_empty() {
            return false;
        }
        if self.newest.start_ms < end_ms {
            return start_ms < self.newest.end_ms;
        }
        let index = self.older.partition_point(|run| run.end_ms <= start_ms);
        self.older.get(index).is_some_and(|run| run.start_ms < end_ms)
    }

    /// Notes that a window fired. Returns the number of gaps that were closed to keep the limits.
    #[inline]
    pub fn add(&mut self, start_ms: i64, end_ms: i64, limits: RunLimits) -> u64 {
        if start_ms == self.newest.end_ms && !self.is_empty() {
            self.newest.end_ms = end_ms;
            return 0;
        }
        self.add_apart(FiredRun { start_ms, end_ms }, limits)
    }

    fn add_apart(&mut self, run: FiredRun, limits: RunLimits) -> u64 {
        if self.is_empty() {
            self.newest = run;
            return 0;
        }
        let newest = self.newest;
        let runs = self.older.vec_mut();
        // Most series have few runs: the list grows by a few.
        if runs.capacity() < runs.len() + 2 {
            runs.reserve_exact(2 + runs.len() / 4);
        }
        runs.push(newest);
        insert(runs, run);
        merge_passed(runs, limits.oldest_ms);
        let closed = close_gaps(runs, limits);
        self.newest = runs.pop().unwrap_or_default();
        self.older.drop_empty();
        closed
    }

    /// Closes the smallest gaps that end at or before `closed_ms`, so that [`MAX_RUNS`] runs are left; returns their number.
    pub fn close_excess(&mut self, closed_ms: i64) -> u64 {
        if self.older.len() < MAX_RUNS {
            return 0;
        }
        let runs = self.older.vec_mut();
        runs.push(self.newest);
        let closed = close_gaps(runs, RunLimits { closed_ms, ..RunLimits::COUNT });
        self.newest = runs.pop().unwrap_or_default();
        runs.shrink_to_fit();
        closed
    }

    /// Takes everything before `end_ms` as fired: for windows of which it is not known.
    pub fn cover_before(&mut self, end_ms: i64) {
        if end_ms > i64::MIN {
            self.add(i64::MIN, end_ms, RunLimits::NONE);
        }
    }

    /// Forgets what fired at `end_ms` or later.
    pub fn cut_at(&mut self, end_ms: i64) {
        let kept = self.iter().filter(|run| run.start_ms < end_ms);
        *self = Self::of(kept.map(|run| FiredRun { end_ms: run.end_ms.min(end_ms), ..run }).collect());
    }

    /// The runs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = FiredRun> + '_ {
        let newest = (!self.is_empty()).then_some(self.newest);
        self.older.iter().copied().chain(newest)
    }

    /// Appends the stored form; nothing if nothing has fired.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut from_ms = 0;
        for (index, run) in self.iter().enumerate() {
            if index == 0 {
                put_u64(self.iter().count() as u64, out);
            }
            put_i64(run.start_ms.wrapping_sub(from_ms), out);
            put_u64(run.end_ms.wrapping_sub(run.start_ms) as u64, out);
            from_ms = run.end_ms;
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut runs = Vec::new();
        let mut from_ms = 0_i64;
        for _ in 0..reader.count()? {
            let start_ms = from_ms.wrapping_add(reader.i64()?);
            let end_ms = start_ms.wrapping_add(reader.u64()? as i64);
            runs.push(FiredRun { start_ms, end_ms });
            from_ms = end_ms;
        }
        let apart = runs.is_sorted_by(|a, b| a.end_ms < b.start_ms) && runs.iter().all(|run| run.start_ms < run.end_ms);
        if !apart {
            return Err(DecodeError::Content("runs of fired windows"));
        }
        Ok(Self::of(runs))
    }
}

/// Inserts a run, and joins it with those that it touches.
fn insert(runs: &mut Vec<FiredRun>, mut run: FiredRun) {
    let from = runs.partition_point(|other| other.end_ms < run.start_ms);
    let to = runs.partition_point(|other| other.start_ms <= run.end_ms);
    for other in runs.get(from..to).unwrap_or_default() {
        run.start_ms = run.start_ms.min(other.start_ms);
        run.end_ms = run.end_ms.max(other.end_ms);
    }
    runs.splice(from..to.max(from), [run]);
}

/// Makes one run of all times before `oldest_ms`, where runs ended before it.
fn merge_passed(runs: &mut Vec<FiredRun>, oldest_ms: i64) {
    let passed = runs.partition_point(|run| run.end_ms <= oldest_ms);
    if passed > 0 {
        runs.drain(..passed);
        insert(runs, FiredRun { start_ms: i64::MIN, end_ms: oldest_ms });
    }
}

/// Joins neighbours with the smallest gaps between them, among equal ones the oldest, until there are no more runs than
/// `limits` say. Returns how many gaps were closed.
fn close_gaps(runs: &mut Vec<FiredRun>, limits: RunLimits) -> u64 {
    let RunLimits { closed_ms, max_runs, .. } = limits;
    if runs.len() <= max_runs {
        return 0;
    }
    // Where there are many runs, room is not made for each single one.
    let spare = if max_runs > MAX_RUNS { max_runs / 8 } else { 0 };
    let excess = runs.len() - (max_runs - spare);
    let gaps = runs.windows(2).zip(0..).filter_map(|(pair, index)| match pair {
        [a, b] if b.start_ms <= closed_ms => Some((b.start_ms.saturating_sub(a.end_ms), index)),
        _ => None,
    });
    let mut smallest: Vec<(i64, usize)> = gaps.collect();
    smallest.sort_unstable();
    smallest.truncate(excess);
    let closed = smallest.len() as u64;
    let mut is_closed = vec![false; runs.len()];
    for (_, index) in smallest {
        if let Some(closed) = is_closed.get_mut(index) {
            *closed = true;
        }
    }
    let mut index = 0;
    runs.dedup_by(|second, first| {
        let closes = is_closed.get(index).copied().unwrap_or(false);
        index += 1;
        if closes {
            first.end_ms = second.end_ms;
        }
        closes
    });
    closed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn runs(windows: &[(i64, i64)]) -> FiredRuns {
        let mut runs = FiredRuns::default();
        for &(start_ms, end_ms) in windows {
            assert_eq!(runs.add(start_ms, end_ms, RunLimits::COUNT), 0);
        }
        runs
    }

    fn check(runs: &FiredRuns, expected: &[(i64, i64)]) {
        assert_eq!(runs.iter().map(|run| (run.start_ms, run.end_ms)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn windows_join() {
        check(&runs(&[]), &[]);
        check(&runs(&[(0, 5), (5, 10), (10, 15)]), &[(0, 15)]);
        check(&runs(&[(0, 5), (10, 15)]), &[(0, 5), (10, 15)]);
        check(&runs(&[(10, 15), (0, 5)]), &[(0, 5), (10, 15)]);
        check(&runs(&[(10, 15), (0, 5), (5, 10)]), &[(0, 15)]);
        check(&runs(&[(10, 15), (5, 10)]), &[(5, 15)]);
        check(&runs(&[(0, 5), (20, 25), (10, 15), (15, 20)]), &[(0, 5), (10, 25)]);
        check(&runs(&[(0, 5), (10, 15), (20, 25), (0, 40)]), &[(0, 40)]);
        check(&runs(&[(-5, 0), (0, 5)]), &[(-5, 5)]);
    }

    #[test]
    fn the_smallest_gap_closes_first() {
        let mut runs = FiredRuns::default();
        // A reading every 5 minutes; after the 10th an absence of an hour.
        let mut at = 0;
        let (mut all, mut closed) = (FiredRuns::default(), 0);
        for index in 0..200 {
            assert_eq!(all.add(at, at + 5, RunLimits::NONE), 0);
            closed += runs.add(at, at + 5, RunLimits::COUNT);
            at += if index == 9 { 3_600 } else { 300 };
        }
        assert_eq!((runs.iter().count(), closed), (MAX_RUNS, 200 - MAX_RUNS as u64));
        assert_eq!(all.iter().count(), 200);
        assert_eq!(all.close_excess(i64::MAX), closed);
        assert_eq!(all, runs);
        assert_eq!(all.close_excess(i64::MAX), 0);
        assert!(!runs.overlap(9 * 300 + 5, 9 * 300 + 3_600), "the absence stays open");
        assert!(runs.overlap(10, 15), "the oldest short gap is closed");
    }

    #[test]
    fn a_gap_of_live_data_stays_open() {
        let mut runs = FiredRuns::default();
        let limits = |closed_ms| RunLimits { closed_ms, ..RunLimits::COUNT };
        // The newest gaps are the smallest, and nothing is closed for good behind 0.
        for index in 0..MAX_RUNS as i64 {
            assert_eq!(runs.add(-100_000 + 1_000 * index, -100_000 + 1_000 * index + 5, limits(0)), 0);
        }
        assert_eq!(runs.add(0, 5, limits(0)) + runs.add(10, 15, limits(0)) + runs.add(20, 25, limits(0)), 3);
        assert!(!runs.overlap(5, 10) && !runs.overlap(15, 20));
        assert_eq!(runs.add(40, 45, limits(20)), 1);
        assert!(runs.overlap(5, 10) && !runs.overlap(15, 20) && !runs.overlap(25, 40));
        // Without a gap that may close there are more runs.
        assert_eq!(runs.add(60, 65, limits(i64::MIN)), 0);
        assert_eq!(runs.iter().count(), MAX_RUNS + 1);
    }

    #[test]
    fn runs_that_are_too_old_become_one() {
        let mut runs = runs(&[(0, 5), (10, 15), (20, 25)]);
        runs.add(40, 45, RunLimits { oldest_ms: 15, ..RunLimits::COUNT });
        check(&runs, &[(i64::MIN, 15), (20, 25), (40, 45)]);
        runs.add(60, 65, RunLimits { oldest_ms: 22, ..RunLimits::COUNT });
        check(&runs, &[(i64::MIN, 22 + 3), (40, 45), (60, 65)]);
        // One run alone is not cut, however old its start is.
        let mut steady = FiredRuns::default();
        steady.add(0, 5, RunLimits { oldest_ms: 0, ..RunLimits::COUNT });
        steady.add(5, 10, RunLimits { oldest_ms: 8, ..RunLimits::COUNT });
        check(&steady, &[(0, 10)]);
    }

    #[test]
    fn what_is_not_known_counts_as_fired() {
        let mut runs = runs(&[(20, 25)]);
        runs.cover_before(10);
        check(&runs, &[(i64::MIN, 10), (20, 25)]);
        assert!(runs.overlap(-5, 0) && !runs.overlap(10, 15));
    }

    #[test]
    fn later_runs_are_forgotten() {
        let mut runs = runs(&[(0, 5), (10, 15), (20, 25)]);
        runs.cut_at(12);
        check(&runs, &[(0, 5), (10, 12)]);
        runs.cut_at(0);
        check(&runs, &[]);
    }

    #[test]
    fn damaged_runs_are_refused() {
        let mut bytes = Vec::new();
        runs(&[(0, 5), (10, 15)]).encode(&mut bytes);
        for len in 0..bytes.len() {
            assert!(FiredRuns::decode(&mut FieldReader::new(&bytes[..len])).is_err(), "prefix of {len} bytes");
        }
        assert!(FiredRuns::decode(&mut FieldReader::new(&[2, 0, 5, 0, 5])).is_err(), "runs that touch");
        assert!(FiredRuns::decode(&mut FieldReader::new(&[1, 0, 0])).is_err(), "an empty run");
    }

    proptest! {
        #[test]
        fn they_are_a_set_of_windows(starts in prop::collection::vec(0i64..60, 0..80)) {
            let (mut runs, mut model) = (FiredRuns::default(), BTreeSet::new());
            for start in starts {
                runs.add(start * 5, start * 5 + 5, RunLimits::COUNT);
                model.insert(start);
                for start in -1..61 {
                    prop_assert_eq!(runs.overlap(start * 5, start * 5 + 5), model.contains(&start), "{}", start);
                }
            }
            let mut bytes = Vec::new();
            runs.encode(&mut bytes);
            if !bytes.is_empty() {
                prop_assert_eq!(FiredRuns::decode(&mut FieldReader::new(&bytes)), Ok(runs));
            }
        }
    }
}
