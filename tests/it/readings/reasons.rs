//! Every reason of the error log, from PUBLISH to `/api/v1/errors`.

use serde_json::{Value, json};

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{now_ms, wait_for, window_before};

/// Publishes each payload on its topic and expects it in the error log with its reason; `field` must be named in the
/// sentence.
struct ReasonCheck<'a> {
    weir: &'a Weir,
    client: TestClient,
    expected: usize,
}

impl<'a> ReasonCheck<'a> {
    fn new(weir: &'a Weir) -> Self {
        Self { weir, client: TestClient::connect(weir.mqtt(), MqttVersion::V4, "checker"), expected: 0 }
    }

    /// Publishes a message that must be accepted.
    fn accepted(&mut self, device: &str, payload: &Value) {
        self.client.telemetry(device, &payload.to_string());
    }

    fn rejected(&mut self, reason: &str, topic: &str, payload: &str) -> Value {
        self.client.publish(topic, payload, 1);
        self.expected += 1;
        let entry = wait_for("the error log has the entry", || {
            let entries = self.weir.list("errors", "");
            assert!(entries.len() <= self.expected, "more errors than expected: {entries:?}");
            (entries.len() == self.expected).then(|| entries.into_iter().max_by_key(|one| one["seq"].as_u64()))?
        });
        assert_eq!(entry["reason"], reason, "{payload}: {entry}");
        assert_eq!(entry["topic"], topic, "{entry}");
        assert_eq!(entry["client_id"], "checker", "{entry}");
        assert_eq!(entry["payload"], payload, "{entry}");
        assert_eq!(entry["payload_bytes"], payload.len(), "{entry}");
        let sentence = entry["message"].as_str().expect("a sentence");
        assert!(sentence.len() > 15, "{sentence:?} says too little");
        let of_reason = self.weir.list("errors", &format!("&reason={reason}"));
        assert!(of_reason.contains(&entry));
        entry
    }

    fn done(self) {
        self.weir.assert_accounted();
        let metric = self.weir.metric_sum("weir_readings_rejected_total");
        assert_eq!(metric as usize, self.expected);
    }
}

const TOPIC: &str = "devices/d/telemetry";

fn good(timestamp: i64, seq: u64) -> Value {
    json!({"metric": "temperature", "value": 20, "timestamp": timestamp, "seq": seq})
}

/// A good reading with one field replaced; `null` takes it away.
fn with(field: &str, value: Value) -> String {
    let mut reading = json!({"metric": "temperature", "value": 20, "timestamp": now_ms()});
    let fields = reading.as_object_mut().expect("an object");
    match value {
        Value::Null => drop(fields.remove(field)),
        value => drop(fields.insert(field.to_owned(), value)),
    }
    reading.to_string()
}

#[test]
fn payloads_and_fields() {
    let weir = WEIR.start(&[("validate.metrics.temperature.min", "-40"), ("validate.metrics.temperature.max", "125")]);
    let mut check = ReasonCheck::new(&weir);
    let deep = format!("{}1{}", "[".repeat(20), "]".repeat(20));
    let many = format!("[{}]", vec!["{\"metric\":\"m\",\"value\":1}"; 1_025].join(","));
    for payload in ["", "{", "21.5", "\"text\"", "null", "[]", "{\"a\":1}}", "not json", deep.as_str()] {
        check.rejected("malformed", TOPIC, payload);
    }
    check.client.publish(TOPIC, &many, 1);
    check.expected += 1;
    wait_for("the message with too many readings is rejected", || {
        let entry =
            weir.list("errors", "&reason=malformed").into_iter().find(|one| one["payload_bytes"] == many.len())?;
        let cut = entry["payload"].as_str().expect("text").len();
        assert_eq!(cut, 4_096);
        Some(())
    });

    for field in ["metric", "value"] {
        let entry = check.rejected("missing_field", TOPIC, &with(field, Value::Null));
        assert!(entry["message"].as_str().is_some_and(|text| text.contains(field)), "{entry}");
        assert_eq!(entry["device_id"], "d", "{entry}");
    }
    for (field, value) in [("value", json!("21.5")), ("value", json!([1])), ("metric", json!(5)), ("boot", json!(1.5))]
    {
        let entry = check.rejected("wrong_type", TOPIC, &with(field, value));
        assert!(entry["message"].as_str().is_some_and(|text| text.contains(field)), "{entry}");
    }
    check.rejected("invalid_device_id", "devices/ d/telemetry", &with("seq", json!(1)));
    check.rejected("invalid_device_id", TOPIC, &with("device_id", json!("")));
    check.rejected("device_mismatch", TOPIC, &with("device_id", json!("e")));
    for metric in ["", "a b", "ü", &"m".repeat(65)] {
        check.rejected("invalid_metric", TOPIC, &with("metric", json!(metric)));
    }
    for value in [json!(125.001), json!(-40.001)] {
        check.rejected("value_out_of_range", TOPIC, &with("value", value));
    }
    for timestamp in [json!("yesterday"), json!("2026-01-01T00:00:00"), json!(1e300)] {
        check.rejected("timestamp_invalid", TOPIC, &with("timestamp", timestamp));
    }
    check.rejected("timestamp_in_future", TOPIC, &with("timestamp", json!(now_ms() + 400_000)));
    check.rejected("timestamp_too_old", TOPIC, &with("timestamp", json!(now_ms() - 8 * 86_400_000)));
    check.done();
}

