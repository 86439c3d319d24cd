//! [`Log`]: the open log as its users see it.
//!
//! It takes appends into the queue, wakes the writer, and waits for its progress. It does not write: the writer does,
//! driven by the driver.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::driver::Driver;
use super::meters::LogMeters;
use super::queue::CommitQueue;
use super::reader::Reader;
use super::recovery;
use super::shared::LogState;
use super::writer::LogWriter;
use super::{AppendError, LogError, LogOptions, LogStats, Lsn, Records, RecoverySummary, SegmentSummary};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::sync::lock;

/// Upper bound of [`LogOptions::commit_max_bytes`]: a batch stores the length of its body in 32 bits.
const MAX_COMMIT_BYTES: usize = 1 << 30;

/// A log that is open for appending and reading. Clones share it; when the last one is dropped, the log is closed as by
/// [`Log::close`].
///
/// [`Log::append`], [`Log::poll_room`], the positions and [`Log::stats`] never wait for the disk and may be called from
/// async tasks. [`Log::append_wait`], [`Log::sync`] and [`Log::close`] wait.
#[derive(Clone)]
pub struct Log {
    shared: Arc<LogState>,
    driver: Arc<Driver>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl Log {
    /// Opens or creates the log, recovers it and spawns the writer thread. `known_synced` is a position that a checkpoint
    /// says was synced: a log that ends below it is damaged.
    ///
    /// # Errors
    /// The log is damaged or of a newer format, the file system refused a call, or the thread cannot be started.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        known_synced: Lsn,
    ) -> Result<(Log, RecoverySummary), LogError> {
        Self::open_at(disk, clock, options, known_synced, Lsn(0))
    }

    /// Like [`Log::open`], but a log whose directory is empty begins with record `first`. For a log that the journal
    /// can rebuild and whose older records are known to be gone.
    ///
    /// # Errors
    /// The same as for [`Log::open`].
    pub fn open_at(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        known_synced: Lsn,
        first: Lsn,
    ) -> Result<(Log, RecoverySummary), LogError> {
        let name = options.name;
        let (shared, writer, report) = recover(disk, clock, options, known_synced, first)?;
        let driver =
            Driver::thread(name, Arc::clone(&shared), writer).map_err(LogError::io(name, "start its writer thread"))?;
        Ok((Log { shared, driver: Arc::new(driver) }, report))
    }

    /// Like [`Log::open_at`], but without a thread: the writer works in [`Log::step`], and in [`Log::append_wait`],
    /// [`Log::sync`] and [`Log::close`], which fail with "full" rather than wait for disk space. When the last handle
    /// is dropped, records that wait are not written, as in a crash. Wakers and callbacks run inside these calls and must
    /// not call them.
    ///
    /// # Errors
    /// The same as for [`Log::open`].
    pub fn open_inline(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        known_synced: Lsn,
        first: Lsn,
    ) -> Result<(Log, RecoverySummary), LogError> {
        let (shared, writer, report) = recover(disk, clock, options, known_synced, first)?;
        let driver = Arc::new(Driver::inline(Arc::clone(&shared), writer));
        Ok((Log { shared, driver }, report))
    }

    /// Does one unit of the writer's work on a log that was opened with [`Log::open_inline`], without ever waiting.
    /// Returns `false` where there is nothing to do: the log is idle, waits for disk space, failed or ended, or a thread
    /// does the work.
    pub fn step(&self) -> bool {
        self.driver.step()
    }

    /// Queues records for the next group commit and returns the position after the last of them. Where `waker` is
    /// given, it is woken when that position is durable or the log has failed. An append of no records queues nothing and
    /// wakes nobody.
    ///
    /// # Errors
    /// The queue or the disk is full, the records are larger than a batch, or the log takes nothing more.
    pub fn append(&self, records: &Records, waker: Option<&Waker>) -> Result<Lsn, AppendError> {
        let mut queue = lock(&self.shared.queue);
        let end = queue.append(records, waker)?;
        self.wake_writer(&mut queue);
        Ok(end)
    }

    /// Like [`Log::append`], but waits for room, however long the disk is full. On an inline log it writes to make room,
    /// and returns `Full` where the disk has none.
    ///
    /// # Errors
    /// The records are larger than a batch, or the log takes nothing more; on an inline log also a full disk.
    pub fn append_wait(&self, records: &Records) -> Result<Lsn, AppendError> {
        let mut queue = lock(&self.shared.queue);
        loop {
            match queue.append(records, None) {
                Err(AppendError::Full) => queue = self.driver.progress(queue).ok_or(AppendError::Full)?,
                Ok(end) => {
                    self.wake_writer(&mut queue);
                    return Ok(end);
                }
                refused => return refused,
            }
        }
    }

    /// Ready when an append may succeed, or when the log takes nothing more: then try again. Otherwise the task is
    /// registered and woken when there is room.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = lock(&self.shared.queue);
        if queue.has_room() || queue.is_closed() {
            return Poll::Ready(());
        }
        if !queue.wait_for_room(context.waker()) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Everything below this position is synced.
    pub fn durable(&self) -> Lsn {
        self.shared.durable()
    }

