//! The server: it listens, admits connections, answers their CONNECT and serves them until they end.

mod admission;
mod handshake;
mod listener;
mod login;
mod opening;
mod peer;
mod service;

pub use admission::{Admission, Entrance, NotAdmitted};
pub use listener::{MqttError, Server};
pub use opening::Opening;
pub use peer::Peer;
