//! The interface between the protocol of a connection and everything outside of it.

use super::publish_decision::PublishDecision;
use crate::mqtt::broker::unmatched::UnmatchedRun;
use crate::mqtt::wire::close::CloseReason;

/// Answers the questions of a [`Protocol`](super::protocol::Protocol) about everything outside of it: topics, access
/// rules, subscriptions and its session.
pub(crate) trait ProtocolContext {
    /// Whether publishes on `topic` are journaled.
    fn is_ingest(&self, topic: &str) -> bool;
    /// Index of the map that says that messages on `topic`, which is no ingest topic, carry nothing that counts.
    fn ignoring_map(&self, topic: &str) -> Option<u16>;
    /// Whether only weir may publish on `topic`.
    fn is_reserved(&self, topic: &str) -> bool;
    /// Decides whether the access rules let the client publish on `topic`.
    ///
    /// # Errors
    /// The client may no longer publish anything: the session was taken from this connection.
    fn decide_publish(&self, topic: &str) -> Result<PublishDecision, CloseReason>;
    /// Whether the client may ask for a response on `topic`.
    ///
    /// # Errors
    /// The session was taken from this connection.
    fn may_request_response_on(&self, topic: &str) -> Result<bool, CloseReason>;
    /// Reports that a publish on `topic` was denied. The protocol calls this once, as long as the topic and the
    /// decision stay the same.
    fn note_denied(&self, topic: &str);
    /// Notes publishes on topics that are no ingest topics.
    fn note_unmatched(&self, runs: &mut dyn Iterator<Item = (&str, UnmatchedRun)>);
    /// Notes this number of publishes on topics that the map with this index ignores.
    fn note_ignored(&self, map: u16, count: u64);
    /// Shows a message on a topic that is no ingest topic to those who watch what maps do; `ignoring` is the map that ignores it.
    fn show_unjournaled(&self, topic: &str, payload: &[u8], ignoring: Option<u16>);
    /// Whether `topic` has no more levels than `mqtt.max_topic_levels` allows.
    fn allows_levels(&self, topic: &str) -> bool;
    /// Version of the subscriptions and access rules. It changes whenever an answer of `has_subscribers` or
    /// `decide_publish` may change.
    fn subscriptions_version(&self) -> u64;
    /// Whether a message on `topic` has a subscriber.
    fn has_subscribers(&self, topic: &str) -> bool;
    /// Whether a message with this payload is retained on `topic`.
    fn is_retained(&self, topic: &str, payload: &[u8]) -> bool;
    /// Whether a QoS 2 publish with this packet identifier was taken before and is not released.
    fn holds(&self, packet_id: u16) -> bool;
}
