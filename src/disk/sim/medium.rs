//! The medium behind all handles of a simulated disk: its names, its files, and the faults that a test asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};

use super::tear::FileState;
use crate::disk::directory_of;
use crate::random::Random;
use crate::sync::lock;

#[derive(Debug, Default)]
pub(super) struct Medium {
    state: Mutex<MediumState>,
    pub(super) changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct MediumState {
    pub(super) boot: u64,
    pub(super) files: Vec<FileState>,
    pub(super) directories: BTreeSet<PathBuf>,
    pub(super) names: BTreeMap<PathBuf, usize>,
    certain_names: BTreeMap<PathBuf, usize>,
    uncertain: Vec<NameChange>,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) syncs: u64,
    pub(super) writes: u64,
    pub(super) read_bytes: u64,
    /// Calls that change something or make it certain.
    pub(super) operations: u64,
    /// Number of the operation at which the power is cut.
    pub(super) cut_at: Option<u64>,
    /// Whether the power was cut: every call fails until the next boot.
    pub(super) is_cut: bool,
    pub(super) failing_sync: Option<u64>,
    pub(super) failing_dir_sync: Option<u64>,
    pub(super) dir_syncs: u64,
    pub(super) failing_write: Option<u64>,
    /// Number of syncs that may still proceed; `None`: all.
    pub(super) allowed_syncs: Option<u64>,
    pub(super) held_syncs: usize,
}

/// A change of the names in directories.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Add(PathBuf, usize),
    Move(PathBuf, PathBuf, usize),
    MoveDirectory(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl Medium {
    pub(super) fn lock(&self) -> MutexGuard<'_, MediumState> {
        lock(&self.state)
    }

    /// Locks the state for a handle of `boot`. Fails where the power was cut since.
    pub(super) fn state_of(&self, boot: u64) -> io::Result<MutexGuard<'_, MediumState>> {
        let state = self.lock();
        if state.boot == boot && !state.is_cut { Ok(state) } else { Err(power_cut()) }
    }

    /// Like [`Medium::state_of`], and counts the call as an operation.
    pub(super) fn begin(&self, boot: u64) -> io::Result<MutexGuard<'_, MediumState>> {
        let mut state = self.state_of(boot)?;
        state.operations += 1;
        Ok(state)
    }
}

pub(super) fn power_cut() -> io::Error {
    io::Error::other("the power was cut")
}

pub(super) fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file or directory", path.display()))
}

impl MediumState {
    /// Ends an operation. Where the power is cut at it, its effect is uncertain and its caller gets an error.
    pub(super) fn end<T>(&mut self, value: T) -> io::Result<T> {
        if self.cuts_now() { Err(power_cut()) } else { Ok(value) }
    }

    /// Cuts the power if the current operation is the one to cut it at; returns whether the power is gone.
    pub(super) fn cuts_now(&mut self) -> bool {
        self.is_cut |= self.cut_at.is_some_and(|at| self.operations >= at);
        self.is_cut
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| not_found(path))
    }

    /// The file that has this name whatever a power cut does; `None` where that is not certain.
    pub(super) fn certain_file(&self, path: &Path) -> Option<&FileState> {
        let index = self.certain_names.get(path)?;
        (self.names.get(path) == Some(index)).then(|| &self.files[*index])
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let live: BTreeSet<usize> = self.names.values().copied().collect();
        live.into_iter().map(|index| self.files[index].content.len() as u64).sum()
    }

    pub(super) fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        if let NameChange::MoveDirectory(from, to) = &change {
            let inside: Vec<_> = self.directories.iter().filter_map(|dir| moved(dir, from, to)).collect();
            self.directories.retain(|dir| !dir.starts_with(from));
            self.directories.extend(inside);
        }
        self.uncertain.push(change);
    }

    /// Makes the changes of names in `dir` certain, and earlier moves of directories that `dir` lies in.
    pub(super) fn sync_dir(&mut self, dir: &Path) {
        for change in std::mem::take(&mut self.uncertain) {
            if change.is_in(dir) || change.moved(dir) {
                change.apply(&mut self.certain_names);
            } else {
                self.uncertain.push(change);
            }
        }
    }

    pub(super) fn crash(&mut self, choices: &mut Random) {
        self.boot += 1;
        self.is_cut = false;
        self.cut_at = None;
        self.failing_sync = None;
        self.failing_dir_sync = None;
        self.failing_write = None;
        self.allowed_syncs = None;
        for file in &mut self.files {
            file.crash(choices);
        }
        for change in std::mem::take(&mut self.uncertain) {
            if choices.below(2) == 0 {
                change.apply(&mut self.certain_names);
            } else if let NameChange::MoveDirectory(from, _) = change {
                self.directories.insert(from);
            }
        }
        self.names = self.certain_names.clone();
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Add(path, index) => {
                names.insert(path.clone(), *index);
            }
            Self::Move(from, to, index) => {
                names.remove(from);
                names.insert(to.clone(), *index);
            }
            Self::MoveDirectory(from, to) => {
                let moving: Vec<_> =
                    names.iter().filter_map(|(path, &index)| moved(path, from, to).map(|to| (to, index))).collect();
                names.retain(|path, _| !path.starts_with(from));
                names.extend(moving);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }

    /// Whether the change moved a directory that `dir` lies in, from its old place or to its new one.
    fn moved(&self, dir: &Path) -> bool {
        matches!(self, Self::MoveDirectory(from, to) if dir.starts_with(from) || dir.starts_with(to))
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Move(_, path, _) | Self::MoveDirectory(_, path) => {
                directory_of(path) == dir
            }
        }
    }
}

/// The path of `path` after the directory `from` was renamed to `to`; `None` if it does not lie in `from`.
fn moved(path: &Path, from: &Path, to: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(from).ok()?;
    Some(if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) })
}
