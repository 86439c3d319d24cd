//! The MQTT front: bytes of hostile clients, and a good client that must be served after them.

#![no_main]

use weir_fuzz::fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::mqtt(data));
