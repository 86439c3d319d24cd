//! One MQTT connection: a stream, its protocol, and the order of work between them.
//!
//! [`Connection::poll`] is a hand-written poll loop. It first sends what is due: acknowledgements that became durable,
//! and messages for the client. Then it reads the socket once and appends everything that this read brought to the
//! journal together. It repeats both until the socket has no more input. There is no channel and no allocation per
//! message. The locks are the journal's, once per read, and the session's, once per delivery.
//!
//! The socket is not read while output waits to be sent, while the journal has no room, while `max_inflight`
//! acknowledgements are outstanding, or while the client is ahead of its rate.

mod acks;
mod appending;
pub(super) mod broker_context;
pub(super) mod journal_appender;
mod keep_alive;
mod other_topics;
pub(super) mod protocol;
mod protocol_context;
pub(super) mod publish_decision;
mod rate;
mod reading;
mod sending;
mod session_context;
mod thread_buffers;
mod topic_cache;
mod unmatched_counts;

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
use crate::log::{Lsn, Records};
use broker_context::BrokerContext;
use keep_alive::Silence;
use protocol::Protocol;
use rate::ClientRate;
use thread_buffers::ThreadBuffers;

/// Largest number of reads in one poll. After that, other connections get their turn.
const MAX_READS: usize = 8;
/// Approximate number of subscriptions and queues that one poll of a connection examines: a fraction of a millisecond
/// of work. One publish may have thousands of subscribers, and one read may bring hundreds of publishes. Other sockets
/// would wait for all of it: while all threads have work, a thread looks at sockets only once in some sixty polls.
const MAX_TOUCHED: usize = 4_096;
/// Time after which a waiting connection tries again if nothing else wakes it. It may wait for the append of another
/// connection, or for more journal room than there is.
const FALLBACK: Duration = Duration::from_millis(20);
/// Time to the timer's deadline where a connection has no other deadline.
const FAR: Duration = Duration::from_secs(30 * 86_400);

/// Everything that a new [`Connection`] needs.
pub(crate) struct ConnectionOptions<S> {
    pub stream: S,
    /// Everything that connections share.
    pub shared: Arc<BrokerContext>,
    /// Session that the connection serves.
    pub session: Arc<Session>,
    /// Number of the connection.
    pub id: ConnectionId,
    /// Login of the client: user, roles and address.
    pub login: Login,
    pub protocol: Protocol,
    /// Size in bytes of the largest packet that the client takes.
    pub max_packet_bytes: usize,
    /// Size in bytes of the largest packet that may carry a Reason String; `None` if the client does not ask for
    /// problem information.
    pub explain_within: Option<usize>,
    /// Bytes that were read after the CONNECT.
    pub read: Vec<u8>,
    /// Bytes to send first: the CONNACK.
    pub reply: Vec<u8>,
    /// Ends the connection in an orderly way when weir stops.
    pub cancel: CancellationToken,
}

/// One MQTT connection: its stream, its protocol and the session that it serves.
pub(crate) struct Connection<S> {
    stream: S,
    shared: Arc<BrokerContext>,
    session: Arc<Session>,
    id: ConnectionId,
    login: Login,
    protocol: Protocol,
    /// Size in bytes of the largest packet that the client takes.
    max_packet_bytes: usize,
    explain_within: Option<usize>,
    /// Bytes that were read and not processed yet: the beginning of a packet, or everything after the packet at which
    /// the connection had to stop (no room in the journal, the client's rate, or the limit of one poll).
    partial: Vec<u8>,
    /// Whether `partial` must be processed before the socket is read.
    unread: bool,
    /// Publishes that wait for room in the journal.
    blocked: Option<BlockedAppend>,
    /// Number of subscriptions and queues that were examined in this poll.
    touched: usize,
    /// Output that the socket has not taken yet.
    unsent: Vec<u8>,
    /// Whether the stream may hold back bytes that were written to it, as TLS does.
    unflushed: bool,
    /// Rate limits of the client; `None` where no rate is limited.
    pace: Option<Box<ClientRate>>,
    /// Version of the rates that `pace` follows.
    rates_version: u64,
    /// Waker that is registered with the session.
    waker: Option<Waker>,
    /// Journal position up to which this connection's own appends wake it.
    own_appends: Lsn,
    timer: Pin<Box<Sleep>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Publishes for which the journal had no room.
#[derive(Debug)]
struct BlockedAppend {
    records: Records,
    /// When the publishes were read.
    since: Instant,
}

/// Why a poll of a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PollEnd {
    /// The socket has no more input.
    NothingToRead,
    /// The socket takes no output, and it is not read until it does.
    OutputWaits,
    /// weir does not read: the journal has no room, too much is unacknowledged, or the client is ahead of its rate.
    NotReading,
    /// There may be more to do, and other connections go first.
    Turn,
}

