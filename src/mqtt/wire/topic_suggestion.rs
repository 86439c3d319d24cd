//! What a person can do about a topic that no ingest pattern takes.

use std::fmt;
use std::sync::Arc;

use super::topic;
use crate::config::{IngestConfig, KnownMap, MapState, Tenants, nearest};
use crate::core::formats::{MapSettings, Maps};

/// The ingest patterns with the settings that hold them.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicSuggestions {
    patterns: Vec<(&'static str, Vec<String>)>,
    /// Maps that are not on, by name, each alone.
    maps_off: Vec<(String, Arc<Maps>)>,
    tenants: Tenants,
}

/// What the payloads of a topic look like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PayloadLook {
    /// Like nothing of the others, or none was looked at.
    #[default]
    Unknown,
    /// A number, or an object or array of JSON: a map may make readings of it.
    Mappable,
    /// Readings of weir's own form.
    Readings,
}

/// A suggestion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicSuggestion {
    /// What a person can do, a sentence.
    pub sentence: String,
    /// Whether the topic is surely meant for readings.
    pub is_sure: bool,
}

/// How a topic differs from one that a pattern takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TopicDifference<'a> {
    LeadingSlash,
    TrailingSlash,
    EmptyLevel,
    WhiteSpace,
    Case,
    /// There are this many levels more in front.
    LevelsBefore(usize),
    /// There are this many levels more at the end.
    LevelsAfter(usize),
    /// The level of the device is missing.
    NoDevice,
    /// The first level is missing: this one.
    NoFirst(&'a str),
    /// A level is spelt in another way: it should be this one.
    Spelling(&'a str, &'a str),
}

impl fmt::Display for TopicDifference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = |f: &mut fmt::Formatter<'_>, count: usize, place: &str| match count {
            1 => write!(f, "one level more at the {place}"),
            count => write!(f, "{count} levels more at the {place}"),
        };
        match *self {
            Self::LeadingSlash => f.write_str("leading slash"),
            Self::TrailingSlash => f.write_str("trailing slash"),
            Self::EmptyLevel => f.write_str("empty level"),
            Self::WhiteSpace => f.write_str("white space"),
            Self::Case => f.write_str("matches after changing the case"),
            Self::LevelsBefore(count) => more(f, count, "beginning"),
            Self::LevelsAfter(count) => more(f, count, "end"),
            Self::NoDevice => f.write_str("the level of the device is missing"),
            Self::NoFirst(level) => write!(f, "the first level {level:?} is missing"),
            Self::Spelling(found, wanted) => write!(f, "matches after changing {found:?} to {wanted:?}"),
        }
    }
}

/// A topic that matches a pattern, found from one that matches none.
struct NearTopic<'a> {
    difference: TopicDifference<'a>,
    key: &'static str,
    /// Levels of the topic to publish on.
    levels: Vec<&'a str>,
    /// Place of the device among the levels of the topic that matches none, where there is one.
    device: Option<usize>,
}

/// One level of a topic with its place in the name.
type PlacedLevel<'a> = (usize, &'a str);

impl TopicSuggestions {
    /// `tenants` have a prefix of their own before the patterns.
    pub fn new(ingest: &IngestConfig, tenants: Tenants) -> Self {
        let patterns =
            [("ingest.telemetry_topics", &ingest.telemetry_topics), ("ingest.error_topics", &ingest.error_topics)]
                .into_iter()
                .flat_map(|(key, list)| list.iter().map(move |pattern| (key, levels(pattern))));
        let off = ingest.maps.iter().filter(|map| matches!(map.state, MapState::Off | MapState::Optional));
        let alone = |map: &KnownMap| {
            let settings = MapSettings { status: None, ignore: Vec::new(), ..map.settings.clone() };
            Some((map.settings.name.clone(), Arc::new(Maps::new(&[settings]).ok()?)))
        };
        Self { patterns: patterns.collect(), maps_off: off.filter_map(alone).collect(), tenants }
    }

    /// What to do about `topic`, which no pattern takes, and whose payloads look like `look`.
    pub fn suggest(&self, topic: &str, look: PayloadLook) -> Option<TopicSuggestion> {
        let sure = self.sure(topic, look).map(|sentence| TopicSuggestion { sentence, is_sure: true });
        sure.or_else(|| {
            let sentence = format!("a map may take it: `weir maps suggest {topic}` writes one");
            let is_word = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
            (look == PayloadLook::Mappable && topic.chars().all(is_word))
                .then_some(TopicSuggestion { sentence, is_sure: false })
        })
    }

