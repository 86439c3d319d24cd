//! Login: the credentials of a CONNECT, checked by [`Access`].

use super::handshake::ConnectRefusal;
use super::peer::Peer;
use crate::access::{Access, ClientCredentials, Login, LoginError};
use crate::mqtt::wire::codec::ConnectRequest;
use crate::mqtt::wire::refusal::RefusalReason;

use crate::telemetry::audit::AuditActor;

/// Checks the credentials of a client and returns its login.
///
/// # Errors
/// The client may not log in. The refusal has the CONNACK of its version.
pub(crate) async fn authenticate(
    connect: &ConnectRequest,
    peer: &Peer,
    access: &Access,
) -> Result<Login, ConnectRefusal> {
    let version = connect.version;
    if connect.enhanced_auth {
        let who = AuditActor { client_id: Some(&connect.client_id), ..peer.who() };
        access.note_refusal(&who, RefusalReason::AuthenticationMethod.as_str(), "");
        return Err(ConnectRefusal::answered(RefusalReason::AuthenticationMethod, version, Some(5), 0x8C));
    }
    let credentials = ClientCredentials {
        client_id: &connect.client_id,
        certificate_user: peer.certificate_user.as_ref(),
        certificate: peer.certificate,
        user: connect.user_name.as_deref(),
        password: connect.password.as_ref(),
        address: peer.address,
    };
    access.log_in(&credentials).await.map_err(|denied| {
        let (v4, v5) = match denied {
            LoginError::BadCredentials => (4, 0x86),
            LoginError::NotAuthorized => (5, 0x87),
            LoginError::Busy => (3, 0x89),
        };
        ConnectRefusal::answered(RefusalReason::Login(denied), version, Some(v4), v5)
    })
}
