use proptest::prelude::*;

use super::*;
use crate::core::formats::edge_node::{MetricForm, NodeBirth};

fn form(datatype: u32, unit: Option<&str>) -> MetricForm {
    MetricForm { datatype, unit: unit.map(Box::from) }
}

fn stored(memory: &MapMemory) -> Vec<u8> {
    let mut out = Vec::new();
    memory.encode(&mut out);
    out
}

/// Reads the whole of `bytes`.
fn read(bytes: &[u8]) -> Result<MapMemory, DecodeError> {
    let mut reader = FieldReader::new(bytes);
    let memory = MapMemory::decode(&mut reader)?;
    reader.end().map(|()| memory)
}

/// A birth of a device with these aliases; how many of them are remembered.
fn born(memory: &mut MapMemory, node: &str, device: &str, aliases: impl Iterator<Item = u64>) -> usize {
    let change = |state: &mut EdgeNode, room: BirthRoom| {
        state.is_online = true;
        let has_room = state.device_birth(device, device.into(), room);
        aliases.filter(|alias| has_room && state.define(device, Some(*alias), "m", form(9, None), room)).count()
    };
    memory.change(node, change).unwrap_or_default()
}

fn sizes(memory: &MapMemory) -> [usize; 3] {
    let MapMemorySizes { nodes, devices, metrics } = memory.sizes();
    [nodes, devices, metrics]
}

#[test]
fn metrics_are_bounded_by_device_node_and_all() {
    let mut memory = MapMemory::default();
    memory.enter("", 1_000);
    assert_eq!(born(&mut memory, "g/n", "d", 0..2_000), 1_000);
    // A birth takes the place of the one before.
    assert_eq!(born(&mut memory, "g/n", "d", 0..10), 10);
    assert_eq!(sizes(&memory), [1, 1, 10]);
    for device in 0..20 {
        let first = device * 1_000;
        born(&mut memory, "g/n", &format!("x{device}"), first..first + 1_000);
    }
    assert_eq!(sizes(&memory), [1, 21, MAX_DEFINITIONS_OF_NODE]);
    for node in 0..20 {
        for device in 0..17 {
            let first = device * 1_000;
            born(&mut memory, &format!("g/{node}"), &format!("x{device}"), first..first + 1_000);
        }
    }
    assert_eq!(sizes(&memory)[2], MAX_DEFINITIONS);
    assert_eq!(read(&stored(&memory)).map(|memory| memory.sizes()), Ok(memory.sizes()));
}

#[test]
fn an_alias_of_two_devices_is_of_the_later() {
    let mut memory = MapMemory::default();
    born(&mut memory, "g/n", "a", 0..4);
    born(&mut memory, "g/n", "b", 3..6);
    assert_eq!(sizes(&memory), [1, 2, 6]);
    born(&mut memory, "g/n", "a", 0..0);
    assert_eq!(sizes(&memory), [1, 2, 3]);
}

#[test]
fn devices_that_are_offline_make_room() {
    let mut memory = MapMemory::default();
    for device in 0..MAX_DEVICES_OF_NODE as u64 {
        born(&mut memory, "g/n", &device.to_string(), device..device + 1);
    }
    assert_eq!(born(&mut memory, "g/n", "new", 5_000..5_001), 0);
    // Its birth is known, but not remembered: data of it ask for no birth.
    assert!(memory.node("g/n").unwrap().is_born("new"));
    memory.change("g/n", |node, _| node.device_death("77"));
    assert_eq!(born(&mut memory, "g/n", "new", 5_000..5_001), 1);
    assert!(memory.node("g/n").unwrap().alias(77).is_none());
    assert_eq!(sizes(&memory), [1, MAX_DEVICES_OF_NODE, MAX_DEVICES_OF_NODE]);
}

#[test]
fn an_offline_node_makes_room() {
    let mut memory = MapMemory::default();
    for node in 0..MAX_NODES {
        memory.change(&node.to_string(), |state, _| state.is_online = node != 77);
    }
    born(&mut memory, "new", "d", 0..3);
    assert!(memory.node("77").is_none());
    assert!(memory.change("another", |_, _| ()).is_none());
    assert_eq!(sizes(&memory), [MAX_NODES, 1, 3]);
    assert!(MapMemory::default().change(&"n".repeat(MAX_KEY_BYTES + 1), |_, _| ()).is_none());
}

#[test]
fn a_node_is_asked_once_a_minute() {
    let mut node = EdgeNode::default();
    let asked = [0, 1, 59_999, 60_000, 60_001, -5].map(|arrival_ms| node.asks_rebirth(arrival_ms));
    assert_eq!(asked, [true, false, false, true, false, true]);
}

#[test]
fn tenants_are_apart() {
    let mut memory = MapMemory::default();
    let own = memory.key("g", "n");
    memory.enter("acme/", 9);
    assert_eq!((own.as_str(), memory.key("g", "n").as_str()), ("g/n", "acme/g/n"));
}

#[test]
fn nodes_with_most_missing_messages_are_shown_first() {
    let mut memory = MapMemory::default();
    for (node, seq) in [("a", 1), ("b", 9), ("c", 4)] {
        memory.change(node, |state, _| {
            state.sequence.begin(Some(0));
            state.sequence.follow(Some(seq))
        });
    }
    let shown: Vec<_> = memory.edge_nodes(2).into_iter().map(|view| (view.node, view.gaps, view.missed)).collect();
    assert_eq!(shown, [("b".into(), 1, 8), ("c".into(), 1, 3)]);
    assert_eq!(memory.totals(), SparkplugTotals { gaps: 2, missed: 11, rebirths: 0 });
}

#[test]
fn damage_is_refused() {
    let mut memory = MapMemory::default();
    born(&mut memory, "g/n", "d", 5..6);
    let bytes = stored(&memory);
    assert_eq!(read(&bytes), Ok(memory));
    assert_eq!(read(&[]), Ok(MapMemory::default()));
    for len in 1..bytes.len() {
        assert!(read(&bytes[..len]).is_err());
    }
    assert!(read(&[bytes, vec![0]].concat()).is_err());
    assert!(read(&[2, 0]).is_err());
}

proptest! {
    #[test]
    fn the_stored_form_reads_back(
        births in proptest::collection::vec(
            ("[ab]/[xy]", "[de]?", proptest::option::of(0_u64..20), "\\PC{0,9}", any::<u32>(), any::<bool>()), 0..40,
        ),
        seqs in proptest::collection::vec(proptest::option::of(any::<u64>()), 0..9),
        times: (Option<u64>, Option<u64>, i64),
    ) {
        let mut memory = MapMemory::default();
        for (node, device, alias, name, datatype, is_birth) in &births {
            memory.change(node, |state, room| {
                if *is_birth {
                    state.node_birth(NodeBirth { timestamp: times.0, session: times.1, seq: None, arrival_ms: times.2 });
                    state.device_birth(device, format!("id.{device}").into(), room);
                }
                state.define(device, *alias, name, form(*datatype, is_birth.then_some("°C")), room);
                for seq in &seqs {
                    state.sequence.follow(*seq);
                }
                state.asks_rebirth(times.2);
            });
        }
        let again = read(&stored(&memory)).unwrap();
        prop_assert_eq!(again.sizes(), memory.sizes());
        prop_assert_eq!(again, memory);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let versioned = [vec![VERSION], bytes].concat();
        if let Ok(memory) = read(&versioned) {
            prop_assert_eq!(read(&stored(&memory)), Ok(memory));
        }
    }
}
