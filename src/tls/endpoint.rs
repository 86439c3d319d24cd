//! The certificate of one TLS listener: loaded at start, watched, replaced while connections stay open.
//!
//! A reload has two steps. [`TlsEndpoint::prepare`] reads and checks the files and changes nothing, and
//! [`TlsEndpoint::replace`] cannot fail. So a reload of several listeners either takes effect in all of them or in none.

use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use metrics::{counter, gauge};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::certificate::{CertificateFacts, WARN_BEFORE_DAYS};
use super::check::{overdue, readable_key};
use super::crl::CrlFacts;
use super::error::TlsError;
use super::file_stamps::{FileStamps, file_stamps};
use super::handshake::{HandshakeClient, HandshakeError, handshake};
use super::handshake_stream::HandshakeStream;
use super::load::{LoadedTls, load};
use super::revoked::RevokedCertificates;
use super::status::{CertificateStatus, CrlStatus};
use crate::admission::PendingConnections;
use crate::clock::Clock;
use crate::config::TlsFiles;
use crate::sync::{self, lock};
use crate::telemetry::names;

/// Time between two log lines about the same certificate or list.
const REMINDER_MS: i64 = 86_400_000;

/// The certificate of one listener. New connections use the newest certificate that could be loaded; open connections
/// keep theirs.
///
/// Lock order: `state` before `current`. [`TlsEndpoint::replace`] changes both while it holds `state`; handshakes only take
/// `current`, and never wait for a file to be read.
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
    crls: Option<CrlFacts>,
    loaded_ms: i64,
    error: Option<String>,
    /// Stamps of the files when they were last read.
    tried: FileStamps,
    /// Stamps of the files at the last call of [`TlsEndpoint::watch`].
    seen: FileStamps,
    /// Time of the last log line about the certificate's end.
    reminded_ms: i64,
    /// Time of the last log line about overdue revocation lists.
    crl_reminded_ms: i64,
}

/// A certificate that was loaded and checked, and is not in use yet.
pub struct PreparedCertificate {
    files: TlsFiles,
    found: FileStamps,
    loaded: LoadedTls,
}

