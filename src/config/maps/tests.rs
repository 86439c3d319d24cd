use super::*;
use crate::config::Config;
use crate::core::formats::{MapSettings, PayloadFormat};

fn parse(text: &str) -> Result<Config, String> {
    Config::parse("weir.toml", text, std::iter::empty()).map_err(|faults| faults.to_string())
}

#[track_caller]
fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Each fault begins with the expected text.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let faults = parse(text).err().unwrap_or_default();
    let lines: Vec<&str> = faults.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{faults}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

fn state(config: &Config, name: &str, origin: impl Fn(&MapOrigin) -> bool) -> Option<MapState> {
    let map = config.ingest.maps.iter().find(|map| map.settings.name == name && origin(&map.origin));
    map.map(|map| map.state)
}

fn preset_state(config: &Config, name: &str) -> Option<MapState> {
    state(config, name, |origin| matches!(origin, MapOrigin::Preset(_)))
}

fn map(config: &Config, name: &str) -> MapSettings {
    config.settings().maps.into_iter().find(|map| map.name == name).expect("a map that is on")
}

#[test]
fn the_presets_have_no_faults() {
    let faults: Vec<String> = files::embedded_faults().iter().map(ToString::to_string).collect();
    assert_eq!(faults, Vec::<String>::new());
    for preset in embedded_presets() {
        assert!(preset.text.starts_with("# "), "{} says nothing about itself", preset.family);
        assert!(!preset.maps.is_empty(), "{} has no maps", preset.family);
    }
}

#[test]
fn no_preset_gives_way_to_another() {
    let config = good("");
    for known in &config.ingest.maps {
        assert!(matches!(known.state, MapState::On | MapState::Optional), "{known:?}");
    }
    let all: Vec<String> = config.ingest.maps.iter().map(|map| format!("{:?}", map.settings.name)).collect();
    good(&format!("[ingest]\npresets = [{}]\n", all.join(", ")));
}

#[test]
fn every_key_of_a_map_is_read() {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(MapSettings::default()) else {
        panic!("settings are an object")
    };
    let unread: Vec<&String> = fields.keys().filter(|field| keys::find(field).is_none()).collect();
    assert_eq!(unread, Vec::<&String>::new());
}

#[test]
fn presets_are_chosen() {
    let auto = good("");
    assert_eq!(preset_state(&auto, "tasmota"), Some(MapState::On));
    assert_eq!(preset_state(&auto, "esphome"), Some(MapState::Optional));
    assert_eq!(preset_state(&auto, "shelly_gen2"), Some(MapState::Optional));
    let off = good("[ingest]\npresets = 'off'\n");
    assert_eq!((preset_state(&off, "tasmota"), off.settings().maps.len()), (Some(MapState::Off), 0));
    let named = good("[ingest]\npresets = ['esphome', 'homie', 'shelly']\n");
    let on: Vec<String> = named.settings().maps.into_iter().map(|map| map.name).collect();
    assert_eq!(
        on,
        ["esphome", "homie5", "homie4", "shelly_gen1", "shelly_gen1_json", "shelly_gen2_shellies", "shelly_gen2"]
    );
}

#[test]
fn a_preset_that_nobody_named_takes_topics_of_its_own_only() {
    let literal = |pattern: &String| !pattern.starts_with(['{', '#']);
    for map in good("").settings().maps {
        let status = map.status.iter().flat_map(|status| &status.topics);
        assert!(map.topics.iter().chain(status).chain(&map.ignore).all(literal), "{map:?}");
    }
    assert_eq!(map(&good(""), "chirpstack_v4").ignore.len(), 2);
    let named = good("[ingest]\npresets = ['chirpstack_v4', 'shelly_gen2']\n");
    assert_eq!((map(&named, "chirpstack_v4").ignore.len(), map(&named, "shelly_gen2").topics.len()), (3, 1));
    let table = good("[[ingest.map]]\nformat = 'shelly_gen2'\n");
    assert_eq!(map(&table, "shelly_gen2").topics, ["{device+}/events/rpc"]);
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("own.toml"), "[[map]]\nname = 'own'\ntopics = ['{device}/up']\n")
        .expect("a file");
    let own = good(&format!("[ingest]\nmap_files = '{}'\n", directory.path().display()));
    assert_eq!(map(&own, "own").topics, ["{device}/up"]);
}

