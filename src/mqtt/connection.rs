//! One connection: a socket, its session, and the order of work between them.
//!
//! A hand-written poll loop: what is due is sent first (acknowledgements that became durable, messages for the
//! client), then the socket is read, everything that one read brought is appended to the journal together, and so on
//! until the socket has nothing more. No channel and no allocation per message; the locks are the journal's, once per
//! read, and the session's, once per delivery. The socket is not read while output waits to be sent, while the journal
//! has no room, while `max_inflight` acknowledgements are outstanding, or while the client is ahead of its rate.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::around::{Around, Door};
use super::close::Close;
use super::frame::{self, Next};
use super::handle::{ConnectionId, Handle};
use super::rate::Pace;
use super::scratch::{self, OUTPUT_BYTES, READ_BYTES, Scratch};
use super::session::{Event, Session};
use crate::access::Login;
use crate::defects::{self, Defect};
use crate::log::{AppendError, Lsn, Records};

/// Reads in one poll before other connections get their turn.
const MAX_READS: usize = 8;
/// Encoded publishes are appended before they become more than this, within one read: topics behind aliases make
/// records larger than the packets they came in.
const APPEND_BYTES: usize = 128 * 1024;
/// From this size on, an incomplete packet is read into its own buffer instead of being copied for each read.
const LARGE_PARTIAL_BYTES: usize = 4 * 1024;
/// A buffer for incomplete packets is kept up to this size.
const KEPT_PARTIAL_BYTES: usize = 512;
/// When nothing else wakes a connection that waits: another connection's append, or room that was not enough.
const FALLBACK: Duration = Duration::from_millis(20);
/// A deadline for a connection without one.
const FAR: Duration = Duration::from_secs(30 * 86_400);

/// Publishes that the journal had no room for.
#[derive(Debug)]
struct Blocked {
    records: Records,
    since: Instant,
}

/// What a connection begins with.
pub(crate) struct Start<S> {
    pub stream: S,
    pub door: Arc<Door>,
    pub handle: Arc<Handle>,
    pub id: ConnectionId,
    /// Who the client is.
    pub login: Login,
    pub session: Session,
    /// Largest packet that the client takes.
    pub max_packet_bytes: usize,
    /// What was read behind the CONNECT.
    pub read: Vec<u8>,
    /// What is to be sent first.
    pub reply: Vec<u8>,
    pub cancel: CancellationToken,
}

/// A connection with its session.
pub(crate) struct Connection<S> {
    stream: S,
    door: Arc<Door>,
    handle: Arc<Handle>,
    id: ConnectionId,
    login: Login,
    session: Session,
    /// Largest packet that the client takes.
    max_packet_bytes: usize,
    /// Bytes read and not yet taken: the beginning of a packet, or whatever followed when the journal became full.
    partial: Vec<u8>,
    /// Whether `partial` is to be looked at before the socket is read.
    unread: bool,
    blocked: Option<Blocked>,
    /// Output that the socket did not take.
    unsent: Vec<u8>,
    /// Whether the stream may hold back what was written to it, as TLS does.
    unflushed: bool,
    /// Where the client's rate is limited.
    pace: Option<Box<Pace>>,
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
enum Step {
    /// Go on.
    Ready,
    /// Something will wake the connection.
    Waiting,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(start: Start<S>) -> Self {
        let now = start.door.now();
        let rates_version = start.door.rates.version();
        Self {
            pace: Pace::new(&start.door.rates, now),
            rates_version,
            unflushed: false,
            stream: start.stream,
            door: start.door,
            handle: start.handle,
            id: start.id,
            login: start.login,
            session: start.session,
            max_packet_bytes: start.max_packet_bytes,
            partial: start.read,
            unread: true,
            blocked: None,
            unsent: start.reply,
            waker: None,
            own_appends: Lsn(0),
            timer: Box::pin(sleep_until((now + FAR).into())),
            cancelled: Box::pin(start.cancel.cancelled_owned()),
        }
    }

    /// The socket, what is still to be sent, and how many seconds the session outlives the connection.
    pub fn into_parts(self) -> (S, Vec<u8>, u32) {
        (self.stream, self.unsent, self.session.expiry_s())
    }

