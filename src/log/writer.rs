//! The writer of a log: group commit, syncs, rotation of segments, retention and disk space.
//!
//! # One commit
//!
//! The writer takes the oldest batch of the queue, begins a new segment if the active one is large enough, writes the
//! header into the space in front of the records, and writes header and records with one call at the end of the file. The
//! journal's batch is then synced. Only after that the batch is published: it is added to the tail, the readable and
//! durable positions move, and the tasks that wait for these records are woken. An acknowledgement is sent by such a task,
//! so it always follows the sync.
//!
//! The header carries `synced_below`, the position up to which the log was synced when the header was made. Recovery tells
//! a torn tail from damage by it, so it must never be ahead of a sync that succeeded.
//!
//! # Failures
//!
//! A write without space changes nothing: the file is cut back to its length before, and the same batch, with the same
//! header, is tried again later. Every other failed write, and every failed sync, stops the log for good.
//!
//! # Waiting
//!
//! The writer never waits. [`LogWriter::next_work`] says what there is to do or until when there is nothing, and
//! [`LogWriter::perform`] does it; the driver waits in between. While it writes or syncs it holds no lock
//! of the state that it shares with users and readers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::active::{self, ActiveSegment};
use super::batch::{BatchHeader, HEADER_BYTES};
use super::checksum::crc32c;
use super::error::WriterError;
use super::meters::LogMeters;
use super::queue::{CommitQueue, PendingBatch};
use super::retention::next_to_free;
use super::segment::{self, Predecessor, Segment, SegmentHeader};
use super::shared::LogState;
use super::space::SpaceCheck;
use super::wakers::WakerSet;
use super::{Batch, Lsn, SyncPolicy};
use crate::clock::Clock;
use crate::defects::{self, Defect};
use crate::disk::is_full;
use crate::sync::lock;

/// Pause between two attempts on a full disk.
pub(super) const FULL_RETRY: Duration = Duration::from_millis(250);
/// Time without work after which a log frees its buffers.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Bytes of the newest batches that an idle log keeps in memory.
const IDLE_TAIL_BYTES: usize = 128 * 1024;

/// One unit of the writer's work.
#[derive(Debug)]
pub(super) enum WriterWork {
    /// Writes a batch, and in the journal syncs it.
    Commit(Commit),
    /// Syncs the batches that were written before.
    Sync,
    /// Frees segments that retention no longer keeps.
    Retain,
    /// Compares the free space with the reserve.
    CheckSpace,
    /// Frees the buffers of an idle log.
    Trim,
    /// Syncs the last batches and ends.
    End,
}

/// A batch on its way to the disk.
#[derive(Debug)]
pub(super) struct Commit {
    pending: PendingBatch,
    /// The header of the batch, once it was made; `None` before. A full disk can stop a batch before or after that. A second
    /// attempt writes the same header.
    sealed: Option<BatchHeader>,
    /// Whether an earlier attempt found no disk space.
    has_stalled: bool,
}

/// What [`LogWriter::next_work`] found.
#[derive(Debug)]
pub(super) enum NextWork {
    Do(WriterWork),
    /// There is nothing to do until something is asked for, or until this moment of [`Clock::monotonic`].
    Wait(Option<Duration>),
    /// There will never be anything to do again.
    Ended,
}

/// Why a batch is not on disk.
enum CommitError {
    /// There was no space: nothing was changed, and the batch can be tried again.
    Full(io::Error),
    /// The log can no longer be trusted.
    Failed(WriterError),
}

impl From<io::Error> for CommitError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { CommitError::Full(error) } else { CommitError::Failed(error.into()) }
    }
}

