//! Savepoints: a checkpoint in one portable file. It can be copied to another machine and restored there.
//!
//! ```text
//! magic "WEIRSAVE"  version u16  weir_len u8 weir  kind u8  created_ms i64  manifest_len u32  manifest  crc32c u32
//! the blob of each group that the manifest names, in its order
//! crc32c u32 of all before it  magic "WEIREND."
//! ```
//! Integers are little-endian. The first checksum covers everything before it, so that a savepoint can be listed without
//! reading the whole file. `weir`, the version that wrote the file, stands before every field that a later format may
//! change, so that an older weir can name it.
//!
//! This module does not decide when a savepoint is written, nor which one a start uses (`pipeline`, [`super::recovery`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;

use crate::core::group::GroupBlob;
use crate::disk::{Disk, DiskFile};
use crate::state::StateError;
use crate::state::checkpoint_store::{Checkpoint, CheckpointStore};
use crate::state::manifest::{InvalidManifest, Manifest};

const MAGIC: &[u8; 8] = b"WEIRSAVE";
const END: &[u8; 8] = b"WEIREND.";

/// Newest savepoint version this weir reads, and the one it writes.
pub const VERSION: u16 = 1;

/// Name of the directory of savepoints below the data directory.
pub const DIRECTORY: &str = "savepoints";

/// End of the name of every savepoint.
const SUFFIX: &str = ".weir";

/// Bytes that are written at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// Largest manifest that is read; a larger length is damage. The manifest of a million allowed devices is a tenth of it.
const MAX_MANIFEST_BYTES: u32 = 1 << 30;

/// Who asked for a savepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SavepointKind {
    /// weir itself. The oldest automatic savepoints are removed when there are more than `state.savepoints_kept`.
    Automatic,
    /// A person. The savepoint stays until a person removes it.
    Manual,
}

/// The description of a savepoint, without its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SavepointInfo {
    /// File name.
    pub file: String,
    /// Id of the checkpoint in the savepoint.
    pub id: u64,
    /// Who asked for the savepoint.
    pub kind: SavepointKind,
    /// Time at which the file was written, Unix milliseconds.
    pub created_ms: i64,
    /// Journal position from which a recovery replays.
    pub replay_from: u64,
    /// End of the windows log when the state was taken.
    pub windows_position: u64,
    /// End of the errors log when the state was taken.
    pub errors_position: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Version of weir that wrote the file.
    pub weir: String,
}

/// Why a savepoint could not be written or read.
#[derive(Debug, Error)]
pub enum SavepointError {
    /// A call of the file system failed.
    #[error("savepoint {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The checkpoint cannot be read from the state store.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file is not a savepoint.
    #[error("{} is not a savepoint of weir", path.display())]
    NotASavepoint {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a later weir.
    #[error(
        "{} was written by weir {weir} in savepoint format {found}; this weir reads up to format {VERSION}: \
         restore it with that version or a later one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        found: u16,
        /// Version of weir that wrote the file.
        weir: String,
    },
    /// The file is not as it was written.
    #[error("savepoint {} is damaged ({what}): take another one, `weir savepoint list` shows them", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// There is no checkpoint that a savepoint could be made of.
    #[error("there is no checkpoint yet: nothing was published to this data directory")]
    Nothing,
}

impl SavepointError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if crate::disk::is_full(source))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SavepointError + '_ {
    |source| SavepointError::Io { path: path.to_owned(), source }
}

fn damaged(path: &Path, what: impl Into<String>) -> SavepointError {
    SavepointError::Damaged { path: path.to_owned(), what: what.into() }
}

/// File name of the savepoint with this journal position. The names sort in the order of the journal.
pub fn file_name(replay_from: u64) -> String {
    format!("savepoint-{replay_from:020}{SUFFIX}")
}

/// Writes the store's last complete checkpoint to a file in `directory`. A crash leaves the whole file or none of that name.
///
/// # Errors
/// There is no checkpoint, it cannot be read, or the file system refused a call.
pub fn write(
    disk: &dyn Disk,
    directory: &Path,
    store: &CheckpointStore,
    kind: SavepointKind,
    created_ms: i64,
) -> Result<SavepointInfo, SavepointError> {
    let manifest = store.last_manifest().ok_or(SavepointError::Nothing)?;
    let path = directory.join(file_name(manifest.positions.replay_from));
    let temporary = path.with_extension("tmp");
    disk.create_dir_all(directory).map_err(io(directory))?;
    let written = write_file(disk, &temporary, store, manifest, kind, created_ms);
    let bytes = written.inspect_err(|_| {
        // Half a savepoint is useless, and its space may be needed. Where it cannot be removed, the next attempt overwrites
        // it.
        let _ = disk.remove(&temporary);
    })?;
    disk.rename(&temporary, &path).and_then(|()| disk.sync_dir(directory)).map_err(io(&path))?;
    let head = SavepointHead { kind, created_ms, weir: env!("CARGO_PKG_VERSION").into(), manifest: manifest.clone() };
    Ok(head.info(&path, bytes))
}

