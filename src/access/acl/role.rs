//! One role and its rules.

use std::sync::Arc;

use super::pattern::{AclPattern, PatternClient};

/// What clients with a role may do.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct AclRole {
    pub publish: TopicRules,
    pub subscribe: TopicRules,
    /// Whether readings that a client publishes may be of any device. Otherwise they are of the device that has the user
    /// name of the client.
    pub any_device: bool,
}

/// Allowed patterns, less denied ones.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct TopicRules {
    pub allow: Vec<AclPattern>,
    pub deny: Vec<AclPattern>,
}

impl AclRole {
    /// A role of weir's own. A pattern that cannot be read is left out; a test checks that there is none.
    pub fn built_in(publish: &[&str], subscribe: &[&str], any_device: bool) -> Self {
        let allow = |patterns: &[&str]| TopicRules {
            allow: patterns.iter().filter_map(|pattern| AclPattern::parse(pattern).ok()).collect(),
            deny: Vec::new(),
        };
        Self { publish: allow(publish), subscribe: allow(subscribe), any_device }
    }
}

impl TopicRules {
    /// Whether the rules that `of` selects from each role allow every topic that `filter` matches, and deny none of them.
    pub fn permit(
        roles: &[Arc<AclRole>],
        of: fn(&AclRole) -> &TopicRules,
        filter: &str,
        client: &PatternClient<'_>,
    ) -> bool {
        let mut rules = roles.iter().map(|role| of(role));
        rules.clone().any(|rules| rules.allow.iter().any(|pattern| pattern.covers(filter, client)))
            && !rules.any(|rules| rules.deny.iter().any(|pattern| pattern.overlaps(filter, client)))
    }
}
