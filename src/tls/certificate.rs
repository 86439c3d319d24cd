//! What is written in certificates: whose they are, and for how long.

use rustls::pki_types::CertificateDer;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Longest user name taken from a certificate: a device id is no longer.
const MAX_USER_BYTES: usize = 128;

/// What a chain says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateFacts {
    /// Of the first certificate.
    pub subject: String,
    /// When the last of them begins, Unix seconds.
    pub not_before_s: i64,
    /// When the first of them ends, Unix seconds.
    pub not_after_s: i64,
}

impl CertificateFacts {
    /// Why they cannot be used at this time.
    pub fn wrong_at(&self, now_ms: i64) -> Option<String> {
        let day = |seconds: i64| jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".into(), |at| at.to_string());
        if now_ms / 1_000 > self.not_after_s {
            Some(format!("expired at {}", day(self.not_after_s)))
        } else if now_ms / 1_000 < self.not_before_s {
            Some(format!("is not valid before {}", day(self.not_before_s)))
        } else {
            None
        }
    }

    /// Whole days left; negative once it has expired.
    pub fn days_left(&self, now_ms: i64) -> i64 {
        (self.not_after_s - now_ms / 1_000).div_euclid(86_400)
    }
}

/// What is wrong with a chain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChainError {
    /// Not a certificate; its number from 1 and why.
    Unreadable(usize, String),
    /// Did not sign the one before; its number from 1 and whose it is.
    Order(usize, String),
}

/// Reads a chain, the listener's certificate first, and checks that each is signed by the next.
pub(super) fn read_chain(chain: &[CertificateDer<'_>]) -> Result<CertificateFacts, ChainError> {
    let mut parsed = Vec::with_capacity(chain.len());
    for (index, der) in chain.iter().enumerate() {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|e| ChainError::Unreadable(index + 1, e.to_string()))?;
        parsed.push(certificate);
    }
    for (index, pair) in parsed.windows(2).enumerate() {
        let [signed, signer] = pair else { continue };
        if !is_signed_by(signed, signer) {
            return Err(ChainError::Order(index + 2, signer.subject().to_string()));
        }
    }
    let Some(first) = parsed.first() else { return Err(ChainError::Unreadable(1, "there is none".into())) };
    let times = || parsed.iter().map(|certificate| certificate.validity());
    Ok(CertificateFacts {
        subject: first.subject().to_string(),
        not_before_s: times().map(|validity| validity.not_before.timestamp()).max().unwrap_or(i64::MIN),
        not_after_s: times().map(|validity| validity.not_after.timestamp()).min().unwrap_or(i64::MAX),
    })
}

fn is_signed_by(signed: &X509Certificate<'_>, signer: &X509Certificate<'_>) -> bool {
    if signed.issuer().as_raw() != signer.subject().as_raw() {
        return false;
    }
    match signed.verify_signature(Some(signer.public_key())) {
        // Of an algorithm that cannot be checked here only the names tell.
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
        Err(_) => false,
    }
}

/// The user that a client certificate stands for: its common name; without one its first DNS name, then its first
/// e-mail address or URI. `None` where there is none that can be a user name: 1 to 128 bytes without control
/// characters, `/`, `+` and `#`, which would reach beyond the user's own topics.
pub fn client_user(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let common_name = certificate.subject().iter_common_name().next();
    let name = match common_name {
        Some(name) => name.as_str().ok()?.to_owned(),
        None => alternative_name(&certificate)?,
    };
    is_user(&name).then_some(name)
}

fn alternative_name(certificate: &X509Certificate<'_>) -> Option<String> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let other = || {
        names.iter().find_map(|name| match name {
            GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some(*name),
            _ => None,
        })
    };
    dns.or_else(other).map(str::to_owned)
}

fn is_user(name: &str) -> bool {
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '+' | '#');
    !name.is_empty() && name.len() <= MAX_USER_BYTES && !name.chars().any(forbidden) && name.trim() == name
}
