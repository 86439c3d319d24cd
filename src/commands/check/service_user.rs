//! The user as whom a check runs. Root can open files that weir's user cannot, so as root `weir check` looks at everything
//! with the rights of that user: the operating system answers, with groups, access lists and mounts.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use rustix::process::geteuid;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use rustix::{fs::Gid, fs::Uid};

use weir::config::ReadConfig;

/// A user of this machine, as /etc/passwd and /etc/group know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUser {
    /// The name; the number of a user without one.
    name: String,
    uid: u32,
    gid: u32,
    /// Further groups of the user.
    groups: Vec<u32>,
}

impl fmt::Display for ServiceUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {} (uid {}, gid {})", self.name, self.uid, self.gid)
    }
}

impl ServiceUser {
    /// The user as whom to check, if it is not the user of this process: the one that is asked for, else, for root, the
    /// owner of the data directory.
    ///
    /// # Errors
    /// The user is unknown, or only root could check as this user.
    pub fn of_check(asked: Option<&str>, config: &ReadConfig) -> anyhow::Result<Option<Self>> {
        let own = geteuid().as_raw();
        let user = match asked {
            Some(name) => Accounts::of_machine()?.find(name)?,
            None if own == 0 => match config.config().filter(|_| config.is_right("node.data_dir")) {
                Some(config) => Accounts::of_machine()?.owner_of(&config.node.data_dir),
                None => return Ok(None),
            }
            .unwrap_or_else(Self::root),
            None => return Ok(None),
        };
        if user.uid == own {
            return Ok(None);
        }
        if own != 0 {
            bail!("only root can check as {user}; run this with sudo");
        }
        Ok(Some(user))
    }

    fn root() -> Self {
        Self { name: "root".to_owned(), uid: 0, gid: 0, groups: Vec::new() }
    }

    /// Runs `work` on a thread with the rights of this user. The rest of the process keeps its own.
    ///
    /// # Errors
    /// The operating system does not allow the change.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let as_user = || -> anyhow::Result<T> {
            self.take_rights().with_context(|| format!("cannot take the rights of {self}"))?;
            Ok(work())
        };
        let thread = std::thread::scope(|scope| scope.spawn(as_user).join());
        thread.unwrap_or_else(|_| bail!("the check panicked; please report this defect"))
    }

    /// The user comes last: after it this thread may not change its groups.
    fn take_rights(&self) -> rustix::io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    }
}

/// The texts of /etc/passwd and /etc/group. Users of other sources, such as LDAP, are found by number only.
struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    fn of_machine() -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        // An image without any user has neither file.
        Ok(Self { passwd: read("/etc/passwd").unwrap_or_default(), group: read("/etc/group").unwrap_or_default() })
    }

    /// The user with this name, or with these numbers (`UID` or `UID:GID`).
    fn find(&self, text: &str) -> anyhow::Result<ServiceUser> {
        if let Some(user) = self.users().find(|user| user.name == text) {
            return Ok(self.with_groups(user));
        }
        let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
        let Ok(uid) = uid.parse() else {
            bail!("there is no user {text:?} in /etc/passwd; give a name from there, or UID:GID");
        };
        match gid {
            "" => self.numbered(uid).with_context(|| format!("uid {uid} is not in /etc/passwd; give UID:GID")),
            gid => {
                let gid = gid.parse().with_context(|| format!("{gid:?} is not the number of a group"))?;
                Ok(ServiceUser { gid, ..self.numbered(uid).unwrap_or_else(|| unnamed(uid, gid)) })
            }
        }
    }

    fn numbered(&self, uid: u32) -> Option<ServiceUser> {
        self.users().find(|user| user.uid == uid).map(|user| self.with_groups(user))
    }

    /// The owner of a directory; `None`: there is no such directory.
    fn owner_of(&self, directory: &Path) -> Option<ServiceUser> {
        let found = fs::metadata(directory).ok()?;
        Some(self.numbered(found.uid()).unwrap_or_else(|| unnamed(found.uid(), found.gid())))
    }

    /// The users of /etc/passwd (`NAME:x:UID:GID:…`), without their further groups.
    fn users(&self) -> impl Iterator<Item = ServiceUser> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(ServiceUser { name, uid, gid, groups: Vec::new() })
        })
    }

    /// The user with the groups of /etc/group (`NAME:x:GID:USER,USER`).
    fn with_groups(&self, user: ServiceUser) -> ServiceUser {
        let is_member = |members: &str| members.split(',').any(|member| member == user.name);
        let gid_of = |line: &str| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse().ok()?;
            fields.next().is_some_and(is_member).then_some(gid)
        };
        let groups = self.group.lines().filter_map(gid_of).collect();
        ServiceUser { groups, ..user }
    }
}

fn unnamed(uid: u32, gid: u32) -> ServiceUser {
    ServiceUser { name: uid.to_string(), uid, gid, groups: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\nbroken\nweir:x:990:991:weir:/var/lib/weir:/usr/sbin/nologin\n"
                .into(),
            group: "root:x:0:\nssl-cert:x:101:postgres,weir\nweir:x:991:\nplugdev:x:46:weirdo\n".into(),
        }
    }

    #[test]
    fn users_by_name_and_number() {
        let check = |text: &str, expected: &str, groups: &[u32]| {
            let user = accounts().find(text).map_err(|error| error.to_string()).expect("a user");
            assert_eq!((user.to_string().as_str(), user.groups.as_slice()), (expected, groups), "{text}");
        };
        check("weir", "user weir (uid 990, gid 991)", &[101]);
        check("990", "user weir (uid 990, gid 991)", &[101]);
        check("990:5", "user weir (uid 990, gid 5)", &[101]);
        check("7:8", "user 7 (uid 7, gid 8)", &[]);
        for (text, wrong) in
            [("nobody", "there is no user"), ("7", "give UID:GID"), ("7:x", "not the number of a group")]
        {
            let error = accounts().find(text).expect_err("no user").to_string();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}
