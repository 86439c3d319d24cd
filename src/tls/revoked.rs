//! The set of revoked client certificates, as connections and stored sessions are compared with it.

use std::collections::HashSet;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Identifies one certificate: a SHA-256 digest of its issuer and serial number, which together are unique (RFC 5280
/// section 4.1.2.2). It is stored with sessions, so its form must not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificateId([u8; 32]);

impl CertificateId {
    /// The id of `certificate`; `None`: the bytes are not a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(Self::new(certificate.issuer().as_raw(), certificate.raw_serial()))
    }

    /// The id of the certificate with this issuer (as DER, which carries its own length, so no separator is needed) and
    /// this serial number.
    pub(crate) fn new(issuer: &[u8], serial: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(issuer);
        context.update(serial);
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        Self(id)
    }

    /// The id with the bytes that [`CertificateId::to_bytes`] returned.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id, to be stored.
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

/// The client certificates that the lists in use revoke. Clones share one set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedCertificates(Arc<HashSet<CertificateId>>);

impl RevokedCertificates {
    /// Whether `certificate` is revoked.
    pub fn contains(&self, certificate: &CertificateId) -> bool {
        self.0.contains(certificate)
    }

    /// Number of revoked certificates.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no certificate is revoked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<CertificateId> for RevokedCertificates {
    fn from_iter<T: IntoIterator<Item = CertificateId>>(ids: T) -> Self {
        Self(Arc::new(ids.into_iter().collect()))
    }
}
