//! Reads files of users, roles and tokens.

#![no_main]

use weir_fuzz::fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::access(data));
