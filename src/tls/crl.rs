//! Certificate revocation lists (RFC 5280 section 5): checks the lists of a file and collects what they revoke.
//!
//! rustls looks the lists up in each handshake. This module finds at load time what would make handshakes fail later, and
//! keeps the revoked certificates for connections and sessions that were accepted before a list was loaded.

use std::collections::HashSet;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate, X509Version};

use super::revoked::{CertificateId, RevokedCertificates};

/// Contents of the revocation lists in use.
#[derive(Debug, Clone)]
pub(super) struct CrlFacts {
    /// Number of lists in use.
    pub lists: usize,
    /// When the first of the lists is due to be replaced, Unix seconds.
    pub next_update_s: i64,
    /// Certificates that the lists revoke.
    pub revoked: RevokedCertificates,
    /// Warnings for the operator, such as a list that nobody's certificate depends on.
    pub warnings: Vec<String>,
}

impl CrlFacts {
    /// Whether the replacement of a list is overdue.
    pub fn is_overdue(&self, now_ms: i64) -> bool {
        now_ms / 1_000 > self.next_update_s
    }
}

/// Why revocation lists are refused. With any of these lists every client of the list's issuer would be refused, so a
/// start fails, and a reload keeps the previous files.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CrlError {
    /// An entry of the file is not a revocation list.
    #[error("list {position}: {wrong}")]
    Unreadable {
        /// Place in the file, from 1.
        position: usize,
        /// Error of the parser.
        wrong: String,
    },
    /// rustls only reads version 2.
    #[error(
        "the list of {issuer} has version 1, but 2 is needed; OpenSSL makes version 2 where crl_extensions names an \
         extension such as authorityKeyIdentifier"
    )]
    Version {
        /// Issuer of the list.
        issuer: String,
    },
    /// The list has no nextUpdate, which RFC 5280 requires.
    #[error("the list of {issuer} does not say when it is to be replaced (nextUpdate)")]
    NoNextUpdate {
        /// Issuer of the list.
        issuer: String,
    },
    /// No trusted authority of the issuer's name has signed the list.
    #[error(
        "the list of {issuer} was not signed by the authority of this name in client_ca, or with an algorithm that TLS \
         no longer has"
    )]
    Signature {
        /// Issuer of the list.
        issuer: String,
    },
    /// The authority's certificate has a key usage without cRLSign.
    #[error("the list of {issuer} is by an authority whose certificate does not allow that (key usage cRLSign)")]
    KeyUsage {
        /// Issuer of the list.
        issuer: String,
    },
}

