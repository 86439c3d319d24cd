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

/// Takes all rights of other users from those of the directories `names` in `directory` that exist, and returns the names of
/// those that were open. The files in them need no change: nobody else reaches them.
///
/// # Errors
/// A directory cannot be looked at, or another user owns it.
pub fn close_directories<'a>(directory: &Path, names: &[&'a str]) -> io::Result<Vec<&'a str>> {
    let mut closed = Vec::new();
    for name in names {
        let path = directory.join(name);
        // Of the entry itself: a link to a directory elsewhere is not followed.
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let mode = metadata.permissions().mode();
        if !metadata.is_dir() || mode & OTHERS == 0 {
            continue;
        }
        fs::set_permissions(&path, Permissions::from_mode(mode & !OTHERS))
            .map_err(|error| io::Error::new(error.kind(), format!("change the mode of {}: {error}", path.display())))?;
        closed.push(*name);
    }
    Ok(closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_directories_are_closed_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;
        for (name, mode) in [("journal", 0o755), ("state", 0o700), ("errors", 0o750), ("other", 0o755)] {
            fs::create_dir(directory.path().join(name)).unwrap();
            fs::set_permissions(directory.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::write(directory.path().join("addresses.json"), "{}").unwrap();
        fs::set_permissions(directory.path().join("addresses.json"), Permissions::from_mode(0o644)).unwrap();
        let close = || {
            close_directories(directory.path(), &["absent", "addresses.json", "errors", "journal", "state"]).unwrap()
        };
        assert_eq!(close(), ["errors", "journal"]);
        assert_eq!(
            [mode("journal"), mode("state"), mode("errors"), mode("addresses.json")],
            [0o700, 0o700, 0o700, 0o644]
        );
        assert_eq!((close(), mode("other")), (Vec::new(), 0o755));
    }
}