    fn sure(&self, topic: &str, look: PayloadLook) -> Option<String> {
        let tenant = self.tenants.of_topic(topic);
        let prefix = tenant.map_or("", |tenant| &*tenant.prefix);
        let rest = topic.strip_prefix(prefix).unwrap_or(topic);
        // With a slash before it, the prefix of a tenant is not seen.
        let bare = topic.trim_start_matches('/');
        if self.tenants.of_topic(bare).is_some() && bare.len() < topic.len() {
            return Some(format!("{}: publish on {bare:?}", TopicDifference::LeadingSlash));
        }
        if let Some(near) = self.near(rest) {
            return Some(near.sentence(prefix, rest));
        }
        if let Some((map, _)) = self.maps_off.iter().find(|(_, alone)| alone.find(rest).is_some()) {
            return Some(format!("the map {map} takes it: set ingest.presets = [\"auto\", \"{map}\"]"));
        }
        (look == PayloadLook::Readings).then(|| readings_elsewhere(rest))
    }

    /// The topic nearest to `rest`, by the smallest kind of difference.
    fn near<'a>(&'a self, rest: &'a str) -> Option<NearTopic<'a>> {
        let all: Vec<PlacedLevel<'a>> = rest.split('/').enumerate().collect();
        let named: Vec<PlacedLevel<'a>> = all.iter().copied().filter(|(_, level)| !level.is_empty()).collect();
        let trimmed: Vec<PlacedLevel<'a>> =
            named.iter().map(|&(at, level)| (at, level.trim())).filter(|(_, level)| !level.is_empty()).collect();
        let emptied = match (rest.starts_with('/'), rest.ends_with('/')) {
            (true, false) => TopicDifference::LeadingSlash,
            (false, true) => TopicDifference::TrailingSlash,
            _ => TopicDifference::EmptyLevel,
        };
        let is_same = |wanted: &str, found: &str| wanted == found;
        let is_same_but_case = |wanted: &str, found: &str| wanted.eq_ignore_ascii_case(found);
        self.first(|key, pattern| whole(key, pattern, &named, emptied, is_same))
            .or_else(|| self.first(|key, pattern| whole(key, pattern, &trimmed, TopicDifference::WhiteSpace, is_same)))
            .or_else(|| {
                self.first(|key, pattern| whole(key, pattern, &trimmed, TopicDifference::Case, is_same_but_case))
            })
            .or_else(|| self.first(|key, pattern| part(key, pattern, &trimmed)))
            .or_else(|| self.first(|key, pattern| missing(key, pattern, &trimmed)))
            .or_else(|| self.first(|key, pattern| misspelt(key, pattern, &trimmed)))
    }

    fn first<'a>(
        &'a self,
        find: impl Fn(&'static str, &'a [String]) -> Option<NearTopic<'a>>,
    ) -> Option<NearTopic<'a>> {
        self.patterns.iter().find_map(|(key, pattern)| find(key, pattern))
    }
}

fn levels(pattern: &str) -> Vec<String> {
    pattern.split('/').map(str::to_owned).collect()
}

/// Place of the device in a pattern.
fn device_in(pattern: &[String]) -> Option<usize> {
    pattern.iter().position(|level| level == "+")
}

/// The topic of a pattern whose levels are those of `found`, apart from what `is_same` allows.
fn whole<'a>(
    key: &'static str,
    pattern: &'a [String],
    found: &[PlacedLevel<'a>],
    difference: TopicDifference<'a>,
    is_same: impl Fn(&str, &str) -> bool,
) -> Option<NearTopic<'a>> {
    let is_like = |(wanted, (_, found)): (&String, &PlacedLevel<'a>)| wanted == "+" || is_same(wanted, found);
    if pattern.len() != found.len() || !pattern.iter().zip(found).all(is_like) {
        return None;
    }
    let named =
        |(wanted, (_, found)): (&'a String, &PlacedLevel<'a>)| if wanted == "+" { *found } else { wanted.as_str() };
    let levels = pattern.iter().zip(found).map(named).collect();
    let device = device_in(pattern).and_then(|at| found.get(at)).map(|(at, _)| *at);
    Some(NearTopic { difference, key, levels, device })
}

/// The topic of a pattern that is at the end or at the beginning of `found`.
fn part<'a>(key: &'static str, pattern: &'a [String], found: &[PlacedLevel<'a>]) -> Option<NearTopic<'a>> {
    let more = found.len().checked_sub(pattern.len()).filter(|more| *more > 0)?;
    let is_same = |wanted: &str, found: &str| wanted.eq_ignore_ascii_case(found);
    let end = found.get(more..).and_then(|end| whole(key, pattern, end, TopicDifference::LevelsBefore(more), is_same));
    end.or_else(|| whole(key, pattern, found.get(..pattern.len())?, TopicDifference::LevelsAfter(more), is_same))
}

