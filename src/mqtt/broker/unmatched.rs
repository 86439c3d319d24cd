//! Topics that no ingest pattern takes: the most frequent ones, so that a person can find readings that arrive on a wrong topic.
//!
//! This is the algorithm "space-saving" over counts that halve every hour: at the bound, a new topic takes the place of the one with
//! the smallest weight and begins with that weight. A topic that is published on often is therefore always listed, however many
//! other topics there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::mqtt::wire::topic_suggestion::PayloadLook;
use crate::sync::lock;

/// Topics that are listed at most.
const MAX_TOPICS: usize = 1_000;
/// Bytes of the longest topic that is listed. With client identifiers of up to 256 bytes, all topics take less than 1 MiB.
pub(crate) const MAX_TOPIC_BYTES: usize = 256;
/// Time in which the weight of a topic without further publishes halves.
const HALF_LIFE: Duration = Duration::from_secs(3_600);
/// Weight of one publish. It is above 1 so that a topic with few publishes keeps its rank for some hours.
const WEIGHT: u64 = 256;

/// Publishes of one client on one topic that are noted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UnmatchedRun {
    /// Number of publishes.
    pub count: u64,
    /// Bytes of the last payload.
    pub payload_bytes: usize,
    /// What a payload looks like.
    pub look: PayloadLook,
    /// Whether the topic has a subscriber.
    pub has_subscribers: bool,
}

/// One topic that no ingest pattern takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnmatchedTopic {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Number of publishes since it is listed.
    pub count: u64,
    /// Time of the last publish.
    pub last_seen: Instant,
    /// Client that published last.
    pub client_id: Arc<str>,
    /// The last publishes.
    pub last: UnmatchedRun,
}

/// The most frequent topics that no ingest pattern takes.
#[derive(Debug, Default)]
pub(crate) struct UnmatchedTopics {
    contents: Mutex<WeightedTopics>,
    /// Topics that gave way to others.
    replaced: AtomicU64,
}

/// Topics that are no ingest topics.
#[derive(Debug, Default, Serialize)]
pub struct UnmatchedTopicList {
    /// The topics, most frequent first.
    pub topics: Vec<UnmatchedTopicUsage>,
    /// Number of topics that could be listed.
    pub count: usize,
}

/// One topic that is no ingest topic.
#[derive(Debug, Serialize)]
pub struct UnmatchedTopicUsage {
    /// Name of the topic.
    pub topic: String,
    /// Number of publishes since the topic is listed.
    pub count: u64,
    /// Time of the last publish, Unix milliseconds.
    pub last_seen: i64,
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// Client identifier of its sender.
    pub client_id: String,
    /// Whether somebody subscribed to the topic then.
    pub has_subscribers: bool,
    /// What could be done about it, if weir has an idea.
    pub suggestion: Option<String>,
}

#[derive(Debug, Default)]
struct WeightedTopics {
    slots: HashMap<Arc<str>, usize>,
    topics: Vec<(u64, UnmatchedTopic)>,
    /// Weights with the places of their topics in `topics`.
    order: BTreeSet<(u64, usize)>,
    /// Since when the present weights hold.
    halved: Option<Instant>,
}

impl UnmatchedTopics {
    /// Notes publishes of a client. Topics of more than 256 bytes are not listed.
    pub fn note(&self, runs: &mut dyn Iterator<Item = (&str, UnmatchedRun)>, client_id: &Arc<str>, now: Instant) {
        let mut contents = lock(&self.contents);
        let replaced = runs
            .filter(|(topic, _)| topic.len() <= MAX_TOPIC_BYTES)
            .filter(|(topic, run)| contents.note(topic, client_id, *run, now))
            .count();
        self.replaced.fetch_add(replaced as u64, Ordering::Relaxed);
    }

    /// The topics in the order of their present weight, heaviest first.
    pub fn list(&self, now: Instant) -> Vec<UnmatchedTopic> {
        let mut contents = lock(&self.contents);
        contents.halve(now);
        contents.order.iter().rev().filter_map(|&(_, slot)| Some(contents.topics.get(slot)?.1.clone())).collect()
    }

    /// Number of topics that are listed, and number of those that gave way to others.
    pub fn counts(&self) -> (usize, u64) {
        (lock(&self.contents).topics.len(), self.replaced.load(Ordering::Relaxed))
    }
}

