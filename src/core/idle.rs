//! Times at which silent devices are looked at next, so that a batch costs nothing for devices that it does not concern.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::core::device::Slot;

/// A queue of (time, device), earliest first. A device may be in it several times: the entry that equals the device's
/// `queued_ms` counts, the others are stale.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(i64, Slot)>>,
}

impl Deadlines {
    /// Queues a device for a time.
    pub fn push(&mut self, at_ms: i64, slot: Slot) {
        self.heap.push(Reverse((at_ms, slot)));
    }

    /// Removes and returns the earliest entry, if its time has come.
    pub fn pop_due(&mut self, now_ms: i64) -> Option<(i64, Slot)> {
        let &Reverse(first) = self.heap.peek()?;
        if first.0 > now_ms {
            return None;
        }
        self.heap.pop();
        Some(first)
    }

    /// Number of entries, stale ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Keeps the entries for which `counts` holds.
    pub fn retain(&mut self, counts: impl Fn(i64, Slot) -> bool) {
        self.heap.retain(|&Reverse((at_ms, slot))| counts(at_ms, slot));
    }

    /// Drops all entries.
    pub fn clear(&mut self) {
        self.heap.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_entries_come_in_order() {
        let mut deadlines = Deadlines::default();
        for (at, slot) in [(30, 1), (10, 2), (20, 3), (20, 1)] {
            deadlines.push(at, slot);
        }
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(20), Some((10, 2)));
        deadlines.retain(|at, _| at != 30);
        assert_eq!(deadlines.pop_due(99), Some((20, 1)));
        assert_eq!(deadlines.pop_due(99), Some((20, 3)));
        assert_eq!(deadlines.pop_due(99), None);
        assert_eq!(deadlines.len(), 0);
    }
}
