//! The corpus of device messages: the lines of a file are one session.

use serde_json::{Value, json};

use crate::core::formats::{
    Ignored, MapMemory, MapProblem, MapSettings, MappedMessage, MappedTime, MappedValue, Maps, StatusSettings,
};

/// Arrival of all messages.
const ARRIVAL_MS: i64 = 1_800_000_000_000;

const DEVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/devices");

/// A map of the presets: its keys, and whether it is only there where it is named.
struct PresetTable {
    keys: toml::Table,
    is_optional: bool,
}

/// Keys of a table of a preset file. One path stands there for a list of paths.
fn preset(mut keys: toml::Table) -> PresetTable {
    let is_optional = keys.remove("optional").is_some_and(|value| value.as_bool() == Some(true));
    if let Some(toml::Value::String(path)) = keys.get("each").cloned() {
        keys.insert("each".into(), toml::Value::Array(vec![path.into()]));
    }
    PresetTable { keys, is_optional }
}

/// The maps of the presets that are part of weir.
fn presets() -> Vec<PresetTable> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/presets");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let maps = files.iter().flat_map(|file| {
        let mut table: toml::Table = std::fs::read_to_string(file).unwrap().parse().unwrap();
        let Some(toml::Value::Array(maps)) = table.remove("map") else { panic!("{} has no maps", file.display()) };
        maps
    });
    maps.map(|map| preset(map.as_table().unwrap().clone())).collect()
}

/// All maps that are on, and the one that `line` names, with its options for each of them.
fn maps_for(line: &Value) -> Maps {
    let named = line["map"].as_str();
    let mut settings = Vec::new();
    for PresetTable { mut keys, is_optional } in presets() {
        let is_named = keys["name"].as_str() == named;
        // The two maps of newer Shelly devices are for the same facts.
        let is_other_form = named == Some("shelly_gen2_status") && keys["name"].as_str() == Some("shelly_gen2");
        if (is_optional && !is_named) || is_other_form {
            continue;
        }
        for (key, value) in line["options"].as_object().into_iter().flatten() {
            keys.insert(key.clone(), toml::Value::try_from(value).unwrap());
        }
        let map: MapSettings = toml::Value::Table(keys).try_into().unwrap();
        let text = serde_json::to_string(&map).unwrap();
        assert_eq!(serde_json::from_str::<MapSettings>(&text).unwrap(), map);
        settings.push(map);
    }
    Maps::new(&settings).unwrap()
}

