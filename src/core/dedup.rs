//! Sets of sequence numbers, stored as ranges: the numbers seen from a device, and the numbers of errors that were
//! replayed.

use crate::core::codec::{DecodeError, FieldReader, put_u64};
use crate::core::rare_list::RareList;

/// Largest number of ranges in the set of a device. Beyond it the two lowest ranges merge, so that the numbers between
/// them count as seen.
pub(super) const MAX_RANGES: usize = 256;

/// A set of sequence numbers, kept as at most `MAX` ranges. Both ends of a range belong to it, and no two ranges touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SequenceSet<const MAX: usize = MAX_RANGES> {
    /// The highest range. It is kept apart because it is the one that grows.
    top: Option<(u64, u64)>,
    /// The other ranges, in ascending order. Most sets have none.
    lower: RareList<(u64, u64)>,
}

impl<const MAX: usize> SequenceSet<MAX> {
    /// Whether `seq` is in the set.
    #[inline]
    pub fn contains(&self, seq: u64) -> bool {
        match self.top {
            None => false,
            Some((low, high)) if seq >= low => seq <= high,
            Some(_) => self.lower_at(seq).is_ok(),
        }
    }

    /// Index of the lower range that holds `seq`, or where a range for it belongs.
    fn lower_at(&self, seq: u64) -> Result<usize, usize> {
        let index = self.lower.partition_point(|&(_, high)| high < seq);
        match self.lower.get(index) {
            Some(&(low, _)) if low <= seq => Ok(index),
            _ => Err(index),
        }
    }

    /// Inserts `seq` if it is the number behind the highest one. Returns whether it is.
    #[inline]
    pub fn extend(&mut self, seq: u64) -> bool {
        match &mut self.top {
            Some((_, high)) if high.checked_add(1) == Some(seq) => {
                *high = seq;
                true
            }
            _ => false,
        }
    }

    /// Inserts `seq`. Returns whether two ranges had to be merged, because there were more than `MAX`.
    #[inline]
    pub fn insert(&mut self, seq: u64) -> bool {
        if self.extend(seq) {
            return false;
        }
        match &mut self.top {
            None => {
                self.top = Some((seq, seq));
                false
            }
            Some((low, high)) if (*low..=*high).contains(&seq) => false,
            Some(_) => self.insert_apart(seq),
        }
    }

    /// Inserts a number that is not in the highest range and does not extend it upwards.
    fn insert_apart(&mut self, seq: u64) -> bool {
        let Some((top_low, top_high)) = self.top else { return false };
        if seq > top_high {
            self.lower.vec_mut().push((top_low, top_high));
            self.top = Some((seq, seq));
            return self.bound();
        }
        let Err(index) = self.lower_at(seq) else { return false };
        let joins_below = index > 0 && self.lower.get(index - 1).is_some_and(|&(_, high)| high + 1 == seq);
        let above = self.lower.get(index).map_or(top_low, |&(low, _)| low);
        match (joins_below, above == seq + 1) {
            (true, true) => {
                let (low, _) = self.lower.vec_mut().remove(index - 1);
                self.set_low(index - 1, low);
            }
            (true, false) => {
                if let Some((_, high)) = self.lower.vec_mut().get_mut(index - 1) {
                    *high = seq;
                }
            }
            (false, true) => self.set_low(index, seq),
            (false, false) => self.lower.vec_mut().insert(index, (seq, seq)),
        }
        self.bound()
    }

    /// Extends a range downwards to `low`: the lower range at `index`, or the highest range where `index` is behind the
    /// others.
    fn set_low(&mut self, index: usize, low: u64) {
        if index >= self.lower.len() {
            self.lower.drop_empty();
            self.top = self.top.map(|(_, high)| (low, high));
        } else if let Some(range) = self.lower.vec_mut().get_mut(index) {
            range.0 = low;
        }
    }

    fn bound(&mut self) -> bool {
        if self.lower.len() < MAX {
            return false;
        }
        let (low, _) = self.lower.vec_mut().remove(0);
        self.set_low(0, low);
        true
    }

    /// Inserts all numbers between the lowest one and `seq`, those above the highest one excepted.
    pub fn close_below(&mut self, seq: u64) {
        let next = seq.saturating_add(1);
        let joined = self.lower.partition_point(|&(low, _)| low <= next);
        let Some(&(lowest, _)) = self.lower.first().filter(|_| joined > 0) else { return };
        match &mut self.top {
            Some((low, _)) if *low <= next => {
                *low = lowest;
                self.lower = RareList::default();
            }
            _ => {
                let lower = self.lower.vec_mut();
                let high = lower.get(joined - 1).map_or(seq, |&(_, high)| high.max(seq));
                lower.splice(..joined, [(lowest, high)]);
            }
        }
    }

    /// The highest number.
    #[inline]
    pub fn top(&self) -> Option<u64> {
        self.top.map(|(_, high)| high)
    }

