//! One device cannot fill the errors log.

use super::{Effect, Input, OperatorHarness, T0};
use crate::core::operator::Operator;
use crate::core::settings::{ErrorShareSettings, Settings};

const HOUR_MS: i64 = 3_600_000;

fn harness() -> OperatorHarness {
    let share = ErrorShareSettings { bytes: 10_000, refill_ms: 10 * HOUR_MS };
    OperatorHarness::new(Settings { error_share: Some(share), ..Settings::default() })
}

impl OperatorHarness {
    /// Applies a message with `count` wrong readings of a device, and returns the number of stored errors.
    fn wrong(&mut self, arrival_ms: i64, device: &str, count: usize) -> usize {
        let payload = format!("[{}]", vec![r#"{"metric":"temperature","value":"bad"}"#; count].join(","));
        let stored = self.apply(arrival_ms, &[Input::telemetry(device, payload)]);
        stored.iter().filter(|effect| matches!(effect, Effect::Error { .. })).count()
    }

    fn not_stored(&self, device: &str) -> u64 {
        self.operator.device(device).unwrap().summary.errors_not_stored
    }
}

#[test]
fn a_device_that_fills_its_share_leaves_that_of_others() {
    let mut harness = harness();
    let stored: usize = (0..500).map(|number| harness.wrong(T0 + number, "noisy", 1)).sum();
    assert!((30..60).contains(&stored), "{stored} errors of about 230 bytes in 10,000");
    assert_eq!(harness.not_stored("noisy"), 500 - stored as u64);
    assert_eq!(harness.operator.totals().errors_not_stored, 500 - stored as u64);
    assert_eq!(harness.operator.totals().rejected.iter().sum::<u64>(), 500, "all are counted");
    assert_eq!(harness.wrong(T0 + 500, "quiet", 1), 1);
    assert_eq!(harness.not_stored("quiet"), 0);
    let over = harness.operator.take_over_share();
    assert_eq!(over, [Some("noisy".into())], "told once");
    // One a minute, and all again once the share is empty.
    let minutes: Vec<usize> = (1..4).map(|minute| harness.wrong(T0 + minute * 61_000, "noisy", 1)).collect();
    assert_eq!(minutes, [1, 1, 1]);
    assert_eq!(harness.wrong(T0 + 4 * 61_000 - 30_000, "noisy", 1), 0);
    assert_eq!((0..10).map(|number| harness.wrong(T0 + 20 * HOUR_MS + number, "noisy", 1)).sum::<usize>(), 10);
}

/// What is stored of one message is not divided: its errors would be told in part.
#[test]
fn the_errors_of_a_message_are_stored_together() {
    let mut harness = harness();
    assert_eq!(harness.wrong(T0, "a", 300), 300, "more than the share, in the first message");
    assert_eq!(harness.wrong(T0 + 1, "a", 300), 0);
    assert_eq!(harness.not_stored("a"), 300);
}

/// Of two devices with a full share, in turns in one message, a minute after their last stored errors.
#[test]
fn each_device_of_a_message_is_decided_as_a_whole() {
    let mut harness = harness();
    for device in ["a", "b"] {
        harness.wrong(T0, device, 300);
    }
    let element = |at: usize| format!(r#"{{"device_id":"{}","metric":"m","value":"bad"}}"#, ["a", "b"][at % 2]);
    let payload = format!("[{}]", (0..40).map(element).collect::<Vec<_>>().join(","));
    assert_eq!(harness.apply(T0 + 1_000, &[Input::on("any", payload.clone())]).len(), 0);
    assert_eq!(harness.apply(T0 + 61_000, &[Input::on("any", payload.clone())]).len(), 40);
    assert_eq!(harness.apply(T0 + 62_000, &[Input::on("any", payload)]).len(), 0);
    assert_eq!((harness.not_stored("a"), harness.not_stored("b")), (40, 40));
}

/// More devices are over their share in one batch than are told of at once.
#[test]
fn each_device_over_its_share_is_told_of() {
    let mut harness = harness();
    let names: Vec<_> = (0..150).map(|number| format!("d{number:03}")).collect();
    for name in &names {
        harness.wrong(T0, name, 300);
    }
    let wrong: Vec<_> = names.iter().map(|name| Input::telemetry(name, r#"{"metric":"m","value":"bad"}"#)).collect();
    let mut told = Vec::new();
    for later in 1..4 {
        harness.apply(T0 + later, &wrong);
        told.push(harness.operator.take_over_share());
    }
    assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [100, 50, 0]);
    told.concat().iter().zip(&names).for_each(|(told, name)| assert_eq!(told.as_deref(), Some(name.as_str())));
}

#[test]
fn errors_without_a_device_have_a_share_of_their_own() {
    let mut harness = harness();
    let stored: usize = (0..500).map(|number| harness.apply(T0 + number, &[Input::on("other", "[1]")]).len()).sum();
    assert!((80..130).contains(&stored), "{stored}");
    assert_eq!(harness.wrong(T0 + 500, "a", 1), 1);
    assert_eq!(harness.operator.take_over_share(), [None]);
    assert_eq!(harness.operator.totals().errors_not_stored, 500 - stored as u64);
}

/// A known device that names others, or that may no longer send, fills its own share and not that of errors without a device.
#[test]
fn a_known_device_fills_its_own_share_whatever_the_reason() {
    let mut harness = harness();
    harness.apply(T0, &[Input::telemetry("noisy", r#"{"metric":"m","value":1}"#)]);
    let other = r#"{"device_id":"other","metric":"m","value":1}"#;
    let stored: usize =
        (0..500).map(|number| harness.apply(T0 + number, &[Input::telemetry("noisy", other)]).len()).sum();
    assert!((20..60).contains(&stored), "{stored}");
    assert_eq!(harness.not_stored("noisy"), 500 - stored as u64);
    assert_eq!(harness.apply(T0 + 500, &[Input::on("other", "[1]")]).len(), 1);
    assert_eq!(harness.operator.take_over_share(), [Some("noisy".into())]);
}

#[test]
fn shares_are_part_of_the_state() {
    let mut harness = harness();
    for number in 0..200 {
        harness.wrong(T0 + number, "noisy", 1);
        harness.apply(T0 + number, &[Input::on("other", "[1]")]);
    }
    let header = harness.operator.begin_snapshot();
    let mut groups = Vec::new();
    while !harness.operator.snapshot_step(64, &mut groups) {}
    let groups = groups.iter().map(|blob| (blob.group, blob.bytes.as_slice()));
    let restored = Operator::restore(&header, groups).unwrap();
    assert_eq!(restored.totals(), harness.operator.totals());
    let mut again = OperatorHarness { operator: restored, lsn: harness.lsn, effects: super::Effects::default() };
    assert_eq!(again.not_stored("noisy"), harness.not_stored("noisy"));
    assert_eq!((again.wrong(T0 + 200, "noisy", 1), again.apply(T0 + 200, &[Input::on("other", "[1]")]).len()), (0, 0));
}
