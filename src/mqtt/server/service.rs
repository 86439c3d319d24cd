//! The life of one connection around its poll loop: the first packet, the session, the last bytes, the will. Also the task
//! that publishes wills with a delay and ends expired sessions.

use std::future::{pending, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::first_packet::{ConnectLimits, read_connect};
use super::handshake::{self, AcceptedConnect, ConnectRefusal};
use super::login;
use super::peer::Peer;
use crate::access::Login;
use crate::admission::PendingMemory;
use crate::core::record;
use crate::log::{AppendError, Lsn, Records};
use crate::mqtt::broker::AttachedSession;
use crate::mqtt::connection::broker_context::BrokerContext;
use crate::mqtt::connection::protocol::{Protocol, ProtocolOptions};
use crate::mqtt::connection::publish_decision::{PublishDecision, decide_publish};
use crate::mqtt::connection::{Connection, ConnectionOptions};
use crate::mqtt::session::message::Message;
use crate::mqtt::session::will::Will;
use crate::mqtt::wire::close::{CloseReason, WillEnd};
use crate::mqtt::wire::codec::ConnectRequest;
use crate::mqtt::wire::refusal::RefusalReason;
use crate::stall::{self, timeout, timeout_at};
use crate::telemetry::audit::{self, AuditActor, AuditEvent};

/// Longest time in which the last bytes are sent and the client's remaining input is discarded.
const LINGER: Duration = Duration::from_secs(1);
/// Largest number of input bytes that are discarded at the end of a connection.
const LINGER_BYTES: usize = 1024 * 1024;
/// Longest time that wills which are due together wait for room in the journal.
const WILL_PATIENCE: Duration = Duration::from_secs(10);

/// The first packet of a connection with the bytes after it, or the reason why the connection is refused.
pub(crate) type FirstPacket = Result<(ConnectRequest, Vec<u8>), ConnectRefusal>;

/// Waits for the first packet. `None` where it is not complete by `deadline`, or weir stops; the refusal is counted.
pub(crate) async fn first_packet<S: AsyncRead + Unpin>(
    stream: &mut S,
    peer: &Peer,
    shared: &BrokerContext,
    held: &PendingMemory,
    deadline: Instant,
    cancel: &CancellationToken,
) -> Option<FirstPacket> {
    let first = read_connect(stream, ConnectLimits::new(&shared.config), held);
    tokio::select! {
        () = cancel.cancelled() => shared.refuse(&peer.who(), RefusalReason::ShuttingDown),
        read = timeout_at(deadline, first) => match read {
            Ok(connected) => return Some(connected),
            Err(_) => shared.refuse(&peer.who(), RefusalReason::ConnectTimeout),
        },
    }
    None
}

/// Serves one connection until it ends. The futures of its beginning and its end are boxed: a connection is open for long,
/// and their memory is freed meanwhile.
pub(crate) fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: &Peer,
    shared: Arc<BrokerContext>,
    cancel: CancellationToken,
    first: FirstPacket,
    held: Arc<PendingMemory>,
) -> impl Future<Output = ()> {
    let opening = Box::pin(open(stream, peer, shared, cancel, first, held));
    async {
        if let Some(open) = opening.await {
            run(open).await;
        }
    }
}

/// An open connection, with the values that its end needs.
struct OpenConnection<S> {
    connection: Connection<S>,
    shared: Arc<BrokerContext>,
    login: Login,
    attached: AttachedSession,
    client_id: Arc<str>,
    will: Option<Arc<Will>>,
}

/// Accepts the client; `None` where it was refused, or weir stops.
async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: &Peer,
    shared: Arc<BrokerContext>,
    cancel: CancellationToken,
    first: FirstPacket,
    held: Arc<PendingMemory>,
) -> Option<Box<OpenConnection<S>>> {
    let explain_within = first.as_ref().ok().and_then(|(connect, _)| connect.explain_within);
    let entered = tokio::select! {
        entered = enter(first, peer, &shared, &held) => entered,
        () = cancel.cancelled() => {
            shared.refuse(&peer.who(), RefusalReason::ShuttingDown);
            return None;
        }
    };
    match entered {
        Ok((welcome, rest)) => {
            drop(held);
            Some(Box::new(begin(stream, shared, cancel, welcome, rest)))
        }
        Err(refusal) => {
            held.refused();
            tokio::select! {
                () = refuse(stream, &shared, refusal.explained(explain_within)) => {}
                () = held.evicted() => {}
            }
            None
        }
    }
}

