//! One connection over a stream that the test holds.

use std::collections::VecDeque;
use std::io;

use tokio::io::ReadBuf;

use super::*;
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
    let door = Door::new(&Mqtt::default(), &Ingest::default(), journal, Arc::new(SystemClock));
    Opening(Arc::new(door)).serve(&mut stream, CancellationToken::new()).await;
    let answers = packets(&stream.written, Version::V4);
    let pings = answers.iter().filter(|answer| matches!(answer, Sent::Other(bytes) if bytes == &[0xd0, 0]));
    assert_eq!((answers.len(), pings.count()), (1 + count, count));
}
