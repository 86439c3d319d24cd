//! `weir maps`: the presets do what the corpus of device messages says, and a person sees what a map does.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::WEIR;

/// Runs `weir` in a directory of its own.
fn weir(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = Command::new(WEIR.path);
    command.args(arguments).current_dir(directory.path()).env_remove("WEIR_CONFIG");
    command.output().expect("weir can be started")
}

/// Output and exit code of `weir maps test` with this configuration and these messages.
fn trial(config: &str, messages: &str) -> (String, Option<i32>) {
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("config.toml"), config).expect("a file");
    fs::write(directory.path().join("messages.jsonl"), messages).expect("a file");
    let output = weir(&directory, &["maps", "test", "messages.jsonl"]);
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).expect("text"), output.status.code())
}

#[test]
fn the_presets_give_what_the_corpus_says() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/devices/corpus");
    let directory = TempDir::new().expect("a directory");
    // Its topics begin with a wildcard, and one of them is also one of the first generation.
    fs::write(directory.path().join("config.toml"), "[ingest]\npresets = ['auto', 'shelly_gen2']\n").expect("a file");
    let mut wrong = String::new();
    let mut files = 0;
    for entry in fs::read_dir(corpus).expect("the corpus") {
        let path = entry.expect("a file").path();
        let output = weir(&directory, &["maps", "test", path.to_str().expect("a path")]);
        if !output.status.success() {
            wrong += &format!(
                "{}:\n{}\n",
                path.display(),
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
            );
        }
        files += 1;
    }
    assert!(files >= 27 && wrong.is_empty(), "{files} files\n{wrong}");
}

#[test]
fn what_is_not_expected_is_shown() {
    let (text, code) = trial(
        "",
        "{\"topic\":\"evcc/loadpoints/1/chargePower\",\"payload\":7360,\"expect\":[{\"device_id\":\"evcc.1\",\
         \"metric\":\"chargePower\",\"value\":7361}]}\n\
         {\"topic\":\"evcc/status\",\"payload\":\"offline\",\"status\":{\"device_id\":\"evcc\",\"online\":false}}\n\
         {\"topic\":\"evcc/updated\",\"payload\":\"1\",\"expect\":[]}\n{\"topic\":\"a/b\",\"payload\":\"1\"}\n",
    );
    for part in [
        "1: evcc/loadpoints/1/chargePower: map evcc\n  {\"device_id\":\"evcc.1\",\"metric\":\"chargePower\",\"value\":7360.0,",
        "  missing: {\"device_id\":\"evcc.1\",\"metric\":\"chargePower\",\"value\":7361.0,",
        "  not expected: {\"device_id\":\"evcc.1\",\"metric\":\"chargePower\",\"value\":7360.0,",
        "2: evcc/status: map evcc\n  status: evcc is offline\n",
        "3: evcc/updated: map evcc\n  ignored: topic 1\n4: a/b: no map takes this topic\n",
        "4 messages, 1 readings, 0 errors, 1 differ from what is expected\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(code, Some(1));
}

#[test]
fn a_map_that_is_not_on_is_tried_where_no_other_takes_the_topic() {
    let (text, _) = trial("", "{\"topic\":\"node/sensor/t/state\",\"payload\":\"21.5\"}\n");
    let told = "1: node/sensor/t/state: map esphome, which is not on: ingest.presets = [\"auto\", \"esphome\"] switches it on\n  \
                {\"device_id\":\"node\",\"metric\":\"t\",\"value\":21.5,";
    assert!(text.starts_with(told), "{text}");
}

#[test]
fn what_discovery_says_holds_for_the_messages_after_it() {
    let (text, code) = trial(
        "",
        r#"{"topic":"homeassistant/sensor/desk/config","payload":{"state_topic":"tele/desk/SENSOR","unit_of_measurement":"lx","value_template":"{{ value_json.TSL2561.Illuminance }}"}}
{"topic":"tele/desk/SENSOR","payload":{"TSL2561":{"Illuminance":21.5}},"expect":[{"device_id":"desk","metric":"TSL2561.Illuminance","value":21.5,"unit":"lx"}]}
{"topic":"tele/desk/SENSOR","payload":{"TSL2561":{"Illuminance":21.5}},"expect":[{"device_id":"desk","metric":"TSL2561.Illuminance","value":21.5,"unit":"W"}]}
"#,
    );
    assert_eq!(code, Some(1), "{text}");
    let told = "3 messages, 2 readings, 0 errors, 1 differ from what is expected\n";
    assert!(text.contains(r#"not expected: {"device_id":"desk""#) && text.ends_with(told), "{text}");
}

#[test]
fn a_file_that_holds_no_messages_is_refused() {
    for (line, told) in [
        ("tele/desk/SENSOR {}", "weir: messages.jsonl, line 2: this is not a message"),
        ("{\"topic\":\"a\"}", "weir: messages.jsonl, line 2: a message has payload or payload_base64"),
        ("{\"topic\":\"a\",\"payload_base64\":\"?\"}", "weir: messages.jsonl, line 2: payload_base64 is not base64"),
        ("{\"topic\":\"a\",\"payload\":\"1\",\"map\":\"x\"}", "weir: messages.jsonl, line 2: there is no map \"x\""),
    ] {
        let (text, code) = trial("", &format!("\n{line}\n"));
        assert!(text.starts_with(told), "{told}\n{text}");
        assert_eq!(code, Some(65), "{line}");
    }
}

#[test]
fn maps_are_listed_and_shown() {
    let directory = TempDir::new().expect("a directory");
    let config = "[[ingest.map]]\nformat = 'tasmota'\nname = 'plugs'\ntopics = ['plugs/{device}/SENSOR']\n\
                  scale = { 'ENERGY.*' = 2 }\n";
    fs::write(directory.path().join("config.toml"), config).expect("a file");
    let told = |arguments: &[&str]| {
        let output = weir(&directory, arguments);
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let list = told(&["maps"]);
    for line in ["plugs ", "tasmota ", "esphome "] {
        assert!(list.lines().any(|row| row.starts_with(line)), "{line}\n{list}");
    }
    let row =
        |name: &str| list.lines().find(|row| row.starts_with(name)).map(str::split_whitespace).map(Vec::from_iter);
    assert_eq!(row("plugs ").expect("a row"), ["plugs", "on", "config", "plugs/{device}/SENSOR"]);
    assert_eq!(row("tasmota ").expect("a row")[1], "replaced");
    assert_eq!(row("esphome ").expect("a row")[1], "optional");
    let preset = include_str!("../../../src/config/presets/shelly.toml");
    assert_eq!(told(&["maps", "show", "shelly_gen2"]), preset);
    assert_eq!(told(&["maps", "show", "shelly"]), preset);
    // What is shown of a map of the configuration is a configuration.
    let shown = told(&["maps", "show", "plugs"]);
    assert!(shown.contains("scale = { \"ENERGY.*\" = 2.0 }\n") && shown.contains("time = [\"/Time\"]\n"), "{shown}");
    fs::write(directory.path().join("config.toml"), &shown).expect("a file");
    assert_eq!(told(&["maps", "show", "plugs"]), shown);
    assert_eq!(weir(&directory, &["maps", "show", "nothing"]).status.code(), Some(1));
}