#[test]
fn a_list_may_add_to_the_presets_that_are_on_by_default() {
    let both = good("[ingest]\npresets = ['auto', 'esphome', 'shelly_gen2']\n");
    for name in ["tasmota", "esphome", "shelly_gen2", "shelly_gen1"] {
        assert_eq!(preset_state(&both, name), Some(MapState::On), "{name}");
    }
    assert_eq!(map(&both, "shelly_gen2").ignore.len(), 3);
    assert_eq!(
        (preset_state(&both, "ai_on_the_edge"), map(&both, "chirpstack_v4").ignore.len()),
        (Some(MapState::Optional), 2)
    );
}

#[test]
fn a_table_wins_over_its_preset() {
    let config = good(
        "[[ingest.map]]\nformat = 'tasmota'\ntimezone = 'Europe/Berlin'\n\
         [[ingest.map]]\nname = 'meters'\nformat = 'modbus_array'\ntopics = ['plc/{device}']\nscale = { 'power' = 10 }\n\
         [[ingest.map]]\nformat = 'evcc'\n[ingest.map.status]\ntopics = ['evcc/state']\nonline = ['up']\ndevice = 'evcc'\n",
    );
    let tasmota = map(&config, "tasmota");
    assert_eq!((tasmota.timezone.as_str(), tasmota.topics.len(), tasmota.convert.len()), ("Europe/Berlin", 2, 1));
    let meters = map(&config, "meters");
    assert_eq!((meters.topics, meters.names.len(), meters.scale["power"]), (vec!["plc/{device}".into()], 4, 10.0));
    let status = map(&config, "evcc").status.expect("a status");
    assert_eq!((status.topics, status.online.len(), status.pointer.as_str()), (vec!["evcc/state".into()], 1, "/state"));
    for name in ["tasmota", "modbus_array", "evcc"] {
        assert_eq!(preset_state(&config, name), Some(MapState::Replaced), "{name}");
    }
}

#[test]
fn a_preset_gives_way_to_topics_of_the_configuration() {
    let config = good(
        "[[ingest.map]]\nname = 'plc'\ntopics = ['iotgateway', 'iotgateway/{line}']\ndevice = '{line|=gateway}'\n\
         [[ingest.map]]\nname = 'gateway'\ntopics = ['evcc/site/{host+}']\ndevice = '{host}'\npayload = 'line'\n",
    );
    assert_eq!(preset_state(&config, "kepware_iot_gateway"), Some(MapState::Replaced));
    assert_eq!(map(&config, "evcc").topics, ["evcc/loadpoints/{loadpoint}/{metric+}"]);
    assert_eq!(map(&config, "gateway").payload, PayloadFormat::Line);
}

#[test]
fn faults_of_maps_have_their_lines() {
    check(
        "[[ingest.map]]\nname = 'a'\ntopics = 'x/{device}'\n[[ingest.map]]\nname = 'b'\ntopics = ['y/{device}']\nseperator = '_'\n\
         status = { topic = ['z'] }\nscale = { t = 'x' }\nseq_bits = 12\npayload = 'xml'\nwhen = { '/a' = 1 }\ntimezone = 'Berlin'\n\
         [[ingest.map]]\ntopics = ['w']\n[[ingest.map]]\nformat = 'tasmotta'\n[[ingest.map]]\nformat = 'homie'\n",
        &[
            "weir.toml:1: ingest.map.a: it has no topics; expected topics such as",
            "weir.toml:3: ingest.map.a.topics: \"x/{device}\" is not a list of strings; expected a list of strings",
            "weir.toml:7: ingest.map.b.seperator: there is no such key; expected format, name, topics,",
            "weir.toml:8: ingest.map.b.status.topic: there is no such key; expected topics, online, offline, pointer, device; \
             did you mean topics?",
            "weir.toml:9: ingest.map.b.scale.t: \"x\" is not a number; expected a finite number",
            "weir.toml:10: ingest.map.b.seq_bits: this is not the width of a counter; expected 8, 16, 32 or 64",
            "weir.toml:11: ingest.map.b.payload: \"xml\" is not one of the choices; expected \"json\", \"scalar\"",
            "weir.toml:12: ingest.map.b.when./a: this is not a list of texts, numbers, true and false; expected a table",
            "weir.toml:13: ingest.map.b.timezone: \"Berlin\" is not a time zone; expected a name of the IANA",
            "weir.toml:14: ingest.map: a map has no name; expected name, or format with the name of a preset",
            "weir.toml:17: ingest.map.tasmotta.format: there is no preset \"tasmotta\"; expected a name that `weir maps` lists; \
             did you mean tasmota?",
            "weir.toml:19: ingest.map.homie.format: the preset \"homie\" has 2 maps; expected one of them: \"homie5\", \"homie4\"",
        ],
    );
    check(
        "[ingest]\npresets = ['tasmota', 'zigbee']\n",
        &["weir.toml:2: ingest.presets: there is no preset \"zigbee\"; expected a name that `weir maps` lists"],
    );
    check(
        "[ingest]\npresets = 'on'\nmap = 1\n",
        &[
            "weir.toml:2: ingest.presets: \"on\" is not one of the choices; expected \"auto\", \"off\", or a list",
            "weir.toml:3: ingest.map: this is a list of tables; expected [[ingest.map]] with its keys below",
        ],
    );
    check(
        "[[ingest.maps]]\nname = 'a'\n",
        &["weir.toml:1: ingest.maps: there is no such key; expected a key of config.toml; did you mean ingest.map?"],
    );
    let twice = "[[ingest.map]]\nformat = 'tasmota'\n";
    check(
        &format!("{twice}{twice}"),
        &["weir.toml:3: ingest.map.tasmota: there is another map \"tasmota\"; expected each name once"],
    );
}

