//! Retained messages over a restart.

use super::*;
use crate::clock::SystemClock;
use crate::disk::RealDisk;

const DIRECTORY: &str = StoredRetained::LABELS.directory;

fn stored(topic: &str, payload: &[u8]) -> StoredRetained {
    StoredRetained {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload),
        properties: Bytes::from_static(&[1, 1]),
        qos: 1,
        owner: None,
        expires_ms: None,
    }
}

#[test]
fn messages_read_back() {
    let all = [
        StoredRetained { expires_ms: Some(5), ..stored("a/ü", b"x") },
        StoredRetained { owner: Some("pump".into()), ..stored("a", b"x") },
        StoredRetained { qos: 2, properties: Bytes::new(), ..stored("b", b"") },
    ];
    for message in all {
        assert_eq!(StoredRetained::decode(&message.encode()), Some(message));
    }
    assert_eq!(StoredRetained::decode(&stored("a", b"x").encode()[..12]), None);
}

#[test]
fn sled_keeps_them_and_a_damaged_store_is_moved_aside() {
    let directory = tempfile::TempDir::new().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let open = || {
        RetainedStore::open(directory.path(), Arc::clone(&disk), Arc::new(SystemClock), Duration::from_secs(60))
            .unwrap()
    };
    let timeline = Timeline::default();
    let store = open();
    assert!(store.load(&timeline).is_empty());
    let message = |topic: &str| Message::new(topic, "x".into(), 1, true);
    store.put(&message("kept"), Some(&"pump".into()), None);
    store.put(&message("removed"), None, None);
    store.put(&message("old"), None, Some(1));
    store.0.sync();
    store.remove("removed");
    store.0.sync();
    drop(store);
    // The thread of the store above still has it open, so the files are copied, as another process would find them.
    let copied = tempfile::TempDir::new().unwrap();
    copy(&directory.path().join(DIRECTORY), &copied.path().join(DIRECTORY));
    let reopen = || {
        RetainedStore::open(copied.path(), Arc::clone(&disk), Arc::new(SystemClock), Duration::from_secs(60)).unwrap()
    };
    let loaded = reopen().load(&timeline);
    let found: Vec<_> = loaded.iter().map(|loaded| (&*loaded.message.topic, loaded.owner.as_deref())).collect();
    assert_eq!(found, [("kept", Some("pump"))]);

    let damaged = tempfile::TempDir::new().unwrap();
    std::fs::write(damaged.path().join(DIRECTORY), b"not a directory").unwrap();
    let store =
        RetainedStore::open(damaged.path(), Arc::clone(&disk), Arc::new(SystemClock), Duration::from_secs(60)).unwrap();
    assert!(store.load(&timeline).is_empty());
    let names: Vec<String> = disk.list(damaged.path()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(names.iter().any(|name| name.starts_with("retained.damaged-")), "{names:?}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
