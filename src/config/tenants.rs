//! Reads `[[tenants]]` and the tables of quotas, and checks that tenants do not overlap.

use toml::de::{DeTable, DeValue};

use crate::config::document::Document;
use crate::config::fault::{ConfigOrigin, ConfigProblem};
use crate::config::nearest::nearest;
use crate::config::sections::{Quotas, Tenant, Tenants};
use crate::config::value::RawValue;

/// Name of the section.
pub(super) const TENANTS: &str = "tenants";
/// Largest number of tenants.
const MAX_TENANTS: usize = 256;
/// Largest number of user patterns of one tenant.
const MAX_USERS: usize = 1_000;
/// Longest prefix in bytes.
const MAX_PREFIX_BYTES: usize = 256;
/// Longest user name in bytes.
const MAX_USER_BYTES: usize = 128;

const FORM: &str = "[[tenants]] with name, users, and if needed prefix and [tenants.quotas]";
const NAME_FORM: &str = "1 to 64 characters of A-Z a-z 0-9 - _";
const PREFIX_FORM: &str = "the beginning of topics such as \"acme/\": at most 256 bytes that end in /, without +, # and control \
                           characters, and not below weir/ or $";
const USERS_FORM: &str = "a list of user names such as [\"bob\", \"acme.*\"]; a * at the end stands for any rest";

