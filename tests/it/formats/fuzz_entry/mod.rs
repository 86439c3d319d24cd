//! Entry points of the fuzz targets and of the tests that replay their inputs: one function per target, which panics on
//! a defect.

mod access;
mod config;
mod http;
mod log;
mod maps;
mod mqtt;
mod payload;
mod savepoint;
mod server;
mod websocket;

pub use access::access;
pub use config::config;
pub use http::http;
pub use log::log;
pub use maps::{
    map_homeassistant_discovery, map_json, map_line, map_ruuvi, map_scalar, map_senml, map_senml_cbor, map_sparkplug_b,
};
pub use mqtt::mqtt;
pub use payload::payload;
pub use savepoint::savepoint;
pub use websocket::websocket;

/// Checks a sentence about a file: it is one line, which no content of the file can break, in a log or on a terminal.
fn is_one_line(sentence: &str) {
    assert!(!sentence.contains(char::is_control), "{sentence:?} has a control character");
}
