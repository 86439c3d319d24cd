//! Files of users and tokens: reads them whole, and replaces them durably without opening them to other users.
//!
//! These files belong to the person who runs weir, unlike the data directory, and commands change them while weir runs.
//! Hence a replacement locks out a second command and keeps owner, group and mode of the file. After a power cut the file
//! has either its old or its new content. What the files mean is not known here: see `users` and `tokens`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::disk::directory_of;

/// Larger files are refused. A users file with the largest number of users is smaller.
const MAX_BYTES: u64 = 64 << 20;

/// Mode of a new file: only its owner may read and write it.
const PRIVATE: u32 = 0o600;

/// Adds the failed call and the path to an error, and keeps its kind.
fn named<'a>(call: &'static str, path: &'a Path) -> impl Fn(io::Error) -> io::Error + 'a {
    move |error| io::Error::new(error.kind(), format!("cannot {call} {}: {error}", path.display()))
}

/// Reads the whole text of a file.
///
/// # Errors
/// The file cannot be read, has more than 64 MiB, or is not UTF-8. The error names the path and quotes nothing of the file.
pub fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path).map_err(named("open", path))?;
    let mut bytes = Vec::new();
    // The limit is on the bytes that are read: the length in the metadata is wrong for a pipe and for a growing file.
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(named("read", path))?;
    let wrong = |wrong: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {wrong}", path.display()));
    if bytes.len() as u64 > MAX_BYTES {
        return Err(wrong(format!("it has more than {MAX_BYTES} bytes, more than any users or tokens file")));
    }
    String::from_utf8(bytes).map_err(|error| wrong(format!("byte {} is not UTF-8", error.utf8_error().valid_up_to())))
}

/// The warning about a file that every user of the machine may read; `None`: not everybody may.
pub fn world_readable(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let path = path.display();
    (mode & 0o004 != 0).then(|| format!("{path}: every user of this machine may read this file; chmod 640 or 600"))
}

/// A file that is being changed. Other commands that change a file of the same directory wait until this is dropped.
#[derive(Debug)]
pub struct SecretFileEdit {
    path: PathBuf,
    directory: File,
}

impl SecretFileEdit {
    /// Locks the file at `path`, which need not exist, for a change. A symbolic link is followed: its target will be
    /// replaced. The lock is on the directory, because a lock on the file itself would end with its replacement.
    ///
    /// # Errors
    /// The directory does not exist or cannot be locked.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            other => other.map_err(named("find", path))?,
        };
        let parent = directory_of(&path);
        let directory = File::open(parent).map_err(named("open directory", parent))?;
        flock(&directory, FlockOperation::LockExclusive)
            .map_err(|errno| named("lock directory", parent)(errno.into()))?;
        Ok(Self { path, directory })
    }

    /// Reads the text of the file; `None`: there is no file.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or is not UTF-8, see [`read`].
    pub fn read(&self) -> io::Result<Option<String>> {
        match read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Replaces the file, durably: the new content is written to a temporary file and synced before it is renamed, and the
    /// directory is synced afterwards. A new file is readable by its owner only (0600). An existing file keeps its owner and
    /// group and what its mode allows these two; what the mode allowed all others is dropped.
    ///
    /// # Errors
    /// A call of the file system fails. The file then has its old content.
    pub fn replace(&self, text: &str) -> io::Result<()> {
        let mut name = self.path.file_name().map(std::ffi::OsStr::to_os_string).unwrap_or_default();
        name.push(".tmp");
        let temporary = self.path.with_file_name(name);
        let written = self.write(&temporary, text).and_then(|()| {
            fs::rename(&temporary, &self.path).map_err(named("replace", &self.path))?;
            self.directory.sync_all().map_err(named("sync the directory of", &self.path))
        });
        if written.is_err() {
            // The first error is the one to report. A temporary file that stays behind is removed by the next attempt.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn write(&self, temporary: &Path, text: &str) -> io::Result<()> {
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named("remove", temporary)(error)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(PRIVATE).open(temporary);
        let mut file = file.map_err(named("create", temporary))?;
        if let Ok(before) = fs::metadata(&self.path) {
            let own = file.metadata().map_err(named("look at", temporary))?;
            if (before.uid(), before.gid()) != (own.uid(), own.gid()) {
                fchown(&file, Some(before.uid()), Some(before.gid()))
                    .map_err(named("keep the owner of", &self.path))?;
            }
            // After the change of the group: before it, the mode would admit the wrong group.
            let mode = PRIVATE | before.permissions().mode() & 0o060;
            file.set_permissions(fs::Permissions::from_mode(mode)).map_err(named("keep the mode of", &self.path))?;
        }
        file.write_all(text.as_bytes()).map_err(named("write", temporary))?;
        file.sync_all().map_err(named("sync", temporary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn replace(path: &Path, text: &str) {
        SecretFileEdit::lock(path).unwrap().replace(text).unwrap();
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        assert_eq!(SecretFileEdit::lock(&path).unwrap().read().unwrap(), None);
        replace(&path, "one\n");
        assert_eq!((read(&path).unwrap().as_str(), mode(&path)), ("one\n", 0o600));
        assert_eq!(world_readable(&path), None);
    }

    #[test]
    fn a_file_that_was_there_keeps_its_group_and_shuts_out_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        for (before, after) in [(0o640, 0o640), (0o644, 0o640), (0o666, 0o660), (0o400, 0o600)] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
            assert_eq!(world_readable(&path).is_some(), before & 0o004 != 0);
            replace(&path, "new");
            assert_eq!((read(&path).unwrap().as_str(), mode(&path)), ("new", after));
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn what_an_earlier_attempt_left_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let left = directory.path().join("users.tmp");
        fs::write(&left, "left behind, longer than the new text").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, "new");
        assert_eq!((read(&path).unwrap().as_str(), mode(&path)), ("new", 0o600));
        assert!(!left.exists());
    }

    #[test]
    fn a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&path).unwrap(), "new");
    }

    #[test]
    fn two_changes_come_one_after_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let add = |name: usize| {
            let changing = SecretFileEdit::lock(&path).unwrap();
            let before = changing.read().unwrap().unwrap_or_default();
            changing.replace(&format!("{before}{name}\n")).unwrap();
        };
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || (0..25).for_each(|n| add(thread * 25 + n)));
            }
        });
        let mut names: Vec<usize> = read(&path).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn errors_name_the_file_and_not_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        assert!(read(&path).unwrap_err().to_string().contains("users"));
        fs::write(&path, b"secret\xff").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("users: byte 6 is not UTF-8") && !error.contains("secret"), "{error}");
        assert!(SecretFileEdit::lock(&directory.path().join("nowhere/users")).is_err());
    }
}
