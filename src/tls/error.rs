//! What can be wrong with certificates and keys.

use std::io;
use std::path::PathBuf;

/// Why files cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}; check the path and that weir's user may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file has no certificate, or something that is none.
    #[error("{}: {wrong}; expected PEM with \"-----BEGIN CERTIFICATE-----\"", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What was found.
        wrong: String,
    },
    /// A file has no private key.
    #[error("{}: {wrong}; expected a PEM private key without a passphrase (PKCS #8, PKCS #1 or SEC 1)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What was found.
        wrong: String,
    },
    /// The key belongs to another certificate.
    #[error("{}: this is not the key of the first certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// File of the certificate.
        cert: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
    /// A certificate did not sign the one before it.
    #[error(
        "{}: certificate {position} ({subject}) did not sign the one before it; the listener's own comes first, \
         then the one that signed it, and so on",
        path.display()
    )]
    Chain {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        position: usize,
        /// Whose it is.
        subject: String,
    },
    /// The clock is outside the certificate's time.
    #[error("{}: the certificate {wrong}; renew it, or check this machine's clock", path.display())]
    Time {
        /// The file.
        path: PathBuf,
        /// In which way.
        wrong: String,
    },
    /// The authorities of client certificates cannot be used.
    #[error("{}: {wrong}; expected PEM with the certificates of authorities", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What was found.
        wrong: String,
    },
    /// The revocation lists of client certificates cannot be used.
    #[error(
        "{}: {wrong}; expected PEM with revocation lists (\"-----BEGIN X509 CRL-----\") of the authorities in client_ca",
        path.display()
    )]
    ClientCrl {
        /// The file.
        path: PathBuf,
        /// What was found.
        wrong: String,
    },
    /// What else rustls refuses.
    #[error("{}: cannot be used: {wrong}", path.display())]
    Refused {
        /// The certificate file.
        path: PathBuf,
        /// What rustls says.
        wrong: String,
    },
}