#[test]
fn what_the_core_finds_has_its_line() {
    check(
        "[[ingest.map]]\nname = 'a'\ntopics = ['x/{d}']\n[[ingest.map]]\nformat = 'evcc'\ntopics = ['e/{x}']\n\
         [[ingest.map]]\nname = 'b'\ntopics = ['y/{device}']\n[ingest.map.status]\ntopics = ['s/{d}']\nonline = ['1']\n",
        &[
            "weir.toml:1: ingest.map.a.device: ",
            "weir.toml:4: ingest.map.evcc.device: ",
            "weir.toml:4: ingest.map.evcc.metric: ",
            "weir.toml:10: ingest.map.b.status.device: ",
        ],
    );
    let twice =
        "[[ingest.map]]\nname = 'a'\ntopics = ['x/{device}']\n[[ingest.map]]\nname = 'b'\ntopics = ['x/{device}']\n";
    check(twice, &["weir.toml:6: ingest.map.b.topics: "]);
}

#[test]
fn a_map_on_topics_of_the_own_form_is_a_fault() {
    let table = |topic: &str| format!("[[ingest.map]]\nname = 'a'\ntopics = ['x/{{device}}', '{topic}']\n");
    for topic in ["devices/{device}/telemetry", "devices/a/errors"] {
        let expected = format!(
            "weir.toml:3: ingest.map.a.topics: messages on {topic:?} are of weir's own form, and no map is asked"
        );
        check(&table(topic), &[&expected]);
    }
    for topic in ["devices/{device}/{other}", "devices/{device+}/telemetry", "devices/#"] {
        good(&table(topic));
    }
    check(
        &format!("[ingest]\ntelemetry_topics = ['x/+']\n{}", table("y/{device}")),
        &["weir.toml:5: ingest.map.a.topics: messages on \"x/{device}\""],
    );
}

#[test]
fn preset_files_of_a_person_are_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    write("plant.toml", "# Our plant.\n[[map]]\nname = 'press'\ntopics = ['press/{device}']\n");
    write("tasmota.toml", "[[map]]\nname = 'tasmota'\ntopics = ['t/{device}/SENSOR']\n");
    write("notes.txt", "no preset");
    let with = |more: &str| format!("[ingest]\nmap_files = '{}'\n{more}", directory.path().display());
    let config = good(&with("[[ingest.map]]\nname = 'mine'\nformat = 'press'\ntopics = ['p/{device}']\n"));
    assert_eq!(map(&config, "tasmota").topics, ["t/{device}/SENSOR"]);
    assert_eq!(preset_state(&config, "tasmota"), Some(MapState::Replaced));
    assert_eq!(state(&config, "press", |origin| matches!(origin, MapOrigin::File(_))), Some(MapState::Replaced));
    write("wrong.toml", "[[map]]\ntopics = ['x']\n[other]\na = 1\n[[map]]\nname = 'w'\nformat = 'tasmota'\n");
    let file = directory.path().join("wrong.toml");
    let line = |line, rest: &str| format!("{}:{line}: {rest}", file.display());
    check(
        &with(""),
        &[
            &line(1, "map: a map has no name; expected name"),
            &line(3, "other: there is no such section; expected [[map]] with its keys below"),
            &line(5, "map.w: it has no topics"),
            &line(7, "map.w.format: there is no such key; expected optional, name, topics"),
        ],
    );
    check("[ingest]\nmap_files = '/nowhere'\n", &["weir.toml:2: ingest.map_files: /nowhere cannot be read: "]);
}