#[test]
fn duplicates_and_late_readings() {
    let weir = WEIR.start(&[("errors.store_duplicates", "true"), ("window.backlog", "'off'")]);
    let mut check = ReasonCheck::new(&weir);
    let start = window_before(120);
    check.accepted("d", &good(start, 0));
    check.rejected("duplicate", TOPIC, &good(start, 0).to_string());
    // The window ends at +5 s and is kept 30 s longer; the watermark is 2 s and 1 ms behind.
    check.accepted("d", &good(start + 36_999, 1));
    check.accepted("d", &good(start + 1, 2));
    check.accepted("d", &good(start + 37_000, 3));
    let entry = check.rejected("late", TOPIC, &good(start + 2, 4).to_string());
    assert_eq!((&entry["device_id"], &entry["metric"]), (&json!("d"), &json!("temperature")));
    check.done();
}

#[test]
fn a_backlog_is_judged_reading_by_reading() {
    let weir = WEIR.start(&[("window.idle_timeout", "'500ms'")]);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "checker");
    let start = window_before(60);
    let mut wrong = good(start, 1);
    wrong["metric"] = json!("not a name");
    let backlog = json!([good(start, 0), wrong, {"timestamp": start, "seq": 2, "metrics": {"a": 1, "b": "x"}}]);
    client.telemetry("d", &backlog.to_string());
    let mut entries = wait_for("both errors are there", || {
        let entries = weir.list("errors", "");
        (entries.len() == 2).then_some(entries)
    });
    entries.sort_by_key(|entry| entry["index"].as_u64());
    let shown: Vec<(&Value, &Value)> = entries.iter().map(|entry| (&entry["index"], &entry["reason"])).collect();
    assert_eq!(shown, [(&json!(1), &json!("invalid_metric")), (&json!(3), &json!("wrong_type"))]);
    weir.wait_closed();
    assert_eq!(weir.json("/api/v1/devices/d")["accepted"], 2);
    weir.assert_accounted();
}

#[test]
fn faults_that_devices_report() {
    let weir = WEIR.start(&[]);
    let mut check = ReasonCheck::new(&weir);
    let mut subscriber = TestClient::connect(weir.mqtt(), MqttVersion::V5, "subscriber");
    subscriber.subscribe("weir/errors/device_error", 1);
    let fault = json!({"error": "E42 sensor open", "timestamp": now_ms(), "seq": 44}).to_string();
    let entry = check.rejected("device_error", "devices/d/errors", &fault);
    assert!(entry["message"].as_str().is_some_and(|text| text.contains("E42 sensor open")), "{entry}");
    let (topic, payload) = subscriber.message();
    assert_eq!(topic, "weir/errors/device_error");
    assert_eq!(serde_json::from_slice::<Value>(&payload).expect("JSON"), entry);
    check.rejected("device_error", TOPIC, &json!({"error": "E43", "seq": 45}).to_string());
    check.done();
}

#[test]
fn devices_that_are_not_allowed() {
    let weir = WEIR.start(&[("validate.allowed_devices", "['known']")]);
    let mut check = ReasonCheck::new(&weir);
    check.accepted("known", &good(now_ms(), 0));
    check.rejected("unknown_device", TOPIC, &good(now_ms(), 0).to_string());
    check.done();
}

#[test]
fn keys_beyond_the_limits() {
    let weir = WEIR.start(&[("limits.devices", "1"), ("limits.metrics_per_device", "2")]);
    let mut check = ReasonCheck::new(&weir);
    check.accepted("d", &good(now_ms(), 0));
    check.rejected("too_many_devices", "devices/e/telemetry", &good(now_ms(), 0).to_string());
    check.accepted("d", &json!({"metric": "second", "value": 1, "timestamp": now_ms(), "seq": 1}));
    let third = json!({"metric": "third", "value": 1, "timestamp": now_ms(), "seq": 2});
    check.rejected("too_many_metrics", TOPIC, &third.to_string());
    check.accepted("d", &good(now_ms(), 3));
    assert!(weir.metric_sum("weir_limits_hit_total") >= 2.0);
    check.done();
}

#[test]
fn a_payload_that_is_not_text_is_shown_as_base64() {
    let weir = WEIR.start(&[]);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "checker");
    let packet = weir_test_kit::mqtt::publish_packet(MqttVersion::V4, TOPIC, &[0xff, 0x00, 0xfe], 1, false, 9);
    client.send(&packet).expect("it can be sent");
    assert_eq!(client.expect(weir_test_kit::mqtt::PUBACK).id(), 9);
    let entry = wait_for("the error is there", || weir.list("errors", "&reason=malformed").pop());
    assert!(entry.to_string().contains("/wD+"), "{entry}");
    assert_eq!(entry["payload_bytes"], 3);
}
