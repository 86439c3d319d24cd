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
    Settings { store_duplicates: true, ..Settings::default() }
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
