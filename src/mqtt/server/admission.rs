//! Admission of connections of all transports: limits in total and per address, and the tasks of admitted connections.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::peer::Peer;
use super::service;
use crate::access::Policy;
use crate::admission::{AddressLimits, AddressPermit, PendingConnections, PendingPermit};
use crate::config::RatesConfig;
use crate::log::Lsn;
use crate::mqtt::broker::SessionStore;
use crate::mqtt::broker::meters::MqttLimit;
use crate::mqtt::connection::broker_context::BrokerContext;
use crate::mqtt::wire::refusal::RefusalReason;

use crate::telemetry::audit::AuditActor;
use crate::tls::RevokedCertificates;

/// Sockets beyond `max_connections` that are accepted to be told so at their CONNECT.
const EXTRA_SOCKETS: usize = 64;

/// Admits connections of every transport to one door. Clones share it.
#[derive(Debug, Clone)]
pub struct AdmissionControl(Arc<AdmissionState>);

#[derive(Debug)]
struct AdmissionState {
    shared: Arc<BrokerContext>,
    sockets: Arc<AtomicUsize>,
    addresses: Arc<AddressLimits>,
    /// Connections whose CONNECT has not come yet. The number of sockets bounds it.
    pending: Arc<PendingConnections>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    /// Cancelled once the door is open.
    opened: CancellationToken,
}

/// Permission to serve one connection. Its socket counts until the permit is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    _socket: OpenSocket,
    _from: AddressPermit,
    address: Option<IpAddr>,
    pending: PendingPermit,
    /// Until when CONNECT must have come.
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
    /// As many connections as there may be.
    #[error("mqtt.max_connections is reached")]
    Full,
    /// As many from this address as there may be.
    #[error("mqtt.max_connections_per_address is reached")]
    Address,
}

impl AdmissionError {
    fn refusal(self) -> RefusalReason {
        match self {
            AdmissionError::Closed => RefusalReason::ShuttingDown,
            AdmissionError::Full => RefusalReason::MaxConnections,
            AdmissionError::Address => RefusalReason::MaxConnectionsPerAddress,
        }
    }
}

impl AdmissionControl {
    pub(super) fn new(shared: Arc<BrokerContext>) -> Self {
        Self(Arc::new(AdmissionState {
            sockets: Arc::default(),
            addresses: AddressLimits::new(shared.config.max_connections_per_address),
            pending: PendingConnections::new(usize::MAX),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            opened: CancellationToken::new(),
            shared,
        }))
    }

    pub(super) fn broker_context(&self) -> &Arc<BrokerContext> {
        &self.0.shared
    }

    /// From now on connections are admitted.
    pub(super) fn open(&self) {
        self.0.opened.cancel();
    }

    /// From now on none is admitted; those that were are told, and waited for.
    pub(super) async fn close(&self, patience: Duration) {
        self.0.cancel.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(patience, self.0.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.0.tasks.len(), "MQTT connections did not end in time");
        }
    }

    /// Waits until the door is open, no longer than CONNECT may take: the journal comes first at a start.
    pub async fn opened(&self) {
        let patience = Duration::from_millis(self.0.shared.config.connect_timeout_ms);
        let _ = tokio::time::timeout(patience, self.0.opened.cancelled()).await;
    }

    /// Asks for leave to serve a connection from `address`. Where there are as many connections as there may be, one that
    /// has not sent its CONNECT for some time makes room. A refusal is counted.
    ///
    /// # Errors
    /// A bound is reached, or the door is closed.
    pub fn admit(&self, address: Option<IpAddr>) -> Result<ConnectionPermit, AdmissionError> {
        self.try_admit(address).inspect_err(|refused| {
            self.0.shared.refuse(&AuditActor { address, ..AuditActor::default() }, refused.refusal());
            match refused {
                AdmissionError::Closed => {}
                AdmissionError::Full => self.0.shared.meters.limit(MqttLimit::Connections),
                AdmissionError::Address => self.0.shared.meters.limit(MqttLimit::ConnectionsPerAddress),
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
        if full && !self.0.pending.evict_oldest(now) {
            return Err(AdmissionError::Full);
        }
        let pending = self.0.pending.admit(now).ok_or(AdmissionError::Full)?;
        self.0.sockets.fetch_add(1, Ordering::Relaxed);
        let socket = OpenSocket(Arc::clone(&self.0.sockets));
        let deadline = now + Duration::from_millis(self.0.shared.config.connect_timeout_ms);
        Ok(ConnectionPermit { _socket: socket, _from: from, address, pending, deadline })
    }

    /// Goes on with the sessions that `store` has, as far as the policy allows, and keeps them there from now on.
    /// `journal_end`: where the journal ended before this start. Reads and decodes all of them: not for the event loop.
    pub fn keep_sessions(&self, store: SessionStore, journal_end: Lsn) {
        let BrokerContext { access, broker, .. } = &**self.broker_context();
        let version = access.version();
        broker.keep_sessions(store, journal_end, &access.policy());
        if access.version() != version {
            // All sessions were judged anew, perhaps before these were among them.
            broker.restrict(&access.policy());
        }
    }

    /// How fast clients may send from now on.
    pub fn set_rates(&self, rates: RatesConfig) {
        self.0.shared.rates.set(rates);
    }

    /// From now on `policy` says who may be here and what they may do. Open connections and kept sessions are judged by
    /// it before this returns; with very many of them that takes part of a second.
    pub fn set_policy(&self, policy: Policy) {
        self.0.shared.access.replace(policy);
        self.0.shared.broker.restrict(&self.0.shared.access.policy());
    }

    /// From now on these client certificates are revoked. Connections of clients that showed one end; as
    /// [`AdmissionControl::set_policy`] otherwise.
    pub fn set_revoked(&self, revoked: RevokedCertificates) {
        if self.0.shared.access.policy().revoked == revoked {
            return;
        }
        self.0.shared.access.revoke(revoked);
        self.0.shared.broker.restrict(&self.0.shared.access.policy());
    }

    /// Runs `work` as one of the tasks that a shutdown ends and waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(work);
    }

    /// Runs what comes before a connection can be served, such as a handshake: no longer than CONNECT may take, and not
    /// when the place is needed for another. `None`: it did not end in time, which is counted.
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
        let ConnectionPermit { _socket, _from, address: _, pending, deadline } = permit;
        let shared = Arc::clone(&self.0.shared);
        let first = tokio::select! {
            first = service::first_packet(&mut stream, &peer, &shared, deadline.into(), &self.0.cancel) => first,
            () = pending.evicted() => return shared.refuse(&peer.who(), RefusalReason::TooManyWaiting),
        };
        drop(pending);
        if let Some(first) = first {
            service::serve(stream, &peer, shared, self.0.cancel.clone(), first).await;
        }
    }
}
