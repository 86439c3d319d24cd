//! TLS: certificates that are loaded, checked, watched and replaced while connections go on; handshakes with bounds.

mod certificate;
mod client;
mod crl;
mod endpoint;
mod error;
mod load;
mod recording_verifier;

pub use certificate::client_user;
pub use client::trusting;
pub use crl::{CertificateId, RevokedCertificates};
pub use endpoint::{CertificateStatus, CrlStatus, HandshakeError, TlsEndpoint};
pub use error::TlsError;
pub use load::{CheckReport, check};

/// A certificate that ends sooner than this is warned about: most are replaced a month before.
pub const WARN_BEFORE_DAYS: i64 = 30;

#[cfg(test)]
mod tests;
