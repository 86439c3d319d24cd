//! The WebSocket handshake and its frames.

use super::server::{answer, answer_to_any};

const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n";
const HANDSHAKE: &[u8] = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c";

/// The first byte says what the rest is (bits 0 and 1): 0 the header lines of the handshake; 1 bytes after the handshake;
/// 2 frames, of which only the payload is masked for them: the first byte, a length, and the payload; 3 MQTT in frames of
/// seven bytes. Bit 2: a CONNECT is sent before. Bit 3: it is sent in small pieces. Whatever it is, a good client is
/// served afterwards.
pub fn websocket(data: &[u8]) {
    let Some((&shape, bytes)) = data.split_first() else { return };
    let connect = if shape & 4 == 0 { Vec::new() } else { frame(0x82, CONNECT) };
    let sent = match shape & 3 {
        0 => [UPGRADE, bytes, b"\r\n\r\n"].concat(),
        1 => [UPGRADE, HANDSHAKE, &connect, bytes].concat(),
        2 => [UPGRADE, HANDSHAKE, &connect, &frames(bytes)].concat(),
        _ => {
            let frames: Vec<u8> = bytes.chunks(7).flat_map(|part| frame(0x82, part)).collect();
            [UPGRADE, HANDSHAKE, &connect, &frames].concat()
        }
    };
    answer_to_any(&sent, if shape & 8 == 0 { usize::MAX } else { 3 });
    let disconnect = frame(0x82, &[0xe0, 0]);
    let answered = answer(&[UPGRADE, HANDSHAKE, &frame(0x82, CONNECT), &disconnect].concat());
    let connack = b"\x82\x04\x20\x02\0\0";
    let served = answered.windows(connack.len()).any(|bytes| bytes == connack);
    assert!(served, "the good client is not served: {}", answered.escape_ascii());
}

/// A frame with this first byte, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (payload, left) = rest.split_at(usize::from(*length).min(rest.len()));
        frames.extend(frame(*first, payload));
        bytes = left;
    }
    frames
}
