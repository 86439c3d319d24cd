//! Sends bytes of hostile clients to the MQTT server. A well-behaved client must be served after them.

#![no_main]

#[path = "../../tests/it/formats/fuzz_entry.rs"]
#[expect(dead_code, reason = "each target uses one of them")]
mod fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::mqtt(data));
