//! Every reason, the order of checks, and deduplication.

use super::{Effect, Input, OperatorHarness, T0, flink, numbered, reading};
use crate::core::reason::Reason;
use crate::core::settings::{MetricRange, Settings};

fn settings() -> Settings {
    let range = MetricRange { min: Some(0.0), max: Some(100.0), unit: None };
    Settings {
        metrics: [("ranged".to_owned(), range)].into(),
        allowed_devices: ["a", "b", "c"].map(str::to_owned).into(),
        max_devices: 2,
        max_metrics_per_device: 2,
        store_duplicates: true,
        ..flink()
    }
}

/// Applies one message and expects these effects; see [`super::brief`].
fn check_input(input: Input, effects: &[&str]) {
    OperatorHarness::new(settings()).check(T0, &[input], effects);
}

/// Applies one message on the telemetry topic of device `a` and expects these effects.
fn check(payload: &str, effects: &[&str]) {
    check_input(Input::telemetry("a", payload), effects);
}

#[test]
fn malformed() {
    check("", &["malformed a/- 0"]);
    check("21.5", &["malformed a/- 0"]);
    check("[]", &["malformed a/- 0"]);
    check("{\"metric\":\"m\",\"value\":1}x", &["malformed a/- 0"]);
    check("[[[[[[[[[1]]]]]]]]]", &["malformed a/- 0"]);
    check(&format!("[{}{{}}]", "{},".repeat(1024)), &["malformed a/- 0"]);
    check_input(Input::telemetry("a", b"\xff".to_vec()), &["malformed a/- 0"]);
    check(r#"[1,{"metric":"m","value":1}]"#, &["malformed -/- 0"]);
    check(r#"{"metrics":{}}"#, &["malformed a/- 0"]);
    check(r#"{"metrics":{"m":1},"value":1}"#, &["malformed a/- 0"]);
}

#[test]
fn missing_fields() {
    check("{}", &["missing_field a/- 0"]);
    check(r#"{"metric":"m"}"#, &["missing_field a/m 0"]);
    check(r#"{"value":1}"#, &["missing_field a/- 0"]);
    check_input(Input::on("other", r#"{"metric":"m","value":1}"#), &["missing_field -/m 0"]);
}

#[test]
fn wrong_types() {
    check(r#"{"metric":"m","value":"1"}"#, &["wrong_type a/m 0"]);
    check(r#"{"metric":"m","value":"ON"}"#, &["wrong_type a/m 0"]);
    check(r#"{"metric":"m","value":1e400}"#, &["wrong_type a/m 0"]);
    check(r#"{"metric":1,"value":1}"#, &["wrong_type a/- 0"]);
    check(r#"{"metric":"m","value":1,"timestamp":true}"#, &["wrong_type a/m 0"]);
    check(r#"{"metric":"m","value":1,"boot":1.5}"#, &["wrong_type a/m 0"]);
    check(r#"{"metric":"m","value":1,"device_id":7}"#, &["wrong_type -/m 0"]);
    check(r#"{"metrics":[1]}"#, &["wrong_type a/- 0"]);
    check(r#"{"metrics":{"m":"x","n":2}}"#, &["wrong_type a/m 0"]);
}

#[test]
fn absent_values_and_faults_beside_readings() {
    check(r#"{"metric":"m","value":null}"#, &[]);
    check(r#"{"metrics":{"m":"unavailable","n":NaN,"o":"x"}}"#, &["wrong_type a/o 2"]);
    check(r#"{"metric":"m","value":1,"error":"no error"}"#, &[]);
    check(r#"{"metric":"m","value":1,"error":"E1"}"#, &["device_error a/m 1"]);
    check(
        r#"[{"metrics":{"m":1,"n":"x"},"error":"E1"},{}]"#,
        &["wrong_type a/n 1", "device_error a/- 2", "missing_field a/- 3"],
    );
    check(r#"{"error":"no error"}"#, &["device_error a/- 0"]);
    check_input(Input::telemetry("x", r#"{"metric":"m","value":1,"error":"E1"}"#), &["unknown_device x/m 0"]);
}

#[test]
fn rules_0_know_no_absent_values() {
    let check = |payload: &str, effects: &[&str]| {
        let settings = Settings { rules: 0, ..settings() };
        OperatorHarness::new(settings).check(T0, &[Input::telemetry("a", payload)], effects);
    };
    check(r#"{"metric":"m","value":null}"#, &["wrong_type a/m 0"]);
    check(r#"{"metric":"m","value":NaN}"#, &["malformed a/- 0"]);
    check(r#"{"metric":"m","value":1,"error":"no error"}"#, &["device_error a/m 0"]);
    check(r#"{"metrics":{"m":1,"n":2},"error":0}"#, &["device_error a/- 0"]);
}

#[test]
fn device_ids() {
    check_input(Input::telemetry(" a", reading(0, 1.0)), &["invalid_device_id -/m 0"]);
    check(r#"{"metric":"m","value":1,"device_id":""}"#, &["invalid_device_id a/m 0"]);
    check(r#"{"metric":"m","value":1,"device_id":"b"}"#, &["device_mismatch a/m 0"]);
    check(r#"{"metric":"m","value":1,"device_id":"\u0061"}"#, &[]);
    check_input(Input::telemetry("x", reading(0, 1.0)), &["unknown_device x/m 0"]);
}

#[test]
fn metrics_and_values() {
    check(r#"{"metric":"","value":1}"#, &["invalid_metric a/- 0"]);
    check(r#"{"metric":"a b","value":1}"#, &["invalid_metric a/- 0"]);
    check(r#"{"metric":"ranged","value":101}"#, &["value_out_of_range a/ranged 0"]);
    check(r#"{"metric":"ranged","value":100}"#, &[]);
}

#[test]
fn timestamps() {
    check(r#"{"metric":"m","value":1,"timestamp":"today"}"#, &["timestamp_invalid a/m 0"]);
    check(r#"{"metric":"m","value":1,"timestamp":1e40}"#, &["timestamp_invalid a/m 0"]);
    check(&reading(300_000, 1.0), &[]);
    check(&reading(300_001, 1.0), &["timestamp_in_future a/m 0"]);
    check(&reading(-604_800_000, 1.0), &["a/m@-604800000#0=1.0"][..0]);
    check(&reading(-604_800_001, 1.0), &["timestamp_too_old a/m 0"]);
}

#[test]
fn limits() {
    let mut bench = OperatorHarness::new(settings());
    bench.check(T0, &[Input::telemetry("a", reading(0, 1.0)), Input::telemetry("b", reading(0, 1.0))], &[]);
    bench.check(T0, &[Input::telemetry("c", reading(0, 1.0))], &["too_many_devices c/m 0"]);
    let three = r#"{"metrics":{"m":1,"n":2,"o":3}}"#;
    bench.check(T0, &[Input::telemetry("a", three)], &["too_many_metrics a/o 2"]);
    let error = format!(r#"{{"error":"E1","timestamp":{T0}}}"#);
    bench.check(T0, &[Input::telemetry("c", error)], &["too_many_devices c/- 0"]);
}

#[test]
fn late() {
    let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..settings() });
    bench.check(T0, &[Input::telemetry("a", reading(7_000, 1.0))], &[]);
    bench.check(T0, &[Input::telemetry("a", reading(4_999, 1.0))], &["late a/m 0"]);
    bench.check(T0, &[Input::telemetry("a", reading(5_000, 1.0))], &[]);
}

#[test]
fn faults() {
    let text = r#"{"error":"E42 sensor open","seq":44}"#;
    check(text, &["device_error a/- 0"]);
    check_input(Input::on("devices/a/errors", text), &["device_error a/- 0"]);
    check_input(Input::on("devices/a/errors", r#"{"code":7}"#), &["device_error a/- 0"]);
    check_input(Input::on("devices/a/errors", r#"{"metric":"m","value":1}"#), &["device_error a/m 0"]);
    check_input(Input::on("devices/a/errors", "sensor open"), &["malformed a/- 0"]);
    check_input(Input::on("devices/x/errors", text), &["unknown_device x/- 0"]);
    check(r#"[{"error":"x"},{"metric":"m","value":1},{"error":null,"metric":"m","value":1}]"#, &["device_error a/- 0"]);
    let mut bench = OperatorHarness::new(settings());
    bench.check(T0, &[Input::on("devices/a/errors", text)], &["device_error a/- 0"]);
    bench.check(T0, &[Input::on("devices/a/errors", text).again()], &["duplicate a/- 0"]);
    assert_eq!(bench.operator.totals().rejected[Reason::DeviceError as usize], 1);
}

#[test]
fn a_fault_says_what_the_device_said() {
    let effects =
        OperatorHarness::new(settings()).apply(T0, &[Input::telemetry("a", r#"{"error":"E42 sensor open"}"#)]);
    let [Effect::Error { seq: 0, json }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(json["message"], "the device reported: E42 sensor open");
    assert_eq!(json["payload"], r#"{"error":"E42 sensor open"}"#);
    assert_eq!(json["client_id"], "client");
    assert_eq!(json["topic"], "devices/a/telemetry");
    assert_eq!(json["arrival_time"], T0);
    assert_eq!(json["journal_position"], 0);
}

#[test]
fn the_first_failure_decides() {
    // Each payload fails all later checks too.
    check(r#"{"metric":" ","value":"x","timestamp":"x","device_id":"+"}"#, &["wrong_type a/- 0"]);
    check(r#"{"metric":" ","value":500,"timestamp":"x","device_id":"+"}"#, &["invalid_device_id a/- 0"]);
    check(r#"{"metric":" ","value":500,"timestamp":"x","device_id":"x"}"#, &["device_mismatch a/- 0"]);
    let x = |payload: &str| Input::telemetry("x", payload);
    check_input(x(r#"{"metric":" ","value":500,"timestamp":"x"}"#), &["invalid_metric x/- 0"]);
    check_input(x(r#"{"metric":"ranged","value":500,"timestamp":"x"}"#), &["value_out_of_range x/ranged 0"]);
    check_input(x(r#"{"metric":"ranged","value":50,"timestamp":"x"}"#), &["timestamp_invalid x/ranged 0"]);
    check_input(x(r#"{"metric":"ranged","value":50}"#), &["unknown_device x/ranged 0"]);
    check_input(x(r#"{"metric":"ranged","value":50,"boot":{}}"#), &["wrong_type x/ranged 0"]);
}

#[test]
fn each_reading_stands_for_itself() {
    let payload = format!(
        r#"[{{"metric":"m","value":1,"timestamp":{T0}}},{{"timestamp":{T0},"metrics":{{"m":2,"ranged":-1,"n o":3}}}},7,{{"metric":"m","value":4}}]"#
    );
    let mut bench = OperatorHarness::new(settings());
    bench.check(
        T0,
        &[Input::telemetry("a", payload)],
        &["value_out_of_range a/ranged 2", "invalid_metric a/- 3", "malformed -/- 4"],
    );
    assert_eq!((bench.operator.totals().received, bench.operator.totals().in_windows), (6, 3));
}

#[test]
fn a_sequence_number_counts_once() {
    let mut bench = OperatorHarness::new(settings());
    let a = |seq, offset| Input::telemetry("a", numbered(seq, offset, 1.0));
    bench.check(T0, &[a(1, 0), a(2, 10), a(1, 0), a(2, 10).again()], &["duplicate a/m 0"; 2]);
    bench.check(T0, &[a(4, 12), a(3, 11), a(3, 11)], &["duplicate a/m 0"]);
    assert_eq!(bench.operator.device("a").unwrap().sequence_ranges, [(1, 4)]);
    bench.check(T0, &[Input::telemetry("b", numbered(1, 0, 1.0))], &[]);
}

#[test]
fn one_message_is_one_sequence_number_with_all_its_readings() {
    let mut bench = OperatorHarness::new(settings());
    let both = Input::telemetry("a", format!(r#"{{"timestamp":{T0},"seq":7,"metrics":{{"m":1,"n":2}}}}"#));
    bench.check(T0, &[both.clone(), both], &["duplicate a/m 0", "duplicate a/n 1"]);
}

#[test]
fn newer_event_time_or_another_boot_means_restart() {
    let mut bench = OperatorHarness::new(settings());
    let a = |seq, offset| Input::telemetry("a", numbered(seq, offset, 1.0));
    bench.check(T0, &[a(1, 0), a(2, 10), a(3, 20)], &[]);
    bench.check(T0, &[a(1, 30), a(2, 40)], &[]);
    assert_eq!(bench.operator.device("a").unwrap().sequence_ranges, [(1, 2)]);
    let boot = |seq, boot: &str| {
        let text = format!(r#"{{"metric":"m","value":1,"timestamp":{T0},"seq":{seq},"boot":{boot}}}"#);
        Input::telemetry("a", text)
    };
    bench.check(T0, &[boot(1, "1"), boot(1, "1")], &["duplicate a/m 0"]);
    bench.check(T0, &[boot(1, "2"), boot(2, "2"), boot(2, "2")], &["duplicate a/m 0"]);
    bench.check(T0, &[boot(2, "\"2\"")], &[]);
    // What was sent before the restart comes again after it.
    bench.check(T0, &[boot(1, "1"), boot(2, "2"), boot(2, "\"2\""), a(2, 40)], &["duplicate a/m 0"; 4]);
}

#[test]
fn rejected_readings_use_up_their_sequence_numbers() {
    let mut bench = OperatorHarness::new(Settings { allowed_lateness_ms: 0, ..settings() });
    let a = |payload: String| Input::telemetry("a", payload);
    // The reading is late: when it is redelivered, it is a duplicate.
    bench.check(T0, &[a(numbered(1, 60_000, 1.0)), a(numbered(2, 0, 1.0))], &["late a/m 0"]);
    bench.check(T0, &[a(numbered(2, 0, 1.0))], &["duplicate a/m 0"]);
    // The failure that is checked first stays the reason, and a rejected time does not tell a restart.
    let future = |seq| a(numbered(seq, 400_000, 1.0));
    bench.check(T0, &[future(3), future(3)], &["timestamp_in_future a/m 0"; 2]);
    bench.check(T0, &[a(numbered(3, 10_000, 1.0)), a(numbered(3, 10_000, 1.0))], &["late a/m 0", "duplicate a/m 0"]);
    // A rejected reading with a valid time: its redelivery is no restart either.
    let out = || a(format!(r#"{{"metric":"o","value":1,"timestamp":{},"seq":9}}"#, T0 + 61_000));
    bench.check(T0, &[a(format!(r#"{{"metrics":{{"n":1}},"timestamp":{},"seq":8}}"#, T0 + 60_500))], &[]);
    bench.check(T0, &[out()], &["too_many_metrics a/o 0"]);
    bench.check(T0, &[out(), a(numbered(1, 60_000, 1.0))], &["duplicate a/o 0", "duplicate a/m 0"]);
}

#[test]
fn arrival_times_do_not_tell_a_restart_of_redelivered_messages() {
    let mut bench = OperatorHarness::new(settings());
    let input = Input::telemetry("a", r#"{"metric":"m","value":1,"seq":5}"#);
    bench.check(T0, std::slice::from_ref(&input), &[]);
    bench.check(T0 + 1_000, &[input.clone().again()], &["duplicate a/m 0"]);
    // Without DUP a device without a clock may have restarted, but not within seconds.
    bench.check(T0 + 2_000, std::slice::from_ref(&input), &["duplicate a/m 0"]);
    bench.check(T0 + 30_000, std::slice::from_ref(&input), &["a/m@0#0=1.0"]);
    bench.check(T0 + 30_000, &[input], &["duplicate a/m 0"]);
}

#[test]
fn mqtt_identity_stands_in_for_sequence_numbers() {
    let publish = |packet_id, qos, payload: &str| Input::Publish {
        user: None,
        client: "c".into(),
        topic: "devices/a/telemetry".into(),
        packet_id,
        qos,
        dup: false,
        payload: payload.into(),
    };
    let one = r#"{"metric":"m","value":1}"#;
    let two = r#"[{"metric":"m","value":2},{"metrics":{"m":3}}]"#;
    let mut bench = OperatorHarness::new(settings());
    bench.check(T0, &[publish(7, 1, one), publish(7, 1, one)], &[]);
    bench.check(T0, &[publish(7, 1, one).again()], &["duplicate a/m 0"]);
    bench.check(T0, &[publish(8, 1, one).again(), publish(8, 1, one).again()], &["duplicate a/m 0"]);
    bench.check(T0, &[publish(7, 2, two), publish(7, 2, two).again()], &["duplicate a/m 0", "duplicate a/m 1"]);
    // With a sequence number, MQTT redelivery does not count.
    let numbered = numbered(1, 0, 1.0);
    bench.check(T0, &[publish(9, 1, &numbered).again()], &[]);
    // Messages of QoS 0 are not redelivered.
    bench.check(T0, &[publish(0, 0, one).again(), publish(0, 0, one).again()], &[]);
    assert_eq!(bench.operator.sizes().clients, 1);
}

#[test]
fn clients_are_bounded() {
    let publish = |client: &str| Input::Publish {
        user: None,
        client: client.into(),
        topic: "devices/a/telemetry".into(),
        packet_id: 1,
        qos: 1,
        dup: false,
        payload: br#"{"metric":"m","value":1}"#.to_vec(),
    };
    let mut bench = OperatorHarness::new(settings());
    bench.check(T0, &[publish("c1"), publish("c2"), publish("c3")], &[]);
    assert_eq!(bench.operator.sizes().clients, 2);
    bench.check(T0, &[publish("c2").again(), publish("c3").again()], &["duplicate a/m 0"; 2]);
    bench.check(T0, &[publish("c1").again()], &[]);
}

#[test]
fn deduplication_can_be_off() {
    let mut bench = OperatorHarness::new(Settings { dedup: false, ..settings() });
    let input = Input::telemetry("a", numbered(1, 0, 1.0));
    bench.check(T0, &[input.clone(), input.again()], &[]);
    let bare = Input::telemetry("a", r#"{"metric":"m","value":1}"#);
    bench.check(T0, &[bare.clone(), bare.again()], &[]);
    assert_eq!((bench.operator.totals().in_windows, bench.operator.sizes().clients), (4, 0));
}

#[test]
fn duplicates_are_counted_but_not_stored_by_default() {
    let mut bench = OperatorHarness::new(Settings { store_duplicates: false, ..settings() });
    let input = Input::telemetry("a", numbered(1, 0, 1.0));
    bench.check(T0, &[input.clone(), input], &[]);
    assert_eq!(bench.operator.totals().rejected[Reason::Duplicate as usize], 1);
    assert_eq!(bench.operator.next_error_seq(), 0);
}

#[test]
fn numeric_strings_can_be_allowed() {
    let mut bench = OperatorHarness::new(Settings { numeric_strings: true, ..settings() });
    bench.check(T0, &[Input::telemetry("a", r#"{"metric":"m","value":"21.5"}"#)], &[]);
    assert_eq!(bench.operator.totals().in_windows, 1);
}
