//! Values that are absent, and errors beside readings.

use serde_json::json;

use super::field::FieldCheck;
use weir_test_kit::http;
use weir_test_kit::wait::{now_ms, wait_for};

#[test]
fn absent_values_are_no_errors() {
    let mut check = FieldCheck::start(&[]);
    let now = now_ms();
    for (device, rest) in [
        ("words", r#""humidity":NaN,"pressure":-Infinity,"lux":nan"#),
        ("strings", r#""humidity":"nan","pressure":"unavailable","battery":"","lux":null,"uv":"Unknown""#),
        ("go", r#""humidity":+Inf"#),
    ] {
        check.telemetry(device, format!(r#"{{"timestamp":{now},"metrics":{{"temperature":21.5,{rest}}}}}"#));
    }
    check.telemetry("single", r#"{"metric":"t","value":null}"#);
    check.telemetry("fields", r#"{"metric":"t","value":1,"rssi":nan,"timestamp":NaN}"#);
    check.settle();
    for (device, absent) in [("words", 3), ("strings", 5), ("go", 1)] {
        check.counted_once(device, 21.5);
        assert_eq!(check.of_device(device, "values_absent"), absent, "{device}");
    }
    check.counted_once("fields", 1.0);
    assert_eq!(check.of_device("single", "values_absent"), 1);
    assert!(check.windows("single").is_empty());
    assert!(check.weir.list("errors", "").is_empty());
    assert_eq!(check.weir.metric("weir_values_absent_total"), 10.0);
    assert_eq!(check.weir.metric("weir_readings_received_total"), 4.0);
    // The counts outlive a restart, through the checkpoint of an orderly stop.
    check.weir.terminate();
    check.weir.restart();
    wait_for("the counts are restored", || (check.weir.metric("weir_values_absent_total") == 10.0).then_some(()));
    assert_eq!(check.of_device("strings", "values_absent"), 5);
}

#[test]
fn text_beside_absent_values_stays_an_error() {
    let mut check = FieldCheck::start(&[]);
    for seq in 0..20 {
        let metrics = r#"{"temperature":21.5,"humidity":40,"battery":null,"state":"ON"}"#;
        check.telemetry("a", format!(r#"{{"timestamp":{},"seq":{seq},"metrics":{metrics}}}"#, now_ms()));
    }
    check.settle();
    let counted: u64 = check.windows("a").iter().map(|(_, count, _)| count).sum();
    assert_eq!(counted, 40);
    assert_eq!(check.of_device("a", "values_absent"), 20);
    let errors = check.errors("a");
    assert!(
        errors.iter().all(|(reason, sentence)| reason == "wrong_type" && sentence.contains("\"ON\"")),
        "{errors:?}"
    );
    assert_eq!(check.weir.metric_sum("weir_readings_rejected_total"), 20.0);
}

#[test]
fn an_error_beside_a_reading_is_told_besides() {
    let mut check = FieldCheck::start(&[]);
    let silent = [json!("no error"), json!(0), json!(""), json!(false), json!(null), json!("NONE"), json!([])];
    for (index, error) in silent.iter().enumerate() {
        check.telemetry(&format!("silent{index}"), json!({"metric": "t", "value": 1, "error": error}).to_string());
    }
    check.telemetry("told", r#"{"metric":"t","value":2,"error":"E1 sensor open"}"#);
    check.telemetry("several", r#"[{"metrics":{"a":1,"b":"x"},"error":"E2"},{"metric":"a","value":"y"}]"#);
    check.telemetry("alone", r#"{"error":"E3"}"#);
    check.publish("devices/topic/errors", r#"{"metric":"t","value":1,"error":"E4"}"#, false);
    check.settle();
    for (index, error) in silent.iter().enumerate() {
        check.counted_once(&format!("silent{index}"), 1.0);
        assert!(check.errors(&format!("silent{index}")).is_empty(), "{error}");
    }
    check.counted_once("told", 2.0);
    assert_eq!(check.errors("told"), [("device_error".into(), "the device reported: E1 sensor open".into())]);
    assert_eq!(check.windows("several"), [("a".into(), 1, 1.0)]);
    let reasons: Vec<_> = check.errors("several").into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, ["wrong_type", "device_error", "wrong_type"]);
    let mut indexes: Vec<_> =
        check.weir.list("errors", "&device=several&reason=wrong_type").iter().map(|e| e["index"].as_u64()).collect();
    indexes.sort();
    assert_eq!(indexes, [Some(1), Some(3)]);
    check.rejected_once("alone", "device_error", "E3");
    check.rejected_once("topic", "device_error", "E4");
}

#[test]
fn a_replay_does_not_tell_the_fault_again() {
    let mut check = FieldCheck::start(&[]);
    let reading = json!({"metric": "t", "value": "21.5", "error": "E1", "timestamp": now_ms() - 1_000});
    check.telemetry("d", reading.to_string());
    wait_for("the error is stored", || (check.errors("d").len() == 2).then_some(()));
    check.weir.terminate();
    check.weir.configure(&[("window.idle_timeout", "'500ms'"), ("ingest.numeric_strings", "true")]);
    check.weir.restart();
    let errors = check.weir.list("errors", "&reason=wrong_type");
    let path = format!("/api/v1/errors/{}/replay", errors[0]["seq"]);
    wait_for("weir takes the replay", || (http::post(check.weir.http(), &path, "").status != 503).then_some(()));
    check.weir.wait_closed();
    check.counted_once("d", 21.5);
    assert_eq!(check.errors("d").len(), 2);
    check.weir.assert_accounted();
}
