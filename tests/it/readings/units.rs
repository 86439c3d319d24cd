//! Units and names, from the socket to the API, metrics, MQTT and CSV.

use serde_json::{Value, json};

use super::field::FieldCheck;
use weir_test_kit::http::{self, SseReader};
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::wait::wait_for;

/// The announcement of a temperature of Zigbee2MQTT.
const KITCHEN: &str = r#"{"availability":[{"topic":"zigbee2mqtt/bridge/state","value_template":"{{ value_json.state }}"}],"availability_mode":"all","device":{"identifiers":["zigbee2mqtt_0x00158d0001"],"manufacturer":"Aqara","model":"Temperature and humidity sensor","model_id":"WSDCGQ11LM","name":"Kitchen","via_device":"zigbee2mqtt_bridge_0x00124b"},"device_class":"temperature","enabled_by_default":true,"object_id":"kitchen_temperature","origin":{"name":"Zigbee2MQTT","sw":"1.40.2","url":"https://www.zigbee2mqtt.io"},"state_class":"measurement","state_topic":"zigbee2mqtt/kitchen","unique_id":"0x00158d0001_temperature_zigbee2mqtt","unit_of_measurement":"°C","value_template":"{{ value_json.temperature }}"}"#;
/// The announcement of a temperature of ESPHome.
const NODE: &str = r#"{"dev_cla":"temperature","unit_of_meas":"°C","stat_cla":"measurement","name":"Living Room Temperature","stat_t":"esp32-a/sensor/living_room_temperature/state","avty_t":"esp32-a/status","uniq_id":"ESPsensorliving_room_temperature","dev":{"ids":"240ac4000001","name":"esp32-a","sw":"esphome v2024.12.2","mdl":"esp32dev","mf":"Espressif"}}"#;
/// The announcement of a temperature of Tasmota with SetOption19.
const TASMOTA: &str = r#"{"name":"Tasmota AM2301 Temperature","stat_t":"tele/desk/SENSOR","avty_t":"tele/desk/LWT","pl_avail":"Online","pl_not_avail":"Offline","uniq_id":"D3E8A6_AM2301_Temperature","dev":{"ids":["D3E8A6"]},"unit_of_meas":"°C","dev_cla":"temperature","frc_upd":true,"val_tpl":"{{value_json['AM2301'].Temperature}}"}"#;

/// Metric and unit of the windows of a device, in order of metric.
fn units(check: &FieldCheck, device: &str) -> Vec<(String, Value)> {
    let windows = check.weir.list("windows", &format!("&device={device}"));
    let unit = |window: &Value| (window["metric"].as_str().expect("a metric").to_owned(), window["unit"].clone());
    let mut units: Vec<_> = windows.iter().map(unit).collect();
    units.sort_by(|a, b| a.0.cmp(&b.0));
    units
}

