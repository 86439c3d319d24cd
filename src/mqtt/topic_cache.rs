//! What is known of the topic that a connection published on last.

use super::close::Close;
use super::session::Surroundings;
use super::topic;

/// The checked topic of the last publish and what follows from it. Devices publish on one topic, so nearly every
/// publish is a comparison of bytes and nothing more.
#[derive(Debug, Default)]
pub(crate) struct TopicCache {
    /// Empty before the first publish; no publish has an empty topic.
    topic: String,
    /// Version of the subscriptions that `subscribers` holds for.
    version: Option<u64>,
    /// Whether publishes there are journaled.
    pub ingest: bool,
    /// Whether clients may not publish there.
    pub reserved: bool,
    /// Whether there is a subscriber.
    pub subscribers: bool,
    /// Whether the last publish encoded in the current append has this topic.
    pub encoded: bool,
}

impl TopicCache {
    /// Makes `topic` the current one.
    #[inline]
    pub fn select(&mut self, topic: &[u8], around: &impl Surroundings) -> Result<(), Close> {
        if self.topic.as_bytes() == topic && self.version == Some(around.subscriptions_version()) {
            return Ok(());
        }
        self.replace(topic, around)
    }

    #[cold]
    fn replace(&mut self, topic: &[u8], around: &impl Surroundings) -> Result<(), Close> {
        if self.topic.is_empty() || self.topic.as_bytes() != topic {
            let name = topic::plain_text(topic).ok_or(Close::Malformed)?;
            if name.is_empty() || !topic::is_shallow(name) {
                return Err(Close::Malformed); // [MQTT-4.7.3-1]
            }
            if !topic::is_valid_name(name) || !around.allows_levels(name) {
                return Err(Close::TopicName);
            }
            self.topic.clear();
            self.topic.push_str(name);
            self.ingest = around.is_ingest(name);
            self.reserved = topic::is_reserved(name);
            self.encoded = false;
        }
        // The version first: a subscription in between is then looked up once more, not missed.
        self.version = Some(around.subscriptions_version());
        self.subscribers = around.has_subscribers(&self.topic);
        Ok(())
    }

    /// The current topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}