/// The topic of a pattern of which `found` has all levels but the first, or all but the device.
fn missing<'a>(key: &'static str, pattern: &'a [String], found: &[PlacedLevel<'a>]) -> Option<NearTopic<'a>> {
    let (first, rest) = pattern.split_first()?;
    let same = |wanted: &str, (_, found): &PlacedLevel<'a>| wanted.eq_ignore_ascii_case(found);
    if let Some(device) = device_in(pattern) {
        let others = pattern.iter().filter(|level| *level != "+");
        if found.len() + 1 == pattern.len() && others.zip(found).all(|(wanted, found)| same(wanted, found)) {
            let levels = pattern.iter().enumerate().map(|(at, level)| if at == device { "DEVICE" } else { level });
            return Some(NearTopic {
                difference: TopicDifference::NoDevice,
                key,
                levels: levels.collect(),
                device: None,
            });
        }
    }
    let has_name = rest.iter().any(|level| level != "+");
    let is_rest = |(wanted, found): (&String, &PlacedLevel<'a>)| wanted == "+" || same(wanted, found);
    if first == "+" || !has_name || rest.len() != found.len() || !rest.iter().zip(found).all(is_rest) {
        return None;
    }
    let levels = std::iter::once(first.as_str()).chain(found.iter().map(|(_, level)| *level)).collect();
    let device = device_in(rest).and_then(|at| found.get(at)).map(|(at, _)| *at);
    Some(NearTopic { difference: TopicDifference::NoFirst(first), key, levels, device })
}

/// The topic of a pattern of which `found` has one level in another spelling.
fn misspelt<'a>(key: &'static str, pattern: &'a [String], found: &[PlacedLevel<'a>]) -> Option<NearTopic<'a>> {
    if pattern.len() != found.len() {
        return None;
    }
    let mut others = pattern.iter().zip(found).filter(|(wanted, (_, found))| *wanted != "+" && wanted != found);
    let (wanted, (_, wrong)) = others.next().filter(|(wanted, (_, found))| is_near(wanted, found))?;
    others.next().is_none().then_some(())?;
    whole(key, pattern, found, TopicDifference::Spelling(wrong, wanted), |_, _| true)
}

fn is_near(wanted: &str, found: &str) -> bool {
    nearest(&found.to_ascii_lowercase(), std::iter::once(wanted)).is_some()
}

impl NearTopic<'_> {
    fn sentence(&self, prefix: &str, rest: &str) -> String {
        let publish_on = format!("{prefix}{}", self.levels.join("/"));
        let what = format!("{}: publish on {publish_on:?}", self.difference);
        if self.difference == TopicDifference::NoDevice {
            return format!("{what}, or add {rest:?} to {} and name the device in the payload (device_id)", self.key);
        }
        match self.device.map(|at| with_device(rest, at)).filter(|pattern| may_be_pattern(pattern)) {
            Some(pattern) => format!("{what}, or add {pattern:?} to {}", self.key),
            None => what,
        }
    }
}

/// `topic` with a `+` in the place of the level `at`.
fn with_device(topic: &str, at: usize) -> String {
    let levels = topic.split('/').enumerate().map(|(index, level)| if index == at { "+" } else { level });
    levels.collect::<Vec<_>>().join("/")
}

/// Whether the configuration takes the pattern: it must not reach topics on which only weir may publish.
fn may_be_pattern(pattern: &str) -> bool {
    !(pattern.starts_with("+/") || topic::is_reserved(pattern))
}

