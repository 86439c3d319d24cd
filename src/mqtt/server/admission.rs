//! The way in that all transports share: who is admitted, and the life of what was.

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
use crate::mqtt::connection::around::Door;
use crate::telemetry::audit::AuditActor;
use crate::tls::RevokedCertificates;

/// Sockets beyond `max_connections` that are accepted to be told so at their CONNECT.
const EXTRA_SOCKETS: usize = 64;

/// Admits connections of every transport to one door. Clones share it.
#[derive(Debug, Clone)]
pub struct Entrance(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    door: Arc<Door>,
    sockets: Arc<AtomicUsize>,
    addresses: Arc<AddressLimits>,
    /// Those whose CONNECT has not come; bounded by the sockets.
    lobby: Arc<PendingConnections>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    /// Cancelled once the door is open.
    opened: CancellationToken,
}

/// Leave to be served. The socket counts until it is dropped.
#[derive(Debug)]
pub struct Admission {
    _socket: OpenSocket,
    _from: AddressPermit,
    address: Option<IpAddr>,
    ticket: PendingPermit,
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
pub enum NotAdmitted {
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

impl NotAdmitted {
    /// Label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            NotAdmitted::Closed => "shutting_down",
            NotAdmitted::Full => "max_connections",
            NotAdmitted::Address => "max_connections_per_address",
        }
    }
}

impl Entrance {
    pub(super) fn new(door: Arc<Door>) -> Self {
        Self(Arc::new(Inner {
            sockets: Arc::default(),
            addresses: AddressLimits::new(door.config.max_connections_per_address),
            lobby: PendingConnections::new(usize::MAX),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            opened: CancellationToken::new(),
            door,
        }))
    }

    pub(super) fn door(&self) -> &Arc<Door> {
        &self.0.door
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
        let patience = Duration::from_millis(self.0.door.config.connect_timeout_ms);
        let _ = tokio::time::timeout(patience, self.0.opened.cancelled()).await;
    }

    /// Asks for leave to serve a connection from `address`. Where there are as many connections as there may be, one that
    /// has not sent its CONNECT for some time makes room. A refusal is counted.
    ///
    /// # Errors
    /// A bound is reached, or the door is closed.
    pub fn admit(&self, address: Option<IpAddr>) -> Result<Admission, NotAdmitted> {
        self.try_admit(address).inspect_err(|refused| {
            self.0.door.refuse(&AuditActor { address, ..AuditActor::default() }, refused.label());
            match refused {
                NotAdmitted::Closed => {}
                NotAdmitted::Full => self.0.door.meters.limit("mqtt_connections"),
                NotAdmitted::Address => self.0.door.meters.limit("mqtt_connections_per_address"),
            }
        })
    }

    fn try_admit(&self, address: Option<IpAddr>) -> Result<Admission, NotAdmitted> {
        if !self.0.opened.is_cancelled() || self.0.cancel.is_cancelled() {
            return Err(NotAdmitted::Closed);
        }
        let from = self.0.addresses.admit(address).ok_or(NotAdmitted::Address)?;
        let now = Instant::now();
        let full = self.0.sockets.load(Ordering::Relaxed) >= self.0.door.config.max_connections + EXTRA_SOCKETS;
        if full && !self.0.lobby.evict_oldest(now) {
            return Err(NotAdmitted::Full);
        }
        let ticket = self.0.lobby.admit(now).ok_or(NotAdmitted::Full)?;
        self.0.sockets.fetch_add(1, Ordering::Relaxed);
        let socket = OpenSocket(Arc::clone(&self.0.sockets));
        let deadline = now + Duration::from_millis(self.0.door.config.connect_timeout_ms);
        Ok(Admission { _socket: socket, _from: from, address, ticket, deadline })
    }

    /// Goes on with the sessions that `store` has, as far as the policy allows, and keeps them there from now on.
    /// `journal_end`: where the journal ended before this start. Reads and decodes all of them: not for the event loop.
    pub fn keep_sessions(&self, store: SessionStore, journal_end: Lsn) {
        let Door { access, broker, .. } = &**self.door();
        let version = access.version();
        broker.keep_sessions(store, journal_end, &access.policy());
        if access.version() != version {
            // All sessions were judged anew, perhaps before these were among them.
            broker.restrict(&access.policy());
        }
    }

    /// How fast clients may send from now on.
    pub fn set_rates(&self, rates: RatesConfig) {
        self.0.door.rates.set(rates);
    }

    /// From now on `policy` says who may be here and what they may do. Open connections and kept sessions are judged by
    /// it before this returns; with very many of them that takes part of a second.
    pub fn set_policy(&self, policy: Policy) {
        self.0.door.access.replace(policy);
        self.0.door.broker.restrict(&self.0.door.access.policy());
    }

    /// From now on these client certificates are revoked. Connections of clients that showed one end; as
    /// [`Entrance::set_policy`] otherwise.
    pub fn set_revoked(&self, revoked: RevokedCertificates) {
        if self.0.door.access.policy().revoked == revoked {
            return;
        }
        self.0.door.access.revoke(revoked);
        self.0.door.broker.restrict(&self.0.door.access.policy());
    }

    /// Runs `work` as one of the tasks that a shutdown ends and waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(work);
    }

    /// Runs what comes before a connection can be served, such as a handshake: no longer than CONNECT may take, and not
    /// when the place is needed for another. `None`: it did not end in time, which is counted.
    pub async fn prepare<T>(&self, admission: &Admission, work: impl Future<Output = T>) -> Option<T> {
        let reason = tokio::select! {
            done = tokio::time::timeout_at(admission.deadline.into(), work) => match done {
                Ok(done) => return Some(done),
                Err(_) => "connect_timeout",
            },
            () = self.0.cancel.cancelled() => "shutting_down",
            () = admission.ticket.evicted() => "too_many_waiting",
        };
        self.0.door.refuse(&AuditActor { address: admission.address, ..AuditActor::default() }, reason);
        None
    }

    /// Serves one connection, from its CONNECT to its end.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, peer: Peer, admission: Admission) {
        let mut stream = stream;
        let Admission { _socket, _from, address: _, ticket, deadline } = admission;
        let door = Arc::clone(&self.0.door);
        let first = tokio::select! {
            first = service::first_packet(&mut stream, &peer, &door, deadline.into(), &self.0.cancel) => first,
            () = ticket.evicted() => return door.refuse(&peer.who(), "too_many_waiting"),
        };
        drop(ticket);
        if let Some(first) = first {
            service::serve(stream, &peer, door, self.0.cancel.clone(), first).await;
        }
    }
}
