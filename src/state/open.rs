//! Opens stores whose files may be damaged, and moves a store aside that cannot be used.
//!
//! sled 0.34.7 trusts its files. On damaged ones its open returns an error, panics or never returns, and so does a later
//! read. Opening a store and reading everything in it therefore happen in one worker thread with a time limit, and error,
//! panic and time-out all come back as a [`StateError`], which [`StateError::is_damage`] classifies.
//!
//! This module does not decide what follows a failed open. Checkpoints: [`crate::state::recovery`]. Retained messages,
//! sessions and wills: `state::named_values`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::clock::Clock;
use crate::disk::{Disk, directory_of};
use crate::stall;
use crate::state::StateError;
use crate::state::key_value::{KeyValue, SledStore};

/// Opens the key-value store in a directory. It is called again after the directory was moved aside, and after a call of the
/// store failed: the failed store is dropped first.
pub type OpenStore = Arc<dyn Fn(&Path) -> Result<Box<dyn KeyValue>, StateError> + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Opens the key-value store.
    pub open: OpenStore,
    /// Time in which the store must open and load, in a worker thread. `None`: it opens in the caller's thread, however
    /// long that takes; for stores that cannot hang, in tests and in the simulation.
    pub limit: Option<Duration>,
}

impl StoreOptions {
    /// A sled store on `disk` that must open and load within `limit`.
    pub fn sled(disk: Arc<dyn Disk>, limit: Duration) -> Self {
        let open = move |directory: &Path| -> Result<Box<dyn KeyValue>, StateError> {
            Ok(Box::new(SledStore::open(directory, disk.clone())?))
        };
        Self { open: Arc::new(open), limit: Some(limit) }
    }

    /// Opens the store in `directory` and gives it to `load`, both under the time limit. `before` is an earlier handle of
    /// the same store: it is dropped first, since sled locks its file as long as the handle lives.
    ///
    /// # Errors
    /// The open or `load` failed; [`StateError::Panicked`] and [`StateError::TimedOut`] where there is a limit. A
    /// store that was given up after the limit may still be held open by its worker.
    pub(super) fn load<T: Send + 'static>(
        &self,
        directory: &Path,
        before: Option<Box<dyn KeyValue>>,
        load: impl FnOnce(Box<dyn KeyValue>) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let (open, owned) = (self.open.clone(), directory.to_owned());
        let load = move || {
            drop(before);
            load(open(&owned)?)
        };
        match self.limit {
            Some(limit) => run_within(limit, directory, load),
            None => load(),
        }
    }
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Runs `load` on the store in `directory` in a worker thread and waits for it until `limit` has passed. A worker that
/// does not return is left behind: no thread can be stopped from outside.
fn run_within<T: Send + 'static>(
    limit: Duration,
    directory: &Path,
    load: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, StateError> {
    let (sender, receiver) = sync_channel(1);
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let worker = std::thread::Builder::new().name(format!("{name}-open")).spawn(move || {
        // The receiver is gone only after the time limit; there is nobody left to tell.
        let _ = sender.send(load());
    });
    let worker = worker.map_err(|source| StateError::Io { directory: directory.to_owned(), source })?;
    match stall::receive(&receiver, limit) {
        Ok(loaded) => {
            let _ = worker.join();
            loaded
        }
        Err(RecvTimeoutError::Timeout) => Err(StateError::TimedOut { directory: directory.to_owned(), limit }),
        Err(RecvTimeoutError::Disconnected) => Err(StateError::Panicked { directory: directory.to_owned() }),
    }
}

/// Path to which the store in `directory` is moved aside: beside it, under a name that contains the time.
pub(super) fn aside_of(directory: &Path, clock: &dyn Clock) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!("{name}.damaged-{}", clock.now_ms()))
}

/// Moves a store that cannot be used from `directory` to `aside`. It is never deleted: a person may want to look at it.
///
/// # Errors
/// The move failed, or it may not survive a power cut.
pub(super) fn move_aside(disk: &dyn Disk, directory: &Path, aside: &Path) -> io::Result<()> {
    disk.rename(directory, aside)?;
    disk.sync_dir(directory_of(directory))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::state::testing::MemoryStore;

    #[test]
    fn a_panic_is_damage_and_a_hang_is_not() {
        let directory = Path::new("memory");
        let error = run_within::<()>(Duration::from_secs(60), directory, || panic!("as sled does")).unwrap_err();
        assert!(matches!(error, StateError::Panicked { .. }) && error.is_damage(), "{error}");
        let (_hold, wait) = mpsc::channel::<()>();
        let hang = move || {
            let _ = wait.recv();
            Ok(MemoryStore::default())
        };
        let error = run_within(Duration::from_millis(10), directory, hang).unwrap_err();
        assert!(matches!(error, StateError::TimedOut { .. }) && !error.is_damage(), "{error}");
    }

    #[test]
    fn a_store_is_moved_beside_itself() {
        let clock = crate::clock::SystemClock;
        let aside = aside_of(Path::new("data/retained"), &clock);
        assert_eq!(aside.parent(), Some(Path::new("data")));
        assert!(aside.to_string_lossy().starts_with("data/retained.damaged-"), "{}", aside.display());
    }
}