/// Checks the lists against the trusted authorities. Returns the lists to use, and their contents.
///
/// Of several lists with the same issuer and scope only the newest is used, because a handshake looks into one of them.
///
/// # Errors
/// A list is unreadable or would make the handshakes of its issuer's clients fail.
pub(super) fn read_lists(
    ders: Vec<CertificateRevocationListDer<'static>>,
    authorities: &[CertificateDer<'_>],
) -> Result<(Vec<CertificateRevocationListDer<'static>>, CrlFacts), CrlError> {
    let parsed = |(_, certificate)| certificate;
    let authorities: Vec<X509Certificate<'_>> =
        authorities.iter().filter_map(|der| X509Certificate::from_der(der).ok().map(parsed)).collect();
    let mut lists = Vec::with_capacity(ders.len());
    for (index, der) in ders.iter().enumerate() {
        let (_, list) = CertificateRevocationList::from_der(der)
            .map_err(|error| CrlError::Unreadable { position: index + 1, wrong: error.to_string() })?;
        lists.push((index, list));
    }
    lists.sort_by_key(|(index, list)| (-list.last_update().timestamp(), *index));
    let (mut scopes, mut used, mut revoked) = (HashSet::new(), HashSet::new(), Vec::new());
    let (mut next_update_s, mut warnings) = (i64::MAX, coverage_warnings(&authorities, &lists));
    for (index, list) in &lists {
        if !scopes.insert(scope(list)) {
            warnings.push(format!("more than one list of {}: the newest counts", list.issuer()));
            continue;
        }
        next_update_s = next_update_s.min(check(list, &authorities)?);
        let issuer = list.issuer().as_raw();
        revoked.extend(list.iter_revoked_certificates().map(|one| CertificateId::new(issuer, one.raw_serial())));
        used.insert(*index);
    }
    let facts = CrlFacts { lists: used.len(), next_update_s, revoked: revoked.into_iter().collect(), warnings };
    drop(lists);
    let kept = ders.into_iter().enumerate().filter(|(index, _)| used.contains(index)).map(|(_, der)| der);
    Ok((kept.collect(), facts))
}

/// Issuer of a list, and the part of the issuer's certificates that the list is about (issuing distribution point).
fn scope<'a>(list: &'a CertificateRevocationList<'_>) -> (&'a [u8], &'a [u8]) {
    let part = list.tbs_cert_list.find_extension(&OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
    (list.issuer().as_raw(), part.map_or(&[][..], |part| part.value))
}

/// Checks what a handshake requires of a list. Returns when the list is due to be replaced, Unix seconds.
fn check(list: &CertificateRevocationList<'_>, authorities: &[X509Certificate<'_>]) -> Result<i64, CrlError> {
    let issuer = || list.issuer().to_string();
    if list.version() != Some(X509Version::V2) {
        return Err(CrlError::Version { issuer: issuer() });
    }
    let next_update = list.next_update().ok_or_else(|| CrlError::NoNextUpdate { issuer: issuer() })?;
    let is_signer = |authority: &&X509Certificate<'_>| authority.subject().as_raw() == list.issuer().as_raw();
    let mut signers = authorities.iter().filter(is_signer).peekable();
    // The list of an intermediate authority is not checked here: the authority's certificate is not in client_ca. Clients
    // send it along, and the handshake checks the list with it.
    if signers.peek().is_some() {
        let signer = signers
            .find(|authority| has_signed(authority, list))
            .ok_or_else(|| CrlError::Signature { issuer: issuer() })?;
        let usage = signer.key_usage().ok().flatten();
        if usage.is_some_and(|usage| !usage.value.crl_sign()) {
            return Err(CrlError::KeyUsage { issuer: issuer() });
        }
    }
    Ok(next_update.timestamp())
}

/// Verifies the signature with the algorithms of the TLS provider: a list signed with any other makes handshakes fail.
fn has_signed(authority: &X509Certificate<'_>, list: &CertificateRevocationList<'_>) -> bool {
    let algorithm = list.signature_algorithm.algorithm.as_bytes();
    let key = &authority.public_key().subject_public_key.data;
    default_provider().signature_verification_algorithms.all.iter().any(|candidate| {
        let id = candidate.signature_alg_id();
        // The id is a DER object identifier: one byte tag, one byte length, then the value.
        let is_same = id.as_ref().get(2..).is_some_and(|value| value.starts_with(algorithm));
        let (message, signature) = (list.tbs_cert_list.as_ref(), &list.signature_value.data);
        is_same && candidate.verify_signature(key, message, signature).is_ok()
    })
}

/// Warnings about lists whose issuer is not in client_ca, and about authorities without a list.
///
/// A handshake refuses every client of an authority without a list, because nothing says which of its certificates are
/// revoked. Authorities that signed another one in client_ca are left out: the lower one issues the clients' certificates.
fn coverage_warnings(
    authorities: &[X509Certificate<'_>],
    lists: &[(usize, CertificateRevocationList<'_>)],
) -> Vec<String> {
    let is_known = |issuer: &[u8]| authorities.iter().any(|authority| authority.subject().as_raw() == issuer);
    let unknown = lists.iter().map(|(_, list)| list.issuer()).filter(|issuer| !is_known(issuer.as_raw()));
    let mut warnings: Vec<String> = unknown
        .map(|issuer| {
            format!(
                "the list of {issuer} is by none of the authorities in client_ca, so it only counts for clients that \
                 send the certificate of that authority along"
            )
        })
        .collect();
    // These lists may be by intermediate authorities below an authority in client_ca that needs no list itself.
    if !warnings.is_empty() {
        return warnings;
    }
    let has_list = |name: &[u8]| lists.iter().any(|(_, list)| list.issuer().as_raw() == name);
    let is_above = |name: &[u8]| {
        let is_below =
            |other: &X509Certificate<'_>| other.issuer().as_raw() == name && other.subject().as_raw() != name;
        authorities.iter().any(is_below)
    };
    let names = authorities.iter().map(|authority| authority.subject());
    let bare = names.filter(|name| !has_list(name.as_raw()) && !is_above(name.as_raw()));
    warnings
        .extend(bare.map(|name| format!("no list of {name}: clients with a certificate that it issued are refused")));
    warnings
}
