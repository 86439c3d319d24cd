//! TLS under MQTT and HTTP.

pub mod listeners;
mod revocation;
