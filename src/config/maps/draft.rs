//! Reads tables of maps, with the place of each key.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::keys::{self, MAP_KEYS};
use super::values::{MapValueFaults, no_such_key};
use crate::config::fault::{ConfigFault, ConfigOrigin, ConfigProblem};
use crate::config::value::RawValue;
use crate::core::formats::MapSettings;

/// Longest name of a map in bytes.
const MAX_NAME_BYTES: usize = 64;

const NAME_FORM: &str = "1 to 64 characters of A-Z a-z 0-9 - _ .";

pub(super) const TOPICS_FORM: &str = "topics such as [\"plant/{device}/values\"], or format with the name of a preset";

/// Whether a map takes any message.
pub(super) fn has_topics(map: &MapSettings) -> bool {
    !map.topics.is_empty() || map.status.is_some() || !map.ignore.is_empty()
}

/// A map as a table has it.
#[derive(Debug, Clone)]
pub(in crate::config) struct MapDraft {
    /// The keys of the table over the defaults.
    pub settings: MapSettings,
    /// The preset from which the other keys come.
    pub format: Option<String>,
    /// Whether the map is on only where it is named.
    pub optional: bool,
    /// Place of the table.
    pub at: ConfigOrigin,
    /// Keys of the table, with their places.
    pub set: BTreeMap<&'static str, ConfigOrigin>,
    /// Beginning of the keys in faults.
    pub key: String,
}

impl MapDraft {
    /// The map with the keys of this table over those of `base`.
    pub fn over(&self, base: &MapSettings) -> MapSettings {
        let mut settings = base.clone();
        for key in MAP_KEYS.iter().filter(|key| self.set.contains_key(key.name)) {
            (key.copy)(&mut settings, &self.settings);
        }
        settings
    }

    /// Place of a key such as `topics` or `status.topics`; the table as a whole for a key that it does not have.
    pub fn origin(&self, key: &str) -> ConfigOrigin {
        let first = key.split('.').next().unwrap_or(key);
        self.set.get(first).unwrap_or(&self.at).clone()
    }

    /// A fault of a key of this map.
    pub fn fault(&self, key: &str, problem: ConfigProblem) -> ConfigFault {
        ConfigFault { origin: self.origin(key), key: format!("{}.{key}", self.key), problem }
    }

    /// A fault of this map as a whole.
    pub fn whole_fault(&self, problem: ConfigProblem) -> ConfigFault {
        ConfigFault { origin: self.at.clone(), key: self.key.clone(), problem }
    }
}

/// Reads the list of tables `list` of a file. `key` is `ingest.map` in the configuration, and `map` in a preset file.
pub(in crate::config) fn read_maps(
    file: &str,
    text: &str,
    key: &'static str,
    list: (usize, &DeValue<'_>),
) -> (Vec<MapDraft>, Vec<ConfigFault>) {
    let mut reader = MapReader { file, text, key, is_preset: key == "map", faults: Vec::new() };
    let drafts = reader.list(list.0, list.1);
    (drafts, reader.faults)
}

struct MapReader<'a> {
    file: &'a str,
    text: &'a str,
    key: &'static str,
    is_preset: bool,
    faults: Vec<ConfigFault>,
}

impl MapReader<'_> {
    fn fault(&mut self, offset: usize, key: String, problem: ConfigProblem) {
        let origin = ConfigOrigin::line_of(self.file, self.text, offset);
        self.faults.push(ConfigFault { origin, key, problem });
    }

    fn list(&mut self, offset: usize, value: &DeValue<'_>) -> Vec<MapDraft> {
        let form = format!("[[{}]] with its keys below", self.key);
        let Some(items) = value.as_array() else {
            self.fault(offset, self.key.into(), ConfigProblem::new("this is a list of tables", form));
            return Vec::new();
        };
        let mut drafts = Vec::new();
        for item in items {
            match item.get_ref().as_table() {
                Some(table) => drafts.extend(self.map(item.span().start, table)),
                None => {
                    let problem = ConfigProblem::new("this is a map and needs a table", form.clone());
                    self.fault(item.span().start, self.key.into(), problem);
                }
            }
        }
        drafts
    }

    /// Reads one table; `None`: it has no name, or is of a preset file and has no topics.
    fn map(&mut self, offset: usize, table: &DeTable<'_>) -> Option<MapDraft> {
        let text_of = |wanted: &str| {
            let found = table.iter().find(|(name, _)| name.get_ref() == wanted);
            found.and_then(|(_, value)| value.get_ref().as_str()).map(str::to_owned)
        };
        let format = text_of("format").filter(|_| !self.is_preset);
        let Some(name) = text_of("name").or_else(|| format.clone()) else {
            let expected = if self.is_preset { "name" } else { "name, or format with the name of a preset" };
            self.fault(offset, self.key.into(), ConfigProblem::new("a map has no name", expected));
            return None;
        };
        let mut draft = MapDraft {
            settings: MapSettings { name: name.clone(), ..MapSettings::default() },
            format,
            optional: false,
            at: ConfigOrigin::line_of(self.file, self.text, offset),
            set: BTreeMap::new(),
            key: format!("{}.{name}", self.key),
        };
        for (name, value) in table {
            self.value(&mut draft, (name.span().start, name.get_ref()), value.get_ref());
        }
        if self.is_preset && !has_topics(&draft.settings) {
            let expected = "topics such as [\"plant/{device}/values\"]";
            self.faults.push(draft.whole_fault(ConfigProblem::new("it has no topics", expected)));
            return None;
        }
        Some(draft)
    }

    fn value(&mut self, draft: &mut MapDraft, (offset, name): (usize, &str), value: &DeValue<'_>) {
        let key = format!("{}.{name}", draft.key);
        let result = match (name, keys::find(name)) {
            ("format", _) if !self.is_preset => {
                draft.set.insert("format", ConfigOrigin::line_of(self.file, self.text, offset));
                RawValue::Toml(value).text().map(drop).map_err(MapValueFaults::from)
            }
            ("optional", _) if self.is_preset => {
                RawValue::Toml(value).switch().map(|optional| draft.optional = optional).map_err(MapValueFaults::from)
            }
            (_, Some(known)) => {
                let origin = ConfigOrigin::line_of(self.file, self.text, offset);
                draft.set.insert(known.name, origin);
                (known.read)(&mut draft.settings, value)
            }
            (_, None) => {
                let own = if self.is_preset { "optional" } else { "format" };
                let names = [own].into_iter().chain(MAP_KEYS.iter().map(|key| key.name));
                Err(no_such_key(name, names).into())
            }
        };
        if name == "name" && result.is_ok() && !is_map_name(&draft.settings.name) {
            let wrong = format!("{:?} cannot be the name of a map", draft.settings.name);
            self.fault(offset, key, ConfigProblem::new(wrong, NAME_FORM));
        } else if let Err(MapValueFaults(problems)) = result {
            for inner in problems {
                let below = if inner.key.is_empty() { key.clone() } else { format!("{key}.{}", inner.key) };
                self.fault(inner.offset.unwrap_or(offset), below, inner.problem);
            }
        }
    }
}

fn is_map_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}
