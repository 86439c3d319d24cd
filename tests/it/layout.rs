//! Rules of the source tree that the compiler does not hold: which part may use which, names, lengths, forbidden calls.

mod circles;
mod imports;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use source::{SourceFile, repository_path, sources};

/// The parts from the bottom up. A part uses itself and parts on lines before its own.
const ORDER: &[&[&str]] = &[
    &["cursor", "defects", "random", "stall", "sync", "token_bucket"],
    &["core"],
    &["disk", "clock"],
    &["telemetry"],
    &["clock_jump"],
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
    ("config/load.rs", "reads the config file, which is no data of weir's"),
    ("config/maps/files.rs", "reads the preset files of a person, which are no data of weir's"),
    ("tls/load.rs", "reads certificates and keys, which are no data of weir's"),
    ("tls/check.rs", "looks at the permissions of key files"),
    ("tls/file_stamps.rs", "looks whether certificate files have changed"),
    ("access/policy.rs", "reads the files that say who may do what, which are no data of weir's"),
    ("access/secret_file.rs", "reads and replaces files of users and tokens, which are no data of weir's"),
    ("state/", "sled owns the files of its directory; a damaged one is moved aside"),
    ("commands/", "reads and writes the files that a person names on the command line"),
    ("app/", "takes the lock on the data directory"),
];

/// The folders of `mqtt` from the bottom up; files beside them may use all of them.
const MQTT_ORDER: &[&str] = &["wire", "session", "broker", "connection", "server"];

/// Type names that are declared twice, and why.
const DECLARED_TWICE: &[(&str, &str)] = &[];

const LONGEST_FILE: usize = 700;

fn rank(part: &str) -> Option<usize> {
    ORDER.iter().position(|parts| parts.contains(&part))
}

#[track_caller]
fn assert_none(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

/// Lines of the product that hold one of these words.
fn lines_with(words: &[&str], included: impl Fn(&SourceFile) -> bool) -> Vec<String> {
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| included(source)) {
        for (number, line) in source.product_lines().filter(|(_, line)| words.iter().any(|word| line.contains(word))) {
            offences.push(format!("src/{}:{number}: {}", source.path, line.trim()));
        }
    }
    offences
}

#[test]
fn every_part_has_its_place() {
    let sources = sources();
    let unknown = sources.iter().filter(|source| source.part() != "lib" && rank(source.part()).is_none());
    let paths: Vec<String> = unknown.map(|source| source.path.clone()).collect();
    assert_none("parts that ORDER does not name", &paths);
}

#[test]
fn imports_only_point_down() {
    let sources = sources();
    let mut offences = Vec::new();
    for import in imports::imports(&sources) {
        let (user, used) = (&sources[import.from], &sources[import.to]);
        let (own, below) = (rank(user.part()).unwrap_or_default(), rank(used.part()).unwrap_or_default());
        let is_beside = own == below && user.part() != used.part();
        if below > own || is_beside && own < ORDER.len() - 2 {
            offences.push(format!("src/{}:{}: {}", user.path, import.line, import.path));
        }
    }
    assert_none("a part uses only parts below it", &offences);
}

#[test]
fn imports_inside_mqtt_only_point_down() {
    let sources = sources();
    let rank = |file: usize| {
        let folder = sources[file].path.strip_prefix("mqtt/")?.split_once('/')?.0;
        MQTT_ORDER.iter().position(|known| *known == folder)
    };
    let mut offences = Vec::new();
    for import in imports::imports(&sources) {
        if let (Some(own), Some(below)) = (rank(import.from), rank(import.to))
            && below > own
        {
            let (user, used) = (&sources[import.from].path, &sources[import.to].path);
            offences.push(format!("src/{user}:{}: {} in src/{used}", import.line, import.path));
        }
    }
    assert_none("a folder of mqtt uses only folders below it", &offences);
}

#[test]
fn no_imports_run_in_circles_between_folders() {
    let sources = sources();
    let imports = imports::imports(&sources);
    assert!(imports.len() > sources.len(), "the imports were not understood");
    let mut offences = Vec::new();
    for circle in circles::circles(&sources, &imports) {
        let steps = circle.iter().map(|import| {
            let (user, used) = (&sources[import.from].path, &sources[import.to].path);
            format!("  src/{user}:{} uses {} in src/{used}\n", import.line, import.path)
        });
        offences.push(steps.collect::<String>());
    }
    assert_none("files of different folders use each other in a circle", &offences);
}

