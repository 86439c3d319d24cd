//! One connection of the simulated network: two streams of bytes that are delayed, cut and broken.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes in flight to the client. At this limit a write of weir waits.
const WINDOW_BYTES: usize = 2048;

#[derive(Debug, Default)]
struct Line {
    /// Bytes to weir that were sent and have not arrived, and bytes that have arrived.
    up: VecDeque<u8>,
    up_arrived: VecDeque<u8>,
    /// Bytes to the client that were sent and have not arrived, and bytes that have arrived.
    down: VecDeque<u8>,
    down_arrived: VecDeque<u8>,
    client_gone: bool,
    /// weir knows that the client is gone.
    server_knows: bool,
    server_closed: bool,
}

/// Both ends of a connection.
#[derive(Debug, Clone, Default)]
pub struct Wire(Rc<RefCell<Line>>);

/// weir's end.
#[derive(Debug)]
pub struct ServerEnd(Rc<RefCell<Line>>);

impl Wire {
    pub fn server_end(&self) -> ServerEnd {
        ServerEnd(Rc::clone(&self.0))
    }

    /// Whether both are ends of one connection.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// The client sends.
    pub fn send(&self, bytes: &[u8]) {
        self.0.borrow_mut().up.extend(bytes);
    }

    /// Takes what has arrived at the client.
    pub fn receive(&self) -> Vec<u8> {
        self.0.borrow_mut().down_arrived.drain(..).collect()
    }

    /// Bytes on the way, to weir and to the client.
    pub fn in_flight(&self) -> (usize, usize) {
        let line = self.0.borrow();
        (line.up.len(), line.down.len())
    }

    /// Lets some bytes arrive at weir.
    pub fn deliver_up(&self, count: usize) {
        let mut line = self.0.borrow_mut();
        let count = count.min(line.up.len());
        let arrived: Vec<u8> = line.up.drain(..count).collect();
        line.up_arrived.extend(arrived);
    }

    /// Lets some bytes arrive at the client.
    pub fn deliver_down(&self, count: usize) {
        let mut line = self.0.borrow_mut();
        let count = count.min(line.down.len());
        let arrived: Vec<u8> = line.down.drain(..count).collect();
        line.down_arrived.extend(arrived);
    }

    /// Breaks the connection for the client: acknowledgements in flight are lost. Of the bytes that the client sent,
    /// the first `still_arriving` bytes still arrive; weir does not notice yet.
    pub fn break_off(&self, still_arriving: usize) {
        let mut line = self.0.borrow_mut();
        line.client_gone = true;
        line.up.truncate(still_arriving);
        line.down.clear();
        line.down_arrived.clear();
    }

    /// Lets weir notice that the client is gone: bytes in flight are lost.
    pub fn tell_server(&self) {
        let mut line = self.0.borrow_mut();
        line.up.clear();
        line.server_knows = true;
    }

    pub fn client_gone(&self) -> bool {
        self.0.borrow().client_gone
    }

    /// Whether weir closed the connection and the client has received everything.
    pub fn ended_by_server(&self) -> bool {
        let line = self.0.borrow();
        line.server_closed && line.down.is_empty() && line.down_arrived.is_empty()
    }
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset")
}

impl AsyncRead for ServerEnd {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut line = self.0.borrow_mut();
        if line.up_arrived.is_empty() {
            return if line.server_knows { Poll::Ready(Err(reset())) } else { Poll::Pending };
        }
        let count = line.up_arrived.len().min(buffer.remaining());
        let bytes: Vec<u8> = line.up_arrived.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerEnd {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut line = self.0.borrow_mut();
        if line.server_knows {
            return Poll::Ready(Err(reset()));
        }
        if line.client_gone {
            return Poll::Ready(Ok(bytes.len()));
        }
        let count = bytes.len().min(WINDOW_BYTES.saturating_sub(line.down.len()));
        if count == 0 {
            return Poll::Pending;
        }
        line.down.extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().server_closed = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.0.borrow_mut().server_closed = true;
    }
}
