//! [`CheckpointStore`]: writes checkpoints to a key-value store and reads the newest complete one.
//!
//! # Order of writes
//!
//! The blobs of changed key groups go to the slot that the last complete checkpoint does not use, and are synced. The
//! manifest goes to the key that the last complete one does not use, and is synced. Only then the checkpoint counts. So a
//! crash anywhere leaves the last complete checkpoint whole, and a blob is never half overwritten while a manifest names it.
//!
//! # After a failure
//!
//! A failed call may have reached the disk all the same. The store is therefore opened and read again before the next
//! checkpoint. If it then holds an older checkpoint than was complete, it is damaged.
//!
//! This module does not decide when a checkpoint is taken, nor what follows damage ([`crate::state::recovery`]).

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::core::group::{GroupBlob, KEY_GROUPS};
use crate::defects::{self, Defect};
use crate::state::StateError;
use crate::state::key_value::{KeyValue, MAX_BATCH_OPERATIONS, MAX_VALUE_BYTES};
use crate::state::manifest::{GroupEntry, InvalidManifest, Manifest, Positions};
use crate::state::open::StoreOptions;

/// Time in which the store of checkpoints must open and load: a damaged file can make sled spin for ever.
pub const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// A checkpoint as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The manifest: id, positions, and the operator's state outside of key groups.
    pub manifest: Manifest,
    /// The blob of each key group that has state.
    pub groups: Vec<GroupBlob>,
}

/// The store of checkpoints of one data directory.
#[derive(Debug)]
pub struct CheckpointStore {
    values: Box<dyn KeyValue>,
    directory: PathBuf,
    /// Id of the last complete checkpoint; 0 before the first.
    last_id: u64,
    /// Manifest of the last complete checkpoint.
    last: Option<Manifest>,
    /// Place of each blob of the last complete checkpoint, by key group.
    complete: Vec<Option<GroupEntry>>,
    /// Place of each blob of the checkpoint that is being written, by key group.
    next: Vec<Option<GroupEntry>>,
    /// Bytes written for the checkpoint that is being written.
    written_bytes: u64,
    /// How the store was opened; `None` for a store that was only loaded, which is not opened again.
    options: Option<StoreOptions>,
    /// Whether a call failed: what the store holds is not known until it is opened again.
    failed: bool,
}

/// Stands in for a store that failed, until it is opened again. Every call is an error.
#[derive(Debug)]
struct Closed(PathBuf);

impl Closed {
    fn error<T>(&self) -> Result<T, StateError> {
        let source = std::io::Error::other("it is closed after a failure");
        Err(StateError::Io { directory: self.0.clone(), source })
    }
}

impl KeyValue for Closed {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.error()
    }

    fn put(&self, _: &[(Vec<u8>, &[u8])]) -> Result<(), StateError> {
        self.error()
    }

    fn sync(&self) -> Result<(), StateError> {
        self.error()
    }

    fn disk_bytes(&self) -> Result<u64, StateError> {
        self.error()
    }
}

impl CheckpointStore {
    /// Opens the store in `directory` and loads the newest complete checkpoint. After a failed call the store is opened
    /// again before the next checkpoint.
    ///
    /// # Errors
    /// The store cannot be opened or read, is damaged, or is of a newer format.
    pub fn open(options: StoreOptions, directory: &Path) -> Result<(Self, Option<Checkpoint>), StateError> {
        let (mut store, checkpoint) = Self::open_once(&options, directory, None)?;
        store.options = Some(options);
        Ok((store, checkpoint))
    }

    fn open_once(
        options: &StoreOptions,
        directory: &Path,
        before: Option<Box<dyn KeyValue>>,
    ) -> Result<(Self, Option<Checkpoint>), StateError> {
        let owned = directory.to_owned();
        options.load(directory, before, move |values| Self::load(values, owned))
    }

