//! Connections of the HTTP server: how many there may be, how each is served, and how all end.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{CONNECTION_BYTES, PendingConnections, TLS_BYTES};
use crate::http::hosts::ReachedListener;
use crate::http::idleness::{IdleLimits, Idleness};
use crate::http::paced_answer::PacedAnswer;
use crate::http::places::{RequestPlaces, ReservedConnections};
use crate::http::problem::ApiProblem;
use crate::http::received_body::ReceivedBody;
use crate::http::stall_timer::StallTimer;
use crate::http::transport::{HttpTransport, TimedStream};
use crate::telemetry::names;
use crate::tls::{HandshakeClient, TlsEndpoint};

/// Connections at a time. For a further one a slow one is evicted, else the one that has been idle longest; where none has
/// been so long enough, the new one is served on a reserved place, for health and metrics only.
const MAX_CONNECTIONS: usize = 512;
/// Time for the head of a request, also the time that a connection may be idle before the next.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Time for the head of a request on a reserved connection.
const RESERVED_HEAD_TIME: Duration = Duration::from_secs(2);
/// Time without progress after which a client that does not read loses its connection.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// Time for a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Largest head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Estimated memory of an HTTP connection besides its socket: the state and the first buffer of hyper.
const HTTP_BYTES: usize = 14 << 10;
/// Time that open requests get at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept: the usual cause, no file descriptors, does not go away at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// All connections of the server.
pub(super) struct HttpConnections {
    router: Router,
    permits: Arc<Semaphore>,
    /// Connections without a request at the moment; bounded by the permits.
    idle: IdleLimits,
    /// Bounds on slow clients in the middle of a request.
    places: RequestPlaces,
    reserved: ReservedConnections,
    /// Reserved connections without a request. They are apart from `idle`, because they have no permit to give back, and are
    /// served when there is no memory for others.
    reserved_idle: IdleLimits,
    /// Counts, by its clones, the connections that wait for the permit of an evicted one.
    promised: Arc<()>,
    tracker: TaskTracker,
    /// Cancelled when connections must finish their requests and end.
    closing: CancellationToken,
    /// Cancelled when the time to finish is over.
    abandon: CancellationToken,
}

impl HttpConnections {
    /// No connections yet. `closing` is cancelled in [`HttpConnections::close`], for streams too. `pending_bytes` bounds the memory
    /// of connections without a request.
    pub fn new(router: Router, closing: CancellationToken, pending_bytes: Arc<PendingConnections>) -> Self {
        Self {
            router,
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            idle: IdleLimits { idle: PendingConnections::new("http_connections", usize::MAX), bytes: pending_bytes },
            places: RequestPlaces::new(),
            reserved: ReservedConnections::default(),
            reserved_idle: IdleLimits {
                idle: PendingConnections::new("http_connections", usize::MAX),
                bytes: PendingConnections::new("bytes", usize::MAX),
            },
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
                    // A connection that waits gives its file descriptor to the one that could not be accepted.
                    self.idle.idle.evict_for(None, std::time::Instant::now());
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
        let from = address.ip();
        let is_full = permit.is_none() && !self.places.evict_slowest(now) && !self.idle.idle.evict_for(Some(from), now);
        if permit.is_none() {
            metrics::counter!(names::LIMITS_HIT, "limit" => "http_connections").increment(1);
        }
        let transport_bytes = CONNECTION_BYTES + HTTP_BYTES;
        let idleness = if is_full { None } else { Idleness::new(&self.idle, from, transport_bytes, now) };
        if !is_full && idleness.is_none() {
            metrics::counter!(names::LIMITS_HIT, "limit" => "pending_bytes").increment(1);
        }
        let is_reserved = idleness.is_none();
        let reserved = || Idleness::new(&self.reserved_idle, from, transport_bytes, now);
        let Some(idleness) = idleness.or_else(reserved) else { return };
        // Answers are written whole: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let evicted = idleness.evicted.clone();
        let one = HttpConnection {
            router: self.router.clone(),
            address,
            listener,
            closing: self.closing.clone(),
            abandon: self.abandon.clone(),
            idleness,
            places: (!is_reserved).then(|| self.places.clone()),
        };
        if is_reserved {
            self.reserved.admit(evicted.clone());
            let served = one.handshake_and_run(stream);
            self.tracker.spawn(async move { evicted.run_until_cancelled(served).await });
            return;
        }
        let permits = self.permits.clone();
        let promised = permit.is_none().then(|| self.promised.clone());
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
    /// `None`: the connection is reserved for health and metrics.
    places: Option<RequestPlaces>,
}

impl HttpConnection {
    async fn handshake_and_run(self, stream: TcpStream) {
        let address = self.address;
        let Some(endpoint) = self.listener.endpoint.clone() else { return self.run(stream).await };
        let Some(held) = self.idleness.held() else { return };
        let client = HandshakeClient { address: Some(address.ip()), held: &held };
        let accepted = self.abandon.run_until_cancelled(endpoint.accept(stream, client, HANDSHAKE_TIME)).await;
        // Less than during the handshake always fits, and an eviction ends this task.
        let _ = held.set_transport(CONNECTION_BYTES + TLS_BYTES + HTTP_BYTES);
        drop(held);
        match accepted {
            Some(Ok(stream)) => self.run(stream).await,
            Some(Err(error)) => tracing::debug!(%address, "{error}"),
            None => {}
        }
    }

    async fn run<S: HttpTransport>(self, stream: S) {
        let Self { router, address, listener, closing, abandon, idleness, places } = self;
        let mut builder = http1::Builder::new();
        let head_time = if places.is_some() { HEAD_TIME } else { RESERVED_HEAD_TIME };
        builder.timer(StallTimer).header_read_timeout(head_time).max_buf_size(MAX_HEAD_BYTES);
        builder.keep_alive(places.is_some());
        let io = TokioIo::new(TimedStream::new(stream, WRITE_TIME, idleness.clone()));
        let routes = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(address);
            request.extensions_mut().insert(listener.clone());
            idleness.end();
            let is_served = places.is_some() || ReservedConnections::serves(request.uri().path());
            let (idleness, places) = (idleness.clone(), places.clone());
            let waiting = places.clone().unwrap_or_else(RequestPlaces::new);
            let request = request.map(|body| ReceivedBody::new(body, waiting, idleness.evicted.clone()));
            let answer = is_served.then(|| routes.call(request));
            async move {
                let answer = match answer {
                    Some(answer) => answer.await?,
                    None => ApiProblem::unavailable("too many connections; try again later").into_response(),
                };
                Ok::<_, Infallible>(PacedAnswer::wrap(answer, idleness, places.as_ref()))
            }
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a listener");
        (client, listener.accept().await.expect("a connection").0)
    }

    #[tokio::test]
    async fn a_connection_too_many_is_served_health_and_metrics() {
        let connections = HttpConnections {
            permits: Arc::new(Semaphore::new(0)),
            ..HttpConnections::new(
                Router::new().fallback(async || "served"),
                CancellationToken::new(),
                PendingConnections::new("bytes", usize::MAX),
            )
        };
        let ask = async |path: &str| {
            let (mut client, accepted) = pair().await;
            connections.serve(accepted, SocketAddr::from(([127, 0, 0, 1], 1)), ReachedListener::default());
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("a connection");
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.expect("an answer and its end");
            answer
        };
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = ask(path).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("served"), "{path}: {answer}");
        }
        let busy = ask("/api/v1/status").await;
        assert!(busy.starts_with("HTTP/1.1 503 ") && busy.contains("too many connections"), "{busy}");
    }
}
