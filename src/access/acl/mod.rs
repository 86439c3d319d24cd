//! Who may do what: roles with rules on topics.
//!
//! A client's roles give it the union of what they allow; what one of them denies is denied. A publish is judged by its
//! topic. A subscription is judged as a whole: it is granted only if a single pattern allows every topic that its filter
//! matches and no pattern denies any of them. So what was granted needs no look at any message, and nothing that a
//! subscriber asked for is left out in silence.

mod file;
mod pattern;
mod permissions;

use std::collections::BTreeMap;
use std::sync::Arc;

use pattern::{AclPattern, Subject};

use super::{ANONYMOUS_ROLE, DEFAULT_ROLE, Identity};
use crate::config::OnDeniedPublish;
pub use permissions::Permissions;

/// All roles, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    roles: BTreeMap<Box<str>, Arc<AclRole>>,
}

/// What clients with this role may do.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct AclRole {
    publish: TopicRules,
    subscribe: TopicRules,
    /// Whether readings that such a client publishes may be of any device that they name.
    any_device: bool,
}

/// What is allowed less what is denied.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct TopicRules {
    allow: Vec<AclPattern>,
    deny: Vec<AclPattern>,
}

/// Where a bridge says whether it is connected.
const BRIDGE_STATE: &str = "$SYS/broker/connection/+/state";

impl Acl {
    /// Whether there is a role of this name.
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.contains_key(name)
    }

    /// Names of all roles.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(|name| &**name)
    }

    /// What this client may do. A role that does not exist allows nothing.
    pub fn permissions(&self, identity: &Identity, client_id: Arc<str>, on_denied: OnDeniedPublish) -> Permissions {
        let roles = identity.roles.iter().filter_map(|name| self.roles.get(name)).map(Arc::clone).collect();
        Permissions::new(roles, identity.user.clone(), client_id, on_denied)
    }
}

impl Default for Acl {
    /// The built-in roles.
    fn default() -> Self {
        let everything = ["#", "$SYS/#"];
        let roles = [
            (DEFAULT_ROLE, AclRole::built_in(&["devices/%u/#"], &["devices/%u/commands/#"], false)),
            ("dashboard", AclRole::built_in(&[], &everything, false)),
            ("bridge", AclRole::built_in(&["#", BRIDGE_STATE], &everything, true)),
            (ANONYMOUS_ROLE, AclRole::built_in(&["#", BRIDGE_STATE], &everything, true)),
        ];
        Self { roles: roles.into_iter().map(|(name, role)| (name.into(), Arc::new(role))).collect() }
    }
}

impl AclRole {
    /// The patterns are weir's own; a test holds that all of them can be read.
    fn built_in(publish: &[&str], subscribe: &[&str], any_device: bool) -> Self {
        let allow = |patterns: &[&str]| TopicRules {
            allow: patterns.iter().filter_map(|pattern| AclPattern::parse(pattern).ok()).collect(),
            deny: Vec::new(),
        };
        Self { publish: allow(publish), subscribe: allow(subscribe), any_device }
    }
}

impl TopicRules {
    /// Whether every topic of `filter` is allowed and none is denied.
    fn permit(roles: &[Arc<AclRole>], of: fn(&AclRole) -> &TopicRules, filter: &str, subject: &Subject<'_>) -> bool {
        let mut rules = roles.iter().map(|role| of(role));
        rules.clone().any(|rules| rules.allow.iter().any(|pattern| pattern.covers(filter, subject)))
            && !rules.any(|rules| rules.deny.iter().any(|pattern| pattern.overlaps(filter, subject)))
    }
}
