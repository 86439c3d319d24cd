use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::frame::{self, FrameError, FrameKind, MAX_FRAME_BYTES};
use super::handshake;
use super::stream::WebSocket;
use crate::http::authority::Authority;
use crate::http::hosts::{NamedHost, ReachedListener, TrustedHosts};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as a client sends it.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_header(first & 0x0f, payload.len(), &mut bytes);
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&MASK);
    let mut masked = payload.to_vec();
    frame::unmask(&mut masked, MASK, 0);
    bytes.extend(masked);
    bytes
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
    };
    list.iter().map(pair).collect()
}

const GOOD: [(&str, &str); 6] = [
    ("host", "weir.local:8080"),
    ("connection", "keep-alive, Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("sec-websocket-protocol", "chat, mqtt"),
];

fn status(change: &[(&'static str, &str)], origins: &[&str]) -> u16 {
    let mut asked = headers(&GOOD);
    for (name, value) in headers(change) {
        asked.insert(name.expect("a name"), value);
    }
    let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
    let authority = Authority::parse(asked["host"].to_str().expect("text"));
    let listener = ReachedListener { is_exposed: true, ..ReachedListener::default() };
    let trusted = TrustedHosts { allowed: &[], node: "box", listener: &listener };
    let is_trusted = authority.as_ref().is_some_and(|own| trusted.has(&own.host));
    handshake::answer(&asked, &NamedHost { authority, is_trusted }, &origins)
        .unwrap_or_else(|refused| *refused)
        .status()
        .as_u16()
}

#[test]
fn the_example_of_the_standard_is_accepted() {
    // RFC 6455 section 1.3.
    assert_eq!(handshake::accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let answer = handshake::answer(&headers(&GOOD), &NamedHost::default(), &[]).expect("accepted");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "mqtt", "[MQTT-6.0.0-4]");
    assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn other_handshakes_are_refused() {
    assert_eq!(status(&[("sec-websocket-protocol", "chat")], &[]), 400, "[MQTT-6.0.0-3]");
    assert_eq!(status(&[("sec-websocket-key", "short")], &[]), 400);
    assert_eq!(status(&[("sec-websocket-version", "8")], &[]), 426);
    assert_eq!(status(&[("upgrade", "h2c")], &[]), 426);
    assert_eq!(status(&[("connection", "close")], &[]), 426);
}

#[test]
fn pages_of_other_origins_need_to_be_listed() {
    // A page under weir's own address; under a name only with a certificate for it.
    let own = |origin: &str, host: &str| status(&[("origin", origin), ("host", host)], &[]);
    for host in ["192.168.1.10:8080", "127.0.0.1", "[::1]:8080", "[fd00::1]", "localhost:8080"] {
        assert_eq!(own(&format!("http://{host}"), host), 101, "{host}");
    }
    assert_eq!(own("https://weir.local:8443", "weir.local:8443"), 101);
    for host in ["weir.local:8080", "1.2.3.4.evil.example", "[evil.example]", "evil.example:1.2.3.4"] {
        assert_eq!(own(&format!("http://{host}"), host), 403, "{host}");
    }
    for origin in ["https://evil.example", "http://weir.local:8080", "null"] {
        assert_eq!(status(&[("origin", origin)], &["https://panel.example"]), 403, "{origin}");
        assert_eq!(status(&[("origin", origin)], &["*"]), 101, "{origin}");
    }
    assert_eq!(status(&[("origin", "https://panel.example")], &["https://panel.example"]), 101);
}

#[test]
fn headers_are_read_and_checked() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let bytes = client_frame(0x82, &vec![0; length]);
        let header = frame::header(&bytes, false).expect("allowed").expect("complete");
        assert_eq!((header.kind, header.payload_bytes), (FrameKind::Data, length as u64));
        assert_eq!(header.bytes + length, bytes.len());
        for cut in 0..header.bytes {
            assert_eq!(frame::header(&bytes[..cut], false), Ok(None), "{cut} bytes of {length}");
        }
    }
    let refused = |first: u8, second: u8, in_message| frame::header(&[first, second, 0, 0, 0, 0], in_message);
    assert_eq!(refused(0x82, 0, false), Err(FrameError::Protocol), "not masked");
    assert_eq!(refused(0xc2, 0x80, false), Err(FrameError::Protocol), "a reserved bit");
    assert_eq!(refused(0x81, 0x80, false), Err(FrameError::NotBinary), "text [MQTT-6.0.0-1]");
    assert_eq!(refused(0x80, 0x80, false), Err(FrameError::Protocol), "nothing to continue");
    assert_eq!(refused(0x82, 0x80, true), Err(FrameError::Protocol), "the message has not ended");
    assert_eq!(refused(0x83, 0x80, false), Err(FrameError::Protocol), "a reserved opcode");
    assert_eq!(refused(0x09, 0x80, false), Err(FrameError::Protocol), "half a ping");
    assert_eq!(refused(0x89, 0xfe, false), Err(FrameError::Protocol), "a long ping");
    let mut endless = vec![0x82, 0xff];
    endless.extend_from_slice(&(MAX_FRAME_BYTES + 1).to_be_bytes());
    assert_eq!(frame::header(&endless, false), Err(FrameError::TooLarge));
}

fn pair() -> (DuplexStream, WebSocket<DuplexStream>) {
    let (client, server) = tokio::io::duplex(1 << 20);
    (client, WebSocket::new(server, Vec::new()))
}

#[tokio::test]
async fn frames_are_a_stream_of_bytes() {
    let (mut client, mut socket) = pair();
    let mut sent = client_frame(0x02, b"ab");
    sent.extend(client_frame(0x89, b"ping"));
    sent.extend(client_frame(0x00, b""));
    sent.extend(client_frame(0x80, b"cd"));
    sent.extend(client_frame(0x82, &[7; 5_000]));
    client.write_all(&sent).await.expect("sent");
    let mut got = vec![0; 5_004];
    socket.read_exact(&mut got).await.expect("read");
    assert_eq!((&got[..4], &got[4..]), (&b"abcd"[..], &[7; 5_000][..]));
    socket.write_all(b"hello").await.expect("written");
    socket.flush().await.expect("flushed");
    let mut answer = [0; 6 + 7];
    client.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer, b"\x8a\x04ping\x82\x05hello");
}

/// A packet in frames of one byte takes few reads: each read of a large packet has its price.
#[tokio::test]
async fn frames_that_are_there_together_are_read_together() {
    let (mut client, mut socket) = pair();
    let mut sent: Vec<u8> = b"0123456789".iter().flat_map(|byte| client_frame(0x82, &[*byte])).collect();
    sent.extend(client_frame(0x81, b"text"));
    client.write_all(&sent).await.expect("sent");
    let mut got = [0; 100];
    let count = socket.read(&mut got).await.expect("what stands before the frame that is refused");
    assert_eq!(&got[..count], b"0123456789");
    assert_eq!(socket.read(&mut got).await.expect("the end"), 0);
    drop(socket);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("answered");
    assert_eq!(answer[2..], 1003_u16.to_be_bytes());
}

#[tokio::test]
async fn a_goodbye_is_answered_and_ends_the_stream() {
    let (mut client, mut socket) = pair();
    client.write_all(&client_frame(0x88, &1001_u16.to_be_bytes())).await.expect("sent");
    assert_eq!(socket.read(&mut [0; 9]).await.expect("the end"), 0);
    socket.shutdown().await.expect("shut down");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("answered");
    assert_eq!(answer, [0x88, 2, 0x03, 0xe9]);
}

#[tokio::test]
async fn a_wrong_frame_ends_it_with_the_reason() {
    for (first, status) in [(0x81, 1003_u16), (0xf2, 1002)] {
        let (mut client, mut socket) = pair();
        client.write_all(&client_frame(first, b"x")).await.expect("sent");
        assert!(socket.read(&mut [0; 9]).await.is_err());
        drop(socket);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("answered");
        assert_eq!(answer[2..], status.to_be_bytes());
    }
}

#[tokio::test]
async fn pings_that_are_not_read_take_no_memory() {
    let (mut client, server) = tokio::io::duplex(1_000);
    let mut socket = WebSocket::new(server, Vec::new());
    let ping = client_frame(0x89, &[0; 125]);
    let reader = tokio::spawn(async move {
        let mut none = [0; 1];
        let ended = socket.read(&mut none).await;
        (ended.is_ok(), socket.waiting_bytes())
    });
    for _ in 0..10_000 {
        client.write_all(&ping).await.expect("sent");
    }
    client.write_all(&client_frame(0x82, b"x")).await.expect("sent");
    let (read, waiting) = reader.await.expect("no panic");
    assert!(read && waiting < 64 * 1_024, "{waiting} bytes wait");
}

proptest! {
    /// However packets are cut into frames and frames into writes, and whatever stands between them, the bytes arrive.
    #[test]
    fn cuts_do_not_matter(
        frames in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3_000), 0..3_u8), 1..8),
        chunk in 1..4_000_usize,
        room in 1..4_000_usize,
    ) {
        let mut sent = Vec::new();
        let mut expected = Vec::new();
        for (payload, kind) in &frames {
            match kind {
                0 => sent.extend(client_frame(0x8a, b"pong")),
                1 => {
                    let (first, second) = payload.split_at(payload.len() / 2);
                    sent.extend(client_frame(0x02, first));
                    sent.extend(client_frame(0x80, second));
                    expected.extend_from_slice(payload);
                }
                _ => {
                    sent.extend(client_frame(0x82, payload));
                    expected.extend_from_slice(payload);
                }
            }
        }
        sent.extend(client_frame(0x88, b""));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let got = runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(room);
            let mut socket = WebSocket::new(server, Vec::new());
            let writer = async move {
                for part in sent.chunks(chunk) {
                    client.write_all(part).await.expect("sent");
                }
                client
            };
            let mut got = Vec::new();
            let reader = socket.read_to_end(&mut got);
            let (_client, read) = futures_util::future::join(writer, reader).await;
            read.expect("read");
            got
        });
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(4_096);
            client.write_all(&bytes).await.expect("sent");
            drop(client);
            let mut got = Vec::new();
            let _ = WebSocket::new(server, Vec::new()).read_to_end(&mut got).await;
        });
    }
}
