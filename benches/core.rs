//! Readings per second of the operator alone, from journal records in memory to windows.
//!
//! `cargo bench --bench core`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir::config::Config;
use weir::core::operator::Operator;
use weir::core::output::{Collector, ErrorEntry, WindowResult};
use weir::core::record::{PublishRecord, encode_publish};
use weir::core::settings::Settings;
use weir_test_kit::measure::form::{BenchForm, BenchMessage};

const T0_MS: i64 = 1_732_098_765_123;
const DEVICES: u64 = 100;
const RUN: u64 = 100;
/// Messages of one case: 100 devices with 20 runs, or 10,000 with 20 messages. Greetings come on top.
const MESSAGES: u64 = 200_000;

/// Encodes windows as the pipeline does. An error entry fails the bench.
#[derive(Default)]
struct Sink(Vec<u8>);

impl Collector for Sink {
    fn window(&mut self, _seq: u64, window: &WindowResult<'_>) {
        window.encode(&mut self.0);
    }

    fn error(&mut self, _seq: u64, entry: &ErrorEntry<'_>) {
        panic!("{entry:?}");
    }
}

struct EncodedBatch {
    arrival_ms: i64,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl EncodedBatch {
    fn add(&mut self, client_id: &str, topic: &str, payload: &[u8], packet_id: u16, is_same_origin: bool) {
        let publish = PublishRecord {
            client_id,
            topic,
            own_device: None,
            user: None,
            packet_id,
            qos: 1,
            dup: false,
            retain: false,
            repeats_retained: false,
            payload,
        };
        encode_publish(&publish, is_same_origin, &mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    fn records(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(&start, &end)| &self.bytes[start..end])
    }
}

/// Batches in which each device publishes a run of messages. Devices take turns; each round is later than the one
/// before.
fn batches(form: BenchForm, devices: u64, run: u64, rounds: u64, round_ms: i64) -> Vec<EncodedBatch> {
    let mut batches = Vec::new();
    let (mut topic, mut last_topic, mut payload) = (String::new(), String::new(), Vec::new());
    for round in 0..rounds {
        let mut batch =
            EncodedBatch { arrival_ms: T0_MS + round as i64 * round_ms, bytes: Vec::new(), ends: Vec::new() };
        for device in 0..devices {
            let name = format!("dev-{device:05}");
            if let Some((topic, payload)) = form.greeting(&name, batch.arrival_ms as u128).filter(|_| round == 0) {
                batch.add(&name, &topic, &payload, 1, false);
            }
            for message in 0..run {
                let seq = round * run + message;
                let time_ms = (batch.arrival_ms + message as i64 * round_ms / run as i64) as u128;
                last_topic.clone_from(&topic);
                BenchMessage { form, device: &name, seq, time_ms }.write(&mut topic, &mut payload);
                let is_same = message > 0 && topic == last_topic;
                batch.add(&name, &topic, &payload, (seq % 65_535) as u16 + 1, is_same);
            }
        }
        batches.push(batch);
    }
    batches
}

fn apply_all(operator: &mut Operator, batches: &[EncodedBatch], sink: &mut Sink) {
    let mut lsn = 0;
    for batch in batches {
        assert_eq!(operator.apply(lsn, batch.arrival_ms, batch.records(), sink), Ok(()));
        lsn += batch.ends.len() as u64;
    }
}

fn throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.sample_size(20);
    let maps = Config::default().settings();
    let no_maps = Settings::default();
    let runs = |form| batches(form, DEVICES, RUN, 20, 200);
    let cases = [
        ("runs of 100 of 100 devices", &no_maps, runs(BenchForm::Native), 1),
        ("the same, with the maps of all presets", &maps, runs(BenchForm::Native), 1),
        ("single messages of 10,000 devices", &no_maps, batches(BenchForm::Native, 10_000, 1, 20, 1_000), 1),
        ("Tasmota, 8 readings a message", &maps, runs(BenchForm::Tasmota), 8),
        ("Sparkplug B, 8 readings a message", &maps, runs(BenchForm::Sparkplug), 8),
        ("one value a topic, 8 topics in turn", &maps, runs(BenchForm::Scalar), 1),
    ];
    for (name, settings, batches, readings) in &cases {
        let readings = MESSAGES * readings;
        group.throughput(Throughput::Elements(readings));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                let mut operator = Operator::new((*settings).clone());
                let mut sink = Sink::default();
                apply_all(&mut operator, batches, &mut sink);
                assert_eq!(operator.totals().in_windows, readings);
                black_box(sink.0.len())
            });
        });
    }
    group.finish();
}

fn snapshot(criterion: &mut Criterion) {
    let no_limits = Settings { max_devices_per_user: None, max_new_devices_per_hour: None, ..Settings::default() };
    let mut operator = Operator::new(no_limits);
    apply_all(&mut operator, &batches(BenchForm::Native, 100_000, 1, 1, 1_000), &mut Sink::default());
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(20);
    group.bench_function("100,000 devices", |bencher| {
        bencher.iter(|| {
            operator.snapshot_failed();
            let mut blobs = Vec::new();
            black_box(operator.begin_snapshot());
            while !operator.snapshot_step(64, &mut blobs) {}
            black_box(blobs.len())
        });
    });
    group.finish();
}

criterion_group!(benches, throughput, snapshot);
criterion_main!(benches);
