//! An in-memory disk for tests and simulation: it forgets, reorders and tears what was not synced.
//!
//! The model is harsher than most file systems, never kinder:
//! - a write reaches the medium when its file is synced; at a power cut each page of each unsynced write is kept, lost
//!   or cut at a byte on its own, in any order, and what lies before a kept page reads as zeros;
//! - a created, renamed or removed name is certain when its directory is synced; before, each such change is kept or
//!   lost on its own;
//! - a failed sync drops what it was to write for good, although the file goes on to read it back (as Linux does);
//! - directories themselves are certain at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskEntry, DiskFile, directory_of};

const PAGE_BYTES: u64 = 4096;

/// A handle on a simulated disk. Clones share it. After [`SimDisk::crash`] the handle and all files opened through it
/// answer with errors: the machine they ran on lost its power.
#[derive(Debug, Clone)]
pub struct SimDisk {
    medium: Arc<Medium>,
    boot: u64,
}

#[derive(Debug, Default)]
struct Medium {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    boot: u64,
    files: Vec<FileState>,
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    certain_names: BTreeMap<PathBuf, usize>,
    uncertain: Vec<NameChange>,
    capacity_bytes: Option<u64>,
    syncs: u64,
    writes: u64,
    read_bytes: u64,
    failing_sync: Option<u64>,
    failing_write: Option<u64>,
    /// Syncs that may still go on; `None`: all.
    allowed_syncs: Option<u64>,
    held_syncs: usize,
}

/// A name in a directory that appeared, moved or went.
#[derive(Debug, Clone)]
enum NameChange {
    Add(PathBuf, usize),
    Move(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct FileState {
    /// What reads see.
    content: Vec<u8>,
    /// What a power cut cannot take away.
    certain: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Resize(u64),
}

/// Small generator of reproducible choices (SplitMix64).
#[derive(Debug)]
struct Choices(u64);

impl Choices {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self { medium: Arc::new(Medium::default()), boot: 0 }
    }

    /// Cuts the power: `seed` decides what survives of the unsynced writes and names. Returns the disk as the next
    /// boot finds it; handles from before, this one included, fail from now on. Injected faults are forgotten, the
    /// capacity stays.
    #[must_use = "the disk after the power cut is a new handle"]
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut state = self.medium.lock();
        let mut choices = Choices(seed);
        state.boot += 1;
        state.failing_sync = None;
        state.failing_write = None;
        state.allowed_syncs = None;
        for file in &mut state.files {
            file.crash(&mut choices);
        }
        for change in std::mem::take(&mut state.uncertain) {
            if choices.below(2) == 0 {
                change.apply(&mut state.certain_names);
            }
        }
        state.names = state.certain_names.clone();
        let boot = state.boot;
        drop(state);
        self.medium.changed.notify_all();
        SimDisk { medium: Arc::clone(&self.medium), boot }
    }

    /// Lets the disk hold at most this many bytes in all files; a write beyond stores what fits and fails.
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.medium.lock().capacity_bytes = capacity_bytes;
    }

    /// Lets the `nth` sync from now fail; 1 is the next.
    pub fn fail_sync(&self, nth: u64) {
        let mut state = self.medium.lock();
        state.failing_sync = Some(state.syncs + nth);
    }

    /// Lets the `nth` write from now fail, with half of its bytes written; 1 is the next.
    pub fn fail_write(&self, nth: u64) {
        let mut state = self.medium.lock();
        state.failing_write = Some(state.writes + nth);
    }

    /// Syncs of files so far, failed ones included.
    pub fn syncs(&self) -> u64 {
        self.medium.lock().syncs
    }

    /// Bytes read from files so far.
    pub fn read_bytes(&self) -> u64 {
        self.medium.lock().read_bytes
    }

    /// Lets so many more syncs of files go on and holds the others: a test can then arrange what happens during one.
    /// `None` lets all go on.
    pub fn allow_syncs(&self, count: Option<u64>) {
        self.medium.lock().allowed_syncs = count;
        self.medium.changed.notify_all();
    }

    /// Waits until a sync is being held.
    pub fn wait_for_held_sync(&self) {
        let mut state = self.medium.lock();
        while state.held_syncs == 0 {
            state = self.medium.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Inverts one bit of a stored file, as a decaying medium does.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.medium.lock();
        let index = state.find(path)?;
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, format!("{}: no byte {offset}", path.display()));
        let (file, offset, mask) = (&mut state.files[index], offset as usize, 1 << (bit % 8));
        *file.content.get_mut(offset).ok_or_else(outside)? ^= mask;
        if let Some(byte) = file.certain.get_mut(offset) {
            *byte ^= mask;
        }
        Ok(())
    }

    /// Bytes in all files.
    pub fn used_bytes(&self) -> u64 {
        self.medium.lock().used_bytes()
    }

    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        self.medium.state_of(self.boot)
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

impl Medium {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_of(&self, boot: u64) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.boot == boot { Ok(state) } else { Err(power_cut()) }
    }
}

