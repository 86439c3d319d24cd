//! The MQTT listener: accepts sockets and gives each a task.

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
use crate::clock::SystemClock;
use crate::config::{IngestConfig, MqttConfig};
use crate::log::Log;
use crate::mqtt::broker::Broker;
use crate::mqtt::broker::meters::MqttLimit;
use crate::mqtt::broker::system;
use crate::mqtt::connection::broker_context::BrokerContext;
use crate::mqtt::connection::journal_appender::IngestJournal;
use crate::mqtt::wire::refusal::RefusalReason;
use crate::tls::{HandshakeError, TlsEndpoint};

/// Waits between failing accepts: from the first to the last, doubling.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Between two rounds of storing sessions.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// How often retained messages whose time is over are forgotten where `$SYS` is off.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// How long connections may take to end after a cancellation.
const DRAIN: Duration = Duration::from_secs(3);
/// Between two lines about the same kind of refusal.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Why the door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The address cannot be listened on.
    #[error("cannot listen for MQTT on {address}: {error}; check {key}, and whether another broker runs there")]
    Bind {
        /// The key that names it.
        key: &'static str,
        /// Configured address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

/// A bound address and how its connections begin.
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

/// The MQTT door, bound and not yet accepting.
#[derive(Debug)]
pub struct MqttServer {
    plain: Listener,
    secure: Option<Listener>,
    admission: AdmissionControl,
}

impl MqttServer {
    /// Binds `config.listen`. Publishes on the topics of `ingest` will go to `journal`; `access` says who is let in. Call it inside a tokio runtime
    /// and after the metrics recorder is installed.
    pub async fn bind(
        config: &MqttConfig,
        ingest: &IngestConfig,
        journal: Log,
        access: Arc<Access>,
    ) -> Result<Self, MqttError> {
        Self::bind_to(config, ingest, Arc::new(journal), access).await
    }

    pub(crate) async fn bind_to(
        config: &MqttConfig,
        ingest: &IngestConfig,
        journal: Arc<dyn IngestJournal>,
        access: Arc<Access>,
    ) -> Result<Self, MqttError> {
        let plain = Listener::bind("mqtt.listen", config.listen, None)?;
        let shared = BrokerContext::new(config, ingest, journal, access, Arc::new(SystemClock));
        Ok(Self { plain, secure: None, admission: AdmissionControl::new(Arc::new(shared)) })
    }

    /// Listens on `address` with TLS too.
    ///
    /// # Errors
    /// The address is taken or not one of this machine.
    pub async fn with_tls(mut self, address: SocketAddr, endpoint: Arc<TlsEndpoint>) -> Result<Self, MqttError> {
        self.admission.set_revoked(endpoint.revoked());
        self.secure = Some(Listener::bind("mqtt.tls.listen", address, Some(endpoint))?);
        Ok(self)
    }

    /// The address that is listened on, with the port that the system chose where the configured one is 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.plain.address
    }

    /// The address that is listened on with TLS.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.secure.as_ref().map(|listener| listener.address)
    }

    /// Subscriptions and delivery.
    pub fn broker(&self) -> Arc<Broker> {
        Arc::clone(&self.admission.broker_context().broker)
    }

    /// The way in for connections that come by other listeners. It opens when [`MqttServer::run`] is called.
    pub fn admission(&self) -> AdmissionControl {
        self.admission.clone()
    }

    /// Accepts connections until `cancel`; then tells the connected clients, and returns when they are gone or after
    /// 3 s.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { plain, secure, admission } = self;
        let shared = Arc::clone(admission.broker_context());
        // A client that comes back says what it is now: the wills of the connections that ended with weir come before.
        cancel.run_until_cancelled(service::publish_due(&shared)).await;
        admission.spawn(service::keep_time(Arc::clone(&shared), cancel.clone()));
        admission.open();
        tokio::select! {
            () = cancel.cancelled() => {}
            // None of the others ends.
            () = measure(&shared) => {}
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
        admission.broker_context().measure();
    }
}

async fn measure(shared: &BrokerContext) {
    let mut every_second = interval(Duration::from_secs(1));
    every_second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every_second.tick().await;
        shared.measure();
    }
}

/// Forgets retained messages whose time is over, and publishes `$SYS` where it is on.
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

/// Stores sessions and wills that changed, off the event loop: there may be many.
async fn store_sessions(shared: &Arc<BrokerContext>) {
    let mut every = interval(STORE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let shared = Arc::clone(shared);
        let storing = move || shared.broker.store_sessions(shared.journal.durable());
        if tokio::task::spawn_blocking(storing).await.is_err() {
            tracing::error!("storing MQTT sessions panicked; please report this defect");
        }
    }
}

fn publish_system(shared: &BrokerContext, started: Instant) {
    let BrokerContext { broker, meters, .. } = shared;
    let uptime = shared.now().saturating_duration_since(started);
    let counts = meters.traffic.counts();
    for (topic, value) in system::messages(&broker.stats(), &counts, meters.dropped_queue_full.get(), uptime) {
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
                // Out of file descriptors, mostly: it stays so until a connection ends.
                acceptor.warn(&format!("cannot accept MQTT connections: {error}"));
                admission.broker_context().meters.limit(MqttLimit::Accept);
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
        // A small packet is not to wait for the acknowledgement of the one before it.
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
    match admission.prepare(&permit, endpoint.accept(stream, patience)).await {
        Some(Ok(stream)) => {
            let peer = Peer::certified(address.ip(), &stream);
            admission.serve(stream, peer, permit).await;
        }
        Some(Err(error)) => {
            tracing::debug!(%address, "{error}");
            admission.broker_context().meters.refused(RefusalReason::TlsHandshake);
            if !error.is_departure() {
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
