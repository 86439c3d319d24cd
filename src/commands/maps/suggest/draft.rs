//! Builds maps for the messages that were seen, and proves them on these messages.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{anyhow, bail};
use serde_json::Value;

use weir::clock::{Clock as _, SystemClock};
use weir::config::{Config, KnownMap, MapState};
use weir::core::formats::{MapMemory, MapSettings, Maps, PayloadFormat};

use super::SeenMessage;
use super::fields::JsonFields;
use super::topics::SeenPattern;
use crate::commands::maps::show::toml_of;

/// What a map gives for messages.
#[derive(Debug, Default)]
struct MapProof {
    messages: usize,
    readings: usize,
    errors: Vec<String>,
    devices: BTreeSet<String>,
    /// Times of the messages name no zone.
    lacks_zone: bool,
}

/// The text of a configuration with maps for the messages, which are on topics that match `filter`.
///
/// # Errors
/// No map makes readings of them.
pub fn suggest(filter: &str, seen: &[SeenMessage], config: &Config) -> anyhow::Result<String> {
    let seen: Vec<SeenMessage> = seen.iter().filter(|message| !message.payload.is_empty()).cloned().collect();
    if seen.is_empty() {
        bail!("all messages on {filter} are empty");
    }
    let Some(known) = by_known_map(&seen, config) else { return own_maps(filter, seen, config) };
    // Topics that begin with a wildcard may be those of other devices.
    let own = if known.is_on { None } else { own_maps(filter, seen, config).ok() };
    let lines = own.iter().flat_map(|own| own.lines()).map(|line| format!("# {line}").trim_end().to_owned() + "\n");
    let other = lines.collect::<String>();
    Ok(if other.is_empty() {
        known.text
    } else {
        format!("{}\n# For other devices, a map of your own:\n{other}", known.text)
    })
}

/// A known map that takes the messages, as a configuration.
struct KnownSuggestion {
    is_on: bool,
    text: String,
}

/// The text of a configuration with new maps for the messages.
fn own_maps(filter: &str, seen: Vec<SeenMessage>, config: &Config) -> anyhow::Result<String> {
    let mut groups: BTreeMap<usize, Vec<SeenMessage>> = BTreeMap::new();
    for message in seen {
        groups.entry(message.topic.split('/').count()).or_default().push(message);
    }
    let mut names: BTreeSet<String> = config.ingest.maps.iter().map(|map| map.settings.name.clone()).collect();
    let (mut text, mut wrong) = (String::new(), Vec::new());
    for group in groups.values() {
        match own_map(filter, group, &names) {
            Ok((map, proof)) => {
                if !text.is_empty() {
                    text.push('\n');
                }
                text += &format!("# {}\n", proof.sentence());
                if proof.lacks_zone {
                    text += "# The times name no zone and count as UTC: where they are local, add timezone, as in \"Europe/Berlin\".\n";
                }
                text += &format!("[[ingest.map]]\n{}", toml_of(&map));
                names.insert(map.name);
            }
            Err(error) => wrong.push(error.to_string()),
        }
    }
    if text.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    wrong.iter().for_each(|wrong| text += &format!("\n# {wrong}\n"));
    Ok(text)
}

/// A known map that makes readings of the messages, and takes their topics or is optional.
fn by_known_map(seen: &[SeenMessage], config: &Config) -> Option<KnownSuggestion> {
    let fits = |map: &&KnownMap| prove(&map.settings, seen).is_some_and(|proof| proof.is_good());
    let mut known = config.ingest.maps.iter().filter(|map| map.state != MapState::Replaced);
    let found = known.clone().filter(|map| map.state == MapState::On).find(fits).or_else(|| known.find(fits))?;
    let name = &found.settings.name;
    let proof = prove(&found.settings, seen)?.sentence();
    let is_on = found.state == MapState::On;
    let text = if is_on {
        format!("# The map {name} is on and takes these messages; nothing is to do. {proof}\n")
    } else {
        format!("# {proof} `weir maps show {name}` prints the map.\n[[ingest.map]]\nformat = {name:?}\n")
    };
    Some(KnownSuggestion { is_on, text })
}

