//! The life of one socket: CONNECT, session, will, last bytes.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::around::Door;
use super::close::Close;
use super::connection::{Connection, Start};
use super::delivery::Message;
use super::handshake::{self, Refusal, Welcome};
use super::session::{Session, SessionOptions};
use crate::core::record;
use crate::log::{AppendError, Records};

/// How long the last bytes may take, and what the client still sends is discarded so that it gets to read them.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes discarded while lingering at most.
const LINGER_BYTES: usize = 1024 * 1024;
/// How long a will waits for room in the journal.
const WILL_PATIENCE: Duration = Duration::from_secs(10);

/// Serves one socket until it ends.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    door: Arc<Door>,
    cancel: CancellationToken,
) {
    let patience = Duration::from_millis(door.config.connect_timeout_ms);
    let first = handshake::read_connect(&mut stream, door.config.max_packet_size_bytes);
    let connected = tokio::select! {
        () = cancel.cancelled() => return door.meters.refused("shutting_down"),
        read = timeout(patience, first) => match read {
            Ok(connected) => connected,
            Err(_) => return door.meters.refused("connect_timeout"),
        },
    };
    let welcomed = connected.and_then(|(connect, rest)| {
        handshake::welcome(connect, &door.broker, &door.config).map(|welcome| (welcome, rest))
    });
    match welcomed {
        Ok((welcome, rest)) => run(stream, door, cancel, welcome, rest).await,
        Err(refusal) => refuse(stream, &door, refusal).await,
    }
}

async fn refuse(stream: impl AsyncRead + AsyncWrite + Unpin, door: &Door, refusal: Refusal) {
    door.meters.refused(refusal.reason);
    tracing::debug!(reason = refusal.reason, "connection refused");
    if !refusal.reply.is_empty() {
        finish(stream, &refusal.reply).await;
    }
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    door: Arc<Door>,
    cancel: CancellationToken,
    welcome: Welcome,
    rest: Vec<u8>,
) {
    let Welcome { connect, attached, will, reply } = welcome;
    let client_id = handshake::shared_client_id(&attached);
    door.meters.opened(connect.version);
    tracing::debug!(%client_id, version = ?connect.version, present = attached.session_present, "connection open");
    let options = SessionOptions {
        version: connect.version,
        client_id: Arc::clone(&client_id),
        keep_alive_s: connect.keep_alive_s,
        expiry_s: connect.session_expiry_s,
        max_inflight: door.config.max_inflight,
        received_until: attached.received_until,
    };
    let mut connection = Connection::new(Start {
        stream,
        door: Arc::clone(&door),
        handle: Arc::clone(&attached.handle),
        id: attached.connection,
        session: Session::new(options, door.now()),
        max_packet_bytes: connect.max_packet_bytes,
        read: rest,
        reply,
        cancel,
    });
    let close = poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| connection.poll(context))).unwrap_or(Poll::Ready(Close::Defect))
    })
    .await;
    door.meters.closed(close);
    tracing::debug!(%client_id, reason = close.label(), "connection closed");
    let (stream, unsent, kept) = connection.into_parts();
    door.broker.detach(&attached.handle, attached.connection, kept);
    if let Some(will) = will.filter(|_| close.publishes_will()) {
        publish_will(&door, &client_id, Message { publisher: attached.handle.id, ..will }).await;
    }
    if close != Close::Lost {
        finish(stream, &unsent).await;
    }
}

/// Sends the last bytes and closes the socket so that the client gets to read them: closing with unread input would
/// reset the connection and take them away.
async fn finish(mut stream: impl AsyncRead + AsyncWrite + Unpin, last: &[u8]) {
    let linger = async {
        stream.write_all(last).await?;
        stream.shutdown().await?;
        let mut discarded = [0; 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut discarded).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        io::Result::Ok(())
    };
    // The client may be gone or slow: there is nothing more to do for it.
    let _ = timeout(LINGER, linger).await;
}

/// A will goes where the client's own publish would have gone [section 3.1.2.5].
async fn publish_will(door: &Door, client_id: &str, will: Message) {
    if door.ingest.contains(&will.topic) && !journal_will(door, client_id, &will).await {
        door.meters.dropped_will.increment(1);
    }
    door.broker.deliver(&Arc::new(will));
}

/// Whether the journal took it in time.
async fn journal_will(door: &Door, client_id: &str, will: &Message) -> bool {
    const ATTEMPTS: usize = 3;
    let publish = record::Publish {
        client_id,
        topic: &will.topic,
        packet_id: 0,
        // Nobody waits for an acknowledgement, and without a packet id it can only be a QoS 0 record.
        qos: 0,
        dup: false,
        retain: will.retain,
        payload: &will.payload,
    };
    let mut records = Records::default();
    records.push_with(|out| record::encode_publish(&publish, false, out));
    let appended = poll_fn(|context| {
        for _ in 0..ATTEMPTS {
            match door.gate.append(&records, None, None, door.now()) {
                Err(AppendError::Full) if door.gate.poll_room(context).is_pending() => return Poll::Pending,
                Err(AppendError::Full) => {}
                done => return Poll::Ready(done.is_ok()),
            }
        }
        Poll::Ready(false)
    });
    timeout(WILL_PATIENCE, appended).await.unwrap_or(false)
}
