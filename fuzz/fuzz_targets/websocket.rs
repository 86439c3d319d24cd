//! Sends WebSocket handshakes and frames to the HTTP server. A well-behaved client must be served after them.

#![no_main]

use weir_fuzz::fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::websocket(data));