/// The writer of one log.
#[derive(Debug)]
pub(super) struct LogWriter {
    shared: Arc<LogState>,
    clock: Arc<dyn Clock>,
    meters: LogMeters,
    active: ActiveSegment,
    /// Arrival time of the newest batch.
    arrival_ms: Option<i64>,
    /// One past the last record that was written.
    written: Lsn,
    /// One past the last record that was synced.
    synced: Lsn,
    /// Tasks whose records are written and not synced.
    unsynced: WakerSet,
    space: SpaceCheck,
    /// Whether a segment was removed and the sync of the directory failed.
    has_unsynced_removal: bool,
    /// The batch that found no disk space, and when it is tried again.
    stalled: Option<(Commit, Duration)>,
    /// Since when there was nothing to do.
    idle_since: Option<Duration>,
    ended: bool,
}

impl LogWriter {
    pub(super) fn new(
        shared: Arc<LogState>,
        clock: Arc<dyn Clock>,
        meters: LogMeters,
        active: ActiveSegment,
        arrival_ms: Option<i64>,
    ) -> LogWriter {
        let end = shared.durable();
        LogWriter {
            space: SpaceCheck::new(shared.options.min_free_bytes),
            has_unsynced_removal: false,
            shared,
            clock,
            meters,
            active,
            arrival_ms,
            written: end,
            synced: end,
            unsynced: WakerSet::default(),
            stalled: None,
            idle_since: None,
            ended: false,
        }
    }

