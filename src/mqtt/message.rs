//! A message as all of its subscribers share it.

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
}

impl Message {
    /// A message of weir's own.
    pub fn new(topic: &str, payload: Bytes, qos: u8, retain: bool) -> Self {
        Self { topic: topic.into(), payload, properties: Bytes::new(), qos, retain, publisher: 0, expires: None }
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
