//! Compares a configuration that was read again with the one in use.
//!
//! A reload takes over only the keys in [`RELOADABLE`]. It reports changes of other keys, so that the operator knows that a
//! restart is needed; their running values stay.

use std::collections::BTreeMap;

use crate::config::fault::ConfigOrigin;
use crate::config::keys::{KEYS, RELOADABLE};
use crate::config::maps::INGEST_MAP;
use crate::config::sections::Config;
use crate::config::tenants::TENANTS;

/// A configuration with the origins of its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// The settings.
    pub config: Config,
    /// Origin of settings that were not set: the file as a whole.
    pub(super) file: ConfigOrigin,
    /// The origin of each key that was set.
    pub(super) set: BTreeMap<String, ConfigOrigin>,
}

/// A key whose value differs from the running one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// Name as `section.key`.
    pub key: &'static str,
    /// Where the new value was set; the file as a whole if the key was removed from it.
    pub origin: ConfigOrigin,
    /// Whether the change takes effect without a restart.
    pub reloadable: bool,
}

/// The metrics are compared as one key.
const METRICS: &str = "validate.metrics";

impl LoadedConfig {
    /// The keys whose values differ from `running`, in the order of config.toml.
    pub fn changes(&self, running: &Config) -> Vec<ConfigChange> {
        let keys = KEYS.iter().filter(|key| !(key.same)(&self.config, running)).map(|key| self.change(key.path));
        let metrics = self.config.validate.metrics != running.validate.metrics;
        let tenants = self.config.tenants != running.tenants;
        let all = keys.chain(metrics.then(|| self.change(METRICS))).chain(self.changed_maps(running));
        all.chain(tenants.then(|| self.change(TENANTS))).collect()
    }

    /// The key of the maps, if they differ although the keys that choose presets and files are the same.
    fn changed_maps(&self, running: &Config) -> Option<ConfigChange> {
        let (new, old) = (&self.config.ingest, &running.ingest);
        let has_other_keys = new.presets != old.presets || new.map_files != old.map_files;
        (new.maps != old.maps && !has_other_keys).then(|| self.change(INGEST_MAP))
    }

    fn change(&self, key: &'static str) -> ConfigChange {
        let below = |set: &&String| set.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let origin = self.set.keys().find(below).and_then(|set| self.set.get(set));
        ConfigChange {
            key,
            origin: origin.cloned().unwrap_or_else(|| self.file.clone()),
            reloadable: RELOADABLE.contains(&key),
        }
    }

    /// The configuration after a reload: `running`, with the new values of the keys that can change at run time.
    pub fn over(&self, running: &Config) -> Config {
        let mut config = running.clone();
        for key in KEYS.iter().filter(|key| RELOADABLE.contains(&key.path)) {
            (key.copy)(&mut config, &self.config);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> LoadedConfig {
        LoadedConfig::parse("weir.toml", text, std::iter::empty()).expect("a valid configuration")
    }

    fn check(before: &str, after: &str, expected: &[(&str, Option<usize>, bool)]) {
        let running = loaded(before).config;
        let expected: Vec<ConfigChange> = expected
            .iter()
            .map(|(key, line, reloadable)| {
                let file = "weir.toml".to_owned();
                let origin = line.map_or(ConfigOrigin::File(file.clone()), |line| ConfigOrigin::Line(file, line));
                let key =
                    KEYS.iter().map(|key| key.path).chain([METRICS, TENANTS]).find(|path| path == key).expect("a key");
                ConfigChange { key, origin, reloadable: *reloadable }
            })
            .collect();
        assert_eq!(loaded(after).changes(&running), expected);
    }

    #[test]
    fn changes_are_listed_with_their_origins() {
        check("", "", &[]);
        check("[window]\nsize = \"5s\"", "", &[]);
        check(
            "",
            "[log]\nlevel = \"warn\"\n[window]\nsize = \"7s\"",
            &[("window.size", Some(4), false), ("log.level", Some(2), true)],
        );
        check("[mqtt]\nlisten = \"127.0.0.1:1\"", "", &[("mqtt.listen", None, false)]);
        check("", "[validate.metrics.a]\nmin = 1", &[("validate.metrics", Some(1), false)]);
        check("", "[log]\n[[tenants]]\nname = 'a'\nusers = ['b']", &[("tenants", Some(2), false)]);
    }

    #[test]
    fn only_reloadable_keys_change_at_run_time() {
        let running = loaded("[log]\nlevel = \"info\"").config;
        let new = loaded("[log]\nlevel = \"warn\"\n[window]\nsize = \"7s\"\n[mqtt]\nmax_messages_per_second = 5");
        let now = new.over(&running);
        assert_eq!((now.log.level.as_str(), now.window.size_ms), ("warn", 5_000));
        assert_eq!(now.mqtt.rates.messages_per_second, Some(5));
        let left: Vec<&str> = new.changes(&now).into_iter().map(|change| change.key).collect();
        assert_eq!(left, ["window.size"], "the remaining change needs a restart");
    }

    #[test]
    fn every_reloadable_key_is_a_key() {
        for reloadable in RELOADABLE {
            assert!(KEYS.iter().any(|key| key.path == *reloadable), "{reloadable}");
        }
    }
}
