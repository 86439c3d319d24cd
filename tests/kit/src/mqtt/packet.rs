//! Encoding and decoding of packets, written from the standards and not with the codec of weir.

use super::{DISCONNECT, MqttVersion, PUBREL};

/// A whole packet with this first byte.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 5);
    put_fixed_header(first, body.len(), &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

/// Appends a first byte and a remaining length.
fn put_fixed_header(first: u8, remaining: usize, out: &mut Vec<u8>) {
    out.push(first);
    let mut left = remaining;
    loop {
        let more = left >= 128;
        out.push((left % 128) as u8 | if more { 128 } else { 0 });
        left /= 128;
        if !more {
            break;
        }
    }
}

/// A variable byte integer: its value and its length; `None` while it is incomplete.
pub(super) fn variable_integer(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// A string with its length before it.
pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    put_bytes(text.as_bytes(), &mut bytes);
    bytes
}

/// Appends bytes with their length before them.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends encoded properties with their length; 3.1.1 has none.
pub(super) fn put_properties(version: MqttVersion, properties: &[u8], out: &mut Vec<u8>) {
    if version == MqttVersion::V5 {
        out.push(u8::try_from(properties.len()).expect("few properties"));
        out.extend_from_slice(properties);
    }
}

/// A PUBLISH to be sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct PublishPacket<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// Packet identifier; left out for QoS 0.
    pub id: u16,
    /// Encoded properties; left out for 3.1.1.
    pub properties: &'a [u8],
}

impl PublishPacket<'_> {
    /// Appends the packet. The benches send millions: nothing is allocated but room in `out`.
    pub fn write(&self, version: MqttVersion, out: &mut Vec<u8>) {
        let Self { topic, payload, qos, dup, retain, id, properties } = *self;
        let id_bytes = if qos > 0 { 2 } else { 0 };
        let properties_bytes = if version == MqttVersion::V5 { 1 + properties.len() } else { 0 };
        let first = 0x30 | u8::from(dup) << 3 | qos << 1 | u8::from(retain);
        put_fixed_header(first, 2 + topic.len() + id_bytes + properties_bytes + payload.len(), out);
        put_bytes(topic.as_bytes(), out);
        if qos > 0 {
            out.extend_from_slice(&id.to_be_bytes());
        }
        put_properties(version, properties, out);
        out.extend_from_slice(payload);
    }
}

/// A PUBLISH; `id` is left out for QoS 0.
pub fn publish_packet(version: MqttVersion, topic: &str, payload: &[u8], qos: u8, dup: bool, id: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    PublishPacket { topic, payload, qos, dup, id, ..PublishPacket::default() }.write(version, &mut bytes);
    bytes
}

/// A PUBACK, PUBREC, PUBREL or PUBCOMP of success.
pub fn acknowledgement(kind: u8, id: u16) -> Vec<u8> {
    packet(kind << 4 | if kind == PUBREL { 2 } else { 0 }, &id.to_be_bytes())
}

/// A SUBSCRIBE to these filters, all with these options, and with these encoded properties.
pub fn subscribe_packet<F: AsRef<str>>(
    version: MqttVersion,
    id: u16,
    filters: impl IntoIterator<Item = F>,
    options: u8,
    properties: &[u8],
) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    put_properties(version, properties, &mut body);
    for filter in filters {
        put_bytes(filter.as_ref().as_bytes(), &mut body);
        body.push(options);
    }
    packet(0x82, &body)
}

/// A received packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedPacket {
    pub kind: u8,
    pub flags: u8,
    pub body: Vec<u8>,
}

impl ReceivedPacket {
    /// The first packet of `bytes` and its length; `None` while it is incomplete.
    pub fn first_of(bytes: &[u8]) -> Option<(Self, usize)> {
        let first = *bytes.first()?;
        let (remaining, used) = variable_integer(&bytes[1..])?;
        let body = bytes.get(1 + used..1 + used + remaining)?.to_vec();
        Some((Self { kind: first >> 4, flags: first & 15, body }, 1 + used + remaining))
    }

    /// Takes the first packet off `bytes`.
    pub fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let (packet, len) = Self::first_of(bytes)?;
        bytes.drain(..len);
        Some(packet)
    }

    /// Packet identifier of an acknowledgement.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }

    /// Reason code of a version 5 acknowledgement or DISCONNECT; an absent one is 0.
    pub fn reason(&self) -> u8 {
        let at = if self.kind == DISCONNECT { 0 } else { 2 };
        self.body.get(at).copied().unwrap_or(0)
    }
}
