//! The reading half of a connection: bytes become packets, one read at a time.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::protocol::ProtocolEvent;
use super::rate::ClientRate;
use super::session_context::SessionContext;
use super::thread_buffers::{READ_BYTES, ThreadBuffers};
use super::{Connection, MAX_TOUCHED, PollStep};
use crate::log::Records;
use crate::mqtt::wire::close::CloseReason;
use crate::mqtt::wire::frame::{self, NextFrame};

/// Largest number of bytes of publish records that are appended together, unless one record alone is larger. One read
/// may need several appends: a record is larger than its packet where the packet names its topic by an alias.
const APPEND_BYTES: usize = 128 * 1024;
/// Size in bytes of an incomplete packet from which on the rest is read directly into the packet's own buffer. A
/// smaller one is copied to the thread's buffer for each read.
const LARGE_PARTIAL_BYTES: usize = 4 * 1024;
/// Largest number of bytes that are read at once into the buffer of a large packet. The space for them is filled with zeros
/// each time, and the stream may have one byte.
const LARGE_READ_BYTES: usize = 32 * 1024;
/// Largest capacity in bytes of a buffer for incomplete packets that a connection keeps when the buffer becomes empty.
const KEPT_PARTIAL_BYTES: usize = 512;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads the socket once and processes the packets that arrived. Where `unread` is set, processes the bytes in
    /// `partial` instead, without a read.
    ///
    /// # Errors
    /// The connection ends: the stream ended or failed, a packet ends it, the session has another owner, or the journal
    /// takes nothing more.
    pub(super) fn read(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut ThreadBuffers,
    ) -> Result<PollStep, CloseReason> {
        if std::mem::take(&mut self.unread) && !self.partial.is_empty() {
            let bytes = std::mem::take(&mut self.partial);
            self.take(context.waker(), &bytes, &mut buffers.records, &mut buffers.out)?;
            return Ok(PollStep::Ready);
        }
        if self.partial.len() >= LARGE_PARTIAL_BYTES {
            return self.read_large(context, buffers);
        }
        let ThreadBuffers { read, records, out } = buffers;
        let kept = self.partial.len();
        read[..kept].copy_from_slice(&self.partial);
        let end = READ_BYTES.min(kept.saturating_add(self.readable_bytes()));
        let mut buffer = ReadBuf::new(&mut read[kept..end]);
        let count = match self.poll_read(context, &mut buffer)? {
            Poll::Ready(count) => count,
            Poll::Pending => return Ok(PollStep::Waiting),
        };
        self.empty_partial();
        self.take(context.waker(), &read[..kept + count], records, out)?;
        Ok(PollStep::Ready)
    }

    /// Reads the rest of a large packet into the buffer that holds its beginning. The buffer grows with what has been read:
    /// a length that a client only claims takes no memory.
    fn read_large(&mut self, context: &mut Context<'_>, buffers: &mut ThreadBuffers) -> Result<PollStep, CloseReason> {
        let mut bytes = std::mem::take(&mut self.partial);
        let kept = bytes.len();
        let total = match frame::next(&bytes, self.shared.config.max_packet_size_bytes)? {
            NextFrame::Partial(Some(total)) => total,
            NextFrame::Partial(None) | NextFrame::Frame(_) => kept + READ_BYTES,
        };
        let wanted = kept.min(LARGE_READ_BYTES).min(self.readable_bytes());
        bytes.resize(total.min(kept.saturating_add(wanted)), 0);
        let mut buffer = ReadBuf::new(&mut bytes[kept..]);
        match self.poll_read(context, &mut buffer)? {
            Poll::Ready(count) => {
                bytes.truncate(kept + count);
                if bytes.len() < total {
                    self.partial = bytes;
                    self.protocol.heard(self.shared.now());
                } else {
                    self.take(context.waker(), &bytes, &mut buffers.records, &mut buffers.out)?;
                }
                Ok(PollStep::Ready)
            }
            Poll::Pending => {
                bytes.truncate(kept);
                self.partial = bytes;
                Ok(PollStep::Waiting)
            }
        }
    }

    /// Number of bytes that the client's rate allows to read now. It is never 0, since a read of 0 bytes would look
    /// like the end of the stream.
    fn readable_bytes(&self) -> usize {
        self.pace.as_ref().map_or(usize::MAX, |pace| pace.bytes(self.shared.now()).max(1))
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Result<Poll<usize>, CloseReason> {
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Err(CloseReason::Lost),
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                if let Some(pace) = &mut self.pace {
                    pace.took_bytes(count, self.shared.now());
                }
                self.shared.meters.traffic.read(count);
                Ok(Poll::Ready(count))
            }
            Poll::Ready(Err(_)) => Err(CloseReason::Lost),
        }
    }

    fn empty_partial(&mut self) {
        if self.partial.capacity() > KEPT_PARTIAL_BYTES {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
        }
    }

    /// Processes the packets in `bytes` and keeps the rest in `partial`.
    fn take(
        &mut self,
        waker: &Waker,
        bytes: &[u8],
        records: &mut Records,
        out: &mut Vec<u8>,
    ) -> Result<(), CloseReason> {
        let now = self.shared.now();
        self.protocol.begin_read(now);
        let mut taken = 0;
        let mut ended = Ok(());
        let limited = self.pace.is_some();
        let (allowed, mut counted) = (self.pace.as_ref().map_or(usize::MAX, |pace| pace.messages(now)), 0);
        while self.blocked.is_none() && counted < allowed && self.touched < MAX_TOUCHED {
            let counts = limited && bytes.get(taken).is_some_and(|first| ClientRate::counts(first >> 4));
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
        let context = SessionContext { shared: &self.shared, session: &self.session, id: self.id, login: &self.login };
        self.protocol.end_read(&context);
        if self.blocked.is_none() {
            // Publishes before a packet that ends the connection are journaled all the same.
            *records = self.append(waker, std::mem::take(records), None, now)?;
        }
        self.unread = self.blocked.is_some() || counted >= allowed || self.touched >= MAX_TOUCHED;
        if let Some(pace) = &mut self.pace {
            pace.took_messages(counted, now);
        }
        self.partial.extend_from_slice(&bytes[taken..]);
        self.shared.meters.received(&self.protocol.take_received());
        ended
    }

    /// Processes the next packet. Returns its length; 0 where the packet is not complete, or has to wait for room in
    /// the journal.
    #[inline]
    fn take_packet(
        &mut self,
        waker: &Waker,
        now: Instant,
        bytes: &[u8],
        records: &mut Records,
        out: &mut Vec<u8>,
    ) -> Result<usize, CloseReason> {
        let config = &self.shared.config;
        let NextFrame::Frame(frame) = frame::next(bytes, config.max_packet_size_bytes)? else { return Ok(0) };
        // The journal takes the largest packet in one append, so it takes this many bytes in one append too.
        let append_bytes = APPEND_BYTES.min(config.max_packet_size_bytes);
        if !records.is_empty() && records.bytes() + frame.bytes.len() + self.protocol.record_overhead() > append_bytes {
            *records = self.append(waker, std::mem::take(records), None, now)?;
            if self.blocked.is_some() {
                return Ok(0);
            }
        }
        let context = SessionContext { shared: &self.shared, session: &self.session, id: self.id, login: &self.login };
        let version = self.protocol.version();
        match self.protocol.on_frame(&frame, &context, records, out)? {
            ProtocolEvent::None => {}
            event => {
                let report = context.carry_out(event, version, out)?;
                self.touched += report.touched;
                if report.over_quota {
                    self.protocol.note_over_quota();
                }
            }
        }
        Ok(frame.bytes.len())
    }
}
