//! Login: the credentials of a CONNECT, checked by [`Access`].

use super::handshake::ConnectRefusal;
use super::peer::Peer;
use crate::access::{Access, ClientCredentials, Login, LoginError, RefusedLogin};
use crate::mqtt::wire::codec::ConnectRequest;
use crate::mqtt::wire::refusal::RefusalReason;

use crate::telemetry::audit::AuditActor;

/// A client that may not log in.
pub(crate) struct DeniedLogin {
    /// The refusal with the CONNACK of the client's version.
    pub refusal: ConnectRefusal,
    /// The delay of the answer.
    pub refused: RefusedLogin,
}

/// Checks the credentials of a client and returns its login. `held_bytes` is the memory of the connection meanwhile.
///
/// # Errors
/// The client may not log in.
pub(crate) async fn authenticate(
    connect: &ConnectRequest,
    peer: &Peer,
    access: &Access,
    held_bytes: usize,
) -> Result<Login, Box<DeniedLogin>> {
    let version = connect.version;
    if connect.enhanced_auth {
        let who = AuditActor { client_id: Some(&connect.client_id), ..peer.who() };
        access.note_refusal(&who, RefusalReason::AuthenticationMethod.as_str(), "");
        let refusal = ConnectRefusal::answered(RefusalReason::AuthenticationMethod, version, Some(5), 0x8C);
        return Err(Box::new(DeniedLogin { refusal, refused: RefusedLogin::at_once(LoginError::NotAuthorized) }));
    }
    let credentials = ClientCredentials {
        client_id: &connect.client_id,
        certificate_user: peer.certificate_user.as_ref(),
        certificate: peer.certificate,
        user: connect.user_name.as_deref(),
        password: connect.password.as_ref(),
        address: peer.address,
        held_bytes,
    };
    access.log_in(&credentials).await.map_err(|refused| {
        let (v4, v5) = match refused.error {
            LoginError::BadCredentials => (4, 0x86),
            LoginError::NotAuthorized => (5, 0x87),
            LoginError::Busy => (3, 0x89),
        };
        let refusal = ConnectRefusal::answered(RefusalReason::Login(refused.error), version, Some(v4), v5);
        Box::new(DeniedLogin { refusal, refused })
    })
}
