//! The errors log stays in proportion to what comes in, and no rejected reading is forgotten over it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Input, OperatorHarness, T0, replay_of};
use crate::core::operator::Operator;
use crate::core::output::{Collector, ErrorEntry, WindowResult};
use crate::core::reason::Reason;
use crate::core::settings::{MetricRange, Settings};

/// Bytes of the errors log for one message, and its rejected readings by index.
#[derive(Debug, Default)]
struct StoredMessage {
    bytes: usize,
    entries: usize,
    rejected: BTreeMap<u32, Reason>,
    replays: Vec<Vec<u8>>,
    /// Readings of an entry that does not say which they are.
    unlisted: u64,
}

impl Collector for StoredMessage {
    fn window(&mut self, _: u64, _: &WindowResult<'_>) {}

    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>) {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        self.bytes += bytes.len() + if bytes.len() < 1 << 14 { 2 } else { 3 };
        self.entries += 1;
        self.replays.push(replay_of(seq, entry));
        let runs = entry.folded.map(|folded| folded.runs());
        match runs {
            None => drop(self.rejected.insert(entry.index, entry.reason)),
            Some(runs) if runs.is_empty() => self.unlisted += entry.readings(),
            Some(runs) => {
                let readings = runs.iter().flat_map(|run| (run.first..=run.last).map(|index| (index, run.reason)));
                self.rejected.extend(readings);
            }
        }
    }
}

fn settings() -> Settings {
    let range = MetricRange { min: Some(0.0), max: Some(100.0), unit: None };
    Settings { metrics: [("ranged".to_owned(), range)].into(), store_duplicates: true, ..Settings::default() }
}

fn message(client: &str, user: Option<&str>, topic: &str, payload: &[u8]) -> Input {
    Input::Publish {
        user: user.map(str::to_owned),
        client: client.to_owned(),
        topic: topic.to_owned(),
        packet_id: 1,
        qos: 1,
        dup: false,
        payload: payload.to_vec(),
    }
}

fn applied(settings: Settings, input: &Input) -> (StoredMessage, Operator) {
    let mut stored = StoredMessage::default();
    let mut operator = Operator::new(settings);
    let record = input.encode(None);
    operator.apply(0, T0, std::iter::once(record.as_slice()), &mut stored).unwrap();
    (stored, operator)
}

/// Applies one message, checks what the errors log takes for it, and returns its number of entries.
#[track_caller]
fn check(client: &str, user: Option<&str>, topic: &str, payload: &[u8]) -> usize {
    let input = message(client, user, topic, payload);
    let (stored, operator) = applied(settings(), &input);
    let batch_header = if stored.entries == 0 { 0 } else { 48 };
    let allowed = 2 * (topic.len() + payload.len()) + 256;
    let start = String::from_utf8_lossy(&payload[..payload.len().min(60)]);
    assert!(stored.bytes + batch_header <= allowed, "{} of {allowed} bytes for {start}", stored.bytes + batch_header);
    // What is stored is what would be without a bound.
    let (unbounded, other) = applied(Settings { errors_in_proportion: false, ..settings() }, &input);
    assert_eq!(operator.totals(), other.totals(), "{start}");
    if stored.unlisted == 0 {
        assert_eq!(stored.rejected, unbounded.rejected, "{start}");
    }
    assert_eq!(stored.rejected.len() as u64 + stored.unlisted, unbounded.rejected.len() as u64, "{start}");
    stored.entries
}

const TOPIC: &str = "devices/pump-7/telemetry";

fn array(element: impl Fn(usize) -> String, count: usize) -> Vec<u8> {
    format!("[{}]", (0..count).map(element).collect::<Vec<_>>().join(",")).into_bytes()
}

