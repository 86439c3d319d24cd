//! The writer: group commit, syncs, rotation, retention, disk space. It never waits: whoever drives it does.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::active::{self, ActiveSegment};
use super::batch::{HEADER_BYTES, Header};
use super::checksum::crc32c;
use super::meters::Meters;
use super::queue::{Pending, Queue};
use super::retention::next_to_free;
use super::segment::{self, Predecessor, Segment, SegmentHeader};
use super::shared::Shared;
use super::space::SpaceCheck;
use super::wakers::WakerSet;
use super::{Batch, Lsn, SyncPolicy};
use crate::clock::Clock;
use crate::defects::{self, Defect};
use crate::disk::is_full;
use crate::sync::lock;

/// How often a full disk is looked at again.
pub(super) const FULL_RETRY: Duration = Duration::from_millis(250);
/// A log without work for this long gives its buffers back.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Newest batches that an idle log keeps in memory.
const IDLE_TAIL_BYTES: usize = 128 * 1024;

/// What the writer does next.
#[derive(Debug)]
pub(super) enum Work {
    Commit(Commit),
    Sync,
    Retain,
    CheckSpace,
    Trim,
    End,
}

/// A batch on its way to the disk.
#[derive(Debug)]
pub(super) struct Commit {
    pending: Pending,
    /// Its header, once that is in front of the records. A full disk can stop a batch before or after.
    sealed: Option<Header>,
    has_stalled: bool,
}

/// What [`Writer::next_work`] found.
#[derive(Debug)]
pub(super) enum Next {
    Do(Work),
    /// Nothing until something is asked for, or until this moment of [`Clock::monotonic`].
    Wait(Option<Duration>),
    /// Nothing ever again.
    Ended,
}

/// Why a step did not succeed.
enum StepError {
    /// No space: nothing was changed, the step can be tried again.
    Full(String),
    /// The log can no longer be trusted.
    Failed(String),
}

impl StepError {
    fn of(error: &io::Error) -> StepError {
        if is_full(error) { StepError::Full(error.to_string()) } else { StepError::Failed(error.to_string()) }
    }

