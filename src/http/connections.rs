//! Connections of the HTTP server: how many there may be, how each is served, and how all end.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{PendingConnections, PendingPermit};
use crate::http::hosts::ReachedListener;
use crate::http::stall_timer::StallTimer;
use crate::http::transport::{HttpTransport, TimedStream};
use crate::sync::lock;
use crate::telemetry::names;
use crate::tls::TlsEndpoint;

/// Connections at a time. For a further one the connection that has been idle longest is evicted; where none has been idle
/// long enough, the new one gets a short 503.
const MAX_CONNECTIONS: usize = 512;
/// Time for the head of a request, also the time that a connection may be idle before the next.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Time without progress after which a client that does not read loses its connection.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// Time for a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Largest head of a request.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Time that open requests get at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept: the usual cause, no file descriptors, does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The answer to one connection too many. It is written to a socket that no HTTP code serves.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 114\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"too many connections; try again later\"}";

/// All connections of the server.
pub(super) struct HttpConnections {
    router: Router,
    permits: Arc<Semaphore>,
    /// Connections without a request at the moment; bounded by the permits.
    idle: Arc<PendingConnections>,
    /// Counts, by its clones, the connections that wait for the permit of an evicted one.
    promised: Arc<()>,
    tracker: TaskTracker,
    /// Cancelled when connections must finish their requests and end.
    closing: CancellationToken,
    /// Cancelled when the time to finish is over.
    abandon: CancellationToken,
}

impl HttpConnections {
    /// No connections yet. `closing` is cancelled in [`HttpConnections::close`], for streams too.
    pub fn new(router: Router, closing: CancellationToken) -> Self {
        Self {
            router,
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            idle: PendingConnections::new(usize::MAX),
            promised: Arc::default(),
            tracker: TaskTracker::new(),
            closing,
            abandon: CancellationToken::new(),
        }
    }

    /// Accepts and serves connections; does not end.
    pub async fn accept_all(&self, listener: &TcpListener, tls: Option<&Arc<TlsEndpoint>>) {
        let is_exposed = listener.local_addr().is_ok_and(|bound| !bound.ip().is_loopback());
        loop {
            match listener.accept().await {
                Ok((stream, address)) => {
                    let own = stream.local_addr().map_or(Ipv4Addr::LOCALHOST.into(), |own| own.ip().to_canonical());
                    self.serve(stream, address, ReachedListener { address: own, is_exposed, endpoint: tls.cloned() });
                }
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, address: SocketAddr, listener: ReachedListener) {
        let now = std::time::Instant::now();
        // A permit that an evicted connection gives back is promised to the connection that it was evicted for.
        let permit = match Arc::strong_count(&self.promised) {
            1 => self.permits.clone().try_acquire_owned().ok(),
            _ => None,
        };
        if permit.is_none() {
            metrics::counter!(names::LIMITS_HIT, "limit" => "http_connections").increment(1);
            if !self.idle.evict_oldest(now) {
                // The socket's buffer is empty: it takes this at once or the peer is gone.
                if listener.endpoint.is_none() {
                    let _ = stream.try_write(BUSY);
                }
                return;
            }
        }
        // Answers are written whole: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let one = HttpConnection {
            router: self.router.clone(),
            address,
            listener,
            closing: self.closing.clone(),
            abandon: self.abandon.clone(),
            idleness: Idleness::new(&self.idle, now),
        };
        let permits = self.permits.clone();
        let promised = permit.is_none().then(|| self.promised.clone());
        let evicted = one.idleness.evicted.clone();
        let served = async move {
            let _permit = match permit {
                Some(permit) => Ok(permit),
                // The permit of the connection that was just evicted.
                None => permits.acquire_owned().await,
            };
            drop(promised);
            one.handshake_and_run(stream).await;
        };
        self.tracker.spawn(async move { evicted.run_until_cancelled(served).await });
    }

    /// Lets open requests finish for a few seconds, then cuts them off.
    pub async fn close(self) {
        self.closing.cancel();
        self.tracker.close();
        if time::timeout(GRACE, self.tracker.wait()).await.is_err() {
            tracing::warn!(connections = self.tracker.len(), "HTTP requests are cut off");
            self.abandon.cancel();
            self.tracker.wait().await;
        }
    }
}

/// One connection.
struct HttpConnection {
    router: Router,
    address: SocketAddr,
    listener: ReachedListener,
    closing: CancellationToken,
    abandon: CancellationToken,
    idleness: Arc<Idleness>,
}

/// Whether a connection is idle: while it is, it may be evicted for another one.
struct Idleness {
    idle: Arc<PendingConnections>,
    permit: Mutex<Option<PendingPermit>>,
    /// Cancelled when the connection is evicted.
    evicted: CancellationToken,
}

impl Idleness {
    fn new(idle: &Arc<PendingConnections>, now: std::time::Instant) -> Arc<Self> {
        let evicted = CancellationToken::new();
        let permit = Mutex::new(idle.admit_with(now, evicted.clone()));
        Arc::new(Self { idle: Arc::clone(idle), permit, evicted })
    }

    /// A request has come.
    fn end(&self) {
        *lock(&self.permit) = None;
    }

    /// The request has its answer. A stream is not idle however long it takes; a body of known length is as good as sent.
    fn begin(&self, answer: &impl Body) {
        if answer.size_hint().exact().is_some() {
            *lock(&self.permit) = self.idle.admit_with(std::time::Instant::now(), self.evicted.clone());
        }
    }
}

impl HttpConnection {
    async fn handshake_and_run(self, stream: TcpStream) {
        let address = self.address;
        let Some(endpoint) = self.listener.endpoint.clone() else { return self.run(stream).await };
        let accepted = self.abandon.run_until_cancelled(endpoint.accept(stream, HANDSHAKE_TIME)).await;
        match accepted {
            Some(Ok(stream)) => self.run(stream).await,
            Some(Err(error)) => tracing::debug!(%address, "{error}"),
            None => {}
        }
    }

    async fn run<S: HttpTransport>(self, stream: S) {
        let Self { router, address, listener, closing, abandon, idleness } = self;
        let mut builder = http1::Builder::new();
        builder.timer(StallTimer).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD_BYTES);
        let io = TokioIo::new(TimedStream::new(stream, WRITE_TIME));
        let routes = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(address);
            request.extensions_mut().insert(listener.clone());
            idleness.end();
            let (answer, idleness) = (routes.call(request), idleness.clone());
            async move { answer.await.inspect(|answer| idleness.begin(answer.body())) }
        });
        let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
        // Clients end connections in many ways. That is not weir's error, so it is logged at the level of debugging.
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = abandon.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP connection ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a listener");
        (client, listener.accept().await.expect("a connection").0)
    }

    #[test]
    fn the_answer_to_too_many_connections_is_whole() {
        let text = std::str::from_utf8(BUSY).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).expect("JSON")["status"], 503);
    }

    #[tokio::test]
    async fn a_connection_too_many_is_answered_and_closed() {
        let connections = HttpConnections {
            permits: Arc::new(Semaphore::new(0)),
            ..HttpConnections::new(Router::new(), CancellationToken::new())
        };
        let (mut client, accepted) = pair().await;
        connections.serve(accepted, SocketAddr::from(([127, 0, 0, 1], 1)), ReachedListener::default());
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("an answer");
        assert_eq!(answer, BUSY);
        assert!(connections.tracker.is_empty());
    }
}