#[test]
fn many_errors_in_a_short_message() {
    for count in [1, 2, 3, 20, 1_000, 1_024] {
        check("c", None, TOPIC, &array(|_| "1".into(), count));
        check("c", None, TOPIC, &array(|_| "[]".into(), count));
        check("c", None, TOPIC, &array(|_| "{}".into(), count));
        check("c", None, TOPIC, &array(|at| ["{}", "1"][at % 2].into(), count));
        check("c", None, TOPIC, &array(|at| ["{}", "1", r#"{"metric":1}"#, r#"{"error":1}"#][at % 4].into(), count));
        check("c", None, "t", &array(|_| r#"{"value":1}"#.into(), count));
        check("c", None, TOPIC, &array(|at| format!(r#"{{"device_id":"d{at}"}}"#), count));
        let metrics: Vec<_> = (0..count).map(|at| format!(r#""m{at}":"x""#)).collect();
        check("c", None, TOPIC, format!(r#"{{"metrics":{{{}}}}}"#, metrics.join(",")).as_bytes());
        let metrics: Vec<_> = (0..count).map(|at| format!(r#""m{at}":1"#)).collect();
        check("c", None, TOPIC, format!(r#"{{"timestamp":1,"metrics":{{{}}}}}"#, metrics.join(",")).as_bytes());
    }
}

#[test]
fn a_message_of_usual_readings_has_an_entry_for_each_error() {
    let bad = |at: usize| format!(r#"{{"timestamp":{},"metric":"temperature","value":"bad {at}","seq":{at}}}"#, T0);
    assert_eq!(check("sensor-gateway-17", Some("plant"), TOPIC, &array(bad, 1_000)), 1_000);
    let old =
        |at: usize| format!(r#"{{"timestamp":{},"metric":"temperature","value":{at}}}"#, T0 / 2 + 7_919 * at as i64);
    assert_eq!(check("sensor-gateway-17", Some("plant"), TOPIC, &array(old, 300)), 300);
    let three = br#"{"metrics":{"temperature":"x","humidity":"y","pressure":{}}}"#;
    assert_eq!(check("sensor-gateway-17", Some("plant"), TOPIC, three), 3);
}

#[test]
fn long_names_and_short_payloads() {
    let long = "x".repeat(65_535);
    for payload in [&b"1"[..], b"", b"[1,1]", b"{}", br#"{"metric":"m","value":"x"}"#, &[b' '; 3_000]] {
        check(&long, Some(&long), "t", payload);
        check(&long, None, TOPIC, payload);
        check("c", Some(&long[..300]), TOPIC, payload);
        check("c", None, &long, payload);
        check("c", None, &format!("devices/{}/telemetry", &long[..128]), payload);
        check(&"é".repeat(300), None, &format!("devices/{}/errors", "é".repeat(60)), payload);
    }
}

/// Readings of several kinds, mostly bad ones.
fn element() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "1",
        "{}",
        "[[]]",
        "null",
        r#"{"metric":"m","value":1}"#,
        r#"{"metric":"ranged","value":1e9}"#,
        r#"{"metric":"ä","value":1}"#,
        r#"{"metric":"m","value":"12"}"#,
        r#"{"metric":"m","value":1,"timestamp":7}"#,
        r#"{"metric":"m","value":1,"timestamp":"soon"}"#,
        r#"{"metric":"m","value":1,"device_id":"other"}"#,
        r#"{"metric":"m","value":1,"device_id":"\u0001\u0002"}"#,
        r#"{"metrics":{"a":"x","b":[],"c":1e999,"d":1}}"#,
        r#"{"metrics":{"a":1,"b":2},"timestamp":99999999999999}"#,
        r#"{"metrics":{}}"#,
        r#"{"error":"E42 sensor open"}"#,
        r#"{"metric":"m","value":2,"seq":5}"#,
    ]);
    parts.prop_map(str::to_owned)
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(element(), 0..60).prop_map(|all| format!("[{}]", all.join(",")).into_bytes()),
        2 => element().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..100),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z0-9-]{1,24}", 1 => "[aé]{0,400}"]
}

proptest! {
    #[test]
    fn the_log_is_in_proportion(client in name(), user in prop::option::of(name()), device in name(), payload in payload()) {
        for topic in [format!("devices/{device}/telemetry"), format!("devices/{device}/errors"), device.clone()] {
            check(&client, user.as_deref(), &topic, &payload);
        }
    }

    /// Readings of devices that may not send are all stored, in however few entries. Once the devices may send, a replay of
    /// all entries counts each reading once.
    #[test]
    fn each_folded_reading_is_replayed_once(values in prop::collection::vec(0u32..3, 1..200), twice: bool) {
        let reading = |value: &u32| ["1".to_owned(), format!(r#"{{"value":{value},"metric":"m"}}"#), "{}".to_owned()][*value as usize].clone();
        let payload = array(|at| reading(&values[at]), values.len());
        let closed = Settings { allowed_devices: vec!["other".into()], ..settings() };
        let mut bench = OperatorHarness::new(closed);
        bench.apply(T0, &[Input::telemetry("a", payload)]);
        let good = values.iter().filter(|value| **value == 1).count() as u64;
        let replays = bench.effects.1.clone();
        bench.operator.reconfigure(settings(), &mut bench.effects);
        bench.apply(T0, &replays);
        if twice {
            bench.apply(T0, &replays);
        }
        let totals = bench.operator.totals();
        prop_assert_eq!(totals.in_windows, good);
        prop_assert_eq!(totals.received, 2 * values.len() as u64);
        prop_assert_eq!(totals.replays, replays.len() as u64);
        prop_assert_eq!(totals.replays_ignored, if twice { replays.len() as u64 } else { 0 });
        let seqs: Vec<u64> = (0..replays.len() as u64).collect();
        let effects = bench.operator.replay_effects(&seqs);
        let counted: u64 = effects.iter().flatten().map(|effect| effect.counted).sum();
        let again: u64 = effects.iter().flatten().flat_map(|effect| effect.rejected.values()).sum();
        prop_assert_eq!((counted, again), (good, values.len() as u64 - good));
    }
}
