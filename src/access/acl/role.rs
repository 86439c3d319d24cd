//! One role and its rules.

use std::sync::Arc;

use super::pattern::{AclPattern, PatternClient};
use crate::config::Quotas;

/// What clients with a role may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AclRole {
    pub publish: TopicRules,
    pub subscribe: TopicRules,
    /// Whether readings that a client publishes may be of any device. Otherwise they are of the device that has the user
    /// name of the client.
    pub any_device: bool,
    /// Whether a client may publish on and subscribe to the topics that a map reads as those of its device.
    pub map_topics: bool,
    /// What a user with the role may hold.
    pub quotas: Quotas,
}

impl Default for AclRole {
    fn default() -> Self {
        Self {
            publish: TopicRules::default(),
            subscribe: TopicRules::default(),
            any_device: false,
            map_topics: false,
            quotas: DASHBOARD_QUOTAS,
        }
    }
}

/// Quotas of the role `device`: one device with a client or two.
pub(super) const DEVICE_QUOTAS: Quotas = Quotas {
    connections: Some(10),
    sessions: Some(20),
    subscriptions: Some(200),
    retained_messages: Some(100),
    retained_bytes: Some(1 << 20),
    queued_bytes: Some(4 << 20),
    publish_rate: Some(2_000),
};

/// Quotas of the role `dashboard`, and of roles of the ACL file that are not built in: many clients of one user.
pub(super) const DASHBOARD_QUOTAS: Quotas = Quotas {
    connections: Some(1_000),
    sessions: Some(1_000),
    subscriptions: Some(20_000),
    retained_messages: Some(10_000),
    retained_bytes: Some(16 << 20),
    queued_bytes: Some(64 << 20),
    publish_rate: None,
};

/// No quotas: only the bounds of `[mqtt]` hold, at which the heaviest user gives way.
pub(super) const NO_QUOTAS: Quotas = Quotas {
    connections: None,
    sessions: None,
    subscriptions: None,
    retained_messages: None,
    retained_bytes: None,
    queued_bytes: None,
    publish_rate: None,
};

/// Allowed patterns, less denied ones.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct TopicRules {
    pub allow: Vec<AclPattern>,
    pub deny: Vec<AclPattern>,
}

impl AclRole {
    /// A role of weir's own. A pattern that cannot be read is left out; a test checks that there is none.
    pub fn built_in(publish: &[&str], subscribe: &[&str], any_device: bool, quotas: Quotas) -> Self {
        // A role that publishes nothing has no topics of devices either.
        let map_topics = !publish.is_empty();
        let allow = |patterns: &[&str]| TopicRules {
            allow: patterns.iter().filter_map(|pattern| AclPattern::parse(pattern).ok()).collect(),
            deny: Vec::new(),
        };
        Self { publish: allow(publish), subscribe: allow(subscribe), any_device, map_topics, quotas }
    }
}

impl TopicRules {
    /// Whether the rules that `of` selects from each role allow every topic that `filter` matches, or `is_allowed_besides` does,
    /// and the rules deny none of them.
    pub fn permit(
        roles: &[Arc<AclRole>],
        of: fn(&AclRole) -> &TopicRules,
        filter: &str,
        client: &PatternClient<'_>,
        is_allowed_besides: impl FnOnce() -> bool,
    ) -> bool {
        let mut rules = roles.iter().map(|role| of(role));
        let is_allowed = rules.clone().any(|rules| rules.allow.iter().any(|pattern| pattern.covers(filter, client)));
        (is_allowed || is_allowed_besides())
            && !rules.any(|rules| rules.deny.iter().any(|pattern| pattern.overlaps(filter, client)))
    }
}
