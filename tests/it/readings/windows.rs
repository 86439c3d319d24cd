//! Windows of readings, over HTTP, MQTT and server-sent events.

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::http::{self, SseReader};
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

fn reading(timestamp: i64, seq: u64, value: f64) -> String {
    json!({"metric": "temperature", "value": value, "timestamp": timestamp, "seq": seq}).to_string()
}

/// The device's windows once there are at least `count`.
fn windows(weir: &Weir, device: &str, count: usize) -> Vec<Value> {
    wait_for("the windows are there", || {
        let windows = weir.list("windows", &format!("&device={device}"));
        (windows.len() >= count).then_some(windows)
    })
}

#[test]
fn a_window_appears_everywhere() {
    let weir = WEIR.start(&[]);
    let mut subscriber = TestClient::connect(weir.mqtt(), MqttVersion::V4, "subscriber");
    subscriber.subscribe("weir/windows/#", 1);
    let mut events = SseReader::open(weir.http(), "/api/v1/stream?windows=1");
    let start = window_before(60);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "pump-7");
    device.telemetry("pump-7", &reading(start + 4_000, 0, 20.5));
    device.telemetry("pump-7", &reading(start, 1, 22.0));
    device.telemetry("pump-7", &reading(start + 4_999, 2, 21.25));
    // One millisecond short of the window's end plus the bound of disorder, then at it.
    device.telemetry("pump-7", &reading(start + 6_999, 3, 1.0));
    device.telemetry("pump-7", &reading(start + 7_000, 4, 1.0));

    let shown = windows(&weir, "pump-7", 1).remove(0);
    let expected = json!({
        "seq": shown["seq"], "device_id": "pump-7", "metric": "temperature", "window_start": start,
        "window_end": start + 5_000, "revision": 0, "count": 3, "sum": 63.75, "mean": 21.25, "min": 20.5, "max": 22.0,
        "first": 22.0, "last": 21.25, "stddev": shown["stddev"],
    });
    assert_eq!(shown, expected);
    let stddev = (2.0_f64 * 0.75 * 0.75 / 3.0).sqrt();
    assert!((shown["stddev"].as_f64().expect("a number") - stddev).abs() < 1e-12);

    let (topic, payload) = subscriber.message();
    assert_eq!(topic, "weir/windows/pump-7/temperature");
    assert_eq!(serde_json::from_slice::<Value>(&payload).expect("JSON"), shown);
    assert_eq!(events.next_event(), ("window".to_owned(), shown));
    weir.assert_accounted();
}

#[test]
fn windows_as_csv() {
    let weir = WEIR.start(&[]);
    let start = window_before(60);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    device.telemetry("d", &reading(start, 0, 0.1));
    device.telemetry("d", &reading(start + 7_000, 1, 0.0));
    let seq = windows(&weir, "d", 1)[0]["seq"].clone();
    let response = http::get_as(weir.http(), "/api/v1/windows?device=d", "text/csv").ok();
    assert!(response.header("content-type").starts_with("text/csv"));
    assert_eq!(
        response.text().lines().collect::<Vec<_>>(),
        [
            "seq,device_id,metric,window_start,window_end,revision,count,sum,mean,min,max,first,last,stddev,backlog,wrong_clock,unit",
            &format!("{seq},d,temperature,{start},{},0,1,0.1,0.1,0.1,0.1,0.1,0.1,0.0,,,", start + 5_000),
        ]
    );
}

#[test]
fn lists_come_in_pages() {
    let weir = WEIR.start(&[]);
    let start = window_before(600);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V5, "d");
    for seq in 0..26 {
        device.telemetry("d", &reading(start + seq * 5_000, seq as u64, seq as f64));
    }
    windows(&weir, "d", 24);
    let mut starts = Vec::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = weir.json(&format!("/api/v1/windows?device=d&limit=7{cursor}"));
        let entries = page["windows"].as_array().expect("a list");
        assert!(entries.len() <= 7);
        starts.extend(entries.iter().map(|window| window["window_start"].as_i64().expect("a time")));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert!(pages >= 4);
    starts.sort_unstable();
    let expected: Vec<i64> = (0..starts.len() as i64).map(|window| start + window * 5_000).collect();
    assert_eq!(starts, expected);
    let some = weir.list("windows", &format!("&device=d&from={}&to={}", start + 5_000, start + 15_000));
    assert_eq!(some.len(), 2);
}

#[test]
fn every_payload_form_at_every_qos() {
    let weir = WEIR.start(&[("window.idle_timeout", "'500ms'")]);
    let start = window_before(60);
    let mut ids = Vec::new();
    for (index, version) in [MqttVersion::V4, MqttVersion::V5].into_iter().enumerate() {
        for qos in 0..=2 {
            let id = format!("d{index}{qos}");
            let mut device = TestClient::connect(weir.mqtt(), version, &id);
            let several = json!({"timestamp": start, "seq": 0, "metrics": {"a": 1, "b": true}});
            let backlog = json!([
                {"device_id": id, "metric": "a", "value": 2, "timestamp": start as f64 / 1_000.0, "seq": 1},
                {"timestamp": (start + 1).to_string(), "seq": 2, "metrics": {"a": 3.0, "b": false}},
            ]);
            let topic = format!("devices/{id}/telemetry");
            device.publish(&topic, &several.to_string(), qos);
            device.publish(&topic, &backlog.to_string(), qos);
            device.ping();
            ids.push(id);
        }
    }
    for id in ids {
        let windows = windows(&weir, &id, 2);
        let sums: Vec<(&Value, &Value)> = windows.iter().map(|window| (&window["count"], &window["sum"])).collect();
        assert_eq!(sums, [(&json!(3), &json!(6.0)), (&json!(2), &json!(1.0))], "{id}: {windows:?}");
    }
    weir.assert_accounted();
}

