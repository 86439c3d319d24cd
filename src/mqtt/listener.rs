//! The MQTT listener: accepts sockets and gives each a task.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::around::Door;
use super::broker::Broker;
use super::ingest::Journal;
use super::service;
use crate::clock::SystemClock;
use crate::config::{Ingest, Mqtt};
use crate::log::Log;

/// Sockets beyond `max_connections` that are accepted to be told so at their CONNECT.
const EXTRA_SOCKETS: usize = 64;
/// Waits between failing accepts: from the first to the last, doubling.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How long connections may take to end after a cancellation.
const DRAIN: Duration = Duration::from_secs(3);
/// Between two lines about the same kind of refusal.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// Why the door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The address cannot be listened on.
    #[error("cannot listen for MQTT on {address}: {source}; check mqtt.listen, and whether another broker runs there")]
    Bind {
        /// Configured address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// The MQTT door, bound and not yet accepting.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local_addr: SocketAddr,
    door: Arc<Door>,
}

impl Server {
    /// Binds `config.listen`. Publishes on the topics of `ingest` will go to `journal`. Call it inside a tokio runtime
    /// and after the metrics recorder is installed.
    pub async fn bind(config: &Mqtt, ingest: &Ingest, journal: Log) -> Result<Self, MqttError> {
        Self::bind_to(config, ingest, Arc::new(journal)).await
    }

    pub(crate) async fn bind_to(config: &Mqtt, ingest: &Ingest, journal: Arc<dyn Journal>) -> Result<Self, MqttError> {
        let failed = |source| MqttError::Bind { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let door = Door::new(config, ingest, journal, Arc::new(SystemClock));
        Ok(Self { listener, local_addr, door: Arc::new(door) })
    }

    /// The address that is listened on, with the port that the system chose where the configured one is 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Subscriptions and delivery.
    pub fn broker(&self) -> Arc<Broker> {
        Arc::clone(&self.door.broker)
    }

    /// Accepts connections until `cancel`; then tells the connected clients, and returns when they are gone or after
    /// 3 s.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { listener, door, .. } = self;
        let tasks = TaskTracker::new();
        let mut acceptor = Acceptor { door, tasks, cancel: cancel.clone(), sockets: Arc::default(), warned: None };
        let mut every_second = interval(Duration::from_secs(1));
        every_second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = ACCEPT_BACKOFF.0;
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = every_second.tick() => acceptor.measure(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        backoff = ACCEPT_BACKOFF.0;
                        acceptor.accept(stream);
                    }
                    Err(error) => {
                        // Out of file descriptors, mostly: it stays so until a connection ends.
                        acceptor.warn(&format!("cannot accept MQTT connections: {error}"));
                        acceptor.door.meters.limit("mqtt_accept");
                        tokio::select! {
                            () = cancel.cancelled() => break,
                            () = sleep(backoff) => backoff = (backoff * 2).min(ACCEPT_BACKOFF.1),
                        }
                    }
                },
            }
        }
        drop(listener);
        acceptor.tasks.close();
        if timeout(DRAIN, acceptor.tasks.wait()).await.is_err() {
            tracing::warn!(left = acceptor.tasks.len(), "MQTT connections did not end in time");
        }
        acceptor.measure();
    }
}

struct Acceptor {
    door: Arc<Door>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    sockets: Arc<AtomicUsize>,
    warned: Option<Instant>,
}

/// Counts one socket while it lives, whatever ends its task.
struct OpenSocket(Arc<AtomicUsize>);

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Acceptor {
    fn accept(&mut self, stream: TcpStream) {
        if self.sockets.load(Ordering::Relaxed) >= self.door.config.max_connections + EXTRA_SOCKETS {
            self.door.meters.refused("max_connections");
            self.door.meters.limit("mqtt_connections");
            self.warn("mqtt.max_connections is reached: new connections are closed");
            return;
        }
        // A small packet is not to wait for the acknowledgement of the one before it.
        if stream.set_nodelay(true).is_err() {
            return; // the peer is gone already
        }
        self.sockets.fetch_add(1, Ordering::Relaxed);
        let open = OpenSocket(Arc::clone(&self.sockets));
        let (door, cancel) = (Arc::clone(&self.door), self.cancel.clone());
        self.tasks.spawn(async move {
            let _open = open;
            service::serve(stream, door, cancel).await;
        });
    }

    fn measure(&self) {
        self.door.meters.set(&self.door.broker.stats());
        self.door.gate.count_pause(self.door.now());
    }

    fn warn(&mut self, message: &str) {
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            self.warned = Some(Instant::now());
            tracing::warn!("{message}");
        }
    }
}

#[cfg(test)]
mod tests;
