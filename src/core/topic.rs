//! Which topics carry readings or faults, which level of a topic names the device, and whose tenant's it is.

use crate::core::settings::TenantSettings;

/// What the messages of a topic are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopicKind {
    /// Readings.
    Telemetry,
    /// Faults that devices report.
    Errors,
}

/// What a topic says about its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResolvedTopic<'a> {
    /// What the messages are.
    pub kind: TopicKind,
    /// The level of the device, if the pattern has one.
    pub device: Option<&'a str>,
    /// Tenant that the topic belongs to.
    pub tenant: Option<TenantIndex>,
    /// The topic without the prefix of the tenant, where no pattern matches.
    pub unmatched: Option<&'a str>,
}

/// Place of a tenant among all. It holds for the present settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TenantIndex(usize);

/// A topic pattern.
#[derive(Debug)]
enum TopicPattern {
    /// A pattern with one wildcard, a `+`: the text before and after it. Nearly every pattern is of this form, and it is
    /// fast to match.
    OneLevel { prefix: String, suffix: String },
    /// Any other pattern, by levels.
    Levels(Vec<String>),
}

impl TopicPattern {
    fn new(pattern: &str) -> Self {
        match pattern.split_once('+') {
            Some((prefix, suffix)) if !suffix.contains(['+', '#']) && is_whole_level(prefix, suffix) => {
                Self::OneLevel { prefix: prefix.to_owned(), suffix: suffix.to_owned() }
            }
            _ => Self::Levels(pattern.split('/').map(str::to_owned).collect()),
        }
    }

    /// Whether `topic` matches: `Some` with the level of the device, if the pattern has one.
    fn matched<'a>(&self, topic: &'a str) -> Option<Option<&'a str>> {
        match self {
            Self::OneLevel { prefix, suffix } => {
                let level = topic.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str())?;
                (!level.bytes().any(|byte| byte == b'/')).then_some(Some(level))
            }
            Self::Levels(levels) => matched_levels(levels, topic),
        }
    }
}

fn is_whole_level(prefix: &str, suffix: &str) -> bool {
    (prefix.is_empty() || prefix.ends_with('/')) && (suffix.is_empty() || suffix.starts_with('/'))
}

/// Matches levels and wildcards as in MQTT 5.0 section 4.7.1.
fn matched_levels<'a>(pattern: &[String], topic: &'a str) -> Option<Option<&'a str>> {
    let mut device = None;
    let mut levels = topic.split('/');
    for level in pattern {
        if level == "#" {
            return Some(device);
        }
        let found = levels.next()?;
        if level == "+" {
            device = device.or(Some(found));
        } else if level != found {
            return None;
        }
    }
    levels.next().is_none().then_some(device)
}

/// The configured topic patterns.
#[derive(Debug, Default)]
pub(super) struct Topics {
    patterns: Vec<(TopicKind, TopicPattern)>,
    /// In order of prefix. No prefix begins with another one.
    tenants: Vec<TenantSettings>,
}

impl Topics {
    /// Patterns of errors come first: where both match, the topic carries errors.
    pub fn new(telemetry: &[String], errors: &[String], tenants: &[TenantSettings]) -> Self {
        let errors = errors.iter().map(|pattern| (TopicKind::Errors, TopicPattern::new(pattern)));
        let telemetry = telemetry.iter().map(|pattern| (TopicKind::Telemetry, TopicPattern::new(pattern)));
        Self { patterns: errors.chain(telemetry).collect(), tenants: tenants.to_vec() }
    }

