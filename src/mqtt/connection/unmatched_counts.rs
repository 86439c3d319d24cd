//! Publishes of one connection on topics that are no ingest topics, before they are noted for all connections.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::protocol_context::ProtocolContext;
use crate::mqtt::broker::unmatched::{MAX_TOPIC_BYTES, UnmatchedRun};
use crate::mqtt::wire::topic_suggestion::PayloadLook;

/// Topics that are counted at the same time. A publish on a further one lets the others be noted. They take 4 KiB at most.
const MAX_TOPICS: usize = 16;
/// Payloads that are looked at in each [`LOOK_INTERVAL`], at most.
const MAX_LOOKS: usize = 16;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Payloads of more bytes are not looked at.
const LOOKED_AT_BYTES: usize = 4_096;

/// Counts of publishes by topic. They are noted for all connections at the end of each read, so that a client which publishes on
/// several topics in turn costs one lock for all of them.
#[derive(Debug, Default)]
pub(super) struct UnmatchedCounts {
    topics: Vec<TopicCount>,
    /// Payloads that were looked at since the interval began that ends at `looks_end`.
    looks: usize,
    looks_end: Option<Instant>,
}

/// Publishes on one topic.
#[derive(Debug)]
struct TopicCount {
    topic: String,
    run: UnmatchedRun,
    /// Whether a payload was looked at in this interval, or one looks like readings.
    is_looked_at: bool,
}

impl UnmatchedCounts {
    /// A read begins.
    #[inline]
    pub fn begin_read(&mut self, now: Instant) {
        if self.looks_end.is_none_or(|end| now >= end) {
            (self.looks, self.looks_end) = (0, Some(now + LOOK_INTERVAL));
            self.topics.iter_mut().for_each(|count| count.is_looked_at = count.run.look == PayloadLook::Readings);
        }
    }

    /// The place of `topic`, for [`UnmatchedCounts::count`]; `None`: the topic is not listed. A place holds until the next call.
    pub fn place(&mut self, topic: &str, context: &impl ProtocolContext) -> Option<usize> {
        // Topics that begin with `$` are not meant for readings.
        if topic.len() > MAX_TOPIC_BYTES || topic.starts_with('$') {
            return None;
        }
        if let Some(place) = self.topics.iter().position(|count| count.topic == topic) {
            return Some(place);
        }
        if self.topics.len() >= MAX_TOPICS {
            self.note(context);
            self.topics.clear();
        }
        self.topics.push(TopicCount { topic: topic.to_owned(), run: UnmatchedRun::default(), is_looked_at: false });
        Some(self.topics.len() - 1)
    }

    /// Counts a publish on the topic at this place. One payload of each topic is looked at in each interval, until one looks
    /// like readings.
    #[inline]
    pub fn count(&mut self, place: usize, payload: &[u8], has_subscribers: bool) {
        let Some(TopicCount { run, is_looked_at, .. }) = self.topics.get_mut(place) else { return };
        if !*is_looked_at && self.looks < MAX_LOOKS {
            self.looks += 1;
            *is_looked_at = true;
            run.look = run.look.max(look(payload));
        }
        run.count += 1;
        run.payload_bytes = payload.len();
        run.has_subscribers = has_subscribers;
    }

    /// Notes the publishes that were counted since the last call.
    #[inline]
    pub fn note(&mut self, context: &impl ProtocolContext) {
        let counted = |count: &&TopicCount| count.run.count > 0;
        if self.topics.iter().any(|count| counted(&count)) {
            let runs = self.topics.iter().filter(counted).map(|count| (count.topic.as_str(), count.run));
            context.note_unmatched(&mut { runs });
            self.topics.iter_mut().for_each(|count| count.run.count = 0);
        }
    }
}

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

/// What the payload looks like.
fn look(payload: &[u8]) -> PayloadLook {
    if payload.len() > LOOKED_AT_BYTES {
        return PayloadLook::Unknown;
    }
    if looks_like_readings(payload) {
        return PayloadLook::Readings;
    }
    let is_number = |text: &str| text.trim().parse::<f64>().is_ok_and(f64::is_finite);
    let is_document = || serde_json::from_slice::<IgnoredAny>(payload).is_ok();
    let is_mappable = match payload.trim_ascii() {
        [b'{' | b'[', _, _, ..] => is_document(),
        text => std::str::from_utf8(text).is_ok_and(is_number),
    };
    if is_mappable { PayloadLook::Mappable } else { PayloadLook::Unknown }
}

/// Whether the payload is a reading, or a list that begins with one.
fn looks_like_readings(payload: &[u8]) -> bool {
    // The parser would take a list for an object too.
    match payload.trim_ascii_start() {
        [b'{', ..] => serde_json::from_slice::<ReadingFields>(payload).is_ok_and(|fields| fields.are_complete()),
        [b'[', rest @ ..] if rest.trim_ascii_start().starts_with(b"{") => {
            let all = serde_json::from_slice::<Vec<ReadingFields>>(payload).unwrap_or_default();
            all.first().is_some_and(ReadingFields::are_complete)
        }
        _ => false,
    }
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
        for payload in ["[1,2,3]", "[255, 0, 0]", "[[1,2,3]]", " [ [1,2,3],{} ]", "[1,2]", r#"[null,{"metrics":{}}]"#] {
            assert!(!looks_like_readings(payload.as_bytes()), "{payload}");
        }
        for payload in ["", "21.5", "[]", "{}", r#"{"metric":"t"}"#, r#"{"value":1}"#, "{\"metrics\":", "\u{7}{"] {
            assert!(!looks_like_readings(payload.as_bytes()), "{payload}");
        }
    }

    #[test]
    fn what_a_map_may_take_is_known_by_its_form() {
        for payload in ["21.5", " 7\n", r#"{"temp":21.5}"#, r#"[{"v":1}]"#, "[1,2]"] {
            assert_eq!(look(payload.as_bytes()), PayloadLook::Mappable, "{payload}");
        }
        assert_eq!(look(br#"{"metrics":{"t":1}}"#), PayloadLook::Readings);
        let long = format!(r#"{{"metrics":{{}},"x":"{}"}}"#, "x".repeat(LOOKED_AT_BYTES));
        for payload in ["", "ON", "nan", "{}", "[]", "{\"a\":", &long] {
            assert_eq!(look(payload.as_bytes()), PayloadLook::Unknown, "{payload}");
        }
    }
}
