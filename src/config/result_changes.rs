//! Changes of the settings that results depend on, for people: what changes with the next start, and from when it holds.
//! docs/semantics.md states the rules ("Changes of settings").

use serde_json::{Map, Value};

use crate::config::duration::duration_text;
use crate::core::carried::common_border;
use crate::core::settings::Settings;

/// A common border of two window sizes that is further ahead than this is called far.
const FAR_MS: i64 = 3_600_000;

/// From when another value holds.
enum HoldsFrom {
    /// For what arrives after the start.
    Start,
    /// Text for a larger and for a smaller value.
    Lateness,
    /// The next common border.
    WindowSize,
    /// Text for the scope that begins.
    Watermark,
    /// With the next message of each device.
    NextMessage,
    /// For what arrives after the start. Three keys together say how much one device may fill.
    ErrorShare,
    /// It is no setting of the configuration.
    Unsaid,
}

use HoldsFrom::{ErrorShare, Lateness, NextMessage, Start, Unsaid, Watermark, WindowSize};

/// The fields of [`Settings`], with the keys that they come from.
const FIELDS: &[(&str, &str, HoldsFrom)] = &[
    ("telemetry_topics", "ingest.telemetry_topics", Start),
    ("error_topics", "ingest.error_topics", Start),
    ("time_source", "ingest.time", Start),
    ("timezone", "ingest.timezone", Start),
    ("timestamp_unit", "ingest.timestamp_unit", Start),
    ("numeric_strings", "ingest.numeric_strings", Start),
    ("sequence_bits", "ingest.seq_bits", Start),
    ("max_readings_per_message", "ingest.max_readings_per_message", Start),
    ("max_future_ms", "validate.max_future", Start),
    ("max_age_ms", "validate.max_age", Start),
    ("allowed_devices", "validate.allowed_devices", Start),
    ("metrics", "validate.metrics", Start),
    ("dedup", "dedup.enabled", Start),
    ("window_ms", "window.size", WindowSize),
    ("watermark", "window.watermark", Watermark),
    ("out_of_orderness_ms", "window.out_of_orderness", NextMessage),
    ("allowed_lateness_ms", "window.allowed_lateness", Lateness),
    ("idle_timeout_ms", "window.idle_timeout", Start),
    ("backlog", "window.backlog", Start),
    ("max_backlog_windows_per_device", "limits.backlog_windows_per_device", Start),
    ("max_backlog_windows", "limits.backlog_windows", Start),
    ("max_devices", "limits.devices", Start),
    ("max_devices_per_user", "limits.devices_share", Start),
    ("max_new_devices_per_hour", "limits.new_devices_per_hour", Start),
    ("max_metrics_per_device", "limits.metrics_per_device", Start),
    ("device_ttl_ms", "state.device_ttl", Start),
    ("store_duplicates", "errors.store_duplicates", Start),
    ("tenants", "tenants", Start),
    ("records_name_users", "", Unsaid),
    ("errors_in_proportion", "", Unsaid),
    ("error_share", "errors.device_share", ErrorShare),
    ("maps", "ingest.map", Start),
    ("rules", "", Unsaid),
];

/// Names of maps that a line shows of each kind.
const SHOWN_MAPS: usize = 5;

/// One line for each key whose value differs: the values, and from when the new one holds. `now_ms` is the present.
pub fn result_changes(before: &Settings, after: &Settings, now_ms: i64) -> Vec<String> {
    let (old, new) = (fields(before), fields(after));
    let value = |fields: &Map<String, Value>, name: &str| fields.get(name).cloned().unwrap_or(Value::Null);
    let mut lines = Vec::new();
    for (name, key, from) in FIELDS {
        let (old, new) = (value(&old, name), value(&new, name));
        if old == new {
            continue;
        }
        let holds = match from {
            Start => "holds for what arrives after the start".to_owned(),
            NextMessage => "holds from the next message of each device on; no watermark goes back".to_owned(),
            Lateness if after.allowed_lateness_ms > before.allowed_lateness_ms => {
                "holds at once for windows that are not closed for good".to_owned()
            }
            Lateness => {
                "holds for windows after those that a device has at the start; these keep the wider one".to_owned()
            }
            Watermark if new == "global" => {
                "holds at once; the next message of the device that is ahead closes windows of all".to_owned()
            }
            Watermark => "holds at once; each device goes on from its own newest event time".to_owned(),
            WindowSize => window_size(before, after, now_ms),
            ErrorShare => {
                "it depends on errors.retention and errors.retention_bytes too; holds for what arrives after the start"
                    .to_owned()
            }
            Unsaid => continue,
        };
        if *name == "maps" {
            lines.push(format!("{key} and the presets: {}; {holds}", changed_maps(&old, &new)));
            continue;
        }
        let values = match (shown(name, &old), shown(name, &new)) {
            (Some(old), Some(new)) => format!("{old} -> {new}"),
            _ => "changed".to_owned(),
        };
        lines.push(format!("{key}: {values}; {holds}"));
    }
    lines
}

fn window_size(before: &Settings, after: &Settings, now_ms: i64) -> String {
    let newest_end_ms = common_border(before.window_ms, before.window_ms, now_ms.saturating_add(1));
    let border_ms = common_border(before.window_ms, after.window_ms, newest_end_ms);
    let at = jiff::Timestamp::from_millisecond(border_ms)
        .map_or_else(|_| "beyond the year 9999".to_owned(), |at| at.to_string());
    let far = if border_ms.saturating_sub(now_ms) > FAR_MS {
        "; that is far ahead, because windows of both sizes seldom begin at the same time"
    } else {
        ""
    };
    format!(
        "new devices have it at once, known ones from the next time, after their newest window, at which windows of both \
         sizes begin: {at} for a device whose clock is right{far}"
    )
}