/// The sentence about readings on a topic that is like no pattern.
fn readings_elsewhere(rest: &str) -> String {
    const NOT_DEVICES: [&str; 9] =
        ["data", "measurement", "measurements", "readings", "sensor", "sensors", "state", "status", "telemetry"];
    let levels: Vec<&str> = rest.split('/').collect();
    let is_kind = levels.last().is_some_and(|last| NOT_DEVICES.contains(&last.to_ascii_lowercase().as_str()));
    let device = levels.len().saturating_sub(if is_kind { 2 } else { 1 });
    let pattern = with_device(rest, device);
    if device > 0 && may_be_pattern(&pattern) {
        return format!(
            "looks like readings: add a topic with + in the place of the device, such as {pattern:?}, to ingest.telemetry_topics"
        );
    }
    format!(
        "looks like readings: add {rest:?} to ingest.telemetry_topics and name the device in the payload (device_id)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Quotas, Tenant};

    fn suggestions() -> TopicSuggestions {
        let acme = Tenant {
            name: "acme".into(),
            prefix: "acme/".into(),
            users: Vec::new(),
            quotas: Quotas::default(),
            devices: None,
        };
        TopicSuggestions::new(&IngestConfig::default(), Tenants::new([acme]))
    }

    fn check(topic: &str, expected: &str) {
        let found = suggestions().suggest(topic, PayloadLook::Mappable).map(|found| found.sentence);
        assert_eq!(found.as_deref(), Some(expected), "{topic}");
    }

    #[test]
    fn near_topics_say_what_to_publish_on_and_what_to_add() {
        let publish = "publish on \"devices/a/telemetry\"";
        let add =
            |what: &str, pattern: &str| format!("{what}: {publish}, or add {pattern:?} to ingest.telemetry_topics");
        check("/devices/a/telemetry", &add("leading slash", "/devices/+/telemetry"));
        check("devices/a/telemetry/", &add("trailing slash", "devices/+/telemetry/"));
        check("/devices/a/telemetry/", &add("empty level", "/devices/+/telemetry/"));
        check("devices//a/telemetry", &add("empty level", "devices//+/telemetry"));
        check("devices/a/ telemetry", &add("white space", "devices/+/ telemetry"));
        check("Devices/a/TELEMETRY", &add("matches after changing the case", "Devices/+/TELEMETRY"));
        check("site/devices/a/telemetry", &add("one level more at the beginning", "site/devices/+/telemetry"));
        check("x/y/devices/a/telemetry", &add("2 levels more at the beginning", "x/y/devices/+/telemetry"));
        check("devices/a/telemetry/t", &add("one level more at the end", "devices/+/telemetry/t"));
        check("device/a/telemetry", &add("matches after changing \"device\" to \"devices\"", "device/+/telemetry"));
        check("a/telemetry", &format!("the first level \"devices\" is missing: {publish}"));
        check(
            "devices/telemetry",
            "the level of the device is missing: publish on \"devices/DEVICE/telemetry\", or add \"devices/telemetry\" to \
             ingest.telemetry_topics and name the device in the payload (device_id)",
        );
        check(
            "/devices/a/errors",
            "leading slash: publish on \"devices/a/errors\", or add \"/devices/+/errors\" to ingest.error_topics",
        );
    }

    #[test]
    fn the_prefix_of_a_tenant_stays() {
        check(
            "acme/Devices/a/telemetry",
            "matches after changing the case: publish on \"acme/devices/a/telemetry\", or add \"Devices/+/telemetry\" to \
             ingest.telemetry_topics",
        );
        check("/acme/devices/a/telemetry", "leading slash: publish on \"acme/devices/a/telemetry\"");
    }

    #[test]
    fn other_topics_get_a_suggestion_if_they_carry_readings() {
        let elsewhere =
            |topic: &str| suggestions().suggest(topic, PayloadLook::Readings).expect("a suggestion").sentence;
        let add = |pattern: &str| {
            format!(
                "looks like readings: add a topic with + in the place of the device, such as {pattern:?}, to \
                 ingest.telemetry_topics"
            )
        };
        assert_eq!(elsewhere("plant/kitchen"), add("plant/+"));
        assert_eq!(elsewhere("plant/pump-7/state"), add("plant/+/state"));
        let named = |topic: &str| {
            format!(
                "looks like readings: add {topic:?} to ingest.telemetry_topics and name the device in the payload (device_id)"
            )
        };
        assert_eq!(elsewhere("readings"), named("readings"));
        assert_eq!(elsewhere("kitchen/state"), named("kitchen/state"));
        for topic in ["zigbee2mqtt/kitchen", "cmnd/lamp/POWER", "a", "devices/a/commands/reboot", "x/telemetry/y"] {
            assert_eq!(suggestions().suggest(topic, PayloadLook::Unknown), None, "{topic}");
        }
    }

    #[test]
    fn a_map_that_is_off_is_named() {
        let esphome = "the map esphome takes it: set ingest.presets = [\"auto\", \"esphome\"]";
        check("node/sensor/temperature/state", esphome);
        check("acme/node/sensor/temperature/state", esphome);
        check("plant/a/7", "a map may take it: `weir maps suggest plant/a/7` writes one");
        let found = suggestions().suggest("a/$(x)", PayloadLook::Mappable);
        assert_eq!(found, None, "a topic that a shell would read is not put into a command");
    }
}
