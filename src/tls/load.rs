//! Reads a listener's TLS files and makes rustls's configuration of them.
//!
//! Everything that a client would fail on later is checked here: that the key belongs to the certificate, that the chain is
//! in order, and that the revocation lists can be used. Validity in time is for the caller to judge, because a start and a
//! reload judge it differently.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use super::certificate::{CertificateFacts, ChainError, read_chain};
use super::crl::{CrlFacts, read_lists};
use super::error::TlsError;
use super::recording_verifier::RecordingVerifier;
use crate::config::{ClientCertificates, TlsFiles};

/// Larger files of certificates and keys are refused. The root certificates of a whole operating system take a quarter.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Larger files of revocation lists are refused. A list of this size revokes about 150,000 certificates.
const MAX_LISTS_BYTES: u64 = 8 << 20;

/// A listener's files, ready for use.
pub(super) struct LoadedTls {
    /// Configuration for rustls.
    pub config: Arc<ServerConfig>,
    /// Subject and validity of the listener's certificate.
    pub facts: CertificateFacts,
    /// Contents of the revocation lists of client certificates; `None`: none are configured.
    pub crls: Option<CrlFacts>,
}

/// Loads a listener's files. `protocols` are ALPN names; with none, any protocol of the client is accepted.
///
/// # Errors
/// A file cannot be read, or the files do not belong together.
pub(super) fn load(files: &TlsFiles, protocols: &[&[u8]]) -> Result<LoadedTls, TlsError> {
    let (chain, facts) = chain(&files.cert)?;
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
    let (builder, crls) = match client_verifier(files, provider)? {
        Some((verifier, crls)) => (builder.with_client_cert_verifier(verifier), crls),
        None => (builder.with_no_client_auth(), None),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(LoadedTls { config: Arc::new(config), facts, crls })
}

/// The faults of a listener's files. [`load`] ends at the first; here each file is looked at although another one has a fault.
pub(super) fn faults(files: &TlsFiles) -> Vec<TlsError> {
    let mut faults: Vec<TlsError> =
        [chain(&files.cert).err(), private_key(&files.key).err()].into_iter().flatten().collect();
    if files.client_certificates != ClientCertificates::Off {
        match certificates(&files.client_ca) {
            Ok(_) => faults.extend(client_verifier(files, Arc::new(default_provider())).err()),
            Err(error) => faults.extend([Some(error), lists(files).err()].into_iter().flatten()),
        }
    }
    if faults.is_empty() { load(files, &[]).err().into_iter().collect() } else { faults }
}

/// The certificates of the listener, in order, and the facts about its own.
fn chain(path: &Path) -> Result<(Vec<CertificateDer<'static>>, CertificateFacts), TlsError> {
    let chain = certificates(path)?;
    let facts = read_chain(&chain).map_err(|error| match error {
        ChainError::Unreadable { position, wrong } => {
            TlsError::NoCertificate { path: path.to_owned(), wrong: format!("certificate {position}: {wrong}") }
        }
        ChainError::Order { position, subject } => TlsError::Chain { path: path.to_owned(), position, subject },
    })?;
    Ok((chain, facts))
}

/// The verifier of client certificates, with the contents of its revocation lists.
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
    // Only the client's own certificate is looked up in the lists, as mosquitto does: with the whole chain every
    // intermediate authority would need a list too.
    let (ders, crls) = revocation_lists(files, &authorities)?.unzip();
    let builder = builder.with_crls(ders.into_iter().flatten()).only_check_end_entity_revocation();
    let verifier = builder.build().map_err(|error| match error {
        VerifierBuilderError::InvalidCrl(_) => {
            TlsError::ClientCrl { path: files.client_crl.clone(), wrong: error.to_string() }
        }
        _ => wrong(error.to_string()),
    })?;
    Ok(Some((Arc::new(RecordingVerifier(verifier)), crls)))
}

/// The revocation lists for handshakes, with their contents; `None`: no file is configured.
fn revocation_lists(
    files: &TlsFiles,
    authorities: &[CertificateDer<'_>],
) -> Result<Option<(Vec<CertificateRevocationListDer<'static>>, CrlFacts)>, TlsError> {
    let Some(found) = lists(files)? else { return Ok(None) };
    let wrong = |wrong: String| TlsError::ClientCrl { path: files.client_crl.clone(), wrong };
    read_lists(found, authorities).map(Some).map_err(|error| wrong(error.to_string()))
}

/// The revocation lists of the file, at least one; `None`: no file is configured.
fn lists(files: &TlsFiles) -> Result<Option<Vec<CertificateRevocationListDer<'static>>>, TlsError> {
    let path = &files.client_crl;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let wrong = |wrong: String| TlsError::ClientCrl { path: path.clone(), wrong };
    let text = read(path, MAX_LISTS_BYTES)?;
    let found: Result<Vec<_>, pem::Error> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("it has no revocation list".into())) } else { Ok(Some(found)) }
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// The file cannot be read, is not PEM, or holds no certificate.
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
        // The parser's own message is not used: it may quote the file, which holds the key.
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
