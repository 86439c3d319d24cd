//! Topic patterns of access rules: MQTT topic filters in which `%u` stands for the client's user name and `%c` for its
//! client identifier.
//!
//! Two questions are asked. For what is allowed: does the pattern cover every topic of a filter? For what is denied: does it
//! overlap any topic of the filter? Where a name is missing or cannot stand in a level, both are answered so that the client
//! may do less.

use std::str::Split;

/// Longest pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1_024;
/// Largest number of levels of a pattern.
const MAX_PATTERN_LEVELS: usize = 64;

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("it is empty")]
    Empty,
    #[error("it has more than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    #[error("it holds a control character")]
    ControlCharacter,
    #[error("a shared subscription is judged by its filter; leave out $share and the group")]
    Shared,
    #[error("it has {count} levels, more than {MAX_PATTERN_LEVELS}")]
    TooManyLevels { count: usize },
    #[error("a # is not the last level")]
    RestNotLast,
    #[error("the wildcard in {level:?} is not a whole level")]
    PartialWildcard { level: String },
    #[error("the % in {level:?} is not %u, %c or %%")]
    Placeholder { level: String },
    #[error(
        "two users can match the level {level:?}: user a with client identifier b-c, and user a-b with client identifier c, are \
         the same in %u-%c; put them in levels of their own (%u/%c), or a colon between them, which no user name has (%u:%c)"
    )]
    Ambiguous { level: String },
}

/// A topic filter with placeholders for the client's user name and client identifier.
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
    /// Any other level; no parts: the empty level.
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

/// The client whose names stand in for the placeholders.
#[derive(Debug, Clone, Copy)]
pub(super) struct PatternClient<'a> {
    pub user: Option<&'a str>,
    pub client_id: &'a str,
}

/// Result of comparing a level of a pattern, for one client, with a level of a filter.
enum LevelMatch {
    /// Whether the levels are the same.
    Compared(bool),
    /// The client has no usable value for a placeholder of the level.
    Unknown,
}

