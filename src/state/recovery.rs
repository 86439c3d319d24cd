//! Finds the state that a start goes on from.
//!
//! It is the store's last checkpoint. Where the store is damaged, behind the journal or gone, it is the newest savepoint
//! that the journal covers: one whose `replay_from` the journal still holds. Where there is none, it is the beginning of a
//! journal that still has its first record. Where none of these is possible, records that were counted are lost: the start
//! is refused, and nothing is changed.
//!
//! This module does not load the state into the operator and does not replay the journal; the pipeline does.

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

/// Where and how state is looked for.
#[derive(Clone)]
pub struct RecoveryOptions {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The clock; its time is part of the name of a store that is moved aside.
    pub clock: Arc<dyn Clock>,
    /// The data directory, which holds `state`, `savepoints` and `journal`.
    pub data_dir: PathBuf,
    /// How the store in `state` is opened.
    pub store: StoreOptions,
}

/// What took the place of a store that cannot be used.
#[derive(Debug)]
pub struct Fallback {
    /// Why the store's checkpoint is not used.
    pub reason: String,
    /// The directory that the store was moved to; `None` for an empty store, which is filled in place.
    pub moved_to: Option<PathBuf>,
    /// The savepoint that is used instead; `None`: the journal from its beginning.
    pub savepoint: Option<PathBuf>,
}

/// The state to start from.
#[derive(Debug)]
pub struct RecoveredState {
    /// The open store; its last checkpoint is `checkpoint`.
    pub store: CheckpointStore,
    /// The checkpoint to restore; `None`: the start replays the journal from its first record.
    pub checkpoint: Option<Checkpoint>,
    /// What took the place of the store's checkpoint; `None` where that is used.
    pub fallback: Option<Fallback>,
}

/// Why there is no state to start from.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The store cannot be opened, although its content may be sound.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal cannot be read.
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
        /// The operating system's error.
        source: std::io::Error,
    },
    /// State was lost, and no savepoint or journal that is left can rebuild it.
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
        /// The savepoints that there are, and why none of them can be used.
        savepoints: String,
    },
}

impl RecoveryError {
    /// Whether data is lost or unusable. `false` where the file system under it failed.
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

/// Opens the store of checkpoints. A store that is damaged or behind the journal is moved aside, never deleted, and replaced
/// from the newest savepoint that the journal covers; where the journal still has its first record it may be replaced by an
/// empty one.
///
/// # Errors
/// The store, the journal or a savepoint cannot be read, or nothing can take the store's place. In the last case nothing was
/// changed.
pub fn open(options: &RecoveryOptions) -> Result<RecoveredState, RecoveryError> {
    let directory = options.data_dir.join("state");
    let first = journal_first(options)?;
    let reason = match CheckpointStore::open(options.store.clone(), &directory) {
        Ok((store, checkpoint)) => match unusable(checkpoint.as_ref(), first) {
            None => return Ok(RecoveredState { store, checkpoint, fallback: None }),
            // A store without a checkpoint holds nothing worth keeping: it is filled in place.
            Some(reason) if checkpoint.is_none() => return fall_back(options, Some(store), reason, first),
            Some(reason) => reason,
        },
        Err(error) if error.is_damage() => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    fall_back(options, None, reason, first)
}

/// First record of the journal; 0 for a journal without segments.
fn journal_first(options: &RecoveryOptions) -> Result<u64, RecoveryError> {
    let directory = options.data_dir.join("journal");
    options.disk.create_dir_all(&directory).map_err(|source| RecoveryError::Io { path: directory.clone(), source })?;
    let reader = DirectoryReader::open(options.disk.clone(), &directory)?;
    Ok(reader.first().map_or(0, |first| first.0))
}

/// Why the journal cannot be replayed from this checkpoint; `None` where it can.
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

/// The newest sound savepoint that the journal covers; `None` where there is none and the journal still has its first record.
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
