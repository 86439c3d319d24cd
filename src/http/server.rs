//! The listener and its connections.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{self, Instant, MissedTickBehavior, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{self, PendingConnections, PendingPermit};
use crate::config;
use crate::http::router::router;
use crate::http::state::ApiState;
use crate::sync::lock;
use crate::telemetry::{names, recorder};
use crate::tls::TlsEndpoint;

/// Connections at a time. Beyond it the one goes that has waited longest with its next request; else the new one gets a
/// short 503.
const MAX_CONNECTIONS: usize = 512;
/// Time for the head of a request, also the time a connection may idle before the next.
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
/// Time between samples of the rates and rounds of the recorder's upkeep.
const TICK: Duration = Duration::from_secs(1);

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-length: 114\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\"detail\":\"too many connections; try again later\"}";

/// The HTTP address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {error}; is another weir running, or the port taken?")]
pub struct BindError {
    key: &'static str,
    address: SocketAddr,
    error: io::Error,
}

/// An HTTP server that listens. Requests wait in the kernel until [`HttpServer::run`].
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    secure: Option<(TcpListener, SocketAddr, Arc<TlsEndpoint>)>,
    state: ApiState,
}

fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let bind = || {
        let listener = admission::listen(address)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(|error| BindError { key, address, error })
}

impl HttpServer {
    /// Listens on `http.listen`.
    ///
    /// # Errors
    /// The address is taken or not one of this machine.
    pub async fn bind(config: &config::HttpConfig, state: ApiState) -> Result<Self, BindError> {
        let (listener, address) = bind("http.listen", config.listen)?;
        Ok(Self { listener, address, secure: None, state })
    }

    /// Listens on `address` with TLS too.
    ///
    /// # Errors
    /// The address is taken or not one of this machine.
    pub async fn with_tls(mut self, address: SocketAddr, endpoint: Arc<TlsEndpoint>) -> Result<Self, BindError> {
        let (listener, address) = bind("http.tls.listen", address)?;
        self.secure = Some((listener, address, endpoint));
        Ok(self)
    }

