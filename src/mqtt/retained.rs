//! Retained messages, MQTT 5.0 section 3.3.1.3.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::delivery::Message;
use super::topic;

/// Retained messages at most.
pub(crate) const MAX_MESSAGES: usize = 10_000;
/// Their bytes at most.
pub(crate) const MAX_BYTES: usize = 32 * 1024 * 1024;

/// The newest retained message of each topic, within the two bounds.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    messages: BTreeMap<Box<str>, Arc<Message>>,
    bytes: usize,
}

impl Retained {
    /// Keeps `message` as its topic's retained one; an empty payload removes it [MQTT-3.3.1-6]. `false`: a bound is
    /// reached, and the topic keeps what it had.
    pub fn set(&mut self, message: &Arc<Message>) -> bool {
        let old_bytes = self.messages.get(&*message.topic).map(|old| old.bytes());
        if message.payload.is_empty() {
            self.messages.remove(&*message.topic);
            self.bytes -= old_bytes.unwrap_or(0);
            return true;
        }
        let bytes = self.bytes - old_bytes.unwrap_or(0) + message.bytes();
        if bytes > MAX_BYTES || (old_bytes.is_none() && self.messages.len() >= MAX_MESSAGES) {
            return false;
        }
        self.bytes = bytes;
        self.messages.insert(message.topic.clone(), Arc::clone(message));
        true
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// The messages on topics that match `filter`, by topic.
    pub fn matching(&self, filter: &str) -> Vec<Arc<Message>> {
        let Some(wildcard) = filter.find(['+', '#']) else {
            return self.messages.get(filter).cloned().into_iter().collect();
        };
        // "a/#" matches "a" too, so the slash before the wildcard is not part of the common beginning.
        let prefix = filter[..wildcard].strip_suffix('/').unwrap_or(&filter[..wildcard]);
        self.messages
            .range::<str, _>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(|(name, _)| name.starts_with(prefix))
            .filter(|(name, _)| topic::matches(filter, name))
            .map(|(_, message)| Arc::clone(message))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &'static [u8]) -> Arc<Message> {
        Arc::new(Message::new(topic, payload.into(), 1, true))
    }

    fn check(retained: &Retained, filter: &str, expected: &[&str]) {
        let topics: Vec<_> = retained.matching(filter).iter().map(|message| message.topic.to_string()).collect();
        assert_eq!(topics, expected, "{filter}");
    }

    #[test]
    fn filters_find_their_messages() {
        let mut retained = Retained::default();
        for topic in ["a", "a/b", "a/b/c", "ab", "$SYS/x", "b"] {
            assert!(retained.set(&message(topic, b"x")));
        }
        check(&retained, "a/#", &["a", "a/b", "a/b/c"]);
        check(&retained, "a/+", &["a/b"]);
        check(&retained, "a/+/c", &["a/b/c"]);
        check(&retained, "#", &["a", "a/b", "a/b/c", "ab", "b"]);
        check(&retained, "$SYS/#", &["$SYS/x"]);
        check(&retained, "ab", &["ab"]);
        check(&retained, "+", &["a", "ab", "b"]);
    }

    #[test]
    fn an_empty_payload_removes() {
        let mut retained = Retained::default();
        retained.set(&message("a", b"12345"));
        retained.set(&message("a", b"1"));
        assert_eq!((retained.len(), retained.bytes), (1, message("a", b"1").bytes()));
        retained.set(&message("a", b""));
        assert_eq!((retained.len(), retained.bytes), (0, 0));
    }

    #[test]
    fn the_bounds_hold_and_known_topics_still_change() {
        let mut retained = Retained::default();
        for index in 0..MAX_MESSAGES {
            assert!(retained.set(&message(&format!("t/{index}"), b"x")));
        }
        assert!(!retained.set(&message("one/more", b"x")));
        assert!(retained.set(&message("t/0", b"yy")));
        assert_eq!(retained.len(), MAX_MESSAGES);
        let large = Arc::new(Message::new("t/1", vec![0; MAX_BYTES].into(), 0, true));
        assert!(!retained.set(&large));
        assert_eq!(&retained.matching("t/1")[0].payload[..], b"x");
    }
}