/// A new map for messages on topics with equally many levels.
fn own_map(filter: &str, seen: &[SeenMessage], names: &BTreeSet<String>) -> anyhow::Result<(MapSettings, MapProof)> {
    let topics: BTreeSet<&str> = seen.iter().map(|message| message.topic.as_str()).collect();
    let example = topics.first().copied().unwrap_or(filter);
    let forms = payload_forms(seen);
    let mut fault = None;
    for payload in &forms {
        let payload = *payload;
        let (mut map, lacks_zone) = draft(filter, &topics, seen, payload);
        map.name = free_name(&map.topics, names);
        match prove(&map, seen) {
            Some(proof) if proof.is_good() => return Ok((map, MapProof { lacks_zone, ..proof })),
            // The other forms are guesses: what is wrong with the likeliest one helps.
            Some(proof) if Some(&payload) == forms.first() => fault = proof.errors.into_iter().next(),
            _ => {}
        }
    }
    let why = fault.unwrap_or_else(|| "they hold no numbers".into());
    Err(anyhow!("no map makes readings of the messages on {example}: {why}"))
}

/// Forms that the payloads may have, the likeliest first.
fn payload_forms(seen: &[SeenMessage]) -> Vec<PayloadFormat> {
    let documents: Option<Vec<Value>> =
        seen.iter().map(|message| serde_json::from_slice(&message.payload).ok()).collect();
    match documents {
        Some(documents) if documents.iter().all(is_senml) => vec![PayloadFormat::Senml, PayloadFormat::Json],
        Some(documents) if documents.iter().all(|document| document.is_object() || document.is_array()) => {
            vec![PayloadFormat::Json]
        }
        Some(_) => vec![PayloadFormat::Scalar],
        None if seen.iter().all(|message| message.payload.trim_ascii().starts_with(b"{")) => vec![PayloadFormat::Json],
        None => vec![PayloadFormat::Scalar, PayloadFormat::Line, PayloadFormat::SenmlCbor],
    }
}

/// Whether a document is a list of SenML records: names or base names beside values.
fn is_senml(document: &Value) -> bool {
    let has = |record: &Value, keys: &[&str]| keys.iter().any(|key| record.get(key).is_some());
    let records = document.as_array().filter(|records| !records.is_empty());
    records.is_some_and(|records| {
        records.iter().all(|record| has(record, &["n", "bn"]))
            && records.iter().any(|record| has(record, &["v", "vb", "bv"]))
    })
}

/// A map for the messages, and whether their times name no zone.
fn draft(filter: &str, topics: &BTreeSet<&str>, seen: &[SeenMessage], payload: PayloadFormat) -> (MapSettings, bool) {
    let pattern = SeenPattern::new(filter, topics, payload == PayloadFormat::Scalar);
    let mut map = MapSettings { topics: vec![pattern.pattern.clone()], payload, ..MapSettings::default() };
    let (mut device, mut lacks_zone) = (pattern.device, false);
    match payload {
        PayloadFormat::Scalar => map.metric = pattern.metric.unwrap_or_else(|| "value".into()),
        PayloadFormat::Json => {
            let documents = seen.iter().filter_map(|message| serde_json::from_slice(&message.payload).ok());
            let fields = JsonFields::new(&documents.collect::<Vec<Value>>());
            let of_payload = fields.device.filter(|path| fields.metric.as_ref() != Some(path));
            device = device.or_else(|| of_payload.map(|path| format!("{{{path}}}")));
            map.each = Some(fields.each).filter(|each| !each.is_empty()).into_iter().collect();
            map.metric = fields.metric.map_or(map.metric, |path| format!("{{{path}}}"));
            (map.value, map.exclude) = (fields.value, fields.exclude);
            map.time = fields.time.into_iter().collect();
            map.seq = fields.seq.unwrap_or_default();
            lacks_zone = fields.lacks_zone;
        }
        PayloadFormat::Line => {
            map.metric = "{measurement}.{field}".into();
            device = device.map(|device| format!("{{tag:host|tag:device|{}", device.trim_start_matches('{')));
        }
        PayloadFormat::Senml | PayloadFormat::SenmlCbor if device.is_none() => device = Some("{bn}".into()),
        _ => {}
    }
    // Without a level of its own, the topic is one device.
    map.device = device.unwrap_or_else(|| {
        pattern.pattern.split('/').filter(|level| !level.contains(['{', '}'])).collect::<Vec<_>>().join(".")
    });
    (map, lacks_zone)
}

