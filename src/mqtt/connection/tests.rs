//! Tests of one connection over a stream that the test controls.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::*;
use crate::access::{Access, Policy};
use crate::clock::SystemClock;
use crate::config::{IngestConfig, MqttConfig};
use crate::mqtt::testing::{SentPacket, TestJournal, attaching, client, packets};
use crate::mqtt::wire::codec::{RetainHandling, SubscribeOutcome, TopicSubscription};
use crate::mqtt::{ProtocolVersion, StreamServer};

/// The context of a broker with default settings that lets everybody in. Its journal is durable at once.
fn broker_context() -> BrokerContext {
    let access = Arc::new(Access::new(Policy::without_users(true)));
    let journal = TestJournal::eager();
    BrokerContext::new(&MqttConfig::default(), &IngestConfig::default(), journal, access, Arc::new(SystemClock))
}

/// A client whose packets are all there from the start. Each read returns one packet.
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

/// A poll ends after some reads, so that other connections get their turn. The answers to the last of these reads are
/// not lost.
#[tokio::test]
async fn every_packet_is_answered_however_many_are_there_at_once() {
    const PINGREQ: [u8; 2] = [0xc0, 0];
    let count = 3 * MAX_READS + 1;
    let mut pieces = VecDeque::from(vec![PINGREQ.to_vec(); count]);
    pieces.push_front(client(ProtocolVersion::V4).connect("c"));
    let mut stream = Pieces { pieces, written: Vec::new() };
    let shared = broker_context();
    StreamServer(Arc::new(shared)).serve(&mut stream, CancellationToken::new()).await;
    let answers = packets(&stream.written, ProtocolVersion::V4);
    let pings = answers.iter().filter(|answer| matches!(answer, SentPacket::Other(bytes) if bytes == &[0xd0, 0]));
    assert_eq!((answers.len(), pings.count()), (1 + count, count));
}

/// Number of polls of a connection whose publishes are all there at once and match this many shared subscriptions.
async fn polls(subscriptions: usize) -> usize {
    const PUBLISHES: usize = 4;
    let shared = broker_context();
    let subscriber = shared.broker.attach(&attaching("subscriber")).unwrap();
    for group in 0..subscriptions {
        let filter = TopicSubscription {
            filter: format!("$share/{group}/t"),
            qos: 0,
            no_local: false,
            retain_as_published: false,
            retain: RetainHandling::Never,
            identifier: None,
        };
        assert_eq!(
            shared.broker.subscribe(&subscriber.session, subscriber.connection, &filter),
            SubscribeOutcome::Granted(0)
        );
    }
    let publish = client(ProtocolVersion::V4).publish("t", 0, 0, b"x");
    let pieces = VecDeque::from([client(ProtocolVersion::V4).connect("c"), publish.repeat(PUBLISHES)]);
    let mut stream = Pieces { pieces, written: Vec::new() };
    let server = StreamServer(Arc::new(shared));
    let mut served = std::pin::pin!(server.serve(&mut stream, CancellationToken::new()));
    let mut polls = 0;
    std::future::poll_fn(|context| {
        polls += 1;
        served.as_mut().poll(context)
    })
    .await;
    polls
}

/// A publish to very many subscriptions takes a poll of its own, so that other connections get their turn between two
/// such publishes.
#[tokio::test]
async fn publishes_to_very_many_take_a_turn_each() {
    assert!(polls(MAX_TOUCHED).await >= polls(1).await + 3);
}

/// Packets that a client sent before it connected again are processed, although its new connection is polled first.
#[tokio::test]
async fn a_disconnect_that_lies_unread_is_taken_before_the_next_connection() {
    const DISCONNECT_AND_END_THE_SESSION: [u8; 9] = [0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0];
    let shared = broker_context();
    let server = StreamServer(Arc::new(shared));
    let connect = client(ProtocolVersion::V5).kept().connect("c");
    let (mut old, old_end) = tokio::io::duplex(1_024);
    let (mut new, new_end) = tokio::io::duplex(1_024);
    let first = server.serve(old_end, CancellationToken::new());
    let second = server.serve(new_end, CancellationToken::new());
    tokio::pin!(first, second);
    let mut connack = [0; 64];
    old.write_all(&connect).await.unwrap();
    tokio::select! {
        () = &mut first => panic!("it ended"),
        read = old.read(&mut connack) => assert!(read.unwrap() > 4),
    }
    old.write_all(&DISCONNECT_AND_END_THE_SESSION).await.unwrap();
    new.write_all(&connect).await.unwrap();
    let first = async {
        first.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = &mut second => panic!("it ended"),
        () = first => unreachable!("it is pending"),
        read = new.read(&mut connack) => assert!(read.unwrap() > 4),
    }
    assert_eq!(connack[2..4], [0, 0], "the session is a new one");
}
