//! MQTT for tests: packets, valid and invalid, and a client that sends them.

mod client;
mod connect;
mod message;
mod packet;

pub use client::{ClientStream, TestClient};
pub use connect::ConnectPacket;
pub use message::TestMessage;
pub use packet::{PublishPacket, ReceivedPacket, acknowledgement, packet, publish_packet, string, subscribe_packet};

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttVersion {
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

/// A CONNECT with a clean session and a keep-alive of 60 s.
pub fn connect_packet(version: MqttVersion, client_id: &str) -> Vec<u8> {
    ConnectPacket::new(version, client_id).packet()
}

/// A CONNECT that resumes the session of the client, which outlives the connection by an hour.
pub fn resuming_connect_packet(version: MqttVersion, client_id: &str) -> Vec<u8> {
    ConnectPacket::new(version, client_id).kept(3_600).packet()
}