    /// Removes the numbers above `seq`.
    pub fn remove_above(&mut self, seq: u64) {
        while let Some((low, high)) = self.top
            && high > seq
        {
            self.top = if low <= seq { Some((low, seq)) } else { self.lower.pop() };
        }
    }

    /// Removes all numbers.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.lower.iter().copied().chain(self.top)
    }

    /// Numbers between the lowest and the highest that are not in the set.
    pub fn missing(&self) -> u64 {
        let gaps = self.ranges().zip(self.ranges().skip(1));
        gaps.map(|((_, high), (low, _))| low - high - 1).fold(0, u64::saturating_add)
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(self.ranges().count() as u64, out);
        let mut from = 0;
        for (low, high) in self.ranges() {
            put_u64(low - from, out);
            put_u64(high - low, out);
            from = high;
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut set = Self::default();
        let mut from: u64 = 0;
        for index in 0..reader.count()? {
            let low = from.checked_add(reader.u64()?).ok_or("sequence range")?;
            let high = low.checked_add(reader.u64()?).ok_or("sequence range")?;
            if index > 0 && low - from < 2 {
                return Err(DecodeError::Content("sequence ranges that touch"));
            }
            if let Some(lower) = set.top.replace((low, high)) {
                set.lower.vec_mut().push(lower);
            }
            from = high;
        }
        if set.lower.len() >= MAX { Err(DecodeError::Content("too many sequence ranges")) } else { Ok(set) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn check(inserted: &[u64], expected: &[(u64, u64)]) {
        let mut set: SequenceSet = SequenceSet::default();
        for &seq in inserted {
            assert!(!set.insert(seq));
        }
        assert_eq!(set.ranges().collect::<Vec<_>>(), expected, "{inserted:?}");
    }

    #[test]
    fn ranges_grow_and_join() {
        check(&[], &[]);
        check(&[5, 6, 7], &[(5, 7)]);
        check(&[5, 4], &[(4, 5)]);
        check(&[5, 7], &[(5, 5), (7, 7)]);
        check(&[5, 7, 6], &[(5, 7)]);
        check(&[1, 3, 5, 7, 4], &[(1, 1), (3, 5), (7, 7)]);
        check(&[1, 3, 9, 2], &[(1, 3), (9, 9)]);
        check(&[1, 9, 2], &[(1, 2), (9, 9)]);
        check(&[4, 9, 3], &[(3, 4), (9, 9)]);
        check(&[9, 1, 5, 5, 1], &[(1, 1), (5, 5), (9, 9)]);
        check(&[u64::MAX, 0, u64::MAX], &[(0, 0), (u64::MAX, u64::MAX)]);
        check(&[u64::MAX - 1, u64::MAX, u64::MAX], &[(u64::MAX - 1, u64::MAX)]);
    }

    #[test]
    fn beyond_the_bound_the_two_lowest_merge() {
        let mut set: SequenceSet = SequenceSet::default();
        for seq in 0..256 {
            assert!(!set.insert(seq * 10));
        }
        assert!(set.insert(2560));
        assert_eq!(set.ranges().count(), MAX_RANGES);
        assert_eq!(set.ranges().next(), Some((0, 10)));
        assert!(set.insert(5 + 10));
        assert_eq!(set.ranges().next(), Some((0, 15)));
    }

    #[test]
    fn missing_counts_gaps() {
        let mut set: SequenceSet = SequenceSet::default();
        assert_eq!(set.missing(), 0);
        for seq in [1, 4, 5, 10] {
            set.insert(seq);
        }
        assert_eq!(set.missing(), 2 + 4);
        set.clear();
        assert!(!set.contains(1));
    }

    proptest! {
        #[test]
        fn is_a_set(seqs in prop::collection::vec(0u64..100, 0..200), above in 0u64..100) {
            let (mut set, mut model): (SequenceSet, _) = (SequenceSet::default(), BTreeSet::new());
            for seq in seqs {
                prop_assert_eq!(set.contains(seq), model.contains(&seq));
                set.insert(seq);
                model.insert(seq);
            }
            for seq in 0..100 {
                prop_assert_eq!(set.contains(seq), model.contains(&seq), "{}", seq);
            }
            prop_assert_eq!(set.top(), model.last().copied());
            let mut lower = set.clone();
            lower.remove_above(above);
            for seq in 0..100 {
                prop_assert_eq!(lower.contains(seq), seq <= above && model.contains(&seq), "{} of those up to {}", seq, above);
            }
            let mut closed = set.clone();
            closed.close_below(above);
            let lowest = model.first().copied().unwrap_or(100);
            let closed_to = above.min(model.last().copied().unwrap_or(0));
            for seq in 0..100 {
                let expected = model.contains(&seq) || (lowest..=closed_to).contains(&seq);
                prop_assert_eq!(closed.contains(seq), expected, "{} with all up to {}", seq, above);
            }
            let ranges: Vec<_> = closed.ranges().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let ranges: Vec<_> = set.ranges().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            prop_assert_eq!(SequenceSet::<MAX_RANGES>::decode(&mut FieldReader::new(&bytes)), Ok(set));
        }
    }
}