/// A name of the literal levels that no other map has.
fn free_name(topics: &[String], names: &BTreeSet<String>) -> String {
    let levels = topics.iter().flat_map(|topic| topic.split('/')).filter(|level| !level.starts_with('{'));
    let name = levels.map(plain).filter(|level| !level.is_empty()).collect::<Vec<_>>().join("_");
    let name: String = if name.is_empty() { "own".into() } else { name.chars().take(48).collect() };
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !names.contains(name)).unwrap_or(name)
}

fn plain(level: &str) -> String {
    level.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect()
}

/// What `map` alone gives for the messages; `None`: it has faults, or does not take all of them.
fn prove(map: &MapSettings, seen: &[SeenMessage]) -> Option<MapProof> {
    let maps = Maps::new(std::slice::from_ref(map)).ok()?;
    let (mut memory, mut proof) = (MapMemory::default(), MapProof { messages: seen.len(), ..MapProof::default() });
    for SeenMessage { topic, payload } in seen {
        let found = maps.find(topic)?;
        let outcome = maps.show(found, topic, payload, SystemClock.now_ms(), &mut memory);
        proof.readings += outcome.readings.len();
        proof.devices.extend(outcome.readings.into_iter().map(|reading| reading.device_id));
        proof.errors.extend(outcome.errors.into_iter().map(|error| error.message));
    }
    Some(proof)
}

impl MapProof {
    fn is_good(&self) -> bool {
        self.readings > 0 && self.errors.is_empty()
    }

