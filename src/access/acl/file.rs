//! Reads the ACL file: roles with their rules, as TOML.

use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::pattern::AclPattern;
use super::role::AclRole;
use super::roles::Acl;
use crate::access::secret_file;
use crate::access::users::{ANONYMOUS_ROLE, ROLE_FORM as ROLE_NAME_FORM, is_role};
use crate::config::{ConfigFault, ConfigOrigin, ConfigProblem, Quotas};

/// Larger files are refused. A role has a few hundred bytes.
const MAX_BYTES: usize = 1 << 20;
/// Largest number of roles in a file.
const MAX_ROLES: usize = 256;
/// Largest number of patterns in one list. Every topic that a client changes to is compared with all of them.
const MAX_PATTERNS: usize = 256;

const ROLE_FORM: &str = "[roles.NAME] with publish, subscribe, deny_publish, deny_subscribe, any_device or map_topics below, or [roles.NAME.quotas]";
const LIST_FORM: &str = "a list of topic patterns such as [\"devices/%u/#\"]";

impl Acl {
    /// Reads the file at `path`, and adds its roles to the built-in ones.
    ///
    /// # Errors
    /// The file cannot be read, or has faults.
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigFault>> {
        let file = path.display().to_string();
        let unusable = |wrong: String, expected: &str| {
            let problem = ConfigProblem::new(wrong, expected);
            vec![ConfigFault { origin: ConfigOrigin::File(file.clone()), key: String::new(), problem }]
        };
        match secret_file::read(path) {
            Ok(text) if text.len() > MAX_BYTES => {
                Err(unusable(format!("it has {} bytes", text.len()), "at most 1 MiB of roles"))
            }
            Ok(text) => Self::parse(&file, &text),
            Err(error) => Err(unusable(
                format!("the ACL file cannot be read: {error}"),
                "a TOML file with roles that weir's user may read (mqtt.auth.acl)",
            )),
        }
    }

    /// Reads the roles of `text` and adds them to the built-in ones. A role of the text replaces a built-in role of the same
    /// name. `file` is used in faults.
    ///
    /// # Errors
    /// The text has faults. The error holds all of them, in the order of the text.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigFault>> {
        let mut reader = AclReader { file, text, acl: Acl::default(), faults: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map_or(0, |span| span.start);
            reader.fault(at, "", ConfigProblem::new(error.message(), ""));
        }
        if errors.is_empty() {
            reader.sections(table.get_ref());
        }
        if reader.faults.is_empty() {
            return Ok(reader.acl);
        }
        reader.faults.sort_by(|a, b| a.origin.cmp(&b.origin));
        Err(reader.faults)
    }
}

struct AclReader<'a> {
    file: &'a str,
    text: &'a str,
    acl: Acl,
    faults: Vec<ConfigFault>,
}

