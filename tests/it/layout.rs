//! The source tree keeps its own rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The parts from the bottom up; a part uses itself and what stands on a line before its own.
const ORDER: &[&[&str]] = &[
    &["cursor", "defects", "random", "sync"],
    &["core"],
    &["disk", "clock"],
    &["telemetry"],
    &["log"],
    &["config", "admission"],
    &["tls"],
    &["access"],
    &["state", "client"],
    &["pipeline"],
    &["results"],
    &["mqtt"],
    &["http", "simulator"],
    &["exit"],
    &["commands", "app", "cli"],
    &["main"],
];

/// Files that may call the file system beside `disk`, and why.
const FILE_SYSTEM: &[(&str, &str)] = &[
    ("config/mod.rs", "reads the config file, which is no data of weir's"),
    ("tls/load.rs", "reads certificates and keys, which are no data of weir's"),
    ("access/policy.rs", "reads the files that say who may do what, which are no data of weir's"),
    ("access/secret_file.rs", "reads and replaces files of users and tokens, which are no data of weir's"),
    ("state/", "sled owns the files of its directory; a damaged one is moved aside"),
    ("commands/", "reads and writes the files that a person names on the command line"),
    ("app/", "takes the lock on the data directory"),
];

const LONGEST_FILE: usize = 700;

struct SourceFile {
    /// Relative to src/.
    path: String,
    /// The part it belongs to.
    part: String,
    lines: Vec<String>,
    /// Lines before the file's own test module; none where the whole file is tests.
    product_lines: usize,
}

fn sources() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &mut found);
    found.sort();
    let sources: Vec<SourceFile> = found.iter().map(|path| source(&root, path)).collect();
    assert!(sources.len() > 20, "the tree was not found");
    sources
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a readable tree") {
        let path = entry.expect("a readable directory").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn source(root: &Path, path: &Path) -> SourceFile {
    let relative = path.strip_prefix(root).expect("it is below src").to_string_lossy().into_owned();
    let part = relative.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    let text = fs::read_to_string(path).expect("a readable file");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_test = relative.split('/').any(|name| ["tests", "tests.rs", "testing.rs"].contains(&name));
    let tests_from = lines.iter().position(|line| line.trim_start() == "#[cfg(test)]").unwrap_or(lines.len());
    let product_lines = if is_test { 0 } else { tests_from };
    SourceFile { path: relative, part, lines, product_lines }
}

impl SourceFile {
    /// Lines of the product: number and text, without comments.
    fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().take(self.product_lines).enumerate();
        lines.map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }
}

fn inside_string(line: &str, at: usize) -> bool {
    line[..at].replace("\\\"", "").matches('"').count() % 2 == 1
}

fn rank(part: &str) -> Option<usize> {
    ORDER.iter().position(|parts| parts.contains(&part))
}

#[track_caller]
fn assert_none(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

#[test]
fn every_part_has_its_place() {
    let unknown = sources().into_iter().filter(|source| source.part != "lib" && rank(&source.part).is_none());
    assert_none("parts that ORDER does not name", unknown.map(|source| source.path).collect());
}

#[test]
fn imports_only_point_down() {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.part != "lib") {
        for (number, line) in source.product() {
            for start in ["crate::", "weir::"] {
                // A name inside a string is no import.
                for (at, _) in line.match_indices(start).filter(|(at, _)| !inside_string(line, *at)) {
                    let name = line[at + start.len()..].split(|c: char| !c.is_alphanumeric() && c != '_').next();
                    let Some(used) = name.and_then(rank) else { continue };
                    let own = rank(&source.part).unwrap_or_default();
                    if used > own || (used == own && name != Some(source.part.as_str()) && own < ORDER.len() - 2) {
                        offences.push(format!("src/{}:{number}: {}", source.path, line.trim()));
                    }
                }
            }
        }
    }
    assert_none("a part uses only what is below it", offences);
}

#[test]
fn core_is_pure() {
    let forbidden = [
        "std::time::SystemTime",
        "Instant::now",
        "std::fs",
        "std::net",
        "std::thread",
        "tokio",
        "tracing",
        "async ",
        "metrics::",
    ];
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.part == "core") {
        for (number, line) in source.product().filter(|(_, line)| forbidden.iter().any(|word| line.contains(word))) {
            offences.push(format!("src/{}:{number}: {}", source.path, line.trim()));
        }
    }
    assert_none("core has no I/O, clock, threads, logging or async", offences);
}

#[test]
fn results_know_no_http() {
    let forbidden = ["axum", "hyper", "http"];
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.part == "results") {
        for (number, line) in source.product().filter(|(_, line)| forbidden.iter().any(|word| line.contains(word))) {
            offences.push(format!("src/{}:{number}: {}", source.path, line.trim()));
        }
    }
    assert_none("results are read without HTTP", offences);
}

#[test]
fn only_disk_calls_the_file_system() {
    let mut offences = Vec::new();
    let allowed = |path: &str| {
        path == "disk.rs" || path.starts_with("disk/") || FILE_SYSTEM.iter().any(|(prefix, _)| path.starts_with(prefix))
    };
    for source in sources().iter().filter(|source| !allowed(&source.path)) {
        let calls = ["std::fs", "fs::", "File::", "OpenOptions", "tokio::fs", "rustix::fs"];
        for (number, line) in source.product().filter(|(_, line)| calls.iter().any(|call| line.contains(call))) {
            offences.push(format!("src/{}:{number}: {}", source.path, line.trim()));
        }
    }
    assert_none("only disk calls the file system", offences);
}

#[test]
fn nothing_is_left_undone() {
    let forbidden = ["todo!(", "unimplemented!(", ".unwrap()", "dbg!(", "unsafe ", "#[allow("];
    let mut offences = Vec::new();
    for source in sources() {
        for (number, line) in source.product().filter(|(_, line)| forbidden.iter().any(|word| line.contains(word))) {
            offences.push(format!("src/{}:{number}: {}", source.path, line.trim()));
        }
    }
    assert_none("forbidden outside tests", offences);
    for root in ["lib.rs", "main.rs"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(root)).expect("a root");
        assert!(text.contains("#![forbid(unsafe_code)]"), "src/{root} does not forbid unsafe code");
    }
}

#[test]
fn files_stay_short() {
    let long = sources().into_iter().filter(|source| source.lines.len() > LONGEST_FILE);
    assert_none("too long", long.map(|source| format!("src/{}: {} lines", source.path, source.lines.len())).collect());
}

/// `section.key` of every assignment in a config file, those in comments too where `commented`.
fn keys(path: &str, commented: bool) -> BTreeSet<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a config file");
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = if commented { line.trim_start_matches(['#', ' ']) } else { line };
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = name.0.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

#[test]
fn the_packaged_config_knows_the_same_keys() {
    let shipped = keys("config.toml", true);
    assert!(shipped.len() > 50, "config.toml was not understood");
    let packaged = keys("systemd/config.toml", false);
    assert!(!packaged.is_empty());
    let unknown: Vec<String> = packaged.difference(&shipped).cloned().collect();
    assert_none("keys of systemd/config.toml that config.toml does not have", unknown);
}
