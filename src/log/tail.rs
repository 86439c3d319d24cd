//! The newest batches of a log, kept in memory so that readers that keep up never touch the files.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Batch, Lsn};

/// The newest batches without a gap. The memory that they hold is bounded.
#[derive(Debug)]
pub(super) struct TailCache {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    max_bytes: usize,
}

impl TailCache {
    pub(super) fn new(max_bytes: usize) -> TailCache {
        TailCache { batches: VecDeque::new(), bytes: 0, max_bytes }
    }

    /// Adds the newest batch. Returns the buffer of an evicted batch that no reader holds, for reuse.
    pub(super) fn push(&mut self, batch: Arc<Batch>) -> Option<Vec<u8>> {
        self.bytes += batch.memory_bytes();
        self.batches.push_back(batch);
        self.shrink(self.max_bytes)
    }

    /// Evicts the oldest batches until at most `max_bytes` are held.
    pub(super) fn shrink(&mut self, max_bytes: usize) -> Option<Vec<u8>> {
        let mut reusable = None;
        while self.bytes > max_bytes {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.bytes -= oldest.memory_bytes();
            reusable = Arc::into_inner(oldest).map(Batch::into_bytes).or(reusable);
        }
        if self.batches.is_empty() {
            self.batches.shrink_to_fit();
        }
        reusable
    }

    /// The batch that holds `position`.
    pub(super) fn find(&self, position: Lsn) -> Option<Arc<Batch>> {
        let index = self.batches.partition_point(|batch| batch.end() <= position);
        self.batches.get(index).filter(|batch| batch.first() <= position).cloned()
    }

    /// Bytes of memory that the batches hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Records;

    fn batch(first: u64, count: u64) -> Arc<Batch> {
        let mut records = Records::default();
        for record in 0..count {
            records.push(&record.to_le_bytes());
        }
        Arc::new(Batch::from_records(Lsn(first), 0, &records))
    }

    #[test]
    fn records_are_found_in_their_batch() {
        let mut tail = TailCache::new(1 << 20);
        for first in [10, 13, 16] {
            assert!(tail.push(batch(first, 3)).is_none());
        }
        let found = |position| tail.find(Lsn(position)).map(|batch| batch.first().0);
        assert_eq!(
            [found(9), found(10), found(12), found(13), found(18), found(19)],
            [None, Some(10), Some(10), Some(13), Some(16), None]
        );
    }

    #[test]
    fn the_oldest_go_when_the_bound_is_reached() {
        let one = batch(0, 3).memory_bytes();
        let mut tail = TailCache::new(2 * one);
        let held = batch(0, 3);
        tail.push(Arc::clone(&held));
        tail.push(batch(3, 3));
        assert!(tail.push(batch(6, 3)).is_none(), "a reader holds the evicted batch");
        assert!(tail.find(Lsn(0)).is_none() && tail.find(Lsn(3)).is_some());
        assert!(tail.push(batch(9, 3)).is_some(), "nobody holds the evicted batch");
        assert_eq!(tail.bytes(), 2 * one);
        tail.shrink(0);
        assert_eq!(tail.bytes(), 0);
    }
}
