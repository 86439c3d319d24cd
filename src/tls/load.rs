//! Files to a TLS configuration, with everything checked that a client would stumble over.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use super::WARN_BEFORE_DAYS;
use super::certificate::{CertificateFacts, ChainError, read_chain};
use super::crl::{CrlFacts, read_lists};
use super::error::TlsError;
use super::recording_verifier::RecordingVerifier;
use crate::config::{ClientCertificates, TlsFiles};

/// Larger files are refused: the root lists of whole operating systems have a quarter of that.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Larger files of revocation lists are refused: this one revokes some 150,000 certificates.
const MAX_LISTS_BYTES: u64 = 8 << 20;

/// What was made of the files.
pub(super) struct LoadedTls {
    pub config: Arc<ServerConfig>,
    pub facts: CertificateFacts,
    /// What the revocation lists of client certificates say; `None`: there are none.
    pub lists: Option<CrlFacts>,
}

/// What `weir check` says about a listener's files.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// weir would not start, or clients would refuse to talk to it.
    pub faults: Vec<String>,
    /// What should be looked at.
    pub warnings: Vec<String>,
}

/// Checks a listener's files as `weir check` does.
pub fn check(files: &TlsFiles, now_ms: i64) -> CheckReport {
    let mut findings = CheckReport::default();
    match load(files, &[]) {
        Err(error) => findings.faults.push(error.to_string()),
        Ok(LoadedTls { facts, lists, .. }) => {
            if let Some(wrong) = facts.wrong_at(now_ms) {
                findings.faults.push(TlsError::Time { path: files.cert.clone(), wrong }.to_string());
            } else if facts.days_left(now_ms) < WARN_BEFORE_DAYS {
                let days = facts.days_left(now_ms);
                findings.warnings.push(format!("{}: the certificate expires in {days} days", files.cert.display()));
            }
            let said = lists.iter().flat_map(|lists| lists.warnings.iter().cloned().chain(overdue(lists, now_ms)));
            findings.warnings.extend(said.map(|warning| format!("{}: {warning}", files.client_crl.display())));
        }
    }
    findings.warnings.extend(open_key(files));
    findings
}

/// What is to be said of revocation lists that should have been replaced by now.
pub(super) fn overdue(lists: &CrlFacts, now_ms: i64) -> Option<String> {
    let wanted = || jiff::Timestamp::from_second(lists.next_update_s).map_or_else(|_| "?".into(), |at| at.to_string());
    let told = "should have been replaced by";
    lists.is_overdue(now_ms).then(|| format!("the revocation list {told} {}; it is used as it is", wanted()))
}

/// What is to be said where everybody on the machine may read the key.
pub(super) fn open_key(files: &TlsFiles) -> Option<String> {
    let mode = fs::metadata(&files.key).ok()?.permissions().mode();
    let path = files.key.display();
    (mode & 0o004 != 0).then(|| format!("{path}: every user of this machine may read this key; chmod 640 or 600"))
}

/// Loads the files. `protocols` are ALPN's names; none: any are taken.
pub(super) fn load(files: &TlsFiles, protocols: &[&[u8]]) -> Result<LoadedTls, TlsError> {
    let chain = certificates(&files.cert)?;
    let facts = read_chain(&chain).map_err(|flaw| match flaw {
        ChainError::Unreadable(position, wrong) => {
            TlsError::NoCertificate { path: files.cert.clone(), wrong: format!("certificate {position}: {wrong}") }
        }
        ChainError::Order(position, subject) => TlsError::Chain { path: files.cert.clone(), position, subject },
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
    let (builder, lists) = match client_verifier(files, provider)? {
        Some((verifier, lists)) => (builder.with_client_cert_verifier(verifier), lists),
        None => (builder.with_no_client_auth(), None),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(LoadedTls { config: Arc::new(config), facts, lists })
}

/// What verifies client certificates, with what the revocation lists say.
type ClientVerifier = (Arc<dyn ClientCertVerifier>, Option<CrlFacts>);

fn client_verifier(files: &TlsFiles, provider: Arc<CryptoProvider>) -> Result<Option<ClientVerifier>, TlsError> {
    if files.client_certificates == ClientCertificates::Off {
        return Ok(None);
    }
    let wrong = |wrong: String| TlsError::ClientCa { path: files.client_ca.clone(), wrong };
    let authorities = certificates(&files.client_ca)?;
    let mut roots = RootCertStore::empty();
    for root in &authorities {
        roots.add(root.clone()).map_err(|error| wrong(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match files.client_certificates {
        ClientCertificates::Optional => builder.allow_unauthenticated(),
        ClientCertificates::Off | ClientCertificates::Required => builder,
    };
    // As mosquitto has it: of the chain only the client's own certificate is looked up.
    let (ders, lists) = revocation_lists(files, &authorities)?.unzip();
    let builder = builder.with_crls(ders.into_iter().flatten()).only_check_end_entity_revocation();
    let verifier = builder.build().map_err(|error| match error {
        VerifierBuilderError::InvalidCrl(_) => {
            TlsError::ClientCrl { path: files.client_crl.clone(), wrong: error.to_string() }
        }
        _ => wrong(error.to_string()),
    })?;
    Ok(Some((Arc::new(RecordingVerifier(verifier)), lists)))
}

/// The revocation lists for the handshakes, with what they say; `None` where no file is named.
fn revocation_lists(
    files: &TlsFiles,
    authorities: &[CertificateDer<'_>],
) -> Result<Option<(Vec<CertificateRevocationListDer<'static>>, CrlFacts)>, TlsError> {
    let path = &files.client_crl;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let wrong = |wrong: String| TlsError::ClientCrl { path: path.clone(), wrong };
    let text = read(path, MAX_LISTS_BYTES)?;
    let found: Result<Vec<_>, pem::Error> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("it has no revocation list".into()));
    }
    read_lists(found, authorities).map(Some).map_err(wrong)
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path, MAX_FILE_BYTES)?;
    let wrong = |wrong: String| TlsError::NoCertificate { path: path.to_owned(), wrong };
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("it has no certificate".into())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path, MAX_FILE_BYTES)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        // The error's text may quote the file.
        let wrong = match error {
            pem::Error::NoItemsFound => "it has no private key",
            _ => "it is not PEM",
        };
        TlsError::NoKey { path: path.to_owned(), wrong: wrong.into() }
    })
}

fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > max_bytes {
        return Err(failed(std::io::Error::other(format!("it has {length} bytes, more than the {max_bytes} allowed"))));
    }
    fs::read(path).map_err(failed)
}

/// What changes when a file is replaced or written.
pub(super) type FileStamps = Vec<Option<(u64, u64, i64, i64)>>;

/// The state of a listener's files. Links are followed: certificates are often replaced by turning one.
pub(super) fn stamp(files: &TlsFiles) -> FileStamps {
    let one = |path: &Path| {
        fs::metadata(path).ok().map(|found: Metadata| (found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    [&files.cert, &files.key, &files.client_ca, &files.client_crl].map(|path| one(path)).to_vec()
}
