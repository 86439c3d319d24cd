//! Files of users, roles and tokens.

use std::path::Path;
use std::sync::Arc;

use weir::access::tokens::TokenList;
use weir::access::{Acl, Identity, Users};
use weir::config::{ConfigFault, ConfigOrigin, OnDeniedPublish};

use super::is_one_line;

/// The first byte says what file the rest is: 0 users, 1 roles, 2 tokens.
pub fn access(data: &[u8]) {
    let Some((&shape, bytes)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match shape % 3 {
        0 => users(text),
        1 => roles(text),
        _ => tokens(text),
    }
}

fn are_of(faults: &[ConfigFault], text: &str) {
    assert!(!faults.is_empty(), "a refused file has faults");
    let lines = text.split('\n').count();
    for fault in faults {
        is_one_line(&fault.to_string());
        let ConfigOrigin::Line(file, line) = &fault.origin else { panic!("{fault} has no line") };
        assert!(file == "file" && (1..=lines).contains(line), "{fault}: there are {lines} lines");
    }
}

fn users(text: &str) {
    let users = match Users::parse("file", text) {
        Ok(users) => users,
        Err(faults) => return are_of(&faults, text),
    };
    let entries = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    assert_eq!(users.len(), entries.clone().count(), "each line is one user");
    for line in entries {
        let name = line.split(':').next().expect("a name");
        let (_, user) = users.get(name).unwrap_or_else(|| panic!("{name:?} is a user"));
        assert!(!user.roles.is_empty(), "{name:?} has a role");
        assert!(!format!("{user:?}").contains("argon2id$v"), "hashes are not printed");
    }
}

fn roles(text: &str) {
    let acl = match Acl::parse("file", text) {
        Ok(acl) => acl,
        Err(faults) => return are_of(&faults, text),
    };
    for role in acl.role_names() {
        for user in [Some("u"), None] {
            let identity = Identity { user: user.map(Into::into), roles: Arc::new([role.into()]) };
            let client = acl.permissions(&identity, "c".into(), OnDeniedPublish::default());
            for (wide, narrow) in [("#", "a/b"), ("a/#", "a/+/c"), ("a/#", "a"), ("+/b", "a/b"), ("a/+", "a/u")] {
                let (all, one) = (client.may_subscribe(wide), client.may_subscribe(narrow));
                assert!(one || !all, "{role} may subscribe to {wide} and not to {narrow}");
            }
            for topic in ["devices/u/telemetry", "a", "/", "$SYS/x", "weir/windows/u"] {
                client.may_publish(topic);
            }
        }
    }
}

fn tokens(text: &str) {
    match TokenList::parse(Path::new("file"), text) {
        Ok(list) => {
            for token in list.tokens() {
                assert!(list.holds(token, token.role), "{token:?}");
                is_one_line(&token.name);
            }
            assert!(list.find("weir_x").is_none(), "a secret that nobody made");
        }
        Err(error) => {
            assert!(!error.0.is_empty(), "a refused file has faults");
            error.0.iter().for_each(|fault| is_one_line(fault));
        }
    }
}
