//! One connection: a stream, its protocol, and the order of work between them.
//!
//! A hand-written poll loop: what is due is sent first (acknowledgements that became durable, messages for the
//! client), then the socket is read, everything that one read brought is appended to the journal together, and so on
//! until the socket has nothing more. No channel and no allocation per message; the locks are the journal's, once per
//! read, and the session's, once per delivery. The socket is not read while output waits to be sent, while the journal
//! has no room, while `max_inflight` acknowledgements are outstanding, or while the client is ahead of its rate.

mod acks;
mod appending;
pub(super) mod broker_context;
pub(super) mod journal_appender;
mod keep_alive;
pub(super) mod protocol;
mod protocol_context;
pub(super) mod publish_decision;
mod rate;
mod reading;
mod sending;
mod session_context;
mod thread_buffers;
mod topic_cache;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::session::{ConnectionId, Session};
use super::wire::close::CloseReason;
use super::wire::frame;
use crate::access::Login;
use crate::log::Lsn;
use appending::BlockedAppend;
use broker_context::BrokerContext;
use protocol::Protocol;
use rate::ClientRate;
use thread_buffers::ThreadBuffers;

/// Reads in one poll before other connections get their turn.
const MAX_READS: usize = 8;
/// Subscriptions and queues that are looked at for one connection in one poll, about: a fraction of a
/// millisecond. One publish may have thousands of subscribers, one read hundreds of publishes; and while all threads have
/// work, sockets are looked at once in some sixty polls.
const MAX_TOUCHED: usize = 4_096;
/// When nothing else wakes a connection that waits: another connection's append, or room that was not enough.
const FALLBACK: Duration = Duration::from_millis(20);
/// A deadline for a connection without one.
const FAR: Duration = Duration::from_secs(30 * 86_400);

/// What a connection begins with.
pub(crate) struct ConnectionOptions<S> {
    pub stream: S,
    pub shared: Arc<BrokerContext>,
    pub session: Arc<Session>,
    pub id: ConnectionId,
    /// Who the client is.
    pub login: Login,
    pub protocol: Protocol,
    /// Largest packet that the client takes.
    pub max_packet_bytes: usize,
    /// Where the client asks for problem information, the largest packet that may carry it.
    pub explain_within: Option<usize>,
    /// What was read behind the CONNECT.
    pub read: Vec<u8>,
    /// What is to be sent first.
    pub reply: Vec<u8>,
    pub cancel: CancellationToken,
}

/// A connection: its stream, its protocol and the session that it serves.
pub(crate) struct Connection<S> {
    stream: S,
    shared: Arc<BrokerContext>,
    session: Arc<Session>,
    id: ConnectionId,
    login: Login,
    protocol: Protocol,
    /// Largest packet that the client takes.
    max_packet_bytes: usize,
    explain_within: Option<usize>,
    /// Bytes read and not yet taken: the beginning of a packet, or whatever followed when the journal became full.
    partial: Vec<u8>,
    /// Whether `partial` is to be looked at before the socket is read.
    unread: bool,
    blocked: Option<BlockedAppend>,
    /// Subscriptions and queues that were looked at in this poll.
    touched: usize,
    /// Output that the socket did not take.
    unsent: Vec<u8>,
    /// Whether the stream may hold back what was written to it, as TLS does.
    unflushed: bool,
    /// Where the client's rate is limited.
    pace: Option<Box<ClientRate>>,
    /// Of the rates that `pace` follows.
    rates_version: u64,
    /// The waker that is registered with the session.
    waker: Option<Waker>,
    /// Position up to which this connection's own appends wake it.
    own_appends: Lsn,
    timer: Pin<Box<Sleep>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What a step of the poll loop says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PollStep {
    /// Go on.
    Ready,
    /// Something will wake the connection.
    Waiting,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(start: ConnectionOptions<S>) -> Self {
        let now = start.shared.now();
        let rates_version = start.shared.rates.version();
        Self {
            pace: ClientRate::new(&start.shared.rates, now),
            rates_version,
            unflushed: false,
            stream: start.stream,
            shared: start.shared,
            session: start.session,
            id: start.id,
            login: start.login,
            protocol: start.protocol,
            max_packet_bytes: start.max_packet_bytes,
            explain_within: start.explain_within,
            partial: start.read,
            unread: true,
            blocked: None,
            touched: 0,
            unsent: start.reply,
            waker: None,
            own_appends: Lsn(0),
            timer: Box::pin(sleep_until((now + FAR).into())),
            cancelled: Box::pin(start.cancel.cancelled_owned()),
        }
    }

    /// The socket, what is still to be sent, and how many seconds the session outlives the connection.
    pub fn into_parts(self) -> (S, Vec<u8>, u32) {
        (self.stream, self.unsent, self.protocol.expiry_s())
    }

    /// Works until the connection ends.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<CloseReason> {
        let look_requested = self.session.take_look_request();
        thread_buffers::with(|buffers| match self.advance(context, buffers) {
            Ok(()) => {
                if look_requested {
                    self.session.answer_look();
                }
                Poll::Pending
            }
            Err(close) => {
                // What was due before stays due: acknowledgements of durable publishes, answers, then the reason.
                self.unsent.extend_from_slice(&buffers.out);
                buffers.out.clear();
                frame::put_disconnect(close, self.protocol.version(), self.explain_within, &mut self.unsent);
                Poll::Ready(close)
            }
        })
    }

