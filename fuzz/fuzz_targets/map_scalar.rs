//! Decodes single values on the topics of a map, by way of the operator.

#![no_main]

use weir_fuzz::fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::map_scalar(data));
