//! Files to a TLS configuration, with everything checked that a client would stumble over.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use super::WARN_BEFORE_DAYS;
use super::certificate::{Facts, Flaw, read_chain};
use super::error::TlsError;
use crate::config::{ClientCertificates, TlsFiles};

/// Larger files are refused: the root lists of whole operating systems have a quarter of that.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What was made of the files.
pub(super) struct Loaded {
    pub config: Arc<ServerConfig>,
    pub facts: Facts,
}

/// What `weir check` says about a listener's files.
#[derive(Debug, Default)]
pub struct Findings {
    /// weir would not start, or clients would refuse to talk to it.
    pub faults: Vec<String>,
    /// What should be looked at.
    pub warnings: Vec<String>,
}

/// Checks a listener's files as `weir check` does.
pub fn check(files: &TlsFiles, now_ms: i64) -> Findings {
    let mut findings = Findings::default();
    match load(files, &[]) {
        Err(error) => findings.faults.push(error.to_string()),
        Ok(Loaded { facts, .. }) => {
            if let Some(wrong) = facts.wrong_at(now_ms) {
                findings.faults.push(TlsError::Time { path: files.cert.clone(), wrong }.to_string());
            } else if facts.days_left(now_ms) < WARN_BEFORE_DAYS {
                let days = facts.days_left(now_ms);
                findings.warnings.push(format!("{}: the certificate expires in {days} days", files.cert.display()));
            }
        }
    }
    findings.warnings.extend(open_key(files));
    findings
}

/// What is to be said where everybody on the machine may read the key.
pub(super) fn open_key(files: &TlsFiles) -> Option<String> {
    let mode = fs::metadata(&files.key).ok()?.permissions().mode();
    let path = files.key.display();
    (mode & 0o004 != 0).then(|| format!("{path}: every user of this machine may read this key; chmod 640 or 600"))
}

/// Loads the files. `protocols` are ALPN's names; none: any are taken.
pub(super) fn load(files: &TlsFiles, protocols: &[&[u8]]) -> Result<Loaded, TlsError> {
    let chain = certificates(&files.cert)?;
    let facts = read_chain(&chain).map_err(|flaw| match flaw {
        Flaw::Unreadable(position, wrong) => {
            TlsError::NoCertificate { path: files.cert.clone(), wrong: format!("certificate {position}: {wrong}") }
        }
        Flaw::Order(position, subject) => TlsError::Chain { path: files.cert.clone(), position, subject },
    })?;
    let key = private_key(&files.key)?;
    let refused = |error: rustls::Error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::KeyMismatch { cert: files.cert.clone(), key: files.key.clone() }
        }
        error => TlsError::Refused { path: files.cert.clone(), wrong: error.to_string() },
    };
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(refused)?;
    let builder = match client_verifier(files, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Loaded { config: Arc::new(config), facts })
}

fn client_verifier(
    files: &TlsFiles,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if files.client_certificates == ClientCertificates::Off {
        return Ok(None);
    }
    let wrong = |wrong: String| TlsError::ClientCa { path: files.client_ca.clone(), wrong };
    let mut roots = RootCertStore::empty();
    for root in certificates(&files.client_ca)? {
        roots.add(root).map_err(|error| wrong(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match files.client_certificates {
        ClientCertificates::Optional => builder.allow_unauthenticated(),
        ClientCertificates::Off | ClientCertificates::Required => builder,
    };
    builder.build().map(Some).map_err(|error| wrong(error.to_string()))
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let wrong = |wrong: String| TlsError::NoCertificate { path: path.to_owned(), wrong };
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("it has no certificate".into())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        // The error's text may quote the file.
        let wrong = match error {
            pem::Error::NoItemsFound => "it has no private key",
            _ => "it is not PEM",
        };
        TlsError::NoKey { path: path.to_owned(), wrong: wrong.into() }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_FILE_BYTES {
        return Err(failed(std::io::Error::other(format!("it has {length} bytes, more than any certificate file"))));
    }
    fs::read(path).map_err(failed)
}

/// What changes when a file is replaced or written.
pub(super) type Stamp = Vec<Option<(u64, u64, i64, i64)>>;

/// The state of a listener's files. Links are followed: certificates are often replaced by turning one.
pub(super) fn stamp(files: &TlsFiles) -> Stamp {
    let one = |path: &Path| {
        fs::metadata(path).ok().map(|found: Metadata| (found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    [&files.cert, &files.key, &files.client_ca].map(|path| one(path)).to_vec()
}
