//! TLS under MQTT and HTTP.

mod listeners;
mod revocation;
