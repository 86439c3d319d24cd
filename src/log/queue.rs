//! What waits for the writer.

use std::collections::VecDeque;
use std::task::Waker;

use super::batch::HEADER_BYTES;
use super::wakers::WakerSet;
use super::{AppendError, LogOptions, Lsn, Records};

/// Tasks that may wait for room; one more is told to try again at once, which is slow and not wrong.
const MAX_ROOM_WAITERS: usize = 65_536;
/// Buffers kept for reuse.
const MAX_SPARE_BUFFERS: usize = 2;
/// A buffer of this capacity is always worth keeping.
const SMALL_BUFFER_BYTES: usize = 64 * 1024;

/// Records that will be one batch. Space for the batch's header is reserved in front, so that header and body are
/// written with one call and without a copy.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) buffer: Vec<u8>,
    pub(super) count: u32,
    pub(super) wakers: WakerSet,
}

impl Pending {
    pub(super) fn body_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(HEADER_BYTES)
    }
}

/// State shared by those who append and the writer, under one lock.
#[derive(Debug)]
pub(super) struct Queue {
    pending: VecDeque<Pending>,
    /// Body bytes in `pending` and in the batch being written.
    waiting_bytes: usize,
    max_waiting_bytes: usize,
    max_batch_bytes: usize,
    /// One past the newest record taken.
    pub(super) next: Lsn,
    spare: Vec<Vec<u8>>,
    /// Size of recent batches: falls slowly, rises at once.
    usual_batch_bytes: usize,
    room: WakerSet,
    /// Threads that wait for progress.
    pub(super) waiting_threads: usize,
    /// The writer waits for work.
    pub(super) writer_waits: bool,
    /// Everything below shall be synced.
    pub(super) sync_below: Lsn,
    /// Records below are not needed by their reader.
    pub(super) released: Lsn,
    /// Segments may have become free.
    pub(super) retention_due: bool,
    /// The file system has less than the reserve.
    pub(super) low_space: bool,
    /// A write found no space and waits.
    pub(super) stalled: bool,
    /// No more appends; the writer ends once it has written what waits.
    pub(super) closing: bool,
    /// The writer has ended.
    pub(super) ended: bool,
    pub(super) failure: Option<String>,
}

impl Queue {
    pub(super) fn new(options: &LogOptions, next: Lsn) -> Queue {
        Queue {
            pending: VecDeque::new(),
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

    /// Whether nothing is taken any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closing || self.failure.is_some()
    }

    pub(super) fn disk_full(&self) -> bool {
        self.low_space || self.stalled
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Takes records and the task to wake when they are durable. An append is never split over batches.
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

    fn new_pending(&mut self, bytes: usize) -> Pending {
        let capacity = HEADER_BYTES + bytes.max(self.usual_batch_bytes.min(self.max_batch_bytes));
        let mut buffer = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(capacity));
        buffer.clear();
        buffer.extend_from_slice(&[0; HEADER_BYTES]);
        Pending { buffer, ..Pending::default() }
    }

    /// The next batch to write. Its bytes count as waiting until [`Queue::written`].
    pub(super) fn take(&mut self) -> Option<Pending> {
        self.pending.pop_front()
    }

    /// A batch was written: its room is free, its buffer may be reused.
    pub(super) fn written(&mut self, body_bytes: usize, reusable: Option<Vec<u8>>) {
        self.waiting_bytes = self.waiting_bytes.saturating_sub(body_bytes);
        self.usual_batch_bytes = body_bytes.max(self.usual_batch_bytes - self.usual_batch_bytes / 8);
        let worth_keeping = SMALL_BUFFER_BYTES.max(self.usual_batch_bytes.saturating_mul(4));
        self.spare.retain(|buffer| buffer.capacity() <= worth_keeping);
        if let Some(buffer) = reusable.filter(|buffer| buffer.capacity() <= worth_keeping) {
            if self.spare.len() < MAX_SPARE_BUFFERS {
                self.spare.push(buffer);
            }
        }
    }

    /// Whether buffers lie about that an idle log need not hold.
    pub(super) fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// Frees what an idle log need not hold.
    pub(super) fn trim(&mut self) {
        self.spare = Vec::new();
        self.usual_batch_bytes = 0;
        if self.pending.is_empty() {
            self.pending.shrink_to_fit();
        }
    }

    /// Whether any append that is not too large for a batch would be taken. Asking for less than that would let a
    /// task with a large append spin between "full" and "there is room".
    pub(super) fn has_room(&self) -> bool {
        !self.disk_full()
            && (self.waiting_bytes == 0 || self.waiting_bytes + self.max_batch_bytes <= self.max_waiting_bytes)
    }

    /// Registers a task to wake when there is room; `false`: too many wait already.
    pub(super) fn wait_for_room(&mut self, waker: &Waker) -> bool {
        if self.room.len() >= MAX_ROOM_WAITERS {
            return false;
        }
        self.room.add(waker);
        true
    }

    /// The tasks to wake because there is room now, or because there never will be.
    pub(super) fn take_room_waiters(&mut self) -> WakerSet {
        if self.has_room() || self.is_closed() { std::mem::take(&mut self.room) } else { WakerSet::default() }
    }

    /// Drops what waits; returns the tasks that wait for it.
    pub(super) fn abandon(&mut self) -> WakerSet {
        let mut wakers = std::mem::take(&mut self.room);
        for pending in self.pending.drain(..) {
            wakers.append(pending.wakers);
        }
        self.waiting_bytes = 0;
        self.trim();
        wakers
    }
}
