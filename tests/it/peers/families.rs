//! Sessions of real devices, captured in the corpus, that paho-mqtt publishes as these devices do: with their last wills and retained
//! messages.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::WEIR;
use weir_test_kit::programs::{python, succeeded};
use weir_test_kit::repository;
use weir_test_kit::wait::wait_for;

/// How the devices of a family publish.
struct FamilyHabits {
    /// File of the corpus.
    family: &'static str,
    /// Whether readings are retained, as the devices do by default.
    retains: bool,
    /// Topic and payload of the last will, which is retained, and the device that it says to be offline.
    will: Option<(&'static str, &'static str, Option<&'static str>)>,
}

const FAMILIES: [FamilyHabits; 7] = [
    FamilyHabits { family: "tasmota", retains: false, will: Some(("tele/boiler/LWT", "Offline", Some("boiler"))) },
    FamilyHabits { family: "zigbee2mqtt", retains: false, will: Some(("zigbee2mqtt/bridge/state", "offline", None)) },
    FamilyHabits {
        family: "shelly_gen1",
        retains: true,
        will: Some(("shellies/shelly1-000003/online", "false", Some("shelly1-000003"))),
    },
    FamilyHabits {
        family: "shelly_gen2",
        retains: false,
        will: Some(("shellyplus1pm-000000000001/online", "false", Some("shellyplus1pm-000000000001"))),
    },
    FamilyHabits { family: "ttn_v3", retains: false, will: None },
    FamilyHabits { family: "chirpstack_v4", retains: false, will: None },
    FamilyHabits { family: "esphome", retains: true, will: Some(("esp32-a/status", "offline", Some("esp32-a"))) },
];

/// Number and sum of readings by device and metric.
type ReadingSums = BTreeMap<(String, String), (u64, f64)>;

fn add(sums: &mut ReadingSums, reading: &Value, count: u64, sum: f64) {
    let text = |field: &str| reading[field].as_str().expect("text").to_owned();
    let entry = sums.entry((text("device_id"), text("metric"))).or_default();
    entry.0 += count;
    entry.1 += sum;
}

/// Lines of the corpus by the options that they need, without those that need a map that is off by default.
fn sessions(family: &str) -> BTreeMap<String, Vec<Value>> {
    let path = repository().join(format!("tests/fixtures/devices/corpus/{family}.jsonl"));
    let text = std::fs::read_to_string(path).expect("the corpus");
    let mut sessions: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if line["map"].is_null() || line["map"] == family {
            let zone = line["options"]["timezone"].as_str().unwrap_or("UTC").to_owned();
            sessions.entry(zone).or_default().push(line);
        }
    }
    sessions
}

/// The session as the script reads it.
fn script_input(habits: &FamilyHabits, lines: &[Value]) -> Value {
    let message = |line: &Value| {
        use base64::Engine as _;
        let payload = line["payload"].as_str().expect("a payload");
        let encoded = base64::engine::general_purpose::STANDARD.encode(payload);
        json!({"topic": line["topic"], "payload_base64": encoded, "retain": habits.retains})
    };
    let will = habits.will.map(|(topic, payload, _)| json!({"topic": topic, "payload": payload, "retain": true}));
    let messages: Vec<Value> = lines.iter().map(message).collect();
    json!({"client_id": habits.family, "will": will, "messages": messages})
}

fn check(habits: &FamilyHabits, zone: &str, lines: &[Value], qos: u8) {
    let family = habits.family;
    let map = format!("[{{ format = '{family}', timezone = '{zone}' }}]");
    let settings = [("window.idle_timeout", "'500ms'"), ("validate.max_age", "'off'"), ("ingest.map", map.as_str())];
    let weir = WEIR.start(&settings);
    let directory = TempDir::new().expect("a temporary directory");
    let file = directory.path().join("session.json");
    std::fs::write(&file, script_input(habits, lines).to_string()).expect("it can be written");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers/paho_session.py");
    let arguments = [weir.mqtt().port().to_string(), qos.to_string(), file.display().to_string()];
    succeeded(Command::new(python()).arg(script).args(arguments));

    let mut expected = ReadingSums::new();
    for reading in lines.iter().flat_map(|line| line["expect"].as_array().expect("a list")) {
        add(&mut expected, reading, 1, reading["value"].as_f64().expect("a number"));
    }
    let wanted: u64 = expected.values().map(|(count, _)| count).sum();
    wait_for(&format!("all readings of {family} at QoS {qos} are processed"), || {
        (weir.metric_sum("weir_readings_received_total") >= wanted as f64).then_some(())
    });
    weir.wait_closed();
    weir.assert_accounted();
    let mut seen = ReadingSums::new();
    for window in weir.list("windows", "") {
        let (count, sum) = (window["count"].as_u64().expect("a count"), window["sum"].as_f64().expect("a sum"));
        add(&mut seen, &window, count, sum);
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{family} at QoS {qos}");
    for (key, (count, sum)) in &expected {
        let (seen_count, seen_sum) = seen[key];
        assert_eq!(seen_count, *count, "{key:?} at QoS {qos}");
        assert!((seen_sum - sum).abs() <= 1e-9 * sum.abs(), "{key:?} at QoS {qos}: {seen_sum}, not {sum}");
    }
    assert!(weir.list("errors", "").is_empty(), "{family}: {:?}", weir.list("errors", ""));
    if let Some((topic, _, Some(device))) = habits.will {
        let online = || weir.json(&format!("/api/v1/devices/{device}"))["online"].as_bool();
        wait_for(&format!("the will on {topic} is known"), || (online() == Some(false)).then_some(()));
    }
}

#[test]
fn sessions_of_devices_give_what_they_must() {
    for habits in &FAMILIES {
        for (zone, lines) in sessions(habits.family) {
            for qos in 0..=2 {
                check(habits, &zone, &lines, qos);
            }
        }
    }
}
