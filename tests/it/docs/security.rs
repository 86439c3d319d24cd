//! docs/security.md names tests, keys and metrics that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{assert_none, root};

/// All sources of weir and its tests, as one text.
fn sources(directory: &Path, all: &mut String) {
    for entry in fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}

/// The words in backticks of a cell.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The rows of the page's tables, as cells.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let cells = |line| str::split(line, '|').map(str::trim).collect::<Vec<_>>();
    let lines = page.lines().filter(|line| line.starts_with("| "));
    lines.map(cells).filter(|cells| cells[1] != "it can …").collect()
}

#[test]
fn every_bound_has_its_test() {
    let page = fs::read_to_string(root().join("docs/security.md")).expect("the page");
    let rows = rows(&page);
    assert!(rows.len() > 30, "the tables are read");
    let mut all = String::new();
    for directory in ["src", "tests"] {
        sources(&root().join(directory), &mut all);
    }
    let config = fs::read_to_string(root().join("config.toml")).expect("the configuration");
    let metrics = fs::read_to_string(root().join("docs/metrics.md")).expect("the metrics");
    let mut offences = Vec::new();
    let mut named = BTreeSet::new();
    for row in rows {
        let [_, what, bound, _, metric, tests, _] = row[..] else { panic!("five cells: {row:?}") };
        if quoted(tests).next().is_none() {
            offences.push(format!("{what}: no test"));
        }
        for test in quoted(tests) {
            named.insert(test);
            if !all.contains(&format!("fn {test}(")) {
                offences.push(format!("{what}: there is no test {test}"));
            }
        }
        for name in quoted(metric) {
            if !metrics.contains(&format!("`{name}`")) {
                offences.push(format!("{what}: there is no metric {name}"));
            }
        }
        for key in quoted(bound).filter(|word| word.contains('.') && !word.contains('/')) {
            let (section, name) = key.rsplit_once('.').expect("a dot");
            let text = config.split(&format!("\n[{section}]\n")).nth(1).unwrap_or_default();
            let text = text.split("\n[").next().unwrap_or_default();
            if !text.lines().any(|line| line.starts_with(&format!("{name} ="))) {
                offences.push(format!("{what}: there is no key {key}"));
            }
        }
    }
    assert_none("docs/security.md names what does not exist", &offences);
    assert!(named.len() > 40, "the tests are read");
}
