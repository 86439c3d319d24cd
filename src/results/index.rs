//! The index of an output log, in memory: the span of time of each block of records, and which window firings were
//! corrected later. A scan skips the blocks that it rules out.

use std::collections::VecDeque;

/// Records of one block. A log of 1 GiB has some thousand blocks, each of at most half a kilobyte in the index.
pub(super) const BLOCK_RECORDS: u64 = 4_096;
/// Blocks without records that stand for a gap. A larger gap begins the index anew.
const MAX_EMPTY_BLOCKS: u64 = 65_536;
const WORDS: usize = BLOCK_RECORDS as usize / 64;

/// What the index needs of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexEntry {
    /// The time that `from` and `to` select by, Unix milliseconds.
    pub time_ms: i64,
    /// The earlier record that this one corrects.
    pub supersedes: Option<u64>,
}

#[derive(Debug)]
struct IndexBlock {
    min_ms: i64,
    max_ms: i64,
    /// A bit per record that was corrected; allocated with the first.
    superseded: Option<Box<[u64; WORDS]>>,
}

impl IndexBlock {
    const EMPTY: IndexBlock = IndexBlock { min_ms: i64::MAX, max_ms: i64::MIN, superseded: None };
}

/// The index of the records `first_block * BLOCK_RECORDS .. next`.
#[derive(Debug, Default)]
pub(super) struct TimeIndex {
    blocks: VecDeque<IndexBlock>,
    first_block: u64,
    next: u64,
}

impl TimeIndex {
    /// Position of the first record that is not in the index yet.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Adds the record at `seq`. Records come in order; where some were freed unread the index begins anew, since
    /// none below them exist either.
    pub fn add(&mut self, seq: u64, entry: IndexEntry) {
        debug_assert!(seq >= self.next, "{seq} was added before");
        let block = seq / BLOCK_RECORDS;
        if block > self.first_block + self.blocks.len() as u64 || self.blocks.is_empty() {
            self.blocks.clear();
            self.first_block = block;
        }
        if block == self.first_block + self.blocks.len() as u64 {
            self.blocks.push_back(IndexBlock::EMPTY);
        }
        if let Some(last) = self.blocks.back_mut() {
            last.min_ms = last.min_ms.min(entry.time_ms);
            last.max_ms = last.max_ms.max(entry.time_ms);
        }
        if let Some(earlier) = entry.supersedes {
            self.mark(earlier);
        }
        self.next = seq + 1;
    }

    /// The records from the next one up to `end` are lost, and those below them are still there.
    pub fn skip_to(&mut self, end: u64) {
        let Some(last) = end.checked_sub(1).filter(|last| *last >= self.next) else { return };
        let (begin, block) = (self.next / BLOCK_RECORDS, last / BLOCK_RECORDS);
        if self.blocks.is_empty() {
            self.first_block = begin;
        }
        let known = self.first_block + self.blocks.len() as u64;
        if begin <= known && block.saturating_sub(known) < MAX_EMPTY_BLOCKS {
            self.blocks.extend((known..=block).map(|_| IndexBlock::EMPTY));
        }
        self.next = end;
    }

    fn mark(&mut self, seq: u64) {
        let bit = (seq % BLOCK_RECORDS) as usize;
        if let Some(block) = self.position(seq / BLOCK_RECORDS).and_then(|at| self.blocks.get_mut(at)) {
            block.superseded.get_or_insert_with(|| Box::new([0; WORDS]))[bit / 64] |= 1 << (bit % 64);
        }
    }