    /// The address it listens on with TLS.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.secure.as_ref().map(|(_, address, _)| *address)
    }

    /// The address it listens on, with the port that the system chose where `http.listen` says 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `cancel`, then ends streams, lets open requests finish for a few seconds and returns.
    pub async fn run(self, cancel: CancellationToken) {
        let connections = Connections {
            router: router(self.state.clone()),
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            lobby: PendingConnections::new(usize::MAX),
            promised: Arc::default(),
            tracker: TaskTracker::new(),
            closing: self.state.closing.clone(),
            abandon: CancellationToken::new(),
        };
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let upkeep = async {
            loop {
                let now = tick.tick().await;
                self.state.sample(now.into_std());
                recorder::upkeep();
            }
        };
        let secure = async {
            match &self.secure {
                Some((listener, _, endpoint)) => connections.accept_all(listener, Some(endpoint)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            // None of the others ends.
            () = upkeep => {}
            () = connections.accept_all(&self.listener, None) => {}
            () = secure => {}
        }
        drop((self.listener, self.secure));
        connections.close().await;
    }
}

struct Connections {
    router: Router,
    permits: Arc<Semaphore>,
    /// Connections whose next request has not come; bounded by the permits.
    lobby: Arc<PendingConnections>,
    /// Cloned by each connection for which another was shown out, until it has that one's place.
    promised: Arc<()>,
    tracker: TaskTracker,
    /// Finish what is open.
    closing: CancellationToken,
    /// The time to finish is over.
    abandon: CancellationToken,
}

impl Connections {
    async fn accept_all(&self, listener: &TcpListener, tls: Option<&Arc<TlsEndpoint>>) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => self.serve(stream, address, tls),
                Err(error) => {
                    tracing::warn!(%error, "an HTTP connection could not be accepted");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, address: SocketAddr, tls: Option<&Arc<TlsEndpoint>>) {
        let now = std::time::Instant::now();
        // A place that was made for another is not free.
        let permit = match Arc::strong_count(&self.promised) {
            1 => self.permits.clone().try_acquire_owned().ok(),
            _ => None,
        };
        if permit.is_none() {
            metrics::counter!(names::LIMITS_HIT, "limit" => "http_connections").increment(1);
            if !self.lobby.evict_oldest(now) {
                // The socket's buffer is empty: it takes this at once or the peer is gone.
                if tls.is_none() {
                    let _ = stream.try_write(BUSY);
                }
                return;
            }
        }
        // Answers are written whole: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let one = Connection {
            router: self.router.clone(),
            address,
            closing: self.closing.clone(),
            abandon: self.abandon.clone(),
            patience: Patience::new(&self.lobby, now),
        };
        let (endpoint, permits) = (tls.cloned(), self.permits.clone());
        let promised = permit.is_none().then(|| self.promised.clone());
        let shown_out = one.patience.shown_out.clone();
        let served = async move {
            let _permit = match permit {
                Some(permit) => Ok(permit),
                // The place of one that was just shown out.
                None => permits.acquire_owned().await,
            };
            drop(promised);
            one.shake_and_run(stream, endpoint).await;
        };
        self.tracker.spawn(async move { shown_out.run_until_cancelled(served).await });
    }

    async fn close(self) {
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
struct Connection {
    router: Router,
    address: SocketAddr,
    closing: CancellationToken,
    abandon: CancellationToken,
    patience: Arc<Patience>,
}

/// A connection's place among those whose next request has not come.
struct Patience {
    lobby: Arc<PendingConnections>,
    ticket: Mutex<Option<PendingPermit>>,
    /// Cancelled when the place is needed for another connection.
    shown_out: CancellationToken,
}

impl Patience {
    fn new(lobby: &Arc<PendingConnections>, now: std::time::Instant) -> Arc<Self> {
        let shown_out = CancellationToken::new();
        let ticket = Mutex::new(lobby.admit_with(now, shown_out.clone()));
        Arc::new(Self { lobby: Arc::clone(lobby), ticket, shown_out })
    }

    fn set(&self, ticket: Option<PendingPermit>) {
        *lock(&self.ticket) = ticket;
    }

    /// A request has come.
    fn ends(&self) {
        self.set(None);
    }

    /// It has its answer. A stream goes on as long as it likes; what has a length is as good as sent.
    fn begins(&self, answer: &impl Body) {
        if answer.size_hint().exact().is_some() {
            self.set(self.lobby.admit_with(std::time::Instant::now(), self.shown_out.clone()));
        }
    }
}

impl Connection {
    async fn shake_and_run(self, stream: TcpStream, endpoint: Option<Arc<TlsEndpoint>>) {
        let address = self.address;
        let Some(endpoint) = endpoint else { return self.run(stream).await };
        let shaken = self.abandon.run_until_cancelled(endpoint.accept(stream, HANDSHAKE_TIME)).await;
        match shaken {
            Some(Ok(stream)) => self.run(stream).await,
            Some(Err(error)) => tracing::debug!(%address, "{error}"),
            None => {}
        }
    }

    async fn run<S: Transport>(self, stream: S) {
        let Self { router, address, closing, abandon, patience } = self;
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD_BYTES);
        let io = TokioIo::new(Timed::new(stream, WRITE_TIME));
        let routes = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(address);
            patience.ends();
            let (answer, patience) = (routes.call(request), patience.clone());
            async move { answer.await.inspect(|answer| patience.begins(answer.body())) }
        });
        let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
        // How a connection ends is the client's affair.
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

/// A stream that HTTP is served over: plain, or with TLS.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl Transport for TcpStream {}
impl Transport for Box<TlsStream<TcpStream>> {}

/// A stream whose writes fail when the peer takes nothing for some time.
pub(super) struct Timed<S> {
    stream: S,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Timed<S> {
    fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, timer: Box::pin(time::sleep(limit)), waiting: false }
    }

    /// The stream without a limit.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.limit);
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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

    #[test]
    fn the_answer_to_too_many_connections_is_whole() {
        let text = std::str::from_utf8(BUSY).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).expect("JSON")["status"], 503);
    }

    #[tokio::test]
    async fn a_connection_too_many_is_answered_and_closed() {
        let connections = Connections {
            router: Router::new(),
            permits: Arc::new(Semaphore::new(0)),
            lobby: PendingConnections::new(usize::MAX),
            promised: Arc::default(),
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            abandon: CancellationToken::new(),
        };
        let (mut client, accepted) = pair().await;
        connections.serve(accepted, SocketAddr::from(([127, 0, 0, 1], 1)), None);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("an answer");
        assert_eq!(answer, BUSY);
        assert!(connections.tracker.is_empty());
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let (_client, accepted) = pair().await;
        let mut timed = Timed::new(accepted, Duration::from_millis(1));
        let error = loop {
            if let Err(error) = timed.write_all(&[0; 65_536]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