async fn enter(
    first: FirstPacket,
    peer: &Peer,
    shared: &BrokerContext,
    held: &PendingMemory,
) -> Result<(AcceptedConnect, Vec<u8>), ConnectRefusal> {
    let (connect, rest) = first.inspect_err(|refusal| shared.note_refusal(&peer.who(), refusal.reason, ""))?;
    held.settle().map_err(|_| ConnectRefusal::silent(RefusalReason::PendingBytes))?;
    let login = match login::authenticate(&connect, peer, &shared.access, held.bytes()).await {
        Ok(login) => login,
        Err(denied) => {
            // The answer may be due seconds later, and the packet is not needed for it.
            drop((connect, rest));
            held.refused();
            tokio::select! {
                () = denied.refused.wait() => {}
                () = held.evicted() => {}
            }
            return Err(denied.refusal);
        }
    };
    let (client_id, user) = (connect.client_id.clone(), login.identity.user.clone());
    shared.broker.settle(login.identity.user.as_ref(), &connect.client_id).await;
    let policy = shared.access.policy();
    let welcome = handshake::welcome(connect, login, &policy, &shared.broker, &shared.ingest, &shared.config)
        .inspect_err(|refusal| {
            let who = AuditActor { client_id: Some(&client_id), user: user.as_deref(), address: peer.address };
            audit::record(AuditEvent::MqttRefused, &who, "", refusal.reason.as_str());
        })?;
    if welcome.login.version != shared.access.version() {
        // A new policy came meanwhile. It may have been applied to all sessions before this one was among them.
        shared.broker.judge(&welcome.attached.session, &shared.access.policy());
    }
    Ok((welcome, rest))
}

async fn refuse(stream: impl AsyncRead + AsyncWrite + Unpin, shared: &BrokerContext, refusal: ConnectRefusal) {
    shared.meters.refused(refusal.reason);
    tracing::debug!(reason = refusal.reason.as_str(), "connection refused");
    if !refusal.reply.is_empty() {
        finish(stream, &refusal.reply).await;
    }
}

fn begin<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    shared: Arc<BrokerContext>,
    cancel: CancellationToken,
    welcome: AcceptedConnect,
    rest: Vec<u8>,
) -> OpenConnection<S> {
    let AcceptedConnect { connect, login, attached, will, reply } = welcome;
    let client_id = handshake::shared_client_id(&attached);
    let who = AuditActor { client_id: Some(&client_id), user: login.identity.user.as_deref(), address: login.address };
    audit::record(AuditEvent::MqttConnected, &who, connect.version.name(), &login.identity.roles.join(","));
    shared.meters.opened(connect.version);
    tracing::debug!(%client_id, version = ?connect.version, present = attached.session_present, "connection open");
    let options = ProtocolOptions {
        version: connect.version,
        is_3_1: connect.is_3_1,
        client_id: Arc::clone(&client_id),
        user: login.identity.user.clone(),
        keep_alive_s: connect.keep_alive_s,
        expiry_s: connect.session_expiry_s,
        max_inflight: shared.config.max_inflight,
        received_until: attached.received_until,
    };
    let connection = Connection::new(ConnectionOptions {
        stream,
        shared: Arc::clone(&shared),
        session: Arc::clone(&attached.session),
        id: attached.connection,
        login: login.clone(),
        protocol: Protocol::new(options, shared.now()),
        max_packet_bytes: connect.max_packet_bytes,
        explain_within: connect.explain_within,
        read: rest,
        reply,
        cancel,
    });
    OpenConnection { connection, shared, login, attached, client_id, will }
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut open: Box<OpenConnection<S>>) {
    let close = poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| open.connection.poll(context))).unwrap_or(Poll::Ready(CloseReason::Defect))
    })
    .await;
    Box::pin(end(open, close)).await;
}

async fn end<S: AsyncRead + AsyncWrite + Unpin>(open: Box<OpenConnection<S>>, close: CloseReason) {
    let OpenConnection { connection, shared, login, attached, client_id, will } = *open;
    let who = AuditActor { client_id: Some(&client_id), user: login.identity.user.as_deref(), address: login.address };
    shared.meters.closed(close);
    audit::record(AuditEvent::MqttDisconnected, &who, "", close.as_str());
    tracing::debug!(%client_id, reason = close.as_str(), "connection closed");
    let (stream, unsent, expiry_s) = connection.into_parts();
    let will = match close.will() {
        WillEnd::Published => will,
        WillEnd::Deferred => None,
        WillEnd::Discarded => {
            will.inspect(|will| shared.broker.discard_will(will));
            None
        }
    };
    let will = shared.broker.detach(&attached.session, attached.connection, expiry_s, will);
    attached.session.answer_look();
    if let Some(will) = will {
        publish_will(&shared, &will, Instant::now() + WILL_PATIENCE).await;
    }
    if close != CloseReason::Lost {
        finish(stream, &unsent).await;
    }
}

