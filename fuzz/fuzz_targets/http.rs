//! Sends requests to the HTTP server. Health must be answered after them.

#![no_main]

use weir_fuzz::fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::http(data));
