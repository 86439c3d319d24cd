//! MQTT: normative statements of both standards, and client libraries that devices use.

mod clients;
mod connect;
mod flow;
mod publish;
mod retain;
mod session;
mod statements;
mod subscribe;
mod v5;
pub mod websocket;
mod will;
