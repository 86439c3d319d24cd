//! The segmented append-only log. The journal, the windows log and the errors log are three of these.
//!
//! # Parts
//!
//! A log is a directory of segment files. A segment is a header and batches; a batch is a header and records; a record is
//! a sequence of bytes, and its position ([`Lsn`]) is the number of records appended before it. docs/journal-format.md
//! gives the bytes.
//!
//! - `handle`: [`Log`], the open log as its users see it.
//! - `queue`: records that wait for the writer. `writer`: makes batches of them and writes them. `driver`: runs the
//!   writer, on a thread of its own or, in a simulation, inside the calls of the log's users.
//! - `recovery`: opens the files of a log. `scan`, `inspect`: read and judge them, also for `reader` ([`Reader`], a cursor
//!   on an open log), [`verify`] (reading without opening) and [`repair`].
//! - `segment`, `batch`, `records`, `checksum`: the formats.
//!
//! # Group commit
//!
//! Everything that waits becomes one batch, one write and, in the journal, one sync. While the writer syncs, the next
//! batch fills, so the size of batches adapts to the load without a timer.
//!
//! # Rules
//!
//! - A record below [`Log::durable`] is on disk and synced. It is never lost, and `durable` never moves back.
//! - A failed write or sync stops the log for good. A second sync after a failed one proves nothing: the operating system
//!   may have dropped the pages and report success. Only a restart, which reads what is on disk, goes on from there.
//! - A full disk is not a failure: appends are refused until there is space again.
//! - Segments are removed oldest first, each removal synced before the next, so a log never has a gap.
//! - Everything that waits or is kept in memory is bounded by [`LogOptions`].
//!
//! # Locks
//!
//! Users, readers and the writer share one state (`shared`). Its locks are held for short sections that do no I/O; where
//! two are held, the order is queue, segments, tail. The writer holds none while it writes or syncs.
//!
//! # Not here
//!
//! The log does not know what its records mean, when a checkpoint no longer needs them ([`Log::release`] is told), or
//! whether a failure ends the process.

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

/// Position of a record: the number of records appended before it in the log's whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position `count` records later.
    fn plus(self, count: u32) -> Lsn {
        Lsn(self.0 + u64::from(count))
    }
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
