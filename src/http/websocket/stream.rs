//! A WebSocket as the stream of bytes that MQTT runs over. Packets may end anywhere in frames, and frames anywhere in packets
//! [MQTT-6.0.0-2].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{self, FrameError, FrameHeader, FrameKind, MAX_CONTROL_BYTES, MAX_HEADER_BYTES};

/// Bytes read ahead: the header of a frame and, in most cases, its packet.
const READ_BYTES: usize = 1_024;
/// Payload read from the stream at once. The space for it is filled with zeros each time, and the stream may have one byte.
const PAYLOAD_BYTES: usize = 16 * 1_024;
/// Payload of one frame sent at most.
const WRITE_BYTES: usize = 16 * 1_024;
/// While this many bytes wait to be sent, pings are not answered: the client does not read.
const PONG_BYTES: usize = 32 * 1_024;

/// Frames taken in one poll before other connections get their turn.
const MAX_FRAMES: usize = 64;

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;
/// Status code of a close without an error.
const NORMAL: u16 = 1000;

/// The server's end of an open WebSocket.
pub(super) struct WebSocket<S> {
    stream: S,
    /// Bytes read and not yet parsed.
    input: Vec<u8>,
    /// The frame whose payload is being read, and the bytes read of it.
    current: Option<(FrameHeader, u64)>,
    /// Whether a message has begun and not ended.
    in_message: bool,
    /// Payload of a control frame so far.
    control: Vec<u8>,
    /// Frames that the stream has not taken yet.
    output: Vec<u8>,
    /// Whether the client sent a close frame, or its stream ended.
    ended: bool,
    /// Whether weir sent a close frame.
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// A WebSocket after its handshake. `input` holds the bytes that were read behind it.
    pub fn new(stream: S, input: Vec<u8>) -> Self {
        Self {
            stream,
            input,
            current: None,
            in_message: false,
            control: Vec::new(),
            output: Vec::new(),
            ended: false,
            closed: false,
        }
    }

    /// Bytes that were read and are not parsed yet.
    pub fn input_bytes(&self) -> usize {
        self.input.len()
    }

