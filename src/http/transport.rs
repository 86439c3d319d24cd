//! The stream under an HTTP connection: plain TCP or TLS, with a limit on writes that make no progress.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{self, Instant, Sleep};
use tokio_rustls::server::TlsStream;

use crate::http::idleness::Idleness;
use crate::stall;
use crate::tls::HandshakeStream;

/// A stream that HTTP is served over: plain, or with TLS.
pub(super) trait HttpTransport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl HttpTransport for TcpStream {}
impl HttpTransport for Box<TlsStream<HandshakeStream<TcpStream>>> {}

/// A stream whose writes fail when the peer takes nothing for `limit`, and whose reads are counted while it is idle.
pub(super) struct TimedStream<S> {
    stream: S,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
    /// Whether a write waits and the timer runs.
    waiting: bool,
    idleness: Arc<Idleness>,
}

impl<S> TimedStream<S> {
    /// Wraps `stream`.
    pub(super) fn new(stream: S, limit: Duration, idleness: Arc<Idleness>) -> Self {
        Self { stream, limit, timer: Box::pin(time::sleep(limit)), waiting: false, idleness }
    }

    /// The stream without the limit.
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
        if let Some(deadline) = stall::renewed(self.limit, std::time::Instant::now()) {
            self.timer.as_mut().reset(deadline.into());
            ready!(self.timer.as_mut().poll(context));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        Poll::Ready(self.idleness.received(buffer.filled().len() - before))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
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
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::admission::PendingConnections;

    #[tokio::test]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let _client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a listener");
        let accepted = listener.accept().await.expect("a connection").0;
        let mut timed = TimedStream::new(
            accepted,
            Duration::from_millis(1),
            Idleness::counted_by(&PendingConnections::new("test", 1)),
        );
        let error = loop {
            if let Err(error) = timed.write_all(&[0; 65_536]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
