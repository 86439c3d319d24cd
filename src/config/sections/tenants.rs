//! `[[tenants]]`: groups of users with a topic prefix and quotas of their own.

use std::sync::Arc;

use super::quotas::Quotas;

/// One tenant: a group of users that use only topics below a prefix, and see nothing of other tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Name of the tenant.
    pub name: Arc<str>,
    /// What all topics of the tenant begin with. It ends in `/`.
    pub prefix: Arc<str>,
    /// Its users: names, or beginnings of names followed by `*`.
    pub users: Vec<String>,
    /// Bounds of all its users together.
    pub quotas: Quotas,
    /// Largest number of its devices; `None`: no limit of its own.
    pub devices: Option<usize>,
}

impl Tenant {
    /// Whether a user belongs to the tenant.
    pub fn has_user(&self, user: &str) -> bool {
        self.users.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => user.starts_with(beginning),
            None => user == pattern,
        })
    }
}

/// All tenants, in the order of their prefixes. No user belongs to two tenants, and no prefix begins with another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tenants {
    by_prefix: Arc<[Arc<Tenant>]>,
}

impl Tenants {
    /// The set of these tenants.
    pub fn new(tenants: impl IntoIterator<Item = Tenant>) -> Self {
        let mut by_prefix: Vec<Arc<Tenant>> = tenants.into_iter().map(Arc::new).collect();
        by_prefix.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        Self { by_prefix: by_prefix.into() }
    }

    /// The tenants, in the order of their prefixes.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_prefix.iter()
    }

    /// Whether there are no tenants.
    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty()
    }

    /// The tenant of a user; `None`: the user is one of the box's own.
    pub fn of_user(&self, user: &str) -> Option<&Arc<Tenant>> {
        self.by_prefix.iter().find(|tenant| tenant.has_user(user))
    }

    /// The tenant that a topic belongs to; `None`: the topic is one of the box's own.
    pub fn of_topic(&self, topic: &str) -> Option<&Arc<Tenant>> {
        // No prefix begins with another one, so only the last prefix that does not sort after the topic can match.
        let after = self.by_prefix.partition_point(|tenant| *tenant.prefix <= *topic);
        let tenant = self.by_prefix.get(after.checked_sub(1)?)?;
        topic.starts_with(&*tenant.prefix).then_some(tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str, users: &[&str]) -> Tenant {
        Tenant {
            name: name.into(),
            prefix: format!("{name}/").into(),
            users: users.iter().map(|user| (*user).to_owned()).collect(),
            quotas: Quotas::default(),
            devices: None,
        }
    }

    fn name(tenant: Option<&Arc<Tenant>>) -> Option<&str> {
        tenant.map(|tenant| &*tenant.name)
    }

    #[test]
    fn users_and_topics_find_their_tenant() {
        let tenants = Tenants::new([tenant("b", &["bob"]), tenant("acme", &["acme.*", "ada"]), tenant("a-", &["x*"])]);
        for (user, expected) in
            [("acme.pump", Some("acme")), ("acme.", Some("acme")), ("ada", Some("acme")), ("bob", Some("b"))]
        {
            assert_eq!(name(tenants.of_user(user)), expected, "{user}");
        }
        for user in ["acme", "ada2", "bo", ""] {
            assert_eq!(name(tenants.of_user(user)), None, "{user}");
        }
        for (topic, expected) in
            [("acme/x", Some("acme")), ("acme/", Some("acme")), ("b/c/d", Some("b")), ("a-/", Some("a-"))]
        {
            assert_eq!(name(tenants.of_topic(topic)), expected, "{topic}");
        }
        for topic in ["acme", "acmex/", "a/", "bb/", "", "\u{10ffff}", "#", "+/x", "$share/g/acme/x"] {
            assert_eq!(name(tenants.of_topic(topic)), None, "{topic}");
        }
    }
}