impl std::fmt::Debug for PreparedCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedCertificate").field("subject", &self.loaded.facts.subject).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TlsEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsEndpoint").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl TlsEndpoint {
    /// Loads the files of the listener named `listener`, which runs at most `max_handshakes` handshakes at once.
    /// `protocols` are ALPN names; with none, any protocol of the client is accepted.
    ///
    /// A certificate that has expired or is not valid yet is used, with an error in the log: at start there is no other,
    /// and a box whose clock lost the time must still be reachable.
    ///
    /// # Errors
    /// A file cannot be read, or the files do not belong together.
    pub fn load(
        listener: &'static str,
        files: &TlsFiles,
        protocols: &'static [&'static [u8]],
        max_handshakes: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, TlsError> {
        // Before the files are read: a change in between is then found by the next look.
        let found = file_stamps(files);
        let LoadedTls { config, facts, crls } = load(files, protocols)?;
        if let Some(warning) = readable_key(files) {
            tracing::warn!(listener, "{warning}");
        }
        let now_ms = clock.now_ms();
        let state = EndpointState {
            files: files.clone(),
            facts,
            crls,
            loaded_ms: now_ms,
            error: None,
            tried: found.clone(),
            seen: found,
            reminded_ms: 0,
            crl_reminded_ms: 0,
        };
        let endpoint = Self {
            listener,
            protocols,
            clock,
            handshakes: PendingConnections::new("tls_handshakes", max_handshakes),
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
        let EndpointState { facts, crls, files, .. } = state;
        gauge!(names::TLS_EXPIRY, "listener" => self.listener).set(facts.not_after_s as f64);
        gauge!(names::TLS_RELOAD_FAILED, "listener" => self.listener).set(0.0);
        let days = facts.days_left(self.clock.now_ms());
        tracing::info!(listener = self.listener, subject = %facts.subject, days_left = days, "certificate loaded");
        if let Some(CrlFacts { lists, revoked, warnings, .. }) = crls {
            let (file, revoked) = (files.client_crl.display(), revoked.len());
            tracing::info!(listener = self.listener, lists, revoked, "revocation lists loaded");
            warnings.iter().for_each(|warning| tracing::warn!(listener = self.listener, %file, "{warning}"));
        }
        self.announce_crls(crls.as_ref());
    }

    fn announce_crls(&self, crls: Option<&CrlFacts>) {
        let listener = self.listener;
        // Without lists nothing becomes overdue: infinity keeps alerts on this gauge silent.
        let next_update = crls.map_or(f64::INFINITY, |crls| crls.next_update_s as f64);
        gauge!(names::TLS_CRL_NEXT_UPDATE, "listener" => listener).set(next_update);
        let revoked = crls.map_or(0, |crls| crls.revoked.len());
        gauge!(names::TLS_CRL_REVOKED, "listener" => listener).set(revoked as f64);
    }

    /// Logs, once a day, that the certificate or a list is about to end or has ended.
    fn remind(&self, state: &mut EndpointState) {
        let now_ms = self.clock.now_ms();
        let listener = self.listener;
        if let Some(wrong) = state.crls.as_ref().and_then(|crls| overdue(crls, now_ms))
            && now_ms - state.crl_reminded_ms >= REMINDER_MS
        {
            state.crl_reminded_ms = now_ms;
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

    /// Loads and checks `files`, which may have other paths than before, without using them yet. It reads files, so it
    /// must not run on the event loop.
    ///
    /// # Errors
    /// The files cannot be used, or the certificate is outside its validity, unlike at start: here the certificate in use
    /// is the better one. It stays in use, and the status shows the error.
    pub fn prepare(&self, files: &TlsFiles) -> Result<PreparedCertificate, TlsError> {
        let found = file_stamps(files);
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
                tracing::error!(listener = self.listener, "{error}; the files loaded before stay in use");
                Err(error)
            }
        }
    }

    /// Uses `prepared` for new connections: its certificate, its authorities and its revocation lists.
    pub fn replace(&self, prepared: PreparedCertificate) {
        let PreparedCertificate { files, found, loaded: LoadedTls { config, facts, crls } } = prepared;
        let mut state = self.lock();
        *sync::write(&self.current) = config;
        (state.tried, state.seen) = (found.clone(), found);
        (state.files, state.facts, state.crls) = (files, facts, crls);
        (state.loaded_ms, state.error) = (self.clock.now_ms(), None);
        (state.reminded_ms, state.crl_reminded_ms) = (0, 0);
        counter!(names::TLS_RELOADS, "listener" => self.listener, "result" => "loaded").increment(1);
        self.announce(&state);
        self.remind(&mut state);
    }

    /// Looks whether the files have changed, and loads them if so. Returns whether new files are in use. It reads files, so
    /// it must not run on the event loop.
    ///
    /// Files are loaded once two calls in a row found the same change, because tools replace a certificate and its key one
    /// after the other.
    pub fn watch(&self) -> bool {
        let files = self.lock().files.clone();
        let found = file_stamps(&files);
        let changed = {
            let mut state = self.lock();
            self.remind(&mut state);
            let still = found == state.seen;
            state.seen.clone_from(&found);
            still && found != state.tried
        };
        // `prepare` logs an error and keeps it for the status.
        let prepared = if changed { self.prepare(&files).ok() } else { None };
        prepared.map(|prepared| self.replace(prepared)).is_some()
    }

    /// The client certificates that the lists in use revoke.
    pub fn revoked(&self) -> RevokedCertificates {
        self.lock().crls.as_ref().map(|crls| crls.revoked.clone()).unwrap_or_default()
    }

    /// Whether the certificate in use is for this host name, which is in lower case.
    pub fn covers(&self, name: &str) -> bool {
        self.lock().facts.covers(name)
    }

    /// The certificate and lists in use, for the status page.
    pub fn status(&self) -> CertificateStatus {
        let state = self.lock();
        let now_ms = self.clock.now_ms();
        let client_crl = state.crls.as_ref().map(|crls| CrlStatus {
            lists: crls.lists,
            revoked: crls.revoked.len(),
            next_update: crls.next_update_s.saturating_mul(1_000),
            overdue: crls.is_overdue(now_ms),
        });
        CertificateStatus {
            listener: self.listener,
            subject: state.facts.subject.clone(),
            not_before: state.facts.not_before_s.saturating_mul(1_000),
            not_after: state.facts.not_after_s.saturating_mul(1_000),
            days_left: state.facts.days_left(now_ms),
            loaded: state.loaded_ms,
            error: state.error.clone(),
            client_crl,
        }
    }

    /// Number of handshakes in progress.
    pub fn handshakes(&self) -> usize {
        self.handshakes.len()
    }

    /// Runs the handshake of a peer that has just connected, within `limit`, and counts its result.
    ///
    /// # Errors
    /// The handshake fails, takes too long, or gives way to other handshakes because too many are in progress.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        client: HandshakeClient<'_>,
        limit: Duration,
    ) -> Result<Box<TlsStream<HandshakeStream<S>>>, HandshakeError> {
        let config = Arc::clone(&sync::read(&self.current));
        // Both the future and the stream are boxed. A connection's task is as large as its largest state, and it outlives
        // the handshake: unboxed, every idle connection would keep the memory that only its handshake needed.
        let accepted = Box::pin(handshake(config, &self.handshakes, stream, client, limit)).await.map(Box::new);
        let result = accepted.as_ref().map_or_else(HandshakeError::as_str, |_| "ok");
        counter!(names::TLS_HANDSHAKES, "listener" => self.listener, "result" => result).increment(1);
        accepted
    }
}
