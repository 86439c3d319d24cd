//! The queue of a log: records that wait for the writer, and the tasks that wait for room.
//!
//! Appends are packed into batches as they come, so the writer takes a batch that is ready to be written. The queue
//! bounds the bytes that wait; it does not write, and it does not decide when.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::batch::HEADER_BYTES;
use super::wakers::WakerSet;
use super::{AppendError, LogOptions, Lsn, Records};
use crate::clock::Clock;

/// Largest number of tasks that wait for room. A further task is told to try again at once: it polls in a loop, which is slow
/// and correct.
const MAX_ROOM_WAITERS: usize = 65_536;
/// Most buffers that are kept for reuse.
const MAX_SPARE_BUFFERS: usize = 2;
/// Capacity up to which a buffer is always kept for reuse.
const SMALL_BUFFER_BYTES: usize = 64 * 1024;

/// Records that will be one batch. The buffer begins with space for the batch's header, so that header and body are
/// written with one call and without a copy.
#[derive(Debug, Default)]
pub(super) struct PendingBatch {
    pub(super) buffer: Vec<u8>,
    pub(super) count: u32,
    pub(super) wakers: WakerSet,
    /// Time of the first append, see [`Clock::monotonic`].
    since: Duration,
}

impl PendingBatch {
    pub(super) fn body_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(HEADER_BYTES)
    }
}

/// The state that appending tasks and the writer share, under one lock.
#[derive(Debug)]
pub(super) struct CommitQueue {
    pending: VecDeque<PendingBatch>,
    /// Time of the first append to the batch that is being written.
    writing_since: Option<Duration>,
    clock: Arc<dyn Clock>,
    /// Body bytes in `pending` and in the batch being written.
    waiting_bytes: usize,
    max_waiting_bytes: usize,
    max_batch_bytes: usize,
    /// One past the newest record that was taken.
    pub(super) next: Lsn,
    /// Buffers for reuse.
    spare: Vec<Vec<u8>>,
    /// Size of recent batches: rises at once, falls slowly. New buffers are made for it.
    usual_batch_bytes: usize,
    /// Tasks that wait for room.
    room: WakerSet,
    /// Number of threads that wait for progress.
    pub(super) waiting_threads: usize,
    /// Whether the writer's thread waits for work and must be notified.
    pub(super) writer_waits: bool,
    /// Someone asked for a sync of everything below.
    pub(super) sync_below: Lsn,
    /// No checkpoint needs the records below.
    pub(super) released: Lsn,
    /// Whether to look for segments that can be freed.
    pub(super) retention_due: bool,
    /// Whether the file system has less free space than the reserve.
    pub(super) low_space: bool,
    /// Whether a batch found no disk space and waits.
    pub(super) stalled: bool,
    /// Whether the log is being closed: no more appends are taken, and the writer ends once the queue is written.
    pub(super) closing: bool,
    /// Whether the writer has ended.
    pub(super) ended: bool,
    /// Text of the failure that stopped the log.
    pub(super) failure: Option<String>,
}

impl CommitQueue {
    pub(super) fn new(options: &LogOptions, next: Lsn, clock: Arc<dyn Clock>) -> CommitQueue {
        CommitQueue {
            pending: VecDeque::new(),
            writing_since: None,
            clock,
            waiting_bytes: 0,
            max_waiting_bytes: options.queue_max_bytes.max(options.commit_max_bytes),
            max_batch_bytes: options.commit_max_bytes,
            next,
            spare: Vec::new(),
            usual_batch_bytes: 0,
            room: WakerSet::default(),
            waiting_threads: 0,
            writer_waits: false,
            sync_below: Lsn(0),
            released: Lsn(0),
            retention_due: true,
            low_space: false,
            stalled: false,
            closing: false,
            ended: false,
            failure: None,
        }
    }