/// Result of one step of the poll loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PollStep {
    /// The next step can follow.
    Ready,
    /// The step cannot go on; something will wake the connection.
    Waiting,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Makes the connection of a client whose CONNECT was accepted.
    pub fn new(start: ConnectionOptions<S>) -> Self {
        let now = start.shared.now();
        let rates_version = start.shared.rates.version();
        Self {
            pace: ClientRate::new(&start.shared.rates, &start.session.account, now),
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

    /// Returns the stream, the bytes that are not sent yet, and how many seconds the session outlives the connection.
    pub fn into_parts(self) -> (S, Vec<u8>, u32) {
        (self.stream, self.unsent, self.protocol.expiry_s())
    }

    /// Does all work that is possible without waiting. Ready with the reason when the connection ends.
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
                // Output that was due before the end is still sent: acknowledgements of durable publishes and answers.
                // The DISCONNECT with the reason follows it.
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
        let is_overdue = self.poll_timer(context);
        let end = self.send_and_read(context, buffers)?;
        // After the socket was tried: a client is judged by what lies there, too.
        if is_overdue { self.judge_silence(context, end) } else { Ok(()) }
    }

    /// Sends and reads in turn until there is nothing more to do, or other connections go first.
    fn send_and_read(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut ThreadBuffers,
    ) -> Result<PollEnd, CloseReason> {
        let mut looked = false;
        for _ in 0..MAX_READS {
            if self.touched >= MAX_TOUCHED {
                break;
            }
            if self.send_due(context, buffers)? == PollStep::Waiting {
                return Ok(PollEnd::OutputWaits);
            }
            // Retained messages are queued once per poll; if there is more to do, the connection is polled again at
            // once. The socket is read all the same: the client may be gone, or may ask for something else.
            if self.session.awaits_retained()
                && (std::mem::replace(&mut looked, true) || self.shared.broker.queue_retained(&self.session, self.id))
            {
                context.waker().wake_by_ref();
            }
            if self.poll_room(context)? == PollStep::Waiting {
                return Ok(PollEnd::NotReading);
            }
            if self.protocol.is_full() {
                // The journal wakes the connection when more is durable. It may have passed some acknowledgements since
                // they were written above, so this is checked.
                self.watch_acks(context)?;
                return Ok(PollEnd::NotReading);
            }
            if self.poll_pace(context) == PollStep::Waiting {
                self.watch_acks(context)?;
                return Ok(PollEnd::NotReading);
            }
            if self.read(context, buffers)? == PollStep::Waiting {
                self.watch_acks(context)?;
                return Ok(PollEnd::NothingToRead);
            }
        }
        // The output buffer belongs to the thread, and another connection uses it next. So the connection keeps the
        // answers to its last read itself.
        self.unsent.extend_from_slice(&buffers.out);
        buffers.out.clear();
        context.waker().wake_by_ref();
        Ok(PollEnd::Turn)
    }

    fn register(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.session.register(self.id, waker);
            self.waker = Some(waker.clone());
        }
    }

    /// Checks whether the client's rate allows another read. If it does not, sets the timer for the end of the pause.
    fn poll_pace(&mut self, context: &mut Context<'_>) -> PollStep {
        let version = self.shared.rates.version();
        if version != self.rates_version {
            self.rates_version = version;
            self.pace = ClientRate::new(&self.shared.rates, &self.session.account, self.shared.now());
        }
        let Some(pace) = &mut self.pace else { return PollStep::Ready };
        let now = self.shared.now();
        let was_paused = pace.is_paused();
        let Some(wait) = pace.wait(now) else {
            if was_paused {
                // weir was not reading, so the silence does not count as the client's.
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
        if at < self.deadline() {
            self.set_timer(context, at);
        }
    }

    /// Returns whether the keep-alive deadline has passed. The timer is not moved with each packet: when it fires, it is set
    /// again for the time that is left.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> bool {
        let now = self.shared.now();
        let deadline = self.protocol.keep_alive_deadline();
        if self.timer.as_mut().poll(context).is_ready() || deadline.is_some_and(|at| at < self.deadline()) {
            if deadline.is_some_and(|at| at <= now) {
                return true;
            }
            self.set_timer(context, deadline.unwrap_or(now + FAR));
        }
        false
    }

    /// Ends the connection if its client was silent for too long, or sets the timer for the next look. `end` says how this
    /// poll ended.
    fn judge_silence(&mut self, context: &mut Context<'_>, end: PollEnd) -> Result<(), CloseReason> {
        let now = self.shared.now();
        if end == PollEnd::NotReading {
            self.protocol.heard(now);
        }
        match self.protocol.judge_silence(now, self.shared.stalled_until(now)) {
            Silence::TooLong => Err(CloseReason::KeepAlive),
            Silence::AllowedUntil(at) => {
                self.set_timer(context, at.unwrap_or(now + FAR));
                Ok(())
            }
        }
    }

    fn set_timer(&mut self, context: &mut Context<'_>, at: Instant) {
        self.timer.as_mut().reset(at.into());
        if self.timer.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }

    fn deadline(&self) -> Instant {
        self.timer.deadline().into_std()
    }
}

#[cfg(test)]
mod tests;
