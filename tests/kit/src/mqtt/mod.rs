//! MQTT over a plain socket: packets written and read by hand, right and wrong ones.

mod client;
mod connect;
mod message;

pub use client::{Client, Stream};
pub use connect::Connect;
pub use message::{Message, Packet};

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V5,
}

pub const CONNACK: u8 = 2;
pub const PUBLISH: u8 = 3;
pub const PUBACK: u8 = 4;
pub const PUBREC: u8 = 5;
pub const PUBREL: u8 = 6;
pub const PUBCOMP: u8 = 7;
pub const SUBACK: u8 = 9;
pub const UNSUBACK: u8 = 11;
pub const PINGRESP: u8 = 13;
pub const DISCONNECT: u8 = 14;

/// A whole packet with this first byte.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    loop {
        let more = len >= 128;
        bytes.push((len % 128) as u8 | if more { 128 } else { 0 });
        len /= 128;
        if !more {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// The value and how many bytes it takes; `None` while it is incomplete.
fn variable_integer(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// A CONNECT with a clean session and a keep-alive of 60 s.
pub fn connect_packet(version: Version, client_id: &str) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend_from_slice(&[if version == Version::V4 { 4 } else { 5 }, 2, 0, 60]);
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(string(client_id));
    packet(0x10, &body)
}

/// A CONNECT that goes on with the client's session, which outlives the connection.
pub fn resuming_connect_packet(version: Version, client_id: &str) -> Vec<u8> {
    let mut body = string("MQTT");
    body.extend_from_slice(&[if version == Version::V4 { 4 } else { 5 }, 0, 0, 60]);
    if version == Version::V5 {
        // A session expiry interval of an hour.
        body.extend_from_slice(&[5, 0x11, 0, 0, 0x0e, 0x10]);
    }
    body.extend(string(client_id));
    packet(0x10, &body)
}

/// A PUBLISH; `id` is left out for QoS 0.
pub fn publish_packet(version: Version, topic: &str, payload: &[u8], qos: u8, dup: bool, id: u16) -> Vec<u8> {
    let mut body = string(topic);
    if qos > 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1 | u8::from(dup) << 3, &body)
}