    /// Whether no append is taken any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closing || self.failure.is_some()
    }

    pub(super) fn disk_full(&self) -> bool {
        self.low_space || self.stalled
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Takes records, and the task to wake when they are durable. Returns the position after the last of them. An append
    /// is never split over batches.
    pub(super) fn append(&mut self, records: &Records, waker: Option<&Waker>) -> Result<Lsn, AppendError> {
        let bytes = records.bytes();
        if self.is_closed() {
            return Err(AppendError::Closed);
        }
        if bytes > self.max_batch_bytes {
            return Err(AppendError::TooLarge { bytes, limit: self.max_batch_bytes });
        }
        if self.disk_full() || self.waiting_bytes + bytes > self.max_waiting_bytes {
            return Err(AppendError::Full);
        }
        if records.is_empty() {
            return Ok(self.next);
        }
        let max_batch_bytes = self.max_batch_bytes;
        if self.pending.back().is_none_or(|last| last.body_bytes() + bytes > max_batch_bytes) {
            let pending = self.new_pending(bytes);
            self.pending.push_back(pending);
        }
        if let Some(last) = self.pending.back_mut() {
            last.buffer.extend_from_slice(records.body());
            last.count += records.count();
            if let Some(waker) = waker {
                last.wakers.add(waker);
            }
        }
        self.waiting_bytes += bytes;
        self.next = self.next.plus(records.count());
        Ok(self.next)
    }

    fn new_pending(&mut self, bytes: usize) -> PendingBatch {
        let capacity = HEADER_BYTES + bytes.max(self.usual_batch_bytes.min(self.max_batch_bytes));
        let mut buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(capacity));
        buffer.clear();
        buffer.extend_from_slice(&[0; HEADER_BYTES]);
        PendingBatch { buffer, since: self.clock.monotonic(), ..PendingBatch::default() }
    }

    /// The next batch to write. Its bytes count as waiting until [`CommitQueue::written`].
    pub(super) fn take(&mut self) -> Option<PendingBatch> {
        let taken = self.pending.pop_front();
        self.writing_since = taken.as_ref().map(|pending| pending.since);
        taken
    }

    /// How long the oldest append has waited, or has been written, so far; `None`: everything is written, and in the journal
    /// synced.
    pub(super) fn oldest_age(&self) -> Option<Duration> {
        let since = self.writing_since.or_else(|| Some(self.pending.front()?.since))?;
        Some(self.clock.monotonic().saturating_sub(since))
    }

    /// Gives the room of a written batch back, and takes a buffer for reuse.
    pub(super) fn written(&mut self, body_bytes: usize, reusable: Option<Vec<u8>>) {
        self.writing_since = None;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(body_bytes);
        self.usual_batch_bytes = body_bytes.max(self.usual_batch_bytes - self.usual_batch_bytes / 8);
        let worth_keeping = SMALL_BUFFER_BYTES.max(self.usual_batch_bytes.saturating_mul(4));
        self.spare.retain(|buffer| buffer.capacity() <= worth_keeping);
        let reusable = reusable.filter(|buffer| buffer.capacity() <= worth_keeping);
        self.spare.extend(reusable);
        self.spare.truncate(MAX_SPARE_BUFFERS);
    }

    /// Whether the queue holds buffers that an idle log does not need.
    pub(super) fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// Frees the memory that an idle log does not need.
    pub(super) fn trim(&mut self) {
        self.spare = Vec::new();
        self.usual_batch_bytes = 0;
        if self.pending.is_empty() {
            self.pending.shrink_to_fit();
        }
    }

    /// Whether every append that is not too large for a batch would be taken. A weaker condition would let a task with a
    /// large append spin between "full" and "there is room".
    pub(super) fn has_room(&self) -> bool {
        !self.disk_full()
            && (self.waiting_bytes == 0 || self.waiting_bytes + self.max_batch_bytes <= self.max_waiting_bytes)
    }

    /// Registers a task to wake when there is room; `false` where too many wait already.
    pub(super) fn wait_for_room(&mut self, waker: &Waker) -> bool {
        if self.room.len() >= MAX_ROOM_WAITERS {
            return false;
        }
        self.room.add(waker);
        true
    }

    /// Takes the tasks to wake because there is room, or because there never will be.
    pub(super) fn take_room_waiters(&mut self) -> WakerSet {
        if self.has_room() || self.is_closed() { std::mem::take(&mut self.room) } else { WakerSet::default() }
    }

    /// Drops all records that wait and returns the tasks that wait for them or for room.
    pub(super) fn abandon(&mut self) -> WakerSet {
        let mut wakers = std::mem::take(&mut self.room);
        for pending in self.pending.drain(..) {
            wakers.append(pending.wakers);
        }
        self.waiting_bytes = 0;
        self.writing_since = None;
        self.trim();
        wakers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::log::tests::{options, records};
    use crate::log::wakers::tests::Bell;

    fn queue(max_batch: usize, max_waiting: usize) -> CommitQueue {
        let options = LogOptions { commit_max_bytes: max_batch, queue_max_bytes: max_waiting, ..options() };
        CommitQueue::new(&options, Lsn(0), Arc::new(SystemClock))
    }

    /// Records of 9 bytes each: `count` of them take 9 × `count` bytes.
    fn of_bytes(count: u64) -> Records {
        let mut records = Records::default();
        for _ in 0..count {
            records.push(&[0; 8]);
        }
        records
    }

    #[test]
    fn room_means_that_any_append_is_taken() {
        let mut queue = queue(90, 180);
        let mut taken = 0;
        while queue.append(&of_bytes(1), None).is_ok() {
            taken += 9;
            assert_eq!(queue.has_room(), taken + 90 <= 180, "at {taken} bytes");
        }
        assert_eq!((taken, queue.waiting_bytes()), (180, 180));
        let first = queue.take().unwrap();
        assert_eq!(queue.waiting_bytes(), 180, "what is being written still counts");
        queue.written(first.body_bytes(), None);
        assert!(queue.has_room());
        assert!(queue.append(&of_bytes(10), None).is_ok());
    }

    #[test]
    fn an_append_waits_until_it_is_written() {
        let mut queue = queue(90, 180);
        assert_eq!(queue.oldest_age(), None);
        queue.append(&of_bytes(10), None).unwrap();
        queue.append(&of_bytes(10), None).unwrap();
        assert!(queue.oldest_age().is_some());
        let first = queue.take().unwrap();
        assert!(queue.oldest_age().is_some(), "what is being written still waits");
        queue.written(first.body_bytes(), None);
        let second = queue.take().unwrap();
        queue.written(second.body_bytes(), None);
        assert_eq!(queue.oldest_age(), None);
    }

    #[test]
    fn an_append_as_large_as_a_batch_fits_a_queue_that_is_no_larger() {
        let mut queue = queue(90, 10);
        assert!(queue.has_room() && queue.append(&of_bytes(10), None).is_ok());
        assert!(!queue.has_room());
        let pending = queue.take().unwrap();
        queue.written(pending.body_bytes(), None);
        assert!(queue.has_room());
    }

    #[test]
    fn buffers_of_a_burst_are_not_kept() {
        let mut queue = queue(1 << 22, 1 << 23);
        queue.written(1 << 22, Some(Vec::with_capacity(1 << 22)));
        assert!(queue.has_spare());
        for _ in 0..100 {
            queue.written(100, None);
        }
        assert!(!queue.has_spare());
        queue.written(100, Some(Vec::with_capacity(1000)));
        assert!(queue.has_spare());
        queue.trim();
        assert!(!queue.has_spare());
    }

    #[test]
    fn a_reused_buffer_begins_with_space_for_a_header() {
        let mut queue = queue(1000, 1000);
        queue.written(0, Some(vec![0xEE; 200]));
        queue.append(&records(0..3), None).unwrap();
        let pending = queue.take().unwrap();
        assert_eq!(pending.buffer[..HEADER_BYTES], [0; HEADER_BYTES]);
        assert_eq!(&pending.buffer[HEADER_BYTES..], records(0..3).body());
        assert_eq!((pending.count, queue.next), (3, Lsn(3)));
    }

    #[test]
    fn a_failure_wakes_all_and_drops_what_waits() {
        let mut queue = queue(1000, 1000);
        let ((waits, waits_waker), (room, room_waker)) = (Bell::new(), Bell::new());
        queue.append(&records(0..3), Some(&waits_waker)).unwrap();
        assert!(queue.wait_for_room(&room_waker));
        queue.failure = Some("gone".to_owned());
        queue.abandon().wake();
        assert_eq!((waits.rings(), room.rings(), queue.waiting_bytes()), (1, 1, 0));
        assert_eq!(queue.append(&records(3..4), None), Err(AppendError::Closed));
        assert!(queue.take().is_none());
    }
}
