//! `weir maps show`: the file of a preset, or a map of the configuration with the keys of its preset.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::Value;

use weir::config::{Config, MapOrigin, embedded_presets};
use weir::core::formats::MapSettings;

/// Prints the map or the preset `name`.
///
/// # Errors
/// There is none of this name, or its file cannot be read.
pub fn run(name: &str, config: &Config) -> anyhow::Result<ExitCode> {
    std::io::stdout().lock().write_all(text(name, config)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn text(name: &str, config: &Config) -> anyhow::Result<String> {
    let known = config.ingest.maps.iter().find(|map| map.settings.name == name);
    match known.map(|map| &map.origin) {
        Some(MapOrigin::Config) => {
            let keys = known.map(|map| toml_of(&map.settings)).unwrap_or_default();
            Ok(format!("# A map of the configuration, with the keys of its preset.\n\n[[ingest.map]]\n{keys}"))
        }
        Some(MapOrigin::File(file)) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}")),
        _ => {
            let is_named =
                |preset: &&weir::config::Preset| preset.family == name || preset.map_names().any(|map| map == name);
            match embedded_presets().iter().find(is_named) {
                Some(preset) => Ok(preset.text.clone()),
                None => bail!("there is no map {name:?}; `weir maps` lists them"),
            }
        }
    }
}

/// The keys of a map that are not the defaults, a line each, name and topics first.
pub fn toml_of(map: &MapSettings) -> String {
    let (Ok(Value::Object(keys)), Ok(Value::Object(defaults))) =
        (serde_json::to_value(map), serde_json::to_value(MapSettings::default()))
    else {
        return String::new();
    };
    let mut keys: Vec<_> = keys.iter().filter(|(key, value)| defaults.get(*key) != Some(*value)).collect();
    keys.sort_by_key(|(key, _)| match key.as_str() {
        "name" => 0,
        "topics" => 1,
        _ => 2,
    });
    keys.iter().map(|(key, value)| format!("{key} = {}\n", toml_value(value))).collect()
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml_value).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .filter(|(_, value)| !value.is_null() && value.as_str() != Some(""))
                .map(|(key, value)| format!("{} = {}", toml_key(key), toml_value(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

fn toml_key(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_bare { key.to_owned() } else { Value::from(key).to_string() }
}
