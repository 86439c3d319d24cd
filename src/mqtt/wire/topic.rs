//! Topic names and topic filters, MQTT 5.0 section 4.7.

use std::sync::Arc;

use crate::config::Tenants;
use crate::core::formats::{MapRole, Maps};

/// Levels of a topic name or filter at most: the depth of the subscription trie. A filter of 64 KiB slashes would
/// otherwise cost megabytes.
pub(crate) const MAX_LEVELS: usize = 201;

/// Number of levels of a topic name or filter.
pub(crate) fn depth(name: &str) -> usize {
    name.bytes().filter(|byte| *byte == b'/').count() + 1
}

/// Levels that a filter counts for where memory is bounded: one more for each 64 bytes of its text, which is kept twice.
pub(crate) fn levels(filter: &str) -> usize {
    depth(filter) + filter.len() / 64
}

/// The UTF-8 encoded string in `bytes`; without one the packet is malformed [MQTT-1.5.4-1, MQTT-1.5.4-2].
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// Decodes a UTF-8 string as [`text`] does, and refuses control characters and non-characters, as section 1.5.4 permits:
/// they have no use in names.
pub(crate) fn plain_text(bytes: &[u8]) -> Option<&str> {
    let plain =
        |c: char| !c.is_control() && !matches!(u32::from(c), 0xFDD0..=0xFDEF) && u32::from(c) & 0xFFFE != 0xFFFE;
    text(bytes).filter(|text| text.chars().all(plain))
}

/// Whether a client may publish on `name` at all: it is not empty and has no wildcards.
pub(crate) fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#'])
}

/// Whether a topic name has no more levels than a filter may have. Nobody could subscribe to a deeper name.
pub(crate) fn is_shallow(name: &str) -> bool {
    depth(name) <= MAX_LEVELS
}

/// The topic name in `bytes`, if it is one.
pub(crate) fn valid_name(bytes: &[u8]) -> Option<&str> {
    plain_text(bytes).filter(|name| is_valid_name(name))
}

/// Whether `filter` is a topic filter: wildcards stand alone in their level, `#` in the last one.
pub fn valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    let mut count = 0;
    while let Some(level) = levels.next() {
        count += 1;
        let last = levels.peek().is_none();
        let valid = match level {
            "+" => true,
            "#" => last,
            _ => !level.contains(['+', '#']),
        };
        if !valid || count > MAX_LEVELS {
            return false;
        }
    }
    true
}

/// Beginning of filters that ask for a shared subscription, MQTT 5.0 section 4.8.2.
const SHARED: &str = "$share/";

/// Whether the filter asks for a shared subscription.
pub(crate) fn is_shared(filter: &str) -> bool {
    filter.starts_with(SHARED)
}

/// Group and filter of a shared subscription; `None` for an ordinary filter, and where the group is empty or has a wildcard
/// [MQTT-4.8.2-1], [MQTT-4.8.2-2].
pub(crate) fn split_shared(filter: &str) -> Option<(&str, &str)> {
    let (group, filter) = filter.strip_prefix(SHARED)?.split_once('/')?;
    (!group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty()).then_some((group, filter))
}

/// Filter whose messages a subscription to `filter` gets: for a shared subscription the part after the group.
pub(crate) fn delivered_by(filter: &str) -> &str {
    split_shared(filter).map_or(filter, |(_, inner)| inner)
}

/// Whether only weir may publish on `topic`: topics below `weir/`, and those that begin with `$` (section 4.7.2) except the
/// state of bridges.
pub(crate) fn is_reserved(topic: &str) -> bool {
    topic.starts_with("weir/") || (topic.starts_with('$') && !is_bridge_state(topic))
}

