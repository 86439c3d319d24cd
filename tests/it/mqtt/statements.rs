//! The normative statements that the tests cite are those that docs/mqtt.md lists.
//!
//! A test cites what it covers in its doc comment: `5.0 [MQTT-3.1.0-1]` or `3.1.1 [MQTT-3.1.0-1]`; the two standards
//! number differently.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const FILES: [&str; 9] = [
    "connect.rs",
    "flow.rs",
    "publish.rs",
    "retain.rs",
    "session.rs",
    "subscribe.rs",
    "v5.rs",
    "will.rs",
    "websocket.rs",
];

/// Versions and statements in a text.
fn citations(text: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for version in ["5.0", "3.1.1"] {
        for (at, start) in text.match_indices(&format!("{version} [MQTT-")) {
            let statement = &text[at + start.len()..];
            let statement = statement.split(']').next().expect("split gives one at least");
            found.insert((version.to_owned(), statement.to_owned()));
        }
    }
    found
}

#[test]
fn the_documentation_lists_every_statement_that_is_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("a readable file");
    let tested: BTreeSet<_> =
        FILES.iter().flat_map(|file| citations(&read(&format!("tests/it/mqtt/{file}")))).collect();
    let documented = citations(&read("docs/mqtt.md"));
    assert!(tested.len() > 80, "the tests' citations were not understood");
    let missing: Vec<_> = tested.difference(&documented).collect();
    let untested: Vec<_> = documented.difference(&tested).collect();
    assert!(
        missing.is_empty() && untested.is_empty(),
        "not in docs/mqtt.md: {missing:?}\nwithout a test: {untested:?}"
    );
}
