//! An operator that is restored from a snapshot in mid-course continues as one that never stopped.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::properties::{Batches, batches, inputs, settings};
use super::{Effects, Input, OperatorHarness, T0, numbered, reading};
use crate::core::group::{GroupBlob, KEY_GROUPS};
use crate::core::operator::Operator;
use crate::core::settings::Settings;

/// The content of a checkpoint store: the newest blob of every group.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct SnapshotStore {
    header: Vec<u8>,
    groups: BTreeMap<u16, Vec<u8>>,
}

impl SnapshotStore {
    fn put(&mut self, blobs: &mut Vec<GroupBlob>) {
        self.groups.extend(blobs.drain(..).map(|blob| (blob.group, blob.bytes)));
    }

    /// A whole snapshot at once.
    pub fn take(&mut self, operator: &mut Operator) -> usize {
        let mut blobs = Vec::new();
        self.header = operator.begin_snapshot();
        while !operator.snapshot_step(3, &mut blobs) {}
        let count = blobs.len();
        self.put(&mut blobs);
        count
    }

    pub fn restore(&self) -> Operator {
        Operator::restore(&self.header, self.groups.iter().map(|(&group, bytes)| (group, bytes.as_slice()))).unwrap()
    }
}

/// The whole state: a snapshot of every group.
fn whole(operator: &mut Operator) -> SnapshotStore {
    operator.snapshot_failed();
    let mut store = SnapshotStore::default();
    store.take(operator);
    store.groups.retain(|_, bytes| bytes.len() > 3);
    store
}

/// Takes snapshots at the given batches while it continues, at most one group per batch. Then restores the last complete
/// snapshot and continues from the batch at which it began.
fn check(settings: Settings, batches: &Batches, at: &[usize]) {
    let batches = inputs(&settings, batches);
    let mut bench = OperatorHarness::new(settings);
    let mut all = Vec::new();
    let mut store = SnapshotStore::default();
    let mut complete: Option<(SnapshotStore, usize, u64)> = None;
    let mut running: Option<(SnapshotStore, usize, u64)> = None;
    for (index, (arrival_ms, records)) in batches.iter().enumerate() {
        if at.contains(&index) && running.is_none() {
            let header = bench.operator.begin_snapshot();
            running = Some((SnapshotStore { header, ..store.clone() }, index, bench.lsn));
        }
        all.push(bench.apply(*arrival_ms, records));
        if let Some((mut snapshot, begun, lsn)) = running.take() {
            let mut blobs = Vec::new();
            let done = bench.operator.snapshot_step(1, &mut blobs);
            snapshot.put(&mut blobs);
            if done {
                store = snapshot.clone();
                complete = Some((snapshot, begun, lsn));
            } else {
                running = Some((snapshot, begun, lsn));
            }
        }
    }
    let Some((snapshot, begun, lsn)) = complete else { return };
    let mut restored = OperatorHarness { operator: snapshot.restore(), lsn, effects: Effects::default() };
    for (index, (arrival_ms, records)) in batches.iter().enumerate().skip(begun) {
        assert_eq!(restored.apply(*arrival_ms, records), all[index], "batch {index}");
    }
    assert_eq!(restored.operator.totals(), bench.operator.totals());
    assert_eq!(restored.operator.sizes(), bench.operator.sizes());
    assert_eq!(restored.operator.event_time(), bench.operator.event_time());
    assert_eq!(restored.operator.last_windows(i64::MIN, 99), bench.operator.last_windows(i64::MIN, 99));
    assert_eq!(whole(&mut restored.operator), whole(&mut bench.operator));
}

fn devices(count: usize) -> OperatorHarness {
    let mut bench = OperatorHarness::new(Settings::default());
    let inputs: Vec<_> = (0..count).map(|i| Input::telemetry(&format!("d{i}"), numbered(1, 0, 1.0))).collect();
    bench.apply(T0, &inputs);
    bench
}

