//! The sending half of a connection: output that the socket did not take, acknowledgements that became durable,
//! messages for the client.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::thread_buffers::{OUTPUT_BYTES, ThreadBuffers};
use super::{Connection, PollStep};
use crate::defects::{self, Defect};
use crate::log::Lsn;
use crate::mqtt::wire::close::CloseReason;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Sends the output that waits, then acknowledgements and messages, until there is nothing more to send or the
    /// socket takes no more.
    ///
    /// # Errors
    /// The stream failed.
    pub(super) fn send_due(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut ThreadBuffers,
    ) -> Result<PollStep, CloseReason> {
        loop {
            if self.poll_unsent(context)? == PollStep::Waiting {
                // Answers to the last read join the output that waits. Nothing else is added to it: the socket is not
                // read and nothing is acknowledged or delivered until it is sent.
                self.unsent.extend_from_slice(&buffers.out);
                buffers.out.clear();
                return Ok(PollStep::Waiting);
            }
            self.write_acks(&mut buffers.out);
            let more = self.deliver(&mut buffers.out);
            if buffers.out.is_empty() {
                return Ok(PollStep::Ready);
            }
            self.send(context, &mut buffers.out)?;
            if self.unsent.is_empty() && !more {
                return self.poll_flush(context);
            }
        }
    }

    /// Appends to `out` the acknowledgements of durable publishes, and updates their metrics.
    pub(super) fn write_acks(&mut self, out: &mut Vec<u8>) {
        if self.protocol.acks().len() == 0 {
            return;
        }
        let durable =
            if defects::is(Defect::AcknowledgeAtOnce) { Lsn(u64::MAX) } else { self.shared.journal.durable() };
        let waiting = self.protocol.acks().len();
        if let Some(read_at) = self.protocol.write_acks(durable, out) {
            self.shared.meters.traffic.acknowledged(waiting - self.protocol.acks().len());
            self.shared.meters.ack_seconds.record(self.shared.now().saturating_duration_since(read_at).as_secs_f64());
        }
    }

    /// Appends messages for the client to `out`. Returns whether there are more of them than fit in the output now.
    fn deliver(&mut self, out: &mut Vec<u8>) -> bool {
        let now = || self.shared.now();
        let written =
            self.session.write(self.id, self.protocol.version(), self.max_packet_bytes, OUTPUT_BYTES, now, out);
        let Some(written) = written else { return false };
        self.shared.meters.written(&written);
        written.more
    }

    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Result<PollStep, CloseReason> {
        let mut sent = 0;
        let step = loop {
            if sent == self.unsent.len() {
                break PollStep::Ready;
            }
            match Pin::new(&mut self.stream).poll_write(context, &self.unsent[sent..]) {
                Poll::Pending => break PollStep::Waiting,
                Poll::Ready(Ok(0) | Err(_)) => return Err(CloseReason::Lost),
                Poll::Ready(Ok(count)) => sent += count,
            }
        };
        self.unflushed |= sent > 0;
        self.shared.meters.traffic.sent(sent);
        if sent > 0 {
            // The socket is not read while output waits, so the silence until here does not count as the client's.
            self.protocol.heard(self.shared.now());
        }
        if step == PollStep::Ready {
            self.unsent = Vec::new();
            return self.poll_flush(context);
        }
        self.unsent.drain(..sent);
        Ok(step)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Result<PollStep, CloseReason> {
        if !self.unflushed {
            return Ok(PollStep::Ready);
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => Ok(PollStep::Waiting),
            Poll::Ready(Ok(())) => {
                self.unflushed = false;
                Ok(PollStep::Ready)
            }
            Poll::Ready(Err(_)) => Err(CloseReason::Lost),
        }
    }

    /// Writes `out` to the stream. Bytes that the stream does not take are added to `unsent`. `out` is empty
    /// afterwards.
    fn send(&mut self, context: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), CloseReason> {
        let mut sent = 0;
        while sent < out.len() {
            match Pin::new(&mut self.stream).poll_write(context, &out[sent..]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => {
                    out.clear();
                    return Err(CloseReason::Lost);
                }
                Poll::Ready(Ok(count)) => sent += count,
            }
        }
        self.unflushed |= sent > 0;
        self.shared.meters.traffic.sent(sent);
        self.unsent.extend_from_slice(&out[sent..]);
        out.clear();
        Ok(())
    }
}
