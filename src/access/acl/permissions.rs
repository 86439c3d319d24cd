//! The permissions of one client.

use std::sync::Arc;

use super::pattern::PatternClient;
use super::role::{AclRole, TopicRules};
use crate::config::{OnDeniedPublish, Tenant, Tenants};
use crate::core::formats::Maps;

/// The permissions of one client: its roles, and the names that stand in for `%u` and `%c` in their patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    roles: Box<[Arc<AclRole>]>,
    user: Option<Arc<str>>,
    client_id: Arc<str>,
    on_denied_publish: OnDeniedPublish,
    tenants: Tenants,
    /// Tenant of the user; `None`: the user is one of the box's own.
    tenant: Option<Arc<Tenant>>,
    map_topics: MapTopics,
}

/// The topics of devices that have forms of their own.
#[derive(Debug, Clone, Default)]
pub struct MapTopics(pub Arc<Maps>);

impl PartialEq for MapTopics {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for MapTopics {}

impl Permissions {
    pub(super) fn new(
        roles: Box<[Arc<AclRole>]>,
        user: Option<Arc<str>>,
        client_id: Arc<str>,
        on_denied_publish: OnDeniedPublish,
    ) -> Self {
        let (tenants, map_topics) = (Tenants::default(), MapTopics::default());
        Self { roles, user, client_id, on_denied_publish, tenants, tenant: None, map_topics }
    }

    /// Lets roles with `map_topics` use the topics that these maps read as those of the client.
    #[must_use]
    pub fn with_map_topics(self, map_topics: &MapTopics) -> Self {
        Self { map_topics: map_topics.clone(), ..self }
    }

    /// Confines the client to the topics of its tenant, if its user belongs to one of `tenants`.
    #[must_use]
    pub fn within(self, tenants: &Tenants) -> Self {
        let tenant = self.user.as_ref().and_then(|user| tenants.of_user(user)).cloned();
        Self { tenants: tenants.clone(), tenant, ..self }
    }

    /// Whether the client may publish on `topic`.
    pub fn may_publish(&self, topic: &str) -> bool {
        let of = match &self.tenant {
            Some(tenant) => Some(tenant),
            None => self.tenants.of_topic(topic),
        };
        // A tenant has results of its own below weir/ of its prefix, and only weir publishes there.
        if of.is_some_and(|tenant| topic.strip_prefix(&*tenant.prefix).is_none_or(is_reserved)) {
            return false;
        }
        let relative = self.relative(topic);
        let is_own = |topic: &str| self.is_map_topic(topic, |maps, user| maps.is_own_topic(topic, user));
        relative.is_some_and(|topic| {
            TopicRules::permit(&self.roles, |role| &role.publish, topic, &self.client(), || is_own(topic))
        })
    }

    /// Whether the client may receive every message that `filter` matches. Of a shared subscription, pass the filter without
    /// `$share` and the group. A topic name is a filter too.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        let relative = self.relative(filter);
        let is_own = |filter: &str| self.is_map_topic(filter, |maps, user| maps.is_own_filter(filter, user));
        relative.is_some_and(|filter| {
            TopicRules::permit(&self.roles, |role| &role.subscribe, filter, &self.client(), || is_own(filter))
        })
    }

    /// Whether a role allows the topic or filter because a map reads it: as one of the client's own device, as `is_own` says, or,
    /// with a role that may send for any device, as one of any device.
    fn is_map_topic(&self, filter: &str, is_own: impl Fn(&Maps, &str) -> bool) -> bool {
        let maps = &*self.map_topics.0;
        let own = self.user.as_deref().is_some_and(|user| is_own(maps, user));
        self.roles.iter().any(|role| role.map_topics && (own || role.any_device && maps.find(filter).is_some()))
    }

    /// Whether others may be asked to answer on `topic`: a tenant's client must not let a client of the box publish outside
    /// of the tenant's topics for it.
    pub fn may_request_response_on(&self, topic: &str) -> bool {
        self.relative(topic).is_some()
    }