type ReadQuota = fn(&mut Quotas, RawValue<'_>) -> Result<(), ConfigProblem>;

/// The keys of a table of quotas.
const QUOTAS: &[(&str, ReadQuota)] = &[
    ("connections", |quotas, v| number(&mut quotas.connections, v)),
    ("sessions", |quotas, v| number(&mut quotas.sessions, v)),
    ("subscriptions", |quotas, v| number(&mut quotas.subscriptions, v)),
    ("retained_messages", |quotas, v| number(&mut quotas.retained_messages, v)),
    ("retained_bytes", |quotas, v| size(&mut quotas.retained_bytes, v)),
    ("queued_bytes", |quotas, v| size(&mut quotas.queued_bytes, v)),
    ("publish_rate", |quotas, v| {
        quotas.publish_rate = v.whole_or_off(1..=u64::from(u32::MAX))?;
        Ok(())
    }),
];

fn number(slot: &mut Option<usize>, value: RawValue<'_>) -> Result<(), ConfigProblem> {
    *slot = value.whole_or_off(1..=10_000_000)?;
    Ok(())
}

fn size(slot: &mut Option<usize>, value: RawValue<'_>) -> Result<(), ConfigProblem> {
    *slot = value.size_or_off_bytes(1..=64 << 30)?;
    Ok(())
}

impl Quotas {
    /// Sets the quota `name` to a value of a TOML file.
    ///
    /// # Errors
    /// There is no such quota, or the value is not one of its values.
    pub fn read(&mut self, name: &str, value: &DeValue<'_>) -> Result<(), ConfigProblem> {
        if let Some((_, read)) = QUOTAS.iter().find(|(key, _)| *key == name) {
            return read(self, RawValue::Toml(value));
        }
        let names = QUOTAS.iter().map(|(key, _)| *key);
        let near = nearest(name, names.clone()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let expected = format!("{}{near}", names.collect::<Vec<_>>().join(", "));
        Err(ConfigProblem::new("there is no such quota", expected))
    }
}

/// A tenant while it is read, with the places of its values.
struct TenantDraft {
    tenant: Tenant,
    key: String,
    name_at: ConfigOrigin,
    prefix_at: ConfigOrigin,
    users_at: ConfigOrigin,
}

impl Document<'_> {
    /// Reads the list of tenants.
    pub(super) fn tenants(&mut self, origin: ConfigOrigin, value: &DeValue<'_>) {
        let Some(list) = value.as_array() else {
            return self.fault(origin, TENANTS, ConfigProblem::new("this is a list of tables", FORM));
        };
        if list.len() > MAX_TENANTS {
            let wrong = format!("there are {} tenants", list.len());
            return self.fault(origin, TENANTS, ConfigProblem::new(wrong, format!("at most {MAX_TENANTS}")));
        }
        let mut drafts: Vec<TenantDraft> = Vec::new();
        for item in list {
            let at = self.line_of(item.span().start);
            match item.get_ref().as_table() {
                Some(table) => {
                    if let Some(draft) = self.tenant(at, table) {
                        self.compare(&drafts, &draft);
                        drafts.push(draft);
                    }
                }
                None => self.fault(at, TENANTS, ConfigProblem::new("this is a tenant and needs a table", FORM)),
            }
        }
        self.set.insert(TENANTS.to_owned(), origin);
        self.config.tenants = Tenants::new(drafts.into_iter().map(|draft| draft.tenant));
    }

    /// Reads one tenant; `None`: it has no usable name.
    fn tenant(&mut self, at: ConfigOrigin, table: &DeTable<'_>) -> Option<TenantDraft> {
        let name = self.tenant_name(&at, table)?;
        let key = format!("{TENANTS}.{name}");
        let tenant = Tenant {
            name: name.as_str().into(),
            prefix: format!("{name}/").into(),
            users: Vec::new(),
            quotas: Quotas::default(),
            devices: None,
        };
        let mut draft = TenantDraft { tenant, key, name_at: at.clone(), prefix_at: at.clone(), users_at: at.clone() };
        for (name, value) in table {
            let (at, value) = (self.line_of(name.span().start), value.get_ref());
            let key = format!("{}.{}", draft.key, name.get_ref());
            match name.get_ref().as_ref() {
                "name" => draft.name_at = at,
                "prefix" => {
                    self.prefix(&at, &key, &mut draft.tenant, value);
                    draft.prefix_at = at;
                }
                "users" => {
                    self.users(&at, &key, &mut draft.tenant, value);
                    draft.users_at = at;
                }
                "devices" => {
                    if let Err(problem) = number(&mut draft.tenant.devices, RawValue::Toml(value)) {
                        self.fault(at, key, problem);
                    }
                }
                "quotas" => self.tenant_quotas(at, &key, &mut draft.tenant.quotas, value),
                _ => self.fault(
                    at,
                    key,
                    ConfigProblem::new("there is no such key", "name, prefix, users, devices or quotas"),
                ),
            }
        }
        if let Some(wrong) = prefix_fault(&draft.tenant.prefix).filter(|_| draft.prefix_at == draft.name_at) {
            let wrong = format!("the name makes the prefix {:?}, which {wrong}", draft.tenant.prefix);
            self.fault(
                draft.name_at.clone(),
                draft.key.clone(),
                ConfigProblem::new(wrong, "another name, or a prefix"),
            );
        }
        if !table.keys().any(|name| name.get_ref() == "users") {
            self.fault(at, draft.key.clone(), ConfigProblem::new("it has no users", USERS_FORM));
        }
        Some(draft)
    }

    fn tenant_name(&mut self, at: &ConfigOrigin, table: &DeTable<'_>) -> Option<String> {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == "name") else {
            self.fault(at.clone(), TENANTS, ConfigProblem::new("a tenant has no name", FORM));
            return None;
        };
        let at = self.line_of(key.span().start);
        match RawValue::Toml(value.get_ref()).text() {
            Ok(name) if is_tenant_name(&name) => Some(name),
            Ok(name) => {
                let wrong = format!("{name:?} cannot be the name of a tenant");
                self.fault(at, "tenants.name", ConfigProblem::new(wrong, NAME_FORM));
                None
            }
            Err(problem) => {
                self.fault(at, "tenants.name", problem);
                None
            }
        }
    }

    fn prefix(&mut self, at: &ConfigOrigin, key: &str, tenant: &mut Tenant, value: &DeValue<'_>) {
        match RawValue::Toml(value).text() {
            Ok(prefix) => match prefix_fault(&prefix) {
                None => tenant.prefix = prefix.into(),
                Some(wrong) => {
                    self.fault(at.clone(), key, ConfigProblem::new(format!("{prefix:?} {wrong}"), PREFIX_FORM));
                }
            },
            Err(problem) => self.fault(at.clone(), key, problem),
        }
    }

    fn users(&mut self, at: &ConfigOrigin, key: &str, tenant: &mut Tenant, value: &DeValue<'_>) {
        let users = match RawValue::Toml(value).texts() {
            Ok(users) => users,
            Err(problem) => return self.fault(at.clone(), key, problem),
        };
        if users.is_empty() || users.len() > MAX_USERS {
            let wrong = format!("it names {} users", users.len());
            let expected = format!("1 to {MAX_USERS} names or beginnings of names");
            return self.fault(at.clone(), key, ConfigProblem::new(wrong, expected));
        }
        for pattern in users.iter().filter(|pattern| !is_user_pattern(pattern)) {
            self.fault(at.clone(), key, ConfigProblem::new(format!("{pattern:?} cannot be a user"), USERS_FORM));
        }
        tenant.users = users;
    }

    fn tenant_quotas(&mut self, at: ConfigOrigin, key: &str, quotas: &mut Quotas, value: &DeValue<'_>) {
        let Some(table) = value.as_table() else {
            let problem = ConfigProblem::new("it is not a table", "[tenants.quotas] with quotas below");
            return self.fault(at, key, problem);
        };
        for (name, value) in table {
            if let Err(problem) = quotas.read(name.get_ref(), value.get_ref()) {
                let at = self.line_of(name.span().start);
                self.fault(at, format!("{key}.{}", name.get_ref()), problem);
            }
        }
    }

    /// Notes faults where a tenant shares its name, topics or users with an earlier one.
    fn compare(&mut self, earlier: &[TenantDraft], new: &TenantDraft) {
        for other in earlier {
            let (name, tenant) = (&other.tenant.name, &other.tenant);
            if *name == new.tenant.name {
                let wrong = format!("there is another tenant {name:?}");
                self.fault(new.name_at.clone(), new.key.clone(), ConfigProblem::new(wrong, "each name once"));
                continue;
            }
            let (one, two) = (&*tenant.prefix, &*new.tenant.prefix);
            if one.starts_with(two) || two.starts_with(one) {
                let wrong = format!("{two:?} and the prefix {one:?} of tenant {name:?} have topics in common");
                let expected = "prefixes of which none begins with another";
                self.fault(new.prefix_at.clone(), format!("{}.prefix", new.key), ConfigProblem::new(wrong, expected));
            }
            for pattern in &new.tenant.users {
                if let Some(taken) = tenant.users.iter().find(|taken| have_user_in_common(taken, pattern)) {
                    let wrong = format!("{pattern:?} and {taken:?} of tenant {name:?} have users in common");
                    let problem = ConfigProblem::new(wrong, "users that belong to one tenant only");
                    self.fault(new.users_at.clone(), format!("{}.users", new.key), problem);
                }
            }
        }
    }
}

