//! Wills: what is published for a client that went away without a word.

use std::sync::Arc;

use super::message::Message;

/// A checked will of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    /// The client that left it.
    pub client_id: Arc<str>,
    /// What is published; it expires only counted from then on.
    pub message: Message,
    /// Message expiry interval in seconds.
    pub expiry_s: Option<u32>,
    /// How long after the end of the connection it is published, unless the session ends before, in seconds.
    pub delay_s: u32,
}
