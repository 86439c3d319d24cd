//! The state that the handles, the readers and the writer of one log share, and its locks.
//!
//! The positions are atomics: readers and connections look at them far more often than the writer moves them. Only the
//! writer moves them, and only forward.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Waker;

use super::error::WriterError;
use super::queue::CommitQueue;
use super::recovery::RecoveredLog;
use super::segment::{self, Segments};
use super::tail::TailCache;
use super::{LogError, LogOptions, Lsn};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::sync::lock;

pub(super) type FailureCallback = Box<dyn FnOnce(String) + Send>;

/// The shared state of a log. Locks are held for short sections that do no I/O. Where two are held, the order is queue,
/// segments, tail.
pub(super) struct LogState {
    pub(super) options: LogOptions,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) queue: Mutex<CommitQueue>,
    /// Wakes the writer's thread: there is work.
    pub(super) work: Condvar,
    /// Wakes threads that wait for room, for a sync or for the writer's end.
    pub(super) progress: Condvar,
    pub(super) segments: Mutex<Segments>,
    pub(super) tail: Mutex<TailCache>,
    /// Tasks that are woken each time the readable position moves.
    pub(super) watchers: Mutex<Arc<[Waker]>>,
    pub(super) on_failure: Mutex<Vec<FailureCallback>>,
    /// Everything below is synced.
    durable: AtomicU64,
    /// Everything below can be read.
    readable: AtomicU64,
}

impl LogState {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        clock: Arc<dyn Clock>,
        recovered: &mut RecoveredLog,
    ) -> LogState {
        LogState {
            disk,
            queue: Mutex::new(CommitQueue::new(&options, recovered.end, clock)),
            work: Condvar::new(),
            progress: Condvar::new(),
            segments: Mutex::new(Segments { list: std::mem::take(&mut recovered.segments) }),
            tail: Mutex::new(TailCache::new(options.tail_max_bytes)),
            watchers: Mutex::new(Arc::new([])),
            on_failure: Mutex::new(Vec::new()),
            durable: AtomicU64::new(recovered.end.0),
            readable: AtomicU64::new(recovered.end.0),
            options,
        }
    }

    pub(super) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    pub(super) fn readable(&self) -> Lsn {
        Lsn(self.readable.load(Ordering::Acquire))
    }

    /// Moves the durable position. The release order makes everything that the writer did before visible to a thread that
    /// reads the new position.
    pub(super) fn set_durable(&self, position: Lsn) {
        debug_assert!(position >= self.durable());
        self.durable.store(position.0, Ordering::Release);
    }

    /// Lets readers see the records below `position`; they must be in the tail or in the list of segments by now.
    pub(super) fn set_readable(&self, position: Lsn) {
        debug_assert!(position >= self.readable());
        self.readable.store(position.0, Ordering::Release);
    }

    /// Wakes the tasks that watch the readable position.
    pub(super) fn wake_watchers(&self) {
        let watchers = Arc::clone(&lock(&self.watchers));
        for waker in watchers.iter() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn segment_path(&self, first: Lsn) -> PathBuf {
        segment::path(&self.options.dir, first)
    }

    /// Stops the log for good after a failure. Everyone who waits is woken and finds the log failed; of several failures
    /// the first one is kept.
    pub(super) fn fail(&self, error: &WriterError) {
        let reason = error.to_string();
        let mut queue = lock(&self.queue);
        if queue.failure.is_some() {
            return;
        }
        queue.failure = Some(reason.clone());
        let wakers = queue.abandon();
        drop(queue);
        tracing::error!(log = self.options.name, reason, "the log failed and takes nothing more");
        self.progress.notify_all();
        wakers.wake();
        self.wake_watchers();
        let callbacks = std::mem::take(&mut *lock(&self.on_failure));
        for callback in callbacks {
            callback(reason.clone());
        }
    }

    /// The error of a call that would have to wait for disk space.
    pub(super) fn disk_full(&self) -> LogError {
        LogError::DiskFull { log: self.options.name, dir: self.options.dir.clone() }
    }

    /// The error of a call on a log that failed or was closed.
    pub(super) fn closed_error(&self, queue: &CommitQueue) -> LogError {
        let log = self.options.name;
        match &queue.failure {
            Some(reason) => LogError::Failed { log, reason: reason.clone() },
            None => LogError::Closed { log },
        }
    }
}

impl fmt::Debug for LogState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("name", &self.options.name)
            .field("durable", &self.durable())
            .field("readable", &self.readable())
            .finish_non_exhaustive()
    }
}
