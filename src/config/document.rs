//! Reads a TOML document and the environment into a [`Config`], by the table of keys, and collects all faults.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::config::fault::{ConfigFault, ConfigOrigin, ConfigProblem};
use crate::config::keys::{self, METRIC_KEYS};
use crate::config::maps::{INGEST_MAP, MapDraft, read_maps};
use crate::config::sections::Config;
use crate::config::tenants::TENANTS;
use crate::config::value::RawValue;
use crate::core::settings::MetricRange;

/// Environment variables that begin with this prefix and contain `__` are settings.
const PREFIX: &str = "WEIR_";

/// A configuration while it is read.
#[derive(Debug)]
pub(super) struct Document<'a> {
    file: &'a str,
    text: &'a str,
    /// The settings read so far; the others have their defaults.
    pub config: Config,
    /// The faults found so far.
    pub faults: Vec<ConfigFault>,
    /// The origin of each key that was set.
    pub set: BTreeMap<String, ConfigOrigin>,
    /// The tables `[[ingest.map]]`.
    pub maps: Vec<MapDraft>,
}

impl<'a> Document<'a> {
    /// Reads the text of a file called `file`.
    pub fn read(file: &'a str, text: &'a str) -> Self {
        let mut document =
            Self { file, text, config: Config::default(), faults: Vec::new(), set: BTreeMap::new(), maps: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let origin = document.line_of(error.span().map_or(0, |span| span.start));
            document.fault(origin, "", ConfigProblem::new(error.message(), ""));
        }
        document.sections(table.get_ref());
        // After a syntax error the parser goes on with values that it made up. Further faults on such a line are dropped.
        let broken: Vec<ConfigOrigin> =
            document.faults.iter().take(errors.len()).map(|fault| fault.origin.clone()).collect();
        let mut index = 0;
        document.faults.retain(|fault| {
            index += 1;
            index <= errors.len() || !broken.contains(&fault.origin)
        });
        document
    }

    /// The origin of `key`. A key with its default has the file as a whole.
    pub fn origin(&self, key: &str) -> ConfigOrigin {
        self.set.get(key).cloned().unwrap_or_else(|| ConfigOrigin::File(self.file.to_owned()))
    }

    /// Whether `key` was set.
    #[cfg(test)]
    pub fn is_set(&self, key: &str) -> bool {
        self.set.contains_key(key)
    }

    /// Adds a fault.
    pub fn fault(&mut self, origin: ConfigOrigin, key: impl Into<String>, problem: ConfigProblem) {
        self.faults.push(ConfigFault { origin, key: key.into(), problem });
    }

    /// The line of an offset in the text.
    pub(super) fn line_of(&self, offset: usize) -> ConfigOrigin {
        ConfigOrigin::line_of(self.file, self.text, offset)
    }

