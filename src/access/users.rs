//! The users file: one line per user, `NAME:ROLES:HASH`.
//!
//! The file is read here and written by `weir passwd`. Whether its roles exist is checked with the ACL file, see `policy`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::stored_password::{Argon2Hash, StoredPassword};
use crate::config::{ConfigFault, ConfigOrigin, ConfigProblem};

/// Longest user name in bytes: the limit of a device id, because a device's user name is its device id.
pub const MAX_USER_BYTES: usize = 128;
/// Largest number of users. A longer file is taken for a mistake.
const MAX_USERS: usize = 200_000;
/// Largest number of roles of one user.
const MAX_ROLES: usize = 32;
/// Role of users that the file gives no role, and of certificate users that are not in the file.
pub const DEFAULT_ROLE: &str = "device";
/// Role of clients without credentials.
pub const ANONYMOUS_ROLE: &str = "anonymous";

/// The allowed form of a user name, for messages.
pub const USER_FORM: &str = "1 to 128 bytes without :, /, +, #, control characters, and white space at either end";
/// The allowed form of a role name, for messages.
pub const ROLE_FORM: &str = "1 to 64 characters of A-Z a-z 0-9 . _ -";

/// Whether `name` is allowed as a user name. A user name is one level of a topic and one field of the users file, so it
/// cannot hold their separators or wildcards.
pub fn is_user(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || matches!(c, ':' | '/' | '+' | '#');
    let length = (1..=MAX_USER_BYTES).contains(&name.len());
    length && !name.chars().any(forbidden) && name.trim() == name
}

/// Whether `name` is allowed as a role name.
pub fn is_role(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// One user of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Names of the user's roles, in the order of the file; at least one.
    pub roles: Arc<[Box<str>]>,
    /// The hash of the user's password.
    pub password: StoredPassword,
    /// Line of the file, counted from 1.
    pub line: usize,
}

/// The users of a file.
#[derive(Clone, Default)]
pub struct Users {
    by_name: HashMap<Arc<str>, User>,
    /// See [`Users::decoy`].
    decoy: Option<Argon2Hash>,
}

impl fmt::Debug for Users {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Users").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Users {
    /// Reads the text of a users file. Empty lines and lines that begin with `#` are skipped. `file_name` is used in
    /// faults.
    ///
    /// # Errors
    /// The text has faults. The error holds all of them, and none quotes a hash.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Vec<ConfigFault>> {
        let mut users = Self::default();
        let mut faults = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let at = index + 1;
            if let Some(problem) = users.add(line, at).err() {
                faults.push(ConfigFault {
                    origin: ConfigOrigin::Line(file_name.to_owned(), at),
                    key: String::new(),
                    problem,
                });
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let hashes = users.by_name.values().filter_map(|user| match &user.password {
            StoredPassword::Argon2(hash) => Some(hash),
            StoredPassword::Generated(_) => None,
        });
        users.decoy = hashes.max_by_key(|hash| hash.cost()).map(Argon2Hash::unmatchable);
        Ok(users)
    }

    /// A hash that no password is known to have, as slow to check as the slowest of the file. It is checked for unknown
    /// users, so that the duration does not tell which users exist. `None`: the file has no Argon2 hash.
    pub(super) fn decoy(&self) -> Option<&Argon2Hash> {
        self.decoy.as_ref()
    }

    fn add(&mut self, line: &str, at: usize) -> Result<(), ConfigProblem> {
        let Some((name, rest)) = split_line(line) else {
            if is_comment(line) {
                return Ok(());
            }
            return Err(ConfigProblem::new("this is not a user", "NAME:ROLES:HASH, as weir passwd writes it"));
        };
        if !is_user(name) {
            return Err(ConfigProblem::new(format!("{name:?} cannot be a user name"), USER_FORM));
        }
        let Some((roles, hash)) = rest.split_once(':') else {
            return Err(ConfigProblem::new(
                format!("user {name:?} has no password"),
                "NAME:ROLES:HASH, as weir passwd writes it",
            ));
        };
        let roles =
            parse_roles(roles).map_err(|wrong| ConfigProblem::new(format!("user {name:?}: {wrong}"), ROLE_FORM))?;
        let password = StoredPassword::parse(hash.trim_end()).map_err(|wrong| {
            ConfigProblem::new(format!("the password of user {name:?}: {wrong}"), "a hash as weir passwd writes it")
        })?;
        if let Some(earlier) = self.by_name.get(name) {
            let wrong = format!("user {name:?} is already in line {}", earlier.line);
            return Err(ConfigProblem::new(wrong, "each user once"));
        }
        if self.by_name.len() >= MAX_USERS {
            return Err(ConfigProblem::new("there are too many users", format!("at most {MAX_USERS}")));
        }
        self.by_name.insert(name.into(), User { roles, password, line: at });
        Ok(())
    }

