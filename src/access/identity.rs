//! The identity of an MQTT client after its login.

use std::net::IpAddr;
use std::sync::Arc;

use super::stored_password::StoredPassword;
use crate::tls::CertificateId;

/// User and roles of an MQTT client. Its permissions follow from these and its client identifier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name, proved by a password or a certificate. `None`: the client is anonymous.
    pub user: Option<Arc<str>>,
    /// Names of the client's roles, in the order of the users file; never empty after a login.
    pub roles: Arc<[Box<str>]>,
}

/// How a client proved its user name. It is kept, so that a later policy can judge whether the proof still holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proof {
    /// No proof: the client is anonymous.
    #[default]
    None,
    /// A password. The hash that it matched tells later whether the user's password was changed.
    Password(StoredPassword),
    /// A certificate that the listener has verified. `None`: the session was stored without the certificate's id.
    Certificate(Option<CertificateId>),
}

/// A successful login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// User and roles of the client.
    pub identity: Identity,
    /// How the client proved its user name.
    pub proof: Proof,
    /// Address of the client; `None` where the stream has none.
    pub address: Option<IpAddr>,
    /// [`Access::version`](super::Access::version) of the policy that the login was judged by.
    pub version: u64,
}