impl AclReader<'_> {
    fn fault(&mut self, offset: usize, key: &str, problem: ConfigProblem) {
        let before = self.text.as_bytes().iter().take(offset);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        let origin = ConfigOrigin::Line(self.file.to_owned(), line);
        self.faults.push(ConfigFault { origin, key: key.to_owned(), problem });
    }

    fn sections(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            match (name.get_ref().as_ref(), value.get_ref().as_table()) {
                ("roles", Some(roles)) => self.roles(roles),
                (key, _) => {
                    self.fault(name.span().start, key, ConfigProblem::new("there is no such section", ROLE_FORM))
                }
            }
        }
    }

    fn roles(&mut self, roles: &DeTable<'_>) {
        for (count, (name, value)) in roles.iter().enumerate() {
            let (at, role) = (name.span().start, name.get_ref().as_ref());
            let key = format!("roles.{role}");
            if count == MAX_ROLES {
                let wrong = format!("there are {} roles", roles.len());
                return self.fault(at, &key, ConfigProblem::new(wrong, format!("at most {MAX_ROLES}")));
            }
            if !is_role(role) {
                let wrong = format!("{role:?} cannot be the name of a role");
                self.fault(at, &key, ConfigProblem::new(wrong, ROLE_NAME_FORM));
            }
            match value.get_ref().as_table() {
                Some(table) => {
                    let read = self.role(&key, role, table);
                    self.acl.roles.insert(role.into(), Arc::new(read));
                }
                None => self.fault(at, &key, ConfigProblem::new("this is a role and needs a table", ROLE_FORM)),
            }
        }
    }

    fn role(&mut self, key: &str, name: &str, table: &DeTable<'_>) -> AclRole {
        // A file that replaces a built-in role keeps any_device and quotas unless it names them: readings of a bridge would
        // otherwise be rejected, and its sessions be bounded, without a word in the file about either.
        let built_in = self.acl.roles.get(name).map(|role| (role.any_device, role.quotas));
        let mut role = AclRole::default();
        (role.any_device, role.quotas) = built_in.unwrap_or((false, role.quotas));
        for (name, value) in table {
            let (at, key) = (name.span().start, format!("{key}.{}", name.get_ref()));
            match name.get_ref().as_ref() {
                "publish" => role.publish.allow = self.publish_patterns(at, &key, value.get_ref()),
                "subscribe" => role.subscribe.allow = self.patterns(at, &key, value.get_ref()),
                "deny_publish" => role.publish.deny = self.patterns(at, &key, value.get_ref()),
                "deny_subscribe" => role.subscribe.deny = self.patterns(at, &key, value.get_ref()),
                "any_device" => self.switch(at, &key, &mut role.any_device, value.get_ref()),
                "map_topics" => self.switch(at, &key, &mut role.map_topics, value.get_ref()),
                "quotas" => self.quotas(at, &key, &mut role.quotas, value.get_ref()),
                _ => self.fault(at, &key, ConfigProblem::new("there is no such key", ROLE_FORM)),
            }
        }
        if name == ANONYMOUS_ROLE && !role.any_device {
            self.require_any_device(key, table);
        }
        role
    }

    fn switch(&mut self, at: usize, key: &str, switch: &mut bool, value: &DeValue<'_>) {
        match value.as_bool() {
            Some(read) => *switch = read,
            None => self.fault(at, key, ConfigProblem::new("it is not a boolean", "true or false")),
        }
    }

    fn quotas(&mut self, at: usize, key: &str, quotas: &mut Quotas, value: &DeValue<'_>) {
        let Some(table) = value.as_table() else {
            let problem = ConfigProblem::new("it is not a table", "[roles.NAME.quotas] with quotas below");
            return self.fault(at, key, problem);
        };
        for (name, value) in table {
            if let Err(problem) = quotas.read(name.get_ref(), value.get_ref()) {
                self.fault(name.span().start, &format!("{key}.{}", name.get_ref()), problem);
            }
        }
    }

    /// Notes a fault about an anonymous role without any_device: its clients have no user name that could be a device.
    fn require_any_device(&mut self, key: &str, table: &DeTable<'_>) {
        let at = table.keys().find(|name| name.get_ref() == "any_device").map_or(0, |name| name.span().start);
        let problem =
            ConfigProblem::new("clients without a user name have no device of their own", "true, or no such key");
        self.fault(at, &format!("{key}.any_device"), problem);
    }

    fn publish_patterns(&mut self, at: usize, key: &str, value: &DeValue<'_>) -> Vec<AclPattern> {
        let patterns = self.patterns(at, key, value);
        if patterns.iter().any(AclPattern::is_reserved) {
            let wrong = "a pattern reaches below weir/ or $, where clients cannot publish";
            self.fault(at, key, ConfigProblem::new(wrong, "patterns of other topics"));
        }
        patterns
    }

    fn patterns(&mut self, at: usize, key: &str, value: &DeValue<'_>) -> Vec<AclPattern> {
        let Some(list) = value.as_array() else {
            self.fault(at, key, ConfigProblem::new("it is not a list", LIST_FORM));
            return Vec::new();
        };
        if list.len() > MAX_PATTERNS {
            let wrong = format!("there are {} patterns", list.len());
            self.fault(
                at,
                key,
                ConfigProblem::new(wrong, format!("at most {MAX_PATTERNS}; several roles may share them")),
            );
            return Vec::new();
        }
        let mut patterns = Vec::with_capacity(list.len());
        for item in list {
            let read = match item.get_ref().as_str() {
                Some(text) => AclPattern::parse(text).map_err(|wrong| format!("{text:?}: {wrong}")),
                None => Err("an item is not a string".to_owned()),
            };
            match read {
                Ok(pattern) => patterns.push(pattern),
                Err(wrong) => {
                    let expected = "a topic filter, with %u for the user name and %c for the client identifier";
                    self.fault(item.span().start, key, ConfigProblem::new(wrong, expected));
                }
            }
        }
        patterns
    }
}

#[cfg(test)]
mod tests {
    use super::super::role::{DASHBOARD_QUOTAS, DEVICE_QUOTAS};
    use super::*;
    use crate::access::Identity;