impl Level {
    /// The text of the level, if it has no placeholder.
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
    /// Reads a pattern.
    ///
    /// # Errors
    /// The text is not a topic filter, is too long, has a `%` that is not `%u`, `%c` or `%%`, or joins both in a level so that
    /// two users can match the same topic.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::ControlCharacter);
        }
        if text == "$share" || text.starts_with("$share/") {
            return Err(PatternError::Shared);
        }
        let count = text.split('/').count();
        if count > MAX_PATTERN_LEVELS {
            return Err(PatternError::TooManyLevels { count });
        }
        let levels = text.split('/').enumerate().map(|(index, level)| match level {
            "+" => Ok(Level::Any),
            "#" if index + 1 == count => Ok(Level::Rest),
            "#" => Err(PatternError::RestNotLast),
            _ if level.contains(['+', '#']) => Err(PatternError::PartialWildcard { level: level.to_owned() }),
            _ => match parts(level)? {
                parts if tells_users_apart(&parts) => Ok(Level::Text(parts)),
                _ => Err(PatternError::Ambiguous { level: level.to_owned() }),
            },
        });
        Ok(Self { levels: levels.collect::<Result<_, _>>()? })
    }

    /// Whether the pattern matches topics that only weir publishes on.
    pub fn is_reserved(&self) -> bool {
        match &*self.levels {
            [system, broker, connection, _, state]
                if [system, broker, connection, state].map(Level::literal)
                    == [Some("$SYS"), Some("broker"), Some("connection"), Some("state")] =>
            {
                false // Bridges publish there whether they are connected.
            }
            [Level::Text(first), ..] if begins_with_dollar(first) => true,
            [Level::Text(first), _, ..] => matches!(&**first, [LevelPart::Literal(text)] if &**text == "weir"),
            _ => false,
        }
    }

    /// Whether the pattern matches every topic that `filter` matches. A topic name is a filter that matches itself. A
    /// placeholder without a usable value for this client matches nothing.
    pub fn covers(&self, filter: &str, of: &PatternClient<'_>) -> bool {
        // Every topic has at least one level, so `+/#` matches everything that `#` matches.
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
                    matches!(resolve(parts, index, found, of), LevelMatch::Compared(true))
                }
            };
            if !covered {
                return false;
            }
        }
        levels.next().is_none()
    }

    /// Whether the pattern matches any topic that `filter` matches. A placeholder without a usable value for this client
    /// matches every level: the question is asked for denials, and a client must not escape a denial by choosing an odd name.
    pub fn overlaps(&self, filter: &str, of: &PatternClient<'_>) -> bool {
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
                    LevelMatch::Compared(same) => same,
                    LevelMatch::Unknown => !(index == 0 && is_dollar(found)),
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

/// Whether a first level begins with `$`. A placeholder at the beginning never does, see [`is_usable`].
fn begins_with_dollar(parts: &[LevelPart]) -> bool {
    matches!(parts, [LevelPart::Literal(text), ..] if is_dollar(text))
}

/// Whether no two users match the same text of a level. Clients choose their identifiers, so where a level has a user name and
/// a client identifier, something must show where the name ends: a colon, which no user name has, between the name at one end
/// of the placeholders and the next placeholder.
fn tells_users_apart(parts: &[LevelPart]) -> bool {
    let has = |wanted: &LevelPart| parts.contains(wanted);
    if !has(&LevelPart::User) || !has(&LevelPart::ClientId) {
        return true;
    }
    let places: Vec<&LevelPart> = parts.iter().skip_while(|part| matches!(part, LevelPart::Literal(_))).collect();
    let ends = matches!(places[..], [.., LevelPart::Literal(_)]);
    let places = &places[..places.len() - usize::from(ends)];
    let has_colon = |part: &LevelPart| matches!(part, LevelPart::Literal(text) if text.contains(':'));
    match places {
        [LevelPart::User, next, ..] if has_colon(next) => true,
        [.., next, LevelPart::User] => has_colon(next),
        _ => false,
    }
}

/// Splits a level into literal text and placeholders.
fn parts(level: &str) -> Result<Box<[LevelPart]>, PatternError> {
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
                _ => return Err(PatternError::Placeholder { level: level.to_owned() }),
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

/// Compares the level `index` of a pattern with a level of a topic or filter. A wildcard there is never the same.
fn resolve(parts: &[LevelPart], index: usize, found: &str, of: &PatternClient<'_>) -> LevelMatch {
    let mut rest = Some(found);
    for (place, part) in parts.iter().enumerate() {
        let text = match part {
            LevelPart::Literal(text) => text,
            LevelPart::User | LevelPart::ClientId => {
                let value = if *part == LevelPart::User { of.user } else { Some(of.client_id) };
                let Some(value) = value.filter(|value| is_usable(value, index + place == 0)) else {
                    return LevelMatch::Unknown;
                };
                value
            }
        };
        rest = rest.and_then(|rest| rest.strip_prefix(text));
    }
    LevelMatch::Compared(rest == Some(""))
}

/// Whether a client's name can stand in a level: it must be neither several levels nor a wildcard, and at the beginning of a
/// topic it must not begin with `$`, or a client could name itself `$SYS`.
fn is_usable(value: &str, first: bool) -> bool {
    let is_other_topic = first && is_dollar(value);
    !value.is_empty() && !value.contains(['/', '+', '#']) && !is_other_topic
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUMP: PatternClient<'_> = PatternClient { user: Some("pump"), client_id: "c-1" };

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
    fn topics_that_are_covered() {
        covers("devices/%u/#", "devices/pump/telemetry", true);
        covers("devices/%u/#", "devices/pump", true);
        covers("devices/%u/#", "devices/pump-2/telemetry", false);
        covers("devices/%u/#", "devices/pum/telemetry", false);
        covers("site/%u:%c/x", "site/pump:c-1/x", true);
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
    fn denied_topics_are_found_in_wider_filters() {
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
    fn a_placeholder_without_a_value_allows_nothing_and_denies_everything_it_could_be() {
        let pattern = AclPattern::parse("devices/%u/#").unwrap();
        for user in [None, Some(""), Some("a/b"), Some("+"), Some("#"), Some("x+")] {
            let of = PatternClient { user, client_id: "c" };
            for topic in ["devices/x", "devices/", "devices/a/b", "devices/+/x", "devices/#", "devices", "x"] {
                assert!(!pattern.covers(topic, &of), "{topic} for {user:?}");
                assert_eq!(pattern.overlaps(topic, &of), topic.starts_with("devices/"), "{topic} for {user:?}");
            }
        }
        let first = AclPattern::parse("%c/#").unwrap();
        let of = PatternClient { user: None, client_id: "$SYS" };
        assert!(!first.covers("$SYS/broker/uptime", &of) && !first.overlaps("$SYS/x", &of));
        let inner = AclPattern::parse("a/%c").unwrap();
        assert!(inner.covers("a/$SYS", &of));
    }

    #[test]
    fn levels_that_two_users_can_match_are_refused() {
        for good in ["%u/%c", "%u:%c", "%c:%u", "x%u-:-%c.y", "%u:%c-%u", "%u-%u", "%c%c", "a-%u", "%%u-%c", "%u-%%c"] {
            assert!(AclPattern::parse(good).is_ok(), "{good}");
        }
        for bad in ["%u-%c", "%u%c", "%c%u", "x/%c.%u/#", "%u-%c:%u-%c", "%c-%u:%c", ":%u-%c:", "a/%c:%c-%u"] {
            let wrong = AclPattern::parse(bad).unwrap_err();
            assert!(matches!(wrong, PatternError::Ambiguous { .. }), "{bad}: {wrong}");
        }
        let client = |user, client_id| PatternClient { user: Some(user), client_id };
        let pattern = AclPattern::parse("%u:%c").unwrap();
        assert!(pattern.covers("a:b-c", &client("a", "b-c")) && !pattern.covers("a:b-c", &client("a:b", "c")));
    }

    #[test]
    fn texts_that_are_no_patterns() {
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

    /// Whether `filter` matches `topic`, by the words of MQTT: one level for `+`, any number of levels for `#`.
    fn matches(filter: &[&str], topic: &[&str], first: bool) -> bool {
        match (filter, topic) {
            (["#"], _) => !(first && topic.first().is_some_and(|level| is_dollar(level))),
            ([], []) => true,
            (["+", filter @ ..], [level, topic @ ..]) => !(first && is_dollar(level)) && matches(filter, topic, false),
            ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && matches(filter, topic, false),
            _ => false,
        }
    }

    /// Every topic of up to four levels, with the empty name as a topic. The filters below have at most three levels and use
    /// fewer names, so wherever two of them differ, they differ on one of these topics.
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
            let of = PatternClient { user: None, client_id: "" };
            let (mut all, mut some) = (true, false);
            for topic in universe().iter().filter(|topic| matches(&narrow, topic, true)) {
                let matched = matches(&wide, topic, true);
                all &= matched;
                some |= matched;
                prop_assert_eq!(parsed.covers(&topic.join("/"), &of), matched, "{:?}", topic);
                prop_assert_eq!(parsed.overlaps(&topic.join("/"), &of), matched, "{:?}", topic);
            }
            prop_assert_eq!(parsed.covers(&filter, &of), all, "{} covers {}", pattern, filter);
            prop_assert_eq!(parsed.overlaps(&filter, &of), some, "{} overlaps {}", pattern, filter);
        }
    }
}
