//! Topic patterns of access rules: MQTT topic filters in which `%u` and `%c` stand for the client.

use std::str::Split;

/// Longest pattern in bytes.
const MAX_PATTERN_BYTES: usize = 1_024;
/// Levels of a pattern at most.
const MAX_PATTERN_LEVELS: usize = 64;

/// A topic filter with places for the client's user name and identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AclPattern {
    levels: Box<[Level]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    /// `+`
    Any,
    /// `#`
    Rest,
    /// Anything else; no parts: the empty level.
    Text(Box<[LevelPart]>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum LevelPart {
    Literal(Box<str>),
    /// `%u`
    User,
    /// `%c`
    ClientId,
}

/// Whose topics a pattern means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub user: Option<&'a str>,
    pub client_id: &'a str,
}

/// A level of a pattern for one client.
enum Resolved {
    /// Whether it is the level that was asked about.
    Compared(bool),
    /// A place in it has no value for this client.
    Unknown,
}

impl Level {
    /// The name, if it is the same for every client.
    fn literal(&self) -> Option<&str> {
        match self {
            Self::Text(parts) => match &**parts {
                [LevelPart::Literal(text)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }
}

impl AclPattern {
    /// Reads a pattern. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".into());
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!("it has more than {MAX_PATTERN_BYTES} bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err("it holds a control character".into());
        }
        if text == "$share" || text.starts_with("$share/") {
            return Err("a shared subscription is judged by the filter behind its group".into());
        }
        let count = text.split('/').count();
        if count > MAX_PATTERN_LEVELS {
            return Err(format!("it has {count} levels, more than {MAX_PATTERN_LEVELS}"));
        }
        let levels = text.split('/').enumerate().map(|(index, level)| match level {
            "+" => Ok(Level::Any),
            "#" if index + 1 == count => Ok(Level::Rest),
            "#" => Err("a # is not the last level".to_owned()),
            _ if level.contains(['+', '#']) => Err(format!("the wildcard in {level:?} is not a whole level")),
            _ => parts(level).map(Level::Text),
        });
        Ok(Self { levels: levels.collect::<Result<_, _>>()? })
    }

    /// Whether it names topics that only weir publishes on.
    pub fn is_reserved(&self) -> bool {
        match &*self.levels {
            [system, broker, connection, _, state]
                if [system, broker, connection, state].map(Level::literal)
                    == [Some("$SYS"), Some("broker"), Some("connection"), Some("state")] =>
            {
                false // where bridges say whether they are connected
            }
            [Level::Text(first), ..] if begins_with_dollar(first) => true,
            [Level::Text(first), _, ..] => matches!(&**first, [LevelPart::Literal(text)] if &**text == "weir"),
            _ => false,
        }
    }

    /// Whether every topic that `filter` matches is meant. A topic name is a filter that matches itself. Where a place
    /// has no value for this client, nothing is meant.
    pub fn covers(&self, filter: &str, of: &Subject<'_>) -> bool {
        // Every topic has a level, so both match all that `#` matches.
        if filter == "#" && matches!(*self.levels, [Level::Any, Level::Rest]) {
            return true;
        }
        let mut levels = filter.split('/');
        for (index, level) in self.levels.iter().enumerate() {
            let covered = match (level, levels.next()) {
                (Level::Rest, found) => return !(index == 0 && found.is_some_and(is_dollar)),
                (_, None) | (Level::Any, Some("#")) => false,
                // Leading wildcards do not match topics that begin with `$` [MQTT-4.7.2-1].
                (Level::Any, Some(found)) => !(index == 0 && is_dollar(found)),
                (Level::Text(parts), Some(found)) => {
                    matches!(resolve(parts, index, found, of), Resolved::Compared(true))
                }
            };
            if !covered {
                return false;
            }
        }
        levels.next().is_none()
    }

    /// Whether some topic that `filter` matches is meant. Where a place has no value for this client, its level may be
    /// any: this is asked for what is denied, and a client must not get out of that by its name.
    pub fn overlaps(&self, filter: &str, of: &Subject<'_>) -> bool {
        let mut levels = filter.split('/');
        for (index, level) in self.levels.iter().enumerate() {
            let possible = match (level, levels.next()) {
                (Level::Rest, found) => return !(index == 0 && found.is_some_and(is_dollar)),
                (Level::Text(parts), Some("#")) => return !(index == 0 && begins_with_dollar(parts)),
                (Level::Any, Some("#")) => return true,
                (_, None) => false,
                (Level::Any, Some(found)) => !(index == 0 && is_dollar(found)),
                (Level::Text(parts), Some("+")) => !(index == 0 && begins_with_dollar(parts)),
                (Level::Text(parts), Some(found)) => match resolve(parts, index, found, of) {
                    Resolved::Compared(same) => same,
                    Resolved::Unknown => !(index == 0 && is_dollar(found)),
                },
            };
            if !possible {
                return false;
            }
        }
        ends_or_has_rest(&mut levels)
    }
}

fn ends_or_has_rest(levels: &mut Split<'_, char>) -> bool {
    matches!(levels.next(), None | Some("#"))
}

fn is_dollar(level: &str) -> bool {
    level.starts_with('$')
}

/// A place at the beginning is never filled with `$`, see [`usable`].
fn begins_with_dollar(parts: &[LevelPart]) -> bool {
    matches!(parts, [LevelPart::Literal(text), ..] if is_dollar(text))
}

fn parts(level: &str) -> Result<Box<[LevelPart]>, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = level.chars();
    while let Some(character) = rest.next() {
        let place = match character {
            '%' => match rest.next() {
                Some('u') => LevelPart::User,
                Some('c') => LevelPart::ClientId,
                Some('%') => {
                    literal.push('%');
                    continue;
                }
                _ => return Err(format!("a % in {level:?} stands for nothing")),
            },
            other => {
                literal.push(other);
                continue;
            }
        };
        if !literal.is_empty() {
            parts.push(LevelPart::Literal(std::mem::take(&mut literal).into()));
        }
        parts.push(place);
    }
    if !literal.is_empty() {
        parts.push(LevelPart::Literal(literal.into()));
    }
    Ok(parts.into())
}

/// Compares the level with this index to one of a topic or filter; a wildcard there is never the same.
fn resolve(parts: &[LevelPart], index: usize, found: &str, of: &Subject<'_>) -> Resolved {
    let mut rest = Some(found);
    for (place, part) in parts.iter().enumerate() {
        let text = match part {
            LevelPart::Literal(text) => text,
            LevelPart::User | LevelPart::ClientId => {
                let value = if *part == LevelPart::User { of.user } else { Some(of.client_id) };
                let Some(value) = value.filter(|value| usable(value, index + place == 0)) else {
                    return Resolved::Unknown;
                };
                value
            }
        };
        rest = rest.and_then(|rest| rest.strip_prefix(text));
    }
    Resolved::Compared(rest == Some(""))
}

/// Whether a value can stand in a level: it must neither be more than one nor a wildcard, and where the topic begins with
/// it, it must not lead to `$SYS`.
fn usable(value: &str, first: bool) -> bool {
    let is_other_topic = first && is_dollar(value);
    !value.is_empty() && !value.contains(['/', '+', '#']) && !is_other_topic
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUMP: Subject<'_> = Subject { user: Some("pump"), client_id: "c-1" };

    #[track_caller]
    fn covers(pattern: &str, filter: &str, expected: bool) {
        let parsed = AclPattern::parse(pattern).unwrap();
        assert_eq!(parsed.covers(filter, &PUMP), expected, "{pattern} covers {filter}");
    }

    #[track_caller]
    fn overlaps(pattern: &str, filter: &str, expected: bool) {
        let parsed = AclPattern::parse(pattern).unwrap();
        assert_eq!(parsed.overlaps(filter, &PUMP), expected, "{pattern} overlaps {filter}");
    }

    #[test]
    fn topics_that_are_meant() {
        covers("devices/%u/#", "devices/pump/telemetry", true);
        covers("devices/%u/#", "devices/pump", true);
        covers("devices/%u/#", "devices/pump-2/telemetry", false);
        covers("devices/%u/#", "devices/pum/telemetry", false);
        covers("site/%u-%c/x", "site/pump-c-1/x", true);
        covers("site/%u%%/x", "site/pump%/x", true);
        covers("site/%u/x", "site/%u/x", false);
        covers("#", "a", true);
        covers("#", "$SYS/x", false);
        covers("+/x", "$SYS/x", false);
        covers("$SYS/#", "$SYS/broker/uptime", true);
    }

    #[test]
    fn filters_that_are_covered() {
        covers("devices/%u/commands/#", "devices/pump/commands/+", true);
        covers("devices/%u/commands/#", "devices/pump/commands", true);
        covers("devices/%u/commands/#", "devices/#", false);
        covers("devices/%u/commands/#", "devices/+/commands/#", false);
        covers("devices/%u/commands/#", "devices/pump/#", false);
        covers("#", "#", true);
        covers("#", "$SYS/#", false);
        covers("+/#", "#", true);
        covers("a/+/#", "a/#", false);
        covers("a/#", "a/+/#", true);
        covers("+", "#", false);
        covers("$SYS/#", "$SYS/+/clients", true);
        covers("$SYS/#", "+/broker", false);
    }

    #[test]
    fn what_is_denied_is_found_in_wider_filters() {
        overlaps("devices/secret/#", "devices/#", true);
        overlaps("devices/secret/#", "devices/+", true);
        overlaps("devices/secret/#", "devices/+/telemetry", true);
        overlaps("devices/secret/#", "devices/open/#", false);
        overlaps("devices/secret", "devices", false);
        overlaps("devices/+", "devices/#", true);
        overlaps("#", "$SYS/#", false);
        overlaps("$SYS/#", "#", false);
        overlaps("$SYS/#", "+/x", false);
        overlaps("$SYS/broker/#", "$SYS/#", true);
    }

    #[test]
    fn a_place_without_a_value_allows_nothing_and_denies_whatever_it_could_be() {
        let pattern = AclPattern::parse("devices/%u/#").unwrap();
        for user in [None, Some(""), Some("a/b"), Some("+"), Some("#"), Some("x+")] {
            let of = Subject { user, client_id: "c" };
            for topic in ["devices/x", "devices/", "devices/a/b", "devices/+/x", "devices/#", "devices", "x"] {
                assert!(!pattern.covers(topic, &of), "{topic} for {user:?}");
                assert_eq!(pattern.overlaps(topic, &of), topic.starts_with("devices/"), "{topic} for {user:?}");
            }
        }
        let first = AclPattern::parse("%c/#").unwrap();
        let of = Subject { user: None, client_id: "$SYS" };
        assert!(!first.covers("$SYS/broker/uptime", &of) && !first.overlaps("$SYS/x", &of));
        let inner = AclPattern::parse("a/%c").unwrap();
        assert!(inner.covers("a/$SYS", &of));
    }

    #[test]
    fn what_is_no_pattern() {
        for wrong in ["", "a/#/b", "a+", "b#/c", "a/%", "a/%x", "a\u{0}", "$share/g/a", "$share"] {
            assert!(AclPattern::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(AclPattern::parse(&"/".repeat(MAX_PATTERN_LEVELS)).is_err());
        assert!(AclPattern::parse(&"/".repeat(MAX_PATTERN_LEVELS - 1)).is_ok());
        assert!(AclPattern::parse(&"x".repeat(MAX_PATTERN_BYTES + 1)).is_err());
    }

    #[test]
    fn reserved_topics() {
        for (text, expected) in [
            ("weir/#", true),
            ("weir/x", true),
            ("$SYS/#", true),
            ("weir", false),
            ("#", false),
            ("$SYS/broker/connection/+/state", false),
        ] {
            assert_eq!(AclPattern::parse(text).unwrap().is_reserved(), expected, "{text}");
        }
    }

    /// Whether `filter` matches `topic`, by its words: one level for `+`, any number for `#`.
    fn matches(filter: &[&str], topic: &[&str], first: bool) -> bool {
        match (filter, topic) {
            (["#"], _) => !(first && topic.first().is_some_and(|level| is_dollar(level))),
            ([], []) => true,
            (["+", filter @ ..], [level, topic @ ..]) => !(first && is_dollar(level)) && matches(filter, topic, false),
            ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && matches(filter, topic, false),
            _ => false,
        }
    }

    /// Every topic of up to four levels; the empty name, which is no topic, counts as one. The filters below have at most three and use fewer names, so that what one of
    /// them matches and another does not is among these.
    fn universe() -> Vec<Vec<&'static str>> {
        let names = ["a", "b", "", "$s", "other"];
        let mut all: Vec<Vec<&str>> = vec![vec![]];
        let mut longest = all.clone();
        for _ in 0..4 {
            let longer = |topic: &Vec<&'static str>| names.map(|name| [&topic[..], &[name]].concat());
            longest = longest.iter().flat_map(longer).collect();
            all.extend(longest.clone());
        }
        all.retain(|topic| !topic.is_empty());
        all
    }

    fn filter() -> impl Strategy<Value = String> {
        let name = proptest::sample::select(vec!["a", "b", "", "$s", "+"]);
        (proptest::collection::vec(name, 0..3), any::<bool>())
            .prop_map(|(mut levels, rest)| {
                if rest {
                    levels.push("#");
                }
                levels.join("/")
            })
            .prop_filter("a filter has a character", |filter| !filter.is_empty())
    }

    proptest! {
        #[test]
        fn covering_and_overlapping_are_what_the_topics_say(pattern in filter(), filter in filter()) {
            let (wide, narrow): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), filter.split('/').collect());
            let parsed = AclPattern::parse(&pattern).unwrap();
            let of = Subject { user: None, client_id: "" };
            let (mut all, mut some) = (true, false);
            for topic in universe().iter().filter(|topic| matches(&narrow, topic, true)) {
                let meant = matches(&wide, topic, true);
                all &= meant;
                some |= meant;
                prop_assert_eq!(parsed.covers(&topic.join("/"), &of), meant, "{:?}", topic);
                prop_assert_eq!(parsed.overlaps(&topic.join("/"), &of), meant, "{:?}", topic);
            }
            prop_assert_eq!(parsed.covers(&filter, &of), all, "{} covers {}", pattern, filter);
            prop_assert_eq!(parsed.overlaps(&filter, &of), some, "{} overlaps {}", pattern, filter);
        }
    }
}