    fn sections(&mut self, table: &DeTable<'_>) {
        for (name, value) in table {
            let (section, origin) = (name.get_ref().as_ref(), self.line_of(name.span().start));
            match value.get_ref() {
                value if section == TENANTS => self.tenants(origin, value),
                _ if !keys::is_section(section) => {
                    let expected = suggestion(keys::suggest_section(section), "a section of config.toml");
                    self.fault(origin, section, ConfigProblem::new("there is no such section", expected));
                }
                DeValue::Table(keys) => self.section(section, keys),
                _ => {
                    let wrong = "this is a section and needs a table";
                    self.fault(origin, section, ConfigProblem::new(wrong, format!("[{section}] with its keys below")));
                }
            }
        }
    }

    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let (key, origin) = (name.get_ref().as_ref(), self.line_of(name.span().start));
            let inner = format!("{section}.{key}");
            if section == "validate" && key == "metrics" {
                self.metrics(origin, value.get_ref());
            } else if inner == INGEST_MAP {
                let (maps, faults) = read_maps(self.file, self.text, INGEST_MAP, (name.span().start, value.get_ref()));
                self.set.insert(inner, origin);
                self.maps = maps;
                self.faults.extend(faults);
            } else if keys::is_section(&inner) {
                match value.get_ref().as_table() {
                    Some(table) => self.section(&inner, table),
                    None => {
                        let expected = format!("[{inner}] with its keys below");
                        self.fault(origin, inner, ConfigProblem::new("this is a section and needs a table", expected));
                    }
                }
            } else {
                self.value(origin, section, key, RawValue::Toml(value.get_ref()));
            }
        }
    }

    fn value(&mut self, origin: ConfigOrigin, section: &str, name: &str, value: RawValue<'_>) {
        let key = format!("{section}.{name}");
        let result = match keys::find(section, name) {
            Some(found) => (found.read)(&mut self.config, value),
            None => {
                let expected = suggestion(keys::suggest_key(section, name), "a key of config.toml");
                Err(ConfigProblem::new("there is no such key", expected))
            }
        };
        match result {
            Ok(()) => drop(self.set.insert(key, origin)),
            Err(problem) => self.fault(origin, key, problem),
        }
    }

    fn metrics(&mut self, origin: ConfigOrigin, value: &DeValue<'_>) {
        let expected = "[validate.metrics.NAME] with min, max or unit below";
        let Some(metrics) = value.as_table() else {
            return self.fault(
                origin,
                "validate.metrics",
                ConfigProblem::new("it is not a table of metrics", expected),
            );
        };
        for (name, value) in metrics {
            let (metric, origin) = (name.get_ref().as_ref(), self.line_of(name.span().start));
            let Some(table) = value.get_ref().as_table() else {
                let key = format!("validate.metrics.{metric}");
                self.fault(origin, key, ConfigProblem::new("it is not a table", expected));
                continue;
            };
            self.set.insert(format!("validate.metrics.{metric}"), origin);
            self.config.validate.metrics.entry(metric.to_owned()).or_default();
            for (name, value) in table {
                let origin = self.line_of(name.span().start);
                self.metric_value(origin, metric, name.get_ref(), RawValue::Toml(value.get_ref()));
            }
        }
    }

    fn metric_value(&mut self, origin: ConfigOrigin, metric: &str, name: &str, value: RawValue<'_>) {
        let key = format!("validate.metrics.{metric}.{name}");
        let range: &mut MetricRange = self.config.validate.metrics.entry(metric.to_owned()).or_default();
        let result = match METRIC_KEYS.iter().find(|key| key.name == name) {
            Some(found) => (found.read)(range, value),
            None => Err(ConfigProblem::new("there is no such key", "min, max or unit")),
        };
        match result {
            Ok(()) => drop(self.set.insert(key, origin)),
            Err(problem) => self.fault(origin, key, problem),
        }
    }

    /// Applies the variables `WEIR_SECTION__KEY`, which win over the file. All other variables are ignored.
    pub fn environment(&mut self, environment: impl Iterator<Item = (String, String)>) {
        let mut variables: Vec<_> = environment.filter(|(name, _)| is_setting(name)).collect();
        variables.sort();
        for (variable, value) in variables {
            let lower = variable[PREFIX.len()..].to_lowercase();
            let parts: Vec<&str> = lower.split("__").collect();
            let origin = ConfigOrigin::Variable(variable.clone());
            match parts[..] {
                ["validate", "metrics", ref name @ .., key] if !name.is_empty() => {
                    let metric = self.metric_named(&name.join("__"));
                    self.set.entry(format!("validate.metrics.{metric}")).or_insert_with(|| origin.clone());
                    self.metric_value(origin, &metric, key, RawValue::Text(&value));
                }
                ["ingest", "map", ..] => {
                    let expected =
                        "tables [[ingest.map]] in the configuration file, or preset files in ingest.map_files";
                    let problem = ConfigProblem::new("a variable cannot be a map", expected);
                    self.fault(origin, parts.join("."), problem);
                }
                [outer, inner, key] if keys::is_section(&format!("{outer}.{inner}")) => {
                    self.value(origin, &format!("{outer}.{inner}"), key, RawValue::Text(&value));
                }
                [section, key] if keys::is_section(section) => self.value(origin, section, key, RawValue::Text(&value)),
                [section, ..] => {
                    let near = keys::suggest_section(section).filter(|near| near != section);
                    let expected = suggestion(near, "WEIR_SECTION__KEY with a section and a key of config.toml");
                    self.fault(origin, parts.join("."), ConfigProblem::new("there is no such setting", expected));
                }
                // Unreachable: `split` yields at least one part.
                [] => {}
            }
        }
    }

    /// The metric that a variable means. Variables are upper case by convention, while metric names have upper and lower case:
    /// a metric of the file with the same letters is meant, else the name in lower case.
    fn metric_named(&self, lower: &str) -> String {
        let known = self.config.validate.metrics.keys().find(|name| name.to_lowercase() == lower);
        known.map_or_else(|| lower.to_owned(), Clone::clone)
    }
}

fn is_setting(variable: &str) -> bool {
    variable.strip_prefix(PREFIX).is_some_and(|rest| rest.contains("__"))
}

fn suggestion(near: Option<String>, otherwise: &str) -> String {
    near.map_or_else(|| otherwise.to_owned(), |near| format!("{otherwise}; did you mean {near}?"))
}
