//! Why a store could not be opened, read or written, and whether its content is to blame.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Why a store could not be opened, read or written.
#[derive(Debug, Error)]
pub enum StateError {
    /// sled refused a call.
    #[error("the store at {} failed: {source}", directory.display())]
    Sled {
        /// Directory of the store.
        directory: PathBuf,
        /// sled's error.
        source: sled::Error,
    },
    /// A call of the file system failed.
    #[error("the store at {} failed: {source}", directory.display())]
    Io {
        /// Directory of the store.
        directory: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The stored bytes are not the ones that were written.
    #[error("the store at {} is damaged: {what}", directory.display())]
    Damaged {
        /// Directory of the store.
        directory: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// sled panicked.
    #[error("the store at {} is damaged: sled panicked", directory.display())]
    Panicked {
        /// Directory of the store.
        directory: PathBuf,
    },
    /// The store did not open in time: the disk is very slow, or a damaged file makes sled spin for ever.
    #[error(
        "the store at {} was not read within {limit:?} and is left as it is: the disk is slow or the store is damaged; \
         where the next start fails too, move this directory away",
        directory.display()
    )]
    TimedOut {
        /// Directory of the store.
        directory: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// A later weir wrote the checkpoint.
    #[error("the checkpoint in {} has format version {found}, this weir reads up to {known}: install the newer weir again", directory.display())]
    Newer {
        /// Directory of the store.
        directory: PathBuf,
        /// Version found.
        found: u16,
        /// Newest version this weir reads.
        known: u16,
    },
}

impl StateError {
    /// Whether the content of the store is unusable. `false` where the file system under it failed or was too slow, and where
    /// a newer weir can read the store: then the store must be left alone.
    pub fn is_damage(&self) -> bool {
        match self {
            StateError::Damaged { .. } | StateError::Panicked { .. } => true,
            StateError::Sled { source: sled::Error::Io(source), .. } | StateError::Io { source, .. } => {
                is_out_of_place(source.kind())
            }
            StateError::Sled { .. } => true,
            StateError::Newer { .. } | StateError::TimedOut { .. } => false,
        }
    }
}

/// Whether an error is about what is in the place of the store's files, such as a directory or a file that is too short,
/// and not about the file system under them.
fn is_out_of_place(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidData | ErrorKind::IsADirectory | ErrorKind::UnexpectedEof)
}
