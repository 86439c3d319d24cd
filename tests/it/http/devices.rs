//! Devices are listed and forgotten, over the API and from the command line.

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::http::{self, TestResponse};
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

const IDLE: (&str, &str) = ("window.idle_timeout", "'off'");

/// A weir with these devices, each with one open window.
fn with_devices(ids: &[&str], settings: &[(&str, &str)]) -> (Weir, TestClient) {
    let weir = WEIR.start(&[&[IDLE], settings].concat());
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V5, "gateway");
    for id in ids {
        client.telemetry(id, &reading());
    }
    wait_for("the devices are known", || (known(&weir).len() == ids.len()).then_some(()));
    (weir, client)
}

fn reading() -> String {
    format!(r#"{{"metric":"m","value":1,"timestamp":{},"seq":1}}"#, window_before(60))
}

fn known(weir: &Weir) -> Vec<String> {
    let ids =
        weir.list("devices", "").into_iter().map(|device| device["device_id"].as_str().expect("an id").to_owned());
    ids.collect()
}

fn forget(weir: &Weir, body: &Value) -> TestResponse {
    http::post(weir.http(), "/api/v1/devices/forget", &body.to_string())
}

fn delete(weir: &Weir, path: &str) -> TestResponse {
    http::ask(weir.http(), "DELETE", path, None)
}

/// Runs `weir device …` and returns its exit code and what it printed.
fn device(weir: &Weir, arguments: &[&str]) -> (Option<i32>, String) {
    let url = format!("http://{}", weir.http());
    let output =
        weir.command(&[&["device"], arguments, &["--url", &url]].concat()).output().expect("weir can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("UTF-8"))
}

#[test]
fn a_forgotten_device_is_gone_after_a_crash_too() {
    let (mut weir, mut client) = with_devices(&["a", "b", "c", "forget"], &[]);
    assert_eq!(delete(&weir, "/api/v1/devices/b").json(), json!({"forgotten": 1, "unknown": [], "more": false}));
    assert_eq!(delete(&weir, "/api/v1/devices/b").status, 404);
    assert_eq!(delete(&weir, "/api/v1/devices/forget").status, 200);
    assert_eq!(known(&weir), ["a", "c"]);
    assert_eq!(weir.list("windows", "&device=b").len(), 1, "its open window closed");
    assert!(!weir.get("/metrics/devices").text().contains(r#"device="b""#));
    assert_eq!(weir.metric("weir_devices_forgotten_total"), 2.0);
    // Its sequence numbers are forgotten with it.
    client.telemetry("b", &reading());
    wait_for("the device is new", || (known(&weir).len() == 3).then_some(()));
    weir.kill();
    weir.restart();
    assert_eq!(known(&weir), ["a", "b", "c"]);
    assert_eq!(weir.metric("weir_devices_forgotten_total"), 2.0);
    weir.assert_accounted();
}

#[test]
fn devices_are_forgotten_by_list_and_by_filter() {
    let (weir, _client) = with_devices(&["a", "b", "c", "d"], &[]);
    let answer = forget(&weir, &json!({"devices": ["a", "nobody", "a"]})).json();
    assert_eq!(answer, json!({"forgotten": 1, "unknown": ["nobody"], "more": false}));
    assert_eq!(forget(&weir, &json!({"last_seen_before": 1_000})).json()["forgotten"], 0);
    assert_eq!(forget(&weir, &json!({"user": "u"})).json()["forgotten"], 0);
    assert_eq!(known(&weir), ["b", "c", "d"]);
    for wrong in [json!({}), json!({"devices": []}), json!({"devices": ["b"], "user": "u"})] {
        assert_eq!(forget(&weir, &wrong).status, 400, "{wrong}");
    }
    assert_eq!(http::post(weir.http(), "/api/v1/devices/b", "").status, 404);
    assert_eq!(known(&weir), ["b", "c", "d"]);
    assert_eq!(forget(&weir, &json!({"anonymous": true})).json()["forgotten"], 3);
    assert!(known(&weir).is_empty());
}

#[test]
fn the_command_lists_and_forgets() {
    let (weir, _client) = with_devices(&["a", "b", "c"], &[]);
    let (code, listed) = device(&weir, &["list"]);
    let columns: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, columns.len()), (Some(0), 4), "{listed}");
    assert_eq!([columns[1][0], columns[1][1], columns[1][4]], ["a", "-", "1"], "{listed}");
    assert_eq!(device(&weir, &["list", "--new", "--limit", "1"]).1.lines().count(), 2);
    assert_eq!(device(&weir, &["list", "--user", "u"]).1.lines().count(), 1);
    assert_eq!(device(&weir, &["forget"]).0, Some(64));
    assert_eq!(device(&weir, &["forget", "--silent-for", "7d"]), (Some(0), "0 devices forgotten\n".into()));
    let (code, said) = device(&weir, &["forget", "a", "x"]);
    assert_eq!(
        (code, said.contains("1 device forgotten\n"), said.contains("no device x")),
        (Some(1), true, true),
        "{said}"
    );
    assert_eq!(
        device(&weir, &["forget", "--anonymous", "--silent-for", "0s"]),
        (Some(0), "2 devices forgotten\n".into())
    );
}

/// One user takes the places that it may take; the others keep theirs, and get more when devices are forgotten.
#[test]
fn made_up_ids_leave_room_and_can_be_forgotten() {
    let (weir, mut client) = with_devices(&["a", "b"], &[("limits.devices", "5"), ("limits.devices_share", "0.4")]);
    client.telemetry("c", &reading());
    let errors = wait_for("the third device is refused", || Some(weir.list("errors", "")).filter(|e| e.len() == 1));
    assert_eq!(errors[0]["reason"], "too_many_devices");
    assert!(errors[0]["message"].as_str().expect("text").contains("limits.devices_share"), "{errors:?}");
    wait_for("the limit is counted", || (weir.metric_sum("weir_limits_hit_total") >= 1.0).then_some(()));
    assert_eq!(forget(&weir, &json!({"devices": ["a"]})).status, 200);
    assert_eq!(http::post(weir.http(), "/api/v1/errors/0/replay", "").status, 200);
    wait_for("the device has room", || (known(&weir) == ["b", "c"]).then_some(()));
}
