//! The file keys that `[mqtt.tls]` and `[http.tls]` share.

use std::path::PathBuf;

/// Certificate and key of a TLS listener, and the client certificates that it accepts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TlsFiles {
    /// PEM file with the listener's certificate, followed by the certificates that lead to the root.
    pub cert: PathBuf,
    /// PEM file with the listener's private key.
    pub key: PathBuf,
    /// PEM file with the authorities of client certificates; empty: none.
    pub client_ca: PathBuf,
    /// PEM file with revocation lists of client certificates; empty: none.
    pub client_crl: PathBuf,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// Clients are not asked for a certificate.
    #[default]
    Off,
    /// Clients are asked. A client without a certificate is treated as over plain TCP.
    Optional,
    /// Clients are asked, and the handshake fails without a certificate.
    Required,
}
