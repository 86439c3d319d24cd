//! The values that a restart finds after every possible crash.

use proptest::prelude::*;

use super::*;
use crate::state::named_values::StoreLabels;
use crate::state::testing::MemoryStore;

/// A name, a NUL, and bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named(String, Vec<u8>);

impl NamedValue for Named {
    const LABELS: StoreLabels =
        StoreLabels { directory: "named", what: "named values", moved_aside: "", failures: "", reopened: "" };
    fn name(&self) -> &str {
        &self.0
    }
    fn encode(&self) -> Vec<u8> {
        [self.0.as_bytes(), &[0], &self.1].concat()
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(Self(String::from_utf8(bytes[..end].to_vec()).ok()?, bytes[end + 1..].to_vec()))
    }
}

fn write(slots: &mut Slots, changes: &[(&str, Option<&[u8]>)]) -> Result<(), StateError> {
    let changes = changes
        .iter()
        .map(|(topic, payload)| ((*topic).into(), payload.map(|payload| Named((*topic).to_owned(), payload.to_vec()))));
    slots.write(changes.collect())
}

fn load(memory: &MemoryStore) -> (Slots, Vec<(String, Vec<u8>)>) {
    let opened = Slots::load(Box::new(memory.clone()), |value: Named| value).unwrap();
    (opened.slots, opened.loaded.into_iter().map(|Named(name, bytes)| (name, bytes)).collect())
}

#[test]
fn large_values_take_several_slots_and_slots_are_used_again() {
    let memory = MemoryStore::default();
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
    let memory = MemoryStore::default();
    let (mut slots, _) = load(&memory);
    write(&mut slots, &[("a", Some(b"x")), ("b", Some(b"y"))]).unwrap();
    if let Some(value) = memory.0.lock().unwrap().current.values_mut().next() {
        value[20] ^= 1;
    }
    assert_eq!(load(&memory).1.len(), 1);
}

proptest! {
    /// After a crash at any call, each name has its value from before the interrupted write or the one of that write.
    /// Removed values do not come back.
    #[test]
    fn a_crash_leaves_each_value_old_or_new(
        steps in proptest::collection::vec((0_usize..4, proptest::option::of(0_u8..200)), 1..40),
        calls in 1_usize..40,
        keep_unsynced in any::<bool>(),
    ) {
        const TOPICS: [&str; 4] = ["a", "b", "c", "d"];
        let payload = |fill: u8| vec![fill; if fill > 150 { MAX_VALUE_BYTES } else { 3 }];
        let memory = MemoryStore::default();
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
