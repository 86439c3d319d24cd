//! TLS for weir's listeners and commands.
//!
//! This part loads and checks certificates, keys and revocation lists, replaces them while connections stay open, and runs
//! handshakes within limits. It decides who a client certificate names ([`client_user`]), but not what that user may do
//! (see `access`), and it does not decide when files are read (see `app`).

mod certificate;
mod check;
mod client;
mod crl;
mod endpoint;
mod error;
mod file_stamps;
mod handshake;
mod handshake_stream;
mod load;
mod recording_verifier;
mod revoked;
mod status;

pub use certificate::{WARN_BEFORE_DAYS, client_user};
pub use check::check;
pub use client::trusting;
pub use endpoint::{PreparedCertificate, TlsEndpoint};
pub use error::TlsError;
pub use handshake::{HandshakeClient, HandshakeError};
pub use handshake_stream::HandshakeStream;
pub use revoked::{CertificateId, RevokedCertificates};
pub use status::{CertificateStatus, CrlStatus};

#[cfg(test)]
mod tests;