    /// Works until the connection ends.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Close> {
        scratch::with(|scratch| match self.advance(context, scratch) {
            Ok(()) => Poll::Pending,
            Err(close) => {
                // What was due before stays due: acknowledgements of durable publishes, answers, then the reason.
                self.unsent.extend_from_slice(&scratch.out);
                scratch.out.clear();
                frame::put_disconnect(close, self.session.version(), &mut self.unsent);
                Poll::Ready(close)
            }
        })
    }

    fn advance(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Result<(), Close> {
        self.register(context.waker());
        if self.handle.owner() != self.id {
            return Err(Close::TakenOver);
        }
        if self.cancelled.as_mut().poll(context).is_ready() {
            self.write_acks(&mut scratch.out);
            return Err(Close::ShuttingDown);
        }
        self.poll_timer(context)?;
        for _ in 0..MAX_READS {
            if self.send_due(context, scratch)? == Step::Waiting || self.poll_room(context)? == Step::Waiting {
                return Ok(());
            }
            if self.session.is_full() {
                // Woken by the journal; it may have passed some in the meantime.
                self.watch_acks(context)?;
                return Ok(());
            }
            if self.poll_pace(context) == Step::Waiting {
                self.watch_acks(context)?;
                return Ok(());
            }
            if self.read(context, scratch)? == Step::Waiting {
                self.watch_acks(context)?;
                return Ok(());
            }
        }
        // The buffer is the thread's: answers to the last read wait with the connection.
        self.unsent.extend_from_slice(&scratch.out);
        scratch.out.clear();
        context.waker().wake_by_ref();
        Ok(())
    }

    fn register(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.handle.register(self.id, waker);
            self.waker = Some(waker.clone());
        }
    }

    /// Sends what waits, then acknowledgements and messages, until there is nothing more or the socket is full.
    fn send_due(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Result<Step, Close> {
        loop {
            if self.poll_unsent(context)? == Step::Waiting {
                // Nothing is added to what waits: input, its answers and deliveries wait with it.
                self.unsent.extend_from_slice(&scratch.out);
                scratch.out.clear();
                return Ok(Step::Waiting);
            }
            self.write_acks(&mut scratch.out);
            let more = self.deliver(&mut scratch.out);
            if scratch.out.is_empty() {
                return Ok(Step::Ready);
            }
            self.send(context, &mut scratch.out)?;
            if self.unsent.is_empty() && !more {
                return self.poll_flush(context);
            }
        }
    }

    fn write_acks(&mut self, out: &mut Vec<u8>) {
        if self.session.acks().len() == 0 {
            return;
        }
        let durable = if defects::is(Defect::AcknowledgeAtOnce) { Lsn(u64::MAX) } else { self.door.gate.durable() };
        let waiting = self.session.acks().len();
        if let Some(read_at) = self.session.write_acks(durable, out) {
            self.door.meters.traffic.acknowledged(waiting - self.session.acks().len());
            self.door.meters.ack_seconds.record(self.door.now().saturating_duration_since(read_at).as_secs_f64());
        }
    }

    /// Whether there is more to deliver than fits in the output now.
    fn deliver(&mut self, out: &mut Vec<u8>) -> bool {
        let now = || self.door.now();
        let written = self.handle.write(self.id, self.session.version(), self.max_packet_bytes, OUTPUT_BYTES, now, out);
        let Some(written) = written else { return false };
        self.door.meters.written(&written);
        written.more
    }

    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Result<Step, Close> {
        let mut sent = 0;
        let step = loop {
            if sent == self.unsent.len() {
                break Step::Ready;
            }
            match Pin::new(&mut self.stream).poll_write(context, &self.unsent[sent..]) {
                Poll::Pending => break Step::Waiting,
                Poll::Ready(Ok(0) | Err(_)) => return Err(Close::Lost),
                Poll::Ready(Ok(count)) => sent += count,
            }
        };
        self.unflushed |= sent > 0;
        self.door.meters.traffic.sent(sent);
        if step == Step::Ready {
            self.unsent = Vec::new();
            return self.poll_flush(context);
        }
        self.unsent.drain(..sent);
        Ok(step)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Result<Step, Close> {
        if !self.unflushed {
            return Ok(Step::Ready);
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => Ok(Step::Waiting),
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                Ok(Step::Ready)
            }
            Poll::Ready(Err(_)) => Err(Close::Lost),
        }
    }

    /// Whether the client's rate allows to read on.
    fn poll_pace(&mut self, context: &mut Context<'_>) -> Step {
        let version = self.door.rates.version();
        if version != self.rates_version {
            self.rates_version = version;
            self.pace = Pace::new(&self.door.rates, self.door.now());
        }
        let Some(pace) = &mut self.pace else { return Step::Ready };
        let now = self.door.now();
        let was_paused = pace.is_paused();
        let Some(wait) = pace.wait(now) else {
            if was_paused {
                // The client was not heard because weir did not listen.
                self.session.heard(now);
            }
            return Step::Ready;
        };
        if wait.begins {
            self.door.meters.throttled(wait.limit);
        }
        self.wake_after(context, wait.until.saturating_duration_since(now));
        Step::Waiting
    }

    /// Writes `out`; what the socket does not take becomes `unsent`. Leaves `out` empty.
    fn send(&mut self, context: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), Close> {
        let mut sent = 0;
        while sent < out.len() {
            match Pin::new(&mut self.stream).poll_write(context, &out[sent..]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => {
                    out.clear();
                    return Err(Close::Lost);
                }
                Poll::Ready(Ok(count)) => sent += count,
            }
        }
        self.unflushed |= sent > 0;
        self.door.meters.traffic.sent(sent);
        self.unsent.extend_from_slice(&out[sent..]);
        out.clear();
        Ok(())
    }

    /// Appends what the journal had no room for.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Result<Step, Close> {
        const ATTEMPTS: usize = 3;
        for _ in 0..ATTEMPTS {
            let Some(Blocked { records, since }) = self.blocked.take() else { return Ok(Step::Ready) };
            self.append(context.waker(), records, Some(since), since)?;
            if self.blocked.is_none() {
                // The client was not heard because weir did not listen.
                self.session.heard(self.door.now());
                return Ok(Step::Ready);
            }
            if self.door.gate.poll_room(context).is_pending() {
                return Ok(Step::Waiting);
            }
        }
        // There is room, but not enough for these records.
        self.wake_after(context, FALLBACK);
        Ok(Step::Waiting)
    }