    fn failed(error: io::Error) -> StepError {
        StepError::Failed(error.to_string())
    }
}

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    meters: Meters,
    active: ActiveSegment,
    arrival_ms: Option<i64>,
    /// One past the last record written.
    written: Lsn,
    /// One past the last record synced.
    synced: Lsn,
    /// Tasks whose records are written and not synced.
    unsynced: WakerSet,
    space: SpaceCheck,
    /// A segment was removed, and the sync of the directory failed.
    has_unsynced_removal: bool,
    /// The batch that found no space, and when it is tried again.
    stalled: Option<(Commit, Duration)>,
    /// Since when there was nothing to do.
    idle_since: Option<Duration>,
    ended: bool,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        meters: Meters,
        active: ActiveSegment,
        arrival_ms: Option<i64>,
    ) -> Writer {
        let end = shared.durable();
        Writer {
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

    /// Looks at the free space once, before the first append.
    pub(super) fn check_space_at_start(&mut self) {
        self.check_space();
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What there is to do now. `queue` is the log's, locked: what is asked for later is not missed by one who waits.
    pub(super) fn next_work(&mut self, queue: &mut Queue) -> Next {
        if self.ended {
            return Next::Ended;
        }
        if let Some(work) = self.waiting_work(queue) {
            self.idle_since = None;
            return Next::Do(work);
        }
        if let Some((_, retry_at)) = &self.stalled {
            return Next::Wait(Some(*retry_at));
        }
        let may_trim = queue.has_spare() || lock(&self.shared.tail).bytes() > IDLE_TAIL_BYTES;
        if !queue.low_space && !may_trim {
            return Next::Wait(None);
        }
        let now = self.clock.monotonic();
        let (due, work) = match queue.low_space {
            true => (self.space.last().map_or(now, |last| last + FULL_RETRY), Work::CheckSpace),
            false => (*self.idle_since.get_or_insert(now) + IDLE_AFTER, Work::Trim),
        };
        if due <= now { Next::Do(work) } else { Next::Wait(Some(due)) }
    }

    fn waiting_work(&mut self, queue: &mut Queue) -> Option<Work> {
        if self.written >= queue.sync_below && queue.sync_below > self.synced {
            return Some(Work::Sync);
        }
        if std::mem::take(&mut queue.retention_due) {
            return Some(Work::Retain);
        }
        if let Some((commit, retry_at)) = self.stalled.take() {
            if queue.closing || retry_at <= self.clock.monotonic() {
                return Some(Work::Commit(commit));
            }
            self.stalled = Some((commit, retry_at));
            return None;
        }
        match queue.take() {
            Some(pending) => Some(Work::Commit(Commit { pending, sealed: None, has_stalled: false })),
            None if queue.closing => Some(Work::End),
            None => None,
        }
    }

    /// Does what [`Writer::next_work`] found. A failure closes the log for good.
    pub(super) fn perform(&mut self, work: Work) {
        let done = match work {
            Work::Commit(commit) => self.commit(commit),
            Work::Sync => self.sync(),
            Work::Retain => {
                self.retain();
                Ok(())
            }
            Work::CheckSpace => {
                self.check_space();
                Ok(())
            }
            Work::Trim => {
                self.trim();
                Ok(())
            }
            Work::End => {
                let synced = if self.synced < self.written { self.sync() } else { Ok(()) };
                self.ended = true;
                synced
            }
        };
        if let Err(reason) = done {
            self.shared.fail(&reason);
            self.ended = true;
        }
        if self.ended {
            self.end();
        }
    }

    /// Tells those who wait that nothing more will be written.
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

    /// Writes a batch and publishes it, or puts it aside where the disk is full.
    fn commit(&mut self, mut commit: Commit) -> Result<(), String> {
        let header = match self.put_on_disk(&mut commit) {
            Ok(header) => header,
            Err(StepError::Full(reason)) => return self.stall(commit, reason),
            Err(StepError::Failed(reason)) => {
                self.unsynced.append(commit.pending.wakers);
                return Err(reason);
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
        if self.space.is_due(header.batch_bytes(), self.clock.monotonic()) {
            self.check_space();
        }
        Ok(())
    }

    fn put_on_disk(&mut self, commit: &mut Commit) -> Result<Header, StepError> {
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

    /// Writes the header into the space in front of the records.
    fn seal(&mut self, pending: &mut Pending) -> Header {
        let now_ms = self.clock.now_ms();
        let arrival_ms = self
            .arrival_ms
            .filter(|_| !defects::is(Defect::ArrivalGoesBack))
            .map_or(now_ms, |before| before.max(now_ms));
        self.arrival_ms = Some(arrival_ms);
        let (space, body) = pending.buffer.split_at_mut(HEADER_BYTES);
        let header = Header {
            first: self.written,
            count: pending.count,
            body_bytes: body.len() as u32,
            arrival_ms,
            synced_below: self.synced,
            body_crc: crc32c(body),
            is_hole: false,
        };
        space.copy_from_slice(&header.encode(self.active.seed));
        header
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        let ActiveSegment { file, offset, .. } = &mut self.active;
        if let Err(error) = file.write_all_at(bytes, *offset) {
            if is_full(&error) {
                // What was written of the batch gives its space back, and no half batch stands at the end.
                file.set_len(*offset).map_err(StepError::failed)?;
            }
            return Err(StepError::of(&error));
        }
        *offset += bytes.len() as u64;
        Ok(())
    }

    /// Shows a written batch to readers, and gives its room back.
    fn publish(&mut self, header: Header, pending: Pending) {
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

    fn notify(&self, mut queue: std::sync::MutexGuard<'_, Queue>) {
        let room = queue.take_room_waiters();
        let threads_wait = queue.waiting_threads > 0;
        drop(queue);
        if threads_wait {
            self.shared.progress.notify_all();
        }
        room.wake();
    }

    /// Syncs what is written and tells those who wait for it.
    fn sync(&mut self) -> Result<(), String> {
        self.sync_file()?;
        self.shared.set_durable(self.synced);
        std::mem::take(&mut self.unsynced).wake();
        self.notify(lock(&self.shared.queue));
        Ok(())
    }

    fn sync_file(&mut self) -> Result<(), String> {
        let begun = self.clock.monotonic();
        let skips = defects::is(Defect::AcknowledgeBeforeSync) && self.shared.options.sync == SyncPolicy::EveryCommit;
        let synced = if skips { Ok(()) } else { self.active.file.sync() };
        synced.or_else(
            |error| if defects::is(Defect::DurableAfterFailedSync) { Ok(()) } else { Err(error.to_string()) },
        )?;
        self.meters.synced(self.clock.monotonic().saturating_sub(begun));
        self.synced = self.written;
        Ok(())
    }

    /// Closes the active segment once it is large enough, and begins the next.
    fn rotate_if_due(&mut self) -> Result<(), StepError> {
        let is_empty = self.active.first == self.written;
        if is_empty || self.active.offset < self.shared.options.segment_bytes {
            return Ok(());
        }
        if self.synced < self.written {
            self.sync().map_err(StepError::Failed)?;
        }
        let header = SegmentHeader {
            first: self.written,
            salt: active::new_salt(),
            predecessor: Some(Predecessor { first: self.active.first, bytes: self.active.offset }),
            arrival_before_ms: self.arrival_ms,
        };
        let begun = active::create(&*self.shared.disk, &self.shared.options.dir, &header);
        self.active = begun.map_err(|error| StepError::of(&error))?;
        self.meters.segment_begun(segment::HEADER_BYTES);
        lock(&self.shared.segments).list.push_back(Segment::empty(header.first, header.seed()));
        self.free_segments();
        Ok(())
    }

    /// Keeps a batch that found no space until the next try. Meanwhile nothing is taken; closing ends the wait.
    fn stall(&mut self, mut commit: Commit, reason: String) -> Result<(), String> {
        self.free_segments();
        if !std::mem::replace(&mut commit.has_stalled, true) {
            tracing::warn!(log = self.shared.options.name, reason, "the disk is full: waiting for space");
        }
        self.stalled = Some((commit, self.clock.monotonic() + FULL_RETRY));
        let mut queue = lock(&self.shared.queue);
        queue.stalled = true;
        let is_closing = queue.closing;
        drop(queue);
        self.shared.progress.notify_all();
        if is_closing {
            return Err(format!("the disk is full and the log was closed with records unwritten: {reason}"));
        }
        Ok(())
    }

    fn end_of_stall(&self) {
        let mut queue = lock(&self.shared.queue);
        queue.stalled = false;
        tracing::info!(log = self.shared.options.name, "there is disk space again");
        self.notify(queue);
    }

    /// Compares free space with the reserve. A file system that does not say how much is free is taken to have enough:
    /// a write will tell.
    fn check_space(&mut self) {
        if !self.space.is_on() {
            return;
        }
        let options = &self.shared.options;
        let available = self.shared.disk.available_bytes(&options.dir).unwrap_or_else(|error| {
            tracing::warn!(log = options.name, %error, "free space is not known");
            u64::MAX
        });
        let is_low = self.space.is_low(available, self.clock.monotonic());
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

    /// Frees segments; a batch that waits for space is tried at once when that gave some.
    fn retain(&mut self) {
        let first = lock(&self.shared.segments).first();
        self.free_segments();
        if lock(&self.shared.segments).first() != first
            && let Some((_, retry_at)) = &mut self.stalled
        {
            *retry_at = self.clock.monotonic();
        }
    }

    /// Frees segments that nobody wants, oldest first and each for good before the next: after a power cut the log
    /// never has a gap.
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

    /// Takes the next segment that nobody wants off the list.
    fn next_freed(&self) -> Option<Segment> {
        let released = lock(&self.shared.queue).released;
        let mut segments = lock(&self.shared.segments);
        next_to_free(&segments, released, &self.shared.options.retention, self.clock.now_ms())?;
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

/// The bytes to keep in memory for readers, and the buffer to reuse where they do not need it: a small batch must not
/// hold a large buffer.
fn split_for_tail(buffer: Vec<u8>) -> (Vec<u8>, Option<Vec<u8>>) {
    if buffer.len() >= buffer.capacity() / 2 { (buffer, None) } else { (buffer.as_slice().to_vec(), Some(buffer)) }
}
