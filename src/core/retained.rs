//! Retained messages that come again when a client connects: state, and no new readings.
//!
//! The connection compares a message with what is retained on its topic and marks its record. The mark alone is not enough:
//! retained messages are stored apart from the journal, and after a power cut the store may hold a message that the journal
//! does not. So each device remembers its last retained messages from their records, and only what is remembered is passed over.

use crate::core::batch::{BatchContext, ReadingOrigin};
use crate::core::codec::{DecodeError, FieldReader, put_u64};
use crate::core::decode::{DecodedMessage, MessageElement};
use crate::core::device::Slot;
use crate::core::hash::xxh64;
use crate::core::operator::Operator;
use crate::core::record::PublishRecord;
use crate::core::validate;
use crate::defects::{self, Defect};

/// Topics of a device whose last retained message is remembered. They take 1 KiB.
const MAX_TOPICS: usize = 64;

/// The last retained message of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RetainedDigest {
    /// Digest of the topic.
    topic: u64,
    /// Digest of the payload.
    payload: u64,
}

impl RetainedDigest {
    fn of(publish: &PublishRecord<'_>) -> Self {
        Self { topic: xxh64(publish.topic.as_bytes(), 0), payload: xxh64(publish.payload, 0) }
    }
}

/// The last retained messages of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RetainedHistory {
    /// Number of messages that repeated what was retained.
    pub repeats: u64,
    /// The last message of each topic.
    topics: Vec<RetainedDigest>,
}

impl RetainedHistory {
    /// Remembers a message. Returns whether another topic was forgotten: one that the digest of the topic chooses. A bridge sends
    /// what it holds in the same order each time. If the oldest topic gave way, one topic too many would let each be forgotten
    /// just before it comes again.
    fn remember(&mut self, message: RetainedDigest) -> bool {
        if let Some(known) = self.topics.iter_mut().find(|known| known.topic == message.topic) {
            *known = message;
            return false;
        }
        if self.topics.len() >= MAX_TOPICS {
            let chosen = message.topic as usize % MAX_TOPICS;
            self.topics.get_mut(chosen).into_iter().for_each(|known| *known = message);
            return true;
        }
        self.topics.reserve_exact(1);
        self.topics.push(message);
        false
    }

    fn forget(&mut self, topic: u64) {
        self.topics.retain(|other| other.topic != topic);
    }

    fn has(&self, message: RetainedDigest) -> bool {
        self.topics.contains(&message)
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(self.repeats, out);
        put_u64(self.topics.len() as u64, out);
        for RetainedDigest { topic, payload } in &self.topics {
            out.extend_from_slice(&topic.to_le_bytes());
            out.extend_from_slice(&payload.to_le_bytes());
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut history = Self { repeats: reader.u64()?, topics: Vec::new() };
        let count = reader.count()?;
        if count > MAX_TOPICS {
            return Err(DecodeError::Content("too many retained messages"));
        }
        history.topics.reserve_exact(count);
        for _ in 0..count {
            history.topics.push(RetainedDigest { topic: reader.u64_le()?, payload: reader.u64_le()? });
        }
        Ok(history)
    }
}

impl Operator {
    /// Whether the message repeats a retained message of its device that the journal holds. Its readings were then processed
    /// before, and it is only counted.
    pub(super) fn repeats_retained(
        &mut self,
        batch: &BatchContext<'_>,
        origin: &ReadingOrigin<'_>,
        message: Option<&DecodedMessage<'_>>,
    ) -> bool {
        if !origin.publish.repeats_retained || defects::is(Defect::CountRetainedRepeats) {
            return false;
        }
        let digest = RetainedDigest::of(origin.publish);
        let Some(slot) = self.device_of_message(batch, message) else { return false };
        let known = self.devices[slot].rare.retained.as_ref().is_some_and(|history| history.has(digest));
        if !known && !defects::is(Defect::TrustRetainedMark) {
            return false;
        }
        self.about_to_change(self.devices[slot].group);
        self.totals.retained_repeats += 1;
        let history = self.devices[slot].rare.fields_mut().retained.get_or_insert_default();
        history.repeats += 1;
        let forgotten = history.remember(digest);
        self.totals.retained_topics_forgotten += u64::from(forgotten);
        true
    }

    /// Remembers a message with the RETAIN flag that was processed. One without a payload removes what is retained.
    pub(super) fn remember_retained(
        &mut self,
        batch: &BatchContext<'_>,
        origin: &ReadingOrigin<'_>,
        message: Option<&DecodedMessage<'_>>,
    ) {
        let Some(slot) = self.device_of_message(batch, message) else { return };
        self.about_to_change(self.devices[slot].group);
        let digest = RetainedDigest::of(origin.publish);
        let rare = &mut self.devices[slot].rare;
        if !origin.publish.payload.is_empty() {
            let forgotten = rare.fields_mut().retained.get_or_insert_default().remember(digest);
            self.totals.retained_topics_forgotten += u64::from(forgotten);
        } else if let Some(history) = rare.existing_mut().and_then(|rare| rare.retained.as_mut()) {
            history.forget(digest.topic);
        }
    }

    /// State of the device that the topic or the client names, else of the device in the first element of the message.
    fn device_of_message(&mut self, batch: &BatchContext<'_>, message: Option<&DecodedMessage<'_>>) -> Option<Slot> {
        let named = |message: &'_ DecodedMessage<'_>| {
            let first = message.elements.iter().find_map(|element| match element {
                MessageElement::Object(fields) => Some(fields),
                MessageElement::Other(_) => None,
            });
            let fields = message.single().or(first)?;
            validate::device_id_field(&fields.device_id).ok()?.map(str::to_owned)
        };
        match batch.topic_device {
            Some(id) => self.find_device(batch.tenant, id),
            None => self.find_device(batch.tenant, &message.and_then(named)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_of_each_topic_is_remembered() {
        let mut history = RetainedHistory::default();
        let message = |topic, payload| RetainedDigest { topic, payload };
        for topic in 0..MAX_TOPICS as u64 {
            assert!(!history.remember(message(topic, 1)));
        }
        assert!(!history.remember(message(0, 2)) && history.has(message(1, 1)));
        assert!(history.remember(message(100, 1)));
        let known = |topic, payload| history.has(message(topic, payload));
        assert_eq!([known(0, 1), known(0, 2), known(36, 1), known(100, 1)], [false, true, false, true]);
        history.repeats = 300;
        let mut bytes = Vec::new();
        history.encode(&mut bytes);
        assert_eq!(RetainedHistory::decode(&mut FieldReader::new(&bytes)).as_ref(), Ok(&history));
        for len in 0..bytes.len() {
            assert!(RetainedHistory::decode(&mut FieldReader::new(&bytes[..len])).is_err(), "prefix of {len} bytes");
        }
        history.forget(100);
        assert!(!history.has(message(100, 1)));
    }

    #[test]
    fn one_topic_too_many_does_not_let_all_be_forgotten() {
        let mut history = RetainedHistory::default();
        let topic = |number: usize| xxh64(format!("site/{number}/telemetry").as_bytes(), 0);
        let messages: Vec<_> =
            (0..MAX_TOPICS + 8).map(|number| RetainedDigest { topic: topic(number), payload: 1 }).collect();
        let mut known = 0;
        for _ in 0..10 {
            for message in &messages {
                known += usize::from(history.has(*message));
                history.remember(*message);
            }
        }
        assert!(known > 5 * messages.len(), "{known} of {}", 9 * messages.len());
    }
}
