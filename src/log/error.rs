//! The errors of a log. Each text says what a person can do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Lsn;

/// Why a log could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system refused a call; the text names the path.
    #[error("the {log} log cannot {action}: {source}")]
    Io {
        /// Name of the log, or its directory where it has no name.
        log: String,
        /// The call, in words that follow "cannot".
        action: &'static str,
        /// The file system's error.
        #[source]
        source: io::Error,
    },
    /// Records that were synced are gone or cannot be read.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// A file has a format version that this program does not know.
    #[error(
        "{} has format version {version}, and this weir reads up to {supported}: a newer weir wrote it; start that one",
        file.display()
    )]
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Its format version.
        version: u16,
        /// The newest version this program knows.
        supported: u16,
    },
    /// A running weir freed a segment before this reader came to it.
    #[error(
        "{} was freed by the running weir while the log was read: journal.retention keeps segments longer; then try again",
        file.display()
    )]
    Freed {
        /// The segment's file.
        file: PathBuf,
    },
    /// The disk is full. Records that wait are written once there is space.
    #[error("the {log} log waits for disk space: free some on the file system of {}", dir.display())]
    DiskFull {
        /// Name of the log.
        log: &'static str,
        /// Its directory.
        dir: PathBuf,
    },
    /// An earlier write or sync failed. Only a restart, which recovers what is on disk, goes on from there.
    #[error("the {log} log stopped: {reason}; restart weir to recover what is on disk")]
    Failed {
        /// Name of the log.
        log: &'static str,
        /// The text of the failure.
        reason: String,
    },
    /// The log was closed.
    #[error("the {log} log is closed")]
    Closed {
        /// Name of the log.
        log: &'static str,
    },
}

impl LogError {
    /// Makes the conversion for `map_err` on a call of the file system.
    pub(super) fn io(log: &str, action: &'static str) -> impl Fn(io::Error) -> LogError + use<> {
        let log = log.to_owned();
        move |source| LogError::Io { log: log.clone(), action, source }
    }
}

/// Why the writer of a log stops for good.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriterError {
    /// A write or sync failed. A second one that succeeds would prove nothing: what of the file is on disk is known only
    /// to the next recovery.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The log was closed while a batch waited for disk space.
    #[error("the disk is full and the log was closed with records unwritten: {0}")]
    ClosedWhileFull(#[source] io::Error),
    /// The writer's thread panicked.
    #[error("the writer thread panicked: a defect in weir")]
    Panicked,
}

impl From<Damage> for LogError {
    fn from(damage: Damage) -> Self {
        LogError::Damaged(Box::new(damage))
    }
}

/// Synced records that are gone or unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The damaged file, or the directory where a whole file is missing.
    pub file: PathBuf,
    /// Byte offset of the first damaged byte.
    pub offset: u64,
    /// The record that should begin there.
    pub expected: Lsn,
    /// What is wrong.
    pub what: String,
    /// What proves that these records were once whole and synced.
    pub proof: String,
    /// One past the last record known to be lost, where that is known.
    pub lost_until: Option<Lsn>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, offset, expected, what, proof, lost_until } = self;
        write!(
            f,
            "{} is damaged at byte {offset}, where record {expected} should begin: {what}, and {proof}; ",
            file.display()
        )?;
        match lost_until {
            Some(end) => write!(f, "records {expected} to {} are lost", end.0.saturating_sub(1))?,
            None => write!(f, "how many records are lost is not known")?,
        }
        f.write_str(
            "; `weir journal verify` shows what can be read. Put back a copy of the data directory, or cut the damage out: \
             `weir journal repair` says what that would cost",
        )
    }
}

/// Why an append was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue or the disk is full. [`super::Log::poll_room`] waits for room.
    #[error("no room")]
    Full,
    /// The records are larger than a batch may be, so they never fit.
    #[error("{bytes} bytes in one append, and a batch holds at most {limit}")]
    TooLarge {
        /// Encoded bytes of the records.
        bytes: usize,
        /// Largest body of a batch, `commit_max_bytes`.
        limit: usize,
    },
    /// A write or sync failed, or the log was closed. No further append is taken.
    #[error("the log is closed")]
    Closed,
}
