//! Changes to the users file. Comments and the order of lines stay, and the file is replaced as a whole.

use std::path::Path;

use weir::access::secret_file::SecretFileEdit;
use weir::access::{StoredPassword, Users, split_line};
use weir::config::ConfigErrors;

/// A users file, locked against other changes.
pub struct UsersFile {
    changing: SecretFileEdit,
    lines: Vec<String>,
    users: Users,
}

impl UsersFile {
    /// Locks and reads the file. A file that does not exist is empty.
    ///
    /// # Errors
    /// The file cannot be locked or read, or holds faults.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let changing = SecretFileEdit::lock(path)?;
        let text = changing.read()?.unwrap_or_default();
        let users = Users::parse(&path.display().to_string(), &text).map_err(ConfigErrors)?;
        Ok(Self { changing, lines: text.lines().map(str::to_owned).collect(), users })
    }

    /// Names and roles of the users, in the order of the file.
    pub fn list(&self) -> Vec<(String, Vec<String>)> {
        let mut users: Vec<_> = self.users.iter().collect();
        users.sort_by_key(|(_, user)| user.line);
        let roles = |roles: &[Box<str>]| roles.iter().map(ToString::to_string).collect();
        users.into_iter().map(|(name, user)| (name.to_string(), roles(&user.roles))).collect()
    }

    /// Sets a user's password, and the roles if `roles` is not empty. Returns whether the user is new.
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

    /// Removes a user. Returns whether the user existed.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| split_line(line).is_none_or(|(user, _)| user != name));
        self.lines.len() < before
    }

    /// Replaces the file. A power cut leaves the old file or the new one. Owner, group and permissions stay.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self) -> anyhow::Result<()> {
        let text: String = self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        Ok(self.changing.replace(&text)?)
    }
}
