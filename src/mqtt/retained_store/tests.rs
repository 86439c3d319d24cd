//! What a restart finds, after every crash.

use proptest::prelude::*;

use super::*;
use crate::clock::SystemClock;
use crate::disk::RealDisk;
use crate::state::testing::Memory;

fn stored(topic: &str, payload: &[u8]) -> Stored {
    Stored {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(payload),
        properties: Bytes::from_static(&[1, 1]),
        qos: 1,
        expires_ms: None,
    }
}

fn write(slots: &mut Slots, changes: &[(&str, Option<&[u8]>)]) -> Result<(), StateError> {
    let changes =
        changes.iter().map(|(topic, payload)| ((*topic).into(), payload.map(|payload| stored(topic, payload))));
    slots.write(changes.collect())
}

fn load(memory: &Memory) -> (Slots, Vec<(String, Vec<u8>)>) {
    let opened = Slots::load(Box::new(memory.clone())).unwrap();
    let messages = opened.loaded.iter().map(|stored| (stored.topic.to_string(), stored.payload.to_vec()));
    let messages = messages.collect();
    (opened.slots, messages)
}

#[test]
fn messages_read_back() {
    let all = [
        Stored { expires_ms: Some(5), ..stored("a/ü", b"x") },
        Stored { qos: 2, properties: Bytes::new(), ..stored("b", b"") },
    ];
    for message in all {
        assert_eq!(Stored::decode(&message.encode()), Some(message));
    }
    assert_eq!(Stored::decode(&stored("a", b"x").encode()[..12]), None);
}

#[test]
fn large_messages_take_several_slots_and_slots_are_used_again() {
    let memory = Memory::default();
    let (mut slots, _) = load(&memory);
    let large = vec![7; MAX_VALUE_BYTES * 2];
    for _ in 0..10 {
        write(&mut slots, &[("large", Some(&large)), ("small", Some(b"x"))]).unwrap();
    }
    assert!(slots.end <= 8, "{} slots for four parts", slots.end);
    assert_eq!(load(&memory).1, [("large".into(), large), ("small".into(), b"x".to_vec())]);
    write(&mut slots, &[("large", None)]).unwrap();
    assert_eq!(load(&memory).1, [("small".into(), b"x".to_vec())]);
}

#[test]
fn a_slot_with_a_wrong_checksum_is_left_out() {
    let memory = Memory::default();
    let (mut slots, _) = load(&memory);
    write(&mut slots, &[("a", Some(b"x")), ("b", Some(b"y"))]).unwrap();
    if let Some(value) = memory.0.lock().unwrap().current.values_mut().next() {
        value[20] ^= 1;
    }
    assert_eq!(load(&memory).1.len(), 1);
}

proptest! {
    /// After a crash at any call, each topic has what it had before the interrupted write or what that write gave it;
    /// and what was removed since does not come back.
    #[test]
    fn a_crash_leaves_each_topic_old_or_new(
        steps in proptest::collection::vec((0_usize..4, proptest::option::of(0_u8..200)), 1..40),
        calls in 1_usize..40,
        keep_unsynced in any::<bool>(),
    ) {
        const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
        let payload = |fill: u8| vec![fill; if fill > 150 { MAX_VALUE_BYTES } else { 3 }];
        let memory = Memory::default();
        let (mut slots, _) = load(&memory);
        memory.0.lock().unwrap().calls_left = Some(calls);
        let mut model: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        let mut interrupted = None;
        for (topic, fill) in steps {
            let change = (TOPICS[topic], fill.map(payload));
            if write(&mut slots, &[(change.0, change.1.as_deref())]).is_err() {
                interrupted = Some(change);
                break;
            }
            match change {
                (topic, Some(payload)) => drop(model.insert(topic, payload)),
                (topic, None) => drop(model.remove(topic)),
            }
        }
        let after = memory.crash(keep_unsynced);
        let (_, found) = load(&after);
        let (_, again) = load(&after);
        prop_assert_eq!(&found, &again, "loading changes nothing that counts");
        let found: BTreeMap<String, Vec<u8>> = found.into_iter().collect();
        for topic in TOPICS {
            let (now, before) = (found.get(topic), model.get(topic));
            let written = interrupted.as_ref().filter(|(name, _)| *name == topic).map(|(_, payload)| payload.as_ref());
            prop_assert!(now == before || Some(now) == written, "{}", topic);
        }
    }
}

#[test]
fn sled_keeps_them_and_a_damaged_store_is_moved_aside() {
    let directory = tempfile::TempDir::new().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let open = || RetainedStore::open(directory.path(), &disk, &SystemClock, Duration::from_secs(60)).unwrap();
    let timeline = Timeline::default();
    let store = open();
    assert!(store.load(&timeline).is_empty());
    let message = |topic: &str| Message::new(topic, "x".into(), 1, true);
    store.put(&message("kept"), None);
    store.put(&message("removed"), None);
    store.put(&message("old"), Some(1));
    store.sync();
    store.remove("removed");
    store.sync();
    drop(store);
    // The thread of the store above still has it open: another process would find what is on disk.
    let copied = tempfile::TempDir::new().unwrap();
    copy(&directory.path().join(DIRECTORY), &copied.path().join(DIRECTORY));
    let reopen = || RetainedStore::open(copied.path(), &disk, &SystemClock, Duration::from_secs(60)).unwrap();
    let topics: Vec<String> = reopen().load(&timeline).iter().map(|message| message.topic.to_string()).collect();
    assert_eq!(topics, ["kept"]);

    let damaged = tempfile::TempDir::new().unwrap();
    std::fs::write(damaged.path().join(DIRECTORY), b"not a directory").unwrap();
    let store = RetainedStore::open(damaged.path(), &disk, &SystemClock, Duration::from_secs(60)).unwrap();
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
