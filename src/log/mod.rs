//! The segmented append-only log: journal, windows log and errors log are three of these.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::clock::Clock;
use crate::disk::Disk;

/// Position of a record: the count of records appended before it in the log's whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// When appended records are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Each group commit is one write and one sync; readers see records only once they are synced (the journal).
    EveryCommit,
    /// Group commits are written at once and synced by [`Log::sync`]; readers see what is written. For logs that
    /// the journal can rebuild.
    OnRequest,
}

/// How long segments behind the released position are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Segments whose newest batch is older than this may go; `None`: age keeps nothing (bytes still bound).
    pub max_age_ms: Option<i64>,
    /// The log is cut from the front while it is larger than this.
    pub max_bytes: Option<u64>,
}

/// Settings of one log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Label in metrics and messages: `journal`, `windows` or `errors`.
    pub name: &'static str,
    /// Directory of the segment files.
    pub dir: PathBuf,
    /// A segment is closed once it holds at least this many bytes.
    pub segment_bytes: u64,
    /// Largest body of one batch; also the bound of one append.
    pub commit_max_bytes: usize,
    /// Bound of bytes that wait for the writer; appends beyond it are refused with `Full`.
    pub queue_max_bytes: usize,
    /// Bytes of the newest batches kept in memory for readers.
    pub tail_max_bytes: usize,
    /// When records are synced.
    pub sync: SyncPolicy,
    /// Appends are refused with `Full` while the file system has less than this.
    pub min_free_bytes: u64,
    /// What is kept behind the released position.
    pub retention: Retention,
}

/// What recovery found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// First record still in the log.
    pub first: Lsn,
    /// One past the last record; synced.
    pub end: Lsn,
    /// Bytes of a torn tail that were cut.
    pub torn_bytes: u64,
    /// Arrival time of the newest batch.
    pub last_arrival_ms: Option<i64>,
}

/// Why a log could not be opened, read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// Placeholder.
    #[error("{0}")]
    Io(String),
}

/// Why an append was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue or the disk is full: wait with [`Log::poll_room`].
    #[error("no room")]
    Full,
    /// A write or sync failed, or the log was closed; nothing more is taken.
    #[error("the log is closed")]
    Closed,
}

/// Records to append together: they land in one batch, in order.
#[derive(Debug, Default)]
pub struct Records {
    body: Vec<u8>,
    count: u32,
}

impl Records {
    /// Adds one record whose bytes `write` appends to the buffer.
    pub fn push_with(&mut self, _write: impl FnOnce(&mut Vec<u8>)) {
        todo!()
    }
    /// Adds one record.
    pub fn push(&mut self, _record: &[u8]) {
        todo!()
    }
    /// Number of records.
    pub fn count(&self) -> u32 {
        self.count
    }
    /// Encoded bytes.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Empties it and keeps the allocation.
    pub fn clear(&mut self) {
        self.body.clear();
        self.count = 0;
    }
}

/// One batch as read back.
#[derive(Debug)]
pub struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// Position of its first record.
    pub fn first(&self) -> Lsn {
        todo!()
    }
    /// One past its last record.
    pub fn end(&self) -> Lsn {
        todo!()
    }
    /// Time given to the batch when it was written, never less than its predecessor's. Unix milliseconds.
    pub fn arrival_ms(&self) -> i64 {
        todo!()
    }
    /// Its records in order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let _ = &self.bytes;
        std::iter::empty()
    }
}

/// A log open for appending and reading. Clones share it.
#[derive(Debug, Clone)]
pub struct Log {
    _shared: Arc<()>,
}

/// Numbers for metrics, status and readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Oldest record kept.
    pub first: Lsn,
    /// One past the newest record handed to the writer.
    pub appended: Lsn,
    /// One past the newest synced record.
    pub durable: Lsn,
    /// Bytes on disk in all segments.
    pub disk_bytes: u64,
    /// Segment files.
    pub segments: usize,
    /// Bytes waiting for the writer.
    pub queued_bytes: usize,
    /// Whether appends are refused because the disk is nearly full.
    pub disk_full: bool,
    /// The failure that closed the log.
    pub failure: Option<String>,
}

impl Log {
    /// Opens or creates the log and recovers it. `known_synced`: a position that a checkpoint says was synced; an
    /// end below it is damage. Spawns the writer thread.
    pub fn open(
        _disk: Arc<dyn Disk>,
        _clock: Arc<dyn Clock>,
        _options: LogOptions,
        _known_synced: Lsn,
    ) -> Result<(Log, Recovery), LogError> {
        todo!()
    }
    /// Queues records for the next group commit and returns the position after the last of them. Where `waker` is
    /// given, it is woken when that position is durable (or the log failed).
    pub fn append(&self, _records: &Records, _waker: Option<&Waker>) -> Result<Lsn, AppendError> {
        todo!()
    }
    /// Like [`Log::append`], but waits for room.
    pub fn append_wait(&self, _records: &Records) -> Result<Lsn, AppendError> {
        todo!()
    }
    /// Ready when an append may succeed or the log has failed.
    pub fn poll_room(&self, _context: &mut Context<'_>) -> Poll<()> {
        todo!()
    }
    /// Everything below this position is synced.
    pub fn durable(&self) -> Lsn {
        todo!()
    }
    /// Waits until everything appended so far is synced; returns that position.
    pub fn sync(&self) -> Result<Lsn, LogError> {
        todo!()
    }
    /// A reader that starts at `from` (or at the oldest record kept).
    pub fn reader(&self, _from: Lsn) -> Reader {
        todo!()
    }
    /// Everything below this position can be read (durable, or written for [`SyncPolicy::OnRequest`]).
    pub fn readable(&self) -> Lsn {
        todo!()
    }
    /// Wakes `waker` each time the readable position moves, for the log's life.
    pub fn watch(&self, _waker: Waker) {
        todo!()
    }
    /// A completed checkpoint no longer needs records below `position`; retention may free their segments.
    pub fn release(&self, _position: Lsn) {
        todo!()
    }
    /// Numbers for metrics and status.
    pub fn stats(&self) -> LogStats {
        todo!()
    }
    /// Stops taking appends, writes and syncs what waits, ends the writer thread.
    pub fn close(&self) -> Result<(), LogError> {
        todo!()
    }
}

/// A cursor on a log: follows the tail from memory and falls back to the segment files.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// The next readable batch, or `None` when it has caught up. The first batch may begin before the asked position:
    /// skip records below it.
    pub fn next_batch(&mut self) -> Result<Option<Arc<Batch>>, LogError> {
        todo!()
    }
    /// Position of the next record to be read.
    pub fn position(&self) -> Lsn {
        todo!()
    }
}