    /// Whether a later record corrects the one at `seq`.
    pub fn is_superseded(&self, seq: u64) -> bool {
        let bit = (seq % BLOCK_RECORDS) as usize;
        let block = self.position(seq / BLOCK_RECORDS).and_then(|at| self.blocks.get(at));
        block.and_then(|block| block.superseded.as_ref()).is_some_and(|bits| bits[bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// Whether the block that holds `seq` may have records with a time in `from_ms..to_ms`. Unknown blocks may.
    pub fn may_hold(&self, seq: u64, from_ms: i64, to_ms: i64) -> bool {
        let block = self.position(seq / BLOCK_RECORDS).and_then(|at| self.blocks.get(at));
        block.is_none_or(|block| block.max_ms >= from_ms && block.min_ms < to_ms)
    }

    /// Forgets blocks that lie wholly below `first`.
    pub fn trim(&mut self, first: u64) {
        while !self.blocks.is_empty() && (self.first_block + 1) * BLOCK_RECORDS <= first {
            self.blocks.pop_front();
            self.first_block += 1;
        }
    }

    fn position(&self, block: u64) -> Option<usize> {
        block.checked_sub(self.first_block).and_then(|at| usize::try_from(at).ok())
    }

    #[cfg(test)]
    fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn plain(time_ms: i64) -> IndexEntry {
        IndexEntry { time_ms, supersedes: None }
    }

    #[test]
    fn blocks_know_their_span_of_time() {
        let mut index = TimeIndex::default();
        index.add(0, plain(100));
        index.add(1, plain(50));
        index.add(BLOCK_RECORDS, plain(500));
        assert!(index.may_hold(1, 50, 51));
        assert!(!index.may_hold(0, 0, 50));
        assert!(!index.may_hold(0, 101, 1_000));
        assert!(index.may_hold(BLOCK_RECORDS + 7, 500, 501));
        assert!(index.may_hold(99 * BLOCK_RECORDS, 0, 1), "nothing is known of it");
    }

    #[test]
    fn it_begins_anew_behind_a_gap() {
        let mut index = TimeIndex::default();
        index.add(5, plain(1));
        index.add(3 * BLOCK_RECORDS, plain(2));
        assert_eq!((index.blocks(), index.next()), (1, 3 * BLOCK_RECORDS + 1));
        assert!(!index.may_hold(3 * BLOCK_RECORDS, 0, 2));
    }

    #[test]
    fn lost_records_leave_what_is_below_them() {
        let mut index = TimeIndex::default();
        index.add(0, plain(1));
        index.add(1, IndexEntry { time_ms: 2, supersedes: Some(0) });
        index.skip_to(1);
        index.skip_to(3 * BLOCK_RECORDS + 5);
        assert_eq!((index.blocks(), index.next()), (4, 3 * BLOCK_RECORDS + 5));
        index.add(3 * BLOCK_RECORDS + 5, plain(9));
        assert!(index.is_superseded(0));
        assert!(!index.may_hold(BLOCK_RECORDS, i64::MIN, i64::MAX));
        assert!(index.may_hold(3 * BLOCK_RECORDS, 9, 10) && !index.may_hold(3 * BLOCK_RECORDS, 0, 9));
    }

    #[test]
    fn an_index_can_begin_with_lost_records() {
        let mut index = TimeIndex::default();
        index.skip_to(BLOCK_RECORDS + 1);
        index.add(BLOCK_RECORDS + 1, plain(5));
        assert!(!index.may_hold(0, i64::MIN, i64::MAX) && index.may_hold(BLOCK_RECORDS, 5, 6));
        let mut index = TimeIndex::default();
        index.add(0, plain(5));
        index.skip_to(u64::from(u32::MAX));
        index.add(u64::from(u32::MAX), plain(6));
        assert!(index.blocks() == 1 && index.may_hold(0, 5, 6));
    }

    #[test]
    fn trimming_keeps_the_block_of_the_first_record() {
        let mut index = TimeIndex::default();
        for block in 0..4 {
            index.add(block * BLOCK_RECORDS, plain(block as i64));
        }
        index.trim(2 * BLOCK_RECORDS + 1);
        assert_eq!(index.blocks(), 2);
        index.add(3 * BLOCK_RECORDS + 1, IndexEntry { time_ms: 9, supersedes: Some(0) });
        assert!(!index.is_superseded(0), "it is gone");
        index.trim(u64::MAX);
        assert_eq!(index.blocks(), 0);
        index.add(10 * BLOCK_RECORDS, plain(1));
        assert_eq!(index.blocks(), 1);
    }

    proptest! {
        // Each case is thousands of records: fewer of them say as much.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn superseded_is_what_a_set_says(links in prop::collection::vec(prop::option::of(0u64..9_000), 1..9_000)) {
            let (mut index, mut model) = (TimeIndex::default(), BTreeSet::new());
            for (seq, link) in links.iter().enumerate() {
                let seq = seq as u64;
                let supersedes = link.filter(|earlier| *earlier < seq);
                index.add(seq, IndexEntry { time_ms: 0, supersedes });
                model.extend(supersedes);
            }
            for seq in 0..9_000 {
                prop_assert_eq!(index.is_superseded(seq), model.contains(&seq), "seq {}", seq);
            }
        }
    }
}
