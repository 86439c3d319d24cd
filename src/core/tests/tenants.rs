//! Devices of tenants: two tenants may use the same device ids, and never meet.

use super::*;
use crate::core::settings::TenantSettings;

fn settings() -> Settings {
    let tenant = |prefix: &str, max_devices| TenantSettings { prefix: prefix.into(), max_devices };
    let tenants = vec![tenant("acme/", Some(2)), tenant("site/b/", None)];
    let telemetry_topics = vec!["devices/+/telemetry".into(), "readings".into()];
    Settings { tenants, telemetry_topics, store_duplicates: true, ..flink() }
}

fn bench() -> OperatorHarness {
    OperatorHarness::new(settings())
}

fn of(prefix: &str, payload: impl Into<Vec<u8>>) -> Input {
    Input::on(&format!("{prefix}devices/pump/telemetry"), payload)
}

/// The ids of all devices, with the numbers of readings in windows.
fn counted(bench: &OperatorHarness) -> Vec<(String, u64)> {
    bench.operator.devices(None, 99).into_iter().map(|device| (device.device_id, device.accepted)).collect()
}

#[test]
fn the_same_id_is_another_device_of_each_tenant() {
    let mut bench = bench();
    let all: Vec<_> = ["", "acme/", "site/b/", "acme/"].iter().map(|prefix| of(prefix, numbered(1, 0, 1.0))).collect();
    bench.check(T0, &all, &["duplicate acme/pump/m 0"]);
    let expected = [("acme/pump", 1), ("pump", 1), ("site/b/pump", 1)];
    assert_eq!(counted(&bench), expected.map(|(id, count)| (id.to_owned(), count)));
    // One's time closes no window of another.
    bench.check(T0, &[of("acme/", numbered(2, 60_000, 2.0))], &["acme/pump/m@0#0=1.0"]);
    bench.check(T0, &[of("", numbered(2, 0, 2.0)), of("", numbered(3, 60_000, 2.0))], &["pump/m@0#0=3.0"]);
}

/// A payload names a device as its tenant knows it, so that it can name none of another tenant.
#[test]
fn a_payload_names_no_device_of_another_tenant() {
    let named = |id: &str| format!(r#"{{"device_id":"{id}","metric":"m","value":1}}"#);
    let mut bench = bench();
    bench.check(T0, &[of("acme/", named("pump")), Input::on("acme/readings", named("fan"))], &[]);
    let wrong = ["acme/pump", "site/b/pump", "/pump"];
    let on = |topic: &str| wrong.iter().map(|id| Input::on(topic, named(id))).collect::<Vec<_>>();
    bench.check(T0, &on("readings"), &["invalid_device_id -/m 0"; 3]);
    bench.check(T0, &on("site/b/readings"), &["invalid_device_id -/m 0"; 3]);
    bench.check(T0, &on("acme/readings"), &["invalid_device_id -/m 0"; 3]);
    let mixed = format!("[{},{}]", named("fan"), named("acme/fan"));
    bench.check(T0, &[Input::on("acme/readings", mixed)], &["invalid_device_id -/m 1"]);
    bench.check(T0, &[of("acme/", named("fan"))], &["device_mismatch acme/pump/m 0"]);
    assert_eq!(counted(&bench), [("acme/fan".into(), 2), ("acme/pump".into(), 1)]);
}

#[test]
fn runs_of_messages_keep_tenants_apart() {
    let mut bench = bench();
    let one = |prefix: &str| of(prefix, r#"{"metric":"m","value":1}"#);
    bench.apply(T0, &[one("acme/"), one("acme/"), one(""), one("acme/"), one("site/b/"), one("")]);
    assert_eq!(counted(&bench), [("acme/pump".into(), 3), ("pump".into(), 2), ("site/b/pump".into(), 1)]);
}

#[test]
fn a_tenant_has_its_own_limit_of_devices() {
    let mut bench = bench();
    let on = |prefix: &str, id: &str| Input::on(&format!("{prefix}devices/{id}/telemetry"), reading(0, 1.0));
    let inputs = [on("acme/", "a"), on("acme/", "b"), on("acme/", "c"), on("site/b/", "c"), on("", "c")];
    bench.check(T0, &inputs, &["too_many_devices acme/c/m 0"]);
    assert_eq!(bench.operator.totals().devices_refused, [0, 0, 0, 1]);
    let mut forget = Vec::new();
    record::encode_forget(["acme/a"], &mut forget);
    bench.check(T0, &[Input::Encoded(forget), on("acme/", "c")], &["acme/a/m@0#0=1.0"]);
}

#[test]
fn an_allow_list_has_full_ids() {
    let allowed_devices = vec!["pump".to_owned(), "acme/fan".to_owned()];
    let mut bench = OperatorHarness::new(Settings { allowed_devices, ..settings() });
    let named = |id: &str| format!(r#"{{"device_id":"{id}","metric":"m","value":1}}"#);
    let inputs = [of("", named("pump")), of("acme/", named("pump")), Input::on("acme/readings", named("fan"))];
    let effects = bench.apply(T0, &inputs);
    let [Effect::Error { json, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&json["reason"], &json["device_id"]), (&"unknown_device".into(), &"acme/pump".into()));
    assert!(json["message"].as_str().unwrap().starts_with(r#"device "pump" is not"#), "as the tenant knows it: {json}");
    // A replay is of the same tenant.
    bench.check(T0, &[bench.replay(0)], &["unknown_device acme/pump/m 0"]);
}

#[test]
fn a_message_that_cannot_be_decoded_counts_for_its_device() {
    let mut bench = bench();
    bench.check(T0, &[of("acme/", reading(0, 1.0)), of("acme/", "junk")], &["malformed acme/pump/- 0"]);
    assert_eq!(bench.operator.device("acme/pump").unwrap().summary.rejected.len(), 1);
}