    /// Appends `records` (read at `read_at`), or keeps them where the journal is full. Returns them emptied if they
    /// were taken.
    fn append(
        &mut self,
        waker: &Waker,
        mut records: Records,
        waiting_since: Option<Instant>,
        read_at: Instant,
    ) -> Result<Records, Close> {
        let mut until = None;
        if !records.is_empty() {
            let waits = self.session.acks().has_unsealed();
            let appended = {
                // Under the session's lock: once a newer connection has the session, nothing of this one may follow in
                // the journal. What the client sends again there would stand in front of what it repeats.
                let Some(_own) = self.handle.own(self.id) else { return Err(Close::TakenOver) };
                self.door.gate.append(&records, waits.then_some(waker), waiting_since, self.door.now())
            };
            match appended {
                Ok(lsn) => {
                    until = Some(lsn);
                    if waits {
                        self.own_appends = lsn;
                    }
                }
                Err(AppendError::Full) => {
                    self.blocked = Some(Blocked { records, since: waiting_since.unwrap_or(read_at) });
                    return Ok(Records::default());
                }
                Err(AppendError::Closed) => return Err(Close::Journal),
                Err(AppendError::TooLarge { .. }) => {
                    // The configuration is refused where that can happen.
                    self.door.meters.limit("journal_record");
                    return Err(Close::Quota);
                }
            }
        }
        records.clear();
        let (fresh, last) = self.session.appended(until, read_at);
        if !fresh.is_empty() {
            self.handle.hold(self.id, fresh, last);
        }
        self.session.begin_append();
        Ok(records)
    }

    /// Makes sure that acknowledgements which wait for something else than this connection's own appends leave too: a
    /// QoS 2 publish repeated after a take-over waits for the append of the connection before.
    fn watch_acks(&mut self, context: &mut Context<'_>) -> Result<(), Close> {
        if let Some(position) = self.session.acks().waits_for() {
            if position <= self.door.gate.durable() {
                context.waker().wake_by_ref();
            } else if position > self.own_appends {
                self.wake_after(context, FALLBACK);
            }
        }
        Ok(())
    }