    #[track_caller]
    fn faults(text: &str, expected: &[&str]) {
        let faults = Acl::parse("acl.toml", text).unwrap_err();
        let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), expected.len(), "{shown:#?}");
        for (shown, expected) in shown.iter().zip(expected) {
            assert!(shown.starts_with(expected), "{shown:?} does not begin with {expected:?}");
        }
    }

    #[test]
    fn a_file_adds_roles_and_replaces_built_in_ones() {
        let acl = Acl::parse("acl.toml", "[roles.device]\npublish = ['x/%u']\n[roles.own]\nsubscribe = []").unwrap();
        assert!(acl.has_role("own") && acl.has_role("dashboard") && !acl.has_role("other"));
        let device = &acl.roles["device"];
        assert_eq!((device.publish.allow.len(), device.subscribe.allow.len()), (1, 0));
        assert_eq!(Acl::parse("acl.toml", ""), Ok(Acl::default()));
        let bridge = Acl::parse("acl.toml", "[roles.bridge]\npublish = ['site/#']").unwrap();
        assert!(bridge.roles["bridge"].any_device);
    }

    #[test]
    fn quotas_of_several_roles_are_the_largest_of_each() {
        let text = "[roles.device]\n[roles.a.quotas]\nsessions = 3\nconnections = 'off'\n\
                    [roles.b.quotas]\nsessions = 7\nqueued_bytes = '1KiB'";
        let acl = Acl::parse("acl.toml", text).unwrap();
        let of = |roles: &[&str]| {
            let roles = roles.iter().map(|role| (*role).into()).collect();
            acl.quotas(&Identity { user: Some("u".into()), roles })
        };
        let both = of(&["a", "b"]);
        assert_eq!((both.sessions, both.connections), (Some(7), None));
        assert_eq!(both.queued_bytes, DASHBOARD_QUOTAS.queued_bytes, "the other role has its default");
        assert_eq!(of(&["b"]).queued_bytes, Some(1_024));
        assert_eq!(of(&["device"]), DEVICE_QUOTAS, "a replaced built-in role keeps its quotas");
        assert_eq!(of(&["bridge", "device"]), Quotas::default(), "one role without bounds is enough");
        assert_eq!(of(&["unheard-of"]), DEVICE_QUOTAS);
    }

    #[test]
    fn every_fault_is_reported_with_its_line() {
        faults(
            "[roles.a]\npublish = ['x/#/y', 1]\nsubscribed = []\n[roles.'b c']\nsubscribe = 'x'\nany_device = 1\n[other]\n",
            &[
                "acl.toml:2: roles.a.publish: \"x/#/y\": a # is not the last level; expected a topic filter",
                "acl.toml:2: roles.a.publish: an item is not a string; expected",
                "acl.toml:3: roles.a.subscribed: there is no such key; expected [roles.NAME] with",
                "acl.toml:4: roles.b c: \"b c\" cannot be the name of a role; expected",
                "acl.toml:5: roles.b c.subscribe: it is not a list; expected",
                "acl.toml:6: roles.b c.any_device: it is not a boolean; expected true or false",
                "acl.toml:7: other: there is no such section; expected [roles.NAME]",
            ],
        );
        faults("[roles.a]\npublish = ['weir/x']", &["acl.toml:2: roles.a.publish: a pattern reaches below weir/"]);
        faults(
            "[roles.a]\nquotas = 1\n[roles.b.quotas]\nsession = 1\nsessions = 0\nqueued_bytes = '5'\npublish_rate = -1\n",
            &[
                "acl.toml:2: roles.a.quotas: it is not a table; expected [roles.NAME.quotas]",
                "acl.toml:4: roles.b.quotas.session: there is no such quota; expected connections, sessions",
                "acl.toml:5: roles.b.quotas.sessions: 0 is out of range; expected a whole number from 1",
                "acl.toml:6: roles.b.quotas.queued_bytes: \"5\" has no unit; expected a size",
                "acl.toml:7: roles.b.quotas.publish_rate: -1 is not such a number; expected a whole number from 1",
            ],
        );
        faults("roles = 1", &["acl.toml:1: roles: there is no such section"]);
        faults("[roles]\na = 1", &["acl.toml:2: roles.a: this is a role and needs a table"]);
        faults("[roles.a\n", &["acl.toml:1: "]);
        faults("[roles.anonymous]\nany_device = false", &["acl.toml:2: roles.anonymous.any_device: clients without"]);
    }

    #[test]
    fn the_contents_of_a_file_are_bounded() {
        let list = |count: usize| format!("[roles.a]\npublish = [{}]", "'x',".repeat(count));
        assert!(Acl::parse("acl.toml", &list(MAX_PATTERNS)).is_ok());
        faults(&list(MAX_PATTERNS + 1), &["acl.toml:2: roles.a.publish: there are 257 patterns; expected at most 256"]);
        let roles = |count: usize| (0..count).map(|index| format!("[roles.r{index}]\n")).collect::<String>();
        assert!(Acl::parse("acl.toml", &roles(MAX_ROLES)).is_ok());
        assert_eq!(Acl::parse("acl.toml", &roles(MAX_ROLES + 1)).unwrap_err().len(), 1);
    }
}
