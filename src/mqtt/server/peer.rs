//! Facts about a client before its CONNECT: address and client certificate.

use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::server::TlsStream;

use crate::telemetry::audit::AuditActor;
use crate::tls::{CertificateId, client_user};

/// The other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Address of the client; `None` where the stream has none.
    pub address: Option<IpAddr>,
    /// User of the client certificate, which the listener has verified.
    pub certificate_user: Option<Arc<str>>,
    /// The client certificate, for comparison with the revoked ones.
    pub certificate: Option<CertificateId>,
}

impl Peer {
    /// A peer of which only the address is known.
    pub fn at(address: IpAddr) -> Self {
        Self { address: Some(address.to_canonical()), ..Self::default() }
    }

    /// The client for the audit log, as far as it is known before its CONNECT.
    pub(crate) fn who(&self) -> AuditActor<'_> {
        AuditActor { user: self.certificate_user.as_deref(), address: self.address, ..AuditActor::default() }
    }

    /// The peer of a TLS connection.
    pub fn certified<S>(address: IpAddr, stream: &TlsStream<S>) -> Self {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate_user = certificate.and_then(client_user).map(Into::into);
        Self { certificate_user, certificate: certificate.and_then(CertificateId::of), ..Self::at(address) }
    }
}
