//! [`SimDisk`]: a disk in memory for tests and simulation. At a power cut it loses, reorders and tears unsynced writes.
//!
//! The model is harsher than most file systems, never kinder:
//! - A write reaches the medium when its file is synced. At a power cut each page or sector of each unsynced write is
//!   kept, lost or cut at a byte, independently of the others and in any order. Bytes in front of a kept page that were
//!   never written read as zeros.
//! - A created, renamed or removed name is certain once its directory is synced. Before, each such change is kept or lost
//!   independently of the others.
//! - A failed sync drops the writes that it should have made certain, for good, although reads go on to return them: Linux
//!   behaves like that.
//! - New directories are certain at once.
//!
//! `medium` holds names and files, `tear` decides what a power cut leaves of a write.

mod medium;
mod tear;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use self::medium::{Medium, MediumState, NameChange, not_found, power_cut};
use self::tear::{FileState, UnsyncedChange};
use super::{Disk, DiskEntry, DiskFile, directory_of};
use crate::random::Random;
use crate::sync::wait;

/// A handle on a simulated disk. Clones share the disk. After [`SimDisk::crash`] the handle and all files opened through it
/// return errors: the machine that they belong to lost its power.
#[derive(Debug, Clone)]
pub struct SimDisk {
    medium: Arc<Medium>,
    boot: u64,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk of unlimited capacity.
    pub fn new() -> Self {
        Self { medium: Arc::new(Medium::default()), boot: 0 }
    }

    /// Cuts the power; `seed` decides what survives of the unsynced writes and names. Returns the disk as the next
    /// boot finds it. Earlier handles, this one included, fail from then on. Injected faults are cleared, the capacity
    /// stays.
    #[must_use = "the disk after the power cut is a new handle"]
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut state = self.medium.lock();
        state.crash(&mut Random::new(seed));
        let boot = state.boot;
        drop(state);
        self.medium.changed.notify_all();
        SimDisk { medium: Arc::clone(&self.medium), boot }
    }

    /// Cuts the power at the `nth` operation from now; 1 is the next. The effect of that operation may be kept, lost or
    /// torn; the operation and everything after it fail until [`SimDisk::crash`]. Operations are the calls that change
    /// something or make it certain. `None` cancels the cut.
    pub fn cut_power_at(&self, nth: Option<u64>) {
        let mut state = self.medium.lock();
        state.cut_at = nth.map(|nth| state.operations + nth);
    }

    /// Whether the power was cut.
    pub fn is_cut(&self) -> bool {
        let state = self.medium.lock();
        state.is_cut || state.boot != self.boot
    }

    /// Number of operations so far, as counted by [`SimDisk::cut_power_at`].
    pub fn operations(&self) -> u64 {
        self.medium.lock().operations
    }

    /// Limits the bytes in all files together; a write beyond the limit stores what fits and fails.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.medium.lock().capacity_bytes = capacity_bytes;
    }

    /// Makes the `nth` sync of a file from now fail; 1 is the next.
    pub fn fail_sync(&self, nth: u64) {
        let mut state = self.medium.lock();
        state.failing_sync = Some(state.syncs + nth);
    }

    /// Makes the `nth` sync of a directory from now fail; 1 is the next. The changes of names stay uncertain.
    pub fn fail_dir_sync(&self, nth: u64) {
        let mut state = self.medium.lock();
        state.failing_dir_sync = Some(state.dir_syncs + nth);
    }

    /// Makes the `nth` write from now fail with half of its bytes written; 1 is the next.
    pub fn fail_write(&self, nth: u64) {
        let mut state = self.medium.lock();
        state.failing_write = Some(state.writes + nth);
    }

    /// Cancels [`SimDisk::fail_sync`], [`SimDisk::fail_dir_sync`] and [`SimDisk::fail_write`].
    pub fn fail_nothing(&self) {
        let mut state = self.medium.lock();
        state.failing_sync = None;
        state.failing_dir_sync = None;
        state.failing_write = None;
    }

    /// Number of syncs of files so far, failed ones included.
    pub fn syncs(&self) -> u64 {
        self.medium.lock().syncs
    }

    /// Bytes read from files so far.
    pub fn read_bytes(&self) -> u64 {
        self.medium.lock().read_bytes
    }

    /// Lets `count` more syncs of files proceed and holds the ones after them, so that a test can arrange what happens
    /// during a sync. `None` lets all proceed.
    pub fn allow_syncs(&self, count: Option<u64>) {
        self.medium.lock().allowed_syncs = count;
        self.medium.changed.notify_all();
    }

    /// Waits until a sync is being held.
    pub fn wait_for_held_sync(&self) {
        let mut state = self.medium.lock();
        while state.held_syncs == 0 {
            state = wait(&self.medium.changed, state);
        }
    }

    /// Inverts one bit of a stored file, as a decaying medium does.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.medium.lock();
        let index = state.find(path)?;
        if state.files[index].flip(offset as usize, 1 << (bit % 8)) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{}: no byte {offset}", path.display())))
    }

    /// Number of bytes of a file that no power cut can take away; 0 where it can take the name away.
    pub fn certain_bytes(&self, path: &Path) -> u64 {
        self.medium.lock().certain_file(path).map_or(0, |file| file.certain.len() as u64)
    }

    /// Bytes in all files.
    pub fn used_bytes(&self) -> u64 {
        self.medium.lock().used_bytes()
    }

    fn state(&self) -> io::Result<MutexGuard<'_, MediumState>> {
        self.medium.state_of(self.boot)
    }

    fn begin(&self) -> io::Result<MutexGuard<'_, MediumState>> {
        self.medium.begin(self.boot)
    }

    fn handle(&self, index: usize, path: &Path, writable: bool) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            medium: Arc::clone(&self.medium),
            boot: self.boot,
            index,
            path: path.to_path_buf(),
            writable,
        })
    }
}

