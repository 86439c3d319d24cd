//! The errors log stays in proportion to what comes in, and no rejected reading is forgotten over it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::ModelRecord;
use super::properties::{self, Batches};
use super::{Input, OperatorHarness, T0};
use crate::core::operator::Operator;
use crate::core::output::{Collector, ErrorEntry, RejectedPart, WindowResult};
use crate::core::reason::Reason;
use crate::core::record::{self, PublishRecord, ReplayItems, ReplayRecord};
use crate::core::settings::{MetricRange, Settings, TenantSettings};

/// Bytes of the errors log for one message, and its rejected readings by index.
#[derive(Debug, Default)]
struct StoredMessage {
    bytes: usize,
    entries: usize,
    rejected: BTreeMap<u32, Reason>,
    /// Of each entry that can be replayed: whether it is of the message as a whole, and its items of a replay.
    items: Vec<(bool, Vec<u8>)>,
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
        let mut items = Vec::new();
        entry.replay_items(seq).iter().for_each(|item| item.encode(&mut items));
        if !items.is_empty() {
            self.items.push((entry.part == RejectedPart::Message, items));
        }
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

/// A message, and who sent it.
#[derive(Debug, Clone)]
struct SentMessage {
    client: String,
    user: Option<String>,
    own_device: Option<String>,
    topic: String,
    payload: Vec<u8>,
}

impl SentMessage {
    fn new(client: &str, user: Option<&str>, topic: &str, payload: &[u8]) -> Self {
        let (client, user, topic) = (client.to_owned(), user.map(str::to_owned), topic.to_owned());
        Self { client, user, own_device: None, topic, payload: payload.to_vec() }
    }

    fn publish(&self) -> Vec<u8> {
        let mut record = Vec::new();
        let publish = PublishRecord {
            client_id: &self.client,
            topic: &self.topic,
            own_device: self.own_device.as_deref(),
            user: self.user.as_deref(),
            packet_id: 1,
            qos: 1,
            dup: false,
            retain: false,
            repeats_retained: false,
            payload: &self.payload,
        };
        record::encode_publish(&publish, false, &mut record);
        record
    }

    /// The replay of errors of the message, which is at this position.
    fn replay(&self, position: u64, whole: bool, items: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        let replay = ReplayRecord {
            position,
            whole,
            arrival_ms: T0,
            client_id: &self.client,
            topic: &self.topic,
            own_device: self.own_device.as_deref(),
            user: self.user.as_deref(),
            items: ReplayItems(items),
            payload: &self.payload,
        };
        record::encode_replay(&replay, &mut record);
        record
    }

    /// Applies a record of this message and checks what the errors log takes for it.
    #[track_caller]
    fn apply(&self, operator: &mut Operator, lsn: u64, record: &[u8]) -> StoredMessage {
        let mut stored = StoredMessage::default();
        operator.apply(lsn, T0, std::iter::once(record), &mut stored).unwrap();
        let batch_header = if stored.entries == 0 { 0 } else { 48 };
        let allowed = 2 * (self.topic.len() + self.payload.len()) + 256;
        let start = String::from_utf8_lossy(&self.payload[..self.payload.len().min(60)]);
        let bytes = stored.bytes + batch_header;
        assert!(bytes <= allowed, "{bytes} of {allowed} bytes, {} entries for {start}", stored.entries);
        stored
    }