    /// Opens the store again after a failed call. sled remembers a failed write, such as one on a full disk, for ever, and
    /// what a failed call left behind is known only by reading: the manifest of the failed checkpoint may be on disk, and
    /// then its slots must not be overwritten.
    fn reopen_after_failure(&mut self) -> Result<(), StateError> {
        if !self.failed {
            return Ok(());
        }
        let Some(options) = self.options.clone() else { return Ok(()) };
        let closed = Box::new(Closed(self.directory.clone()));
        let before = std::mem::replace(&mut self.values, closed);
        let (opened, _) = Self::open_once(&options, &self.directory, Some(before))?;
        if opened.last_id < self.last_id {
            let (found, known) = (opened.last_id, self.last_id);
            return Err(damaged(&self.directory, format!("it holds checkpoint {found}, and {known} was complete")));
        }
        tracing::info!(checkpoint = opened.last_id, "the state store was opened again after a failure");
        *self = Self { options: Some(options), ..opened };
        Ok(())
    }

    fn checked<T>(&mut self, result: Result<T, StateError>) -> Result<T, StateError> {
        self.failed |= result.is_err();
        result
    }

    /// Loads the newest complete checkpoint from an open store.
    ///
    /// # Errors
    /// The store cannot be read, is damaged, or is of a newer format.
    pub fn load(values: Box<dyn KeyValue>, directory: PathBuf) -> Result<(Self, Option<Checkpoint>), StateError> {
        let empty = vec![None; usize::from(KEY_GROUPS)];
        let (complete, next) = (empty.clone(), empty);
        let mut store = Self {
            values,
            directory,
            last_id: 0,
            last: None,
            complete,
            next,
            written_bytes: 0,
            options: None,
            failed: false,
        };
        let Some(manifest) = store.newest_manifest()? else {
            return Ok((store, None));
        };
        let mut groups = Vec::with_capacity(manifest.groups.len());
        for &(group, entry) in &manifest.groups {
            groups.push(GroupBlob { group, bytes: store.read_group(group, entry)? });
            let known = store.complete.get_mut(usize::from(group));
            *known.ok_or_else(|| damaged(&store.directory, format!("key group {group} does not exist")))? = Some(entry);
        }
        store.last_id = manifest.id;
        store.last = Some(manifest.clone());
        store.next.clone_from(&store.complete);
        Ok((store, Some(Checkpoint { manifest, groups })))
    }

    /// Id of the last complete checkpoint; 0 before the first.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }

    /// Manifest of the last complete checkpoint.
    pub fn last_manifest(&self) -> Option<&Manifest> {
        self.last.as_ref()
    }

