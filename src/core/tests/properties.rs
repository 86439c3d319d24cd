//! The operator has the same effects as the model, for random batches.

use proptest::prelude::*;

use super::model::{Model, ModelElement, ModelMessage, ModelRecord};
use super::{Effect, Input, OperatorHarness, T0};
use crate::core::settings::{SequenceBits, Settings, TimestampUnit, WatermarkScope};

/// An effect, as the model prints it.
pub(super) fn line(effect: &Effect) -> String {
    let text = |json: &serde_json::Value, key: &str| json[key].as_str().unwrap_or("-").to_owned();
    match effect {
        Effect::Window { json, .. } => format!(
            "{}/{} {}..{} #{} count {} sum {} min {} max {} first {} last {}",
            text(json, "device_id"),
            text(json, "metric"),
            json["window_start"],
            json["window_end"],
            json["revision"],
            json["count"],
            json["sum"],
            json["min"],
            json["max"],
            json["first"],
            json["last"],
        ),
        Effect::Error { json, .. } => format!(
            "{} {}/{} {} {} {}",
            text(json, "reason"),
            text(json, "device_id"),
            text(json, "metric"),
            json["journal_position"],
            json["index"],
            json.get("replay_of").map_or("-".into(), serde_json::Value::to_string),
        ),
    }
}

pub(super) type Batches = Vec<(i64, Vec<ModelRecord>)>;

pub(super) fn settings() -> impl Strategy<Value = Settings> {
    (
        prop_oneof![Just(WatermarkScope::Device), Just(WatermarkScope::Global)],
        prop_oneof![Just(0), Just(500), Just(3_000)],
        prop_oneof![Just(0), Just(700), Just(5_000)],
        prop_oneof![Just(None), Just(Some(0)), Just(Some(2_000)), Just(Some(6_000))],
        prop_oneof![Just(None), Just(Some(12_000))],
        (1usize..5, 1usize..4, prop::option::of(1usize..4), prop::option::of(1usize..4)),
        prop_oneof![4 => Just(true), 1 => Just(false)],
        prop_oneof![Just(1_000), Just(5_000)],
        (
            prop_oneof![3 => Just(Settings::RULES), 1 => Just(0)],
            prop::sample::select(vec![SequenceBits::Auto, SequenceBits::Bits8, SequenceBits::Bits64]),
            any::<bool>(),
        ),
    )
        .prop_map(
            |(watermark, out_of_orderness_ms, allowed_lateness_ms, idle, ttl, limits, dedup, window_ms, numbers)| {
                Settings {
                    timestamp_unit: TimestampUnit::Ms,
                    max_future_ms: Some(4_000),
                    max_age_ms: Some(20_000),
                    window_ms,
                    watermark,
                    out_of_orderness_ms,
                    allowed_lateness_ms,
                    idle_timeout_ms: idle,
                    backlog: numbers.2,
                    device_ttl_ms: ttl,
                    max_devices: limits.0,
                    max_metrics_per_device: limits.1,
                    max_devices_per_user: limits.2,
                    max_new_devices_per_hour: limits.3,
                    dedup,
                    store_duplicates: true,
                    // The model has an error for each reading.
                    errors_in_proportion: false,
                    rules: numbers.0,
                    sequence_bits: numbers.1,
                    ..Settings::default()
                }
            },
        )
}

/// Random batches. Their times are relative to the arrival.
fn element() -> impl Strategy<Value = ModelElement> {
    let metrics = prop::sample::subsequence(vec!["m", "n", "o"], 1..=3);
    (
        prop::sample::select(vec!["a", "b", "c", "d"]),
        prop::option::weighted(0.6, prop_oneof![4 => 0u64..12, 1 => 236u64..262]),
        prop::option::weighted(0.15, 0u8..2),
        prop::option::weighted(0.9, prop_oneof![8 => -3_000i64..500, 2 => -25_000i64..5_000]),
        metrics,
        prop::array::uniform3(-100i32..100),
    )
        .prop_map(|(device, seq, boot, time_ms, metrics, values)| ModelElement {
            device,
            seq,
            boot,
            time_ms,
            readings: metrics.into_iter().zip(values).collect(),
        })
}

fn record() -> impl Strategy<Value = ModelRecord> {
    let elements = prop_oneof![6 => prop::collection::vec(element(), 1), 1 => prop::collection::vec(element(), 2..6)];
    let client = prop::sample::select(vec![(None, "x"), (None, "y"), (Some("u"), "x"), (Some("v"), "x")]);
    let message = (client, 1u16..4, prop::bool::weighted(0.3), elements).prop_map(
        |((user, client), packet_id, dup, elements)| {
            ModelRecord::Message(ModelMessage { user, client, packet_id, dup, elements })
        },
    );
    let replay = (0usize..1_000).prop_map(ModelRecord::Replay);
    let forget = prop::sample::subsequence(vec!["a", "b", "c", "d"], 1..=3).prop_map(ModelRecord::Forget);
    prop_oneof![20 => message, 2 => Just(ModelRecord::Tick), 1 => Just(ModelRecord::Resumed), 4 => replay, 2 => forget]
}

