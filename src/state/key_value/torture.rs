//! Real sled on real files, torn by power cuts and damaged by what disks do.
//!
//! Whatever is found in the directory, opening it gives the last complete checkpoint or the one that was being written,
//! or says that the store is damaged. It never gives an older or mixed state, and never keeps the caller waiting.

mod files;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::core::operator::GroupBlob;
use crate::disk::RealDisk;
use crate::state::StateError;
use crate::state::key_value::{KeyValue, MAX_VALUE_BYTES, SledStore};
use crate::state::manifest::Positions;
use crate::state::store::{Checkpoint, Store, open_within};

use files::{Capture, Random, write_image};

/// Far more than an open takes; a store that spins is given up after it.
const LIMIT: Duration = Duration::from_secs(5);

fn open(directory: &Path) -> Result<(Store, Option<Checkpoint>), StateError> {
    let owned = directory.to_owned();
    open_within(LIMIT, directory, move || {
        SledStore::open(&owned, Arc::new(RealDisk)).map(|store| Box::new(store) as Box<dyn KeyValue>)
    })
}

/// Key groups that checkpoint `id` changes: some of them each time, so that groups of many ages stand side by side.
fn changed_groups(id: u64) -> Vec<GroupBlob> {
    (0..48u16).filter(|group| changed_groups_contain(id, *group)).map(|group| blob(id, group)).collect()
}

fn blob(id: u64, group: u16) -> GroupBlob {
    let mut random = Random(id << 16 | u64::from(group));
    let longest = if group % 16 == 7 { 2 * MAX_VALUE_BYTES as u64 } else { 4_000 };
    let len = 1 + random.below(longest) as usize;
    GroupBlob { group, bytes: random.bytes(len) }
}

/// What checkpoint `id` must hold.
fn expected_groups(id: u64) -> Vec<GroupBlob> {
    let newest = |group: &u16| (1..=id).rev().find(|id| changed_groups_contain(*id, *group));
    (0..48u16).filter_map(|group| newest(&group).map(|id| blob(id, group))).collect()
}

fn changed_groups_contain(id: u64, group: u16) -> bool {
    id == 1 || (u64::from(group) + id).is_multiple_of(3)
}

fn header(id: u64) -> Vec<u8> {
    Random(id).bytes(200)
}

fn take_checkpoint(store: &mut Store) -> Result<u64, StateError> {
    let id = store.last_id() + 1;
    store.put_groups(&changed_groups(id))?;
    let positions = Positions { replay_from: id * 100, windows: id * 10, errors: id };
    store.complete(id as i64, positions, header(id)).map(|(id, _)| id)
}

/// How the opening of images ended.
#[derive(Debug, Default)]
struct Outcomes {
    /// The last checkpoint that was complete.
    complete: u32,
    /// The one that was being written.
    next: u32,
    error: u32,
    panic: u32,
    hang: u32,
}

impl Outcomes {
    /// Opens what is in the directory, where checkpoint `completed` was complete and synced.
    #[track_caller]
    fn look(&mut self, directory: &Path, completed: u64, what: &str) -> Option<u64> {
        match open(directory) {
            Ok((_, found)) => {
                let id = found.as_ref().map_or(0, |checkpoint| checkpoint.manifest.id);
                assert!(
                    id == completed || id == completed + 1,
                    "{what}: checkpoint {id} where {completed} was complete"
                );
                if let Some(checkpoint) = found {
                    assert_eq!(checkpoint.manifest.header, header(id), "{what}: header of {id}");
                    assert!(checkpoint.groups == expected_groups(id), "{what}: groups of {id}");
                }
                *(if id == completed { &mut self.complete } else { &mut self.next }) += 1;
                Some(id)
            }
            Err(error) => {
                assert!(error.is_damage(), "{what}: not told as damage: {error:?}");
                let count = match error {
                    StateError::Panicked { .. } => &mut self.panic,
                    StateError::TimedOut { .. } => &mut self.hang,
                    _ => &mut self.error,
                };
                *count += 1;
                None
            }
        }
    }
}

/// A store with `count` checkpoints; every moment between two syncs is remembered.
fn history(directory: &Path, count: u64) -> Capture {
    let capture = Capture::new(directory);
    let values = SledStore::open(directory, Arc::new(capture.clone())).expect("an empty store opens");
    let (mut store, _) = Store::load(Box::new(values), directory.to_owned()).expect("an empty store loads");
    for _ in 0..count {
        let id = take_checkpoint(&mut store).expect("a checkpoint is taken");
        capture.completed(id);
    }
    capture
}

#[test]
fn power_cuts_leave_a_whole_checkpoint_or_are_told() {
    let seed = files::seed();
    let directory = tempfile::tempdir().expect("a directory");
    let capture = history(&directory.path().join("store"), 12);
    let moments = capture.moments();
    let mut outcomes = Outcomes::default();
    let mut random = Random(seed);
    for round in 0..400 {
        let moment = &moments[random.below(moments.len() as u64) as usize];
        let what = format!("seed {seed}, image {round}");
        let image = files::torn(&moment.synced, &moment.unsynced, &mut random);
        let at = directory.path().join(format!("image-{round}"));
        write_image(&at, &image);
        outcomes.look(&at, moment.completed, &what);
        std::fs::remove_dir_all(&at).expect("an image can be removed");
    }
    println!("seed {seed}: {outcomes:?}");
}

#[test]
fn what_was_synced_is_found_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let capture = history(&directory.path().join("store"), 12);
    let mut outcomes = Outcomes::default();
    for (index, moment) in capture.moments().iter().enumerate() {
        for (name, image) in [("synced", &moment.synced), ("unsynced", &moment.unsynced)] {
            let at = directory.path().join(format!("{name}-{index}"));
            write_image(&at, image);
            let found = outcomes.look(&at, moment.completed, &format!("{name} image {index}"));
            assert!(found.is_some(), "{name} image {index} is damaged");
        }
    }
    println!("{outcomes:?}");
}
