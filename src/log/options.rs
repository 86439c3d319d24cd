//! The settings of a log, and the figures that it reports.

use std::path::PathBuf;
use std::time::Duration;

use super::Lsn;

/// When appended records are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Each group commit is one write and one sync; readers see records only once they are synced (the journal).
    EveryCommit,
    /// Group commits are written at once, and synced by [`super::Log::sync`] and before a segment is closed. Readers see
    /// records once they are written. For logs that the journal can rebuild.
    OnRequest,
}

/// How long a segment is kept once it lies behind the released position. The active segment is never freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Not at all: a segment is freed as soon as it is released.
    #[default]
    Released,
    /// Until the newest batch of the segment is older than this many milliseconds.
    ForAge(i64),
    /// Until [`Retention::max_bytes`] needs the space; for ever where that is `None`.
    UpToBytes,
}

/// Which released segments are freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// How long released segments stay.
    pub keep: Keep,
    /// Size of the log in bytes above which its oldest released segments are freed, whatever their age. Segments that
    /// are not released stay.
    pub max_bytes: Option<u64>,
}

/// Settings of one log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Label in metrics and messages: `journal`, `windows` or `errors`.
    pub name: &'static str,
    /// Directory of the segment files.
    pub dir: PathBuf,
    /// Bytes from which on a segment is closed and the next one begun.
    pub segment_bytes: u64,
    /// Largest body of one batch, and so of one append. At most 1 GiB.
    pub commit_max_bytes: usize,
    /// Most bytes that wait for the writer or are being written; appends beyond are refused with `Full`. A value below
    /// `commit_max_bytes` counts as `commit_max_bytes`. Twice that or more keeps the writer busy: one batch fills while
    /// the other is written.
    pub queue_max_bytes: usize,
    /// Most bytes of the newest batches that are kept in memory for readers; 0: readers always use the files.
    pub tail_max_bytes: usize,
    /// When records are synced.
    pub sync: SyncPolicy,
    /// Free bytes of the file system below which appends are refused with `Full`; 0: free space is not checked. Records
    /// that were taken before are still written, into this reserve.
    pub min_free_bytes: u64,
    /// Which segments below the released position are kept.
    pub retention: Retention,
    /// How far the clock may be behind the newest batch, in milliseconds: arrival times then stand still. A clock that is
    /// further behind was set back, and arrival times follow it.
    pub clock_tolerance_ms: i64,
}

/// What the recovery of a log found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoverySummary {
    /// Oldest record that is still in the log.
    pub first: Lsn,
    /// One past the last record. Everything below is synced.
    pub end: Lsn,
    /// Bytes of a torn tail that recovery cut.
    pub torn_bytes: u64,
    /// One past the last record that a hole stands for, if that lies behind the position that was known to be synced.
    /// Results that were computed from these records before they were lost cannot be computed again.
    pub lost_until: Option<Lsn>,
    /// Arrival time of the newest batch ever written, Unix milliseconds.
    pub last_arrival_ms: Option<i64>,
}

/// Numbers for metrics, status and readiness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Oldest record kept.
    pub first: Lsn,
    /// One past the newest record that was appended.
    pub appended: Lsn,
    /// One past the newest synced record.
    pub durable: Lsn,
    /// Bytes on disk in all segments.
    pub disk_bytes: u64,
    /// Segment files.
    pub segments: usize,
    /// Bytes that wait for the writer or are being written.
    pub queued_bytes: usize,
    /// How long the oldest append has waited so far that is not written or, in the journal, not synced; `None` where there is
    /// none.
    pub oldest_append_age: Option<Duration>,
    /// Whether appends are refused because the disk is full or nearly full.
    pub disk_full: bool,
    /// Text of the failure that stopped the log; `None` while it works.
    pub failure: Option<String>,
}

/// One segment file as far as it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSummary {
    /// First record of the segment.
    pub first: Lsn,
    /// One past the last readable record.
    pub end: Lsn,
    /// Readable bytes of the file.
    pub bytes: u64,
    /// Arrival time of the first batch, Unix milliseconds; `None` while the segment is empty.
    pub first_arrival_ms: Option<i64>,
    /// Arrival time of the last batch, Unix milliseconds; `None` while the segment is empty.
    pub last_arrival_ms: Option<i64>,
}
