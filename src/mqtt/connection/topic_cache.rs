//! Cache of the topics that a connection published on last, and of the decisions about them.

use std::sync::Arc;

use super::other_topics::{MAX_NAME_BYTES, OtherTopics};
use super::protocol_context::ProtocolContext;
use super::publish_decision::PublishDecision;
use super::unmatched_counts::UnmatchedCounts;
use crate::config::OnDeniedPublish;
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::topic;

/// Reason why publishes on a topic are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishRefusal {
    /// Only weir may publish on the topic.
    Reserved,
    /// The access rules deny the publish. The value says what happens to it under MQTT 3.1.1.
    Denied(OnDeniedPublish),
}

/// A checked topic, with the decisions that follow from it.
#[derive(Debug, Default)]
pub(crate) struct CheckedTopic {
    /// Name of the topic. It is empty before the first publish, since no publish has an empty topic.
    name: String,
    /// Version of the subscriptions and access rules for which `subscribers`, `refused` and `own_device` hold.
    version: Option<u64>,
    /// Whether publishes on the topic are journaled.
    pub ingest: bool,
    /// The map that says that publishes on the topic carry nothing that counts.
    ignoring_map: Option<u16>,
    /// Reason why this client may not publish on the topic; `None`: it may.
    pub refused: Option<PublishRefusal>,
    /// The only device that the client may speak for on the topic; `None`: the topic names the device, or the client
    /// may speak for any device.
    pub own_device: Option<Arc<str>>,
    /// Whether the topic has a subscriber.
    pub subscribers: bool,
}

impl CheckedTopic {
    /// Name of the topic.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a map says that publishes on the topic carry nothing that counts.
    pub fn is_ignored(&self) -> bool {
        self.ignoring_map.is_some()
    }
}

/// The topic of the last publish, and those of some before. A device publishes on one topic or on a few in turn, so for nearly
/// every publish the cache compares bytes and does nothing more.
#[derive(Debug, Default)]
pub(crate) struct TopicCache {
    /// The topic of the last publish.
    pub current: CheckedTopic,
    others: OtherTopics,
    /// Publishes on the current topic, which a map ignores, that are not noted yet.
    ignored: u64,
    /// Publishes on topics that are no ingest topics.
    pub unmatched: UnmatchedCounts,
    /// Place of the topic in `unmatched`, if it is no ingest topic.
    unmatched_place: Option<usize>,
    /// Whether the last publish record of the current append has this topic and `own_device`. The next record can then
    /// leave them out.
    pub encoded: bool,
}

impl TopicCache {
    /// Makes `topic` the current topic. The topic is checked again only if it or the version of subscriptions and
    /// access rules changed.
    ///
    /// # Errors
    /// The topic name is not valid or has too many levels, or the client may no longer publish anything.
    #[inline]
    pub fn select(&mut self, topic: &[u8], context: &impl ProtocolContext) -> Result<(), CloseReason> {
        if self.current.name.as_bytes() == topic && self.current.version == Some(context.subscriptions_version()) {
            return Ok(());
        }
        self.replace(topic, context)
    }

    #[inline(never)]
    fn replace(&mut self, topic: &[u8], context: &impl ProtocolContext) -> Result<(), CloseReason> {
        if self.current.name.is_empty() || self.current.name.as_bytes() != topic {
            self.note_ignored(context);
            self.unmatched_place = None;
            self.encoded = false;
            if !self.others.take(topic, &mut self.current) {
                self.check(topic, context)?;
            }
        }
        // The version is read before the answers: a change in between is then looked up once more at the next publish,
        // and not missed.
        let version = Some(context.subscriptions_version());
        if self.current.version == version {
            return Ok(());
        }
        self.current.version = version;
        self.current.subscribers = context.has_subscribers(&self.current.name);
        self.judge(context)
    }

    /// Makes `topic` the current topic, which it was not lately.
    #[cold]
    fn check(&mut self, topic: &[u8], context: &impl ProtocolContext) -> Result<(), CloseReason> {
        let name = topic::plain_text(topic).ok_or(CloseReason::Malformed)?;
        if name.is_empty() || !topic::is_shallow(name) {
            return Err(CloseReason::Malformed); // [MQTT-4.7.3-1]
        }
        if !topic::is_valid_name(name) || !context.allows_levels(name) {
            return Err(CloseReason::TopicName);
        }
        let ingest = context.is_ingest(name);
        let mut buffer = std::mem::take(&mut self.current.name);
        buffer.clear();
        buffer.shrink_to(MAX_NAME_BYTES);
        buffer.push_str(name);
        self.current = CheckedTopic {
            name: buffer,
            ingest,
            ignoring_map: if ingest { None } else { context.ignoring_map(name) },
            ..CheckedTopic::default()
        };
        Ok(())
    }

    fn judge(&mut self, context: &impl ProtocolContext) -> Result<(), CloseReason> {
        let current = &mut self.current;
        let (refused, own_device) = if context.is_reserved(&current.name) {
            (Some(PublishRefusal::Reserved), None)
        } else {
            match context.decide_publish(&current.name)? {
                PublishDecision::Allowed { own_device } => (None, own_device),
                PublishDecision::Denied(action) => (Some(PublishRefusal::Denied(action)), None),
            }
        };
        if matches!(refused, Some(PublishRefusal::Denied(_))) && refused != current.refused {
            context.note_denied(&current.name);
        }
        if own_device != current.own_device {
            self.encoded = false;
        }
        (current.refused, current.own_device) = (refused, own_device);
        Ok(())
    }

    /// Notes the publishes on topics that are no ingest topics.
    #[inline]
    pub fn end_read(&mut self, context: &impl ProtocolContext) {
        self.unmatched.note(context);
        self.note_ignored(context);
    }

    #[inline]
    fn note_ignored(&mut self, context: &impl ProtocolContext) {
        if self.ignored > 0
            && let Some(map) = self.current.ignoring_map
        {
            context.note_ignored(map, std::mem::take(&mut self.ignored));
        }
    }

    /// Counts a publish on the topic, which is no ingest topic.
    #[inline]
    pub fn count_unmatched(&mut self, payload: &[u8], context: &impl ProtocolContext) {
        context.show_unjournaled(&self.current.name, payload, self.current.ignoring_map);
        if self.current.is_ignored() {
            self.ignored += 1;
            return;
        }
        if self.unmatched_place.is_none() {
            self.unmatched_place = self.unmatched.place(&self.current.name, context);
        }
        if let Some(place) = self.unmatched_place {
            self.unmatched.count(place, payload, self.current.subscribers);
        }
    }
}
