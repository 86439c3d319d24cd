//! `weir maps watch` and `weir maps suggest`: what the maps of a running weir do, and a map for what comes.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

/// Starts `weir maps …` against a running weir, and waits until it sees messages.
fn watching(weir: &Weir, arguments: &[&str]) -> Child {
    let url = format!("http://{}", weir.http());
    let mut command: Command = weir.command(&[&["maps"], arguments, &["--url", &url]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("weir can be started");
    wait_for("the view is open", || (weir.metric("weir_http_stream_clients") > 0.0).then_some(()));
    child
}

/// What a command printed, when it has ended.
fn printed(child: Child) -> String {
    let output = child.wait_with_output().expect("an end");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn what_becomes_of_messages_is_shown() {
    let weir = WEIR.start(&[]);
    let child = watching(&weir, &["watch", "--count", "5"]);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "desk");
    client.telemetry("a", r#"{"metric":"m","value":1}"#);
    for (topic, payload) in [
        ("tele/desk/SENSOR", r#"{"Time":"2026-01-01T00:00:00","ENERGY":{"Power":56,"Total":"x"},"Id":"y"}"#),
        ("evcc/status", "offline"),
        ("evcc/site/power", "nothing"),
        ("stat/desk/RESULT", "{}"),
        ("plant/x", "21.5"),
    ] {
        client.publish(topic, payload, 1);
    }
    let text = printed(child);
    let mut lines: Vec<&str> = text.lines().collect();
    // Messages that are not journaled overtake those that are.
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "evcc/site/power: map evcc: ignored: text 1 (power)",
            "evcc/status: map evcc: status: evcc is offline",
            "plant/x: no map takes this topic (4 bytes)",
            "stat/desk/RESULT: map tasmota: the topic is ignored",
            "tele/desk/SENSOR: map tasmota: desk ENERGY.Power=56 W; ignored: excluded 1, text 2 (Time, ENERGY.Total, Id)",
        ]
    );
    wait_for("the view is closed", || (weir.metric("weir_http_stream_clients") == 0.0).then_some(()));
}

#[test]
fn a_view_shows_what_its_filter_lets_through() {
    let weir = WEIR.start(&[]);
    let child = watching(&weir, &["watch", "--topic", "tele/+/SENSOR", "--map", "tasmota", "--json", "--count", "1"]);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "desk");
    for topic in ["stat/desk/RESULT", "tele/desk/STATE", "evcc/site/power", "plant/x", "tele/lamp/SENSOR"] {
        client.publish(topic, r#"{"Power":1}"#, 1);
    }
    let shown: Value = serde_json::from_str(&printed(child)).expect("JSON");
    assert_eq!((&shown["topic"], &shown["client_id"]), (&"tele/lamp/SENSOR".into(), &"desk".into()));
    assert_eq!((&shown["map"], &shown["payload"]), (&"tasmota".into(), &r#"{"Power":1}"#.into()));
    assert_eq!(shown["readings"][0]["device_id"], "lamp");
    for (query, status) in [("topic=a%23", 400), ("map=none", 404), ("x=1", 400)] {
        assert_eq!(weir.get(&format!("/api/v1/maps/watch?{query}")).status, status, "{query}");
    }
}

#[test]
fn a_map_is_suggested_for_what_comes_and_takes_it() {
    let mut weir = WEIR.start(&[("window.idle_timeout", "'500ms'")]);
    let child = watching(&weir, &["suggest", "plant/+/state", "--count", "2"]);
    let payload = |value: f64| format!(r#"{{"temp":{value},"fw":"1.2.3"}}"#);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "c");
    client.publish("plant/a/state", &payload(21.5), 1);
    client.publish("plant/b/state", &payload(20.5), 1);
    let map = printed(child);
    assert!(map.contains("topics = [\"plant/{device}/state\"]") && map.contains("exclude = [\"fw\"]"), "{map}");
    let listed = weir.json("/api/v1/topics?unmatched=1");
    let suggestion = &listed["topics"][0]["suggestion"];
    assert!(
        suggestion.as_str().is_some_and(|text| text.starts_with("a map may take it: `weir maps suggest plant/")),
        "{listed}"
    );
    // The map becomes a part of the configuration.
    weir.terminate();
    let config = fs::read_to_string(weir.path("config.toml")).expect("a configuration");
    fs::write(weir.path("config.toml"), format!("{config}\n{map}")).expect("a configuration");
    weir.restart();
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "c");
    client.publish("plant/a/state", &payload(22.5), 1);
    let temperature = || weir.list("windows", "&device=a").first().map(|window| window["mean"].clone());
    assert_eq!(wait_for("the window closes", temperature), 22.5);
}

#[test]
fn a_topic_without_messages_gives_no_map() {
    let weir = WEIR.start(&[]);
    let url = format!("http://{}", weir.http());
    let mut command = weir.command(&["maps", "suggest", "plant/a", "--for", "1", "--url", &url]);
    let output = command.output().expect("weir can be started");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("no message came on plant/a within 1 s"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}