    /// A topic or filter as the client's roles see it: below the prefix of its tenant. `None`: it is not below the prefix.
    fn relative<'a>(&self, filter: &'a str) -> Option<&'a str> {
        match &self.tenant {
            Some(tenant) => filter.strip_prefix(&*tenant.prefix),
            None => Some(filter),
        }
    }

    /// Whether readings that the client publishes may be of any device that they name. Otherwise they are of the device with
    /// the client's user name.
    pub fn speaks_for_any_device(&self) -> bool {
        self.roles.iter().any(|role| role.any_device)
    }

    /// User name of the client; `None`: the client is anonymous.
    pub fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// What happens to denied publishes of the client if it speaks MQTT 3.1.1.
    pub fn on_denied_publish(&self) -> OnDeniedPublish {
        self.on_denied_publish
    }

    fn client(&self) -> PatternClient<'_> {
        PatternClient { user: self.user.as_deref(), client_id: &self.client_id }
    }
}

/// Whether only weir publishes on a topic below a tenant's prefix.
fn is_reserved(relative: &str) -> bool {
    relative.starts_with("weir/") || relative.starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::super::Acl;
    use super::*;
    use crate::access::Identity;
    use crate::core::formats::MapSettings;

    fn permissions(acl: &Acl, user: Option<&str>, roles: &[&str]) -> Permissions {
        let roles = roles.iter().map(|role| (*role).into()).collect();
        let identity = Identity { user: user.map(Into::into), roles };
        acl.permissions(&identity, "c-1".into(), OnDeniedPublish::default())
    }

    fn parse(text: &str) -> Acl {
        Acl::parse("acl.toml", text).unwrap()
    }

    #[test]
    fn built_in_roles_allow_what_they_say() {
        let acl = Acl::default();
        let patterns: usize =
            acl.roles.values().map(|role| role.publish.allow.len() + role.subscribe.allow.len()).sum();
        assert_eq!(patterns, 12, "a built-in pattern cannot be read");
        let device = permissions(&acl, Some("pump"), &["device"]);
        assert!(device.may_publish("devices/pump/telemetry") && device.may_subscribe("devices/pump/commands/#"));
        assert!(!device.may_publish("devices/fan/telemetry") && !device.may_publish("other"));
        for filter in ["#", "devices/#", "devices/pump/#", "weir/#", "$SYS/#", "devices/+/commands/#"] {
            assert!(!device.may_subscribe(filter), "{filter}");
        }
        let dashboard = permissions(&acl, Some("panel"), &["dashboard"]);
        assert!(dashboard.may_subscribe("#") && dashboard.may_subscribe("$SYS/#") && !dashboard.may_publish("a"));
        for free in [permissions(&acl, Some("site"), &["bridge"]), permissions(&acl, None, &["anonymous"])] {
            assert!(free.may_subscribe("#") && free.may_publish("a") && free.may_subscribe("$SYS/#"));
            assert!(free.may_publish("$SYS/broker/connection/b/state") && !free.may_publish("$SYS/broker/uptime"));
            assert!(free.speaks_for_any_device());
        }
        assert!(!device.speaks_for_any_device());
    }

    #[test]
    fn roles_add_up_and_denials_win() {
        let acl = parse(
            "[roles.reader]\nsubscribe = ['a/#']\n[roles.writer]\npublish = ['a/#']\nany_device = true\n\
             [roles.careful]\nsubscribe = ['b/#']\ndeny_subscribe = ['a/secret/#']\ndeny_publish = ['a/%u']",
        );
        let both = permissions(&acl, Some("u"), &["reader", "writer"]);
        assert!(both.may_publish("a/u") && both.may_subscribe("a/secret/x") && both.speaks_for_any_device());
        let all = permissions(&acl, Some("u"), &["reader", "writer", "careful"]);
        assert!(all.may_subscribe("b/#") && all.may_subscribe("a/open/#"));
        assert!(!all.may_subscribe("a/secret/x") && !all.may_subscribe("a/#"), "a part of it is denied");
        assert!(!all.may_publish("a/u") && all.may_publish("a/v"));
        assert!(!permissions(&acl, Some("u"), &["unheard-of"]).may_subscribe("a"));
    }

    #[test]
    fn a_tenants_client_is_confined_to_its_prefix() {
        let tenant = |name: &str| Tenant {
            name: name.into(),
            prefix: format!("{name}/").into(),
            users: vec![format!("{name}.*")],
            quotas: crate::config::Quotas::default(),
            devices: None,
        };
        let tenants = Tenants::new([tenant("acme"), tenant("other")]);
        let acl = Acl::default();
        let of = |user: &str, role: &str| permissions(&acl, Some(user), &[role]).within(&tenants);
        let device = of("acme.pump", "device");
        assert!(device.may_publish("acme/devices/acme.pump/telemetry"));
        assert!(device.may_subscribe("acme/devices/acme.pump/commands/#"));
        for topic in ["devices/acme.pump/telemetry", "other/devices/acme.pump/x", "acme/devices/acme.fan/x", "acme", ""]
        {
            assert!(!device.may_publish(topic) && !device.may_subscribe(topic), "{topic}");
        }
        let bridge = of("acme.site", "bridge");
        assert!(
            bridge.may_subscribe("acme/#")
                && bridge.may_subscribe("acme/weir/windows/#")
                && bridge.may_publish("acme/x")
        );
        for filter in ["#", "+/#", "+/x", "acme", "other/#", "$SYS/#", "weir/#", "acm+/x", "$share/g/acme/x"] {
            assert!(!bridge.may_subscribe(filter), "{filter}");
        }
        for topic in
            ["acme/weir/windows/a/b", "acme/$SYS/x", "weir/x", "other/x", "x", "$SYS/broker/connection/b/state"]
        {
            assert!(!bridge.may_publish(topic), "{topic}");
        }
        assert!(bridge.may_request_response_on("acme/x") && !bridge.may_request_response_on("other/x"));
        let own = of("site", "bridge");
        assert!(own.may_subscribe("#") && own.may_publish("acme/x") && own.may_request_response_on("acme/x"));
        assert!(!own.may_publish("acme/weir/windows/a/b"), "results of a tenant are weir's");
    }

    /// Permissions where a Tasmota and a shadow of AWS IoT have maps.
    fn mapped(acl: &Acl, user: Option<&str>, role: &str) -> Permissions {
        let map = |name: &str, topic: &str| MapSettings {
            name: name.into(),
            topics: vec![topic.into()],
            ignore: vec!["cmnd/{device}/#".into()],
            ..MapSettings::default()
        };
        let aws = MapSettings { ignore: Vec::new(), ..map("aws", "$aws/things/{device}/shadow/update") };
        let maps = Maps::new(&[map("tasmota", "tele/{device}/SENSOR"), aws]).unwrap();
        permissions(acl, user, &[role]).with_map_topics(&MapTopics(Arc::new(maps)))
    }

    #[test]
    fn a_device_may_use_the_topics_that_its_map_reads() {
        let acl = Acl::default();
        let desk = mapped(&acl, Some("desk"), "device");
        for topic in ["tele/desk/SENSOR", "tele/desk/UPTIME", "$aws/things/desk/shadow/update", "devices/desk/x"] {
            assert!(desk.may_publish(topic), "{topic}");
        }
        for topic in ["tele/lamp/SENSOR", "$aws/things/lamp/shadow/update", "other"] {
            assert!(!desk.may_publish(topic), "{topic}");
        }
        assert!(
            desk.may_subscribe("cmnd/desk/#") && !desk.may_subscribe("cmnd/#") && !desk.may_subscribe("tele/+/SENSOR")
        );
        let free = mapped(&acl, None, "anonymous");
        assert!(free.may_publish("$aws/things/lamp/shadow/update") && !free.may_publish("$aws/rules/x"));
        assert!(!mapped(&acl, Some("desk"), "dashboard").may_publish("tele/desk/SENSOR"));
        let acl = parse(
            "[roles.device]\npublish = ['x']\n[roles.own]\nmap_topics = true\ndeny_publish = ['tele/+/UPTIME']\n\
             deny_subscribe = ['cmnd/+/secret']",
        );
        assert!(!mapped(&acl, Some("desk"), "device").may_publish("tele/desk/SENSOR"), "the role was replaced");
        let own = mapped(&acl, Some("desk"), "own");
        assert!(own.may_publish("tele/desk/SENSOR") && !own.may_publish("tele/desk/UPTIME"));
        assert!(own.may_subscribe("cmnd/desk/POWER") && !own.may_subscribe("cmnd/desk/#"));
    }

    #[test]
    fn one_pattern_must_cover_a_filter() {
        let acl = parse("[roles.r]\nsubscribe = ['a', 'a/+', 'a/+/#']");
        let client = permissions(&acl, None, &["r"]);
        assert!(client.may_subscribe("a/+/#") && client.may_subscribe("a") && client.may_subscribe("a/x"));
        assert!(!client.may_subscribe("a/#"));
    }
}
