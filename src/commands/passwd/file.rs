//! The users file as `weir passwd` changes it: comments and order stay, and the file is replaced whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rustix::fs::{FlockOperation, flock};

use weir::access::{StoredPassword, Users, split_line};
use weir::config::ConfigErrors;
use weir::disk::directory_of;

/// Only its owner reads a new file.
const NEW_MODE: u32 = 0o600;
/// An existing file keeps what its owner and group may do.
const KEPT_MODE: u32 = 0o660;

/// A users file that nobody else changes meanwhile.
pub struct UsersFile {
    path: PathBuf,
    lines: Vec<String>,
    users: Users,
    /// Owner, group and mode of the file that is there.
    found: Option<(u32, u32, u32)>,
    /// The directory, locked.
    directory: File,
}

impl UsersFile {
    /// Reads the file, which may be absent.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        // A link stays one: what it points at is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory_name = directory_of(&path);
        let directory =
            File::open(directory_name).with_context(|| format!("cannot open {}", directory_name.display()))?;
        flock(&directory, FlockOperation::LockExclusive)?;
        let name = path.display().to_string();
        let (text, found) = match fs::read_to_string(&path) {
            Ok(text) => {
                let metadata = fs::metadata(&path)?;
                (text, Some((metadata.uid(), metadata.gid(), metadata.permissions().mode())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), None),
            Err(error) => return Err(anyhow!(error).context(format!("cannot read {name}"))),
        };
        let users = Users::parse(&name, &text).map_err(ConfigErrors)?;
        Ok(Self { path, lines: text.lines().map(str::to_owned).collect(), users, found, directory })
    }

    /// Names and roles in the order of the file.
    pub fn list(&self) -> Vec<(String, Vec<String>)> {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_by_key(|(_, user)| user.line);
        let roles = |roles: &[Box<str>]| roles.iter().map(ToString::to_string).collect();
        users.into_iter().map(|(name, user)| (name.to_string(), roles(&user.roles))).collect()
    }

    /// Gives a user a password, and roles unless there are none given. Whether the user is new.
    pub fn set(&mut self, name: &str, roles: &[String], password: &StoredPassword) -> bool {
        let password = password.to_text();
        let place = self.lines.iter().position(|line| split_line(line).is_some_and(|(user, _)| user == name));
        let kept = place.and_then(|place| split_line(self.lines.get(place)?)?.1.split_once(':'));
        let roles = match kept {
            Some((kept, _)) if roles.is_empty() => kept.to_owned(),
            _ => roles.join(","),
        };
        let line = format!("{name}:{roles}:{password}");
        match place.and_then(|place| self.lines.get_mut(place)) {
            Some(found) => *found = line,
            None => self.lines.push(line),
        }
        place.is_none()
    }

    /// Removes a user; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| split_line(line).is_none_or(|(user, _)| user != name));
        self.lines.len() < before
    }

    /// Replaces the file: a power cut leaves the old or the new one. Owner, group and their rights stay.
    pub fn save(&self) -> anyhow::Result<()> {
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        self.write(&temporary).inspect_err(|_| {
            // What is half written is of no use.
            let _ = fs::remove_file(&temporary);
        })
    }

    fn write(&self, temporary: &Path) -> anyhow::Result<()> {
        let name = temporary.display();
        // Left behind by an attempt that was killed; under the lock nobody else writes it.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(anyhow!(error).context(format!("cannot remove {name}")));
            }
            _ => {}
        }
        let options = OpenOptions::new().write(true).create_new(true).mode(NEW_MODE).open(temporary);
        let mut file = options.with_context(|| format!("cannot create {name}"))?;
        for line in &self.lines {
            writeln!(file, "{line}").with_context(|| format!("cannot write {name}"))?;
        }
        if let Some((owner, group, mode)) = self.found {
            let made = file.metadata()?;
            if (made.uid(), made.gid()) != (owner, group) {
                fchown(&file, Some(owner), Some(group)).with_context(|| {
                    format!("cannot give {name} the owner of {}; run this as its owner or as root", self.path.display())
                })?;
            }
            file.set_permissions(Permissions::from_mode(mode & KEPT_MODE))?;
        }
        file.sync_all().with_context(|| format!("cannot sync {name}"))?;
        fs::rename(temporary, &self.path).with_context(|| format!("cannot replace {}", self.path.display()))?;
        self.directory.sync_all().with_context(|| format!("cannot sync the directory of {}", self.path.display()))
    }
}
