//! Tests of the operator as a whole.

mod ahead;
mod backlog;
mod conformance;
mod descriptions;
mod error_share;
mod events;
mod idleness;
mod maps;
mod model;
mod model_numbers;
mod own_device;
mod properties;
mod proportion;
mod reasons;
mod reconfigure;
mod reconfigure_properties;
mod reconfigure_rules_0;
mod replays;
mod retained;
mod sentences;
mod sequences;
mod set_back;
mod snapshots;
mod sparkplug;
mod state;
mod tenants;
mod users;

use std::collections::BTreeMap;

use crate::core::operator::Operator;
use crate::core::output::{Collector, ErrorEntry, ErrorReader, RejectedPart, WindowResult};
use crate::core::record::{self, PublishRecord, Record, RecordDecoder, ReplayItems, ReplayRecord};
use crate::core::settings::{Settings, WatermarkScope};

/// Arrival time at which the tests begin. It is on a window boundary.
const T0: i64 = 1_732_098_765_000;

/// One effect, with everything that an observer can see of it.
#[derive(Debug, Clone, PartialEq)]
enum Effect {
    Window { seq: u64, supersedes: Option<u64>, json: serde_json::Value },
    Error { seq: u64, json: serde_json::Value },
}

/// Collects effects in order, and the replays of all errors.
#[derive(Debug, Default)]
struct Effects(Vec<Effect>, Vec<Input>, StoredErrors);

/// The stored forms of errors, by sequence number.
#[derive(Debug, Default)]
struct StoredErrors(BTreeMap<u64, Vec<u8>>);

impl StoredErrors {
    /// Stores an entry and checks that it is the same when it is read.
    fn add(&mut self, seq: u64, entry: &ErrorEntry<'_>) {
        let mut stored = Vec::new();
        entry.encode(&mut stored);
        let json = |entry: &ErrorEntry<'_>| {
            let mut json = Vec::new();
            entry.write_json(seq, &mut json);
            String::from_utf8(json).unwrap()
        };
        let mut reader = ErrorReader::default();
        if let Some(followed) = entry.follows {
            let first = seq - followed.distance;
            reader.read(first, &self.0[&first]).unwrap();
        }
        let read = reader.read(seq, &stored).unwrap();
        if !read.is_cut && read.payload == entry.payload {
            assert_eq!(json(&read), json(entry));
        }
        self.0.insert(seq, stored);
    }
}

/// The replay of an error whose payload is stored whole.
pub(crate) fn replay_of(seq: u64, entry: &ErrorEntry<'_>) -> Vec<u8> {
    let (mut items, mut replay) = (Vec::new(), Vec::new());
    entry.replay_items(seq).iter().for_each(|item| item.encode(&mut items));
    let record = ReplayRecord {
        position: entry.journal_position,
        whole: entry.part == RejectedPart::Message,
        arrival_ms: entry.first_arrival_ms(),
        client_id: entry.client_id,
        topic: entry.topic,
        own_device: entry.own_device,
        user: entry.user,
        items: ReplayItems(&items),
        payload: entry.payload,
    };
    record::encode_replay(&record, &mut replay);
    replay
}

impl Collector for Effects {
    fn window(&mut self, seq: u64, window: &WindowResult<'_>) {
        let mut json = Vec::new();
        window.write_json(seq, &mut json);
        let json = serde_json::from_slice(&json).unwrap();
        self.0.push(Effect::Window { seq, supersedes: window.supersedes, json });
    }

    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>) {
        let mut json = Vec::new();
        entry.write_json(seq, &mut json);
        self.2.add(seq, entry);
        self.1.push(Input::Encoded(replay_of(seq, entry)));
        self.0.push(Effect::Error { seq, json: serde_json::from_slice(&json).unwrap() });
    }
}

/// A record before it is encoded.
#[derive(Debug, Clone)]
enum Input {
    Publish {
        user: Option<String>,
        client: String,
        topic: String,
        packet_id: u16,
        qos: u8,
        dup: bool,
        payload: Vec<u8>,
    },
    Tick,
    Resumed,
    Encoded(Vec<u8>),
    Settings(Box<Settings>),
}

impl Input {
    /// A QoS 1 publish on the telemetry topic of `device`.
    fn telemetry(device: &str, payload: impl Into<Vec<u8>>) -> Self {
        Self::on(&format!("devices/{device}/telemetry"), payload)
    }

    fn on(topic: &str, payload: impl Into<Vec<u8>>) -> Self {
        let (client, topic) = ("client".to_owned(), topic.to_owned());
        Self::Publish { user: None, client, topic, packet_id: 1, qos: 1, dup: false, payload: payload.into() }
    }

    /// The same publish of a client that logged in as `name`.
    fn of_user(mut self, name: &str) -> Self {
        if let Self::Publish { user, .. } = &mut self {
            *user = Some(name.to_owned());
        }
        self
    }

    fn again(mut self) -> Self {
        if let Self::Publish { dup, .. } = &mut self {
            *dup = true;
        }
        self
    }