fn write_file(
    disk: &dyn Disk,
    path: &Path,
    store: &CheckpointStore,
    manifest: &Manifest,
    kind: SavepointKind,
    created_ms: i64,
) -> Result<u64, SavepointError> {
    let mut out = FileWriter::create(disk, path)?;
    out.put(&encode_head(manifest, kind, created_ms))?;
    for &(group, entry) in &manifest.groups {
        out.put(&store.read_group(group, entry)?)?;
    }
    out.finish()
}

fn encode_head(manifest: &Manifest, kind: SavepointKind, created_ms: i64) -> Vec<u8> {
    let weir = env!("CARGO_PKG_VERSION");
    let manifest = manifest.encode();
    let mut out = Vec::with_capacity(manifest.len() + 64);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.push(weir.len() as u8);
    out.extend_from_slice(weir.as_bytes());
    out.push(kind as u8);
    out.extend_from_slice(&created_ms.to_le_bytes());
    out.extend_from_slice(&(manifest.len() as u32).to_le_bytes());
    out.extend_from_slice(&manifest);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Writes a new file from its beginning, with a running checksum.
struct FileWriter<'a> {
    path: &'a Path,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    offset: u64,
    crc: u32,
}

impl<'a> FileWriter<'a> {
    fn create(disk: &dyn Disk, path: &'a Path) -> Result<Self, SavepointError> {
        let file = match disk.create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                disk.remove(path).and_then(|()| disk.create(path))
            }
            created => created,
        };
        Ok(Self { path, file: file.map_err(io(path))?, buffer: Vec::new(), offset: 0, crc: 0 })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SavepointError> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SavepointError> {
        self.file.write_all_at(&self.buffer, self.offset).map_err(io(self.path))?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends and syncs the file; returns its length.
    fn finish(mut self) -> Result<u64, SavepointError> {
        let crc = self.crc;
        self.buffer.extend_from_slice(&crc.to_le_bytes());
        self.buffer.extend_from_slice(END);
        self.flush()?;
        self.file.sync().map_err(io(self.path))?;
        Ok(self.offset)
    }
}

/// The part of a savepoint in front of the blobs.
struct SavepointHead {
    kind: SavepointKind,
    created_ms: i64,
    weir: String,
    manifest: Manifest,
}

impl SavepointHead {
    fn info(&self, path: &Path, bytes: u64) -> SavepointInfo {
        let positions = self.manifest.positions;
        SavepointInfo {
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            id: self.manifest.id,
            kind: self.kind,
            created_ms: self.created_ms,
            replay_from: positions.replay_from,
            windows_position: positions.windows,
            errors_position: positions.errors,
            bytes,
            weir: self.weir.clone(),
        }
    }
}

/// Reads a file from its beginning, with a running checksum.
struct FileReader<'a> {
    path: &'a Path,
    file: Arc<dyn DiskFile>,
    offset: u64,
    crc: u32,
}

impl<'a> FileReader<'a> {
    fn open(disk: &dyn Disk, path: &'a Path) -> Result<Self, SavepointError> {
        Ok(Self { path, file: disk.open_read(path).map_err(io(path))?, offset: 0, crc: 0 })
    }

