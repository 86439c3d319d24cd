//! Admission control for connections of every transport: limits in total and by address, and the tasks of admitted
//! connections. Who a client is, is decided later, at its CONNECT (`login`).

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics::gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::peer::Peer;
use super::service;
use crate::access::Policy;
use crate::admission::{
    AddressLimits, AddressPermit, CONNECTION_BYTES, PendingConnections, PendingMemory, PendingPermit,
};
use crate::config::{LimitsConfig, RatesConfig};
use crate::log::{Log, Lsn};
use crate::mqtt::broker::meters::MqttLimit;
use crate::mqtt::broker::{SessionStore, UnmatchedTopicList, UserUsage};
use crate::mqtt::connection::broker_context::BrokerContext;
use crate::mqtt::wire::refusal::RefusalReason;
use crate::mqtt::wire::topic;
use crate::pipeline::handle::Pipeline;
use crate::pipeline::map_watch::{MapWatch, WatchFilter};
use crate::telemetry::audit::AuditActor;
use crate::telemetry::names;
use crate::tls::RevokedCertificates;

/// Sockets accepted beyond `mqtt.max_connections`, so that their clients can be refused with a CONNACK.
const EXTRA_SOCKETS: usize = 64;

/// Admits connections of every transport to one broker. Clones share it.
#[derive(Debug, Clone)]
pub struct AdmissionControl(Arc<AdmissionState>);

#[derive(Debug)]
struct AdmissionState {
    shared: Arc<BrokerContext>,
    sockets: Arc<AtomicUsize>,
    addresses: Arc<AddressLimits>,
    /// Connections whose CONNECT has not come yet. The number of sockets bounds it.
    pending: Arc<PendingConnections>,
    /// Memory of all connections that have not logged in, those of HTTP included.
    pending_bytes: Arc<PendingConnections>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    /// Cancelled once connections are admitted.
    opened: CancellationToken,
}

/// Permission to serve one connection. Its socket counts until the permit is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    _socket: OpenSocket,
    _from: AddressPermit,
    address: Option<IpAddr>,
    pending: PendingPermit,
    held: Arc<PendingMemory>,
    /// Time by which the CONNECT must be complete.
    deadline: Instant,
}

/// Counts one socket while it lives, whatever ends its task.
#[derive(Debug)]
struct OpenSocket(Arc<AtomicUsize>);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// weir starts or stops.
    #[error("weir does not take MQTT connections at this moment")]
    Closed,
    /// `mqtt.max_connections` is reached.
    #[error("mqtt.max_connections is reached")]
    Full,
    /// `mqtt.max_connections_per_address` is reached for this address.
    #[error("mqtt.max_connections_per_address is reached")]
    Address,
    /// Clients that have not logged in hold `limits.pending_bytes`.
    #[error("limits.pending_bytes is reached")]
    Memory,
}

impl AdmissionError {
    fn refusal(self) -> RefusalReason {
        match self {
            AdmissionError::Closed => RefusalReason::ShuttingDown,
            AdmissionError::Full => RefusalReason::MaxConnections,
            AdmissionError::Address => RefusalReason::MaxConnectionsPerAddress,
            AdmissionError::Memory => RefusalReason::PendingBytes,
        }
    }
}

impl ConnectionPermit {
    /// The memory that the connection holds before its login.
    pub fn held(&self) -> &Arc<PendingMemory> {
        &self.held
    }
}

impl AdmissionControl {
    pub(super) fn new(shared: Arc<BrokerContext>) -> Self {
        let pending_bytes = PendingConnections::new("bytes", LimitsConfig::default().pending_bytes);
        shared.access.set_pending_bytes(Arc::clone(&pending_bytes));
        Self(Arc::new(AdmissionState {
            sockets: Arc::default(),
            addresses: AddressLimits::new(shared.config.max_connections_per_address),
            pending: PendingConnections::new("connections", usize::MAX),
            pending_bytes,
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            opened: CancellationToken::new(),
            shared,
        }))
    }

    pub(super) fn broker_context(&self) -> &Arc<BrokerContext> {
        &self.0.shared
    }

    /// Sets the largest memory of all connections that have not logged in.
    pub fn set_pending_bytes(&self, bytes: usize) {
        self.0.pending_bytes.set_limit(bytes);
    }

