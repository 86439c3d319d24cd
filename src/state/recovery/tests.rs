use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::*;
use crate::clock::SystemClock;
use crate::core::group::GroupBlob;
use crate::disk::sim::SimDisk;
use crate::log::{Keep, Log, LogOptions, Lsn, Records, Retention, SyncPolicy};
use crate::state::key_value::KeyValue;
use crate::state::manifest::Positions;
use crate::state::savepoint::SavepointKind;
use crate::state::testing::MemoryStore;

const DATA: &str = "data";

/// A data directory whose stores are in memory, by directory.
struct RecoveryBench {
    disk: SimDisk,
    stores: Arc<Mutex<BTreeMap<PathBuf, MemoryStore>>>,
    /// Whether the store in `state` is damaged; until it is moved aside.
    damaged: Arc<Mutex<bool>>,
}

impl RecoveryBench {
    /// A data directory whose journal holds records `first` to `end`.
    fn new(first: u64, end: u64) -> Self {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("data/state")).unwrap();
        let options = LogOptions {
            name: "journal",
            dir: Path::new(DATA).join("journal"),
            segment_bytes: 4096,
            commit_max_bytes: 4096,
            queue_max_bytes: 1 << 20,
            tail_max_bytes: 4096,
            sync: SyncPolicy::EveryCommit,
            min_free_bytes: 0,
            retention: Retention { keep: Keep::Released, max_bytes: None },
            clock_tolerance_ms: 60_000,
        };
        let clock = Arc::new(SystemClock);
        let (log, _) = Log::open_at(Arc::new(disk.clone()), clock, options, Lsn(first), Lsn(first)).unwrap();
        for _ in first..end {
            let mut records = Records::default();
            records.push(b"record");
            log.append_wait(&records).unwrap();
        }
        log.close().unwrap();
        Self { disk, stores: Arc::default(), damaged: Arc::default() }
    }

    fn options(&self) -> RecoveryOptions {
        let (disk, stores, damaged) = (self.disk.clone(), self.stores.clone(), self.damaged.clone());
        let open = move |directory: &Path| -> Result<Box<dyn KeyValue>, StateError> {
            // Moving a store aside takes its directory away.
            let is_new = disk.list(directory).is_err();
            disk.create_dir_all(directory).unwrap();
            if is_new {
                stores.lock().unwrap().remove(directory);
                *damaged.lock().unwrap() = false;
            }
            if *damaged.lock().unwrap() {
                return Err(StateError::Damaged { directory: directory.into(), what: "the test says so".into() });
            }
            Ok(Box::new(stores.lock().unwrap().entry(directory.into()).or_default().clone()))
        };
        RecoveryOptions {
            disk: Arc::new(self.disk.clone()),
            clock: Arc::new(SystemClock),
            data_dir: DATA.into(),
            store: StoreOptions { open: Arc::new(open), limit: None },
        }
    }

    /// Takes a checkpoint at a journal position, and if `savepoint` is set a savepoint of it.
    fn checkpoint(&self, replay_from: u64, savepoint: bool) {
        let RecoveredState { mut store, .. } = self.open();
        store.put_groups(&[GroupBlob { group: 3, bytes: replay_from.to_le_bytes().to_vec() }]).unwrap();
        let positions = Positions { replay_from, ..Positions::default() };
        store.complete(1, positions, Vec::new()).unwrap();
        if savepoint {
            let directory = Path::new(DATA).join(savepoint::DIRECTORY);
            savepoint::write(&self.disk, &directory, &store, SavepointKind::Automatic, 1).unwrap();
        }
    }

    /// The same stores and savepoints beside a journal that begins at `first`.
    fn without_first_records(self, first: u64) -> Self {
        let other = Self::new(first, first + 50);
        let savepoints = self.disk.list(Path::new("data/savepoints")).unwrap();
        other.disk.create_dir_all(Path::new("data/savepoints")).unwrap();
        for entry in savepoints {
            let path = Path::new("data/savepoints").join(entry.name);
            let mut bytes = vec![0; entry.len as usize];
            self.disk.open_read(&path).unwrap().read_at(&mut bytes, 0).unwrap();
            other.disk.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
        }
        Self { disk: other.disk, ..self }
    }

    fn damage_store(&self) {
        *self.damaged.lock().unwrap() = true;
    }

    fn damage_savepoint(&self, replay_from: u64) {
        let name = format!("data/savepoints/savepoint-{replay_from:020}.weir");
        self.disk.flip_bit(Path::new(&name), 100, 1).unwrap();
    }

    fn open(&self) -> RecoveredState {
        open(&self.options()).unwrap()
    }

    /// Opens after the store was lost; the state must be that of `replay_from`.
    #[track_caller]
    fn check_fallback(&self, replay_from: Option<u64>) {
        let recovered = self.open();
        let found = recovered.checkpoint.as_ref().map(|checkpoint| checkpoint.manifest.positions.replay_from);
        assert_eq!(found, replay_from);
        let fallback = recovered.fallback.expect("the store was not usable");
        assert_eq!(fallback.savepoint.is_some(), replay_from.is_some());
        drop(recovered.store);
        let again = self.open();
        assert!(again.fallback.is_none(), "{:?}", again.fallback);
        // Only the slots in the store may differ.
        let state = |checkpoint: Option<Checkpoint>| {
            checkpoint.map(|checkpoint| (checkpoint.manifest.id, checkpoint.manifest.positions, checkpoint.groups))
        };
        assert_eq!(state(again.checkpoint), state(recovered.checkpoint), "what was rebuilt stays");
    }

    fn directories(&self) -> Vec<String> {
        let entries = self.disk.list(Path::new(DATA)).unwrap();
        entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect()
    }
}

