//! The trie against a matcher that asks each pattern.

use proptest::prelude::*;

use crate::core::formats::pattern::{Captures, LevelNames, Pattern, PatternLevel};
use crate::core::formats::{MapMatch, MapRole, MapSettings, Maps};

/// Whether levels of a pattern match levels of a topic, by trying all lengths.
fn matches(pattern: &[PatternLevel], topic: &[&str]) -> bool {
    let nameable = |level: &&str| !level.is_empty() && !level.starts_with('$');
    match pattern.split_first() {
        None => topic.is_empty(),
        Some((PatternLevel::Rest, _)) => true,
        Some((PatternLevel::Literal(text), rest)) => topic.first() == Some(&&**text) && matches(rest, &topic[1..]),
        Some((PatternLevel::One(_), rest)) => topic.first().is_some_and(nameable) && matches(rest, &topic[1..]),
        Some((PatternLevel::Many(_), rest)) => {
            (1..=topic.len()).any(|count| topic[..count].iter().all(nameable) && matches(rest, &topic[count..]))
        }
    }
}

fn naive(maps: &[MapSettings], topic: &str) -> Option<MapMatch> {
    let levels: Vec<_> = topic.split('/').collect();
    let mut best = None;
    for (map, settings) in (0..).zip(maps) {
        for (role, patterns) in [(MapRole::Readings, &settings.topics), (MapRole::Ignore, &settings.ignore)] {
            for (index, text) in (0..).zip(patterns) {
                let pattern = Pattern::parse(text, &mut LevelNames::default()).unwrap();
                let is_system = topic.starts_with('$') && pattern.levels.first() == Some(&PatternLevel::Rest);
                if is_system || !matches(&pattern.levels, &levels) {
                    continue;
                }
                let literals = text.split('/').filter(|level| !level.contains(['{', '#'])).count();
                let rank = (usize::MAX - literals, text.contains(['+', '#']), role, map, index);
                let found = MapMatch { map, role, pattern: index };
                if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                    best = Some((rank, found));
                }
            }
        }
    }
    best.map(|(_, found)| found)
}

fn captured(pattern: &str, topic: &str) -> Option<Vec<String>> {
    let pattern = Pattern::parse(pattern, &mut LevelNames::default()).unwrap();
    let mut captures = Captures::default();
    let is_match = pattern.capture(topic, &mut captures);
    is_match.then(|| captures.iter().flatten().map(ToString::to_string).collect())
}

#[test]
fn names_have_levels() {
    let check = |pattern: &str, topic: &str, expected: Option<&[&str]>| {
        let expected = expected.map(|texts| texts.iter().map(ToString::to_string).collect());
        assert_eq!(captured(pattern, topic), expected, "{pattern} {topic}");
    };
    check("tele/{device}/SENSOR", "tele/a/SENSOR", Some(&["a"]));
    check("tele/{device}/SENSOR", "tele//SENSOR", None);
    check("homie/{a}/{b}/{c}", "homie/a/b/$unit", None);
    check("{a+}/x/{b}", "p/q/x/y", Some(&["p/q", "y"]));
    check("{a+}/x/{b}", "x/x/x", Some(&["x", "x"]));
    check("{a+}/x", "x", None);
    check("{a+}/x/#", "p/x/x/x", Some(&["p"]));
    check("stat/#", "stat", Some(&[]));
    check("stat/#", "stat/a/$b", Some(&[]));
    check("{a}", "a/b", None);
    check("a/b", "a", None);
}

#[test]
fn the_more_specific_pattern_wins() {
    let map = |topics: &[&str], ignore: &[&str]| MapSettings {
        topics: topics.iter().map(ToString::to_string).collect(),
        ignore: ignore.iter().map(ToString::to_string).collect(),
        metric: "m".into(),
        device: "d".into(),
        ..MapSettings::default()
    };
    let settings =
        [map(&["z/{device+}", "z/{a}"], &["z/{device+}/set", "y/{b}"]), map(&["{a+}/events/rpc", "y/{b}"], &["#"])];
    let maps = Maps::new(&settings).unwrap();
    let check = |topic: &str, map, role, pattern| {
        assert_eq!(maps.find(topic), Some(MapMatch { map, role, pattern }), "{topic}");
    };
    check("z/a/b", 0, MapRole::Readings, 0);
    check("z/a", 0, MapRole::Readings, 1);
    check("z/a/set", 0, MapRole::Ignore, 0);
    check("z/a/events/rpc", 1, MapRole::Readings, 0);
    check("y/a", 1, MapRole::Readings, 1);
    check("other", 1, MapRole::Ignore, 0);
    assert_eq!(maps.find("$SYS/x"), None);
}

fn pattern() -> impl Strategy<Value = String> {
    let level = prop_oneof![Just("a"), Just("b"), Just("$c"), Just(""), Just("{}"), Just("{+}")];
    (proptest::collection::vec(level, 1..5), any::<bool>()).prop_filter_map("no pattern", |(levels, is_open)| {
        let mut names = 0;
        let mut named = |level: &str| {
            names += 1;
            level.replace('{', &format!("{{n{names}"))
        };
        let mut levels: Vec<String> = levels.into_iter().map(&mut named).collect();
        if is_open {
            levels.push("#".into());
        }
        let text = levels.join("/");
        Pattern::parse(&text, &mut LevelNames::default()).is_ok().then_some(text)
    })
}

proptest! {
    #[test]
    fn the_trie_finds_what_the_patterns_say(
        topics in proptest::collection::vec(pattern(), 1..5),
        ignore in proptest::collection::vec(pattern(), 0..5),
        topic in "(a|b|x|[$]c|[$]d|)(/(a|b|x|[$]c|)){0,5}",
    ) {
        let map = |topics, ignore| MapSettings {
            topics, ignore, device: "d".into(), metric: "m".into(), ..MapSettings::default()
        };
        let settings = [map(topics, Vec::new()), map(Vec::new(), ignore)];
        let maps = Maps::new(&settings).unwrap();
        let found = maps.find(&topic);
        // Patterns that stand twice in a map are one.
        let role = |found: Option<MapMatch>| found.map(|found| (found.map, found.role, found.pattern));
        prop_assert_eq!(role(found), role(naive(&settings, &topic)));
        if let Some(MapMatch { map: 0, pattern, .. }) = found {
            prop_assert!(captured(&settings[0].topics[pattern as usize], &topic).is_some());
        }
    }
}
