//! Reads certificates: subject and validity of a chain, and the user that a client certificate names.

use rustls::pki_types::CertificateDer;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// weir warns about a certificate that ends within this many days. Most issuers renew 30 days before the end.
pub const WARN_BEFORE_DAYS: i64 = 30;

/// Longest user name taken from a certificate, in bytes: the limit of a device id.
const MAX_USER_BYTES: usize = 128;

/// Subject and validity of a certificate chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CertificateFacts {
    /// Subject of the first certificate, which is the listener's own.
    pub subject: String,
    /// Begin of the time in which all certificates of the chain are valid, Unix seconds.
    pub not_before_s: i64,
    /// End of the time in which all certificates of the chain are valid, Unix seconds.
    pub not_after_s: i64,
    /// DNS names of the first certificate, in lower case.
    pub dns_names: Vec<String>,
}

impl CertificateFacts {
    /// Whether the first certificate is for this host name, which is in lower case. `*.example.org` in a certificate stands
    /// for one label.
    pub fn covers(&self, name: &str) -> bool {
        self.dns_names.iter().any(|own| match own.strip_prefix("*.") {
            Some(parent) => name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => own == name,
        })
    }

    /// Says why the chain is not valid at this time; `None`: it is valid.
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

    /// Whole days until the chain expires; negative after that.
    pub fn days_left(&self, now_ms: i64) -> i64 {
        (self.not_after_s - now_ms / 1_000).div_euclid(86_400)
    }
}

/// Why a certificate chain is refused. Positions count from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChainError {
    /// The entry at `position` is not a certificate.
    Unreadable {
        /// Place in the chain.
        position: usize,
        /// Error of the parser.
        wrong: String,
    },
    /// The certificate at `position` did not sign the one before it.
    Order {
        /// Place in the chain.
        position: usize,
        /// Subject of the certificate at `position`.
        subject: String,
    },
}

/// Reads a chain, the listener's certificate first.
///
/// # Errors
/// The chain is empty, an entry is not a certificate, or a certificate is not signed by the next one.
pub(super) fn read_chain(chain: &[CertificateDer<'_>]) -> Result<CertificateFacts, ChainError> {
    let mut parsed = Vec::with_capacity(chain.len());
    for (index, der) in chain.iter().enumerate() {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|error| ChainError::Unreadable { position: index + 1, wrong: error.to_string() })?;
        parsed.push(certificate);
    }
    for (index, pair) in parsed.windows(2).enumerate() {
        let [signed, signer] = pair else { continue };
        if !is_signed_by(signed, signer) {
            return Err(ChainError::Order { position: index + 2, subject: signer.subject().to_string() });
        }
    }
    let Some(first) = parsed.first() else {
        return Err(ChainError::Unreadable { position: 1, wrong: "the chain is empty".into() });
    };
    let times = || parsed.iter().map(|certificate| certificate.validity());
    Ok(CertificateFacts {
        subject: first.subject().to_string(),
        not_before_s: times().map(|validity| validity.not_before.timestamp()).max().unwrap_or(i64::MIN),
        not_after_s: times().map(|validity| validity.not_after.timestamp()).min().unwrap_or(i64::MAX),
        dns_names: dns_names(first),
    })
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

fn is_signed_by(signed: &X509Certificate<'_>, signer: &X509Certificate<'_>) -> bool {
    if signed.issuer().as_raw() != signer.subject().as_raw() {
        return false;
    }
    match signed.verify_signature(Some(signer.public_key())) {
        // A signature of an algorithm that cannot be checked here counts as good: the names match, and this check only
        // helps to find files in the wrong order. Clients verify the chain themselves.
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
        Err(_) => false,
    }
}

/// The user that a client certificate names.
///
/// The name is the common name; without a common name the first DNS name, else the first e-mail address or URI. `None`:
/// the certificate has none of these, or the name is not usable as a user name (1 to 128 bytes, no control characters, no
/// white space at either end, no `:`, which ends a name in the users file, and no `/`, `+` or `#`, which would reach topics
/// of other users).
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
    let forbidden = |c: char| c.is_control() || matches!(c, ':' | '/' | '+' | '#');
    !name.is_empty() && name.len() <= MAX_USER_BYTES && !name.chars().any(forbidden) && name.trim() == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_covers_its_names() {
        let dns_names = ["box.example", "*.plant.example"].map(str::to_owned).to_vec();
        let facts = CertificateFacts { subject: String::new(), not_before_s: 0, not_after_s: 0, dns_names };
        for name in ["box.example", "a.plant.example"] {
            assert!(facts.covers(name), "{name}");
        }
        for name in ["a.box.example", "plant.example", "a.b.plant.example", ".plant.example", "evil.example"] {
            assert!(!facts.covers(name), "{name}");
        }
    }
}
