//! Reads segment files of any content with the log reader.

#![no_main]

use weir_fuzz::fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::log(data));