    /// Reads once and takes what came.
    fn read(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Result<Step, Close> {
        if std::mem::take(&mut self.unread) && !self.partial.is_empty() {
            let bytes = std::mem::take(&mut self.partial);
            self.take(context.waker(), &bytes, &mut scratch.records, &mut scratch.out)?;
            return Ok(Step::Ready);
        }
        if self.partial.len() >= LARGE_PARTIAL_BYTES {
            return self.read_large(context, scratch);
        }
        let Scratch { read, records, out } = scratch;
        let kept = self.partial.len();
        read[..kept].copy_from_slice(&self.partial);
        let end = READ_BYTES.min(kept.saturating_add(self.readable_bytes()));
        let mut buffer = ReadBuf::new(&mut read[kept..end]);
        let count = match self.poll_read(context, &mut buffer)? {
            Poll::Ready(count) => count,
            Poll::Pending => return Ok(Step::Waiting),
        };
        self.empty_partial();
        self.take(context.waker(), &read[..kept + count], records, out)?;
        Ok(Step::Ready)
    }

    /// Reads the rest of a large packet behind its beginning. The buffer doubles with what arrives: what a client only
    /// claims to send takes no memory.
    fn read_large(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Result<Step, Close> {
        let mut bytes = std::mem::take(&mut self.partial);
        let kept = bytes.len();
        let total = match frame::next(&bytes, self.door.config.max_packet_size_bytes)? {
            Next::Partial(Some(total)) => total,
            Next::Partial(None) | Next::Frame(_) => kept + READ_BYTES,
        };
        bytes.resize(total.min(kept * 2).min(kept.saturating_add(self.readable_bytes())), 0);
        let mut buffer = ReadBuf::new(&mut bytes[kept..]);
        match self.poll_read(context, &mut buffer)? {
            Poll::Ready(count) => {
                bytes.truncate(kept + count);
                if bytes.len() < total {
                    self.partial = bytes;
                    self.session.heard(self.door.now());
                } else {
                    self.take(context.waker(), &bytes, &mut scratch.records, &mut scratch.out)?;
                }
                Ok(Step::Ready)
            }
            Poll::Pending => {
                bytes.truncate(kept);
                self.partial = bytes;
                Ok(Step::Waiting)
            }
        }
    }

    /// What the client's rate lets be read now; never 0.
    fn readable_bytes(&self) -> usize {
        self.pace.as_ref().map_or(usize::MAX, |pace| pace.bytes(self.door.now()).max(1))
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Result<Poll<usize>, Close> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(Close::Lost),
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                if let Some(pace) = &mut self.pace {
                    pace.took_bytes(count, self.door.now());
                }
                self.door.meters.traffic.read(count);
                Ok(Poll::Ready(count))
            }
            Poll::Ready(Err(_)) => Err(Close::Lost),
        }
    }

    fn empty_partial(&mut self) {
        if self.partial.capacity() > KEPT_PARTIAL_BYTES {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
        }
    }

    /// Takes the packets in `bytes` and keeps what is left over.
    fn take(&mut self, waker: &Waker, bytes: &[u8], records: &mut Records, out: &mut Vec<u8>) -> Result<(), Close> {
        let now = self.door.now();
        self.session.heard(now);
        self.session.begin_append();
        let mut taken = 0;
        let mut ended = Ok(());
        let limited = self.pace.is_some();
        let (allowed, mut counted) = (self.pace.as_ref().map_or(usize::MAX, |pace| pace.messages(now)), 0);
        while self.blocked.is_none() && counted < allowed {
            let counts = limited && bytes.get(taken).is_some_and(|first| Pace::counts(first >> 4));
            match self.take_packet(waker, now, &bytes[taken..], records, out) {
                Ok(0) => break,
                Ok(count) => {
                    taken += count;
                    counted += usize::from(counts);
                }
                Err(close) => {
                    ended = Err(close);
                    break;
                }
            }
        }
        if self.blocked.is_none() {
            // What came before a packet that ends the connection counts all the same.
            *records = self.append(waker, std::mem::take(records), None, now)?;
        }
        self.unread = self.blocked.is_some() || counted >= allowed;
        if let Some(pace) = &mut self.pace {
            pace.took_messages(counted, now);
        }
        self.partial.extend_from_slice(&bytes[taken..]);
        self.door.meters.received(&self.session.take_received());
        ended
    }

