//! Cache of the topic that a connection published on last, and of the decisions about it.

use std::sync::Arc;

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

/// The checked topic of the last publish, with the decisions that follow from it. A device publishes on one topic, so
/// for nearly every publish the cache compares bytes and does nothing more.
#[derive(Debug, Default)]
pub(crate) struct TopicCache {
    /// Name of the topic. It is empty before the first publish, since no publish has an empty topic.
    topic: String,
    /// Version of the subscriptions and access rules for which `subscribers`, `refused` and `own_device` hold.
    version: Option<u64>,
    /// Whether publishes on the topic are journaled.
    pub ingest: bool,
    /// The map that says that publishes on the topic carry nothing that counts.
    ignoring_map: Option<u16>,
    /// Publishes on the topic, which a map ignores, that are not noted yet.
    ignored: u64,
    /// Reason why this client may not publish on the topic; `None`: it may.
    pub refused: Option<PublishRefusal>,
    /// The only device that the client may speak for on the topic; `None`: the topic names the device, or the client
    /// may speak for any device.
    pub own_device: Option<Arc<str>>,
    /// Whether the topic has a subscriber.
    pub subscribers: bool,
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
            self.note_ignored(context);
            self.topic.clear();
            self.topic.push_str(name);
            self.ingest = context.is_ingest(name);
            self.ignoring_map = if self.ingest { None } else { context.ignoring_map(name) };
            self.unmatched_place = None;
            self.refused = None;
            self.encoded = false;
        }
        // The version is read before the answers: a change in between is then looked up once more at the next publish,
        // and not missed.
        self.version = Some(context.subscriptions_version());
        self.subscribers = context.has_subscribers(&self.topic);
        self.judge(context)
    }

    fn judge(&mut self, context: &impl ProtocolContext) -> Result<(), CloseReason> {
        let (refused, own_device) = if context.is_reserved(&self.topic) {
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

    /// Whether a map says that publishes on the topic carry nothing that counts.
    pub fn is_ignored(&self) -> bool {
        self.ignoring_map.is_some()
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
            && let Some(map) = self.ignoring_map
        {
            context.note_ignored(map, std::mem::take(&mut self.ignored));
        }
    }

    /// Counts a publish on the topic, which is no ingest topic.
    #[inline]
    pub fn count_unmatched(&mut self, payload: &[u8], context: &impl ProtocolContext) {
        context.show_unjournaled(&self.topic, payload, self.ignoring_map);
        if self.is_ignored() {
            self.ignored += 1;
            return;
        }
        if self.unmatched_place.is_none() {
            self.unmatched_place = self.unmatched.place(&self.topic, context);
        }
        if let Some(place) = self.unmatched_place {
            self.unmatched.count(place, payload, self.subscribers);
        }
    }

    /// Name of the current topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}
