//! The key-value store that all stores of this part use, and sled behind it.
//!
//! sled 0.34.7 keeps its promises only when it is used in a certain way. Each rule was found by measuring or by damaging
//! files (`torture`):
//!
//! - Keys are fixed and written again and again. A history of inserts and deletes grows file and memory without end.
//! - Values and batches are small ([`MAX_VALUE_BYTES`], [`MAX_BATCH_OPERATIONS`]).
//! - After sled's `flush`, which is no `fsync`, the file `db` is synced.
//! - Unfinished snapshots are removed before an open, or every later open fails.
//! - All files are read before an open, and sled's recovery is watched: sled takes what it cannot read for torn, and
//!   overwrites it.
//! - sled runs where a panic or an endless loop can be borne: damaged files cause both.
//! - A failed call is followed by opening the store again: sled never recovers from a failed write.

mod recovery_watch;

use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, pending};
use crate::state::StateError;

/// Largest value of a store, in bytes. sled moves values from about 128 KiB on to blob files, which it never syncs.
pub const MAX_VALUE_BYTES: usize = 48 * 1024;

/// Most operations of one batch. sled holds a batch in memory whole, also when it opens.
pub const MAX_BATCH_OPERATIONS: usize = 64;

/// A store of small values under fixed keys. Every call fails with [`StateError`] where the store or the file system under
/// it refuses; after a failure only opening the store again tells what it holds.
pub trait KeyValue: Send + std::fmt::Debug {
    /// The value of a key; `None` where it was never stored.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
    /// Stores up to [`MAX_BATCH_OPERATIONS`] values of up to [`MAX_VALUE_BYTES`] each, all or none of them. They survive a
    /// crash only after [`KeyValue::sync`].
    fn put(&self, values: &[(Vec<u8>, &[u8])]) -> Result<(), StateError>;
    /// Makes all values that were stored so far survive a power cut.
    fn sync(&self) -> Result<(), StateError>;
    /// Bytes of the store on disk.
    fn disk_bytes(&self) -> Result<u64, StateError>;
}

/// A sled store. sled reads and writes its files itself, on the operating system's file system; `disk` is for the calls
/// beside it.
#[derive(Debug)]
pub struct SledStore {
    db: sled::Db,
    directory: PathBuf,
    /// The same, as a call of sled is noted with.
    path: Arc<Path>,
    disk: Arc<dyn Disk>,
}

impl SledStore {
    /// Opens or creates the store in `directory`. It may panic or never return where the files are damaged: call it through
    /// [`crate::state::open::StoreOptions`].
    ///
    /// # Errors
    /// sled or the file system refused a call, or something else than a directory is in the store's place.
    pub fn open(directory: &Path, disk: Arc<dyn Disk>) -> Result<Self, StateError> {
        let io = |source| StateError::Io { directory: directory.to_owned(), source };
        disk.create_dir_all(directory).map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                StateError::Damaged { directory: directory.to_owned(), what: "it is no directory".into() }
            }
            _ => io(source),
        })?;
        remove_unfinished_snapshots(directory, disk.as_ref()).map_err(io)?;
        read_whole(directory, disk.as_ref()).map_err(io)?;
        let config = sled::Config::new()
            .path(directory)
            .mode(sled::Mode::LowSpace)
            .cache_capacity(16 * 1024 * 1024)
            .flush_every_ms(None);
        let db = recovery_watch::open(&config, directory)?;
        let store = Self { db, directory: directory.to_owned(), path: directory.into(), disk };
        store.sync_conf()?;
        store.sync()?;
        Ok(store)
    }

    /// Syncs the file `conf`. sled writes it once and never syncs it, and takes half of it for damage.
    fn sync_conf(&self) -> Result<(), StateError> {
        let file = self.disk.open(&self.directory.join("conf")).map_err(|source| self.io_error(source))?;
        file.sync().map_err(|source| self.io_error(source))
    }

    /// Calls sled, and turns a panic into an error: sled panics where its files are not as it left them.
    fn guarded<T>(&self, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StateError> {
        let _pending = pending::begin("write by sled", &self.path);
        // After an error the store is opened again or given up, so nothing that a panic left half done is used.
        match std::panic::catch_unwind(AssertUnwindSafe(call)) {
            Ok(result) => result.map_err(|source| self.sled_error(source)),
            Err(_) => Err(StateError::Panicked { directory: self.directory.clone() }),
        }
    }

    fn sled_error(&self, source: sled::Error) -> StateError {
        StateError::Sled { directory: self.directory.clone(), source }
    }

    fn io_error(&self, source: std::io::Error) -> StateError {
        StateError::Io { directory: self.directory.clone(), source }
    }
}

impl KeyValue for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let value = self.guarded(|| self.db.get(key))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn put(&self, values: &[(Vec<u8>, &[u8])]) -> Result<(), StateError> {
        assert!(values.len() <= MAX_BATCH_OPERATIONS, "a batch of {} operations", values.len());
        let mut batch = sled::Batch::default();
        for (key, value) in values {
            assert!(value.len() <= MAX_VALUE_BYTES, "a value of {} bytes", value.len());
            batch.insert(key.as_slice(), *value);
        }
        self.guarded(|| self.db.apply_batch(batch))
    }

    fn sync(&self) -> Result<(), StateError> {
        self.guarded(|| self.db.flush())?;
        // On Linux sled's flush is sync_file_range, which leaves metadata and the drive's cache alone.
        let file = self.disk.open(&self.directory.join("db")).map_err(|source| self.io_error(source))?;
        file.sync().map_err(|source| self.io_error(source))?;
        self.disk.sync_dir(&self.directory).map_err(|source| self.io_error(source))
    }

    fn disk_bytes(&self) -> Result<u64, StateError> {
        let entries = self.disk.list(&self.directory).map_err(|source| self.io_error(source))?;
        Ok(entries.iter().map(|entry| entry.len).sum())
    }
}

/// Reads all files of a store once: a file that cannot be read must be found before sled changes anything. Afterwards the
/// operating system has the files in memory.
fn read_whole(directory: &Path, disk: &dyn Disk) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    for entry in disk.list(directory)? {
        if entry.is_dir {
            read_whole(&directory.join(&entry.name), disk)?;
            continue;
        }
        let file = disk.open_read(&directory.join(&entry.name))?;
        let mut at = 0;
        loop {
            match file.read_at(&mut buffer, at)? {
                0 => break,
                read => at += read as u64,
            }
        }
    }
    Ok(())
}

/// Removes unfinished snapshots. A power cut during an open leaves `snap.*.generating` or an empty `snap.*`, and every later
/// open fails with `Corruption`. Both are only caches, which sled rebuilds.
fn remove_unfinished_snapshots(directory: &Path, disk: &dyn Disk) -> std::io::Result<()> {
    for entry in disk.list(directory)? {
        let unfinished = entry.name.ends_with(".generating") || entry.len == 0;
        if entry.name.starts_with("snap.") && unfinished {
            disk.remove(&directory.join(&entry.name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod torture;
