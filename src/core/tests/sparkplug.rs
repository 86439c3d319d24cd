//! Sparkplug B through the operator: numbers that devices share, the status of a node and its devices, replays.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Input, OperatorHarness, T0};
use crate::core::formats::{MapSettings, PayloadFormat};
use crate::core::operator::Operator;
use crate::core::settings::{Settings, TenantSettings};

const ALIAS: u64 = 7;

fn settings() -> Settings {
    let map = MapSettings {
        name: "sparkplug".into(),
        topics: vec!["spBv1.0/{group}/{type}/{node}".into(), "spBv1.0/{group}/{type}/{node}/{device}".into()],
        payload: PayloadFormat::SparkplugB,
        device: "{group}.{node}.{device|}".into(),
        exclude: vec!["bdSeq".into()],
        seq_bits: Some(8),
        ..MapSettings::default()
    };
    Settings { maps: vec![map], ..Settings::default() }
}

fn varint(field: u64, mut value: u64) -> Vec<u8> {
    let mut out = vec![(field << 3) as u8];
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    let len = varint(field, content.len() as u64);
    [vec![len[0] | 2], len[1..].to_vec(), content.to_vec()].concat()
}

/// A payload with one metric, of which `name` is the name or, where it is `None`, [`ALIAS`] the alias.
fn payload(time_ms: i64, seq: u64, name: Option<&str>, value: u64) -> Vec<u8> {
    let name = name.map(|name| bytes(1, name.as_bytes())).unwrap_or_default();
    let metric = [name, varint(2, ALIAS), varint(4, 8), varint(11, value)].concat();
    [varint(1, time_ms as u64), bytes(2, &metric), varint(3, seq % 256)].concat()
}

/// A birth or data of the node `n` (an empty device) or of a device of it.
fn message(message_type: &str, device: &str, payload: Vec<u8>) -> Input {
    let device = if device.is_empty() { String::new() } else { format!("/{device}") };
    Input::on(&format!("spBv1.0/g/{message_type}/n{device}"), payload)
}

/// The birth of a session.
fn node_birth(time_ms: i64, session: u64) -> Input {
    let metric = [bytes(1, b"bdSeq"), varint(4, 8), varint(11, session)].concat();
    message("NBIRTH", "", [varint(1, time_ms as u64), bytes(2, &metric), varint(3, 0)].concat())
}

fn node_death(session: u64) -> Input {
    let metric = [bytes(1, b"bdSeq"), varint(4, 8), varint(11, session)].concat();
    message("NDEATH", "", bytes(2, &metric))
}

fn online(bench: &OperatorHarness, device: &str) -> Option<bool> {
    bench.operator.device(device)?.summary.liveness.map(|liveness| liveness.online)
}

#[test]
fn two_devices_of_a_node_miss_nothing() {
    let mut bench = OperatorHarness::new(settings());
    let mut inputs = vec![node_birth(T0, 1)];
    inputs.extend(
        ["a", "b"].map(|device| message("DBIRTH", device, payload(T0, 1 + u64::from(device == "b"), Some("m"), 1))),
    );
    // Both share the alias: only its last birth counts. The numbers wrap twice.
    for seq in 3..600 {
        let device = if seq % 3 == 0 { "a" } else { "b" };
        inputs.push(message("DDATA", device, payload(T0 + seq, seq as u64, None, 1)));
    }
    let again = [inputs[597].clone(), inputs[599].clone(), inputs[480].clone()];
    bench.check(T0 + 700, &inputs, &[]);
    bench.check(T0 + 800, &again, &[]);
    let totals = bench.operator.totals();
    assert_eq!((totals.in_windows, totals.unaccounted()), (599, 0));
    assert_eq!((totals.sequence_wraps, totals.sequence_restarts, totals.sequence_ranges_merged), (0, 0, 0));
    for device in ["g.n.a", "g.n.b"] {
        let detail = bench.operator.device(device).unwrap();
        assert_eq!(detail.summary.sequence_missing, 0, "{device}");
        assert!(detail.sequence_ranges.len() <= 66, "{device}: {:?}", detail.sequence_ranges);
    }
    assert_eq!(bench.operator.map_memory().totals().gaps, 0);
}

