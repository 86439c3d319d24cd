//! Runs one TLS handshake on the server side, within a time limit and a limit on handshakes in progress.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::handshake_stream::HandshakeStream;
use super::recording_verifier::with_refused_subject;
use crate::admission::{CONNECTION_BYTES, PendingConnections, PendingMemory, TLS_BYTES};
use crate::stall::timeout;

/// Why a handshake did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The handshake took longer than the limit.
    #[error("the TLS handshake took too long")]
    Timeout,
    /// Too many handshakes were in progress, and this one was refused or evicted.
    #[error("too many TLS handshakes at once")]
    Full,
    /// The peer closed the connection, does not speak TLS, refused weir's certificate, or its own certificate was refused.
    #[error("the TLS handshake failed: {error}{}", owner_text(refused_subject.as_deref()))]
    Failed {
        /// Error of the stream or of rustls.
        error: io::Error,
        /// Subject of the client certificate, if it was refused. The name is not verified: anybody can put any name into a
        /// certificate of their own.
        refused_subject: Option<String>,
    },
}

fn owner_text(refused_subject: Option<&str>) -> String {
    refused_subject.map(|subject| format!("; the certificate is that of {subject}")).unwrap_or_default()
}

impl HandshakeError {
    /// The label `result` of `weir_tls_handshakes_total`.
    pub fn as_str(&self) -> &'static str {
        match self {
            HandshakeError::Timeout => "timeout",
            HandshakeError::Full => "too_many",
            HandshakeError::Failed { .. } => "failed",
        }
    }

    /// Whether the peer only closed the connection, as load balancers and port scanners do. Such an end is counted, but
    /// not worth an audit event.
    pub fn is_disconnect(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        matches!(self, HandshakeError::Failed { error, .. }
            if matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe))
    }
}

/// A client that begins a handshake.
#[derive(Debug)]
pub struct HandshakeClient<'a> {
    /// Address of the client; `None` where the stream has none.
    pub address: Option<IpAddr>,
    /// The bytes that the connection holds. The state of TLS and the input of the handshake are added to them.
    pub held: &'a Arc<PendingMemory>,
}

/// Runs the handshake of `stream` within `limit`, as one of the handshakes in `pending`.
///
/// # Errors
/// The handshake fails, takes too long, or gives way to other handshakes.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ServerConfig>,
    pending: &Arc<PendingConnections>,
    stream: S,
    client: HandshakeClient<'_>,
    limit: Duration,
) -> Result<TlsStream<HandshakeStream<S>>, HandshakeError> {
    let HandshakeClient { address, held } = client;
    let permit = pending.admit(address, Instant::now()).ok_or(HandshakeError::Full)?;
    held.set_transport(CONNECTION_BYTES + TLS_BYTES).map_err(|_| HandshakeError::Full)?;
    let stream = HandshakeStream::new(stream, Arc::clone(held));
    let accept = with_refused_subject(TlsAcceptor::from(config).accept(stream));
    let mut accepted = tokio::select! {
        accepted = timeout(limit, accept) => match accepted {
            Ok(accepted) => {
                accepted.map_err(|(error, refused_subject)| HandshakeError::Failed { error, refused_subject })
            }
            Err(_) => Err(HandshakeError::Timeout),
        },
        () = permit.evicted() => Err(HandshakeError::Full),
    }?;
    accepted.get_mut().0.end_handshake();
    Ok(accepted)
}
