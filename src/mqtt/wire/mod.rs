//! MQTT on the wire: frames, properties, packets and topics as bytes.
//!
//! Nothing here knows a socket, a session or the broker.

pub(super) mod close;
pub(super) mod codec;
pub(super) mod fields;
pub(super) mod frame;
pub(super) mod properties;
pub(super) mod refusal;
pub(super) mod topic;
pub(super) mod topic_suggestion;
pub(super) mod version;