/// Whether `topic` is `$SYS/broker/connection/NAME/state`. A mosquitto bridge publishes its state there by default, also as its
/// will: it could not connect if the topic were refused.
fn is_bridge_state(topic: &str) -> bool {
    let name = topic.strip_prefix("$SYS/broker/connection/").and_then(|rest| rest.strip_suffix("/state"));
    name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

/// Whether `topic` matches `filter`. Leading wildcards do not match topics that begin with `$` [MQTT-4.7.2-1].
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut filter_levels = filter.split('/');
    let mut topic_levels = topic.split('/');
    loop {
        match (filter_levels.next(), topic_levels.next()) {
            // "a/#" matches "a" too [section 4.7.1.2].
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// The topics whose publishes are journaled: those that match a pattern, and those below the prefix of a tenant whose rest
/// does.
#[derive(Debug, Clone, Default)]
pub(crate) struct IngestTopics {
    patterns: Vec<String>,
    maps: Arc<Maps>,
    tenants: Tenants,
}

impl IngestTopics {
    /// `patterns` are topic filters.
    pub fn new(patterns: impl IntoIterator<Item = String>, tenants: Tenants) -> Self {
        Self { patterns: patterns.into_iter().collect(), maps: Arc::default(), tenants }
    }

    /// These topics, and those that `maps` take.
    pub fn with_maps(self, maps: Arc<Maps>) -> Self {
        Self { maps, ..self }
    }

    /// The part of `topic` behind the prefix of its tenant: the whole topic, if it is of none.
    fn rest<'a>(&self, topic: &'a str) -> &'a str {
        let tenant = self.tenants.of_topic(topic);
        tenant.and_then(|tenant| topic.strip_prefix(&*tenant.prefix)).unwrap_or(topic)
    }

    /// Whether publishes on `topic` are journaled.
    pub fn contains(&self, topic: &str) -> bool {
        let topic = self.rest(topic);
        self.is_native(topic) || self.maps.find(topic).is_some_and(|found| found.role != MapRole::Ignore)
    }

    /// The map that says that messages on `topic`, which is no ingest topic, carry nothing that counts: its index.
    pub fn ignoring_map(&self, topic: &str) -> Option<u16> {
        let topic = self.rest(topic);
        self.maps
            .find(topic)
            .filter(|found| found.role == MapRole::Ignore && !self.is_native(topic))
            .map(|found| found.map)
    }

    /// Whether a map knows messages on `topic`, and takes neither readings nor the liveness of a device from them.
    pub fn carries_no_readings(&self, topic: &str) -> bool {
        let topic = self.rest(topic);
        let is_other = |role| !matches!(role, MapRole::Readings | MapRole::Status);
        !self.is_native(topic) && self.maps.find(topic).is_some_and(|found| is_other(found.role))
    }

    fn is_native(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, topic))
    }

    /// Whether every ingest pattern that matches `topic` names the device. A map takes the device from where its template
    /// says, which need not be the topic.
    pub fn name_device(&self, topic: &str) -> bool {
        let rest = self.rest(topic);
        let mut native = self.patterns.iter().filter(|pattern| matches(pattern, rest)).peekable();
        match native.peek() {
            Some(_) => native.all(|pattern| pattern.contains('+')),
            None => !self.contains(topic),
        }
    }

    /// Whether only weir may publish on `topic`. Topics that begin with `$` are open where a map takes them.
    pub fn are_closed_to(&self, topic: &str) -> bool {
        let is_open =
            topic.starts_with('$') && !topic.starts_with("$SYS/") && self.maps.find(self.rest(topic)).is_some();
        is_reserved(topic) && !is_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Quotas, Tenant};

    #[test]
    fn names() {
        for name in ["a", "/", "a//b", "devices/ü/telemetry", "$SYS/x", "weir/windows/a"] {
            assert_eq!(valid_name(name.as_bytes()), Some(name));
        }
        for name in [&b""[..], b"a/+", b"#", b"a\0", b"\xff"] {
            assert_eq!(valid_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn filters() {
        for filter in ["#", "+", "/", "a/+/b", "a/#", "+/+", "$SYS/#", "a//b"] {
            assert!(valid_filter(filter), "{filter}");
        }
        let deep = "/".repeat(MAX_LEVELS);
        for filter in ["", "a#", "a/#/b", "a+", "+a/b", "a/b#", "a\0", deep.as_str()] {
            assert!(!valid_filter(filter), "{filter:?}");
        }
        assert!(valid_filter(&deep[1..]));
    }

    #[test]
    fn names_have_no_control_characters() {
        for name in ["a\u{1}", "a\u{1f}", "a\u{7f}", "a\u{9f}", "a\u{ffff}", "a\u{1fffe}", "a\u{fdd0}"] {
            assert_eq!(valid_name(name.as_bytes()), None, "{name:?}");
        }
        assert_eq!(valid_name("a\u{2a6d4}\u{feff}".as_bytes()), Some("a\u{2a6d4}\u{feff}"));
    }

    #[test]
    fn shared_filters_have_a_group_and_a_filter() {
        assert_eq!(split_shared("$share/g/a/#"), Some(("g", "a/#")));
        assert_eq!(split_shared("$share/g//a"), Some(("g", "/a")));
        for filter in ["$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a", "a/b"] {
            assert_eq!(split_shared(filter), None, "{filter}");
        }
    }

    #[test]
    fn reserved_topics() {
        for topic in
            ["$SYS/x", "$x", "$SYS/broker/connection//state", "$SYS/broker/connection/a/b/state", "weir/w/a", "weir/"]
        {
            assert!(is_reserved(topic), "{topic}");
        }
        for topic in ["weir", "weird/x", "a/$x", "a/weir/b", "$SYS/broker/connection/bridge/state"] {
            assert!(!is_reserved(topic), "{topic}");
        }
    }

    #[test]
    fn matching_follows_the_examples_of_the_standard() {
        let check = |filter, topic, expected| assert_eq!(matches(filter, topic), expected, "{filter} on {topic}");
        check("sport/tennis/player1/#", "sport/tennis/player1", true);
        check("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true);
        check("sport/#", "sport", true);
        check("sport/tennis/+", "sport/tennis/player1", true);
        check("sport/tennis/+", "sport/tennis/player1/ranking", false);
        check("sport/+", "sport", false);
        check("sport/+", "sport/", true);
        check("+/+", "/finance", true);
        check("/+", "/finance", true);
        check("+", "/finance", false);
        check("#", "$SYS/x", false);
        check("+/monitor/Clients", "$SYS/monitor/Clients", false);
        check("$SYS/#", "$SYS/x", true);
        check("ACCOUNTS", "Accounts", false);
    }

    #[test]
    fn ingest_topics_are_filters() {
        let topics = IngestTopics::new(["devices/+/telemetry".into(), "devices/+/errors".into()], Tenants::default());
        assert!(topics.contains("devices/pump-7/telemetry"));
        assert!(topics.contains("devices/pump-7/errors"));
        assert!(!topics.contains("devices/pump-7/telemetry/x"));
        assert!(!topics.contains("devices/telemetry"));
        let topics = IngestTopics::new(
            ["devices/+/telemetry".into(), "readings".into(), "devices/a/telemetry".into()],
            Tenants::default(),
        );
        assert!(topics.name_device("devices/b/telemetry") && topics.name_device("other"));
        assert!(!topics.name_device("readings") && !topics.name_device("devices/a/telemetry"));
    }

    #[test]
    fn ingest_topics_of_tenants() {
        let tenants = Tenants::new([Tenant {
            name: "acme".into(),
            prefix: "acme/".into(),
            users: Vec::new(),
            quotas: Quotas::default(),
            devices: None,
        }]);
        let topics = IngestTopics::new(["devices/+/telemetry".into(), "readings".into()], tenants);
        for topic in ["devices/a/telemetry", "acme/devices/a/telemetry", "readings", "acme/readings"] {
            assert!(topics.contains(topic), "{topic}");
        }
        for topic in ["other/devices/a/telemetry", "acme/acme/readings", "acme", "acme/devices/a"] {
            assert!(!topics.contains(topic), "{topic}");
        }
        assert!(topics.name_device("acme/devices/a/telemetry") && !topics.name_device("acme/readings"));
    }
}
