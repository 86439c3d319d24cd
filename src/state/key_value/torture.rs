//! Real sled on real files, torn by power cuts and damaged as disks damage files.
//!
//! Whatever is in the directory, opening it gives the last complete checkpoint or the one that was being written, or an error
//! that says that the store is damaged. It never gives an older or mixed state, and never hangs.

mod files;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::core::group::GroupBlob;
use crate::disk::RealDisk;
use crate::random::Random;
use crate::state::StateError;
use crate::state::checkpoint_store::{Checkpoint, CheckpointStore};
use crate::state::key_value::{MAX_VALUE_BYTES, SledStore};
use crate::state::manifest::Positions;
use crate::state::open::StoreOptions;

use files::{Capture, Image, read_image, write_image};

/// Time after which a store that spins is given up. It is far longer than an open takes.
const LIMIT: Duration = Duration::from_secs(5);

/// Number of torn images in one run.
const IMAGES: u32 = 400;

fn open(directory: &Path) -> Result<(CheckpointStore, Option<Checkpoint>), StateError> {
    CheckpointStore::open(StoreOptions::sled(Arc::new(RealDisk), LIMIT), directory)
}

/// Key groups that checkpoint `id` changes: a part of them each time, so that the store holds groups of many ages.
fn changed_groups(id: u64) -> Vec<GroupBlob> {
    (0..48u16).filter(|group| changed_groups_contain(id, *group)).map(|group| blob(id, group)).collect()
}

fn blob(id: u64, group: u16) -> GroupBlob {
    let mut random = Random::new(id << 16 | u64::from(group));
    let longest = if group % 16 == 7 { 2 * MAX_VALUE_BYTES as u64 } else { 4_000 };
    let len = 1 + random.below(longest) as usize;
    GroupBlob { group, bytes: random.bytes(len) }
}

/// The key groups that checkpoint `id` must hold.
fn expected_groups(id: u64) -> Vec<GroupBlob> {
    let newest = |group: &u16| (1..=id).rev().find(|id| changed_groups_contain(*id, *group));
    (0..48u16).filter_map(|group| newest(&group).map(|id| blob(id, group))).collect()
}

fn changed_groups_contain(id: u64, group: u16) -> bool {
    id == 1 || (u64::from(group) + id).is_multiple_of(3)
}

fn header(id: u64) -> Vec<u8> {
    Random::new(id).bytes(200)
}

fn take_checkpoint(store: &mut CheckpointStore) -> Result<u64, StateError> {
    let id = store.last_id() + 1;
    store.put_groups(&changed_groups(id))?;
    let positions = Positions { replay_from: id * 100, windows: id * 10, errors: id };
    store.complete(id as i64, positions, header(id)).map(|(id, _)| id)
}

/// Numbers of opened images, by outcome.
#[derive(Debug, Default)]
struct Outcomes {
    /// The last checkpoint that was complete.
    complete: u32,
    /// The checkpoint that was being written.
    next: u32,
    error: u32,
    panic: u32,
    hang: u32,
}

impl Outcomes {
    /// Opens the store in the directory. Checkpoint `completed` was complete and synced.
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
                self.told(&error, what);
                None
            }
        }
    }

    /// Like `look`, for damage that may affect bytes that were synced long ago. Returns 1 for an older checkpoint.
    #[track_caller]
    fn look_at_any(&mut self, directory: &Path, last: u64, what: &str) -> u32 {
        let found = match open(directory) {
            Ok((_, found)) => found,
            Err(error) => {
                self.told(&error, what);
                return 0;
            }
        };
        let id = found.as_ref().map_or(0, |checkpoint| checkpoint.manifest.id);
        assert!(id <= last, "{what}: checkpoint {id} of {last}");
        if let Some(checkpoint) = found {
            assert_eq!(checkpoint.manifest.header, header(id), "{what}: header of {id}");
            assert!(checkpoint.groups == expected_groups(id), "{what}: groups of {id}");
        }
        self.complete += 1;
        u32::from(id < last)
    }

    #[track_caller]
    fn told(&mut self, error: &StateError, what: &str) {
        assert!(error.is_damage(), "{what}: not told as damage: {error:?}");
        let count = match error {
            StateError::Panicked { .. } => &mut self.panic,
            StateError::TimedOut { .. } => &mut self.hang,
            _ => &mut self.error,
        };
        *count += 1;
    }
}