/// Imports that the rules must see, and text that is none.
#[test]
fn imports_are_understood() {
    let texts = [
        ("a/mod.rs", "mod inner;\npub use inner::Shown;\n"),
        (
            "a/inner.rs",
            "use crate::{b::{self, Other as Renamed}, c::{d, e::Deep}};\nfn f() { b::g(); d::h::<Renamed>() }\n",
        ),
        ("b.rs", "use super::a::Shown;\n#[cfg(test)]\nmod tests {\n    use crate::c::d::Only;\n}\n"),
        ("c/mod.rs", "pub mod d;\npub mod e;\n"),
        (
            "c/d.rs",
            "// use crate::b::Other;\nconst TEXT: &str = \"crate::b::\\\"Other\"; fn f(c: char) { c == '\"'; crate::b::g() }\n",
        ),
        ("c/e.rs", "struct Deep;\n#[cfg(test)]\nmod tests;\n"),
        ("c/e/tests.rs", "use crate::b::Other;\n"),
    ];
    let sources = source::from_texts(texts.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())));
    let imports = imports::imports(&sources);
    let path = |file: usize| sources[file].path.as_str();
    let mut found: Vec<_> = imports.iter().map(|import| (path(import.from), path(import.to))).collect();
    found.sort_unstable();
    let expected = [
        ("a/inner.rs", "b.rs"),
        ("a/inner.rs", "c/d.rs"),
        ("a/inner.rs", "c/e.rs"),
        ("b.rs", "a/inner.rs"),
        ("c/d.rs", "b.rs"),
    ];
    assert_eq!(found, expected);
    let circles = circles::circles(&sources, &imports);
    let circles: Vec<Vec<&str>> =
        circles.iter().map(|circle| circle.iter().map(|import| path(import.from)).collect()).collect();
    assert_eq!(circles, [vec!["a/inner.rs", "b.rs"], vec!["a/inner.rs", "c/d.rs", "b.rs"]]);
}

#[test]
fn core_is_pure() {
    let forbidden =
        ["SystemTime", "Instant", "std::fs", "std::net", "std::thread", "tokio", "tracing", "async ", "metrics::"];
    let offences = lines_with(&forbidden, |source| source.part() == "core");
    assert_none("core has no I/O, clock, threads, logging or async", &offences);
}

#[test]
fn results_are_not_http() {
    let offences = lines_with(&["axum", "hyper", "http"], |source| source.part() == "results");
    assert_none("results knows nothing of HTTP", &offences);
}

#[test]
fn http_state_knows_no_handler() {
    let users = ["http/handlers/", "http/mod.rs", "http/router.rs"];
    let may_use = |path: &str| users.iter().any(|user| path.starts_with(user));
    let offences = lines_with(&["handlers::"], |source| source.part() == "http" && !may_use(&source.path));
    assert_none("in http only the router uses handlers", &offences);
}

#[test]
fn only_disk_calls_the_file_system() {
    let calls = ["std::fs", "fs::", "File::", "OpenOptions", "tokio::fs", "rustix::fs"];
    let is_allowed = |path: &str| FILE_SYSTEM.iter().any(|(prefix, _)| path.starts_with(prefix));
    let offences = lines_with(&calls, |source| source.part() != "disk" && !is_allowed(&source.path));
    assert_none("only disk calls the file system", &offences);
}

#[test]
fn nothing_is_left_undone() {
    let forbidden = ["todo!(", "unimplemented!(", ".unwrap()", "dbg!(", "unsafe ", "#[allow("];
    assert_none("forbidden outside tests", &lines_with(&forbidden, |_| true));
    for root in ["src/lib.rs", "src/main.rs"] {
        let text = fs::read_to_string(repository_path(root)).expect("a root");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{root} does not forbid unsafe code");
    }
}

#[test]
fn questions_change_nothing() {
    let is_question = |line: &str| line.contains("fn is_") && line.contains("&mut self");
    let mut offences = Vec::new();
    for source in &sources() {
        for (number, line) in source.product_lines().filter(|(_, line)| is_question(line)) {
            offences.push(format!("src/{}:{number}: {}", source.path, line.trim()));
        }
    }
    assert_none("a method that begins with is_ takes &mut self", &offences);
}

/// The name of the type that a line declares. Associated types stand inside a block, so they are indented.
fn declared_type(line: &str) -> Option<&str> {
    let is_indented = line.starts_with(' ');
    let line = line.trim_start();
    let line =
        ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|prefix| line.strip_prefix(prefix)).unwrap_or(line);
    let (keyword, rest) = line.split_once(' ')?;
    let declares = ["struct", "enum", "trait", "union"].contains(&keyword) || keyword == "type" && !is_indented;
    let name = rest.split(|next: char| !next.is_alphanumeric() && next != '_').next()?;
    (declares && name.starts_with(char::is_uppercase)).then_some(name)
}

#[test]
fn a_type_name_is_declared_once() {
    let mut files = Vec::new();
    ["src", "tests", "benches"].iter().for_each(|root| source::collect(&repository_path(root), &mut files));
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in &files {
        let text = fs::read_to_string(path).expect("a readable file");
        let shown = path.strip_prefix(repository_path("")).expect("it is in the repository").display().to_string();
        for (index, line) in text.lines().enumerate() {
            if let Some(name) = declared_type(line) {
                places.entry(name.to_owned()).or_default().push(format!("{shown}:{}", index + 1));
            }
        }
    }
    let twice = places
        .iter()
        .filter(|(name, places)| places.len() > 1 && !DECLARED_TWICE.iter().any(|(known, _)| known == name));
    let offences: Vec<String> = twice.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    assert_none("a type name is declared more than once", &offences);
}

#[test]
fn files_stay_short() {
    let sources = sources();
    let long = sources.iter().filter(|source| source.lines > LONGEST_FILE);
    let offences: Vec<String> = long.map(|source| format!("src/{}: {} lines", source.path, source.lines)).collect();
    assert_none("too long", &offences);
}

/// `section.key` of every assignment in a config file, those in comments too where `commented`.
fn keys(path: &str, commented: bool) -> BTreeSet<String> {
    let text = fs::read_to_string(repository_path(path)).expect("a config file");
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
    assert_none("keys of systemd/config.toml that config.toml does not have", &unknown);
}
