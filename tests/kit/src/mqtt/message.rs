//! Messages to be sent, or as received.

use super::MqttVersion;
use super::packet::{PublishPacket, ReceivedPacket, variable_integer};

/// The fields of a PUBLISH.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestMessage {
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

impl TestMessage {
    pub fn new(topic: &str, payload: &str, qos: u8) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, ..Self::default() }
    }

    pub fn retained(topic: &str, payload: &str, qos: u8) -> Self {
        Self { retain: true, ..Self::new(topic, payload, qos) }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a text")
    }

    pub fn packet(&self, version: MqttVersion) -> Vec<u8> {
        let Self { dup, qos, retain, id, ref topic, ref payload, ref properties } = *self;
        let mut bytes = Vec::new();
        PublishPacket { topic, payload, qos, dup, retain, id, properties }.write(version, &mut bytes);
        bytes
    }

    /// Decodes a PUBLISH.
    pub fn read(packet: &ReceivedPacket, version: MqttVersion) -> Self {
        let qos = packet.flags >> 1 & 3;
        let topic_end = 2 + usize::from(u16::from_be_bytes([packet.body[0], packet.body[1]]));
        let topic = String::from_utf8(packet.body[2..topic_end].to_vec()).expect("a UTF-8 topic");
        let mut at = topic_end;
        let id = if qos > 0 { u16::from_be_bytes([packet.body[at], packet.body[at + 1]]) } else { 0 };
        at += if qos > 0 { 2 } else { 0 };
        let mut properties = Vec::new();
        if version == MqttVersion::V5 {
            let (len, used) = variable_integer(&packet.body[at..]).expect("a property length");
            properties.extend_from_slice(&packet.body[at + used..at + used + len]);
            at += used + len;
        }
        let payload = packet.body[at..].to_vec();
        Self { dup: packet.flags & 8 > 0, qos, retain: packet.flags & 1 > 0, id, topic, payload, properties }
    }
}
