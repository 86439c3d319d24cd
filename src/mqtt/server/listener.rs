//! The MQTT listeners, plain and TLS: they accept sockets and start a task for each. Also the periodic work of the broker.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::admission::{AdmissionControl, ConnectionPermit};
use super::peer::Peer;
use super::service;
use crate::access::Access;
use crate::admission;
use crate::clock::Clock;
use crate::config::{IngestConfig, MqttConfig};
use crate::log::Log;
use crate::mqtt::broker::Broker;
use crate::mqtt::broker::meters::MqttLimit;
use crate::mqtt::broker::system;
use crate::mqtt::connection::broker_context::BrokerContext;
use crate::mqtt::connection::journal_appender::IngestJournal;
use crate::mqtt::wire::refusal::RefusalReason;
use crate::tls::{HandshakeClient, HandshakeError, TlsEndpoint};

/// Shortest and longest wait after a failed accept. The wait doubles with each failure in a row.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Time between two rounds in which sessions are stored.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// Time between two removals of expired retained messages where `$SYS` is off.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// Longest time that connections may take to end after a cancellation.
const DRAIN: Duration = Duration::from_secs(3);
/// Shortest time between two log lines about the same kind of refusal.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Why the MQTT server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The address cannot be listened on.
    #[error("cannot listen for MQTT on {address}: {error}; check {key}, and whether another broker runs there")]
    Bind {
        /// Configuration key of the address.
        key: &'static str,
        /// Configured address.
        address: SocketAddr,
        /// Error of the operating system.
        error: io::Error,
    },
}

/// A bound address, with TLS or without.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<TlsEndpoint>>,
}

impl Listener {
    fn bind(key: &'static str, address: SocketAddr, tls: Option<Arc<TlsEndpoint>>) -> Result<Self, MqttError> {
        let failed = |error| MqttError::Bind { key, address, error };
        let socket = admission::listen(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address, tls })
    }
}

/// The MQTT server, bound and not accepting yet.
#[derive(Debug)]
pub struct MqttServer {
    plain: Listener,
    secure: Option<Listener>,
    admission: AdmissionControl,
}

impl MqttServer {
    /// Binds `config.listen`. Publishes on the topics of `ingest` are appended to `journal`; `access` decides about logins. Must
    /// be called inside a tokio runtime, and after the metrics recorder is installed.
    ///
    /// # Errors
    /// The address is taken, or is not one of this machine.
    pub async fn bind(
        config: &MqttConfig,
        ingest: &IngestConfig,
        journal: Log,
        access: Arc<Access>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MqttError> {
        Self::bind_to(config, ingest, Arc::new(journal), access, clock).await
    }

    pub(crate) async fn bind_to(
        config: &MqttConfig,
        ingest: &IngestConfig,
        journal: Arc<dyn IngestJournal>,
        access: Arc<Access>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MqttError> {
        let plain = Listener::bind("mqtt.listen", config.listen, None)?;
        let shared = BrokerContext::new(config, ingest, journal, access, clock);
        Ok(Self { plain, secure: None, admission: AdmissionControl::new(Arc::new(shared)) })
    }

    /// Adds a TLS listener on `address`.
    ///
    /// # Errors
    /// The address is taken or not one of this machine.
    pub async fn with_tls(mut self, address: SocketAddr, endpoint: Arc<TlsEndpoint>) -> Result<Self, MqttError> {
        self.admission.set_revoked(endpoint.revoked());
        self.secure = Some(Listener::bind("mqtt.tls.listen", address, Some(endpoint))?);
        Ok(self)
    }

    /// Address of the plain listener. Where the configured port is 0, it has the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.plain.address
    }

    /// Address of the TLS listener.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.secure.as_ref().map(|listener| listener.address)
    }

    /// The broker of this server.
    pub fn broker(&self) -> Arc<Broker> {
        Arc::clone(&self.admission.broker_context().broker)
    }

    /// Admission control, for the connections of other listeners (WebSocket). It admits from [`MqttServer::run`] on.
    pub fn admission(&self) -> AdmissionControl {
        self.admission.clone()
    }

    /// Accepts connections until `cancel`. Then it disconnects the clients, and returns when they are gone, after 3 s at most.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { plain, secure, admission } = self;
        let shared = Arc::clone(admission.broker_context());
        // Wills of connections that ended with the previous run are published before any client is served: a client that
        // connects again then reports its present state after its will.
        cancel.run_until_cancelled(service::publish_due(&shared)).await;
        admission.spawn(service::keep_time(Arc::clone(&shared), cancel.clone()));
        admission.open();
        tokio::select! {
            () = cancel.cancelled() => {}
            // The other branches never complete.
            () = measure(&admission) => {}
            () = keep_retained(&shared) => {}
            () = store_sessions(&shared) => {}
            () = accept_all(plain, &admission) => {}
            () = async {
                match secure {
                    Some(listener) => accept_all(listener, &admission).await,
                    None => pending().await,
                }
            } => {}
        }
        admission.close(DRAIN).await;
        admission.measure();
    }
}