/// Batches with absolute times. Some messages come again, as MQTT redelivers them, or as another user sends the same.
pub(super) fn batches() -> impl Strategy<Value = Batches> {
    let step = prop_oneof![3 => 0i64..10, 6 => 0i64..1_500, 1 => 0i64..15_000];
    let batch = (
        step,
        prop::collection::vec((record(), prop::option::weighted(0.15, (0usize..8, prop::bool::weighted(0.2)))), 0..5),
    );
    prop::collection::vec(batch, 1..40).prop_map(|batches| {
        let mut arrival_ms = T0;
        let mut sent: Vec<ModelRecord> = Vec::new();
        let timed = batches.into_iter().map(|(step_ms, records)| {
            arrival_ms += step_ms;
            let records = records.into_iter().map(|(record, again)| match again {
                Some((back, other_user)) if back < sent.len() => redelivery(&sent[sent.len() - 1 - back], other_user),
                _ => {
                    let record = absolute(record, arrival_ms);
                    sent.push(record.clone());
                    record
                }
            });
            (arrival_ms, records.collect())
        });
        timed.collect()
    })
}

fn absolute(mut record: ModelRecord, arrival_ms: i64) -> ModelRecord {
    if let ModelRecord::Message(message) = &mut record {
        for element in &mut message.elements {
            element.time_ms = element.time_ms.map(|offset_ms| arrival_ms + offset_ms);
        }
    }
    record
}

fn redelivery(record: &ModelRecord, other_user: bool) -> ModelRecord {
    let mut record = record.clone();
    if let ModelRecord::Message(message) = &mut record {
        message.dup = true;
        if other_user {
            message.user = if message.user.is_some() { None } else { Some("u") };
        }
    }
    record
}

/// Inputs of the operator. The content of a replay depends on the errors before it, which the model knows.
pub(super) fn inputs(settings: &Settings, batches: &Batches) -> Vec<(i64, Vec<Input>)> {
    let mut model = Model::new(settings.clone());
    let encoded = batches.iter().map(|(arrival_ms, records)| {
        let inputs = model.inputs(records);
        model.apply(*arrival_ms, records);
        (*arrival_ms, inputs)
    });
    encoded.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(settings in settings(), batches in batches()) {
        let settings = Settings { backlog: false, ..settings };
        let mut bench = OperatorHarness::new(settings.clone());
        let mut model = Model::new(settings);
        for (arrival_ms, records) in &batches {
            let ours: Vec<_> = bench.apply(*arrival_ms, &model.inputs(records)).iter().map(line).collect();
            prop_assert_eq!(ours, model.apply(*arrival_ms, records), "in the batch at {}", arrival_ms);
        }
        bench.operator.close_all(&mut bench.effects);
        let ours: Vec<_> = bench.effects.0.iter().map(line).collect();
        prop_assert_eq!(ours, model.close_all(), "at the end");
    }

    #[test]
    fn sizes_are_what_is_there(settings in settings(), batches in batches()) {
        let batches = inputs(&settings, &batches);
        let mut bench = OperatorHarness::new(settings);
        for (arrival_ms, records) in &batches {
            bench.apply(*arrival_ms, records);
            let sizes = bench.operator.sizes();
            let devices = bench.operator.devices(None, usize::MAX);
            prop_assert_eq!(devices.len(), sizes.devices);
            prop_assert_eq!(devices.iter().map(|device| device.metrics).sum::<usize>(), sizes.series);
            let accepted: u64 = devices.iter().map(|device| device.accepted).sum();
            prop_assert!(accepted <= bench.operator.totals().in_windows);
            prop_assert!(sizes.open_windows <= sizes.windows);
            prop_assert!(sizes.devices <= bench.operator.settings().max_devices);
            prop_assert!(sizes.backlog_windows <= sizes.windows);
            let is_open = sizes.open_windows > 0 && sizes.backlog_windows == 0;
            prop_assert!(bench.operator.event_time().1.is_some() || !is_open);
        }
        bench.operator.close_all(&mut bench.effects);
        prop_assert_eq!(bench.operator.sizes().open_windows, 0);
    }

    #[test]
    fn sequence_numbers_grow_by_one(settings in settings(), batches in batches()) {
        let batches = inputs(&settings, &batches);
        let mut bench = OperatorHarness::new(settings);
        let (mut windows, mut errors) = (0, 0);
        for (arrival_ms, records) in &batches {
            for effect in bench.apply(*arrival_ms, records) {
                let (seq, next) = match effect {
                    Effect::Window { seq, .. } => (seq, &mut windows),
                    Effect::Error { seq, .. } => (seq, &mut errors),
                };
                prop_assert_eq!(seq, *next);
                *next += 1;
            }
        }
        prop_assert_eq!((bench.operator.next_window_seq(), bench.operator.next_error_seq()), (windows, errors));
    }

    #[test]
    fn any_payload_is_handled(payload: Vec<u8>) {
        let mut bench = OperatorHarness::new(Settings::default());
        bench.apply(T0, &[Input::telemetry("a", payload)]);
        prop_assert_eq!(bench.operator.totals().received, bench.operator.totals().rejected.iter().sum::<u64>());
    }

    #[test]
    fn any_record_is_handled(record: Vec<u8>) {
        let mut bench = OperatorHarness::new(Settings::default());
        let _ = bench.operator.apply(0, T0, [record.as_slice()].into_iter(), &mut bench.effects);
    }
}
