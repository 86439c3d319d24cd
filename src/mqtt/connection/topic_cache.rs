//! What is known of the topic that a connection published on last.

use std::sync::Arc;

use super::protocol_context::ProtocolContext;
use super::publish_decision::PublishDecision;
use crate::config::OnDeniedPublish;
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::topic;

/// Why publishes on a topic are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishRefusal {
    /// Only weir publishes there.
    Reserved,
    /// The access rules deny it; what becomes of it under 3.1.1.
    Denied(OnDeniedPublish),
}

/// The checked topic of the last publish and what follows from it. Devices publish on one topic, so nearly every
/// publish is a comparison of bytes and nothing more.
#[derive(Debug, Default)]
pub(crate) struct TopicCache {
    /// Empty before the first publish; no publish has an empty topic.
    topic: String,
    /// Version of subscriptions and access rules that `subscribers`, `refused` and `own_device` hold for.
    version: Option<u64>,
    /// Whether publishes there are journaled.
    pub ingest: bool,
    /// Why this client may not publish there.
    pub refused: Option<PublishRefusal>,
    /// The only device that it may speak for there.
    pub own_device: Option<Arc<str>>,
    /// Whether there is a subscriber.
    pub subscribers: bool,
    /// Whether the last publish encoded in the current append has this topic.
    pub encoded: bool,
}

impl TopicCache {
    /// Makes `topic` the current one.
    #[inline]
    pub fn select(&mut self, topic: &[u8], context: &impl ProtocolContext) -> Result<(), CloseReason> {
        if self.topic.as_bytes() == topic && self.version == Some(context.subscriptions_version()) {
            return Ok(());
        }
        self.replace(topic, context)
    }

    #[cold]
    fn replace(&mut self, topic: &[u8], context: &impl ProtocolContext) -> Result<(), CloseReason> {
        if self.topic.is_empty() || self.topic.as_bytes() != topic {
            let name = topic::plain_text(topic).ok_or(CloseReason::Malformed)?;
            if name.is_empty() || !topic::is_shallow(name) {
                return Err(CloseReason::Malformed); // [MQTT-4.7.3-1]
            }
            if !topic::is_valid_name(name) || !context.allows_levels(name) {
                return Err(CloseReason::TopicName);
            }
            self.topic.clear();
            self.topic.push_str(name);
            self.ingest = context.is_ingest(name);
            self.refused = None;
            self.encoded = false;
        }
        // The version first: what changes in between is then looked up once more, not missed.
        self.version = Some(context.subscriptions_version());
        self.subscribers = context.has_subscribers(&self.topic);
        self.judge(context)
    }

    fn judge(&mut self, context: &impl ProtocolContext) -> Result<(), CloseReason> {
        let (refused, own_device) = if topic::is_reserved(&self.topic) {
            (Some(PublishRefusal::Reserved), None)
        } else {
            match context.decide_publish(&self.topic)? {
                PublishDecision::Allowed { own_device } => (None, own_device),
                PublishDecision::Denied(action) => (Some(PublishRefusal::Denied(action)), None),
            }
        };
        if matches!(refused, Some(PublishRefusal::Denied(_))) && refused != self.refused {
            context.note_denied(&self.topic);
        }
        if own_device != self.own_device {
            self.encoded = false;
        }
        (self.refused, self.own_device) = (refused, own_device);
        Ok(())
    }

    /// The current topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}
