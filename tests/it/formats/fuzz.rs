//! Stored inputs of the fuzz targets, and random ones: none may panic.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use crate::formats::fuzz_entry;

/// Replays every file of a directory.
fn replay(name: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fuzz").join(name);
    let mut count = 0;
    for entry in fs::read_dir(&directory).expect("the directory of inputs") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        run(&fs::read(&path).expect("an input"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", directory.display());
}

#[test]
fn mqtt() {
    replay("mqtt", fuzz_entry::mqtt);
}

#[test]
fn payload() {
    replay("payload", fuzz_entry::payload);
}

#[test]
fn log() {
    replay("log", fuzz_entry::log);
}

#[test]
fn access() {
    replay("access", fuzz_entry::access);
}

#[test]
fn config() {
    replay("config", fuzz_entry::config);
}

#[test]
fn savepoint() {
    replay("savepoint", fuzz_entry::savepoint);
}

#[test]
fn http() {
    replay("http", fuzz_entry::http);
}

#[test]
fn websocket() {
    replay("websocket", fuzz_entry::websocket);
}

#[test]
fn map_json() {
    replay("map_json", fuzz_entry::map_json);
}

#[test]
fn map_scalar() {
    replay("map_scalar", fuzz_entry::map_scalar);
}

#[test]
fn map_line() {
    replay("map_line", fuzz_entry::map_line);
}

#[test]
fn map_senml() {
    replay("map_senml", fuzz_entry::map_senml);
}

#[test]
fn map_senml_cbor() {
    replay("map_senml_cbor", fuzz_entry::map_senml_cbor);
}

#[test]
fn map_sparkplug_b() {
    replay("map_sparkplug_b", fuzz_entry::map_sparkplug_b);
}

#[test]
fn map_homeassistant_discovery() {
    replay("map_homeassistant_discovery", fuzz_entry::map_homeassistant_discovery);
}

#[test]
fn map_ruuvi() {
    replay("map_ruuvi", fuzz_entry::map_ruuvi);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_entry::mqtt(&data);
        fuzz_entry::payload(&data);
        fuzz_entry::map_json(&data);
        fuzz_entry::map_scalar(&data);
        fuzz_entry::map_line(&data);
        fuzz_entry::map_senml(&data);
        fuzz_entry::map_senml_cbor(&data);
        fuzz_entry::map_sparkplug_b(&data);
        fuzz_entry::map_ruuvi(&data);
        fuzz_entry::map_homeassistant_discovery(&data);
        fuzz_entry::log(&data);
        fuzz_entry::savepoint(&data);
        fuzz_entry::http(&data);
        fuzz_entry::websocket(&data);
    }

    #[test]
    fn any_text(shape in any::<u8>(), text in "[a-z0-9_%$.:=/#+'\"\\[\\]{}, \\n-]{0,120}") {
        fuzz_entry::config(text.as_bytes());
        fuzz_entry::access(&[&[shape], text.as_bytes()].concat());
    }
}
