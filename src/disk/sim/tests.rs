//! The simulated disk loses what was not synced, and nothing else.

use std::collections::BTreeSet;

use super::*;
use crate::disk::{is_full, replace_file};

const PAGE_BYTES: u64 = 4096;

fn disk_with_file(content: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("d")).unwrap();
    let file = disk.create(Path::new("d/f")).unwrap();
    file.write_all_at(content, 0).unwrap();
    (disk, file)
}

fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open_read(Path::new(path)).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..200 {
        let (disk, file) = disk_with_file(b"kept");
        file.sync().unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        file.write_all_at(b"lost?", 4).unwrap();
        let after = disk.crash(seed);
        let found = content(&after, "d/f").unwrap();
        assert!(found.starts_with(b"kept") && found.len() <= 9, "seed {seed}");
    }
}

#[test]
fn unsynced_writes_are_kept_lost_and_torn() {
    let written: Vec<u8> = (1..=3 * PAGE_BYTES as usize).map(|i| (i % 250) as u8 + 1).collect();
    let (mut whole, mut none, mut torn, mut reordered) = (0, 0, 0, 0);
    for seed in 0..400 {
        let (disk, _file) = disk_with_file(&written);
        disk.sync_dir(Path::new("d")).unwrap();
        let found = content(&disk.crash(seed), "d/f").unwrap();
        match found.len() {
            0 => none += 1,
            _ if found == written => whole += 1,
            _ if found[0] == 0 && *found.last().unwrap() != 0 => reordered += 1,
            _ => torn += 1,
        }
    }
    assert!(whole > 0 && none > 0 && torn > 0 && reordered > 0, "{whole} {none} {torn} {reordered}");
}

#[test]
fn names_are_certain_once_their_directory_is_synced() {
    let outcomes: BTreeSet<_> = (0..50)
        .map(|seed| {
            let (disk, file) = disk_with_file(b"x");
            file.sync().unwrap();
            content(&disk.crash(seed), "d/f").is_some()
        })
        .collect();
    assert_eq!(outcomes.len(), 2, "a name that was not synced is sometimes lost, sometimes kept");
}