    fn encode(&self, previous: Option<&Input>) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Publish { user, client, topic, packet_id, qos, dup, payload } => {
                let origin = (user, client, topic);
                let same = matches!(previous, Some(Self::Publish { user, client, topic, .. }) if (user, client, topic) == origin);
                let publish = PublishRecord {
                    client_id: client,
                    topic,
                    own_device: None,
                    user: user.as_deref(),
                    packet_id: *packet_id,
                    qos: *qos,
                    dup: *dup,
                    retain: false,
                    repeats_retained: false,
                    payload,
                };
                record::encode_publish(&publish, same, &mut bytes);
            }
            Self::Tick => record::encode_tick(&mut bytes),
            Self::Resumed => record::encode_resumed(&mut bytes),
            Self::Encoded(record) => bytes.clone_from(record),
            Self::Settings(settings) => record::encode_settings(settings, &mut bytes),
        }
        bytes
    }
}

/// An operator under test, and the journal position of its next record.
struct OperatorHarness {
    operator: Operator,
    lsn: u64,
    effects: Effects,
}

impl OperatorHarness {
    fn new(settings: Settings) -> Self {
        Self { operator: Operator::new(settings), lsn: 0, effects: Effects::default() }
    }

    /// Applies one batch; returns its effects.
    fn apply(&mut self, arrival_ms: i64, inputs: &[Input]) -> Vec<Effect> {
        let records: Vec<_> = (0..inputs.len())
            .map(|index| inputs[index].encode(index.checked_sub(1).map(|before| &inputs[before])))
            .collect();
        let records = records.iter().map(Vec::as_slice);
        self.operator.apply(self.lsn, arrival_ms, records, &mut self.effects).unwrap();
        self.lsn += inputs.len() as u64;
        assert_eq!(self.operator.totals().unaccounted(), 0);
        std::mem::take(&mut self.effects.0)
    }

    /// Applies one batch that sets the clock back; returns its effects.
    fn apply_set_back(&mut self, arrival_ms: i64, inputs: &[Input]) -> Vec<Effect> {
        self.operator.set_clock_back(arrival_ms, &mut self.effects);
        self.apply(arrival_ms, inputs)
    }

    /// The replay of an error.
    fn replay(&self, error_seq: u64) -> Input {
        self.effects.1[error_seq as usize].clone()
    }

    /// The replay of several errors of one message.
    fn replay_together(&self, error_seqs: &[u64]) -> Input {
        let mut items = Vec::new();
        let mut together = None;
        for &seq in error_seqs {
            let Input::Encoded(bytes) = &self.effects.1[seq as usize] else { panic!() };
            let Ok(Record::Replay(replay)) = RecordDecoder::default().decode(bytes) else { panic!() };
            items.extend_from_slice(replay.items.0);
            together = Some(replay);
        }
        let mut bytes = Vec::new();
        record::encode_replay(&ReplayRecord { items: ReplayItems(&items), ..together.unwrap() }, &mut bytes);
        Input::Encoded(bytes)
    }

    /// Applies a batch and expects `effects`, each as in [`brief`].
    fn check(&mut self, arrival_ms: i64, inputs: &[Input], effects: &[&str]) {
        let actual: Vec<_> = self.apply(arrival_ms, inputs).iter().map(brief).collect();
        assert_eq!(actual, effects, "at T0 + {}", arrival_ms - T0);
    }
}

/// An effect in short: `device/metric@start#revision=sum` or `reason device/metric index`, with times relative to [`T0`].
fn brief(effect: &Effect) -> String {
    match effect {
        Effect::Window { json, .. } => format!(
            "{}/{}@{}#{}={}",
            json["device_id"].as_str().unwrap(),
            json["metric"].as_str().unwrap(),
            json["window_start"].as_i64().unwrap() - T0,
            json["revision"],
            json["sum"],
        ),
        Effect::Error { json, .. } => {
            let name = |key: &str| json[key].as_str().unwrap_or("-").to_owned();
            format!("{} {}/{} {}", name("reason"), name("device_id"), name("metric"), json["index"])
        }
    }
}

/// The defaults with the rules of Flink: no backlogs, and watermarks that follow event times however far they are ahead of
/// the arrival.
fn flink() -> Settings {
    Settings { backlog: false, ..Settings::default() }
}

/// Runs a check for both scopes of watermarks.
fn both_scopes(check: impl Fn(Settings)) {
    check(Settings::default());
    check(Settings { watermark: WatermarkScope::Global, ..Settings::default() });
}

/// A message of device `a` with one reading of metric `m`, `offset_ms` after [`T0`].
fn a(offset_ms: i64, value: f64) -> Input {
    Input::telemetry("a", reading(offset_ms, value))
}

/// The same of device `b`.
fn b(offset_ms: i64, value: f64) -> Input {
    Input::telemetry("b", reading(offset_ms, value))
}

/// The payload of one reading of metric `m`, `offset_ms` after [`T0`].
fn reading(offset_ms: i64, value: f64) -> String {
    format!(r#"{{"metric":"m","value":{value},"timestamp":{}}}"#, T0 + offset_ms)
}

/// The payload of one reading of metric `m`, with a sequence number.
fn numbered(seq: u64, offset_ms: i64, value: f64) -> String {
    format!(r#"{{"metric":"m","value":{value},"timestamp":{},"seq":{seq}}}"#, T0 + offset_ms)
}
