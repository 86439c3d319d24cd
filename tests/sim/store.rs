//! A key-value store on the simulated disk that keeps what sled promises, and nothing more: a batch is there whole or
//! not at all, and certain only after a sync. Of what was not synced any batch may be there or not, whatever became of
//! the others: sled keeps a prefix, but nothing may rest on that.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use weir::disk::{Disk, DiskFile};
use weir::state::StateError;
use weir::state::key_value::KeyValue;
use weir::sync::lock;

const MAGIC: [u8; 4] = *b"BTCH";
const HEADER_BYTES: usize = 24;

/// Name of the file in the store's directory.
pub const FILE: &str = "batches";

type StoredValues = BTreeMap<Vec<u8>, Vec<u8>>;

/// One open store.
#[derive(Debug)]
pub struct SimStore {
    directory: PathBuf,
    file: Arc<dyn DiskFile>,
    state: Mutex<SimStoreState>,
}

#[derive(Debug, Default)]
struct SimStoreState {
    values: StoredValues,
    end: u64,
    synced: u64,
    /// After a failure nothing works until it is opened again, as with sled.
    failed: bool,
}

impl SimStore {
    /// Opens or creates the store.
    pub fn open(disk: &dyn Disk, directory: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Io { directory: directory.to_owned(), source };
        disk.create_dir_all(directory).map_err(io)?;
        let path = directory.join(FILE);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(&path).map_err(io)?,
            opened => opened.map_err(io)?,
        };
        let mut bytes = vec![0; file.len().map_err(io)? as usize];
        file.read_at(&mut bytes, 0).map_err(io)?;
        let found = scan(&bytes).map_err(|what| StateError::Damaged { directory: directory.to_owned(), what })?;
        // What is left of batches that were not whole must not pass for damage later. All is written again: an earlier
        // start whose sync failed may have changed what is read and not what is stored.
        bytes.truncate(found.end);
        for gap in found.gaps {
            bytes[gap].fill(0);
        }
        file.set_len(found.end as u64).map_err(io)?;
        file.write_all_at(&bytes, 0).map_err(io)?;
        file.sync().map_err(io)?;
        disk.sync_dir(directory).map_err(io)?;
        let end = found.end as u64;
        let state = SimStoreState { values: found.values, end, synced: end, failed: false };
        Ok(Self { directory: directory.to_owned(), file, state: Mutex::new(state) })
    }

    fn run<T>(&self, work: impl FnOnce(&mut SimStoreState) -> io::Result<T>) -> Result<T, StateError> {
        let mut state = lock(&self.state);
        let done = if state.failed { Err(io::Error::other("failed before")) } else { work(&mut state) };
        state.failed |= done.is_err();
        done.map_err(|source| StateError::Io { directory: self.directory.clone(), source })
    }
}

impl KeyValue for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.run(|state| Ok(state.values.get(key).cloned()))
    }

    fn put(&self, values: &[(Vec<u8>, &[u8])]) -> Result<(), StateError> {
        self.run(|state| {
            let mut body = Vec::new();
            for (key, value) in values {
                for bytes in [key.as_slice(), value] {
                    body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    body.extend_from_slice(bytes);
                }
                state.values.insert(key.clone(), value.to_vec());
            }
            let frame = frame(state.synced, &body);
            self.file.write_all_at(&frame, state.end)?;
            state.end += frame.len() as u64;
            Ok(())
        })
    }

    fn sync(&self) -> Result<(), StateError> {
        self.run(|state| {
            self.file.sync()?;
            state.synced = state.end;
            Ok(())
        })
    }

    fn disk_bytes(&self) -> Result<u64, StateError> {
        self.run(|state| Ok(state.end))
    }
}

/// Magic, length of the body, up to where the file was synced, checksums of the body and of the header.
fn frame(synced: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = MAGIC.to_vec();
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&synced.to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(&frame).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

#[derive(Debug, Default)]
struct StoreScan {
    values: StoredValues,
    end: usize,
    /// Left over from batches that are not whole.
    gaps: Vec<std::ops::Range<usize>>,
    /// Beginning and end of each whole batch.
    frames: Vec<std::ops::Range<usize>>,
    /// Everything below was synced, as the newest batch says.
    synced: usize,
}

fn scan(bytes: &[u8]) -> Result<StoreScan, String> {
    let mut found = StoreScan::default();
    let mut at = 0;
    while at + HEADER_BYTES <= bytes.len() {
        let Some((synced, body)) = whole(&bytes[at..]) else {
            at += 1;
            continue;
        };
        if at > found.end {
            found.gaps.push(found.end..at);
        }
        found.synced = found.synced.max(synced as usize);
        insert(body, &mut found.values).ok_or("a batch that nobody wrote")?;
        let begin = at;
        at += HEADER_BYTES + body.len();
        found.frames.push(begin..at);
        found.end = at;
    }
    // Zeros are what an earlier open put in place of batches that were not whole.
    let lost =
        |gap: &&std::ops::Range<usize>| gap.start < found.synced && bytes[(*gap).clone()].iter().any(|b| *b != 0);
    if let Some(gap) = found.gaps.iter().find(lost) {
        return Err(format!("bytes {} to {} were synced and are no batches", gap.start, gap.end));
    }
    Ok(found)
}

fn whole(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..4] != MAGIC || crc32c::crc32c(&header[..20]) != word(20) {
        return None;
    }
    let body = rest.get(..word(4) as usize)?;
    let synced = u64::from(word(8)) | u64::from(word(12)) << 32;
    (crc32c::crc32c(body) == word(16)).then_some((synced, body))
}

fn insert(mut body: &[u8], values: &mut StoredValues) -> Option<()> {
    let mut take = || {
        let (len, rest) = body.split_first_chunk::<4>()?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        body = rest;
        Some(bytes.to_vec())
    };
    while let Some(key) = take() {
        let value = take()?;
        values.insert(key, value);
    }
    Some(())
}

/// A place in the file whose decay can be told from a batch that was never whole: within a batch below what a later one
/// says was synced.
pub fn provably_synced(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let Ok(found) = scan(bytes) else { return Vec::new() };
    found.frames.into_iter().filter(|frame| frame.end <= found.synced).collect()
}
