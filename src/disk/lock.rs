//! The lock that allows one process per data directory.
//!
//! It is an advisory `flock` on the file `lock`. The kernel releases it when the process ends in any way, so a crash
//! leaves nothing to clean up. The process id in the file is for people; it decides nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// The lock on a data directory could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error("another weir is running on {directory}, pid {pid}: stop it, or give this one another node.data_dir")]
    Held {
        /// The data directory.
        directory: String,
        /// Process id of the holder, as it stands in the lock file.
        pid: String,
    },
    /// The lock file cannot be created, locked or written.
    #[error("cannot lock the data directory {directory}: {source}")]
    Io {
        /// The data directory.
        directory: String,
        /// The operating system's error.
        source: io::Error,
    },
}

impl LockError {
    /// Whether the disk failed or is full, as opposed to a directory that is in use or that the user may not write.
    pub fn is_failed_disk(&self) -> bool {
        use io::ErrorKind::{AlreadyExists, NotADirectory, NotFound, PermissionDenied};
        match self {
            LockError::Held { .. } => false,
            LockError::Io { source, .. } => {
                !matches!(source.kind(), AlreadyExists | NotADirectory | NotFound | PermissionDenied)
            }
        }
    }
}

/// The lock on a data directory, held until this value is dropped or the process ends in any way.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates `directory` where needed and locks the file `lock` in it. Does not wait.
    ///
    /// # Errors
    /// Another process holds the lock, or the file system refused a call.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let name = directory.display().to_string();
        let failed = |source| LockError::Io { directory: name.clone(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let path = directory.join("lock");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(failed)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(error.into()));
            }
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(failed)?;
            return Err(LockError::Held { directory: name, pid: pid.trim().to_owned() });
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::acquire(directory.path()).unwrap();
        let error = DirectoryLock::acquire(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}:", std::process::id())), "{error}");
        drop(held);
        DirectoryLock::acquire(directory.path()).unwrap();
    }
}
