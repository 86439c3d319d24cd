//! A message as all of its subscribers share it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

/// A message on its way to subscribers; all of them share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub topic: Box<str>,
    pub payload: Bytes,
    /// Encoded properties of 5.0, without topic alias and message expiry interval.
    pub properties: Bytes,
    pub qos: u8,
    /// The RETAIN flag as it was published.
    pub retain: bool,
    /// Session that published it; 0: weir.
    pub publisher: u64,
    /// From then on it is delivered to nobody further [MQTT-3.3.2-5].
    pub expires: Option<Instant>,
    /// Counts it while sessions hold it.
    pub held: HeldBytes,
}

/// The bytes of a message in a sum over all messages that sessions hold: once however many hold it, until the last one
/// lets go. A copy of the message is another one, which nobody holds yet.
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
    /// A message of weir's own.
    pub fn new(topic: &str, payload: Bytes, qos: u8, retain: bool) -> Self {
        let (topic, properties, held) = (topic.into(), Bytes::new(), HeldBytes::default());
        Self { topic, payload, properties, qos, retain, publisher: 0, expires: None, held }
    }

    /// Sessions may hold it from now on: it counts in `total` until it is dropped.
    pub fn count_in(&self, total: &Arc<AtomicUsize>) {
        self.held.0.get_or_init(|| {
            let bytes = self.bytes();
            total.fetch_add(bytes, Ordering::Relaxed);
            CountedBytes { total: Arc::clone(total), bytes }
        });
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// What it counts for in bounds of bytes.
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