#[derive(Debug)]
struct SimFile {
    medium: Arc<Medium>,
    boot: u64,
    index: usize,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    fn failure(&self, kind: io::ErrorKind, what: &str) -> io::Error {
        io::Error::new(kind, format!("{}: {what}", self.path.display()))
    }

    fn begin_change(&self) -> io::Result<MutexGuard<'_, MediumState>> {
        if !self.writable {
            return Err(self.failure(io::ErrorKind::PermissionDenied, "opened for reading"));
        }
        self.medium.begin(self.boot)
    }

    /// Waits as long as syncs are held.
    fn enter_sync(&self) -> io::Result<MutexGuard<'_, MediumState>> {
        let mut state = self.medium.begin(self.boot)?;
        state.held_syncs += 1;
        self.medium.changed.notify_all();
        while state.allowed_syncs == Some(0) && state.boot == self.boot {
            state = wait(&self.medium.changed, state);
        }
        state.allowed_syncs = state.allowed_syncs.map(|allowed| allowed.saturating_sub(1));
        state.held_syncs -= 1;
        if state.boot == self.boot { Ok(state) } else { Err(power_cut()) }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.medium.state_of(self.boot)?;
        let content = &state.files[self.index].content;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        state.read_bytes += count as u64;
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.begin_change()?;
        state.writes += 1;
        if state.failing_write == Some(state.writes) {
            let half = bytes[..bytes.len() / 2].to_vec();
            state.files[self.index].change(UnsyncedChange::Write(offset, half));
            return Err(self.failure(io::ErrorKind::Other, "write failed (injected)"));
        }
        let grows_by = (offset + bytes.len() as u64).saturating_sub(state.files[self.index].content.len() as u64);
        let free = state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes()));
        let fits = bytes.len() - (grows_by.saturating_sub(free) as usize).min(bytes.len());
        state.files[self.index].change(UnsyncedChange::Write(offset, bytes[..fits].to_vec()));
        state.end(())?;
        if fits < bytes.len() {
            return Err(self.failure(io::ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.enter_sync()?;
        state.syncs += 1;
        if state.cuts_now() {
            return Err(power_cut());
        }
        if state.failing_sync == Some(state.syncs) {
            state.files[self.index].unsynced.clear();
            return Err(self.failure(io::ErrorKind::Other, "sync failed (injected)"));
        }
        state.files[self.index].sync();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.begin_change()?;
        state.files[self.index].change(UnsyncedChange::Resize(len));
        state.end(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.medium.state_of(self.boot)?.files[self.index].content.len() as u64)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.begin()?;
        if state.names.contains_key(path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{}: file exists", path.display())));
        }
        if !state.directories.contains(directory_of(path)) {
            return Err(not_found(path));
        }
        let index = state.files.len();
        state.files.push(FileState::default());
        state.change_names(NameChange::Add(path.to_path_buf(), index));
        state.end(())?;
        Ok(self.handle(index, path, true))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.handle(self.state()?.find(path)?, path, true))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.handle(self.state()?.find(path)?, path, false))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DiskEntry>> {
        let state = self.state()?;
        if !state.directories.contains(dir) {
            return Err(not_found(dir));
        }
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let inside = |path: &Path| directory_of(path) == dir && path != dir;
        let files = state.names.iter().filter(|(path, _)| inside(path)).map(|(path, index)| DiskEntry {
            name: name(path),
            len: state.files[*index].content.len() as u64,
            is_dir: false,
        });
        let directories = state.directories.iter().filter(|path| inside(path)).map(|path| DiskEntry {
            name: name(path),
            len: 0,
            is_dir: true,
        });
        let mut entries: Vec<_> = files.chain(directories).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.begin()?;
        for ancestor in dir.ancestors() {
            state.directories.insert(ancestor.to_path_buf());
        }
        state.directories.insert(PathBuf::from("."));
        state.end(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.begin()?;
        let change = if state.directories.contains(from) {
            if state.directories.contains(to) {
                let text = format!("{}: directory exists", to.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            NameChange::MoveDirectory(from.to_path_buf(), to.to_path_buf())
        } else {
            NameChange::Move(from.to_path_buf(), to.to_path_buf(), state.find(from)?)
        };
        state.change_names(change);
        state.end(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin()?;
        state.find(path)?;
        state.change_names(NameChange::Remove(path.to_path_buf()));
        state.end(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.begin()?;
        if !state.directories.contains(dir) {
            return Err(not_found(dir));
        }
        state.dir_syncs += 1;
        if state.cuts_now() {
            return Err(power_cut());
        }
        if state.failing_dir_sync == Some(state.dir_syncs) {
            return Err(io::Error::other(format!("{}: sync failed (injected)", dir.display())));
        }
        state.sync_dir(dir);
        Ok(())
    }

    fn available_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state()?;
        Ok(state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }
}
