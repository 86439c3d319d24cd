//! Will messages: published for a client whose connection ends without a DISCONNECT.

use std::sync::Arc;

use super::message::Message;
use crate::access::Login;

/// The will of a connection, checked at its CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    /// Number of the will, also across restarts; later wills have higher numbers. 0: not registered with the broker yet.
    pub number: u64,
    /// Client that the will belongs to.
    pub client_id: Arc<str>,
    /// Login of the client. The access rules are asked again when the will is published.
    pub login: Login,
    /// Message to publish. Its expiry counts from the moment of publishing.
    pub message: Message,
    /// Message expiry interval in seconds.
    pub expiry_s: Option<u32>,
    /// Will delay interval in seconds: the will is published that long after the end of the connection, or when the session
    /// ends, whichever comes first.
    pub delay_s: u32,
}
