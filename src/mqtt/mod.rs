//! The MQTT door: listener, connections, sessions, subscriptions.
//!
//! A connection (one task, one socket) reads frames and feeds them to its `connection::protocol::Protocol`, which is pure: bytes
//! and "now" in; bytes to send, records to journal and messages to pass on out. Publishes on ingest topics go to the
//! journal through `ingest::JournalAppender` and are acknowledged once it is synced past them; everything that subscribers see
//! goes through the [`broker::Broker`].

pub mod broker;
mod connection;
pub mod results;
mod server;
mod session;
mod wire;

#[cfg(test)]
mod testing;

pub use server::{AdmissionControl, AdmissionError, ConnectionPermit, MqttError, MqttServer, Peer, StreamServer};

/// Protocol version of a connection, told by the protocol level of its CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProtocolVersion {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl ProtocolVersion {
    /// As metrics and log lines have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ProtocolVersion::V4 => "3.1.1",
            ProtocolVersion::V5 => "5.0",
        }
    }
}