#[test]
fn a_death_of_the_node_takes_its_devices_with_it() {
    let mut bench = OperatorHarness::new(settings());
    let births = |session| {
        let device = message("DBIRTH", "a", payload(T0, 1, Some("m"), 1));
        [node_birth(T0 + session, session as u64), device]
    };
    bench.apply(T0, &births(1));
    assert_eq!((online(&bench, "g.n"), online(&bench, "g.n.a")), (Some(true), Some(true)));
    bench.apply(T0 + 1, &[node_death(9)]);
    assert_eq!(online(&bench, "g.n.a"), Some(true));
    bench.apply(T0 + 2, &[node_death(1)]);
    assert_eq!((online(&bench, "g.n"), online(&bench, "g.n.a")), (Some(false), Some(false)));
    assert_eq!(bench.operator.sizes().offline, 2);
    let liveness = bench.operator.device("g.n.a").unwrap().summary.liveness.unwrap();
    assert_eq!((liveness.since_ms, &*liveness.topic), (T0 + 2, "spBv1.0/g/NDEATH/n"));
    // The device stays offline until its own birth.
    let [node, device] = births(2);
    bench.apply(T0 + 3, &[node]);
    assert_eq!((online(&bench, "g.n"), online(&bench, "g.n.a")), (Some(true), Some(false)));
    bench.apply(T0 + 4, &[device]);
    assert_eq!(online(&bench, "g.n.a"), Some(true));
}

#[test]
fn messages_that_are_missing_ask_for_births_once_a_minute() {
    let mut bench = OperatorHarness::new(settings());
    bench.apply(T0, &[node_birth(T0, 1), message("DBIRTH", "a", payload(T0, 1, Some("m"), 1))]);
    assert!(bench.operator.take_rebirths().is_empty());
    let data = |seq: u64| message("DDATA", "a", payload(T0 + seq as i64, seq, None, 1));
    bench.apply(T0 + 10, &[data(2), data(5), data(9)]);
    let asked: Vec<_> = bench.operator.take_rebirths().into_iter().map(|request| request.topic).collect();
    assert_eq!(asked, ["spBv1.0/g/NCMD/n"]);
    let shown = &bench.operator.map_memory().edge_nodes(9)[0];
    assert_eq!((shown.node.as_str(), shown.gaps, shown.missed), ("g/n", 2, 5));
}

#[test]
fn nodes_of_tenants_are_apart() {
    let tenants = vec![TenantSettings { prefix: "acme/".into(), max_devices: None }];
    let mut bench = OperatorHarness::new(Settings { tenants, ..settings() });
    let data = payload(T0, 2, None, 1);
    bench.apply(T0, &[node_birth(T0, 1), message("DBIRTH", "a", payload(T0, 1, Some("m"), 1))]);
    let effects = bench.apply(T0 + 1, &[Input::on("acme/spBv1.0/g/DDATA/n/a", data)]);
    assert_eq!(effects.len(), 1, "the alias is unknown: {effects:?}");
    let asked: Vec<_> = bench.operator.take_rebirths().into_iter().map(|request| request.topic).collect();
    assert_eq!(asked, ["acme/spBv1.0/g/NCMD/n"]);
    assert_eq!(bench.operator.map_memory().sizes().nodes, 2);
}

#[test]
fn an_unknown_alias_is_replayed_after_its_birth() {
    let mut bench = OperatorHarness::new(settings());
    let data = |seq: u64| message("DDATA", "a", payload(T0 + seq as i64, seq, None, 1));
    bench.check(T0 + 100, &[data(200)], &["unknown_alias g.n.a/- 0"]);
    bench.apply(T0 + 200, &[node_birth(T0, 1), message("DBIRTH", "a", payload(T0, 1, Some("m"), 1)), data(2)]);
    let replay = bench.replay(0);
    bench.check(T0 + 300, &[replay], &[]);
    // The replay has taken none of the numbers that follow.
    bench.check(T0 + 400, &[data(3)], &[]);
    let totals = bench.operator.totals();
    assert_eq!((totals.in_windows, bench.operator.map_memory().totals().gaps), (4, 0));
}

/// What the node does next.
#[derive(Debug, Clone, Copy)]
enum SparkplugStep {
    /// Data of a device.
    Data { device: usize },
    /// Messages are lost.
    Lose { count: u64 },
    /// A message of this run comes again, so many messages back.
    Again { back: usize },
    /// The node and its devices are born anew, perhaps in another session.
    Birth { session: u64 },
    /// The node dies.
    Death,
    /// The state is stored and restored.
    Restore,
}

