//! Cache of the topic that a connection published on last, and of the decisions about it.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::protocol_context::ProtocolContext;
use super::publish_decision::PublishDecision;
use crate::config::OnDeniedPublish;
use crate::mqtt::broker::unmatched::UnmatchedRun;
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
    /// Reason why this client may not publish on the topic; `None`: it may.
    pub refused: Option<PublishRefusal>,
    /// The only device that the client may speak for on the topic; `None`: the topic names the device, or the client
    /// may speak for any device.
    pub own_device: Option<Arc<str>>,
    /// Whether the topic has a subscriber.
    pub subscribers: bool,
    /// Publishes on the topic that are not noted yet, where it is no ingest topic.
    unmatched: UnmatchedRun,
    /// Whether a payload on the topic was looked at.
    looked_at: bool,
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
            self.note_unmatched(context);
            self.topic.clear();
            self.topic.push_str(name);
            (self.unmatched, self.looked_at) = (UnmatchedRun::default(), false);
            self.ingest = context.is_ingest(name);
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

    /// Counts a publish on the topic, which is no ingest topic. Topics that begin with `$` are not meant for readings.
    #[inline]
    pub fn count_unmatched(&mut self, payload: &[u8]) {
        if self.topic.starts_with('$') {
            return;
        }
        self.unmatched.count += 1;
        self.unmatched.payload_bytes = payload.len();
        if !self.looked_at {
            self.looked_at = true;
            self.unmatched.looks_like_readings = looks_like_readings(payload);
        }
    }

    /// Notes the publishes that were counted since the last call.
    #[inline]
    pub fn note_unmatched(&mut self, context: &impl ProtocolContext) {
        if self.unmatched.count > 0 {
            let run = UnmatchedRun { has_subscribers: self.subscribers, ..self.unmatched };
            context.note_unmatched(&self.topic, run);
            self.unmatched.count = 0;
        }
    }

    /// Name of the current topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }
}

/// Payloads of more bytes are not looked at.
const LOOKED_AT_BYTES: usize = 4_096;

/// The fields that a reading has.
#[derive(Deserialize)]
struct ReadingFields {
    metric: Option<IgnoredAny>,
    value: Option<IgnoredAny>,
    metrics: Option<IgnoredAny>,
}

impl ReadingFields {
    fn are_complete(&self) -> bool {
        self.metrics.is_some() || self.metric.is_some() && self.value.is_some()
    }
}

/// Whether the payload is a reading, or a list that begins with one.
fn looks_like_readings(payload: &[u8]) -> bool {
    let is_json = matches!(payload.trim_ascii_start().first(), Some(b'{' | b'['));
    if !is_json || payload.len() > LOOKED_AT_BYTES {
        return false;
    }
    let single = || serde_json::from_slice::<ReadingFields>(payload).is_ok_and(|fields| fields.are_complete());
    let many = || serde_json::from_slice::<Vec<ReadingFields>>(payload).ok();
    single() || many().is_some_and(|all| all.first().is_some_and(ReadingFields::are_complete))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_known_by_their_fields() {
        for payload in
            [r#"{"metric":"t","value":1}"#, r#" {"metrics":{"t":1},"x":[]}"#, r#"[{"metric":"t","value":1},{}]"#]
        {
            assert!(looks_like_readings(payload.as_bytes()), "{payload}");
        }
        let long = format!(r#"{{"metrics":{{}},"x":"{}"}}"#, "x".repeat(LOOKED_AT_BYTES));
        for payload in ["", "21.5", "[]", "{}", r#"{"metric":"t"}"#, r#"{"value":1}"#, "{\"metrics\":", &long, "\u{7}{"]
        {
            assert!(!looks_like_readings(payload.as_bytes()), "{payload}");
        }
    }
}
