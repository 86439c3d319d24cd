//! The segmented append-only log: journal, windows log and errors log are three of these.
//!
//! One writer per log does group commit: everything that waits becomes one batch, one write and, for the journal, one
//! sync. While it syncs, the next batch fills. It runs on a thread of its own, or is driven by its callers in a
//! simulation. docs/journal-format.md gives the bytes.
//!
//! Rules that hold everywhere in this module:
//! - A position below [`Log::durable`] is on disk and synced; it is never lost and never moves back.
//! - After a failed write or sync nothing more is written: a second sync after a failed one proves nothing.
//! - A full disk is not a failure: appends are refused until there is space again.
//! - Everything that waits or is kept in memory is bounded by [`LogOptions`].

mod active;
mod batch;
mod checksum;
mod driver;
mod error;
mod handle;
mod inspect;
mod meters;
mod options;
mod queue;
mod reader;
mod records;
mod recovery;
pub mod repair;
mod retention;
mod scan;
mod segment;
mod shared;
mod space;
mod tail;
#[cfg(test)]
mod tests;
pub mod verify;
mod wakers;
mod writer;

pub use batch::Batch;
pub use error::{AppendError, Damage, LogError};
pub use handle::Log;
pub use options::{Keep, LogOptions, LogStats, RecoverySummary, Retention, SegmentSummary, SyncPolicy};
pub use reader::Reader;
pub use records::{RecordIter, Records};
pub use verify::{DirectoryReader, LogProblem, LogProblemKind, SegmentReport, VerifyReport, verify_dir};

/// Position of a record: the count of records appended before it in the log's whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position `count` records further on.
    fn plus(self, count: u32) -> Lsn {
        Lsn(self.0 + u64::from(count))
    }
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
