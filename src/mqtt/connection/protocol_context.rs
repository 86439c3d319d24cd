//! The interface between the protocol of a connection and everything outside of it.

use super::publish_decision::PublishDecision;
use crate::mqtt::wire::close::CloseReason;

/// Questions of a [`Protocol`](super::protocol::Protocol) about everything outside of it: topics, access rules, subscriptions, its session.
pub(crate) trait ProtocolContext {
    /// Whether publishes on `topic` are journaled.
    fn is_ingest(&self, topic: &str) -> bool;
    /// What the access rules say of a publish on `topic`; an error where the client may no longer publish anything.
    fn decide_publish(&self, topic: &str) -> Result<PublishDecision, CloseReason>;
    /// A publish on `topic` came and is denied: said once as long as the topic and the answer stay.
    fn note_denied(&self, topic: &str);
    /// Whether `topic` has as many levels as it may.
    fn allows_levels(&self, topic: &str) -> bool;
    /// Changes whenever an answer of `has_subscribers` or `decide_publish` may change.
    fn subscriptions_version(&self) -> u64;
    /// Whether a message on `topic` has a subscriber.
    fn has_subscribers(&self, topic: &str) -> bool;
    /// Whether a QoS 2 publish with this packet id was taken before and not released.
    fn holds(&self, packet_id: u16) -> bool;
}
