use super::*;
use crate::core::group::KEY_GROUPS;
use crate::disk::sim::SimDisk;
use crate::state::manifest::Positions;
use crate::state::testing::MemoryStore;

const DIR: &str = "data/savepoints";

/// A store whose last checkpoint has `groups` and the journal position `replay_from`.
fn store(replay_from: u64, groups: &[(u16, usize)]) -> CheckpointStore {
    let (mut store, _) = CheckpointStore::load(Box::new(MemoryStore::default()), PathBuf::from("memory")).unwrap();
    let blobs: Vec<_> = groups.iter().map(|&(group, len)| GroupBlob { group, bytes: vec![group as u8; len] }).collect();
    store.put_groups(&blobs).unwrap();
    let positions = Positions { replay_from, windows: replay_from / 2, errors: replay_from / 3 };
    store.complete(5, positions, b"header".to_vec()).unwrap();
    store
}

fn write_at(disk: &SimDisk, replay_from: u64, kind: SavepointKind) -> SavepointInfo {
    write(disk, Path::new(DIR), &store(replay_from, &[(1, 10), (2, 100_000)]), kind, 77).unwrap()
}

fn path_of(info: &SavepointInfo) -> PathBuf {
    Path::new(DIR).join(&info.file)
}

fn bytes_of(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open_read(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.create(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

#[test]
fn what_was_written_is_read_back() {
    let disk = SimDisk::new();
    for groups in [vec![], vec![(0, 1)], vec![(3, 0), (5, 3_000_000), (KEY_GROUPS - 1, 70_000)]] {
        let store = store(9, &groups);
        let info = write(&disk, Path::new(DIR), &store, SavepointKind::Manual, 77).unwrap();
        assert_eq!((info.id, info.kind, info.created_ms, info.replay_from), (1, SavepointKind::Manual, 77, 9));
        assert_eq!(inspect(&disk, &path_of(&info)).unwrap(), info);
        let checkpoint = read(&disk, &path_of(&info)).unwrap();
        assert_eq!(Some(&checkpoint.manifest), store.last_manifest());
        let lengths: Vec<_> = checkpoint.groups.iter().map(|blob| (blob.group, blob.bytes.len())).collect();
        assert_eq!(lengths, groups);
    }
}

#[test]
fn an_imported_savepoint_is_the_same_checkpoint() {
    let disk = SimDisk::new();
    let info = write_at(&disk, 30, SavepointKind::Automatic);
    let checkpoint = read(&disk, &path_of(&info)).unwrap();
    let memory = MemoryStore::default();
    let (mut store, _) = CheckpointStore::load(Box::new(memory.clone()), PathBuf::from("memory")).unwrap();
    store.import(&checkpoint).unwrap();
    let found = CheckpointStore::load(Box::new(memory), PathBuf::from("memory")).unwrap().1.unwrap();
    assert_eq!(found.groups, checkpoint.groups);
    assert_eq!(found.manifest, checkpoint.manifest);
}

#[test]
fn every_changed_byte_and_every_truncation_is_noticed() {
    let disk = SimDisk::new();
    let info = write(&disk, Path::new(DIR), &store(9, &[(1, 40), (7, 300)]), SavepointKind::Automatic, 77).unwrap();
    let good = bytes_of(&disk, &path_of(&info));
    let check = |name: &str, bytes: &[u8]| {
        let path = Path::new("data").join(name);
        put(&disk, &path, bytes);
        let error = read(&disk, &path).expect_err(name);
        assert!(!matches!(error, SavepointError::Io { .. }), "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        check(&format!("changed-{at}"), &bytes);
        check(&format!("cut-{at}"), &good[..at]);
    }
    check("longer", &[&good[..], b"x"].concat());
}

#[test]
fn a_later_format_names_the_weir_that_wrote_it() {
    let disk = SimDisk::new();
    let info = write_at(&disk, 9, SavepointKind::Automatic);
    let mut bytes = bytes_of(&disk, &path_of(&info));
    bytes[8] = 2;
    put(&disk, Path::new("data/later"), &bytes);
    let error = read(&disk, Path::new("data/later")).unwrap_err().to_string();
    assert!(error.contains(&format!("weir {}", env!("CARGO_PKG_VERSION"))) && error.contains("format 2"), "{error}");
}

#[test]
fn another_file_is_no_savepoint() {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new("data")).unwrap();
    for (name, bytes) in [("data/empty", &b""[..]), ("data/short", b"WEIR"), ("data/text", b"hello, this is text")] {
        put(&disk, Path::new(name), bytes);
        let error = read(&disk, Path::new(name)).unwrap_err();
        assert!(matches!(error, SavepointError::NotASavepoint { .. }), "{name}: {error}");
    }
}

#[test]
fn the_newest_come_first_and_only_old_automatic_ones_go() {
    let disk = SimDisk::new();
    for (replay_from, kind) in [
        (10, SavepointKind::Automatic),
        (20, SavepointKind::Manual),
        (5, SavepointKind::Automatic),
        (30, SavepointKind::Automatic),
        (40, SavepointKind::Automatic),
    ] {
        write_at(&disk, replay_from, kind);
    }
    put(&disk, &Path::new(DIR).join("savepoint-1.tmp"), b"half");
    put(&disk, &Path::new(DIR).join("savepoint-99.weir"), b"rotten");
    put(&disk, &Path::new(DIR).join("notes.txt"), b"a person's");
    prune(&disk, Path::new(DIR), 2).unwrap();
    let listed = list(&disk, Path::new(DIR)).unwrap();
    let found: Vec<_> = listed.iter().map(|(_, info)| info.as_ref().ok().map(|info| info.replay_from)).collect();
    assert_eq!(found, [None, Some(40), Some(30), Some(20)], "what cannot be read is shown, not hidden");
    let names: Vec<_> = disk.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(names.contains(&"notes.txt".to_owned()) && !names.contains(&"savepoint-1.tmp".to_owned()), "{names:?}");
}

#[test]
fn no_directory_means_no_savepoints() {
    assert!(list(&SimDisk::new(), Path::new("nowhere")).unwrap().is_empty());
}

/// After a crash at any write or sync, every listed savepoint is whole.
#[test]
fn a_crash_leaves_a_whole_savepoint_or_none() {
    for seed in 0..200 {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        let before = write_at(&disk, 10, SavepointKind::Automatic);
        if seed % 2 == 0 {
            disk.fail_sync(1)
        } else {
            disk.fail_write(1 + seed / 2 % 2)
        }
        let failed = write(&disk, Path::new(DIR), &store(20, &[(2, 2_500_000)]), SavepointKind::Automatic, 78).is_err();
        assert!(failed, "the injected fault was not met");
        let disk = disk.crash(seed);
        for (path, info) in list(&disk, Path::new(DIR)).unwrap() {
            assert_eq!(info.unwrap(), before);
            read(&disk, &path).unwrap();
        }
    }
}

#[test]
fn a_full_disk_keeps_the_savepoints_that_are_there() {
    let disk = SimDisk::new();
    let before = write_at(&disk, 10, SavepointKind::Automatic);
    disk.set_capacity(Some(disk.used_bytes() + 50_000));
    let error = write(&disk, Path::new(DIR), &store(20, &[(2, 2_500_000)]), SavepointKind::Automatic, 78).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert_eq!(list(&disk, Path::new(DIR)).unwrap().len(), 1);
    assert_eq!(disk.used_bytes(), before.bytes, "half a savepoint keeps no space");
}

/// The savepoints that a power cut leaves at least, where the directory of the second of two could not be synced, and a start
/// syncs it or does not.
fn check_unsynced_name(start_syncs: bool, expected: usize) {
    let left = |seed: u64| {
        let disk = SimDisk::new();
        write_at(&disk, 30, SavepointKind::Automatic);
        disk.fail_dir_sync(1);
        assert!(write(&disk, Path::new(DIR), &store(60, &[]), SavepointKind::Automatic, 77).is_err());
        assert_eq!(list(&disk, Path::new(DIR)).unwrap().len(), 2, "both have their names");
        if start_syncs {
            sync_names(&disk, Path::new(DIR)).unwrap();
        }
        list(&disk.crash(seed), Path::new(DIR)).unwrap().len()
    };
    assert_eq!((0..50).map(left).min(), Some(expected));
}

#[test]
fn a_start_makes_names_durable() {
    check_unsynced_name(false, 1);
    check_unsynced_name(true, 2);
    sync_names(&SimDisk::new(), Path::new("data/none")).unwrap();
}
