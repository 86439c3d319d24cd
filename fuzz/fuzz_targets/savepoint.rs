//! Reads savepoint files of any content, and restores the state in them.

#![no_main]

use weir_fuzz::fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::savepoint(data));