    /// Applies the message, replays its errors together, and those that come of it one by one. The positions and sequence
    /// numbers are as long as they can be. Returns the number of entries of the message.
    #[track_caller]
    fn check(&self, settings: &Settings) -> usize {
        let mut operator = Operator::new(settings.clone());
        operator.next_seq.error = 1 << 62;
        let mut lsn = 1 << 62;
        let first = self.apply(&mut operator, lsn, &self.publish());
        let mut again = Vec::new();
        for (whole, all) in [(true, &first.items), (false, &first.items)] {
            let items: Vec<u8> =
                all.iter().filter(|(of, _)| *of == whole).flat_map(|(_, items)| items.clone()).collect();
            if !items.is_empty() {
                lsn += 1;
                let replayed = self.apply(&mut operator, lsn, &self.replay(1 << 62, whole, &items));
                again.extend(replayed.items.into_iter().map(|(whole, items)| (lsn, whole, items)));
            }
        }
        // A message has up to a thousand: the first ones and the last one are enough.
        let last = again.len().saturating_sub(1);
        for (at, (position, whole, items)) in again.into_iter().enumerate() {
            if at < 3 || at == last {
                lsn += 1;
                self.apply(&mut operator, lsn, &self.replay(position, whole, &items));
            }
        }
        first.entries
    }
}

/// Checks a message, and that what is stored of it is what would be without a bound. Returns its number of entries.
#[track_caller]
fn check(client: &str, user: Option<&str>, topic: &str, payload: &[u8]) -> usize {
    let sent = SentMessage::new(client, user, topic, payload);
    let applied = |settings: Settings| {
        let (mut operator, mut stored) = (Operator::new(settings), StoredMessage::default());
        operator.apply(0, T0, std::iter::once(sent.publish().as_slice()), &mut stored).unwrap();
        (stored, operator)
    };
    let (stored, operator) = applied(settings());
    let start = String::from_utf8_lossy(&payload[..payload.len().min(60)]);
    let (unbounded, other) = applied(Settings { errors_in_proportion: false, ..settings() });
    assert_eq!(operator.totals(), other.totals(), "{start}");
    if stored.unlisted == 0 {
        assert_eq!(stored.rejected, unbounded.rejected, "{start}");
    }
    assert_eq!(stored.rejected.len() as u64 + stored.unlisted, unbounded.rejected.len() as u64, "{start}");
    sent.check(&settings())
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

/// Applies the messages of a history, and replays the errors of each at once.
fn check_history(settings: Settings, batches: &Batches) {
    let (mut operator, mut lsn) = (Operator::new(settings), 0);
    for record in batches.iter().flat_map(|(_, records)| records) {
        let ModelRecord::Message(message) = record else { continue };
        let sent = SentMessage::new(message.client, message.user, "any", message.payload().as_bytes());
        let stored = sent.apply(&mut operator, lsn, &sent.publish());
        let items: Vec<u8> = stored.items.into_iter().flat_map(|(_, items)| items).collect();
        if !items.is_empty() {
            sent.apply(&mut operator, lsn + 1, &sent.replay(lsn, false, &items));
        }
        lsn += 2;
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z0-9-]{1,24}", 1 => "[aé]{0,400}"]
}

/// Devices with long names behind short topics, tenants, payloads that are unpacked.
fn sent() -> impl Strategy<Value = SentMessage> {
    let device = prop_oneof!["[a-z]{1,8}", "[a-z]{128}", "[aé]{64}", "[a-z]{120,129}"];
    let topics = prop::sample::select(vec!["t", "acme/t", "long", "devices/+/telemetry", "devices/+/errors"]);
    let own = prop::option::of(prop_oneof!["[a-z]{128}", "[a-z]{1,8}"]);
    (name(), prop::option::of(name()), own, topics, device, payload(), 0..3).prop_map(
        |(client, user, own_device, topic, device, payload, form)| {
            let topic = match topic {
                "long" => format!("{LONG_PREFIX}t"),
                topic => topic.replace('+', &device),
            };
            let named = String::from_utf8_lossy(&payload).replace("\"other\"", &format!("{device:?}"));
            let payload = match form {
                0 => payload,
                1 => named.into_bytes(),
                _ => gzip(named.as_bytes()),
            };
            let own_device = own_device.filter(|_| !topic.contains("devices/"));
            SentMessage { client, user, own_device, topic, payload }
        },
    )
}

const LONG_PREFIX: &str = "a-tenant-whose-prefix-is-as-long-as-that-of-a-company-with-a-long-name/";

/// Settings with tenants, and devices that may not send.
fn closed() -> Settings {
    let tenant = |prefix: &str| TenantSettings { prefix: prefix.into(), max_devices: Some(1) };
    let telemetry_topics = vec!["t".to_owned(), "devices/+/telemetry".to_owned()];
    let tenants = vec![tenant(LONG_PREFIX), tenant("acme/")];
    Settings { tenants, telemetry_topics, allowed_devices: vec!["a".into()], ..settings() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_long_device_of_its_own_on_a_short_topic() {
    for payload in
        ["1", "", "[1,1]", "{}", "[{},{},{}]", r#"{"error":"x"}"#, r#"{"metric":"m"}"#, r#"{"metric":"m","value":1}"#]
    {
        for user in [None, Some("u".repeat(128))] {
            for topic in ["t", "acme/t", &format!("{LONG_PREFIX}t")] {
                let sent = SentMessage {
                    client: "c".repeat(256),
                    user: user.clone(),
                    own_device: Some("d".repeat(128)),
                    topic: topic.to_owned(),
                    payload: payload.into(),
                };
                sent.check(&closed());
            }
        }
    }
}

/// What the sentence of a refused replay advises helps: the readings of a compressed message are too many to note which; of
/// smaller ones, and of the message as it was, it is noted.
#[test]
fn smaller_messages_that_are_not_compressed_say_which_readings_are_wrong() {
    let alternating = |count| array(|at| ["{}", "1"][at % 2].into(), count);
    let unlisted = |payload: &[u8]| {
        let sent = SentMessage::new("c", None, TOPIC, payload);
        let (mut operator, lsn) = (Operator::new(settings()), 0);
        sent.apply(&mut operator, lsn, &sent.publish()).unlisted
    };
    assert!(unlisted(&gzip(&alternating(1_000))) > 900);
    assert_eq!((unlisted(&alternating(1_000)), unlisted(&gzip(&alternating(100)))), (0, 0));
}

proptest! {
    #[test]
    fn the_log_is_in_proportion_for_tenants_and_long_names(sent in sent(), is_closed: bool) {
        sent.check(&if is_closed { closed() } else { Settings { allowed_devices: Vec::new(), ..closed() } });
    }

    /// Histories of devices with numbers, restarts and backlogs.
    #[test]
    fn the_log_is_in_proportion_for_histories(settings in properties::settings(), batches in properties::batches()) {
        check_history(Settings { errors_in_proportion: true, store_duplicates: true, ..settings }, &batches);
    }

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