fn payload(line: &Value) -> Vec<u8> {
    match line["payload_base64"].as_str() {
        Some(text) => {
            let digits: Vec<u32> = text
                .bytes()
                .filter_map(|byte| {
                    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
                    alphabet.iter().position(|other| *other == byte).map(|digit| digit as u32)
                })
                .collect();
            let bytes = digits.chunks(4).flat_map(|four| {
                let word = four.iter().fold(0, |word, digit| word << 6 | digit) << (6 * (4 - four.len()));
                word.to_be_bytes()[1..four.len()].to_vec()
            });
            bytes.collect()
        }
        None => line["payload"].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// What a message gives, in the form of the corpus.
fn outcome(mapped: Result<MappedMessage<'_>, MapProblem>) -> (Vec<Value>, Value, Vec<&'static str>) {
    let mapped = match mapped {
        Ok(mapped) => mapped,
        Err(MapProblem::Malformed(_)) => return (Vec::new(), Value::Null, vec!["malformed"]),
    };
    let (mut readings, mut errors) = (Vec::new(), Vec::new());
    for element in &mapped.elements {
        let time = match &element.time {
            MappedTime::At(time_ms) => json!(time_ms),
            MappedTime::Arrival | MappedTime::NoClock => Value::Null,
            MappedTime::Invalid(_) => {
                errors.extend(element.readings.iter().map(|_| "timestamp_invalid"));
                continue;
            }
        };
        for reading in &element.readings {
            match &reading.value {
                MappedValue::Number(number) => readings.push(json!({
                    "device_id": element.device, "metric": reading.metric, "value": number,
                    "timestamp_ms": time, "seq": element.seq,
                })),
                MappedValue::Text(_) => errors.push("wrong_type"),
                MappedValue::NameTwice(..) => errors.push("invalid_metric"),
                MappedValue::UnknownAlias(_) => errors.push("unknown_alias"),
                MappedValue::Malformed(_) => errors.push("malformed"),
            }
        }
    }
    let status = mapped.status.map(|status| json!({"device_id": status.device, "online": status.online}));
    (readings, status.unwrap_or_default(), errors)
}

/// The readings that a line expects: times relative to the arrival are times, and numbers are binary64.
fn expected(line: &Value) -> Vec<Value> {
    let mut readings = line["expect"].as_array().unwrap().clone();
    for reading in &mut readings {
        let reading = reading.as_object_mut().unwrap();
        let value = reading["value"].as_f64();
        reading.insert("value".into(), json!(value));
        if let Some(relative_ms) = reading.remove("relative_ms") {
            reading.insert("timestamp_ms".into(), json!(ARRIVAL_MS + relative_ms.as_i64().unwrap()));
        }
    }
    readings
}

/// Checks the session of a file of the corpus.
fn check(family: &str) {
    let text = std::fs::read_to_string(format!("{DEVICES}/corpus/{family}.jsonl")).unwrap();
    let mut memory = MapMemory::default();
    for (number, line) in (1..).zip(text.lines().filter(|line| !line.is_empty())) {
        let line: Value = serde_json::from_str(line).unwrap();
        let (topic, payload, maps) = (line["topic"].as_str().unwrap(), payload(&line), maps_for(&line));
        let mapped = match maps.find(topic) {
            Some(found) => maps.map(found, topic, &payload, ARRIVAL_MS, &mut memory),
            None => Ok(MappedMessage::default()),
        };
        let (readings, status, errors) = outcome(mapped);
        let context = format!("{family}:{number} {topic}");
        // The arrival is the time of readings without one.
        let arrival = |mut reading: Value| {
            if reading["timestamp_ms"] == json!(ARRIVAL_MS) && !line.to_string().contains("relative_ms") {
                reading["timestamp_ms"] = Value::Null;
            }
            reading
        };
        let readings: Vec<_> = readings.into_iter().map(arrival).collect();
        assert_eq!(readings, expected(&line), "{context}");
        assert_eq!(status, line.get("status").cloned().unwrap_or_default(), "{context}");
        let wanted: Vec<_> = line["error"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(errors, wanted, "{context}");
    }
}

macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(#[test]
        fn $family() {
            check(stringify!($family));
        })*

        #[test]
        fn every_file_is_a_test() {
            let mut tested = vec![$(stringify!($family)),*];
            let files = std::fs::read_dir(format!("{DEVICES}/corpus")).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.map(|name| name.trim_end_matches(".jsonl").to_owned()).collect();
            tested.sort_unstable();
            names.sort_unstable();
            assert_eq!(tested, names);
        }
    };
}

families!(
    ai_on_the_edge,
    azure_aws,
    chirpstack_v4,
    ems_esp,
    esphome,
    evcc_openwb,
    flat_json,
    frigate,
    glances,
    homeassistant,
    homie,
    industrial,
    influx,
    openmqttgateway,
    owntracks,
    robust,
    rtl_433,
    ruuvi,
    senml,
    shelly_gen1,
    shelly_gen2,
    sparkplug_b,
    tasmota,
    telegraf_json,
    ttn_v3,
    victron,
    zigbee2mqtt,
);

#[test]
fn what_is_ignored_is_counted() {
    let check = |line: &str, expected: &[(Ignored, u32)]| {
        let line: Value = serde_json::from_str(line).unwrap();
        let (topic, payload, maps) = (line["topic"].as_str().unwrap(), payload(&line), maps_for(&line));
        let found = maps.find(topic).unwrap();
        let mapped = maps.map(found, topic, &payload, ARRIVAL_MS, &mut MapMemory::default()).unwrap();
        let mut ignored = mapped.ignored;
        ignored.sort_unstable();
        assert_eq!(ignored, expected, "{topic}");
    };
    check(
        r#"{"topic": "shellies/a/events/rpc", "payload": "{\"method\":\"NotifyStatus\",\"params\":{\"ts\":1661517421.44,\"switch:0\":{\"id\":0,\"aenergy\":{\"by_minute\":[0,0,0],\"minute_ts\":1661517419,\"total\":12.5}}}}"}"#,
        &[(Ignored::Excluded, 6)],
    );
    check(
        r#"{"topic": "iotgateway", "payload": "{\"values\":[{\"id\":\"a\",\"v\":1,\"q\":true,\"t\":0},{\"id\":\"b\",\"v\":\"x\",\"q\":true},{\"id\":\"c\",\"v\":1,\"q\":false}]}"}"#,
        &[(Ignored::When, 1), (Ignored::Text, 1), (Ignored::NoClock, 1)],
    );
    check(r#"{"topic": "stat/a/RESULT", "payload": "{}"}"#, &[(Ignored::Topic, 1)]);
    check(r#"{"topic": "zigbee2mqtt/a", "payload": ""}"#, &[(Ignored::Empty, 1)]);
    check(r#"{"topic": "N/a/b/0/c", "payload": "{\"value\":null}"}"#, &[(Ignored::Absent, 1)]);
}

#[test]
fn presets_with_own_status_have_no_topics() {
    let keys: toml::Table = "pointer = \"/_type\"\noffline = [\"lwt\"]".parse().unwrap();
    let status: StatusSettings = toml::Value::Table(keys).try_into().unwrap();
    assert!(status.topics.is_empty());
}