    /// Bytes of the store on disk.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn disk_bytes(&self) -> Result<u64, StateError> {
        self.values.disk_bytes()
    }

    /// Makes `checkpoint`, which comes from a savepoint, the last complete one and keeps its id. The store must be empty.
    ///
    /// # Errors
    /// A write or sync failed.
    pub fn import(&mut self, checkpoint: &Checkpoint) -> Result<(), StateError> {
        assert!(self.last.is_none(), "a checkpoint is imported into a store that has one");
        let Manifest { id, started_ms, positions, header, .. } = &checkpoint.manifest;
        self.last_id = id.saturating_sub(1);
        self.put_groups(&checkpoint.groups)?;
        self.complete(*started_ms, *positions, header.clone())?;
        Ok(())
    }

    /// Writes blobs of the checkpoint that is being written.
    ///
    /// # Errors
    /// A write failed, or the store could not be opened again after an earlier failure.
    pub fn put_groups(&mut self, blobs: &[GroupBlob]) -> Result<(), StateError> {
        self.reopen_after_failure()?;
        let written = self.write_groups(blobs);
        self.checked(written)
    }

    fn write_groups(&mut self, blobs: &[GroupBlob]) -> Result<(), StateError> {
        let mut batch = Vec::with_capacity(MAX_BATCH_OPERATIONS);
        for blob in blobs {
            let index = usize::from(blob.group);
            let reuses = defects::is(Defect::ReuseSlot);
            let slot = self.complete[index].map_or(0, |entry| if reuses { entry.slot } else { 1 - entry.slot });
            for (chunk, bytes) in blob.bytes.chunks(MAX_VALUE_BYTES).enumerate() {
                batch.push((group_key(slot, blob.group, chunk), bytes));
                if batch.len() == MAX_BATCH_OPERATIONS {
                    self.values.put(&batch)?;
                    batch.clear();
                }
            }
            let entry = GroupEntry { slot, len: blob.bytes.len() as u32, crc: crc32c::crc32c(&blob.bytes) };
            self.next[index] = Some(entry);
            self.written_bytes += blob.bytes.len() as u64;
        }
        if batch.is_empty() { Ok(()) } else { self.values.put(&batch) }
    }

    /// Completes the checkpoint that is being written; returns its id and the bytes written for it. The output logs must be
    /// synced up to `positions` before: a checkpoint that covers results which a crash can lose would lose them for good.
    ///
    /// # Errors
    /// A write or sync failed, or the store could not be opened again after an earlier failure.
    pub fn complete(
        &mut self,
        started_ms: i64,
        positions: Positions,
        header: Vec<u8>,
    ) -> Result<(u64, u64), StateError> {
        self.reopen_after_failure()?;
        let completed = self.write_manifest(started_ms, positions, header);
        self.checked(completed)
    }

    fn write_manifest(
        &mut self,
        started_ms: i64,
        positions: Positions,
        header: Vec<u8>,
    ) -> Result<(u64, u64), StateError> {
        if !defects::is(Defect::SkipStoreSync) {
            self.values.sync()?;
        }
        let too_far = positions.replay_from + u64::from(defects::is(Defect::ReplayFromTooHigh));
        let replay_from = too_far.saturating_sub(u64::from(defects::is(Defect::ReplayFromTooLow)));
        let positions = Positions { replay_from, ..positions };
        let id = self.last_id + 1;
        let groups = (0u16..).zip(&self.next).filter_map(|(group, entry)| entry.map(|entry| (group, entry))).collect();
        let manifest = Manifest { id, started_ms, positions, header, groups };
        let bytes = manifest.encode();
        // A value shorter than the largest one ends the manifest, so that the rest of a longer, older one is not read.
        let end = if bytes.len().is_multiple_of(MAX_VALUE_BYTES) { Some(&[][..]) } else { None };
        let chunks = bytes.chunks(MAX_VALUE_BYTES).chain(end).enumerate();
        let values: Vec<_> = chunks.map(|(chunk, bytes)| (manifest_key(id, chunk), bytes)).collect();
        for batch in values.chunks(MAX_BATCH_OPERATIONS) {
            self.values.put(batch)?;
        }
        self.values.sync()?;
        self.last_id = id;
        self.last = Some(manifest);
        self.complete.clone_from(&self.next);
        let written_bytes = std::mem::take(&mut self.written_bytes) + bytes.len() as u64;
        Ok((id, written_bytes))
    }

    /// Gives up the checkpoint that is being written. The last complete one stays.
    pub fn abandon(&mut self) {
        self.next.clone_from(&self.complete);
        self.written_bytes = 0;
    }

    fn newest_manifest(&self) -> Result<Option<Manifest>, StateError> {
        let mut newest: Option<Manifest> = None;
        let mut failure = None;
        for parity in 0..2 {
            match self.read_manifest(parity) {
                Ok(Some(found)) if newest.as_ref().is_none_or(|newest| newest.id < found.id) => newest = Some(found),
                Ok(_) => {}
                Err(error @ StateError::Newer { .. }) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        // An unreadable manifest beside a good one is a checkpoint that a crash interrupted. Only where no good one is
        // left, a complete checkpoint is lost.
        match (newest, failure) {
            (None, Some(error)) => Err(error),
            (newest, _) => Ok(newest),
        }
    }

    fn read_manifest(&self, parity: u64) -> Result<Option<Manifest>, StateError> {
        let mut bytes = Vec::new();
        for chunk in 0.. {
            match self.values.get(&manifest_key(parity, chunk))? {
                Some(value) => {
                    let last = value.len() < MAX_VALUE_BYTES;
                    bytes.extend_from_slice(&value);
                    if last {
                        break;
                    }
                }
                None => break,
            }
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let directory = self.directory.clone();
        Manifest::decode(&bytes).map(Some).map_err(|error| match error {
            InvalidManifest::Newer(found) => {
                StateError::Newer { directory, found, known: crate::state::manifest::VERSION }
            }
            InvalidManifest::Damaged(_) => damaged(&directory, error.to_string()),
        })
    }

    /// Reads and verifies a blob that a manifest of this store names. Blobs of the last complete checkpoint stay readable
    /// until the next but one is begun.
    ///
    /// # Errors
    /// The store cannot be read, or the blob is missing or has another checksum.
    pub fn read_group(&self, group: u16, entry: GroupEntry) -> Result<Vec<u8>, StateError> {
        let len = entry.len as usize;
        let mut bytes = Vec::with_capacity(len);
        for chunk in 0..len.div_ceil(MAX_VALUE_BYTES) {
            let value = self.values.get(&group_key(entry.slot, group, chunk))?;
            let value = value.ok_or_else(|| damaged(&self.directory, format!("key group {group} is missing")))?;
            bytes.extend_from_slice(&value);
        }
        if bytes.len() != len || crc32c::crc32c(&bytes) != entry.crc {
            return Err(damaged(&self.directory, format!("the checksum of key group {group} is wrong")));
        }
        Ok(bytes)
    }
}

fn damaged(directory: &Path, what: String) -> StateError {
    StateError::Damaged { directory: directory.to_owned(), what }
}

fn group_key(slot: u8, group: u16, chunk: usize) -> Vec<u8> {
    let mut key = vec![b'g', slot];
    key.extend_from_slice(&group.to_be_bytes());
    key.extend_from_slice(&(chunk as u16).to_be_bytes());
    key
}

fn manifest_key(id: u64, chunk: usize) -> Vec<u8> {
    vec![b'm', (id % 2) as u8, chunk as u8]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::testing::MemoryStore;

    fn blob(group: u16, len: usize, byte: u8) -> GroupBlob {
        GroupBlob { group, bytes: vec![byte; len] }
    }

    fn positions(replay_from: u64) -> Positions {
        Positions { replay_from, ..Positions::default() }
    }

    fn load(memory: &MemoryStore) -> (CheckpointStore, Option<Checkpoint>) {
        CheckpointStore::load(Box::new(memory.clone()), PathBuf::from("memory")).unwrap()
    }

    #[test]
    fn an_empty_store_has_no_checkpoint() {
        assert_eq!(load(&MemoryStore::default()).1, None);
    }

    #[test]
    fn the_newest_blob_of_each_group_is_loaded() {
        let memory = MemoryStore::default();
        let (mut store, _) = load(&memory);
        store.put_groups(&[blob(1, 10, 1), blob(2, 3 * MAX_VALUE_BYTES, 2)]).unwrap();
        assert_eq!(store.complete(5, positions(10), vec![9; 2 * MAX_VALUE_BYTES]).unwrap().0, 1);
        store.put_groups(&[blob(2, 5, 3)]).unwrap();
        assert_eq!(store.complete(6, positions(20), b"header".to_vec()).unwrap().0, 2);
        let checkpoint = load(&memory).1.unwrap();
        assert_eq!(checkpoint.groups, [blob(1, 10, 1), blob(2, 5, 3)]);
        assert_eq!((checkpoint.manifest.id, checkpoint.manifest.positions), (2, positions(20)));
        assert_eq!(checkpoint.manifest.header, b"header");
    }

    #[test]
    fn an_abandoned_checkpoint_leaves_the_last_one() {
        let memory = MemoryStore::default();
        let (mut store, _) = load(&memory);
        store.put_groups(&[blob(1, 10, 1)]).unwrap();
        store.complete(5, positions(10), Vec::new()).unwrap();
        store.put_groups(&[blob(1, 10, 2)]).unwrap();
        store.abandon();
        store.put_groups(&[blob(3, 10, 3)]).unwrap();
        store.complete(6, positions(20), Vec::new()).unwrap();
        assert_eq!(load(&memory).1.unwrap().groups, [blob(1, 10, 1), blob(3, 10, 3)]);
    }

    /// Crashes before every call of a sequence of checkpoints, losing or keeping what was not synced.
    #[test]
    fn a_crash_anywhere_leaves_a_whole_checkpoint() {
        let header = |id: u8| vec![id; if id.is_multiple_of(2) { 2 * MAX_VALUE_BYTES } else { 100 }];
        for crash_at in 0..60 {
            for keep_unsynced in [false, true] {
                let memory = MemoryStore::default();
                let (mut store, _) = load(&memory);
                memory.0.lock().unwrap().calls_left = Some(crash_at);
                let mut completed = 0;
                for id in 1..=5u8 {
                    let groups = [blob(1, 10, id), blob(u16::from(id), MAX_VALUE_BYTES + 1, id)];
                    let written = store
                        .put_groups(&groups)
                        .and_then(|()| store.complete(0, positions(u64::from(id)), header(id)));
                    if written.is_err() {
                        break;
                    }
                    completed = id;
                }
                let found = load(&memory.crash(keep_unsynced)).1;
                let id = found.as_ref().map_or(0, |checkpoint| checkpoint.manifest.id as u8);
                assert!(id == completed || id == completed + 1, "crash at {crash_at}: {id} after {completed}");
                if let Some(checkpoint) = found {
                    assert_eq!(checkpoint.manifest.header, header(id));
                    assert_eq!(checkpoint.groups[0].bytes[0], if id == 1 { 1 } else { id });
                }
            }
        }
    }

    /// How `memory` is opened; what it holds is synced then, as with sled.
    fn options(memory: &MemoryStore) -> StoreOptions {
        let memory = memory.clone();
        let open = move |_: &Path| memory.sync().map(|()| Box::new(memory.clone()) as Box<dyn KeyValue>);
        StoreOptions { open: Arc::new(open), limit: None }
    }

    fn attempt(store: &mut CheckpointStore, byte: u8) -> Result<u64, StateError> {
        store.put_groups(&[blob(1, 10, byte), blob(2, MAX_VALUE_BYTES + 1, byte)])?;
        store.complete(0, positions(u64::from(byte)), vec![byte; 100]).map(|(id, _)| id)
    }

    /// A failed call anywhere in one checkpoint, then a crash anywhere in the next: what failed may have reached the disk
    /// all the same, and must not be half written over.
    #[test]
    fn a_failure_and_then_a_crash_leave_a_whole_checkpoint() {
        for (fail_at, crash_at) in (0..6).flat_map(|fail_at| (0..16).map(move |crash_at| (fail_at, crash_at))) {
            for keep_unsynced in [false, true] {
                let memory = MemoryStore::default();
                let (mut store, _) = CheckpointStore::open(options(&memory), Path::new("memory")).unwrap();
                attempt(&mut store, 1).unwrap();
                memory.0.lock().unwrap().calls_left = Some(fail_at);
                if attempt(&mut store, 2).is_err() {
                    store.abandon();
                }
                memory.0.lock().unwrap().calls_left = Some(crash_at);
                let completed = attempt(&mut store, 3).is_ok();
                let what = format!("failure at {fail_at}, crash at {crash_at}, {keep_unsynced}");
                let (_, found) = CheckpointStore::load(Box::new(memory.crash(keep_unsynced)), PathBuf::from("memory"))
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                let found = found.unwrap_or_else(|| panic!("{what}: nothing"));
                let byte = found.manifest.positions.replay_from as u8;
                assert!(!completed || byte == 3, "{what}: {byte}");
                assert_eq!(found.manifest.header, [byte; 100], "{what}");
                assert_eq!(found.groups, [blob(1, 10, byte), blob(2, MAX_VALUE_BYTES + 1, byte)], "{what}");
            }
        }
    }

    #[test]
    fn a_store_that_lost_its_checkpoint_is_damaged() {
        let memory = MemoryStore::default();
        let (mut store, _) = CheckpointStore::open(options(&memory), Path::new("memory")).unwrap();
        attempt(&mut store, 1).unwrap();
        memory.0.lock().unwrap().calls_left = Some(0);
        assert!(attempt(&mut store, 2).is_err());
        // Still failing: the store stays closed, and that is not damage.
        assert!(attempt(&mut store, 2).is_err());
        memory.0.lock().unwrap().calls_left = None;
        memory.0.lock().unwrap().current.clear();
        let error = attempt(&mut store, 2).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains("checkpoint 0, and 1 was complete"), "{error}");
    }

    #[test]
    fn a_wrong_blob_is_damage() {
        let memory = MemoryStore::default();
        let (mut store, _) = load(&memory);
        store.put_groups(&[blob(1, 10, 1)]).unwrap();
        store.complete(5, positions(10), Vec::new()).unwrap();
        memory.0.lock().unwrap().current.insert(group_key(0, 1, 0), vec![7; 10]);
        let error = CheckpointStore::load(Box::new(memory), PathBuf::from("memory")).unwrap_err();
        assert!(error.is_damage() && error.to_string().contains("key group 1"), "{error}");
    }
}