    fn advance(&mut self, context: &mut Context<'_>, buffers: &mut ThreadBuffers) -> Result<(), CloseReason> {
        self.touched = 0;
        self.register(context.waker());
        if self.session.owner() != self.id {
            return Err(self.session.lost(self.id));
        }
        if self.cancelled.as_mut().poll(context).is_ready() {
            self.write_acks(&mut buffers.out);
            return Err(CloseReason::ShuttingDown);
        }
        self.poll_timer(context)?;
        let mut looked = false;
        for _ in 0..MAX_READS {
            if self.touched >= MAX_TOUCHED {
                break;
            }
            if self.send_due(context, buffers)? == PollStep::Waiting {
                return Ok(());
            }
            // Once in a poll, and the socket is read all the same: the client may be gone, or want something else.
            if self.session.awaits_retained()
                && (std::mem::replace(&mut looked, true) || self.shared.broker.queue_retained(&self.session, self.id))
            {
                context.waker().wake_by_ref();
            }
            if self.poll_room(context)? == PollStep::Waiting {
                return Ok(());
            }
            if self.protocol.is_full() {
                // Woken by the journal; it may have passed some in the meantime.
                self.watch_acks(context)?;
                return Ok(());
            }
            if self.poll_pace(context) == PollStep::Waiting {
                self.watch_acks(context)?;
                return Ok(());
            }
            if self.read(context, buffers)? == PollStep::Waiting {
                self.watch_acks(context)?;
                return Ok(());
            }
        }
        // The buffer is the thread's: answers to the last read wait with the connection.
        self.unsent.extend_from_slice(&buffers.out);
        buffers.out.clear();
        context.waker().wake_by_ref();
        Ok(())
    }

    fn register(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.session.register(self.id, waker);
            self.waker = Some(waker.clone());
        }
    }

    /// Whether the client's rate allows to read on.
    fn poll_pace(&mut self, context: &mut Context<'_>) -> PollStep {
        let version = self.shared.rates.version();
        if version != self.rates_version {
            self.rates_version = version;
            self.pace = ClientRate::new(&self.shared.rates, self.shared.now());
        }
        let Some(pace) = &mut self.pace else { return PollStep::Ready };
        let now = self.shared.now();
        let was_paused = pace.is_paused();
        let Some(wait) = pace.wait(now) else {
            if was_paused {
                // The client was not heard because weir did not listen.
                self.protocol.heard(now);
            }
            return PollStep::Ready;
        };
        if wait.begins {
            self.shared.meters.throttled(wait.limit);
        }
        self.wake_after(context, wait.until.saturating_duration_since(now));
        PollStep::Waiting
    }

    fn wake_after(&mut self, context: &mut Context<'_>, wait: Duration) {
        let at = self.shared.now() + wait;
        if at < self.timer.deadline().into_std() {
            self.timer.as_mut().reset(at.into());
            if self.timer.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
    }

    /// Keep-alive. The timer is not moved with each packet: when it rings, it is set again for what is left.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        let now = self.shared.now();
        let deadline = self.protocol.keep_alive_deadline();
        if self.timer.as_mut().poll(context).is_ready() || deadline.is_some_and(|at| at < self.deadline()) {
            let throttled = self.pace.as_ref().is_some_and(|pace| pace.is_paused());
            let paused = self.blocked.is_some() || self.protocol.is_full() || throttled;
            if paused {
                self.protocol.heard(now);
            }
            match self.protocol.keep_alive_deadline() {
                Some(at) if at <= now => return Err(CloseReason::KeepAlive),
                at => self.timer.as_mut().reset(at.unwrap_or(now + FAR).into()),
            }
            if self.timer.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        self.timer.deadline().into_std()
    }
}

#[cfg(test)]
mod tests;