fn is_tenant_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// Why a text cannot be a tenant's prefix; `None`: it can.
fn prefix_fault(prefix: &str) -> Option<&'static str> {
    if !prefix.ends_with('/') {
        Some("does not end in /")
    } else if prefix.len() > MAX_PREFIX_BYTES || prefix.chars().any(|c| c.is_control() || matches!(c, '+' | '#')) {
        Some("is too long or has +, # or control characters")
    } else if prefix.starts_with('/') {
        Some("begins with /")
    } else if prefix.starts_with('$') || prefix.starts_with("weir/") {
        Some("reaches below weir/ or $, where clients cannot publish")
    } else {
        None
    }
}

/// Whether a text is a user name, or the beginning of user names followed by `*`.
fn is_user_pattern(pattern: &str) -> bool {
    let name = pattern.strip_suffix('*').unwrap_or(pattern);
    let forbidden = |c: char| c.is_control() || matches!(c, ':' | '/' | '+' | '#' | '*');
    (1..=MAX_USER_BYTES).contains(&name.len()) && !name.chars().any(forbidden) && name.trim_start() == name
}

/// Whether one user can match both patterns.
fn have_user_in_common(one: &str, other: &str) -> bool {
    match (one.strip_suffix('*'), other.strip_suffix('*')) {
        (Some(one), Some(other)) => one.starts_with(other) || other.starts_with(one),
        (Some(beginning), None) => other.starts_with(beginning),
        (None, Some(beginning)) => one.starts_with(beginning),
        (None, None) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse("weir.toml", text, std::iter::empty()).map_err(|errors| errors.to_string())
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let faults = parse(text).err().unwrap_or_default();
        let lines: Vec<&str> = faults.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{faults}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line:?} does not begin with {expected:?}");
        }
    }

    #[test]
    fn devices_of_tenants() {
        let tenant = "[[tenants]]\nname = 'a'\nusers = ['b']\n";
        assert_eq!(parse(tenant).unwrap().settings().tenants[0].max_devices, None);
        let settings = parse(&format!("{tenant}devices = 7\n")).unwrap().settings();
        assert_eq!((settings.tenants[0].prefix.as_str(), settings.tenants[0].max_devices), ("a/", Some(7)));
        check(&format!("{tenant}devices = 0\n"), &["weir.toml:4: tenants.a.devices"]);
        check(&format!("[window]\nwatermark = 'global'\n{tenant}"), &["weir.toml:2: window.watermark"]);
        let allowed = |id: &str| format!("[validate]\nallowed_devices = ['pump', '{id}']\n{tenant}");
        check(&allowed("a/pump"), &[]);
        check(&allowed("b/pump"), &["weir.toml:2: validate.allowed_devices"]);
        check(&allowed("a/b/pump"), &["weir.toml:2: validate.allowed_devices"]);
    }

    #[test]
    fn tenants_are_read() {
        let text = "[[tenants]]\nname = 'acme'\nusers = ['acme.*', 'bob']\n[tenants.quotas]\nsessions = 7\n\
                    queued_bytes = '1MiB'\npublish_rate = 'off'\n[[tenants]]\nname = 'b'\nprefix = 'site/b/'\nusers = ['b.*']\n";
        let config = parse(text).unwrap();
        let found: Vec<_> = config.tenants.iter().map(|tenant| (&*tenant.name, &*tenant.prefix)).collect();
        assert_eq!(found, [("acme", "acme/"), ("b", "site/b/")]);
        let acme = config.tenants.of_user("acme.pump").unwrap();
        let quotas = Quotas { sessions: Some(7), queued_bytes: Some(1 << 20), ..Quotas::default() };
        assert_eq!(acme.quotas, quotas);
        assert!(config.tenants.of_user("bobby").is_none());
        let inline = "tenants = [{ name = 'acme', users = ['a*'], quotas = { connections = 1 } }]";
        assert_eq!(parse(inline).unwrap().tenants.of_user("ada").unwrap().quotas.connections, Some(1));
        assert!(parse("").unwrap().tenants.is_empty());
    }

    #[test]
    fn every_fault_has_its_line() {
        check(
            "[[tenants]]\nname = 'a b'\n[[tenants]]\nusers = ['x']\n[[tenants]]\nname = 'c'\n[[tenants]]\nname = 'd'\n\
             users = ['*', 'a/b', 'ok']\nprefix = 'd'\nuser = 1\n[tenants.quotas]\nsession = 1\nsessions = 0\n\
             retained_bytes = 5\nconnections = 'many'\n",
            &[
                "weir.toml:2: tenants.name: \"a b\" cannot be the name of a tenant; expected 1 to 64 characters",
                "weir.toml:3: tenants: a tenant has no name; expected [[tenants]] with name",
                "weir.toml:5: tenants.c: it has no users; expected a list of user names",
                "weir.toml:9: tenants.d.users: \"*\" cannot be a user; expected",
                "weir.toml:9: tenants.d.users: \"a/b\" cannot be a user; expected",
                "weir.toml:10: tenants.d.prefix: \"d\" does not end in /; expected",
                "weir.toml:11: tenants.d.user: there is no such key; expected name, prefix",
                "weir.toml:13: tenants.d.quotas.session: there is no such quota; expected connections, sessions",
                "weir.toml:14: tenants.d.quotas.sessions: 0 is out of range; expected a whole number from 1",
                "weir.toml:15: tenants.d.quotas.retained_bytes: 5 has no unit; expected a size",
                "weir.toml:16: tenants.d.quotas.connections: \"many\" is not such a number; expected",
            ],
        );
        check("tenants = 1", &["weir.toml:1: tenants: this is a list of tables; expected [[tenants]]"]);
        check("tenants = [1]", &["weir.toml:1: tenants: this is a tenant and needs a table"]);
    }

    #[test]
    fn prefixes_are_topics_of_clients() {
        for good in ["acme/", "a/b/", "weirdo/"] {
            assert_eq!(prefix_fault(good), None, "{good}");
        }
        for bad in ["", "acme", "/", "/a/", "a+/", "#/", "$SYS/", "weir/", "weir/a/", "a\u{0}/", &"x/".repeat(200)] {
            assert!(prefix_fault(bad).is_some(), "{bad:?}");
        }
        check(
            "tenants = [{ name = 'weir', users = ['w'] }]",
            &["weir.toml:1: tenants.weir: the name makes the prefix \"weir/\", which reaches below weir/"],
        );
    }

    #[test]
    fn tenants_do_not_overlap() {
        let tenant = |name: &str, prefix: &str, users: &str| {
            format!("[[tenants]]\nname = '{name}'\nprefix = '{prefix}'\nusers = [{users}]\n")
        };
        let pair = |one: (&str, &str, &str), two: (&str, &str, &str)| {
            tenant(one.0, one.1, one.2) + &tenant(two.0, two.1, two.2)
        };
        check(&pair(("a", "a/", "'a.*'"), ("b", "ab/", "'ab.*', 'a'")), &[]);
        check(
            &pair(("a", "a/", "'x'"), ("a", "b/", "'y'")),
            &["weir.toml:6: tenants.a: there is another tenant \"a\""],
        );
        let topics = "weir.toml:7: tenants.b.prefix: ";
        check(&pair(("a", "a/", "'x'"), ("b", "a/", "'y'")), &[topics]);
        check(&pair(("a", "a/b/", "'x'"), ("b", "a/", "'y'")), &[topics]);
        check(&pair(("a", "a/", "'x'"), ("b", "a/b/", "'y'")), &[topics]);
        let users = "weir.toml:8: tenants.b.users: ";
        for (one, two) in [("'x'", "'x'"), ("'x*'", "'xy'"), ("'xy'", "'x*'"), ("'x*'", "'xy*'"), ("'xy*'", "'x*'")] {
            check(&pair(("a", "a/", one), ("b", "b/", two)), &[users]);
        }
    }
}
