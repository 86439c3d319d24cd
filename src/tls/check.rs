//! Checks a listener's TLS files without using them, for `weir check` and for warnings at start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::certificate::WARN_BEFORE_DAYS;
use super::crl::CrlFacts;
use super::error::TlsError;
use super::load::{LoadedTls, faults, load};
use crate::config::{CheckReport, TlsFiles};

/// Loads a listener's files and reports what is wrong with them at `now_ms`.
pub fn check(files: &TlsFiles, now_ms: i64) -> CheckReport {
    let mut report = CheckReport::default();
    match load(files, &[]) {
        Err(_) => report.faults.extend(faults(files).iter().map(ToString::to_string)),
        Ok(LoadedTls { facts, crls, .. }) => {
            if let Some(wrong) = facts.wrong_at(now_ms) {
                report.faults.push(TlsError::Time { path: files.cert.clone(), wrong }.to_string());
            } else if facts.days_left(now_ms) < WARN_BEFORE_DAYS {
                let days = facts.days_left(now_ms);
                report.warnings.push(format!("{}: the certificate expires in {days} days", files.cert.display()));
            }
            let crl_warnings = crls.iter().flat_map(|crls| crls.warnings.iter().cloned().chain(overdue(crls, now_ms)));
            report.warnings.extend(crl_warnings.map(|warning| format!("{}: {warning}", files.client_crl.display())));
        }
    }
    report.warnings.extend(readable_key(files));
    report
}

/// The warning about revocation lists whose replacement is overdue; `None`: none is.
///
/// An overdue list stays in use, because the alternatives are worse. Without it, revoked clients could connect again. If
/// weir refused all clients instead, a box that cannot fetch the next list, or whose clock is wrong, could not be reached.
pub(super) fn overdue(crls: &CrlFacts, now_ms: i64) -> Option<String> {
    let due = || jiff::Timestamp::from_second(crls.next_update_s).map_or_else(|_| "?".into(), |at| at.to_string());
    crls.is_overdue(now_ms)
        .then(|| format!("the revocation list should have been replaced by {}; it stays in use", due()))
}

/// The warning about a private key that every user of the machine may read; `None`: not everybody may.
pub(super) fn readable_key(files: &TlsFiles) -> Option<String> {
    let mode = fs::metadata(&files.key).ok()?.permissions().mode();
    let path = files.key.display();
    (mode & 0o004 != 0).then(|| format!("{path}: every user of this machine may read this key; chmod 640 or 600"))
}
