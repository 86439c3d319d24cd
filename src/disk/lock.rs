//! One process per data directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// The lock on a data directory could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another weir is running on {directory}, pid {pid}: stop it, or give this one another node.data_dir")]
    Held {
        /// The data directory.
        directory: String,
        /// What the holder wrote into the lock file.
        pid: String,
    },
    /// The lock file cannot be made.
    #[error("cannot lock the data directory {directory}: {source}")]
    Io {
        /// The data directory.
        directory: String,
        /// The operating system's words.
        source: io::Error,
    },
}

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates `directory` where needed and locks the file `lock` in it.
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
