//! Patterns of topics: literal levels, `{name}` for one level, `{name+}` for one or more, and `#` for the rest.

use std::borrow::Cow;

/// Largest number of names of one map, those of its paths included.
pub(super) const MAX_NAMES: usize = 16;
/// Largest number of levels of a pattern.
const MAX_LEVELS: usize = 64;

/// The text that each name of a map has in a message, by the index of the name.
pub(super) type Captures<'a> = [Option<Cow<'a, str>>; MAX_NAMES];

/// The names that the patterns and paths of a map set.
#[derive(Debug, Default)]
pub(super) struct LevelNames(Vec<String>);

impl LevelNames {
    /// Index of a name.
    pub fn index(&self, name: &str) -> Option<u8> {
        self.0.iter().position(|known| known == name).and_then(|index| u8::try_from(index).ok())
    }

    /// Index of a name, which is new or not.
    pub fn add(&mut self, name: &str) -> Result<u8, String> {
        let mut chars = name.chars();
        let is_name = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(format!("{name:?} is no name; a name has letters, digits and `_`, and begins with no digit"));
        }
        if let Some(index) = self.index(name) {
            return Ok(index);
        }
        if self.0.len() == MAX_NAMES {
            return Err(format!("the map has more than {MAX_NAMES} names"));
        }
        self.0.push(name.to_owned());
        Ok((self.0.len() - 1) as u8)
    }
}

/// A level of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PatternLevel {
    /// This text.
    Literal(Box<str>),
    /// One level, which sets the name with this index.
    One(u8),
    /// One level or more, which set the name with this index.
    Many(u8),
    /// All that follows, if anything does.
    Rest,
}

/// A pattern of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Its levels; [`PatternLevel::Rest`] is only the last.
    pub levels: Box<[PatternLevel]>,
}

impl Pattern {
    /// Reads a pattern. Its names are added to `names`.
    pub fn parse(text: &str, names: &mut LevelNames) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a pattern is not empty".into());
        }
        let mut levels = Vec::new();
        for level in text.split('/') {
            let level = level_of(level, text, names)?;
            let is_many = matches!(level, PatternLevel::Many(_));
            match levels.last() {
                Some(PatternLevel::Rest) => {
                    return Err(format!("`#` stands only at the end of a pattern, not as in {text:?}"));
                }
                _ if is_many && levels.iter().any(|other| matches!(other, PatternLevel::Many(_))) => {
                    return Err(format!("`{{name+}}` stands once in a pattern, and {text:?} has two"));
                }
                _ => {}
            }
            if let PatternLevel::One(name) | PatternLevel::Many(name) = level
                && levels
                    .iter()
                    .any(|other| matches!(other, PatternLevel::One(n) | PatternLevel::Many(n) if *n == name))
            {
                return Err(format!("{text:?} has a name twice"));
            }
            levels.push(level);
        }
        if levels.len() > MAX_LEVELS {
            return Err(format!("the pattern has more than {MAX_LEVELS} levels"));
        }
        Ok(Self { levels: levels.into() })
    }

    /// The names that the pattern sets, a bit each.
    pub fn names(&self) -> u16 {
        let bit = |level: &PatternLevel| match level {
            PatternLevel::One(name) | PatternLevel::Many(name) => 1 << name,
            PatternLevel::Literal(_) | PatternLevel::Rest => 0,
        };
        self.levels.iter().map(bit).fold(0, |all, one| all | one)
    }

    /// Number of literal levels.
    pub fn literals(&self) -> usize {
        self.levels.iter().filter(|level| matches!(level, PatternLevel::Literal(_))).count()
    }

    /// Whether the number of levels is open.
    pub fn is_open(&self) -> bool {
        self.levels.iter().any(|level| matches!(level, PatternLevel::Many(_) | PatternLevel::Rest))
    }

    /// Sets the names of the pattern in `captures`. Whether `topic` matches; if not, some may be set.
    pub fn capture<'a>(&self, topic: &'a str, captures: &mut Captures<'a>) -> bool {
        capture(&self.levels, Some(topic), captures)
    }
}

fn level_of(level: &str, pattern: &str, names: &mut LevelNames) -> Result<PatternLevel, String> {
    if level == "#" {
        return Ok(PatternLevel::Rest);
    }
    if let Some(name) = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return match name.strip_suffix('+') {
            Some(name) => names.add(name).map(PatternLevel::Many),
            None => names.add(name).map(PatternLevel::One),
        };
    }
    if level.contains(['{', '}', '#', '+']) {
        return Err(format!(
            "the level {level:?} of {pattern:?} is neither text nor `{{name}}`, `{{name+}}` or `#`; a name is a whole level"
        ));
    }
    Ok(PatternLevel::Literal(level.into()))
}

/// Whether a name may have this level: it is not empty and is none of those that conventions keep for themselves.
pub(super) fn is_nameable(level: &str) -> bool {
    !level.is_empty() && !level.starts_with('$')
}

/// The first level of a topic, and what follows its `/`.
pub(super) fn split_level(topic: &str) -> (&str, Option<&str>) {
    // Levels are short: a search byte by byte is faster than one that sets itself up for long texts.
    let Some(slash) = topic.bytes().position(|byte| byte == b'/') else { return (topic, None) };
    (topic.get(..slash).unwrap_or_default(), topic.get(slash + 1..))
}

fn capture<'a>(levels: &[PatternLevel], topic: Option<&'a str>, captures: &mut Captures<'a>) -> bool {
    let Some((first, levels)) = levels.split_first() else { return topic.is_none() };
    if *first == PatternLevel::Rest {
        return true;
    }
    let Some(topic) = topic else { return false };
    let (level, mut rest) = split_level(topic);
    match first {
        PatternLevel::Literal(text) => **text == *level && capture(levels, rest, captures),
        PatternLevel::One(name) => is_nameable(level) && set(captures, *name, level) && capture(levels, rest, captures),
        PatternLevel::Many(name) => {
            let mut level = level;
            // The shortest that lets the others match; only `#` leaves a choice.
            while is_nameable(level) {
                if capture(levels, rest, captures) {
                    let behind = rest.map_or(0, |rest| rest.len() + 1);
                    return set(captures, *name, topic.get(..topic.len() - behind).unwrap_or_default());
                }
                let Some(more) = rest else { break };
                (level, rest) = split_level(more);
            }
            false
        }
        PatternLevel::Rest => true,
    }
}

fn set<'a>(captures: &mut Captures<'a>, name: u8, text: &'a str) -> bool {
    if let Some(place) = captures.get_mut(usize::from(name)) {
        *place = Some(Cow::Borrowed(text));
    }
    true
}