    /// Takes the next packet; returns its length, 0 where it is not complete or has to wait for room in the journal.
    #[inline]
    fn take_packet(
        &mut self,
        waker: &Waker,
        now: Instant,
        bytes: &[u8],
        records: &mut Records,
        out: &mut Vec<u8>,
    ) -> Result<usize, Close> {
        let config = &self.door.config;
        let Next::Frame(frame) = frame::next(bytes, config.max_packet_size_bytes)? else { return Ok(0) };
        // The journal takes at least the largest packet at once, so it takes this many bytes together.
        let append_bytes = APPEND_BYTES.min(config.max_packet_size_bytes);
        if !records.is_empty() && records.bytes() + frame.bytes.len() + self.session.record_overhead() > append_bytes {
            *records = self.append(waker, std::mem::take(records), None, now)?;
            if self.blocked.is_some() {
                return Ok(0);
            }
        }
        let around = Around { door: &self.door, handle: &self.handle, id: self.id, login: &self.login };
        let version = self.session.version();
        match self.session.on_frame(&frame, &around, records, out)? {
            Event::None => {}
            event => around.carry_out(event, version, out)?,
        }
        Ok(frame.bytes.len())
    }

    fn wake_after(&mut self, context: &mut Context<'_>, wait: Duration) {
        let at = self.door.now() + wait;
        if at < self.timer.deadline().into_std() {
            self.timer.as_mut().reset(at.into());
            if self.timer.as_mut().poll(context).is_ready() {
                context.waker().wake_by_ref();
            }
        }
    }

    /// Keep-alive. The timer is not moved with each packet: when it rings, it is set again for what is left.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Result<(), Close> {
        let now = self.door.now();
        let deadline = self.session.keep_alive_deadline();
        if self.timer.as_mut().poll(context).is_ready() || deadline.is_some_and(|at| at < self.deadline()) {
            let throttled = self.pace.as_ref().is_some_and(|pace| pace.is_paused());
            let paused = self.blocked.is_some() || self.session.is_full() || throttled;
            if paused {
                self.session.heard(now);
            }
            match self.session.keep_alive_deadline() {
                Some(at) if at <= now => return Err(Close::KeepAlive),
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
mod tests {
    use std::collections::VecDeque;
    use std::io;

    use tokio::io::ReadBuf;

    use super::*;
    use crate::access::{Access, Policy};
    use crate::clock::SystemClock;
    use crate::config::{Ingest, Mqtt};
    use crate::mqtt::testing::{Sent, TestJournal, client, packets};
    use crate::mqtt::{Opening, Version};

    /// A client all of whose packets are there already, one to a read.
    struct Pieces {
        pieces: VecDeque<Vec<u8>>,
        written: Vec<u8>,
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if let Some(piece) = self.pieces.pop_front() {
                buffer.put_slice(&piece);
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.written.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Where a poll ends after some reads, for the sake of others, the answers to the last of them are not lost.
    #[tokio::test]
    async fn every_packet_is_answered_however_many_are_there_at_once() {
        const PINGREQ: [u8; 2] = [0xc0, 0];
        let count = 3 * MAX_READS + 1;
        let mut pieces = VecDeque::from(vec![PINGREQ.to_vec(); count]);
        pieces.push_front(client(Version::V4).connect("c"));
        let mut stream = Pieces { pieces, written: Vec::new() };
        let journal = TestJournal::eager();
        let access = Arc::new(Access::new(Policy::without_users(true)));
        let door = Door::new(&Mqtt::default(), &Ingest::default(), journal, access, Arc::new(SystemClock));
        Opening(Arc::new(door)).serve(&mut stream, CancellationToken::new()).await;
        let answers = packets(&stream.written, Version::V4);
        let pings = answers.iter().filter(|answer| matches!(answer, Sent::Other(bytes) if bytes == &[0xd0, 0]));
        assert_eq!((answers.len(), pings.count()), (1 + count, count));
    }
}