/// A store with `count` checkpoints; every moment between two syncs is remembered.
fn history(directory: &Path, count: u64) -> Capture {
    let capture = Capture::new(directory);
    let values = SledStore::open(directory, Arc::new(capture.clone())).expect("an empty store opens");
    let (mut store, _) = CheckpointStore::load(Box::new(values), directory.to_owned()).expect("an empty store loads");
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
    let mut random = Random::new(seed);
    for round in 0..IMAGES {
        let moment = &moments[random.below(moments.len() as u64) as usize];
        let what = format!("seed {seed}, image {round}");
        let image = files::torn(&moment.synced, &moment.unsynced, &mut random);
        let at = directory.path().join(format!("image-{round}"));
        write_image(&at, &image);
        outcomes.look(&at, moment.completed, &what);
        std::fs::remove_dir_all(&at).expect("an image can be removed");
    }
    println!("seed {seed}: {outcomes:?}");
    // Crashes are ordinary. Apart from sled's own weakness they must not cost the store.
    let damaged = outcomes.error + outcomes.panic + outcomes.hang;
    assert!(damaged < IMAGES / 10, "seed {seed}: {damaged} of {IMAGES} images are damaged");
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

/// A store with `count` checkpoints after its process ended.
fn finished(directory: &Path, count: u64) -> Image {
    drop(history(directory, count));
    read_image(directory)
}

/// Opens damaged images of a store whose last checkpoint is `last`. Unlike a power cut, damage may affect bytes that were
/// synced long ago. The open may then give an older checkpoint, whole; whether it can be used depends on the journal.
fn look_at_damage(count: u32, last: u64, mut damage: impl FnMut(&mut Image, &mut Random) -> String) {
    let mut random = Random::new(files::seed());
    let directory = tempfile::tempdir().expect("a directory");
    let whole = finished(&directory.path().join("store"), last);
    let (mut outcomes, mut older) = (Outcomes::default(), 0);
    for round in 0..count {
        let mut image = whole.clone();
        let what = format!("image {round}: {}", damage(&mut image, &mut random));
        let at = directory.path().join(format!("image-{round}"));
        write_image(&at, &image);
        older += outcomes.look_at_any(&at, last, &what);
        // The thread that opened a store that hangs still holds it.
        let _ = std::fs::remove_dir_all(&at);
    }
    println!("{outcomes:?}, of the complete ones {older} older");
}

#[test]
fn flipped_bits_are_told_or_harmless() {
    look_at_damage(150, 6, |image, random| {
        let names: Vec<_> = image.keys().cloned().collect();
        // Mostly sled's log itself.
        let name =
            if random.below(8) > 0 { Path::new("db") } else { &names[random.below(names.len() as u64) as usize] };
        let bytes = image.get_mut(name).expect("a file of the image");
        let flips = 1 + random.below(3);
        for _ in 0..flips {
            let Some(len) = (bytes.len() as u64).checked_sub(1) else { continue };
            bytes[random.below(len + 1) as usize] ^= 1 << random.below(8);
        }
        format!("{flips} bits of {}", name.display())
    });
}

#[test]
fn a_file_cut_anywhere_is_told_or_harmless() {
    look_at_damage(80, 6, |image, random| {
        let bytes = image.get_mut(Path::new("db")).expect("the log");
        let len = random.below(bytes.len() as u64);
        bytes.truncate(len as usize);
        format!("cut at {len}")
    });
}

#[test]
fn what_is_left_over_from_an_interrupted_open_is_harmless() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut image = finished(&directory.path().join("store"), 3);
    image.insert("snap.00000000000FFFFF.generating".into(), b"half a snapsh".to_vec());
    image.insert("snap.0000000000FFFFFF".into(), Vec::new());
    image.insert("blobs/12345".into(), b"no blob".to_vec());
    let at = directory.path().join("image");
    write_image(&at, &image);
    let mut outcomes = Outcomes::default();
    assert_eq!(outcomes.look(&at, 3, "left-over files"), Some(3));
    // A second open must work too: the first one leaves nothing behind that prevents it.
    assert_eq!(outcomes.look(&at, 3, "the second open"), Some(3));
}

/// sled never syncs `conf`; weir does after the open.
#[test]
fn a_lost_conf_is_told_or_harmless() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = finished(&directory.path().join("store"), 3);
    let conf = whole.get(Path::new("conf")).expect("a conf").clone();
    let contents = [None, Some(Vec::new()), Some(vec![0; conf.len()]), Some(conf[..conf.len() / 2].to_vec())];
    let mut outcomes = Outcomes::default();
    for (index, content) in contents.into_iter().enumerate() {
        let mut image = whole.clone();
        image.remove(Path::new("conf"));
        image.extend(content.map(|bytes| ("conf".into(), bytes)));
        let at = directory.path().join(format!("image-{index}"));
        write_image(&at, &image);
        let found = outcomes.look(&at, 3, "a lost conf");
        println!("{index}: {found:?}");
    }
    println!("{outcomes:?}");
}

#[test]
fn what_is_no_store_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "a file").expect("a file");
    assert!(open(&file).expect_err("a file is no store").is_damage());
    let inner = directory.path().join("inner");
    std::fs::create_dir_all(inner.join("db")).expect("a directory");
    assert!(open(&inner).expect_err("a directory is no log").is_damage());
    // An empty directory is a new store.
    assert!(open(&directory.path().join("absent")).expect("a new store").1.is_none());
}

/// With fixed keys and small batches, thousands of checkpoints leave a file of a few times the live data.
#[test]
fn the_file_does_not_grow_with_the_number_of_checkpoints() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut store, _) = open(directory.path()).expect("a new store");
    let live: u64 = 2 * 64 * 12_000;
    let mut sizes = Vec::new();
    for id in 1..=1_000u64 {
        let groups: Vec<_> = (0..64u16)
            .filter(|group| id <= 2 || (u64::from(*group) + id).is_multiple_of(4))
            .map(|group| GroupBlob { group, bytes: Random::new(id << 8 | u64::from(group)).bytes(12_000) })
            .collect();
        store.put_groups(&groups).expect("groups are stored");
        store.complete(0, Positions::default(), Vec::new()).expect("a checkpoint is stored");
        if id % 100 == 0 {
            sizes.push(store.disk_bytes().expect("its size"));
        }
    }
    println!("{live} bytes live, on disk: {sizes:?}");
    // The factor depends on the speed of the disk; that the file stops growing does not.
    let (early, late) = (sizes[..3].iter().max().expect("sizes"), sizes[7..].iter().max().expect("sizes"));
    assert!(*late <= 10 * live && *late <= early * 3 / 2, "{live} bytes live grew from {early} to {late}: {sizes:?}");
}