    /// The user of that name, and the shared copy of the name.
    pub fn get(&self, name: &str) -> Option<(&Arc<str>, &User)> {
        self.by_name.get_key_value(name)
    }

    /// All users, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &User)> {
        self.by_name.iter()
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are no users.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// Whether a line is empty or a comment.
fn is_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// Splits a line into the user's name and the rest. `None`: the line is empty, a comment, or has no `:`.
pub fn split_line(line: &str) -> Option<(&str, &str)> {
    if is_comment(line) { None } else { line.split_once(':') }
}

fn parse_roles(text: &str) -> Result<Arc<[Box<str>]>, String> {
    if text.is_empty() {
        return Ok(default_roles());
    }
    let mut roles: Vec<Box<str>> = Vec::new();
    for role in text.split(',') {
        if !is_role(role) {
            return Err(format!("{role:?} cannot be a role"));
        }
        if !roles.iter().any(|known| **known == *role) {
            roles.push(role.into());
        }
    }
    if roles.len() > MAX_ROLES {
        return Err(format!("it has {} roles, more than {MAX_ROLES}", roles.len()));
    }
    Ok(roles.into())
}

/// The roles of users that the file gives none.
pub(super) fn default_roles() -> Arc<[Box<str>]> {
    Arc::new([DEFAULT_ROLE.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    const COSTLY: &str = "$argon2id$v=19$m=512,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    const GENERATED: &str = "$generated-sha256$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

    fn roles(users: &Users, name: &str) -> Vec<String> {
        let (_, user) = users.get(name).expect("a user");
        user.roles.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_is_read() {
        let text =
            format!("# people\n\nada:dashboard,operator:{HASH}\r\n  # devices\npump 7::{GENERATED}\nß:a,a:{COSTLY}");
        let users = Users::parse("users", &text).expect("users");
        assert_eq!(users.len(), 3);
        assert_eq!(roles(&users, "ada"), ["dashboard", "operator"]);
        assert_eq!(roles(&users, "pump 7"), ["device"]);
        assert_eq!(roles(&users, "ß"), ["a"]);
        assert_eq!(users.get("ada").map(|(_, user)| user.line), Some(3));
        assert_eq!(users.decoy().map(Argon2Hash::cost), Some(1_024), "as slow as the slowest");
        let generated = Users::parse("users", &format!("a::{GENERATED}")).expect("users");
        assert!(generated.decoy().is_none());
        assert!(Users::parse("users", "").expect("no users").is_empty());
    }

    #[test]
    fn all_faults_are_reported_with_their_lines_and_without_hashes() {
        let long = "x".repeat(MAX_USER_BYTES + 1);
        let text = format!(
            "a::{HASH}\nsecret\na/b::{HASH}\n::{HASH}\n{long}::{HASH}\nc:{HASH}\nd:bad role:{HASH}\ne:r,:{HASH}\n\
             f::hunter2\na::{HASH}\n"
        );
        let faults: Vec<String> =
            Users::parse("users", &text).expect_err("faults").iter().map(ToString::to_string).collect();
        let starts = [
            "users:2: this is not a user; expected NAME:ROLES:HASH",
            "users:3: \"a/b\" cannot be a user name; expected 1 to 128 bytes",
            "users:4: \"\" cannot be a user name",
            "users:5: \"xxx",
            "users:6: user \"c\" has no password",
            "users:7: user \"d\": \"bad role\" cannot be a role; expected 1 to 64 characters",
            "users:8: user \"e\": \"\" cannot be a role",
            "users:9: the password of user \"f\": it is no hash that weir knows; expected a hash as weir passwd",
            "users:10: user \"a\" is already in line 1; expected each user once",
        ];
        assert_eq!(faults.len(), starts.len(), "{faults:#?}");
        for (fault, start) in faults.iter().zip(starts) {
            assert!(fault.starts_with(start), "{fault}");
            assert!(!fault.contains("argon2") && !fault.contains("hunter2") && !fault.contains("secret"), "{fault}");
        }
    }

    #[test]
    fn names_are_one_level_of_a_topic() {
        for good in ["a", "pump-7", "ä b", "a@b.c", "$x", &"x".repeat(MAX_USER_BYTES)] {
            assert!(is_user(good), "{good}");
        }
        for bad in ["", "a/b", "+", "a#", "a:b", " a", "a ", "a\tb", "a\u{0}"] {
            assert!(!is_user(bad), "{bad:?}");
        }
    }
}