    fn sentence(&self) -> String {
        let Self { messages, readings, devices, .. } = self;
        let few: Vec<&str> = devices.iter().take(3).map(String::as_str).collect();
        let more = if devices.len() > few.len() { ", …" } else { "" };
        let text = format!("It makes {readings} readings of {messages} messages; devices: {}{more}.", few.join(", "));
        text.chars().filter(|c| !c.is_control()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(messages: &[(&str, &str)]) -> Vec<SeenMessage> {
        let message = |(topic, payload): &(&str, &str)| SeenMessage {
            topic: (*topic).to_owned(),
            payload: payload.as_bytes().to_vec(),
        };
        messages.iter().map(message).collect()
    }

    /// The suggested text is a configuration under which the messages give these readings, `device/metric=value`.
    #[track_caller]
    fn check(filter: &str, messages: &[(&str, &str)], expected: &[&str]) -> String {
        let messages = seen(messages);
        let text = suggest(filter, &messages, &Config::default()).expect("a map");
        let config =
            Config::parse("weir.toml", &text, std::iter::empty()).unwrap_or_else(|faults| panic!("{text}\n{faults}"));
        let settings = config.settings().maps;
        let maps = Maps::new(&settings).expect("maps without faults");
        let mut readings = Vec::new();
        for SeenMessage { topic, payload } in &messages {
            let found = maps.find(topic).unwrap_or_else(|| panic!("{topic} is not taken\n{text}"));
            let outcome = maps.show(found, topic, payload, 0, &mut MapMemory::default());
            assert_eq!(outcome.errors, [], "{text}");
            let shown = |reading: &weir::core::formats::ShownReading| {
                format!("{}/{}={}", reading.device_id, reading.metric, reading.value)
            };
            readings.extend(outcome.readings.iter().map(shown));
        }
        assert_eq!(readings, expected, "{text}");
        text
    }

    #[test]
    fn objects_with_a_time() {
        let text = check(
            "plant/+/state",
            &[
                ("plant/a/state", r#"{"ts":1732098765,"temp":21.5,"fw":"1.2.3"}"#),
                ("plant/b/state", r#"{"ts":1732098766,"temp":20.5,"fw":"1.2.4"}"#),
            ],
            &["a/temp=21.5", "b/temp=20.5"],
        );
        for part in ["topics = [\"plant/{device}/state\"]", "time = [\"/ts\"]", "exclude = [\"fw\", \"ts\"]"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn numbers_and_times_without_a_zone() {
        let text = check(
            "plant/+/state",
            &[
                ("plant/a/state", r#"{"time":"2026-11-30 12:01:02","seq":7,"temp":21.5}"#),
                ("plant/a/state", r#"{"time":"2026-11-30 12:01:03","seq":8,"temp":20.5}"#),
            ],
            &["a/temp=21.5", "a/temp=20.5"],
        );
        for part in ["seq = \"/seq\"", "exclude = [\"seq\", \"time\"]", "# The times name no zone and count as UTC: "] {
            assert!(text.contains(part), "{text}");
        }
        // What stays the same counts nothing.
        let same = r#"{"time":"2026-11-30T12:01:02Z","seq":7}"#;
        let text = check("p/a", &[("p/a", same), ("p/a", same)], &["a/seq=7", "a/seq=7"]);
        assert!(!text.contains("zone"), "{text}");
    }

    #[test]
    fn one_value_a_topic() {
        let text = check(
            "rooms/#",
            &[("rooms/kitchen/temp", "21.5"), ("rooms/hall/light", "ON")],
            &["kitchen/temp=21.5", "hall/light=1"],
        );
        assert!(text.contains("payload = \"scalar\""), "{text}");
        check("boiler", &[("boiler", "61")], &["boiler/value=61"]);
    }

    #[test]
    fn arrays_lines_and_senml() {
        let tags = r#"{"t":"2024-01-02T03:04:05Z","values":[{"id":"a","v":1},{"id":"b","v":2}]}"#;
        check("gw/line-1", &[("gw/line-1", tags)], &["line-1/a=1", "line-1/b=2"]);
        check("m/x/data", &[("m/x/data", "[1, 2.5]")], &["x/0=1", "x/1=2.5"]);
        check("l/x", &[("l/x", "cpu,host=web1 load=1.5 1732098765000000000")], &["web1/cpu.load=1.5"]);
        let senml = r#"[{"bn":"urn:dev:1:","n":"t","v":21.5}]"#;
        check("s/x", &[("s/x", senml)], &["x/t=21.5"]);
    }

    #[test]
    fn a_preset_that_is_off_is_named() {
        let text = check("#", &[("node/sensor/t/state", "21.5")], &["node/t=21.5"]);
        assert!(text.contains("format = \"esphome\""), "{text}");
        assert!(text.contains("# For other devices, a map of your own:\n# # It makes 1 readings"), "{text}");
        let text = check("#", &[("evcc/site/power", "5")], &["evcc.site/power=5"]);
        assert!(text.starts_with("# The map evcc is on"), "{text}");
    }

    #[test]
    fn what_gives_no_reading_is_refused_with_the_reason() {
        for (payload, why) in [("hello", "they hold no numbers"), ("{\"a\":", "JSON"), ("{\"a\":\"b\"}", "no numbers")]
        {
            let error = suggest("a/b", &seen(&[("a/b", payload)]), &Config::default()).unwrap_err().to_string();
            assert!(error.starts_with("no map makes readings of the messages on a/b: "), "{error}");
            assert!(error.contains(why), "{error}");
        }
        assert!(suggest("a", &seen(&[("a", "")]), &Config::default()).is_err());
    }
}