impl WeightedTopics {
    /// Returns whether another topic gave way.
    fn note(&mut self, topic: &str, client_id: &Arc<str>, run: UnmatchedRun, now: Instant) -> bool {
        self.halve(now);
        let added = run.count.saturating_mul(WEIGHT);
        if let Some(&slot) = self.slots.get(topic)
            && let Some((weight, known)) = self.topics.get_mut(slot)
        {
            self.order.remove(&(*weight, slot));
            *weight = weight.saturating_add(added);
            self.order.insert((*weight, slot));
            known.count += run.count;
            known.last_seen = now;
            known.last = UnmatchedRun { look: run.look.max(known.last.look), ..run };
            if known.client_id != *client_id {
                known.client_id = Arc::clone(client_id);
            }
            return false;
        }
        let topic: Arc<str> = topic.into();
        let new = UnmatchedTopic {
            topic: Arc::clone(&topic),
            count: run.count,
            last_seen: now,
            client_id: Arc::clone(client_id),
            last: run,
        };
        let lightest = self.order.first().copied().filter(|_| self.topics.len() >= MAX_TOPICS);
        let (weight, slot) = lightest.unwrap_or((0, self.topics.len()));
        let weight = weight.saturating_add(added);
        if lightest.is_some()
            && let Some(place) = self.topics.get_mut(slot)
        {
            self.order.pop_first();
            self.slots.remove(&place.1.topic);
            *place = (weight, new);
        } else {
            self.topics.push((weight, new));
        }
        self.slots.insert(topic, slot);
        self.order.insert((weight, slot));
        lightest.is_some()
    }

    /// Halves all weights for each half-life that has passed.
    fn halve(&mut self, now: Instant) {
        let since = *self.halved.get_or_insert(now);
        let periods = now.saturating_duration_since(since).as_secs() / HALF_LIFE.as_secs();
        if periods == 0 {
            return;
        }
        let passed = HALF_LIFE.saturating_mul(u32::try_from(periods).unwrap_or(u32::MAX));
        self.halved = Some(since.checked_add(passed).unwrap_or(now));
        for (weight, _) in &mut self.topics {
            *weight = weight.checked_shr(u32::try_from(periods).unwrap_or(u32::MAX)).unwrap_or(0);
        }
        self.order = self.topics.iter().enumerate().map(|(slot, (weight, _))| (*weight, slot)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(count: u64) -> UnmatchedRun {
        UnmatchedRun { count, ..UnmatchedRun::default() }
    }

    impl UnmatchedTopics {
        fn note_one(&self, topic: &str, client_id: &Arc<str>, run: UnmatchedRun, now: Instant) {
            self.note(&mut std::iter::once((topic, run)), client_id, now);
        }
    }

    fn names(topics: &UnmatchedTopics, now: Instant) -> Vec<(String, u64)> {
        topics.list(now).iter().map(|topic| (topic.topic.to_string(), topic.count)).collect()
    }

    #[test]
    fn the_most_frequent_come_first_and_old_counts_fade() {
        let (topics, now) = (UnmatchedTopics::default(), Instant::now());
        let client: Arc<str> = "c".into();
        topics.note_one("a", &client, run(3), now);
        topics.note_one("b", &client, run(1), now);
        topics.note_one("b", &client, run(1), now);
        assert_eq!(names(&topics, now), [("a".into(), 3), ("b".into(), 2)]);
        let later = now + HALF_LIFE;
        topics.note_one("b", &client, UnmatchedRun { look: PayloadLook::Readings, ..run(1) }, later);
        topics.note_one("b", &"d".into(), run(1), later);
        assert_eq!(names(&topics, later), [("b".into(), 4), ("a".into(), 3)]);
        let newest = &topics.list(later)[0];
        assert_eq!((&*newest.client_id, newest.last_seen, newest.last.look), ("d", later, PayloadLook::Readings));
        // After a very long time all are equal, and still listed.
        assert_eq!(topics.list(later + HALF_LIFE * 1_000).len(), 2);
    }

    #[test]
    fn a_flood_of_topics_does_not_push_out_a_frequent_one() {
        let (topics, now) = (UnmatchedTopics::default(), Instant::now());
        let client: Arc<str> = "c".into();
        topics.note_one("rare", &client, run(1), now);
        for index in 0..5 * MAX_TOPICS {
            topics.note_one(&format!("flood/{index}"), &client, run(1), now);
            if index % 100 == 0 {
                topics.note_one("frequent", &client, run(1), now);
            }
        }
        let listed = names(&topics, now);
        assert_eq!(listed.len(), MAX_TOPICS);
        assert_eq!(listed[0], ("frequent".into(), 50));
        assert!(listed.iter().all(|(name, _)| name != "rare"));
        let (count, replaced) = topics.counts();
        assert_eq!((count, replaced), (MAX_TOPICS, (5 * MAX_TOPICS + 2 - MAX_TOPICS) as u64));
        let contents = lock(&topics.contents);
        assert_eq!((contents.order.len(), contents.slots.len()), (MAX_TOPICS, MAX_TOPICS));
    }

    #[test]
    fn long_topics_are_not_listed() {
        let topics = UnmatchedTopics::default();
        topics.note_one(&"x".repeat(MAX_TOPIC_BYTES + 1), &"c".into(), run(1), Instant::now());
        assert_eq!(topics.counts(), (0, 0));
    }
}
