//! The MQTT server without a listener, for streams of any kind.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use super::service;
use crate::access::{Access, Policy};
use crate::admission::PendingMemory;
use crate::clock::Clock;
use crate::config::{IngestConfig, MqttConfig};
use crate::log::{Log, Lsn};
use crate::mqtt::broker::{Broker, RetainedStore, SessionStore};
use crate::mqtt::connection::broker_context::BrokerContext;

/// Serves MQTT over any stream of bytes, as [`super::MqttServer`] does for each accepted socket. The caller provides the
/// streams and the clock, and polls. Clones share sessions and subscriptions. The simulation uses it.
#[derive(Debug, Clone)]
pub struct StreamServer(pub(in crate::mqtt) Arc<BrokerContext>);

impl StreamServer {
    /// Makes a server that appends publishes on the topics of `ingest` to `journal`. `config.listen` and `config.auth` are not
    /// used. `clock` measures keep-alives and pauses of the journal.
    pub fn new(config: &MqttConfig, ingest: &IngestConfig, journal: Log, clock: Arc<dyn Clock>) -> Self {
        let access = Arc::new(Access::new(Policy::without_users(config.allows_anonymous())));
        Self(Arc::new(BrokerContext::new(config, ingest, Arc::new(journal), access, clock)))
    }

    /// The broker of this server.
    pub fn broker(&self) -> Arc<Broker> {
        Arc::clone(&self.0.broker)
    }

    /// Restores the retained messages and sessions of these stores, as `weir run` does, and stores changes there from now on.
    /// `journal_end` is the end of the journal before this start.
    pub fn restore(&self, retained: RetainedStore, sessions: SessionStore, journal_end: Lsn) {
        let BrokerContext { broker, access, .. } = &*self.0;
        broker.keep_retained(retained);
        broker.keep_sessions(sessions, journal_end, &access.policy());
        broker.mark_restored();
    }

    /// Stores changed sessions and wills, one round; and retained messages where their store was opened again.
    pub fn store_round(&self) {
        let BrokerContext { broker, journal, .. } = &*self.0;
        broker.rewrite_retained();
        broker.store_sessions(journal.durable());
    }

    /// Serves one connection from its CONNECT to its end. `cancel` ends it in an orderly way. Must be polled inside a tokio runtime
    /// with a time driver.
    pub async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, cancel: CancellationToken) {
        let deadline = Instant::now() + Duration::from_millis(self.0.config.connect_timeout_ms);
        let peer = Peer::default();
        let Some(held) = PendingMemory::unlimited() else { return };
        if let Some(first) = service::first_packet(&mut stream, &peer, &self.0, &held, deadline, &cancel).await {
            service::serve(stream, &peer, Arc::clone(&self.0), cancel, first, held).await;
        }
    }
}