    /// Reads the next `len` bytes. A length that exceeds the file is refused before memory is allocated for it.
    fn take(&mut self, len: usize) -> Result<Vec<u8>, SavepointError> {
        let left = self.file.len().map_err(io(self.path))?.saturating_sub(self.offset);
        if len as u64 > left {
            return Err(damaged(self.path, "it ends too early"));
        }
        let mut bytes = vec![0; len];
        let read = self.file.read_at(&mut bytes, self.offset).map_err(io(self.path))?;
        if read < len {
            return Err(damaged(self.path, "it ends too early"));
        }
        self.offset += len as u64;
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SavepointError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    fn head(&mut self) -> Result<SavepointHead, SavepointError> {
        let path = self.path;
        match self.take(MAGIC.len()) {
            Ok(magic) if magic == MAGIC => {}
            Ok(_) | Err(SavepointError::Damaged { .. }) => {
                return Err(SavepointError::NotASavepoint { path: path.to_owned() });
            }
            Err(error) => return Err(error),
        }
        let version = u16::from_le_bytes(self.array()?);
        let [weir_len] = self.array()?;
        // Shown before the checksum is known to be right, so it may be any text.
        let weir = String::from_utf8_lossy(&self.take(usize::from(weir_len))?).escape_debug().to_string();
        if version > VERSION {
            return Err(SavepointError::Newer { path: path.to_owned(), found: version, weir });
        }
        let [kind] = self.array()?;
        let created_ms = i64::from_le_bytes(self.array()?);
        let manifest_len = u32::from_le_bytes(self.array()?);
        if manifest_len > MAX_MANIFEST_BYTES {
            return Err(damaged(path, "a manifest of impossible size"));
        }
        let manifest = self.take(manifest_len as usize)?;
        let expected = self.crc;
        if u32::from_le_bytes(self.array()?) != expected {
            return Err(damaged(path, "the checksum of its head is wrong"));
        }
        let kind = match kind {
            0 => SavepointKind::Automatic,
            1 => SavepointKind::Manual,
            other => return Err(damaged(path, format!("unknown kind {other}"))),
        };
        let manifest = Manifest::decode(&manifest).map_err(|error| match error {
            InvalidManifest::Newer(found) => SavepointError::Newer { path: path.to_owned(), found, weir: weir.clone() },
            InvalidManifest::Damaged(what) => damaged(path, what),
        })?;
        Ok(SavepointHead { kind, created_ms, weir, manifest })
    }
}

/// Reads the description of a savepoint, without its state.
///
/// # Errors
/// The file cannot be read, is no savepoint, is damaged in its head, or was written by a later weir.
pub fn inspect(disk: &dyn Disk, path: &Path) -> Result<SavepointInfo, SavepointError> {
    let mut file = FileReader::open(disk, path)?;
    let head = file.head()?;
    let bytes = file.file.len().map_err(io(path))?;
    Ok(head.info(path, bytes))
}

/// Reads a whole savepoint and verifies every checksum in it.
///
/// # Errors
/// The file cannot be read, is no savepoint, is damaged, or was written by a later weir.
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Checkpoint, SavepointError> {
    let mut file = FileReader::open(disk, path)?;
    let SavepointHead { manifest, .. } = file.head()?;
    let mut groups = Vec::with_capacity(manifest.groups.len());
    for &(group, entry) in &manifest.groups {
        let bytes = file.take(entry.len as usize)?;
        if crc32c::crc32c(&bytes) != entry.crc {
            return Err(damaged(path, format!("the checksum of key group {group} is wrong")));
        }
        groups.push(GroupBlob { group, bytes });
    }
    let expected = file.crc;
    if u32::from_le_bytes(file.array()?) != expected || file.array()? != *END {
        return Err(damaged(path, "its end is wrong"));
    }
    if file.file.len().map_err(io(path))? != file.offset {
        return Err(damaged(path, "bytes follow its end"));
    }
    Ok(Checkpoint { manifest, groups })
}

/// One entry of a directory of savepoints: its path, and its description or why it cannot be read.
pub type ListedSavepoint = (PathBuf, Result<SavepointInfo, SavepointError>);

/// The savepoints in `directory`, newest first in the order of the journal; none where there is no directory.
///
/// # Errors
/// The directory cannot be listed. A file that cannot be read is no error of the whole listing.
pub fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<ListedSavepoint>, SavepointError> {
    let entries = match disk.list(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io(directory))?,
    };
    let names = entries.into_iter().rev().filter(|entry| !entry.is_dir && entry.name.ends_with(SUFFIX));
    let paths = names.map(|entry| directory.join(entry.name));
    Ok(paths.map(|path| (path.clone(), inspect(disk, &path))).collect())
}

/// Makes the names of the files in `directory` durable, where there is one.
///
/// # Errors
/// The file system refused the call.
pub fn sync_names(disk: &dyn Disk, directory: &Path) -> Result<(), SavepointError> {
    match disk.sync_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(io(directory)),
    }
}

/// Removes the oldest automatic savepoints in `directory` beyond `kept`, and files that an interrupted write left behind.
///
/// # Errors
/// The file system refused a call.
pub fn prune(disk: &dyn Disk, directory: &Path, kept: usize) -> Result<(), SavepointError> {
    let listed = list(disk, directory)?;
    let automatic =
        listed.into_iter().filter(|(_, info)| matches!(info, Ok(info) if info.kind == SavepointKind::Automatic));
    for (path, _) in automatic.skip(kept) {
        disk.remove(&path).map_err(io(&path))?;
    }
    for entry in disk.list(directory).map_err(io(directory))? {
        if entry.name.starts_with("savepoint-") && entry.name.ends_with(".tmp") {
            let path = directory.join(entry.name);
            disk.remove(&path).map_err(io(&path))?;
        }
    }
    disk.sync_dir(directory).map_err(io(directory))
}

#[cfg(test)]
mod tests;