fn step() -> impl Strategy<Value = SparkplugStep> {
    prop_oneof![
        30 => (0_usize..3).prop_map(|device| SparkplugStep::Data { device }),
        2 => (1_u64..60).prop_map(|count| SparkplugStep::Lose { count }),
        6 => (0_usize..60).prop_map(|back| SparkplugStep::Again { back }),
        1 => (0_u64..3).prop_map(|session| SparkplugStep::Birth { session }),
        1 => Just(SparkplugStep::Death),
        1 => Just(SparkplugStep::Restore),
    ]
}

/// A node that knows what must be counted.
struct SparkplugModel {
    bench: OperatorHarness,
    time_ms: i64,
    seq: u64,
    /// Messages of the present run with their numbers.
    sent: Vec<(u64, Input)>,
    distinct: u64,
    missed: u64,
    session: u64,
    /// The newest stored form of each key group.
    groups: BTreeMap<u16, Vec<u8>>,
}

impl SparkplugModel {
    const DEVICES: [&str; 3] = ["a", "b", "c"];

    fn new() -> Self {
        let bench = OperatorHarness::new(settings());
        let mut model = Self {
            bench,
            time_ms: T0,
            seq: 0,
            sent: Vec::new(),
            distinct: 0,
            missed: 0,
            session: 0,
            groups: BTreeMap::new(),
        };
        model.birth(0);
        model
    }

    fn send(&mut self, input: Input) {
        self.bench.apply(self.time_ms, &[input]);
    }

    fn counted(&mut self, message_type: &str, device: &str, name: Option<&str>) {
        self.seq += 1;
        self.time_ms += 1;
        let input = message(message_type, device, payload(self.time_ms, self.seq, name, self.distinct));
        self.distinct += 1;
        self.sent.push((self.seq, input.clone()));
        self.send(input);
    }

    fn birth(&mut self, session: u64) {
        self.time_ms += 1;
        (self.seq, self.session) = (0, session);
        self.sent.clear();
        self.send(node_birth(self.time_ms, session));
        for device in Self::DEVICES {
            self.counted("DBIRTH", device, Some("m"));
        }
    }

    fn apply(&mut self, step: SparkplugStep) {
        match step {
            SparkplugStep::Data { device } => self.counted("DDATA", Self::DEVICES[device], None),
            SparkplugStep::Lose { count } => {
                self.seq += count;
                self.missed += count;
                self.counted("DDATA", "a", None);
            }
            SparkplugStep::Again { back } => {
                let found = self.sent.iter().rev().nth(back).filter(|(seq, _)| self.seq - seq <= 128);
                if let Some((_, input)) = found.cloned() {
                    self.send(input);
                }
            }
            SparkplugStep::Birth { session } => self.birth(session),
            SparkplugStep::Death => {
                self.send(node_death(self.session));
                assert_eq!(online(&self.bench, "g.n.b"), Some(false));
            }
            SparkplugStep::Restore => {
                let operator = &mut self.bench.operator;
                let header = operator.begin_snapshot();
                let mut blobs = Vec::new();
                while !operator.snapshot_step(64, &mut blobs) {}
                self.groups.extend(blobs.into_iter().map(|blob| (blob.group, blob.bytes)));
                let groups = self.groups.iter().map(|(group, bytes)| (*group, bytes.as_slice()));
                let restored = Operator::restore(&header, groups).unwrap();
                assert_eq!(restored.map_memory(), operator.map_memory());
                *operator = restored;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever is sent again and whenever the numbers wrap: each message counts once, and what is missing is known.
    #[test]
    fn each_message_counts_once(steps in proptest::collection::vec(step(), 1..700)) {
        let mut model = SparkplugModel::new();
        for step in steps {
            model.apply(step);
            let totals = model.bench.operator.totals();
            prop_assert_eq!((totals.in_windows, totals.unaccounted()), (model.distinct, 0), "{:?}", step);
            prop_assert_eq!(model.bench.operator.map_memory().totals().missed, model.missed, "{:?}", step);
        }
        for device in ["g.n.a", "g.n.b", "g.n.c"] {
            prop_assert_eq!(model.bench.operator.device(device).unwrap().summary.sequence_missing, 0);
        }
    }
}
