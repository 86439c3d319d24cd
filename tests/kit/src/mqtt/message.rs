//! Packets and messages as they came, or are to be sent.

use super::{DISCONNECT, Version, packet, string, variable_integer};

/// A packet as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub kind: u8,
    pub flags: u8,
    pub body: Vec<u8>,
}

impl Packet {
    /// Packet identifier of an acknowledgement.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }

    /// Reason code of a version 5 acknowledgement or DISCONNECT; an absent one is 0.
    pub fn reason(&self) -> u8 {
        let at = if self.kind == DISCONNECT { 0 } else { 2 };
        self.body.get(at).copied().unwrap_or(0)
    }

    /// Topic and payload of a PUBLISH.
    pub fn message(&self, version: Version) -> (String, Vec<u8>) {
        let topic_len = usize::from(self.id());
        let topic = String::from_utf8(self.body[2..2 + topic_len].to_vec()).expect("a UTF-8 topic");
        let mut at = 2 + topic_len + if self.flags >> 1 & 3 > 0 { 2 } else { 0 };
        if version == Version::V5 {
            let (len, used) = variable_integer(&self.body[at..]).expect("a property length");
            at += used + len;
        }
        (topic, self.body[at..].to_vec())
    }
}

/// A PUBLISH taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    /// Packet identifier; 0 for QoS 0.
    pub id: u16,
    pub topic: String,
    pub payload: Vec<u8>,
    /// Encoded properties; empty in 3.1.1.
    pub properties: Vec<u8>,
}

impl Message {
    pub fn new(topic: &str, payload: &str, qos: u8) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, ..Self::default() }
    }

    pub fn retained(topic: &str, payload: &str, qos: u8) -> Self {
        Self { retain: true, ..Self::new(topic, payload, qos) }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a text")
    }

    pub fn packet(&self, version: Version) -> Vec<u8> {
        let mut body = string(&self.topic);
        if self.qos > 0 {
            body.extend_from_slice(&self.id.to_be_bytes());
        }
        if version == Version::V5 {
            body.push(u8::try_from(self.properties.len()).expect("few properties"));
            body.extend_from_slice(&self.properties);
        }
        body.extend_from_slice(&self.payload);
        packet(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain), &body)
    }

    pub fn read(packet: &Packet, version: Version) -> Self {
        let (topic, payload) = packet.message(version);
        let qos = packet.flags >> 1 & 3;
        let mut at = 2 + topic.len();
        let id = if qos > 0 { u16::from_be_bytes([packet.body[at], packet.body[at + 1]]) } else { 0 };
        at += if qos > 0 { 2 } else { 0 };
        let properties = match version {
            Version::V4 => Vec::new(),
            Version::V5 => {
                let (len, used) = variable_integer(&packet.body[at..]).expect("a property length");
                packet.body[at + used..at + used + len].to_vec()
            }
        };
        Self { dup: packet.flags & 8 > 0, qos, retain: packet.flags & 1 > 0, id, topic, payload, properties }
    }
}
