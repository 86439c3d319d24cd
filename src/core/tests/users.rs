//! Who published: clients of two users never meet, whatever their client identifiers.

use super::*;

const BARE: &str = r#"{"metric":"m","value":1}"#;

fn bare() -> Input {
    Input::telemetry("a", BARE)
}

fn of(user: Option<&str>) -> Input {
    user.map_or_else(bare, |name| bare().of_user(name))
}

fn settings() -> Settings {
    Settings { store_duplicates: true, ..flink() }
}

/// One user publishes, and another one sends the same message with the same client identifier and packet identifier as a
/// redelivery: whether it is taken as a duplicate.
fn check(first: Option<&str>, second: Option<&str>, expected: &[&str]) {
    let mut bench = OperatorHarness::new(settings());
    bench.check(T0, &[of(first)], &[]);
    bench.check(T0, &[of(second).again()], expected);
}

#[test]
fn a_redelivery_is_of_the_same_user() {
    check(Some("a"), Some("a"), &["duplicate a/m 0"]);
    check(Some("a"), Some("b"), &[]);
    check(Some("a"), None, &[]);
    check(None, Some("a"), &[]);
    check(None, None, &["duplicate a/m 0"]);
}

#[test]
fn another_user_does_not_displace_what_a_client_published() {
    let mut bench = OperatorHarness::new(settings());
    bench.check(T0, &[of(Some("a"))], &[]);
    let others: Vec<_> = (0..100).map(|n| Input::telemetry("a", format!(r#"{{"metric":"m","value":{n}}}"#))).collect();
    bench.apply(T0, &others.into_iter().map(|input| input.of_user("b")).collect::<Vec<_>>());
    bench.check(T0, &[of(Some("a")).again()], &["duplicate a/m 0"]);
}

/// The journal of an earlier version does not say who published. After the upgrade, a client sends again what it had in
/// flight.
#[test]
fn a_record_without_its_user_is_of_any_user() {
    let before = Settings { records_name_users: false, ..settings() };
    let mut bench = OperatorHarness::new(before);
    bench.check(T0, &[bare(), bare().again()], &["duplicate a/m 0"]);
    bench.check(T0, &[Input::Settings(Box::new(settings()))], &[]);
    for user in [Some("a"), Some("b"), None] {
        bench.check(T0, &[of(user).again()], &["duplicate a/m 0"]);
    }
    let new = || Input::telemetry("a", r#"{"metric":"m","value":2}"#).of_user("a");
    bench.check(T0, &[new(), new().again(), new().of_user("b").again()], &["duplicate a/m 0"]);
}

#[test]
fn an_error_and_its_replay_name_the_user() {
    let mut bench = OperatorHarness::new(settings());
    let effects = bench.apply(T0, &[Input::telemetry("a", "{}").of_user("u")]);
    let [Effect::Error { json, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(json["user"], "u");
    let effects = bench.apply(T0, &[bench.replay(0)]);
    let [Effect::Error { json, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&json["user"], &json["replay_of"]), (&"u".into(), &0.into()));
}

/// One reading of a new device in each message, of the user whose letter the device id begins with.
fn new_devices(ids: &[&str]) -> Vec<Input> {
    ids.iter().map(|id| Input::telemetry(id, reading(0, 1.0)).of_user(&id[..1])).collect()
}

#[test]
fn a_user_at_its_share_leaves_room_for_others() {
    let mut bench = OperatorHarness::new(Settings { max_devices_per_user: Some(2), max_devices: 4, ..settings() });
    let full = ["too_many_devices u3/m 0", "too_many_devices u4/m 0", "too_many_devices v3/m 0"];
    bench.check(T0, &new_devices(&["u1", "u2", "u3", "u4", "v1", "u1", "v2", "v3"]), &full);
    let effects = bench.apply(T0, &new_devices(&["u3", "w1"]));
    let said = effects.iter().map(|effect| match effect {
        Effect::Error { json, .. } => json["message"].as_str().unwrap().to_owned(),
        Effect::Window { .. } => panic!("{effect:?}"),
    });
    let said: Vec<_> = said.collect();
    assert!(said[0].contains("limits.devices = 4") && said[1].contains("limits.devices = 4"), "{said:?}");
    assert_eq!(bench.operator.totals().devices_refused, [3, 2, 0, 0]);
}

#[test]
fn new_devices_of_a_user_are_counted_for_an_hour() {
    const HOUR_MS: i64 = 3_600_000;
    let limits = Settings { max_new_devices_per_hour: Some(2), max_age_ms: None, idle_timeout_ms: None, ..settings() };
    let mut bench = OperatorHarness::new(limits);
    bench.check(T0, &new_devices(&["u1"]), &[]);
    bench.check(T0 + 10, &new_devices(&["u2", "u3", "v1"]), &["too_many_devices u3/m 0"]);
    bench.check(T0 + HOUR_MS - 1, &new_devices(&["u3", "v2"]), &["too_many_devices u3/m 0"]);
    bench.check(T0 + HOUR_MS, &new_devices(&["u3", "u4"]), &["too_many_devices u4/m 0"]);
    bench.check(T0 + HOUR_MS + 10, &new_devices(&["u4"]), &[]);
    assert_eq!(bench.operator.totals().devices_refused, [0, 0, 3, 0]);
}

/// The bytes of a record that lets devices be forgotten.
fn forget(ids: &[&str]) -> Input {
    let mut bytes = Vec::new();
    record::encode_forget(ids.iter().copied(), &mut bytes);
    Input::Encoded(bytes)
}

#[test]
fn a_forgotten_device_fires_and_leaves_its_place() {
    let limits = Settings { max_devices_per_user: Some(2), max_new_devices_per_hour: Some(2), ..settings() };
    let mut bench = OperatorHarness::new(limits);
    bench.check(T0, &new_devices(&["u1", "u2", "u3"]), &["too_many_devices u3/m 0"]);
    bench.check(T0, &[forget(&["u1", "nobody", "u1"])], &["u1/m@0#0=1.0"]);
    assert!(bench.operator.device("u1").is_none());
    assert_eq!((bench.operator.totals().devices_forgotten, bench.operator.totals().devices_expired), (1, 0));
    bench.check(T0, &new_devices(&["u3", "u1"]), &["too_many_devices u1/m 0"]);
    let sizes = bench.operator.sizes();
    assert_eq!((sizes.devices, sizes.series, sizes.open_windows, sizes.windows), (2, 2, 2, 2));
}

#[test]
fn what_comes_behind_is_of_a_new_device() {
    let mut bench = OperatorHarness::new(settings());
    let first = Input::telemetry("a", numbered(1, 0, 1.0));
    let late = Input::telemetry("a", numbered(2, 1, 2.0));
    bench.check(T0, &[first.clone(), Input::telemetry("a", numbered(3, 9_000, 4.0))], &["a/m@0#0=1.0"]);
    // A late reading of the same batch is told before its device is forgotten.
    let effects = ["a/m@0#1=3.0", "a/m@5000#0=4.0"];
    bench.check(T0, &[late, forget(&["a"]), first], &effects);
    assert_eq!(bench.operator.device("a").unwrap().sequence_ranges, [(1, 1)]);
}

#[test]
fn a_device_remembers_who_introduced_it() {
    let mut bench = OperatorHarness::new(settings());
    bench.check(T0, &[Input::telemetry("a", reading(0, 1.0)).of_user("u")], &[]);
    bench.check(T0 + 5, &[Input::telemetry("a", reading(0, 1.0)).of_user("v")], &[]);
    bench.check(T0 + 7, &[Input::telemetry("b", reading(0, 1.0))], &[]);
    let seen: Vec<_> =
        bench.operator.devices(None, 9).into_iter().map(|d| (d.introduced_by, d.first_seen_ms)).collect();
    assert_eq!(seen, [(Some("u".into()), Some(T0)), (None, Some(T0 + 7))]);
}
