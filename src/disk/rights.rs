//! Rights of other users: weir's data is readable by its own user only.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::Mode;

/// Rights of the group and of other users.
const OTHERS: u32 = 0o077;

/// From now on, files that this process creates have mode 0600 at most, and directories 0700. sled creates its files itself,
/// so a mode at each call would not be enough.
pub fn own_files_only() {
    rustix::process::umask(Mode::from_raw_mode(OTHERS));
}

/// Takes all rights of other users from the directories in `directory`, and returns the names of those that were open. The
/// files in them need no change: nobody else reaches them.
///
/// # Errors
/// `directory` cannot be read, or another user owns one of the directories.
pub fn close_directories(directory: &Path) -> io::Result<Vec<String>> {
    let mut closed = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // Of the entry itself: a link to a directory elsewhere is not followed.
        let metadata = entry.metadata()?;
        let mode = metadata.permissions().mode();
        if !metadata.is_dir() || mode & OTHERS == 0 {
            continue;
        }
        let path = entry.path();
        fs::set_permissions(&path, Permissions::from_mode(mode & !OTHERS))
            .map_err(|error| io::Error::new(error.kind(), format!("change the mode of {}: {error}", path.display())))?;
        closed.push(entry.file_name().to_string_lossy().into_owned());
    }
    closed.sort();
    Ok(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_directories_are_closed_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        for (name, mode) in [("journal", 0o755), ("state", 0o700), ("errors", 0o750)] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::set_permissions(directory.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::write(directory.path().join("addresses.json"), "{}").unwrap();
        fs::set_permissions(directory.path().join("addresses.json"), Permissions::from_mode(0o644)).unwrap();
        assert_eq!(close_directories(directory.path()).unwrap(), ["errors", "journal"]);
        assert_eq!(
            [mode("journal"), mode("state"), mode("errors"), mode("addresses.json")],
            [0o700, 0o700, 0o700, 0o644]
        );
        assert_eq!(close_directories(directory.path()).unwrap(), Vec::<String>::new());
    }
}
