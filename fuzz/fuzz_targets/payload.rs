//! Decodes payloads, by way of the operator.

#![no_main]

#[path = "../../tests/it/formats/fuzz_entry.rs"]
#[expect(dead_code, reason = "each target uses one of them")]
mod fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::payload(data));
