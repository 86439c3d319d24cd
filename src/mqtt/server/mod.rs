//! The server: it listens, admits connections, answers their CONNECT and serves them until they end.

mod admission;
mod first_packet;
mod handshake;
mod listener;
mod login;
mod peer;
mod service;
mod stream_server;

pub use admission::{AdmissionControl, AdmissionError, ConnectionPermit};
pub use listener::{MqttError, MqttServer};
pub use peer::Peer;
pub use stream_server::StreamServer;