/// Sends the last bytes and closes the socket. Input is discarded for a while first: closing a socket with unread input
/// resets the connection, and the client might never read the last bytes.
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
    // The client may be gone or slow; nothing more can be done for it.
    let _ = timeout(LINGER, linger).await;
}

/// Ends expired sessions and publishes wills whose delay has passed, until `cancel`.
pub(crate) async fn keep_time(shared: Arc<BrokerContext>, cancel: CancellationToken) {
    loop {
        // A will with a delay, or the end of a session: its client may be on its way back since the process continued.
        if cancel.run_until_cancelled(stall::clients_returned()).await.is_none() {
            return;
        }
        let next = publish_due(&shared).await;
        let until_next = async {
            match next {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = shared.broker.timers_changed() => {}
            () = until_next => {}
        }
    }
}

/// Ends expired sessions and publishes the wills that are due. Returns the time of the next timer.
pub(crate) async fn publish_due(shared: &BrokerContext) -> Option<std::time::Instant> {
    let (wills, next) = shared.broker.due();
    let patience = Instant::now() + WILL_PATIENCE;
    for will in wills {
        publish_will(shared, &will, patience).await;
    }
    next
}

/// Publishes a will as a publish of its client [section 3.1.2.5], under the present access rules. Its message expiry
/// interval begins now.
async fn publish_will(shared: &BrokerContext, will: &Will, patience: Instant) {
    let PublishDecision::Allowed { own_device } = judge_will(shared, will) else {
        let user = will.login.identity.user.as_deref();
        let who = AuditActor { client_id: Some(&will.client_id), user, address: will.login.address };
        audit::record(AuditEvent::WillDenied, &who, &will.message.topic, "not published: the rules changed");
        shared.meters.dropped_will_denied.increment(1);
        return shared.broker.discard_will(will);
    };
    let mut journal = Lsn(0);
    if shared.ingest.contains(&will.message.topic) {
        journal = match journal_will(shared, will, own_device.as_deref(), patience).await {
            Ok(end) => end,
            // weir ends. The will is still stored, and the next start publishes it.
            Err(AppendError::Closed) => return,
            Err(AppendError::Full | AppendError::TooLarge { .. }) => {
                shared.meters.dropped_will.increment(1);
                journal
            }
        };
    }
    let expires = will.expiry_s.map(|seconds| shared.now() + Duration::from_secs(u64::from(seconds)));
    let message = Arc::new(Message { expires, ..will.message.clone() });
    shared.broker.deliver_will(&message, will.login.identity.user.as_ref());
    shared.broker.will_published(will, journal);
}

fn judge_will(shared: &BrokerContext, will: &Will) -> PublishDecision {
    let policy = shared.access.policy();
    match policy.renew(&will.login.identity, &will.login.proof) {
        Some(identity) => {
            let permissions = policy.permissions(&identity, Arc::clone(&will.client_id));
            decide_publish(&permissions, &will.message.topic, &shared.ingest)
        }
        None => PublishDecision::Denied(policy.on_denied_publish),
    }
}

/// Appends a will to the journal; returns the position after its record.
///
/// # Errors
/// The journal had no room until `patience`, is closed, or does not take a record of this size.
async fn journal_will(
    shared: &BrokerContext,
    will: &Will,
    own_device: Option<&str>,
    patience: Instant,
) -> Result<Lsn, AppendError> {
    const ATTEMPTS: usize = 3;
    let publish = record::PublishRecord {
        client_id: &will.client_id,
        topic: &will.message.topic,
        own_device,
        user: will.login.identity.user.as_deref(),
        packet_id: 0,
        // Nobody waits for an acknowledgement, and a record without a packet identifier can only be QoS 0.
        qos: 0,
        dup: false,
        retain: will.message.retain,
        repeats_retained: false,
        payload: &will.message.payload,
    };
    let mut records = Records::default();
    records.push_with(|out| record::encode_publish(&publish, false, out));
    let appended = poll_fn(|context| {
        for _ in 0..ATTEMPTS {
            match shared.journal.append(&records, None, None, shared.now()) {
                Err(AppendError::Full) if shared.journal.poll_room(context).is_pending() => return Poll::Pending,
                Err(AppendError::Full) => {}
                done => return Poll::Ready(done),
            }
        }
        Poll::Ready(Err(AppendError::Full))
    });
    timeout_at(patience, appended).await.unwrap_or(Err(AppendError::Full))
}
