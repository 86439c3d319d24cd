//! What `/api/v1/status` shows of a listener's certificate and revocation lists.

/// The certificate of one listener. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CertificateStatus {
    /// `mqtt` or `http`.
    pub listener: &'static str,
    /// Subject of the certificate in use.
    pub subject: String,
    /// Begin of its validity.
    pub not_before: i64,
    /// End of its validity: the earliest end in its chain.
    pub not_after: i64,
    /// Whole days until `not_after`; negative afterwards.
    pub days_left: i64,
    /// When the certificate in use was loaded.
    pub loaded: i64,
    /// Why the current files could not be loaded; `null` while the certificate in use is the one in the files.
    pub error: Option<String>,
    /// The revocation lists of client certificates; `null`: none are configured.
    pub client_crl: Option<CrlStatus>,
}

/// The revocation lists of one listener. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CrlStatus {
    /// Number of lists in use.
    pub lists: usize,
    /// Number of certificates that the lists revoke.
    pub revoked: usize,
    /// When the first of the lists is due to be replaced.
    pub next_update: i64,
    /// Whether that time has passed. An overdue list stays in use.
    pub overdue: bool,
}