fn fields(settings: &Settings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        // Settings are an object of values that JSON can express.
        _ => Map::new(),
    }
}

/// Names of the maps that are new, are gone, or differ, at most a few of each.
fn changed_maps(old: &Value, new: &Value) -> String {
    let maps = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (old, new) = (maps(old), maps(new));
    let find = |maps: &[Value], map: &Value| maps.iter().find(|other| other["name"] == map["name"]).cloned();
    let kinds: [(&str, Vec<&Value>); 3] = [
        ("new", new.iter().filter(|map| find(&old, map).is_none()).collect()),
        ("gone", old.iter().filter(|map| find(&new, map).is_none()).collect()),
        ("changed", new.iter().filter(|map| find(&old, map).is_some_and(|other| other != **map)).collect()),
    ];
    let some = kinds.iter().filter(|(_, maps)| !maps.is_empty()).map(|(kind, maps)| {
        let names: Vec<&str> = maps.iter().filter_map(|map| map["name"].as_str()).take(SHOWN_MAPS).collect();
        let more = if maps.len() > names.len() { ", ..." } else { "" };
        format!("{} {kind} ({}{more})", maps.len(), names.join(", "))
    });
    let text = some.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "in another order".to_owned() } else { text }
}

/// The value as in the configuration; `None` for lists and tables, which may be long.
fn shown(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("off".to_owned()),
        Value::Bool(on) if name == "backlog" => Some(if *on { "on" } else { "off" }.to_owned()),
        Value::Number(number) if name.ends_with("_ms") => number.as_i64().map(duration_text),
        Value::Array(_) | Value::Object(_) => None,
        Value::String(text) if text.is_empty() => Some("none".to_owned()),
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday 2026-11-30T12:00:07Z.
    const NOW_MS: i64 = 1_796_040_007_000;

    #[test]
    fn every_field_has_a_line() {
        let known: Vec<&str> = FIELDS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(
            fields(&Settings::default()).keys().map(String::as_str).filter(|name| !known.contains(name)).count(),
            0
        );
        assert_eq!(known.len(), fields(&Settings::default()).len());
    }

    #[test]
    fn keys_are_keys_of_the_configuration() {
        let is_key = |key: &str| {
            let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
            crate::config::keys::find(section, name).is_some()
                || ["validate.metrics", "ingest.map", "tenants"].contains(&key)
        };
        let unknown: Vec<&str> =
            FIELDS.iter().map(|(_, key, _)| *key).filter(|key| !key.is_empty() && !is_key(key)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn changes_say_from_when_they_hold() {
        let check = |after: Settings, parts: &[&str]| {
            let lines = result_changes(&Settings::default(), &after, NOW_MS);
            assert_eq!(lines.len(), 1, "{lines:?}");
            for part in parts {
                assert!(lines[0].contains(part), "{part} is missing in {}", lines[0]);
            }
        };
        let size = |window_ms| Settings { window_ms, ..Settings::default() };
        check(size(60_000), &["window.size: 5s -> 1m; ", "2026-11-30T12:01:00Z for a device whose clock is right"]);
        check(size(86_399_000), &["window.size: 5s -> 86399s; ", "far ahead"]);
        let lateness = |allowed_lateness_ms| Settings { allowed_lateness_ms, ..Settings::default() };
        check(lateness(60_000), &["window.allowed_lateness: 30s -> 1m; holds at once"]);
        check(lateness(0), &["window.allowed_lateness: 30s -> 0ms; holds for windows after"]);
        check(Settings { idle_timeout_ms: None, ..Settings::default() }, &["window.idle_timeout: 10s -> off; "]);
        check(
            Settings { error_share: None, ..Settings::default() },
            &["errors.device_share: changed; it depends on errors.retention"],
        );
        check(Settings { backlog: false, ..Settings::default() }, &["window.backlog: on -> off; "]);
        check(
            Settings { allowed_devices: vec!["a".into()], ..Settings::default() },
            &["validate.allowed_devices: changed; "],
        );
        let map = |name: &str, topic: &str| crate::core::formats::MapSettings {
            name: name.into(),
            topics: vec![topic.into()],
            ..Default::default()
        };
        let maps = |maps: &[(&str, &str)]| Settings {
            maps: maps.iter().map(|(name, topic)| map(name, topic)).collect(),
            ..Settings::default()
        };
        let before = maps(&[("a", "a"), ("b", "b")]);
        let changed = |after: &Settings| result_changes(&before, after, NOW_MS).concat();
        let told = changed(&maps(&[("b", "x"), ("c", "c")]));
        assert!(
            told.starts_with("ingest.map and the presets: 1 new (c), 1 gone (a), 1 changed (b); holds for"),
            "{told}"
        );
        assert!(changed(&maps(&[("b", "b"), ("a", "a")])).contains("in another order"));
        let scope = crate::core::settings::WatermarkScope::Global;
        check(
            Settings { watermark: scope, ..Settings::default() },
            &["window.watermark: device -> global; holds at once"],
        );
        assert_eq!(
            result_changes(&Settings { rules: 0, ..Settings::default() }, &Settings::default(), NOW_MS).len(),
            0
        );
    }
}
