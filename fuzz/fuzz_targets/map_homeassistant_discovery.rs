//! Reads MQTT discovery of Home Assistant, and messages of the topics that it names, by way of the operator.

#![no_main]

use weir_fuzz::fuzz_entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_entry::map_homeassistant_discovery(data));
