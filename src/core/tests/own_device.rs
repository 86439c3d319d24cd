//! Clients that may speak for one device alone.

use super::*;

/// A publish of a client that may speak for `own_device` alone.
pub(super) fn publish(own_device: &str, topic: &str, payload: &str) -> Input {
    let own_device = Some(own_device);
    let publish = PublishRecord {
        client_id: "c",
        topic,
        own_device,
        user: None,
        packet_id: 1,
        qos: 1,
        dup: false,
        retain: false,
        repeats_retained: false,
        payload: payload.as_bytes(),
    };
    let mut bytes = Vec::new();
    record::encode_publish(&publish, false, &mut bytes);
    Input::Encoded(bytes)
}

fn bench() -> OperatorHarness {
    let telemetry_topics = vec!["readings".into(), "devices/+/telemetry".into()];
    OperatorHarness::new(Settings { telemetry_topics, error_topics: vec!["faults".into()], ..Settings::default() })
}

#[test]
fn a_topic_without_a_device_is_the_clients_own() {
    let mut bench = bench();
    let own = publish("a", "readings", r#"{"metric":"m","value":1}"#);
    let named = publish("a", "readings", r#"{"device_id":"a","metric":"m","value":2}"#);
    let other = publish("a", "readings", r#"{"device_id":"b","metric":"m","value":4}"#);
    let mixed = publish("a", "readings", r#"[{"device_id":"b","metric":"m","value":4},{"metric":"m","value":8}]"#);
    let fault = publish("a", "faults", r#"{"device_id":"b","error":"E1"}"#);
    let expected = ["device_mismatch a/m 0", "device_mismatch a/m 0", "device_mismatch a/- 0"];
    bench.check(T0, &[own, named, other, mixed, fault], &expected);
    assert!(bench.operator.device("b").is_none(), "it created the state of another device");
    assert_eq!(bench.closed(), ["a/m@0#0=11.0"]);
}

#[test]
fn a_topic_that_names_a_device_was_allowed_as_such() {
    let mut bench = bench();
    let gateway = publish("gateway", "devices/b/telemetry", r#"{"metric":"m","value":1}"#);
    let both = publish("gateway", "devices/b/telemetry", r#"{"device_id":"gateway","metric":"m","value":1}"#);
    bench.check(T0, &[gateway, both], &["device_mismatch b/m 0"]);
    assert_eq!(bench.closed(), ["b/m@0#0=1.0"]);
}

#[test]
fn publishes_in_between_are_judged_for_themselves() {
    let mut bench = bench();
    let own = publish("a", "readings", r#"{"metric":"m","value":1}"#);
    let free = Input::on("readings", r#"{"device_id":"b","metric":"m","value":1}"#);
    let nobody = Input::on("readings", r#"{"metric":"m","value":1}"#);
    bench.check(T0, &[own.clone(), free, nobody, own], &["missing_field -/m 0"]);
    assert_eq!(bench.closed(), ["a/m@0#0=2.0", "b/m@0#0=1.0"]);
}

#[test]
fn a_replay_gives_no_other_answer() {
    let mut bench = bench();
    let other = publish("a", "readings", r#"{"device_id":"b","metric":"m","value":4}"#);
    bench.check(T0, &[other], &["device_mismatch a/m 0"]);
    let replay = bench.replay(0);
    bench.check(T0, &[replay], &["device_mismatch a/m 0"]);
    // A replay of the replay's error does not either.
    let replay = bench.replay(1);
    bench.check(T0, &[replay], &["device_mismatch a/m 0"]);
}

#[test]
fn the_sentence_names_both_devices() {
    let mut bench = bench();
    let other = publish("a", "readings", r#"{"device_id":"b","metric":"m","value":4}"#);
    let effects = bench.apply(T0, &[other]);
    let Some(Effect::Error { json, .. }) = effects.first() else { panic!("{effects:?}") };
    let message = json["message"].as_str().unwrap();
    assert!(message.starts_with(r#"the client may send for device "a" only, and the payload names "b""#), "{message}");
}
