//! Topics that a connection published on lately, besides the last one.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::topic_cache::CheckedTopic;

/// Largest number of topics. Beside one with more topics in turn than this, a connection forgets each before it comes again.
const MAX_TOPICS: usize = 15;
/// Longest name in bytes of a topic that is kept.
pub(super) const MAX_NAME_BYTES: usize = 256;

/// Topics that a connection published on lately, besides the last one. Those on which it may not publish are not kept: each time
/// that one follows another topic, the denial is reported again.
#[derive(Debug, Default)]
pub(super) struct OtherTopics {
    topics: Vec<CheckedTopic>,
    /// Hashes of the names of `topics`. They only save comparisons.
    hashes: Vec<u32>,
    /// The topic that gives way next where there are too many.
    next: usize,
}

impl OtherTopics {
    /// Puts the topic `name` in the place of `current`, which is kept. Whether `name` was there; else `current` is of no use.
    pub fn take(&mut self, name: &[u8], current: &mut CheckedTopic) -> bool {
        let hash = hash(name);
        let found = self.hashes.iter().position(|&other| other == hash);
        let found = found.filter(|&at| self.topics.get(at).is_some_and(|topic| topic.name().as_bytes() == name));
        let is_kept = (1..=MAX_NAME_BYTES).contains(&current.name().len()) && current.refused.is_none();
        match found {
            Some(at) if !is_kept => {
                self.hashes.swap_remove(at);
                *current = self.topics.swap_remove(at);
            }
            Some(at) => self.exchange(at, current),
            None if !is_kept => {}
            None if self.topics.len() < MAX_TOPICS => {
                self.hashes.push(hash_of(current));
                self.topics.push(std::mem::take(current));
            }
            None => {
                self.exchange(self.next, current);
                self.next = (self.next + 1) % MAX_TOPICS;
            }
        }
        found.is_some()
    }

    fn exchange(&mut self, at: usize, current: &mut CheckedTopic) {
        if let (Some(topic), Some(hash)) = (self.topics.get_mut(at), self.hashes.get_mut(at)) {
            *hash = hash_of(current);
            std::mem::swap(topic, current);
        }
    }
}

fn hash(name: &[u8]) -> u32 {
    FixedState::default().hash_one(name) as u32
}

fn hash_of(topic: &CheckedTopic) -> u32 {
    hash(topic.name().as_bytes())
}
