//! Which map takes a topic, and where the topic has its names, remembered.
//!
//! The answer is a function of the topic and the maps, so that a memory of it changes no result. Devices that publish one value a
//! topic change the topic with every message.

use hashbrown::HashMap;

use crate::core::formats::{MapMatch, Maps, TopicNamePlaces};

/// Largest number of topics that are remembered. When there are more, all are forgotten, and those that are in use come back.
const MAX_TOPICS: usize = 65_536;
/// Longest topic in bytes that is remembered.
const MAX_TOPIC_BYTES: usize = 256;

/// What is remembered of a topic that a map takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TakenTopic {
    /// The map.
    pub found: MapMatch,
    /// Where the topic has the names of the one value that its messages are, see [`Maps::name_places`].
    pub names: Option<TopicNamePlaces>,
}

impl TakenTopic {
    fn find(maps: &Maps, topic: &str) -> Option<Self> {
        let found = maps.find(topic)?;
        Some(Self { found, names: maps.name_places(found, topic) })
    }
}

/// Topics and the maps that take them.
#[derive(Debug, Default)]
pub(super) struct KnownTopics(HashMap<Box<str>, Option<TakenTopic>, foldhash::quality::RandomState>);

impl KnownTopics {
    /// Number of topics that are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What is known of `topic` under `maps`, which are always the same; `None` where no map takes its messages.
    pub fn find(&mut self, maps: &Maps, topic: &str) -> Option<TakenTopic> {
        if let Some(found) = self.0.get(topic) {
            return *found;
        }
        let found = TakenTopic::find(maps, topic);
        if topic.len() <= MAX_TOPIC_BYTES {
            if self.0.len() >= MAX_TOPICS {
                self.0.clear();
            }
            self.0.insert(topic.into(), found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::formats::MapSettings;

    #[test]
    fn what_is_remembered_is_what_is_found() {
        let topics = vec!["a/{device}/x".to_owned()];
        let maps = Maps::new(&[MapSettings { name: "m".into(), topics, ..MapSettings::default() }]).unwrap();
        let mut known = KnownTopics::default();
        let long = format!("a/{}/x", "d".repeat(MAX_TOPIC_BYTES));
        for topic in ["a/1/x", "a/1/y", "a/1/x", "a/1/y", &long, &long] {
            assert_eq!(known.find(&maps, topic).map(|topic| topic.found), maps.find(topic), "{topic}");
        }
        assert_eq!(known.len(), 2);
        for index in 0..2 * MAX_TOPICS {
            assert!(known.find(&maps, &format!("a/{index}/x")).is_some());
        }
        assert!((1..=MAX_TOPICS).contains(&known.len()));
    }
}