#[test]
fn a_removal_that_was_not_synced_may_come_undone() {
    let outcomes: BTreeSet<_> = (0..50)
        .map(|seed| {
            let (disk, file) = disk_with_file(b"x");
            file.sync().unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            disk.remove(Path::new("d/f")).unwrap();
            assert!(content(&disk, "d/f").is_none());
            content(&disk.crash(seed), "d/f").is_some()
        })
        .collect();
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn replacing_a_file_leaves_the_old_or_the_new_content() {
    for seed in 0..200 {
        let (disk, _file) = disk_with_file(b"");
        replace_file(&disk, Path::new("d/state"), b"old").unwrap();
        disk.fail_sync(1);
        assert!(replace_file(&disk, Path::new("d/state"), b"new content").is_err());
        let disk = disk.crash(seed);
        assert_eq!(content(&disk, "d/state").unwrap(), b"old", "seed {seed}");
        replace_file(&disk, Path::new("d/state"), b"new content").unwrap();
        assert_eq!(content(&disk.crash(seed), "d/state").unwrap(), b"new content", "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let (disk, _file) = disk_with_file(&[7; 20_000]);
        content(&disk.crash(seed), "d/f")
    };
    assert!((0..20).all(|seed| run(seed) == run(seed)));
}

#[test]
fn a_full_disk_stores_what_fits() {
    let (disk, file) = disk_with_file(b"12345");
    disk.set_capacity(Some(8));
    assert_eq!(disk.available_bytes(Path::new("d")).unwrap(), 3);
    let error = file.write_all_at(b"abcdef", 5).unwrap_err();
    assert!(is_full(&error), "{error}");
    assert_eq!(content(&disk, "d/f").unwrap(), b"12345abc");
    file.write_all_at(b"xx", 0).unwrap();
}

#[test]
fn what_a_failed_sync_was_to_write_is_not_saved_by_the_next_one() {
    let (disk, file) = disk_with_file(b"gone");
    disk.sync_dir(Path::new("d")).unwrap();
    disk.fail_sync(1);
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert_eq!(content(&disk, "d/f").unwrap(), b"gone");
    assert_eq!(content(&disk.crash(1), "d/f").unwrap(), b"");
}

#[test]
fn handles_from_before_the_crash_fail() {
    let (disk, file) = disk_with_file(b"x");
    let after = disk.crash(3);
    assert!(file.write_all_at(b"y", 0).is_err());
    assert!(file.sync().is_err());
    assert!(disk.list(Path::new("d")).is_err());
    assert!(after.list(Path::new("d")).is_ok());
}

#[test]
fn a_flipped_bit_is_read_and_survives() {
    let (disk, file) = disk_with_file(&[0]);
    file.sync().unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    disk.flip_bit(Path::new("d/f"), 0, 3).unwrap();
    assert_eq!(content(&disk, "d/f").unwrap(), [8]);
    assert_eq!(content(&disk.crash(0), "d/f").unwrap(), [8]);
    assert!(disk.flip_bit(Path::new("d/f"), 1, 3).is_err());
}

#[test]
fn the_power_goes_at_the_operation_asked_for_and_nothing_works_until_the_next_boot() {
    // create, write, sync, write, sync: bytes that were certain before the cut stay.
    for nth in 1..=5 {
        for seed in 0..20 {
            let disk = SimDisk::new();
            disk.create_dir_all(Path::new("d")).unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            disk.cut_power_at(Some(nth));
            let work = || -> io::Result<()> {
                let file = disk.create(Path::new("d/f"))?;
                for (byte, offset) in [(b"1", 0), (b"2", 1)] {
                    file.write_all_at(byte, offset)?;
                    file.sync()?;
                }
                Ok(())
            };
            assert!(work().is_err() && disk.is_cut(), "operation {nth}");
            assert!(disk.list(Path::new("d")).is_err() && disk.sync_dir(Path::new("d")).is_err());
            let after = disk.crash(seed);
            assert!(!after.is_cut() && disk.is_cut());
            if nth > 3
                && let Some(found) = content(&after, "d/f")
            {
                assert_eq!(found[0], b'1', "operation {nth}, seed {seed}");
            }
        }
    }
}

#[test]
fn a_directory_moves_with_its_files_or_stays() {
    let outcomes: BTreeSet<_> = (0..50)
        .map(|seed| {
            let (disk, file) = disk_with_file(b"x");
            file.sync().unwrap();
            disk.sync_dir(Path::new("d")).unwrap();
            disk.rename(Path::new("d"), Path::new("e")).unwrap();
            assert!(content(&disk, "d/f").is_none() && content(&disk, "e/f").is_some());
            assert!(disk.list(Path::new("d")).is_err());
            let after = disk.crash(seed);
            let found = (content(&after, "d/f").is_some(), content(&after, "e/f").is_some());
            assert!(found.0 != found.1, "seed {seed}");
            found
        })
        .collect();
    assert_eq!(outcomes.len(), 2);
    let (disk, file) = disk_with_file(b"x");
    file.sync().unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    disk.rename(Path::new("d"), Path::new("e")).unwrap();
    disk.sync_dir(Path::new(".")).unwrap();
    assert!(content(&disk.crash(1), "e/f").is_some());
}

#[test]
fn a_failed_sync_of_a_directory_makes_nothing_certain() {
    let lost = (0..50).any(|seed| {
        let (disk, _file) = disk_with_file(b"x");
        disk.fail_dir_sync(1);
        assert!(disk.sync_dir(Path::new("d")).is_err());
        content(&disk.crash(seed), "d/f").is_none()
    });
    assert!(lost);
}

#[test]
fn a_bit_flipped_before_its_sync_is_stored_flipped() {
    let (disk, file) = disk_with_file(&[0]);
    disk.sync_dir(Path::new("d")).unwrap();
    disk.flip_bit(Path::new("d/f"), 0, 3).unwrap();
    assert_eq!(disk.certain_bytes(Path::new("d/f")), 0);
    file.sync().unwrap();
    assert_eq!(disk.certain_bytes(Path::new("d/f")), 1);
    assert_eq!(content(&disk.crash(0), "d/f").unwrap(), [8]);
}
