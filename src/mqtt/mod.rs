//! The MQTT broker: listeners, connections, sessions, subscriptions, retained messages and wills.
//!
//! A connection (one task, one socket) reads frames and feeds them to its `connection::protocol::Protocol`. The
//! protocol is pure: it takes bytes and the time, and returns bytes to send, records for the journal and messages to
//! forward. Publishes on ingest topics go to the journal through `connection::journal_appender::JournalAppender` and
//! are acknowledged once the journal is synced past them. Everything that subscribers receive goes through the
//! [`broker::Broker`].
//!
//! The payloads of readings are not decoded here: `pipeline` reads them from the journal, and `core` decodes them.

pub mod broker;
mod connection;
pub mod results;
mod server;
mod session;
mod wire;

#[cfg(test)]
mod testing;

pub use server::{AdmissionControl, AdmissionError, ConnectionPermit, MqttError, MqttServer, Peer, StreamServer};
pub use wire::topic::{matches as filter_matches, valid_filter as is_filter};
pub(crate) use wire::version::ProtocolVersion;
