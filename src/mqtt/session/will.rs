//! Wills: what is published for a client that went away without a word.

use std::sync::Arc;

use super::message::Message;
use crate::access::Login;

/// A checked will of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    /// What the broker knows it by, over restarts too: a later one's is higher. 0: the broker has not taken it.
    pub number: u64,
    /// The client that left it.
    pub client_id: Arc<str>,
    /// Who that is: the will is judged once more when it is published.
    pub login: Login,
    /// What is published; it expires only counted from then on.
    pub message: Message,
    /// Message expiry interval in seconds.
    pub expiry_s: Option<u32>,
    /// How long after the end of the connection it is published, unless the session ends before, in seconds.
    pub delay_s: u32,
}