async fn measure(admission: &AdmissionControl) {
    let mut every_second = interval(Duration::from_secs(1));
    every_second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every_second.tick().await;
        admission.measure();
    }
}

/// Removes expired retained messages, and publishes `$SYS` where it is on.
async fn keep_retained(shared: &BrokerContext) {
    let started = shared.now();
    let system_every = shared.config.sys_interval_ms.map(|ms| Duration::from_millis(ms.unsigned_abs()));
    let mut every = interval(system_every.unwrap_or(EXPIRE_EVERY));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        shared.broker.expire_retained();
        if system_every.is_some() {
            publish_system(shared, started);
        }
    }
}

/// Stores changed sessions and wills, on a blocking thread: there may be many. Also writes retained messages anew after a
/// failure of their store.
async fn store_sessions(shared: &Arc<BrokerContext>) {
    let mut every = interval(STORE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        while let Some(took) = store_round(shared).await {
            // The disk is left to the journal for as long as the round took.
            sleep(took.min(STORE_EVERY)).await;
        }
    }
}

/// Stores one round. Where more is to be stored at once, waits until the round is on disk, and returns how long it took.
async fn store_round(shared: &Arc<BrokerContext>) -> Option<Duration> {
    let shared = Arc::clone(shared);
    let storing = move || {
        let begun = Instant::now();
        shared.broker.rewrite_retained();
        let more = shared.broker.store_sessions(shared.journal.durable()) && shared.broker.wait_for_round();
        more.then(|| begun.elapsed())
    };
    tokio::task::spawn_blocking(storing).await.unwrap_or_else(|_| {
        tracing::error!("storing MQTT sessions panicked; please report this defect");
        None
    })
}

fn publish_system(shared: &BrokerContext, started: Instant) {
    let BrokerContext { broker, meters, .. } = shared;
    let uptime = shared.now().saturating_duration_since(started);
    let counts = meters.traffic.counts();
    for (topic, value) in system::messages(&broker.stats(), &counts, meters.missed(), uptime) {
        broker.publish_system(topic, value);
    }
}

async fn accept_all(listener: Listener, admission: &AdmissionControl) {
    let mut acceptor = Acceptor { admission, tls: listener.tls, warned: None };
    let mut backoff = ACCEPT_BACKOFF.0;
    loop {
        match listener.socket.accept().await {
            Ok((stream, address)) => {
                backoff = ACCEPT_BACKOFF.0;
                acceptor.accept(stream, address);
            }
            Err(error) => {
                // The usual cause is a lack of file descriptors, which lasts until a connection ends.
                acceptor.warn(&format!("cannot accept MQTT connections: {error}"));
                admission.broker_context().meters.limit(MqttLimit::Accept);
                admission.free_socket();
                sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF.1);
            }
        }
    }
}

struct Acceptor<'a> {
    admission: &'a AdmissionControl,
    tls: Option<Arc<TlsEndpoint>>,
    warned: Option<Instant>,
}

impl Acceptor<'_> {
    fn accept(&mut self, stream: TcpStream, address: SocketAddr) {
        let permit = match self.admission.admit(Some(address.ip())) {
            Ok(permit) => permit,
            Err(refused) => return self.warn(&format!("{refused}: new connections are closed")),
        };
        // A small packet must not wait for the TCP acknowledgement of the previous one.
        if stream.set_nodelay(true).is_err() {
            return; // the peer is gone already
        }
        let admission = self.admission.clone();
        match &self.tls {
            None => self.admission.spawn(async move {
                admission.serve(stream, Peer::at(address.ip()), permit).await;
            }),
            Some(endpoint) => {
                let endpoint = Arc::clone(endpoint);
                self.admission.spawn(async move {
                    serve_tls(stream, address, &endpoint, &admission, permit).await;
                });
            }
        }
    }

    fn warn(&mut self, message: &str) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            tracing::warn!("{message}");
        }
    }
}

async fn serve_tls(
    stream: TcpStream,
    address: SocketAddr,
    endpoint: &TlsEndpoint,
    admission: &AdmissionControl,
    permit: ConnectionPermit,
) {
    let patience = Duration::from_millis(admission.broker_context().config.connect_timeout_ms);
    let client = HandshakeClient { address: Some(address.ip()), held: permit.held() };
    match admission.prepare(&permit, endpoint.accept(stream, client, patience)).await {
        Some(Ok(stream)) => {
            let peer = Peer::certified(address.ip(), &stream);
            admission.serve(stream, peer, permit).await;
        }
        Some(Err(error)) => {
            tracing::debug!(%address, "{error}");
            admission.broker_context().meters.refused(RefusalReason::TlsHandshake);
            if !error.is_disconnect() {
                let peer = Peer::at(address.ip());
                admission.broker_context().note_refusal(&peer.who(), RefusalReason::TlsHandshake, &error.to_string());
            }
            if matches!(error, HandshakeError::Full) {
                admission.broker_context().meters.limit(MqttLimit::TlsHandshakes);
            }
        }
        None => {}
    }
}

#[cfg(test)]
mod tests;
