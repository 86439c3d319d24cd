//! A message on its way to subscribers, and the account of the bytes that sessions hold.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

/// A message on its way to subscribers. All of its subscribers share one copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub topic: Box<str>,
    pub payload: Bytes,
    /// Encoded MQTT 5.0 properties, without topic alias and message expiry interval: both differ by subscriber.
    pub properties: Bytes,
    pub qos: u8,
    /// RETAIN flag of the publish.
    pub retain: bool,
    /// Number of the session that published the message; 0 for weir.
    pub publisher: u64,
    /// Time from which the message is delivered to no further subscriber [MQTT-3.3.2-5]; `None`: it does not expire.
    pub expires: Option<Instant>,
    /// Counts the bytes of the message while a session holds it.
    pub held: HeldBytes,
}

/// Adds the bytes of a message to a sum when the first session holds the message, and subtracts them when the last one
/// drops it. A clone counts nothing until [`Message::count_in`].
#[derive(Debug, Default)]
pub(crate) struct HeldBytes(OnceLock<CountedBytes>);

#[derive(Debug)]
struct CountedBytes {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for CountedBytes {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Clone for HeldBytes {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for HeldBytes {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for HeldBytes {}

impl Message {
    /// Makes a message that weir publishes: no properties, no expiry.
    pub fn new(topic: &str, payload: Bytes, qos: u8, retain: bool) -> Self {
        let (topic, properties, held) = (topic.into(), Bytes::new(), HeldBytes::default());
        Self { topic, payload, properties, qos, retain, publisher: 0, expires: None, held }
    }

    /// Counts the message in `total` until it is dropped.
    pub fn count_in(&self, total: &Arc<AtomicUsize>) {
        self.held.0.get_or_init(|| {
            let bytes = self.bytes();
            total.fetch_add(bytes, Ordering::Relaxed);
            CountedBytes { total: Arc::clone(total), bytes }
        });
    }

    /// Whether the message has expired.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Bytes that the message counts for in bounds of queues.
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_once_until_nobody_holds_it() {
        let total = Arc::default();
        let count = || total_of(&total);
        let message = Arc::new(Message::new("t", "xyz".into(), 1, false));
        assert_eq!(count(), 0, "nobody holds it");
        let other = Arc::clone(&message);
        message.count_in(&total);
        other.count_in(&total);
        let copy = Message::clone(&message);
        assert_eq!(count(), 4);
        drop(message);
        assert_eq!(count(), 4, "one still does");
        drop(other);
        assert_eq!(count(), 0);
        drop(copy);
        assert_eq!(count(), 0, "a copy was not counted");
    }

    fn total_of(total: &Arc<AtomicUsize>) -> usize {
        total.load(Ordering::Relaxed)
    }
}