fn power_cut() -> io::Error {
    io::Error::other("the power was cut")
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| not_found(path))
    }

    fn used_bytes(&self) -> u64 {
        let live: BTreeSet<usize> = self.names.values().copied().collect();
        live.into_iter().map(|index| self.files[index].content.len() as u64).sum()
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.uncertain.push(change);
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file or directory", path.display()))
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
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Move(_, path, _) => directory_of(path) == dir,
        }
    }
}

impl FileState {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.content);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.certain);
        }
    }

    fn crash(&mut self, choices: &mut Choices) {
        let fate = choices.below(4);
        for change in std::mem::take(&mut self.unsynced) {
            match (fate, change) {
                (0, _) => {}
                (1, change) => change.apply(&mut self.certain),
                (_, Change::Write(offset, bytes)) => tear(&mut self.certain, offset, &bytes, choices),
                (_, resize) => {
                    if choices.below(2) == 0 {
                        resize.apply(&mut self.certain);
                    }
                }
            }
        }
        self.content = self.certain.clone();
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => put(content, *offset, bytes),
            Self::Resize(len) => content.resize(*len as usize, 0),
        }
    }
}

/// Stores each page of a write, a part of it, zeros in its place, or nothing.
fn tear(content: &mut Vec<u8>, offset: u64, bytes: &[u8], choices: &mut Choices) {
    let mut done = 0_usize;
    while done < bytes.len() {
        let at = offset + done as u64;
        let page_rest = (PAGE_BYTES - at % PAGE_BYTES) as usize;
        let chunk = &bytes[done..bytes.len().min(done + page_rest)];
        match choices.below(4) {
            0 => {}
            1 => put(content, at, &chunk[..choices.below(chunk.len() as u64) as usize]),
            2 if at >= content.len() as u64 && choices.below(4) == 0 => put(content, at, &vec![0; chunk.len()]),
            _ => put(content, at, chunk),
        }
        done += chunk.len();
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let start = offset as usize;
    let end = start + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
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

    fn writable_state(&self) -> io::Result<MutexGuard<'_, State>> {
        if !self.writable {
            return Err(self.failure(io::ErrorKind::PermissionDenied, "opened for reading"));
        }
        self.medium.state_of(self.boot)
    }

    /// Waits while syncs are held.
    fn enter_sync(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.medium.state_of(self.boot)?;
        state.held_syncs += 1;
        self.medium.changed.notify_all();
        while state.allowed_syncs == Some(0) && state.boot == self.boot {
            state = self.medium.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
        let mut state = self.writable_state()?;
        state.writes += 1;
        if state.failing_write == Some(state.writes) {
            let half = bytes[..bytes.len() / 2].to_vec();
            state.files[self.index].change(Change::Write(offset, half));
            return Err(self.failure(io::ErrorKind::Other, "write failed (injected)"));
        }
        let len = state.files[self.index].content.len() as u64;
        let growth = (offset + bytes.len() as u64).saturating_sub(len);
        let free = state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes()));
        let missing = growth.saturating_sub(free) as usize;
        let fitting = bytes[..bytes.len().saturating_sub(missing)].to_vec();
        state.files[self.index].change(Change::Write(offset, fitting));
        if missing > 0 {
            return Err(self.failure(io::ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.enter_sync()?;
        state.syncs += 1;
        if state.failing_sync == Some(state.syncs) {
            state.files[self.index].unsynced.clear();
            return Err(self.failure(io::ErrorKind::Other, "sync failed (injected)"));
        }
        state.files[self.index].sync();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writable_state()?.files[self.index].change(Change::Resize(len));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.medium.state_of(self.boot)?.files[self.index].content.len() as u64)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state()?;
        if state.names.contains_key(path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{}: file exists", path.display())));
        }
        if !state.directories.contains(directory_of(path)) {
            return Err(not_found(path));
        }
        let index = state.files.len();
        state.files.push(FileState::default());
        state.change_names(NameChange::Add(path.to_path_buf(), index));
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
        let mut state = self.state()?;
        for ancestor in dir.ancestors() {
            state.directories.insert(ancestor.to_path_buf());
        }
        state.directories.insert(PathBuf::from("."));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let index = state.find(from)?;
        state.change_names(NameChange::Move(from.to_path_buf(), to.to_path_buf(), index));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        state.find(path)?;
        state.change_names(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        if !state.directories.contains(dir) {
            return Err(not_found(dir));
        }
        let (certain, uncertain) = std::mem::take(&mut state.uncertain).into_iter().partition(|c| c.is_in(dir));
        state.uncertain = uncertain;
        let certain: Vec<NameChange> = certain;
        for change in certain {
            change.apply(&mut state.certain_names);
        }
        Ok(())
    }

    fn available_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state()?;
        Ok(state.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{is_full, replace_file};

    fn disk_with_file(content: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("d")).unwrap();
        let file = disk.create(Path::new("d/f")).unwrap();
        file.write_all_at(content, 0).unwrap();
        (disk, file)
    }

    fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open_read(Path::new(path)).ok()?;
        let mut bytes = vec![0; file.len().unwrap() as usize];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        Some(bytes)
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        for seed in 0..200 {
            let (disk, file) = disk_with_file(b"kept");
            file.sync().unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            file.write_all_at(b"lost?", 4).unwrap();
            let after = disk.crash(seed);
            let found = content(&after, "d/f").unwrap();
            assert!(found.starts_with(b"kept") && found.len() <= 9, "seed {seed}");
        }
    }

    #[test]
    fn unsynced_writes_are_kept_lost_and_torn() {
        let written: Vec<u8> = (1..=3 * PAGE_BYTES as usize).map(|i| (i % 250) as u8 + 1).collect();
        let (mut whole, mut none, mut torn, mut reordered) = (0, 0, 0, 0);
        for seed in 0..400 {
            let (disk, _file) = disk_with_file(&written);
            disk.sync_dir(Path::new("d")).unwrap();
            let found = content(&disk.crash(seed), "d/f").unwrap();
            match found.len() {
                0 => none += 1,
                _ if found == written => whole += 1,
                _ if found[0] == 0 && *found.last().unwrap() != 0 => reordered += 1,
                _ => torn += 1,
            }
        }
        assert!(whole > 0 && none > 0 && torn > 0 && reordered > 0, "{whole} {none} {torn} {reordered}");
    }

    #[test]
    fn names_are_certain_once_their_directory_is_synced() {
        let outcomes: BTreeSet<_> = (0..50)
            .map(|seed| {
                let (disk, file) = disk_with_file(b"x");
                file.sync().unwrap();
                content(&disk.crash(seed), "d/f").is_some()
            })
            .collect();
        assert_eq!(outcomes.len(), 2, "a name that was not synced is sometimes lost, sometimes kept");
    }

    #[test]
    fn a_removal_that_was_not_synced_may_come_undone() {
        let outcomes: BTreeSet<_> = (0..50)
            .map(|seed| {
                let (disk, file) = disk_with_file(b"x");
                file.sync().unwrap();
                disk.sync_dir(Path::new("d")).unwrap();
                disk.remove(Path::new("d/f")).unwrap();
                assert!(content(&disk, "d/f").is_none());
                content(&disk.crash(seed), "d/f").is_some()
            })
            .collect();
        assert_eq!(outcomes.len(), 2);
    }

    #[test]
    fn replacing_a_file_leaves_the_old_or_the_new_content() {
        for seed in 0..200 {
            let (disk, _file) = disk_with_file(b"");
            replace_file(&disk, Path::new("d/state"), b"old").unwrap();
            disk.fail_sync(1);
            assert!(replace_file(&disk, Path::new("d/state"), b"new content").is_err());
            let disk = disk.crash(seed);
            assert_eq!(content(&disk, "d/state").unwrap(), b"old", "seed {seed}");
            replace_file(&disk, Path::new("d/state"), b"new content").unwrap();
            assert_eq!(content(&disk.crash(seed), "d/state").unwrap(), b"new content", "seed {seed}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_disk() {
        let run = |seed| {
            let (disk, _file) = disk_with_file(&[7; 20_000]);
            content(&disk.crash(seed), "d/f")
        };
        assert!((0..20).all(|seed| run(seed) == run(seed)));
    }

    #[test]
    fn a_full_disk_stores_what_fits() {
        let (disk, file) = disk_with_file(b"12345");
        disk.set_capacity(Some(8));
        assert_eq!(disk.available_bytes(Path::new("d")).unwrap(), 3);
        let error = file.write_all_at(b"abcdef", 5).unwrap_err();
        assert!(is_full(&error), "{error}");
        assert_eq!(content(&disk, "d/f").unwrap(), b"12345abc");
        file.write_all_at(b"xx", 0).unwrap();
    }

    #[test]
    fn what_a_failed_sync_was_to_write_is_not_saved_by_the_next_one() {
        let (disk, file) = disk_with_file(b"gone");
        disk.sync_dir(Path::new("d")).unwrap();
        disk.fail_sync(1);
        assert!(file.sync().is_err());
        file.sync().unwrap();
        assert_eq!(content(&disk, "d/f").unwrap(), b"gone");
        assert_eq!(content(&disk.crash(1), "d/f").unwrap(), b"");
    }

    #[test]
    fn handles_from_before_the_crash_fail() {
        let (disk, file) = disk_with_file(b"x");
        let after = disk.crash(3);
        assert!(file.write_all_at(b"y", 0).is_err());
        assert!(file.sync().is_err());
        assert!(disk.list(Path::new("d")).is_err());
        assert!(after.list(Path::new("d")).is_ok());
    }

    #[test]
    fn a_flipped_bit_is_read_and_survives() {
        let (disk, file) = disk_with_file(&[0]);
        file.sync().unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        disk.flip_bit(Path::new("d/f"), 0, 3).unwrap();
        assert_eq!(content(&disk, "d/f").unwrap(), [8]);
        assert_eq!(content(&disk.crash(0), "d/f").unwrap(), [8]);
        assert!(disk.flip_bit(Path::new("d/f"), 1, 3).is_err());
    }
}
