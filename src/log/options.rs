//! Settings of a log, and the figures it reports.

use std::path::PathBuf;

use super::Lsn;

/// When appended records are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Each group commit is one write and one sync; readers see records only once they are synced (the journal).
    EveryCommit,
    /// Group commits are written at once and synced by [`super::Log::sync`] and before a segment is closed; readers
    /// see what is written. For logs that the journal can rebuild.
    OnRequest,
}

/// How long a segment is kept once it lies behind the released position. The active segment is never freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Not at all: freed as soon as it is released.
    #[default]
    Released,
    /// Until its newest batch is older than this many milliseconds.
    ForAge(i64),
    /// For ever, or until [`Retention::max_bytes`] asks for its space.
    UpToBytes,
}

/// Which released segments are freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// How long released segments stay.
    pub keep: Keep,
    /// While the log is larger than this many bytes its oldest released segments are freed whatever their age.
    /// Segments that are not released stay.
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
    /// Largest body of one batch; also the bound of one append. At most 1 GiB.
    pub commit_max_bytes: usize,
    /// Bound of bytes that wait for the writer or are being written; appends beyond it are refused with `Full`.
    /// Less than `commit_max_bytes` counts as `commit_max_bytes`; twice that or more keeps the writer busy.
    pub queue_max_bytes: usize,
    /// Bytes of the newest batches kept in memory for readers; 0: readers always use the files.
    pub tail_max_bytes: usize,
    /// When records are synced.
    pub sync: SyncPolicy,
    /// Appends are refused with `Full` while the file system has less than this; 0: not looked at. What was taken
    /// before is still written, into this reserve.
    pub min_free_bytes: u64,
    /// What is kept behind the released position.
    pub retention: Retention,
}

/// What recovery found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoverySummary {
    /// First record still in the log.
    pub first: Lsn,
    /// One past the last record; synced.
    pub end: Lsn,
    /// Bytes of a torn tail that were cut.
    pub torn_bytes: u64,
    /// One past the last lost record that a hole stands for, where that lies behind the position that was known to be
    /// synced: what was made of these records before they were lost cannot be made again.
    pub lost_until: Option<Lsn>,
    /// Arrival time of the newest batch ever written, Unix milliseconds.
    pub last_arrival_ms: Option<i64>,
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
    /// Bytes waiting for the writer or being written.
    pub queued_bytes: usize,
    /// Whether appends are refused because the disk is full or nearly full.
    pub disk_full: bool,
    /// The failure that closed the log.
    pub failure: Option<String>,
}

/// One segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSummary {
    /// First record.
    pub first: Lsn,
    /// One past the last readable record.
    pub end: Lsn,
    /// Bytes of the file that are readable.
    pub bytes: u64,
    /// Arrival time of its first batch, Unix milliseconds; `None` while it is empty.
    pub first_arrival_ms: Option<i64>,
    /// Arrival time of its last batch, Unix milliseconds; `None` while it is empty.
    pub last_arrival_ms: Option<i64>,
}
