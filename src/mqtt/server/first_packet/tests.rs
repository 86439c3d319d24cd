use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::io::ReadBuf;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admission::{CONNECTION_BYTES, PendingConnections};
use crate::mqtt::testing::client;

const LIMITS: ConnectLimits = ConnectLimits { connect_bytes: 1_000, packet_bytes: 4_000 };

/// A socket that gives its bytes in pieces, and checks before each how much memory is held for those that it gave.
struct ConnectPieces<'a> {
    bytes: &'a [u8],
    sizes: Vec<usize>,
    given: usize,
    budget: Arc<PendingConnections>,
    /// Largest buffer that the packet may have.
    bound: usize,
}

impl AsyncRead for ConnectPieces<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let pieces = self.get_mut();
        let buffered = pieces.budget.held() - CONNECTION_BYTES;
        assert!(buffered <= FIRST_BYTES.max(pieces.given * 2), "{buffered} bytes for {} that came", pieces.given);
        assert!(buffered <= pieces.bound, "{buffered} bytes");
        let size = pieces.sizes.pop().unwrap_or(usize::MAX).min(buffer.remaining()).min(pieces.bytes.len());
        let (piece, rest) = pieces.bytes.split_at(size);
        buffer.put_slice(piece);
        (pieces.bytes, pieces.given) = (rest, pieces.given + size);
        Poll::Ready(Ok(()))
    }
}

/// Reads `bytes` in pieces of `sizes` (the last first) and returns the result and the number of bytes that were taken.
fn read(bytes: &[u8], sizes: Vec<usize>, bound: usize) -> (Result<(ConnectRequest, Vec<u8>), ConnectRefusal>, usize) {
    let budget = PendingConnections::new("test", CONNECTION_BYTES + 3 * LIMITS.packet_bytes);
    let held = PendingMemory::hold(&budget, None, CONNECTION_BYTES, CancellationToken::new()).expect("there is room");
    let mut pieces = ConnectPieces { bytes, sizes, given: 0, budget, bound };
    let done = read_connect(&mut pieces, LIMITS, &held).now_or_never().expect("the socket never waits");
    (done, pieces.given)
}

fn check_refused(bytes: &[u8], reason: RefusalReason, reply: &[u8]) {
    // Whatever the pieces, the packet is refused before its body is read.
    for sizes in [vec![], vec![1; 20]] {
        let (done, taken) = read(bytes, sizes, FIRST_BYTES);
        let refusal = done.expect_err("it is refused");
        assert_eq!((refusal.reason, &refusal.reply[..]), (reason, reply));
        assert!(taken <= FIRST_BYTES, "{taken} bytes were read");
    }
}

/// A CONNECT of this version with a client identifier of `bytes` bytes; with `will`, the payload of a will has them.
fn connect(version: ProtocolVersion, bytes: usize, will: bool) -> Vec<u8> {
    if will {
        client(version).will("gone", &vec![b'x'; bytes], 0).connect("c")
    } else {
        client(version).connect(&"c".repeat(bytes))
    }
}

#[test]
fn a_connect_has_a_bound_of_its_own_unless_it_carries_a_will() {
    let too_large = RefusalReason::ConnectTooLarge;
    check_refused(&connect(ProtocolVersion::V5, 1_000, false), too_large, &[0x20, 3, 0, 0x95, 0]);
    check_refused(&connect(ProtocolVersion::V4, 1_000, false), too_large, &[]);
    let packet = RefusalReason::PacketTooLarge;
    check_refused(&connect(ProtocolVersion::V5, 4_000, true), packet, &[0x20, 3, 0, 0x95, 0]);
    check_refused(&connect(ProtocolVersion::V4, 4_000, false), packet, &[]);
    check_refused(b"\x10\xff\xff\x03\x00\x04HTTP\x05\xff", packet, &[]);
    check_refused(b"\x10\xff\x0f\xff\xffMQTT\x05\xff", too_large, &[]);
    for (bytes, will) in [(900, false), (3_900, true)] {
        let packet = connect(ProtocolVersion::V5, bytes, will);
        assert!(read(&packet, vec![], LIMITS.packet_bytes).0.is_ok(), "{bytes}");
    }
}

#[test]
fn a_connection_without_room_is_refused() {
    let budget = PendingConnections::new("test", CONNECTION_BYTES + 400);
    let held = PendingMemory::hold(&budget, None, CONNECTION_BYTES, CancellationToken::new()).expect("there is room");
    let packet = connect(ProtocolVersion::V5, 900, false);
    let done = read_connect(&mut &packet[..], LIMITS, &held).now_or_never().expect("the socket never waits");
    assert_eq!(done.map(drop), Err(ConnectRefusal::silent(RefusalReason::PendingBytes)));
}

#[test]
fn packets_that_cannot_be_read_are_answered_where_possible() {
    let reply = |error| refuse_packet(error).reply;
    assert_eq!(reply(ConnectError::Level), [0x20, 2, 0, 1]);
    assert_eq!(reply(ConnectError::Invalid(ProtocolVersion::V5, CloseReason::Protocol)), [0x20, 3, 0, 0x82, 0]);
    assert_eq!(reply(ConnectError::Invalid(ProtocolVersion::V5, CloseReason::Malformed)), [0_u8; 0]);
    assert_eq!(reply(ConnectError::Invalid(ProtocolVersion::V4, CloseReason::Protocol)), [0_u8; 0]);
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![prop::collection::vec(1..400_usize, 0..40), prop::collection::vec(1..3_usize, 0..800)]
}

proptest! {
    /// ConnectPieces of any size give the packet and the bytes behind it, and the memory stays within what came.
    #[test]
    fn a_connect_is_read_in_any_pieces(
        v5: bool, will: bool, bytes in 1..900_usize, rest in prop::collection::vec(any::<u8>(), 0..50), sizes in sizes()
    ) {
        let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V4 };
        let packet = connect(version, bytes, will);
        let sent = [&packet[..], &rest].concat();
        let (done, taken) = read(&sent, sizes, LIMITS.packet_bytes);
        let (connect, after) = done.expect("it is a CONNECT");
        prop_assert_eq!((connect.version, connect.will.is_some()), (version, will));
        prop_assert_eq!(&[&after[..], &sent[taken..]].concat(), &rest);
    }

    /// Bytes of any kind in pieces of any size never hold more than the bound.
    #[test]
    fn any_bytes_stay_within_the_bound(
        head in prop::collection::vec(any::<u8>(), 0..12), body in prop::collection::vec(any::<u8>(), 0..6_000), sizes in sizes()
    ) {
        let sent = [&[0x10][..], &head, &body].concat();
        let _ = read(&sent, sizes, LIMITS.packet_bytes);
    }

    /// A CONNECT that claims more than it may have is refused whatever follows.
    #[test]
    fn a_claim_is_judged_before_the_body_comes(claimed in 1_000..2_000_000_usize, flags in 0..=255_u8, sizes in sizes()) {
        let mut sent = vec![0x10];
        let mut left = claimed;
        while left >= 128 {
            sent.push((left % 128) as u8 | 0x80);
            left /= 128;
        }
        sent.push(left as u8);
        sent.extend(b"\0\x04MQTT\x05");
        sent.push(flags);
        sent.resize(8_000, b'x');
        let may = if flags & 0b100 > 0 && claimed < 3_990 { LIMITS.packet_bytes } else { FIRST_BYTES };
        let (done, taken) = read(&sent, sizes, may);
        prop_assert!(done.is_err());
        prop_assert!(taken <= may, "{} bytes were read", taken);
    }
}