#[test]
fn a_sound_store_is_used() {
    let bench = RecoveryBench::new(0, 50);
    assert!(bench.open().checkpoint.is_none());
    bench.checkpoint(20, true);
    bench.checkpoint(30, false);
    let recovered = bench.open();
    assert!(recovered.fallback.is_none());
    assert_eq!(recovered.checkpoint.unwrap().manifest.positions.replay_from, 30);
}

#[test]
fn a_damaged_store_is_replaced_by_the_newest_savepoint() {
    let bench = RecoveryBench::new(0, 50);
    for position in [15, 20, 30] {
        bench.checkpoint(position, position < 30);
    }
    let bench = bench.without_first_records(10);
    bench.damage_store();
    bench.check_fallback(Some(20));
    assert!(bench.directories().iter().any(|name| name.starts_with("state.damaged-")), "{:?}", bench.directories());
}

#[test]
fn a_damaged_savepoint_is_passed_over() {
    let bench = RecoveryBench::new(0, 50);
    bench.checkpoint(15, true);
    bench.checkpoint(20, true);
    bench.damage_store();
    bench.damage_savepoint(20);
    bench.check_fallback(Some(15));
}

#[test]
fn a_whole_journal_needs_no_savepoint() {
    let bench = RecoveryBench::new(0, 50);
    bench.checkpoint(20, false);
    bench.damage_store();
    bench.check_fallback(None);
}

#[test]
fn a_missing_store_is_filled_where_it_is() {
    let bench = RecoveryBench::new(0, 50);
    bench.checkpoint(20, true);
    bench.stores.lock().unwrap().clear();
    // The journal has its first record, so nothing proves that there ever was a checkpoint.
    assert!(bench.open().checkpoint.is_none());
    let bench = bench.without_first_records(20);
    bench.check_fallback(Some(20));
    assert!(bench.directories().iter().all(|name| !name.starts_with("state.damaged-")));
}

#[test]
fn what_nothing_covers_is_refused_and_left_alone() {
    let bench = RecoveryBench::new(0, 50);
    bench.checkpoint(5, true);
    bench.checkpoint(20, false);
    let bench = bench.without_first_records(20);
    bench.damage_store();
    let before = bench.directories();
    let error = open(&bench.options()).unwrap_err();
    assert!(error.is_damage());
    let text = error.to_string();
    assert!(text.contains("begins at record 20") && text.contains("ends before it"), "{text}");
    assert_eq!(bench.directories(), before);
}

#[test]
fn a_store_behind_the_journal_is_replaced() {
    let bench = RecoveryBench::new(0, 50);
    bench.checkpoint(5, false);
    let old = bench.stores.lock().unwrap()[Path::new("data/state")].crash(true);
    bench.checkpoint(20, true);
    let bench = bench.without_first_records(10);
    bench.stores.lock().unwrap().insert("data/state".into(), old);
    bench.check_fallback(Some(20));
}
