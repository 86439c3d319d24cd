//! Finds the state to start from: the store's last checkpoint, else the newest savepoint that the journal covers, else
//! the beginning of a journal that is whole.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::log::{DirectoryReader, LogError};
use crate::state::StateError;
use crate::state::checkpoint_store::{Checkpoint, CheckpointStore};
use crate::state::open::{StoreOptions, aside_of, move_aside};
use crate::state::savepoint::{self, SavepointError};

/// Where state is looked for.
#[derive(Clone)]
pub struct RecoveryOptions {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// For the name of what is moved aside.
    pub clock: Arc<dyn Clock>,
    /// Directory that holds `state`, `savepoints` and `journal`.
    pub data_dir: PathBuf,
    /// How the store in `state` is opened.
    pub store: StoreOptions,
}

/// What the store could not be used for.
#[derive(Debug)]
pub struct Fallback {
    /// Why the store's checkpoint is not used.
    pub reason: String,
    /// Where the store was moved to; `None` where there was nothing in it.
    pub moved_to: Option<PathBuf>,
    /// The savepoint that took its place; `None`: the journal, from its beginning.
    pub savepoint: Option<PathBuf>,
}

/// The state to start from.
#[derive(Debug)]
pub struct RecoveredState {
    /// The store; its last checkpoint is `checkpoint`.
    pub store: CheckpointStore,
    /// What to restore; `None`: nothing, the journal begins with its first record.
    pub checkpoint: Option<Checkpoint>,
    /// What had to be done where the store was not usable.
    pub fallback: Option<Fallback>,
}

/// Why there is no state to start from.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The store cannot be opened, for a reason that leaves its content alone.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal cannot be looked at.
    #[error(transparent)]
    Journal(#[from] LogError),
    /// A savepoint, or the directory of savepoints, cannot be read.
    #[error(transparent)]
    Savepoint(#[from] SavepointError),
    /// A call of the file system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// State was lost and nothing that is left reaches far enough.
    #[error(
        "{reason}; the journal begins at record {journal_first} and {savepoints}: what was counted before it cannot be \
         rebuilt. Nothing was changed. Restore the data directory from a copy, or begin anew in an empty one (with \
         `weir savepoint restore` where there is a savepoint); the journal in this one stays readable for `weir replay`"
    )]
    Lost {
        /// What is wrong with the store.
        reason: String,
        /// First record of the journal.
        journal_first: u64,
        /// What savepoints there are.
        savepoints: String,
    },
}

impl RecoveryError {
    /// Whether data is lost or unusable, rather than the file system out of order.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Lost { .. } => true,
            Self::State(error) => error.is_damage(),
            Self::Savepoint(error) => !matches!(error, SavepointError::Io { .. }),
            Self::Journal(error) => matches!(error, LogError::Damaged(_) | LogError::NewerFormat { .. }),
            Self::Io { .. } => false,
        }
    }
}

/// Opens the store. Where it is damaged, behind the journal, or gone, it is moved aside (never deleted) and replaced from
/// the newest savepoint that the journal covers, or, while the journal is whole, by nothing.
///
/// # Errors
/// Nothing is changed where nothing can take the store's place.
pub fn open(options: &RecoveryOptions) -> Result<RecoveredState, RecoveryError> {
    let directory = options.data_dir.join("state");
    let first = journal_first(options)?;
    let reason = match CheckpointStore::open(options.store.clone(), &directory) {
        Ok((store, checkpoint)) => match unusable(checkpoint.as_ref(), first) {
            None => return Ok(RecoveredState { store, checkpoint, fallback: None }),
            // A store without a checkpoint has nothing to keep: it is filled where it is.
            Some(reason) if checkpoint.is_none() => return fall_back(options, Some(store), reason, first),
            Some(reason) => reason,
        },
        Err(error) if error.is_damage() => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    fall_back(options, None, reason, first)
}

/// First record of the journal; 0 where it has none yet.
fn journal_first(options: &RecoveryOptions) -> Result<u64, RecoveryError> {
    let directory = options.data_dir.join("journal");
    options.disk.create_dir_all(&directory).map_err(|source| RecoveryError::Io { path: directory.clone(), source })?;
    let reader = DirectoryReader::open(options.disk.clone(), &directory)?;
    Ok(reader.first().map_or(0, |first| first.0))
}

/// Why the journal does not go on from this checkpoint.
fn unusable(checkpoint: Option<&Checkpoint>, journal_first: u64) -> Option<String> {
    match checkpoint {
        Some(checkpoint) if checkpoint.manifest.positions.replay_from >= journal_first => None,
        Some(checkpoint) => Some(format!(
            "the state store's last checkpoint reaches only up to journal record {}",
            checkpoint.manifest.positions.replay_from
        )),
        None if journal_first == 0 => None,
        None => Some("the state store holds no checkpoint".into()),
    }
}

fn fall_back(
    options: &RecoveryOptions,
    empty: Option<CheckpointStore>,
    reason: String,
    journal_first: u64,
) -> Result<RecoveredState, RecoveryError> {
    let found = newest_covered(options, &reason, journal_first)?;
    let directory = options.data_dir.join("state");
    let (mut store, moved_to) = match empty {
        Some(store) => (store, None),
        None => {
            let aside = aside_of(&directory, &*options.clock);
            move_aside(&*options.disk, &directory, &aside)
                .map_err(|source| RecoveryError::Io { path: directory.clone(), source })?;
            (CheckpointStore::open(options.store.clone(), &directory)?.0, Some(aside))
        }
    };
    let (savepoint, checkpoint) = found.unzip();
    if let Some(checkpoint) = &checkpoint {
        store.import(checkpoint)?;
    }
    let fallback = Fallback { reason, moved_to, savepoint };
    Ok(RecoveredState { store, checkpoint, fallback: Some(fallback) })
}

/// The newest sound savepoint from which the journal goes on; `None`: the journal is whole and needs none.
fn newest_covered(
    options: &RecoveryOptions,
    reason: &str,
    journal_first: u64,
) -> Result<Option<(PathBuf, Checkpoint)>, RecoveryError> {
    let directory = options.data_dir.join(savepoint::DIRECTORY);
    let mut seen = Vec::new();
    for (path, info) in savepoint::list(&*options.disk, &directory)? {
        let usable = info.and_then(|info| {
            let covered = info.replay_from >= journal_first;
            if covered { savepoint::read(&*options.disk, &path).map(Some) } else { Ok(None) }
        });
        match usable {
            Ok(Some(checkpoint)) => return Ok(Some((path, checkpoint))),
            Ok(None) => seen.push(format!("{} ends before it", path.display())),
            Err(error @ SavepointError::Io { .. }) => return Err(error.into()),
            Err(error) => {
                tracing::error!(%error, "a savepoint cannot be used");
                seen.push(error.to_string());
            }
        }
    }
    if journal_first == 0 {
        return Ok(None);
    }
    let savepoints = if seen.is_empty() { "there is no savepoint".into() } else { seen.join(", ") };
    Err(RecoveryError::Lost { reason: reason.to_owned(), journal_first, savepoints })
}

#[cfg(test)]
mod tests;