#[test]
fn only_what_changed_is_stored() {
    let mut bench = devices(50);
    let mut store = SnapshotStore::default();
    assert!(store.take(&mut bench.operator) > 20);
    assert_eq!(store.take(&mut bench.operator), 0);
    bench.apply(T0, &[Input::telemetry("d7", reading(1, 1.0))]);
    // The device, and the client that published without a sequence number.
    assert_eq!(store.take(&mut bench.operator), 2);
    assert_eq!(whole(&mut store.restore()), whole(&mut bench.operator));
    bench.operator.snapshot_failed();
    assert_eq!(store.take(&mut bench.operator), usize::from(KEY_GROUPS));
}

#[test]
fn a_group_about_to_change_is_stored_as_it_was() {
    let mut bench = devices(50);
    let before = whole(&mut devices(50).operator);
    let header = bench.operator.begin_snapshot();
    let inputs: Vec<_> = (0..60).map(|i| Input::telemetry(&format!("d{i}"), numbered(2, 60_000, 1.0))).collect();
    bench.apply(T0 + 100_000, &inputs);
    let mut blobs = Vec::new();
    assert!(!bench.operator.snapshot_step(1, &mut blobs));
    assert!(bench.operator.snapshot_step(9999, &mut blobs));
    let mut store = SnapshotStore { header, ..SnapshotStore::default() };
    store.put(&mut blobs);
    assert_eq!(store, before);
}

#[test]
fn an_unfinished_snapshot_counts_as_failed() {
    let mut bench = devices(50);
    bench.operator.begin_snapshot();
    bench.operator.snapshot_step(5, &mut Vec::new());
    let mut store = SnapshotStore::default();
    store.take(&mut bench.operator);
    assert_eq!(whole(&mut store.restore()), whole(&mut bench.operator));
}

#[test]
fn settings_are_restored() {
    let settings = Settings { window_ms: 7, max_age_ms: None, ..Settings::default() };
    let mut operator = Operator::new(settings.clone());
    assert_eq!(Operator::restore(&operator.begin_snapshot(), [].into_iter()).unwrap().settings(), &settings);
}

#[test]
fn damaged_state_is_refused() {
    let mut bench = devices(3);
    let store = whole(&mut bench.operator);
    let (&group, bytes) = store.groups.first_key_value().unwrap();
    let refuse = |header: &[u8], groups: &[(u16, &[u8])], expected: &str| {
        let error = Operator::restore(header, groups.iter().copied()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refuse(&[], &[], "header");
    refuse(&[9], &[], "unknown format in the header");
    for len in 0..store.header.len() {
        refuse(&store.header[..len], &[], "header");
    }
    for len in 0..bytes.len() {
        refuse(&store.header, &[(group, &bytes[..len])], "key group");
    }
    refuse(&store.header, &[(group ^ 1, bytes)], "does not belong there");
    refuse(&store.header, &[(KEY_GROUPS, bytes)], "no such group");
    refuse(&store.header, &[(group, bytes), (group, bytes)], "a second blob");
}

#[test]
fn after_a_change_of_settings_too() {
    let mut bench = devices(5);
    bench.apply(T0, &[Input::telemetry("d1", reading(60_000, 1.0))]);
    let larger = Settings { window_ms: 7_000, allowed_lateness_ms: 60_000, ..Settings::default() };
    bench.operator.reconfigure(larger, &mut bench.effects);
    bench.effects.0.clear();
    let mut store = SnapshotStore::default();
    store.take(&mut bench.operator);
    let mut restored = OperatorHarness { operator: store.restore(), lsn: bench.lsn, effects: Effects::default() };
    for offset in [0, 4_000, 59_000, 61_000, 68_000, 90_000, 66_000] {
        let input = [Input::telemetry("d1", reading(offset, 1.0))];
        assert_eq!(restored.apply(T0 + offset, &input), bench.apply(T0 + offset, &input));
    }
    assert_eq!(whole(&mut restored.operator), whole(&mut bench.operator));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn restored_is_never_stopped(settings in settings(), batches in batches(), at in prop::collection::vec(0usize..30, 1..6)) {
        check(settings, &batches, &at);
    }
}