#[test]
fn announcements_of_families_give_units() {
    let mut check = FieldCheck::start(&[("ingest.map", "[{ format = 'esphome' }]")]);
    check.publish("homeassistant/sensor/0x00158d0001/temperature/config", KITCHEN, true);
    check.publish("homeassistant/sensor/esp32-a/living_room_temperature/config", NODE, true);
    check.publish("homeassistant/sensor/D3E8A6_AM2301_Temperature/config", TASMOTA, true);
    check.publish("zigbee2mqtt/kitchen", r#"{"temperature":21.5,"battery":97}"#, false);
    check.publish("esp32-a/sensor/living_room_temperature/state", "20.5", false);
    check.publish("tele/desk/SENSOR", r#"{"AM2301":{"Temperature":19.5,"Humidity":40}}"#, false);
    check.settle();
    let degrees = || json!("°C");
    assert_eq!(units(&check, "kitchen"), [("battery".to_owned(), Value::Null), ("temperature".to_owned(), degrees())]);
    assert_eq!(units(&check, "esp32-a"), [("living_room_temperature".to_owned(), degrees())]);
    assert_eq!(units(&check, "desk")[1], ("AM2301.Temperature".to_owned(), degrees()));
    let kitchen = check.weir.json("/api/v1/devices/kitchen");
    assert_eq!(
        (&kitchen["name"], &kitchen["model"], &kitchen["manufacturer"]),
        (&json!("Kitchen"), &json!("Temperature and humidity sensor"), &json!("Aqara")),
        "{kitchen}"
    );
    assert_eq!((&kitchen["metrics"][0]["unit"], &kitchen["metrics"][1]["unit"]), (&Value::Null, &degrees()));
    assert_eq!(check.weir.json("/api/v1/devices/esp32-a")["model"], "esp32dev");
    assert_eq!(check.weir.json("/api/v1/devices/desk")["name"], Value::Null);
    assert_eq!(check.weir.metric("weir_discovered_topics"), 3.0);
    assert!(check.weir.list("errors", "").is_empty());
    let page = check.weir.get("/metrics/devices").ok().text();
    for line in [
        r#"weir_device_metric_info{device="kitchen",metric="temperature",unit="°C"} 1"#,
        r#"weir_device_info{device="kitchen",name="Kitchen",model="Temperature and humidity sensor",manufacturer="Aqara"} 1"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[test]
fn a_unit_reaches_every_reader_and_survives_a_crash() {
    let mut check = FieldCheck::start(&[]);
    let mut subscriber = TestClient::connect(check.weir.mqtt(), MqttVersion::V5, "s");
    subscriber.subscribe("weir/windows/#", 0);
    let mut events = SseReader::open(check.weir.http(), "/api/v1/stream?windows=1");
    check.publish("senml/press", r#"[{"n":"force","u":"N","v":7}]"#, false);
    check.settle();
    let stored = check.weir.list("windows", "");
    assert_eq!((stored.len(), &stored[0]["unit"]), (1, &json!("N")));
    let published: Value = serde_json::from_slice(&subscriber.next_message().payload).expect("JSON");
    assert_eq!(published, stored[0]);
    assert_eq!(events.next_event().1, stored[0]);
    let csv = http::get_as(check.weir.http(), "/api/v1/windows", "text/csv").ok().text();
    assert!(csv.lines().nth(1).is_some_and(|row| row.ends_with(",,,N")), "{csv}");
    let before = check.weir.json("/api/v1/devices/press");
    assert_eq!(before["metrics"][0]["last_window"], stored[0]);
    check.weir.kill();
    check.weir.restart();
    check.weir.wait_closed();
    assert_eq!(check.weir.list("windows", ""), stored);
    assert_eq!(check.weir.json("/api/v1/devices/press")["metrics"], before["metrics"]);
    assert_eq!(check.weir.metric("weir_replay_mismatches_total"), 0.0);
}

#[test]
fn a_peak_between_two_scrapes_is_not_lost() {
    let mut check = FieldCheck::start(&[]);
    for value in ["1", "100", "2"] {
        check.publish("evcc/loadpoints/1/chargePower", value, false);
        check.settle();
        // A window does not fire before its end, so that the next value is in another one.
    }
    let page = |query: &str| check.weir.get(&format!("/metrics/devices{query}")).ok().text();
    let value = |page: &str, name: &str| {
        let start = format!(r#"{name}{{device="evcc.1",metric="chargePower"}} "#);
        page.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
    };
    let recent = page("?recent=1h");
    let of = |name| value(&recent, name);
    assert_eq!(of("weir_window_max"), Some("2.0".to_owned()), "{recent}");
    assert_eq!(of("weir_window_max_recent"), Some("100.0".to_owned()), "{recent}");
    assert_eq!(of("weir_window_min_recent"), Some("1.0".to_owned()), "{recent}");
    assert_eq!(of("weir_window_mean_recent").and_then(|mean| mean.parse().ok()), Some(103.0 / 3.0), "{recent}");
    assert!(!page("").contains("_recent"));
    for wrong in ["?recent=0s", "?recent=2h", "?recent=15", "?recents=1m"] {
        assert_eq!(check.weir.get(&format!("/metrics/devices{wrong}")).status, 400, "{wrong}");
    }
}

#[test]
fn a_device_that_is_silent_is_still_seen() {
    let mut check = FieldCheck::start(&[("http.metrics_series_ttl", "'1s'")]);
    check.telemetry("quiet", r#"{"metric":"t","value":1}"#);
    check.settle();
    let page = wait_for("its window has left the page", || {
        let page = check.weir.get("/metrics/devices").ok().text();
        (!page.contains("weir_window_mean{")).then_some(page)
    });
    let seen = page.lines().find_map(|line| line.strip_prefix(r#"weir_device_last_seen_seconds{device="quiet"} "#));
    let shown = check.weir.json("/api/v1/devices/quiet")["last_seen"].as_i64().expect("a time");
    assert_eq!(seen.and_then(|seen| seen.parse().ok()), Some(shown as f64 / 1_000.0), "{page}");
}
