//! Subscriptions, retained messages and sessions without a connection.

use bytes::Bytes;

/// Numbers for metrics and status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Open network connections.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages waiting for subscribers.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
}

/// What all connections share.
#[derive(Debug)]
pub struct Broker {}

impl Broker {
    /// Whether a message on any topic that begins with `prefix` (ending in `/`) could have a subscriber.
    pub fn may_have_subscribers(&self, _prefix: &str) -> bool {
        todo!()
    }
    /// Delivers a message of weir's own to all matching subscribers; never blocks.
    pub fn publish(&self, _topic: &str, _payload: Bytes, _qos: u8, _retain: bool) {
        todo!()
    }
    /// Numbers for metrics and status.
    pub fn stats(&self) -> BrokerStats {
        todo!()
    }
}
