//! The file system as weir uses it, and the only module that calls it for weir's data.
//!
//! The modules above work on the traits [`Disk`] and [`DiskFile`]. [`RealDisk`] is the operating system's file system;
//! [`sim::SimDisk`] is one in memory that loses and tears writes at a power cut. The text of every error names the call
//! and the path, and its kind is the operating system's.
//!
//! This module knows no format of weir. It does not retry: whether a failed call may be repeated is for the caller to
//! decide (a sync may not).

pub mod lock;
pub mod pending;
mod real;
mod rights;
pub mod sim;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use real::RealDisk;
pub use rights::{close_directories, own_files_only};

/// A file opened through a [`Disk`]. All offsets and lengths are in bytes.
#[expect(clippy::len_without_is_empty, reason = "the length comes from the file system, which may refuse to tell")]
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at `offset` until `buffer` is full or the file ends; returns the bytes read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, growing the file where needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all writes so far survive a power cut (`fdatasync`). After an error nothing is known of any of these writes,
    /// and a later success proves nothing: the operating system may have dropped the pages.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Current length of the file.
    fn len(&self) -> io::Result<u64>;
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskEntry {
    /// File name without the directory.
    pub name: String,
    /// Length in bytes; 0 for directories.
    pub len: u64,
    /// Whether the entry is a directory.
    pub is_dir: bool,
}

/// The calls of the file system that weir makes.
pub trait Disk: Send + Sync + Debug {
    /// Creates a file for reading and writing; fails if it exists. The name survives a power cut only after
    /// [`Disk::sync_dir`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Entries of a directory, ordered by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DiskEntry>>;
    /// Creates a directory and its parents; no error if it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file or directory; a file replaces the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` survive a power cut.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that an unprivileged process may still write to the file system that holds `dir`.
    fn available_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// Whether the error says that the file system, or the user's quota on it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Replaces `path` with `bytes` so that a power cut leaves the old or the new content: temporary file → sync →
/// rename → sync of the directory. A temporary file that an earlier attempt left behind is overwritten.
///
/// # Errors
/// One of these calls failed. `path` has the old or the new content; after a failed sync of the directory a power cut may
/// still bring the old one back.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path)?;
    let file = match disk.create(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&temporary)?;
            disk.create(&temporary)?
        }
        other => other?,
    };
    file.write_all_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(directory_of(path))
}

/// The directory that holds `path`; `.` for a bare name.
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn temporary_path(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} does not name a file", path.display())));
    };
    let mut temporary = name.to_os_string();
    temporary.push(".tmp");
    Ok(path.with_file_name(temporary))
}
