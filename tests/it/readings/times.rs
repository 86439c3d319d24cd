//! The times that devices state, in all their forms, and those that state none.

use serde_json::{Value, json};

use super::field::FieldCheck;
use weir_test_kit::wait::now_ms;

const NO_BOUNDS: [(&str, &str); 2] = [("validate.max_age", "'off'"), ("validate.max_future", "'off'")];

/// 2026-11-30T07:00:00Z.
const SEVEN_MS: i64 = 1_796_022_000_000;

fn reading(field: &str, time: &Value) -> String {
    json!({"metric": "t", "value": 1, field: time}).to_string()
}

/// Start of the only window of a device.
fn window_start(check: &FieldCheck, device: &str) -> Option<i64> {
    match &check.weir.list("windows", &format!("&device={device}"))[..] {
        [window] => window["window_start"].as_i64(),
        _ => None,
    }
}

#[test]
fn forms_with_a_zone_name_the_instant() {
    let mut check = FieldCheck::start(&NO_BOUNDS);
    let forms = [
        "2026-11-30T08:00:00+0100",
        "2026-11-30 07:00:00+00:00",
        "2026-11-30T07:00:00.123456789Z",
        "2026-11-30t07:00:00z",
        "20261130T070000Z",
        "2026-11-30T07:00Z",
        "2026-11-30T08:00:00+01",
        "Mon, 30 Nov 2026 07:00:00 GMT",
        "2026-11-30T07:00:00,5Z",
        "2026/11/30 07:00:00 UTC",
        "2026-11-30 08:00:00 +0100 CET",
        "Mon, 30 Nov 2026 08:00:00 +0100 (CET)",
    ];
    for (index, form) in forms.iter().enumerate() {
        check.telemetry(&format!("d{index}"), reading("timestamp", &json!(form)));
    }
    check.settle();
    for (index, form) in forms.iter().enumerate() {
        assert_eq!(window_start(&check, &format!("d{index}")), Some(SEVEN_MS), "{form}");
    }
    assert!(check.weir.list("errors", "").is_empty());
    assert_eq!(check.weir.metric("weir_readings_arrival_time_total"), 0.0);
}

#[test]
fn a_time_without_zone_needs_a_setting() {
    let mut check = FieldCheck::start(&NO_BOUNDS);
    let (iso, blank) = (json!("2026-11-30T08:00:00"), json!("2026-11-30 08:00:00"));
    check.telemetry("a", reading("timestamp", &iso));
    check.telemetry("b", reading("time", &blank));
    check.settle();
    for device in ["a", "b"] {
        check.rejected_once(device, "timestamp_invalid", "set ingest.timezone");
    }
    let berlin = [&NO_BOUNDS[..], &[("ingest.timezone", "'Europe/Berlin'")]].concat();
    let mut check = FieldCheck::start(&berlin);
    check.telemetry("a", reading("timestamp", &iso));
    check.telemetry("b", reading("time", &blank));
    check.settle();
    for device in ["a", "b"] {
        assert_eq!(window_start(&check, device), Some(SEVEN_MS), "{device}");
    }
}

#[test]
fn devices_without_a_clock_get_the_arrival() {
    let mut check = FieldCheck::start(&[]);
    let before = now_ms();
    let none = [json!(0), json!(""), json!(-1), json!(null), json!("0"), json!("0000-00-00 00:00:00"), json!("NaN")];
    for (index, time) in none.iter().enumerate() {
        check.telemetry(&format!("d{index}"), reading("timestamp", time));
    }
    check.telemetry("without", r#"{"metric":"t","value":1}"#);
    check.telemetry("clock", reading("timestamp", &json!(now_ms())));
    check.settle();
    for (index, time) in none.iter().enumerate() {
        let device = format!("d{index}");
        check.counted_once(&device, 1.0);
        assert!(window_start(&check, &device).is_some_and(|start| start > before - 10_000), "{time}");
        assert_eq!(check.of_device(&device, "arrival_times"), 1, "{time}");
    }
    assert_eq!(check.of_device("clock", "arrival_times"), 0);
    assert_eq!(check.weir.metric("weir_readings_arrival_time_total"), none.len() as f64 + 1.0);
    assert!(check.weir.list("errors", "").is_empty());
}

#[test]
fn the_time_stands_in_other_fields() {
    let mut check = FieldCheck::start(&[]);
    let hours_ago = now_ms() / 5_000 * 5_000 - 7_200_000;
    for field in ["ts", "time", "Timestamp", "TS", "Time"] {
        check.telemetry(&field.replace('T', "big_t"), reading(field, &json!(hours_ago)));
    }
    check
        .telemetry("first", json!({"metric": "t", "value": 1, "time": 5, "ts": hours_ago, "timestamp": 0}).to_string());
    check.telemetry("behind_uptime", json!({"metric": "t", "value": 1, "ts": 12_345, "time": hours_ago}).to_string());
    check.telemetry("behind_flag", json!({"metric": "t", "value": 1, "ts": true, "time": hours_ago}).to_string());
    let never_set = json!({"metric": "t", "value": 1, "timestamp": "1970-01-01T00:00:00Z", "ts": hours_ago});
    check.telemetry("behind_never_set", never_set.to_string());
    check.telemetry("uptime", reading("time", &json!(4_711)));
    check.telemetry("old", reading("time", &json!("2020-01-01T00:00:00Z")));
    check.settle();
    for device in [
        "ts",
        "time",
        "big_timestamp",
        "big_tS",
        "big_time",
        "first",
        "behind_uptime",
        "behind_flag",
        "behind_never_set",
    ] {
        assert_eq!(window_start(&check, device), Some(hours_ago), "{device}");
        assert_eq!(check.of_device(device, "arrival_times"), 0, "{device}");
    }
    check.counted_once("uptime", 1.0);
    assert_eq!(check.of_device("uptime", "arrival_times"), 1);
    check.rejected_once("old", "timestamp_too_old", "raise validate.max_age");
}

#[test]
fn a_unit_that_is_configured_wrong_is_told() {
    for (unit, factor, reason) in [("s", 1000, "timestamp_invalid"), ("ms", 1, "timestamp_too_old")] {
        let mut check = FieldCheck::start(&[("ingest.timestamp_unit", &format!("'{unit}'"))]);
        for field in ["timestamp", "ts", "time"] {
            check.telemetry(field, reading(field, &json!(now_ms() / 1000 * factor)));
        }
        check.settle();
        for field in ["timestamp", "ts", "time"] {
            check.rejected_once(field, reason, "ingest.timestamp_unit");
        }
    }
}

#[test]
fn a_clock_that_is_ahead_for_ever() {
    let ahead = |check: &mut FieldCheck| {
        for value in 0..20 {
            let reading = json!({"metric": "t", "value": value, "timestamp": now_ms() + 600_000});
            check.telemetry("a", reading.to_string());
        }
        check.settle();
    };
    let mut check = FieldCheck::start(&[]);
    ahead(&mut check);
    let errors = check.errors("a");
    assert!(!errors.is_empty(), "{errors:?}");
    for (reason, sentence) in errors {
        assert!(reason == "timestamp_in_future" && sentence.contains("ingest.time to arrival"), "{sentence}");
    }
    let mut check = FieldCheck::start(&[("ingest.time", "'arrival'")]);
    ahead(&mut check);
    let counted: u64 = check.windows("a").iter().map(|(_, count, _)| count).sum();
    assert_eq!(counted, 20);
    assert_eq!(check.of_device("a", "arrival_times"), 20);
    assert!(check.errors("a").is_empty());
}