    /// Bytes that the stream has not taken.
    #[cfg(test)]
    pub fn waiting_bytes(&self) -> usize {
        self.output.len()
    }

    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let result = loop {
            if sent == self.output.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut self.stream).poll_write(context, &self.output[sent..]) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
            }
        };
        if sent == self.output.len() {
            // An idle connection does not keep the memory of a burst.
            self.output = Vec::new();
        } else {
            self.output.drain(..sent);
        }
        result
    }

    fn send_close(&mut self, status: u16) {
        if !self.closed {
            self.closed = true;
            frame::put_header(CLOSE, 2, &mut self.output);
            self.output.extend_from_slice(&status.to_be_bytes());
        }
    }

    /// Sends the answer to a frame. Bytes that the stream does not take now go with the next write.
    fn answer(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Poll::Ready(sent) = self.poll_output(context) {
            sent?;
            if let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(context) {
                flushed?;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, context: &mut Context<'_>, refused: FrameError) -> io::Error {
        self.send_close(refused.status());
        self.ended = true;
        // The connection ends whether or not the client receives the reason.
        let _ = self.answer(context);
        io::Error::new(io::ErrorKind::InvalidData, "a WebSocket frame that is not allowed")
    }

    /// Reads more input. Returns `false` at the end of the stream.
    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        self.input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(!buffer.filled().is_empty()))
    }

    /// Copies the available part of a data frame's payload into `buffer`.
    fn poll_payload(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        (header, done): (FrameHeader, u64),
    ) -> Poll<io::Result<()>> {
        let left = usize::try_from(header.payload_bytes - done).unwrap_or(usize::MAX);
        let before = buffer.filled().len();
        if self.input.is_empty() {
            let free = left.min(buffer.remaining()).min(PAYLOAD_BYTES);
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(free));
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
            self.ended |= count == 0;
        } else {
            let count = left.min(buffer.remaining()).min(self.input.len());
            buffer.put_slice(&self.input[..count]);
            self.input.drain(..count);
            if self.input.is_empty() {
                // What came with the handshake may be large; frames later come in small reads.
                self.input.shrink_to(READ_BYTES);
            }
        }
        let got = &mut buffer.filled_mut()[before..];
        frame::unmask(got, header.mask, done);
        let done = done + got.len() as u64;
        self.current = (done < header.payload_bytes).then_some((header, done));
        Poll::Ready(Ok(()))
    }

    /// Handles a control frame whose payload is complete.
    fn take_control(&mut self, context: &mut Context<'_>, kind: FrameKind) -> io::Result<()> {
        let payload = std::mem::take(&mut self.control);
        match kind {
            FrameKind::Ping if !self.closed && self.output.len() < PONG_BYTES => {
                frame::put_header(PONG, payload.len(), &mut self.output);
                self.output.extend_from_slice(&payload);
                self.answer(context)
            }
            FrameKind::Close => {
                // Section 5.5.1: the answer carries the status that was sent.
                let status = payload.first_chunk().map_or(NORMAL, |status| u16::from_be_bytes(*status));
                self.send_close(if (1000..5000).contains(&status) { status } else { NORMAL });
                self.ended = true;
                self.answer(context)
            }
            FrameKind::Data | FrameKind::Ping | FrameKind::Pong => Ok(()),
        }
    }

    /// Takes the header of a frame from the input; of a control frame, all of it. Returns `false` where more input is needed.
    fn take_frame(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let header = match frame::header(&self.input, self.in_message) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(false),
            Err(refused) => return Err(self.refuse(context, refused)),
        };
        if header.kind == FrameKind::Data {
            self.in_message = header.continues;
            self.input.drain(..header.bytes);
            self.current = (header.payload_bytes > 0).then_some((header, 0));
            return Ok(true);
        }
        // At most 125 bytes, as the header was checked.
        let end = header.bytes + usize::try_from(header.payload_bytes).unwrap_or(MAX_CONTROL_BYTES);
        let Some(payload) = self.input.get_mut(header.bytes..end) else { return Ok(false) };
        frame::unmask(payload, header.mask, 0);
        self.control = payload.to_vec();
        self.input.drain(..end);
        self.take_control(context, header.kind)?;
        Ok(true)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        let before = buffer.filled().len();
        for _ in 0..MAX_FRAMES {
            if socket.ended || buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let got_some = buffer.filled().len() > before;
            if let Some(current) = socket.current {
                // The stream is asked once: after that, the buffer gets what was read ahead.
                if got_some && socket.input.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                ready!(socket.poll_payload(context, buffer, current))?;
                continue;
            }
            match socket.take_frame(context) {
                Ok(true) => {}
                // A refused frame ends the socket; the payload before it is delivered first.
                Ok(false) | Err(_) if got_some => return Poll::Ready(Ok(())),
                Ok(false) => {
                    debug_assert!(socket.input.len() < MAX_HEADER_BYTES + MAX_CONTROL_BYTES);
                    socket.ended |= !ready!(socket.poll_input(context))?;
                }
                Err(refused) => return Poll::Ready(Err(refused)),
            }
        }
        if buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        if socket.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(socket.poll_output(context))?;
        let count = bytes.len().min(WRITE_BYTES);
        frame::put_header(BINARY, count, &mut socket.output);
        socket.output.extend_from_slice(&bytes[..count]);
        // The next write or flush sends what the stream does not take now.
        if let Poll::Ready(sent) = socket.poll_output(context) {
            sent?;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        ready!(socket.poll_output(context))?;
        Pin::new(&mut socket.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        socket.send_close(NORMAL);
        ready!(socket.poll_output(context))?;
        Pin::new(&mut socket.stream).poll_shutdown(context)
    }
}