    /// What `topic` says. The device is its level at the first `+` of the pattern that matches; the patterns hold below
    /// the prefix of each tenant too. The settings may have changed since a message was journalled: a topic that no pattern
    /// matches carries readings whose payloads name the device.
    pub fn resolve<'a>(&self, topic: &'a str) -> ResolvedTopic<'a> {
        let (tenant, topic) = self.split_tenant(topic);
        let matched =
            self.patterns.iter().find_map(|(kind, pattern)| pattern.matched(topic).map(|device| (*kind, device)));
        let unmatched = matched.is_none().then_some(topic);
        let (kind, device) = matched.unwrap_or((TopicKind::Telemetry, None));
        ResolvedTopic { kind, device, tenant, unmatched }
    }

    /// The tenant of a topic, and the rest of the topic behind the tenant's prefix.
    fn split_tenant<'a>(&self, topic: &'a str) -> (Option<TenantIndex>, &'a str) {
        // No prefix begins with another one, so only the last prefix that does not sort after the topic can match.
        let after = self.tenants.partition_point(|tenant| *tenant.prefix <= *topic);
        let found = after.checked_sub(1).and_then(|index| {
            let rest = topic.strip_prefix(&*self.tenants.get(index)?.prefix)?;
            Some((Some(TenantIndex(index)), rest))
        });
        found.unwrap_or((None, topic))
    }

    /// The tenant with this index.
    pub fn tenant(&self, index: TenantIndex) -> Option<&TenantSettings> {
        self.tenants.get(index.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(telemetry: &str, errors: &str, topic: &str, expected: (TopicKind, Option<&str>)) {
        let topics = Topics::new(&[telemetry.to_owned()], &[errors.to_owned()], &[]);
        let resolved = topics.resolve(topic);
        assert_eq!((resolved.kind, resolved.device), expected, "{topic} under {telemetry}, {errors}");
    }

    #[test]
    fn patterns_hold_below_prefixes() {
        use TopicKind::*;
        let tenants = ["a/", "b/c/", "b/d/"].map(|prefix| TenantSettings { prefix: prefix.into(), max_devices: None });
        let topics = Topics::new(&["devices/+/telemetry".into()], &["devices/+/errors".into()], &tenants);
        let check = |topic: &str, kind, device: Option<&str>, prefix: Option<&str>| {
            let resolved = topics.resolve(topic);
            let tenant = resolved.tenant.and_then(|index| topics.tenant(index)).map(|tenant| tenant.prefix.as_str());
            assert_eq!((resolved.kind, resolved.device, tenant), (kind, device, prefix), "{topic}");
        };
        check("devices/x/telemetry", Telemetry, Some("x"), None);
        check("a/devices/x/telemetry", Telemetry, Some("x"), Some("a/"));
        check("b/d/devices/x/errors", Errors, Some("x"), Some("b/d/"));
        check("b/devices/x/errors", Telemetry, None, None);
        check("b/c/x", Telemetry, None, Some("b/c/"));
        check("a", Telemetry, None, None);
        check("c/devices/x/errors", Telemetry, None, None);
    }

    #[test]
    fn patterns() {
        use TopicKind::*;
        check("devices/+/telemetry", "devices/+/errors", "devices/a/telemetry", (Telemetry, Some("a")));
        check("devices/+/telemetry", "devices/+/errors", "devices/a/errors", (Errors, Some("a")));
        check("devices/+/telemetry", "devices/+/errors", "devices//errors", (Errors, Some("")));
        check("devices/+/telemetry", "devices/+/errors", "devices/a/b/errors", (Telemetry, None));
        check("devices/+/telemetry", "devices/+/errors", "devices/a", (Telemetry, None));
        check("all", "faults", "all", (Telemetry, None));
        check("+", "+/faults", "a", (Telemetry, Some("a")));
        check("+", "+/faults", "a/faults", (Errors, Some("a")));
        check("+", "x/+", "x/a", (Errors, Some("a")));
        check("x/+/y", "z", "x/y", (Telemetry, None));
        check("x/+/y", "z", "x//y", (Telemetry, Some("")));
        check("all", "faults", "faults", (Errors, None));
        check("site/+/+/up", "x", "site/a/b/up", (Telemetry, Some("a")));
        check("site/+/#", "site/+/faults", "site/a/x/y", (Telemetry, Some("a")));
        check("site/+/#", "site/+/faults", "site/a/faults", (Errors, Some("a")));
    }
}
