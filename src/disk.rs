//! The only place that calls the file system.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A file opened through a [`Disk`]. All offsets and lengths are in bytes.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at `offset` until `buffer` is full or the file ends; returns the bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, growing the file where needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all writes so far survive a power cut (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Current length.
    fn len(&self) -> io::Result<u64>;
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskEntry {
    /// File name without the directory.
    pub name: String,
    /// Length in bytes; 0 for directories.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// The file-system calls weir makes.
pub trait Disk: Send + Sync + Debug {
    /// Creates a file for reading and writing; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Entries of a directory in order of name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DiskEntry>>;
    /// Creates a directory and its parents; no error if it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that an unprivileged process may still write on the file system that holds `dir`.
    fn available_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, _path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        todo!()
    }
    fn open(&self, _path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        todo!()
    }
    fn open_read(&self, _path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        todo!()
    }
    fn list(&self, _dir: &Path) -> io::Result<Vec<DiskEntry>> {
        todo!()
    }
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        todo!()
    }
    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        todo!()
    }
    fn remove(&self, _path: &Path) -> io::Result<()> {
        todo!()
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        todo!()
    }
    fn available_bytes(&self, _dir: &Path) -> io::Result<u64> {
        todo!()
    }
}

/// Replaces `path` with `bytes` so that a power cut leaves the old or the new content: temporary file → sync →
/// rename → sync of the directory.
pub fn replace_file(_disk: &dyn Disk, _path: &Path, _bytes: &[u8]) -> io::Result<()> {
    todo!()
}
