//! One TLS listener's certificate over its life, and the handshakes that use it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::WARN_BEFORE_DAYS;
use super::certificate::CertificateFacts;
use super::crl::{CrlFacts, RevokedCertificates};
use super::error::TlsError;
use super::load::{FileStamps, LoadedTls, load, open_key, overdue, stamp};
use super::recording_verifier::telling;
use crate::admission::PendingConnections;
use crate::clock::Clock;
use crate::config::TlsFiles;
use crate::sync::{self, lock};
use crate::telemetry::names;

/// Between two lines about the same certificate.
const REMINDER_MS: i64 = 86_400_000;

/// The certificate of one listener. New connections use the newest one that could be loaded; open ones keep theirs.
pub struct TlsEndpoint {
    listener: &'static str,
    protocols: &'static [&'static [u8]],
    clock: Arc<dyn Clock>,
    handshakes: Arc<PendingConnections>,
    current: RwLock<Arc<ServerConfig>>,
    state: Mutex<EndpointState>,
}

struct EndpointState {
    files: TlsFiles,
    facts: CertificateFacts,
    lists: Option<CrlFacts>,
    loaded_ms: i64,
    error: Option<String>,
    /// The files as they were when they were last looked into.
    tried: FileStamps,
    /// The files as the last look found them.
    seen: FileStamps,
    reminded_ms: i64,
    /// As `reminded_ms`, about the revocation lists.
    lists_reminded_ms: i64,
}

/// What `/api/v1/status` says about a certificate. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CertificateStatus {
    /// `mqtt` or `http`.
    pub listener: &'static str,
    /// Whose the certificate in use is.
    pub subject: String,
    /// Since when it is valid.
    pub not_before: i64,
    /// Until when it is valid: the earliest end in its chain.
    pub not_after: i64,
    /// Whole days until then; negative afterwards.
    pub days_left: i64,
    /// When it was loaded.
    pub loaded: i64,
    /// Why the files as they are now could not be loaded; `null` while the certificate in use is the one in the files.
    pub error: Option<String>,
    /// The revocation lists of client certificates; `null`: none are used.
    pub client_crl: Option<CrlStatus>,
}

/// What `/api/v1/status` says about revocation lists. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CrlStatus {
    /// How many lists are used.
    pub lists: usize,
    /// Certificates that they revoke.
    pub revoked: usize,
    /// When the first of them is to be replaced.
    pub next_update: i64,
    /// Whether it should have been by now; it is used all the same.
    pub overdue: bool,
}

/// A certificate that could be loaded and is not yet in use.
pub struct PreparedCertificate {
    files: TlsFiles,
    found: FileStamps,
    loaded: LoadedTls,
}

impl std::fmt::Debug for PreparedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("subject", &self.loaded.facts.subject).finish_non_exhaustive()
    }
}

/// Why a handshake did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the TLS handshake took too long")]
    Timeout,
    /// Too many at once.
    #[error("too many TLS handshakes at once")]
    Full,
    /// The peer left, or does not speak TLS, or trusts another authority.
    #[error("the TLS handshake failed: {error}{}", of(certificate.as_deref()))]
    Failed {
        /// What happened.
        error: io::Error,
        /// The subject of the client's certificate, where that was refused. Nobody has verified it.
        certificate: Option<String>,
    },
}

fn of(certificate: Option<&str>) -> String {
    certificate.map(|subject| format!("; the certificate is that of {subject}")).unwrap_or_default()
}

impl HandshakeError {
    /// Label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            HandshakeError::Timeout => "timeout",
            HandshakeError::Full => "too_many",
            HandshakeError::Failed { .. } => "failed",
        }
    }

    /// Whether the peer left without a word about TLS, as those do that only look whether somebody listens.
    pub fn is_departure(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        matches!(self, HandshakeError::Failed { error, .. }
            if matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe))
    }
}

