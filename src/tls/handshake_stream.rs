//! The stream below TLS: bounds and counts what a client sends during its handshake.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::admission::PendingMemory;

/// Largest number of bytes that a client may send in its handshake. A ClientHello has some hundred bytes, a chain of client
/// certificates a few thousand; rustls itself would keep messages of 64 KiB.
const MAX_HANDSHAKE_BYTES: usize = 32 << 10;

/// A stream that TLS runs over.
#[derive(Debug)]
pub struct HandshakeStream<S> {
    stream: S,
    /// The input of the handshake; `None` after it.
    input: Option<HandshakeInput>,
}

#[derive(Debug)]
struct HandshakeInput {
    held: Arc<PendingMemory>,
    bytes: usize,
}

impl HandshakeInput {
    fn add(&mut self, bytes: usize) -> io::Result<()> {
        self.bytes += bytes;
        if self.bytes > MAX_HANDSHAKE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more than 32 KiB in a TLS handshake"));
        }
        self.held.set_input(self.bytes).map_err(io::Error::other)
    }
}

impl<S> HandshakeStream<S> {
    /// A stream whose client begins its handshake. Its input is added to `held`.
    pub(super) fn new(stream: S, held: Arc<PendingMemory>) -> Self {
        Self { stream, input: Some(HandshakeInput { held, bytes: 0 }) }
    }

    /// The handshake is complete: further input is not counted here.
    pub(super) fn end_handshake(&mut self) {
        if let Some(input) = self.input.take() {
            // Less than before always fits.
            let _ = input.held.set_input(0);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HandshakeStream<S> {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(input) = &mut self.input {
            input.add(buffer.filled().len() - before)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HandshakeStream<S> {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