    /// Waits until everything appended so far is synced; returns that position.
    ///
    /// # Errors
    /// The log failed or was closed, or the disk is full: this call does not wait for space.
    pub fn sync(&self) -> Result<Lsn, LogError> {
        let mut queue = lock(&self.shared.queue);
        let end = queue.next;
        queue.sync_below = queue.sync_below.max(end);
        self.wake_writer(&mut queue);
        loop {
            if self.shared.durable() >= end {
                return Ok(end);
            }
            if queue.failure.is_some() || queue.ended {
                return Err(self.shared.closed_error(&queue));
            }
            if queue.stalled && !self.driver.is_inline() {
                return Err(self.shared.disk_full());
            }
            queue = self.driver.progress(queue).ok_or_else(|| self.shared.disk_full())?;
        }
    }

    /// A reader that starts at `from`, or at the oldest record kept where that is later.
    pub fn reader(&self, from: Lsn) -> Reader {
        Reader::new(Arc::clone(&self.shared), from)
    }

    /// Everything below this position can be read. It is durable, or, for [`super::SyncPolicy::OnRequest`], written.
    pub fn readable(&self) -> Lsn {
        self.shared.readable()
    }

    /// Wakes `waker` each time the readable position moves, and when the log fails, as long as the log lives. For the few
    /// tasks that live as long as the log: a waker cannot be removed.
    pub fn watch(&self, waker: Waker) {
        let mut watchers = lock(&self.shared.watchers);
        if !watchers.iter().any(|known| known.will_wake(&waker)) {
            *watchers = watchers.iter().cloned().chain([waker]).collect();
        }
    }

    /// Calls `callback` with the reason when the log fails, or at once if it has failed. The callback runs on the writer's
    /// thread, or on the caller's.
    pub fn on_failure(&self, callback: Box<dyn FnOnce(String) + Send>) {
        let queue = lock(&self.shared.queue);
        match queue.failure.clone() {
            Some(reason) => {
                drop(queue);
                callback(reason);
            }
            None => lock(&self.shared.on_failure).push(callback),
        }
    }

    /// Says that no checkpoint needs the records below `position`: retention may free their segments. Retention also
    /// checks the age of segments at this call.
    pub fn release(&self, position: Lsn) {
        let mut queue = lock(&self.shared.queue);
        queue.released = queue.released.max(position);
        queue.retention_due = true;
        self.wake_writer(&mut queue);
    }

    /// The segment files, oldest first. A reader from the first record of a segment to its end reads that segment.
    pub fn segments(&self) -> Vec<SegmentSummary> {
        lock(&self.shared.segments).list.iter().map(super::segment::Segment::summary).collect()
    }

    /// Numbers for metrics and status.
    pub fn stats(&self) -> LogStats {
        let queue = lock(&self.shared.queue);
        let segments = lock(&self.shared.segments);
        LogStats {
            first: segments.first(),
            appended: queue.next,
            durable: self.shared.durable(),
            disk_bytes: segments.bytes(),
            segments: segments.list.len(),
            queued_bytes: queue.waiting_bytes(),
            oldest_append_age: queue.oldest_age(),
            disk_full: queue.disk_full(),
            failure: queue.failure.clone(),
        }
    }

    /// Stops taking appends, writes and syncs the records that wait, and ends the writer thread. Readers go on reading.
    ///
    /// # Errors
    /// The log failed, before or while it was closed: records may be unwritten.
    pub fn close(&self) -> Result<(), LogError> {
        self.driver.close();
        let queue = lock(&self.shared.queue);
        if queue.failure.is_some() { Err(self.shared.closed_error(&queue)) } else { Ok(()) }
    }

    /// Notifies the writer's thread if it waits. Once per wait: each further notification would be a system call without
    /// effect.
    fn wake_writer(&self, queue: &mut CommitQueue) {
        if std::mem::take(&mut queue.writer_waits) {
            self.shared.work.notify_one();
        }
    }
}

/// Recovers a log and makes its writer, which nothing drives yet.
fn recover(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    mut options: LogOptions,
    known_synced: Lsn,
    first: Lsn,
) -> Result<(Arc<LogState>, LogWriter, RecoverySummary), LogError> {
    options.commit_max_bytes = options.commit_max_bytes.clamp(1, MAX_COMMIT_BYTES);
    let mut recovered = recovery::recover(&*disk, &options, known_synced, first)?;
    let report = RecoverySummary {
        first: recovered.segments.front().map_or(recovered.end, |segment| segment.first),
        end: recovered.end,
        torn_bytes: recovered.torn_bytes,
        lost_until: recovered.lost_until.filter(|end| *end > known_synced),
        last_arrival_ms: recovered.arrival_ms,
    };
    let meters = LogMeters::new(options.name);
    meters.tail_cut(recovered.torn_bytes);
    let shared = Arc::new(LogState::new(disk, options, Arc::clone(&clock), &mut recovered));
    let mut writer = LogWriter::new(Arc::clone(&shared), clock, meters, recovered.active, recovered.arrival_ms);
    writer.check_space_at_start();
    Ok((shared, writer, report))
}
