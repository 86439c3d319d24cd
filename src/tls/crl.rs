//! Certificate revocation lists (RFC 5280 section 5): the client certificates that are no longer taken.

use std::collections::HashSet;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate, X509Version};

/// Names one certificate: a digest of its issuer and serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificateId([u8; 32]);

impl CertificateId {
    /// Of this certificate; `None` where it is none.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(Self::new(certificate.issuer().as_raw(), certificate.raw_serial()))
    }

    /// Of the certificate with this issuer, as DER, which says where it ends, and this serial number.
    pub(crate) fn new(issuer: &[u8], serial: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(issuer);
        context.update(serial);
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        Self(id)
    }

    /// What [`CertificateId::to_bytes`] gave.
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes, to be stored.
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

/// The client certificates that the lists in use revoke. Clones share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedCertificates(Arc<HashSet<CertificateId>>);

impl RevokedCertificates {
    /// Whether this certificate is among them.
    pub fn contains(&self, certificate: &CertificateId) -> bool {
        self.0.contains(certificate)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<CertificateId> for RevokedCertificates {
    fn from_iter<T: IntoIterator<Item = CertificateId>>(ids: T) -> Self {
        Self(Arc::new(ids.into_iter().collect()))
    }
}

/// What the lists of a file say.
#[derive(Debug, Clone)]
pub(super) struct CrlFacts {
    /// How many count.
    pub lists: usize,
    /// When the first of them is to be replaced, Unix seconds.
    pub next_update_s: i64,
    /// What they revoke.
    pub revoked: RevokedCertificates,
    /// What a person should look at.
    pub warnings: Vec<String>,
}

impl CrlFacts {
    /// Whether one of them should have been replaced by now.
    pub fn is_overdue(&self, now_ms: i64) -> bool {
        now_ms / 1_000 > self.next_update_s
    }
}

/// Checks lists with the authorities that are trusted, and keeps those that count. Of several by one issuer for the same
/// certificates the newest does: a handshake looks into one only.
///
/// # Errors
/// Why they cannot be used. Each would have all clients of its issuer refused.
pub(super) fn read_lists(
    ders: Vec<CertificateRevocationListDer<'static>>,
    authorities: &[CertificateDer<'_>],
) -> Result<(Vec<CertificateRevocationListDer<'static>>, CrlFacts), String> {
    let parsed = |(_, certificate)| certificate;
    let authorities: Vec<X509Certificate<'_>> =
        authorities.iter().filter_map(|der| X509Certificate::from_der(der).ok().map(parsed)).collect();
    let mut lists = Vec::with_capacity(ders.len());
    for (index, der) in ders.iter().enumerate() {
        let (_, list) = CertificateRevocationList::from_der(der).map_err(|e| format!("list {}: {e}", index + 1))?;
        lists.push((index, list));
    }
    lists.sort_by_key(|(index, list)| (-list.last_update().timestamp(), *index));
    let (mut scopes, mut counted, mut revoked) = (HashSet::new(), HashSet::new(), HashSet::new());
    let (mut next_update_s, mut warnings) = (i64::MAX, surprises(&authorities, &lists));
    for (index, list) in &lists {
        if !scopes.insert(scope(list)) {
            warnings.push(format!("more than one list of {}: the newest counts", list.issuer()));
            continue;
        }
        let ends_s = check(list, &authorities).map_err(|wrong| format!("the list of {} {wrong}", list.issuer()))?;
        next_update_s = next_update_s.min(ends_s);
        let issuer = list.issuer().as_raw();
        revoked.extend(list.iter_revoked_certificates().map(|one| CertificateId::new(issuer, one.raw_serial())));
        counted.insert(*index);
    }
    let facts =
        CrlFacts { lists: counted.len(), next_update_s, revoked: RevokedCertificates(Arc::new(revoked)), warnings };
    drop(lists);
    let kept = ders.into_iter().enumerate().filter(|(index, _)| counted.contains(index)).map(|(_, der)| der);
    Ok((kept.collect(), facts))
}

/// Whose certificates a list is about, and which of them.
fn scope<'a>(list: &'a CertificateRevocationList<'_>) -> (&'a [u8], &'a [u8]) {
    let part = list.tbs_cert_list.find_extension(&OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
    (list.issuer().as_raw(), part.map_or(&[][..], |part| part.value))
}

/// Checks what the handshakes of clients would fail for, and returns when the list is to be replaced.
fn check(list: &CertificateRevocationList<'_>, authorities: &[X509Certificate<'_>]) -> Result<i64, String> {
    if list.version() != Some(X509Version::V2) {
        let hint = "OpenSSL makes version 2 where crl_extensions names an extension such as authorityKeyIdentifier";
        return Err(format!("has version 1, but 2 is needed; {hint}"));
    }
    let next_update = list.next_update().ok_or("does not say when it is to be replaced (nextUpdate)")?;
    let is_signer = |authority: &&X509Certificate<'_>| authority.subject().as_raw() == list.issuer().as_raw();
    let mut signers = authorities.iter().filter(is_signer).peekable();
    // That of an intermediate authority, whose certificate comes with the client's: the handshake checks it.
    if signers.peek().is_some() {
        let signer = signers.find(|authority| has_signed(authority, list)).ok_or(
            "was not signed by the authority of this name in client_ca, or with an algorithm that TLS no longer has",
        )?;
        let usage = signer.key_usage().ok().flatten();
        if usage.is_some_and(|usage| !usage.value.crl_sign()) {
            return Err("is by an authority whose certificate does not allow that (key usage cRLSign)".into());
        }
    }
    Ok(next_update.timestamp())
}

/// By the algorithms that handshakes have: what they cannot check they refuse.
fn has_signed(authority: &X509Certificate<'_>, list: &CertificateRevocationList<'_>) -> bool {
    let algorithm = list.signature_algorithm.algorithm.as_bytes();
    let key = &authority.public_key().subject_public_key.data;
    default_provider().signature_verification_algorithms.all.iter().any(|candidate| {
        let id = candidate.signature_alg_id();
        // An object identifier: its tag, its length, its value.
        let is_same = id.as_ref().get(2..).is_some_and(|value| value.starts_with(algorithm));
        let (message, signature) = (list.tbs_cert_list.as_ref(), &list.signature_value.data);
        is_same && candidate.verify_signature(key, message, signature).is_ok()
    })
}

/// What would be a surprise: authorities whose clients are all refused, since nothing says which of them are revoked, and
/// lists that may be about nobody. Authorities that stand above another one are left out: that one issues to clients.
fn surprises(authorities: &[X509Certificate<'_>], lists: &[(usize, CertificateRevocationList<'_>)]) -> Vec<String> {
    let is_known = |issuer: &[u8]| authorities.iter().any(|authority| authority.subject().as_raw() == issuer);
    let strange = lists.iter().map(|(_, list)| list.issuer()).filter(|issuer| !is_known(issuer.as_raw()));
    let mut found: Vec<String> = strange
        .map(|issuer| {
            let told = "is by none of the authorities in client_ca, so it only counts for clients that send the";
            format!("the list of {issuer} {told} certificate of that authority along")
        })
        .collect();
    // By an intermediate authority, below one of those without a list.
    if !found.is_empty() {
        return found;
    }
    let has_list = |name: &[u8]| lists.iter().any(|(_, list)| list.issuer().as_raw() == name);
    let is_above = |name: &[u8]| {
        let is_below =
            |other: &X509Certificate<'_>| other.issuer().as_raw() == name && other.subject().as_raw() != name;
        authorities.iter().any(is_below)
    };
    let names = authorities.iter().map(|authority| authority.subject());
    let bare = names.filter(|name| !has_list(name.as_raw()) && !is_above(name.as_raw()));
    found.extend(bare.map(|name| format!("no list of {name}: clients with a certificate that it issued are refused")));
    found
}
