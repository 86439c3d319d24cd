//! Errors of TLS files, as sentences for the person who maintains them.

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
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file holds no certificate, or an entry that is not a certificate.
    #[error("{}: {wrong}; expected PEM with \"-----BEGIN CERTIFICATE-----\"", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with its contents.
        wrong: String,
    },
    /// A file holds no private key.
    #[error("{}: {wrong}; expected a PEM private key without a passphrase (PKCS #8, PKCS #1 or SEC 1)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with its contents.
        wrong: String,
    },
    /// The private key does not belong to the listener's certificate.
    #[error("{}: this is not the key of the first certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The chain is not in order: a certificate did not sign the one before it.
    #[error(
        "{}: certificate {position} ({subject}) did not sign the one before it; the listener's own comes first, \
         then the one that signed it, and so on",
        path.display()
    )]
    Chain {
        /// The file.
        path: PathBuf,
        /// Place of the wrong certificate in the file, from 1.
        position: usize,
        /// Subject of the wrong certificate.
        subject: String,
    },
    /// The certificate has expired or is not valid yet.
    #[error("{}: the certificate {wrong}; renew it, or check this machine's clock", path.display())]
    Time {
        /// The file.
        path: PathBuf,
        /// Which of the two, and since or until when.
        wrong: String,
    },
    /// The authorities of client certificates cannot be used.
    #[error("{}: {wrong}; expected PEM with the certificates of authorities", path.display())]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// What is wrong with its contents.
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
        /// What is wrong with its contents.
        wrong: String,
    },
    /// rustls refuses the files for another reason.
    #[error("{}: cannot be used: {wrong}", path.display())]
    Refused {
        /// The certificate file.
        path: PathBuf,
        /// Error of rustls.
        wrong: String,
    },
}
