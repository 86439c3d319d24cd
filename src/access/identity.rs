//! Who a client is, once it was let in.

use std::sync::Arc;

/// An MQTT client as the door knows it. What it may do follows from this and its client identifier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its user name, proved by a password or a certificate. `None`: it came without credentials.
    pub user: Option<Arc<str>>,
    /// Names of its roles, in the order of the users file; never empty for a client that was let in.
    pub roles: Arc<[Box<str>]>,
}