impl std::fmt::Debug for TlsEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl TlsEndpoint {
    /// Loads the files of the listener called `listener`, which has at most `max_handshakes` in progress. `protocols`
    /// are ALPN's names; none: any are taken. A certificate outside its time is used all the same, and said loudly: at
    /// start there is no other, and a box whose clock lost the time must still be reachable.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn load(
        listener: &'static str,
        files: &TlsFiles,
        protocols: &'static [&'static [u8]],
        max_handshakes: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, TlsError> {
        let found = stamp(files);
        let LoadedTls { config, facts, lists } = load(files, protocols)?;
        if let Some(warning) = open_key(files) {
            tracing::warn!(listener, "{warning}");
        }
        let now_ms = clock.now_ms();
        let state = EndpointState {
            files: files.clone(),
            facts,
            lists,
            loaded_ms: now_ms,
            error: None,
            tried: found.clone(),
            seen: found,
            reminded_ms: 0,
            lists_reminded_ms: 0,
        };
        let endpoint = Self {
            listener,
            protocols,
            clock,
            handshakes: PendingConnections::new(max_handshakes),
            current: RwLock::new(config),
            state: Mutex::new(state),
        };
        endpoint.announce(&endpoint.lock());
        endpoint.remind(&mut endpoint.lock());
        Ok(Arc::new(endpoint))
    }

    fn lock(&self) -> MutexGuard<'_, EndpointState> {
        lock(&self.state)
    }

    fn announce(&self, state: &EndpointState) {
        let EndpointState { facts, lists, files, .. } = state;
        gauge!(names::TLS_EXPIRY, "listener" => self.listener).set(facts.not_after_s as f64);
        gauge!(names::TLS_RELOAD_FAILED, "listener" => self.listener).set(0.0);
        let days = facts.days_left(self.clock.now_ms());
        tracing::info!(listener = self.listener, subject = %facts.subject, days_left = days, "certificate loaded");
        if let Some(CrlFacts { lists, revoked, warnings, .. }) = lists {
            let (file, revoked) = (files.client_crl.display(), revoked.len());
            tracing::info!(listener = self.listener, lists, revoked, "revocation lists loaded");
            warnings.iter().for_each(|warning| tracing::warn!(listener = self.listener, %file, "{warning}"));
        }
        self.announce_lists(lists.as_ref());
    }

    fn announce_lists(&self, lists: Option<&CrlFacts>) {
        let listener = self.listener;
        // None any more is as good as one that holds for ever.
        let next_update = lists.map_or(f64::INFINITY, |lists| lists.next_update_s as f64);
        gauge!(names::TLS_CRL_NEXT_UPDATE, "listener" => listener).set(next_update);
        let revoked = lists.map_or(0, |lists| lists.revoked.len());
        gauge!(names::TLS_CRL_REVOKED, "listener" => listener).set(revoked as f64);
    }

    fn remind(&self, state: &mut EndpointState) {
        let now_ms = self.clock.now_ms();
        let listener = self.listener;
        if let Some(wrong) = state.lists.as_ref().and_then(|lists| overdue(lists, now_ms))
            && now_ms - state.lists_reminded_ms >= REMINDER_MS
        {
            state.lists_reminded_ms = now_ms;
            tracing::warn!(listener, file = %state.files.client_crl.display(), "{wrong}");
        }
        let days = state.facts.days_left(now_ms);
        let wrong = state.facts.wrong_at(now_ms);
        if wrong.is_none() && days >= WARN_BEFORE_DAYS || now_ms - state.reminded_ms < REMINDER_MS {
            return;
        }
        state.reminded_ms = now_ms;
        let file = state.files.cert.display();
        match wrong {
            Some(wrong) => tracing::error!(listener, %file, "the certificate {wrong}: clients will refuse it"),
            None => tracing::warn!(listener, %file, "the certificate expires in {days} days"),
        }
    }

    /// Loads these files, which may be others than before, without using them yet. Reads files: not for the event loop.
    ///
    /// # Errors
    /// They cannot be used, or their certificate is outside its time; the one in use stays, and the status says why.
    pub fn prepare(&self, files: &TlsFiles) -> Result<PreparedCertificate, TlsError> {
        let found = stamp(files);
        let loaded = load(files, self.protocols).and_then(|loaded| match loaded.facts.wrong_at(self.clock.now_ms()) {
            Some(wrong) => Err(TlsError::Time { path: files.cert.clone(), wrong }),
            None => Ok(loaded),
        });
        match loaded {
            Ok(loaded) => Ok(PreparedCertificate { files: files.clone(), found, loaded }),
            Err(error) => {
                let mut state = self.lock();
                if state.files == *files {
                    (state.tried, state.seen) = (found.clone(), found);
                }
                state.error = Some(error.to_string());
                counter!(names::TLS_RELOADS, "listener" => self.listener, "result" => "failed").increment(1);
                gauge!(names::TLS_RELOAD_FAILED, "listener" => self.listener).set(1.0);
                tracing::error!(listener = self.listener, "{error}; what was loaded before stays in use");
                Err(error)
            }
        }
    }

    /// New connections use this certificate from now on, and are judged by these authorities and revocation lists.
    pub fn take(&self, ready: PreparedCertificate) {
        let PreparedCertificate { files, found, loaded: LoadedTls { config, facts, lists } } = ready;
        let mut state = self.lock();
        *sync::write(&self.current) = config;
        (state.tried, state.seen) = (found.clone(), found);
        (state.files, state.facts, state.lists) = (files, facts, lists);
        (state.loaded_ms, state.error) = (self.clock.now_ms(), None);
        (state.reminded_ms, state.lists_reminded_ms) = (0, 0);
        counter!(names::TLS_RELOADS, "listener" => self.listener, "result" => "loaded").increment(1);
        self.announce(&state);
        self.remind(&mut state);
    }

    /// Looks whether the files have changed and, once two looks found them alike, reads them again: a certificate and
    /// its key are replaced one after the other. Returns whether others are in use now. Reads files: not for the event loop.
    pub fn watch(&self) -> bool {
        let files = self.lock().files.clone();
        let found = stamp(&files);
        let changed = {
            let mut state = self.lock();
            self.remind(&mut state);
            let still = found == state.seen;
            state.seen.clone_from(&found);
            still && found != state.tried
        };
        // Whatever is wrong was logged and stands in the status.
        let ready = if changed { self.prepare(&files).ok() } else { None };
        ready.map(|ready| self.take(ready)).is_some()
    }

    /// The client certificates that the lists in use revoke.
    pub fn revoked(&self) -> RevokedCertificates {
        self.lock().lists.as_ref().map(|lists| lists.revoked.clone()).unwrap_or_default()
    }

    /// The certificate in use.
    pub fn status(&self) -> CertificateStatus {
        let state = self.lock();
        let now_ms = self.clock.now_ms();
        let lists = state.lists.as_ref().map(|lists| CrlStatus {
            lists: lists.lists,
            revoked: lists.revoked.len(),
            next_update: lists.next_update_s.saturating_mul(1_000),
            overdue: lists.is_overdue(now_ms),
        });
        CertificateStatus {
            listener: self.listener,
            subject: state.facts.subject.clone(),
            not_before: state.facts.not_before_s.saturating_mul(1_000),
            not_after: state.facts.not_after_s.saturating_mul(1_000),
            days_left: state.facts.days_left(now_ms),
            loaded: state.loaded_ms,
            error: state.error.clone(),
            client_crl: lists,
        }
    }

    /// Handshakes in progress.
    pub fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    /// Shakes hands with a peer that has just connected, within `patience`. Counts how it ends.
    ///
    /// # Errors
    /// It takes too long, fails, or is given up because too many others are in progress.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        patience: Duration,
    ) -> Result<Box<TlsStream<S>>, HandshakeError> {
        // Boxed, as what comes out of it: a connection's task, which is as large as the largest that it does, outlives it.
        let accepted = Box::pin(self.shake(stream, patience)).await.map(Box::new);
        let result = accepted.as_ref().map_or_else(HandshakeError::label, |_| "ok");
        counter!(names::TLS_HANDSHAKES, "listener" => self.listener, "result" => result).increment(1);
        accepted
    }

    async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        patience: Duration,
    ) -> Result<TlsStream<S>, HandshakeError> {
        let ticket = self.handshakes.admit(Instant::now()).ok_or(HandshakeError::Full)?;
        let config = Arc::clone(&sync::read(&self.current));
        let shake = telling(TlsAcceptor::from(config).accept(stream));
        tokio::select! {
            accepted = timeout(patience, shake) => match accepted {
                Ok(accepted) => {
                    accepted.map_err(|(error, certificate)| HandshakeError::Failed { error, certificate })
                }
                Err(_) => Err(HandshakeError::Timeout),
            },
            () = ticket.evicted() => Err(HandshakeError::Full),
        }
    }
}