#[test]
fn a_late_reading_corrects_its_window() {
    let weir = WEIR.start(&[]);
    let start = window_before(60);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    device.telemetry("d", &reading(start, 0, 1.0));
    device.telemetry("d", &reading(start + 10_000, 1, 1.0));
    windows(&weir, "d", 1);
    device.telemetry("d", &reading(start + 1, 2, 2.0));
    let revisions = wait_for("the correction is there", || {
        let all = weir.list("windows", "&device=d&revisions=all");
        (all.len() == 2).then_some(all)
    });
    let shown: Vec<(i64, f64)> =
        revisions.iter().map(|one| (one["revision"].as_i64().unwrap(), one["sum"].as_f64().unwrap())).collect();
    assert_eq!(shown, [(0, 1.0), (1, 3.0)]);
    let newest = weir.list("windows", "&device=d");
    assert_eq!(newest.len(), 1);
    assert_eq!(newest[0], revisions[1]);
}

#[test]
fn silence_closes_windows() {
    let weir = WEIR.start(&[("window.idle_timeout", "'500ms'")]);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    device.telemetry("d", &reading(window_before(0), 0, 1.0));
    assert_eq!(windows(&weir, "d", 1)[0]["count"], 1);
}

#[test]
fn the_same_message_counts_once() {
    let weir = WEIR.start(&[("window.idle_timeout", "'500ms'")]);
    let start = window_before(60);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    for _ in 0..3 {
        device.telemetry("d", &reading(start, 0, 1.0));
    }
    assert_eq!(windows(&weir, "d", 1)[0]["count"], 1);
    wait_for("the duplicates are counted", || {
        (weir.json("/api/v1/devices/d")["rejected"]["duplicate"] == 2).then_some(())
    });
    assert_eq!(weir.list("errors", "&device=d").len(), 0);
    weir.assert_accounted();
}

#[test]
fn devices_are_listed() {
    let weir = WEIR.start(&[]);
    let start = window_before(60);
    for id in ["a", "b", "ü-7"] {
        let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, id);
        device.telemetry(id, &reading(start, 3, 1.0));
        device.telemetry(id, &reading(start + 7_000, 5, 2.0));
    }
    let device = wait_for("the last device is there", || {
        let response = http::try_get(weir.http(), "/api/v1/devices/%C3%BC-7")?;
        (response.status == 200 && response.json()["accepted"] == 2).then(|| response.json())
    });
    assert_eq!(device["device_id"], "ü-7");
    assert_eq!(device["watermark"], start + 4_999);
    assert_eq!(device["sequence_missing"], 1);
    let ids: Vec<Value> = weir.list("devices", "").into_iter().map(|device| device["device_id"].clone()).collect();
    assert_eq!(ids, ["a", "b", "ü-7"]);
}

#[test]
fn wrong_requests_are_answered_with_problems() {
    let weir = WEIR.start(&[]);
    for (path, status) in [
        ("/api/v1/windows?limit=0", 400),
        ("/api/v1/windows?devise=d", 400),
        ("/api/v1/windows?cursor=!", 400),
        ("/api/v1/errors?reason=nonsense", 400),
        ("/api/v1/devices/nobody", 404),
        ("/nothing", 404),
    ] {
        let response = weir.get(path);
        assert_eq!(response.status, status, "{path}");
        assert!(response.header("content-type").starts_with("application/problem+json"), "{path}");
        let problem = response.json();
        assert_eq!(problem["status"], status, "{path}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{path}: {problem}");
    }
}

#[test]
fn status_checkpoints_and_metrics_answer() {
    let weir = WEIR.start(&[("state.checkpoint_interval", "'200ms'")]);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    device.telemetry("d", &reading(window_before(60), 0, 1.0));
    device.telemetry("d", &reading(window_before(30), 1, 1.0));
    wait_for("a checkpoint is listed", || {
        let page = weir.json("/api/v1/checkpoints");
        page["checkpoints"].as_array().is_some_and(|list| !list.is_empty()).then_some(())
    });
    assert_eq!(weir.json("/api/v1/status")["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(weir.get("/healthz").status, 200);
    let metrics = weir.get("/metrics").ok();
    assert!(metrics.header("content-type").starts_with("text/plain"));
    for name in ["weir_build_info", "weir_mqtt_connections", "weir_log_sync_seconds", "process_resident_memory_bytes"] {
        assert!(metrics.text().contains(&format!("\n# TYPE {name} ")), "{name}");
    }
    // Last closed windows as gauges.
    windows(&weir, "d", 1);
    let series = weir.get("/metrics/devices").ok().text();
    assert!(series.lines().any(|line| line.contains("\"d\"") && line.contains("\"temperature\"")), "{series}");
}