    /// The memory of all connections that have not logged in, for listeners of other protocols.
    pub fn pending_bytes(&self) -> &Arc<PendingConnections> {
        &self.0.pending_bytes
    }

    /// Evicts a connection without a CONNECT, because the process has no file descriptor for another one.
    pub(super) fn free_socket(&self) {
        self.0.pending.evict_for(None, Instant::now());
    }

    /// Sets the gauge of pending bytes, and those of the broker. Called once per second.
    pub(super) fn measure(&self) {
        gauge!(names::PENDING_BYTES).set(self.0.pending_bytes.held() as f64);
        self.0.shared.measure();
    }

    /// Begins to admit connections.
    pub(super) fn open(&self) {
        self.0.opened.cancel();
    }

    /// Stops admitting connections, tells the admitted ones to end, and waits for them no longer than `patience`.
    pub(super) async fn close(&self, patience: Duration) {
        self.0.cancel.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(patience, self.0.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.0.tasks.len(), "MQTT connections did not end in time");
        }
    }

    /// Waits until connections are admitted, no longer than a CONNECT may take. At a start the journal is recovered first.
    pub async fn opened(&self) {
        let patience = Duration::from_millis(self.0.shared.config.connect_timeout_ms);
        let _ = crate::stall::timeout(patience, self.0.opened.cancelled()).await;
    }

    /// Asks for a permit to serve a connection from `address`. At the bound, the connection that has waited longest without a
    /// CONNECT is ended in its favour. A refusal is counted.
    ///
    /// # Errors
    /// A bound is reached, or weir starts or stops.
    pub fn admit(&self, address: Option<IpAddr>) -> Result<ConnectionPermit, AdmissionError> {
        self.try_admit(address).inspect_err(|refused| {
            self.0.shared.refuse(&AuditActor { address, ..AuditActor::default() }, refused.refusal());
            match refused {
                AdmissionError::Closed => {}
                AdmissionError::Full => self.0.shared.meters.limit(MqttLimit::Connections),
                AdmissionError::Address => self.0.shared.meters.limit(MqttLimit::ConnectionsPerAddress),
                AdmissionError::Memory => self.0.shared.meters.limit(MqttLimit::PendingBytes),
            }
        })
    }

    fn try_admit(&self, address: Option<IpAddr>) -> Result<ConnectionPermit, AdmissionError> {
        if !self.0.opened.is_cancelled() || self.0.cancel.is_cancelled() {
            return Err(AdmissionError::Closed);
        }
        let from = self.0.addresses.admit(address).ok_or(AdmissionError::Address)?;
        let now = Instant::now();
        let full = self.0.sockets.load(Ordering::Relaxed) >= self.0.shared.config.max_connections + EXTRA_SOCKETS;
        if full && !self.0.pending.evict_for(address, now) {
            return Err(AdmissionError::Full);
        }
        let evicted = CancellationToken::new();
        let held = PendingMemory::hold(&self.0.pending_bytes, address, CONNECTION_BYTES, evicted.clone());
        let held = held.ok_or(AdmissionError::Memory)?;
        let pending = self.0.pending.admit_with(address, 1, now, evicted).ok_or(AdmissionError::Full)?;
        self.0.sockets.fetch_add(1, Ordering::Relaxed);
        let socket = OpenSocket(Arc::clone(&self.0.sockets));
        let deadline = now + Duration::from_millis(self.0.shared.config.connect_timeout_ms);
        Ok(ConnectionPermit { _socket: socket, _from: from, address, pending, held, deadline })
    }

    /// Restores the sessions of `store` that the access policy allows, and stores changes there from now on. `journal_end` is the
    /// end of the journal before this start. Blocks while it reads and decodes all sessions: not for the event loop.
    pub fn keep_sessions(&self, store: SessionStore, journal_end: Lsn) {
        let BrokerContext { access, broker, .. } = &**self.broker_context();
        let version = access.version();
        broker.keep_sessions(store, journal_end, &access.policy());
        if access.version() != version {
            // A new policy came meanwhile. It may have been applied to all sessions before these were among them.
            broker.restrict(&access.policy());
        }
    }

    /// The tenants, the `most` users that hold most, and the number of users that hold something, see `Broker::usage`.
    pub fn usage(&self, most: usize) -> (Vec<UserUsage>, Vec<UserUsage>, usize) {
        self.0.shared.broker.usage(most)
    }

    /// Topics that are no ingest topics, the most frequent first, see `BrokerContext::unmatched_topics`.
    pub fn unmatched_topics(&self, all: bool, most: usize) -> UnmatchedTopicList {
        self.0.shared.unmatched_topics(all, most)
    }

    /// Publishes on topics that maps ignore, by name of the map, since the start.
    pub fn ignored_by_maps(&self) -> Vec<(String, u64)> {
        self.0.shared.ignored.counts().map(|(map, count)| (map.to_owned(), count)).collect()
    }

    /// Opens a view of what becomes of messages that maps take, of those that they ignore, and of those that no map takes: those on
    /// topics that match `topic`, and those of `map`, where these are given. `None`: as many views are open as may be.
    pub fn watch_maps(
        &self,
        topic: Option<String>,
        map: Option<String>,
        journal: &Log,
        pipeline: &Pipeline,
    ) -> Option<MapWatch> {
        let is_wanted = move |name: &str| topic.as_ref().is_none_or(|filter| topic::matches(filter, name));
        let filter = WatchFilter { map, topic: Box::new(is_wanted) };
        self.0.shared.map_watchers.open(filter, journal, pipeline)
    }

    /// Number of topics that are kept for [`Self::unmatched_topics`], and number of those that gave way to others.
    pub fn unmatched_counts(&self) -> (usize, u64) {
        self.0.shared.unmatched.counts()
    }

    /// Sets how fast clients may send.
    pub fn set_rates(&self, rates: RatesConfig) {
        self.0.shared.rates.set(rates);
    }

    /// Puts a new access policy in force. It is applied to all connections and sessions before this returns, which takes part
    /// of a second where there are very many.
    pub fn set_policy(&self, policy: Policy) {
        self.0.shared.access.replace(policy);
        self.0.shared.broker.restrict(&self.0.shared.access.policy());
        self.0.shared.rates.note_change();
    }

    /// Sets the revoked client certificates, and ends the connections whose clients presented one. Otherwise as
    /// [`AdmissionControl::set_policy`].
    pub fn set_revoked(&self, revoked: RevokedCertificates) {
        if self.0.shared.access.policy().revoked == revoked {
            return;
        }
        self.0.shared.access.revoke(revoked);
        self.0.shared.broker.restrict(&self.0.shared.access.policy());
    }

    /// Runs `work` as a task that a shutdown waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(work);
    }

    /// Runs work that precedes the CONNECT, such as a TLS handshake, no longer than until the deadline of the CONNECT. `None`
    /// where it did not end in time, its place was needed for another connection, or weir stops; the refusal is counted.
    pub async fn prepare<T>(&self, permit: &ConnectionPermit, work: impl Future<Output = T>) -> Option<T> {
        let reason = tokio::select! {
            done = tokio::time::timeout_at(permit.deadline.into(), work) => match done {
                Ok(done) => return Some(done),
                Err(_) => RefusalReason::ConnectTimeout,
            },
            () = self.0.cancel.cancelled() => RefusalReason::ShuttingDown,
            () = permit.pending.evicted() => RefusalReason::TooManyWaiting,
        };
        self.0.shared.refuse(&AuditActor { address: permit.address, ..AuditActor::default() }, reason);
        None
    }

    /// Serves one connection, from its CONNECT to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, peer: Peer, permit: ConnectionPermit) {
        let mut stream = stream;
        let ConnectionPermit { _socket, _from, address: _, pending, held, deadline } = permit;
        let shared = Arc::clone(&self.0.shared);
        let first = tokio::select! {
            first = service::first_packet(&mut stream, &peer, &shared, &held, deadline.into(), &self.0.cancel) => first,
            () = pending.evicted() => return shared.refuse(&peer.who(), RefusalReason::TooManyWaiting),
        };
        drop(pending);
        if let Some(first) = first {
            service::serve(stream, &peer, shared, self.0.cancel.clone(), first, held).await;
        }
    }
}
