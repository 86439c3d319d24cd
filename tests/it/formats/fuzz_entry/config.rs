//! Configuration files, and variables of the environment.

use weir::config::{ConfigOrigin, LoadedConfig};

use super::is_one_line;

/// The input is a configuration. Lines behind one that is `---` are variables of the environment, `NAME=value`.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, environment) = text.split_once("\n---\n").unwrap_or((text, ""));
    let variables = || {
        let pairs = environment.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let loaded = LoadedConfig::parse("file", file, variables());
    assert_eq!(loaded, LoadedConfig::parse("file", file, variables()), "the same text has the same meaning");
    match loaded {
        Ok(loaded) => {
            assert_eq!(loaded.changes(&loaded.config), [], "nothing differs from itself");
            let defaults = LoadedConfig::parse("file", "", std::iter::empty()).expect("the defaults are good");
            let after = loaded.over(&defaults.config);
            let left: Vec<_> = loaded.changes(&after).into_iter().filter(|change| change.reloadable).collect();
            assert_eq!(left, [], "a reload takes over what it says");
        }
        Err(errors) => {
            assert!(!errors.0.is_empty(), "a refused configuration has faults");
            let lines = file.split('\n').count();
            for fault in &errors.0 {
                is_one_line(&fault.to_string());
                if let ConfigOrigin::Line(_, line) = &fault.origin {
                    assert!((1..=lines).contains(line), "{fault}: there are {lines} lines");
                }
            }
        }
    }
}
