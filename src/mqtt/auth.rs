//! Who may connect. Only a place so far: anonymous clients are accepted, and so is every user name.

use super::codec::Connect;
use super::peer::Peer;

/// Why a client may not connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Return code 5 of 3.1.1, reason code 0x87 of 5.0.
    NotAuthorized,
    /// Reason code 0x8C of 5.0: no enhanced authentication is offered.
    Method,
}

/// Whether the client may connect. `allow_anonymous`: without credentials. There is nothing to check credentials
/// against yet, so none are accepted where anonymous clients are not.
///
/// A client that showed a certificate has shown who it is: no password is asked.
pub(crate) fn authenticate(connect: &Connect, peer: &Peer, allow_anonymous: bool) -> Result<(), Denied> {
    if connect.enhanced_auth {
        return Err(Denied::Method);
    }
    if allow_anonymous || peer.certificate_user.is_some() { Ok(()) } else { Err(Denied::NotAuthorized) }
}