    /// Compares the free space with the reserve before the first append.
    pub(super) fn check_space_at_start(&mut self) {
        self.check_space();
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn shared(&self) -> &LogState {
        &self.shared
    }

    /// Finds the next unit of work. The caller holds the lock of `queue` and waits under the same lock, so no request is
    /// missed between the look and the wait.
    pub(super) fn next_work(&mut self, queue: &mut CommitQueue) -> NextWork {
        if self.ended {
            return NextWork::Ended;
        }
        if let Some(work) = self.waiting_work(queue) {
            self.idle_since = None;
            return NextWork::Do(work);
        }
        if let Some((_, retry_at)) = &self.stalled {
            return NextWork::Wait(Some(*retry_at));
        }
        let may_trim = queue.has_spare() || lock(&self.shared.tail).bytes() > IDLE_TAIL_BYTES;
        if !queue.low_space && !may_trim {
            return NextWork::Wait(None);
        }
        let now = self.clock.monotonic();
        let (due, work) = match queue.low_space {
            true => (self.space.last().map_or(now, |last| last + FULL_RETRY), WriterWork::CheckSpace),
            false => (*self.idle_since.get_or_insert(now) + IDLE_AFTER, WriterWork::Trim),
        };
        if due <= now { NextWork::Do(work) } else { NextWork::Wait(Some(due)) }
    }

    fn waiting_work(&mut self, queue: &mut CommitQueue) -> Option<WriterWork> {
        if self.written >= queue.sync_below && queue.sync_below > self.synced {
            return Some(WriterWork::Sync);
        }
        if std::mem::take(&mut queue.retention_due) {
            return Some(WriterWork::Retain);
        }
        if let Some((commit, retry_at)) = self.stalled.take() {
            if queue.closing || retry_at <= self.clock.monotonic() {
                return Some(WriterWork::Commit(commit));
            }
            self.stalled = Some((commit, retry_at));
            return None;
        }
        match queue.take() {
            Some(pending) => Some(WriterWork::Commit(Commit { pending, sealed: None, has_stalled: false })),
            None if queue.closing => Some(WriterWork::End),
            None => None,
        }
    }

    /// Does a unit of work. A failure stops the log for good.
    pub(super) fn perform(&mut self, work: WriterWork) {
        let done = match work {
            WriterWork::Commit(commit) => self.commit(commit),
            WriterWork::Sync => self.sync(),
            WriterWork::Retain => {
                self.retain();
                Ok(())
            }
            WriterWork::CheckSpace => {
                self.check_space();
                Ok(())
            }
            WriterWork::Trim => {
                self.trim();
                Ok(())
            }
            WriterWork::End => {
                let synced = if self.synced < self.written { self.sync() } else { Ok(()) };
                self.ended = true;
                synced
            }
        };
        if let Err(error) = done {
            self.shared.fail(&error);
            self.ended = true;
        }
        if self.ended {
            self.end();
        }
    }

    /// Ends the writer and wakes everyone who waits: nothing more will be written.
    pub(super) fn end(&mut self) {
        self.ended = true;
        if let Some((commit, _)) = self.stalled.take() {
            self.unsynced.append(commit.pending.wakers);
        }
        std::mem::take(&mut self.unsynced).wake();
        let mut queue = lock(&self.shared.queue);
        queue.ended = true;
        queue.closing = true;
        drop(queue);
        self.shared.progress.notify_all();
    }

    /// Writes, syncs and publishes a batch, or puts it aside where the disk is full.
    fn commit(&mut self, mut commit: Commit) -> Result<(), WriterError> {
        let header = match self.put_on_disk(&mut commit) {
            Ok(header) => header,
            Err(CommitError::Full(error)) => return self.stall(commit, error),
            Err(CommitError::Failed(error)) => {
                self.unsynced.append(commit.pending.wakers);
                return Err(error);
            }
        };
        self.written = header.end();
        self.unsynced.append(std::mem::take(&mut commit.pending.wakers));
        if commit.has_stalled {
            self.end_of_stall();
        }
        self.meters.batch_written(header.count, commit.pending.buffer.len());
        if self.shared.options.sync == SyncPolicy::EveryCommit {
            self.sync_file()?;
        }
        self.publish(header, commit.pending);
        if self.space.count_write(header.batch_bytes(), self.clock.monotonic()) {
            self.check_space();
        }
        Ok(())
    }

    fn put_on_disk(&mut self, commit: &mut Commit) -> Result<BatchHeader, CommitError> {
        let header = match commit.sealed {
            Some(header) => header,
            None => {
                self.rotate_if_due()?;
                *commit.sealed.insert(self.seal(&mut commit.pending))
            }
        };
        self.write(&commit.pending.buffer)?;
        Ok(header)
    }

    /// Makes the batch's header and writes it into the space in front of the records.
    fn seal(&mut self, pending: &mut PendingBatch) -> BatchHeader {
        let (arrival_ms, sets_clock_back) = self.next_arrival();
        self.arrival_ms = Some(arrival_ms);
        let (space, body) = pending.buffer.split_at_mut(HEADER_BYTES);
        let header = BatchHeader {
            first: self.written,
            count: pending.count,
            body_bytes: body.len() as u32,
            arrival_ms,
            synced_below: self.synced,
            body_crc: crc32c(body),
            is_hole: false,
            sets_clock_back,
        };
        space.copy_from_slice(&header.encode(self.active.seed));
        header
    }

    /// Arrival time of the next batch, and whether it goes back. It goes back where the clock is behind the newest batch by
    /// more than the tolerance; else it stands still until the clock has come there.
    fn next_arrival(&self) -> (i64, bool) {
        let now_ms = self.clock.now_ms();
        let Some(before_ms) = self.arrival_ms.filter(|_| !defects::is(Defect::ArrivalGoesBack)) else {
            return (now_ms, false);
        };
        let is_set_back = before_ms.saturating_sub(now_ms) > self.shared.options.clock_tolerance_ms;
        if is_set_back && !defects::is(Defect::ArrivalNeverGoesBack) {
            (now_ms, true)
        } else {
            (before_ms.max(now_ms), false)
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        let ActiveSegment { file, offset, .. } = &mut self.active;
        if let Err(error) = file.write_all_at(bytes, *offset) {
            if is_full(&error) {
                // The file is as long as before: the part that was written gives its space back, and no half batch stays.
                file.set_len(*offset).map_err(|error| CommitError::Failed(error.into()))?;
            }
            return Err(error.into());
        }
        *offset += bytes.len() as u64;
        Ok(())
    }

    /// Makes a written batch visible to readers, wakes the tasks that wait for it if it is synced, and gives its room in
    /// the queue back. The batch is in the tail and in the list of segments before the position moves: whoever sees the
    /// new position finds the batch.
    fn publish(&mut self, header: BatchHeader, pending: PendingBatch) {
        let body_bytes = pending.body_bytes();
        let (bytes, spare) = split_for_tail(pending.buffer);
        let batch = Arc::new(Batch::new(header, bytes));
        if let Some(active) = lock(&self.shared.segments).list.back_mut() {
            active.grow(header.first, header.end(), header.arrival_ms, header.batch_bytes());
        }
        let evicted = lock(&self.shared.tail).push(batch);
        self.shared.set_readable(header.end());
        if self.synced == self.written {
            self.shared.set_durable(self.synced);
            std::mem::take(&mut self.unsynced).wake();
        }
        self.shared.wake_watchers();
        let mut queue = lock(&self.shared.queue);
        queue.written(body_bytes, spare.or(evicted));
        self.notify(queue);
    }

    /// Wakes the tasks and threads that wait for room or progress, after the lock of the queue is released.
    fn notify(&self, mut queue: std::sync::MutexGuard<'_, CommitQueue>) {
        let room = queue.take_room_waiters();
        let threads_wait = queue.waiting_threads > 0;
        drop(queue);
        if threads_wait {
            self.shared.progress.notify_all();
        }
        room.wake();
    }

    /// Syncs the batches that are written, moves the durable position and wakes the tasks that wait for it.
    fn sync(&mut self) -> Result<(), WriterError> {
        self.sync_file()?;
        self.shared.set_durable(self.synced);
        std::mem::take(&mut self.unsynced).wake();
        self.notify(lock(&self.shared.queue));
        Ok(())
    }

    fn sync_file(&mut self) -> Result<(), WriterError> {
        let begun = self.clock.monotonic();
        let skips = defects::is(Defect::AcknowledgeBeforeSync) && self.shared.options.sync == SyncPolicy::EveryCommit;
        let synced = if skips { Ok(()) } else { self.active.file.sync() };
        synced.or_else(|error| if defects::is(Defect::DurableAfterFailedSync) { Ok(()) } else { Err(error) })?;
        self.meters.synced(self.clock.monotonic().saturating_sub(begun));
        self.synced = self.written;
        Ok(())
    }

    /// Closes the active segment once it is large enough, and begins the next. The closed segment is synced first: recovery
    /// takes the existence of a segment as proof that everything before it is synced.
    fn rotate_if_due(&mut self) -> Result<(), CommitError> {
        let is_empty = self.active.first == self.written;
        if is_empty || self.active.offset < self.shared.options.segment_bytes {
            return Ok(());
        }
        if self.synced < self.written {
            self.sync().map_err(CommitError::Failed)?;
        }
        let header = SegmentHeader {
            first: self.written,
            salt: active::new_salt(),
            predecessor: Some(Predecessor { first: self.active.first, bytes: self.active.offset }),
            arrival_before_ms: self.arrival_ms,
        };
        self.active = active::create(&*self.shared.disk, &self.shared.options.dir, &header)?;
        self.meters.segment_begun(segment::HEADER_BYTES);
        lock(&self.shared.segments).list.push_back(Segment::empty(header.first, header.seed()));
        self.free_segments();
        Ok(())
    }

    /// Keeps a batch that found no disk space until the next attempt. Meanwhile appends are refused. A log that is being
    /// closed does not wait: it fails.
    fn stall(&mut self, mut commit: Commit, error: io::Error) -> Result<(), WriterError> {
        self.free_segments();
        if !std::mem::replace(&mut commit.has_stalled, true) {
            tracing::warn!(log = self.shared.options.name, reason = %error, "the disk is full: waiting for space");
        }
        self.stalled = Some((commit, self.clock.monotonic() + FULL_RETRY));
        let mut queue = lock(&self.shared.queue);
        queue.stalled = true;
        let is_closing = queue.closing;
        drop(queue);
        self.shared.progress.notify_all();
        if is_closing {
            return Err(WriterError::ClosedWhileFull(error));
        }
        Ok(())
    }

    fn end_of_stall(&self) {
        let mut queue = lock(&self.shared.queue);
        queue.stalled = false;
        tracing::info!(log = self.shared.options.name, "there is disk space again");
        self.notify(queue);
    }

    /// Compares the free space with the reserve. A file system that does not tell its free space is taken to have enough:
    /// a write will fail where it has not.
    fn check_space(&mut self) {
        if !self.space.is_on() {
            return;
        }
        let options = &self.shared.options;
        let available = self.shared.disk.available_bytes(&options.dir).unwrap_or_else(|error| {
            tracing::warn!(log = options.name, %error, "free space is not known");
            u64::MAX
        });
        let is_low = self.space.check(available, self.clock.monotonic());
        let mut queue = lock(&self.shared.queue);
        if queue.low_space != is_low {
            queue.low_space = is_low;
            if is_low {
                tracing::warn!(
                    log = options.name,
                    available_bytes = available,
                    min_free_bytes = options.min_free_bytes,
                    "the disk is nearly full: no more is taken until there is space"
                );
            } else {
                tracing::info!(log = options.name, available_bytes = available, "there is disk space again");
            }
        }
        self.notify(queue);
    }

    /// Frees segments. A batch that waits for disk space is tried at once if a segment was freed.
    fn retain(&mut self) {
        let first = lock(&self.shared.segments).first();
        self.free_segments();
        if lock(&self.shared.segments).first() != first
            && let Some((_, retry_at)) = &mut self.stalled
        {
            *retry_at = self.clock.monotonic();
        }
    }

    /// Frees the segments that retention does not keep, oldest first. Each removal is synced before the next one, so that
    /// no power cut leaves a gap in the log.
    fn free_segments(&mut self) {
        if self.has_unsynced_removal && !self.sync_removal() {
            return;
        }
        while let Some(freed) = self.next_freed() {
            let removed = self.shared.disk.remove(&self.shared.segment_path(freed.first));
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(log = self.shared.options.name, %error, "a segment could not be freed");
                lock(&self.shared.segments).list.push_front(freed);
                return;
            }
            if !self.sync_removal() {
                return;
            }
            tracing::debug!(log = self.shared.options.name, first = %freed.first, end = %freed.end, "freed a segment");
        }
    }

    /// Takes the next segment that retention does not keep off the list. From then on no reader opens it.
    fn next_freed(&self) -> Option<Segment> {
        let released = lock(&self.shared.queue).released;
        let mut segments = lock(&self.shared.segments);
        next_to_free(&segments, released, &self.shared.options.retention, self.clock.age_now_ms())?;
        segments.list.pop_front()
    }

    fn sync_removal(&mut self) -> bool {
        let synced = self.shared.disk.sync_dir(&self.shared.options.dir);
        self.has_unsynced_removal = synced.is_err();
        if let Err(error) = &synced {
            tracing::warn!(log = self.shared.options.name, %error, "a freed segment may come back after a power cut");
        }
        synced.is_ok()
    }

    fn trim(&self) {
        lock(&self.shared.tail).shrink(IDLE_TAIL_BYTES);
        lock(&self.shared.queue).trim();
    }
}

/// Splits a written buffer into the bytes that stay in memory for readers and a buffer for reuse. A batch that fills less
/// than half of its buffer is copied: a small batch must not hold a large buffer.
fn split_for_tail(buffer: Vec<u8>) -> (Vec<u8>, Option<Vec<u8>>) {
    if buffer.len() >= buffer.capacity() / 2 { (buffer, None) } else { (buffer.as_slice().to_vec(), Some(buffer)) }
}
