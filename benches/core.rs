//! Readings per second of the operator alone, from journal records in memory to windows.
//!
//! `cargo bench --bench core`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir::core::operator::Operator;
use weir::core::output::{Collector, ErrorEntry, WindowResult};
use weir::core::record::{PublishRecord, encode_publish};
use weir::core::settings::Settings;

const T0_MS: i64 = 1_732_098_765_123;
const DEVICES: u64 = 100;
const RUN: u64 = 100;
const METRICS: [&str; 3] = ["temperature", "humidity", "pressure"];

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
    fn records(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(&start, &end)| &self.bytes[start..end])
    }
}

/// Batches in which each device publishes a run of messages. Devices take turns; each round is later than the one
/// before.
fn batches(devices: u64, run: u64, rounds: u64, round_ms: i64) -> Vec<EncodedBatch> {
    let mut batches = Vec::new();
    for round in 0..rounds {
        let mut batch =
            EncodedBatch { arrival_ms: T0_MS + round as i64 * round_ms, bytes: Vec::new(), ends: Vec::new() };
        for device in 0..devices {
            let name = format!("dev-{device:05}");
            let topic = format!("devices/{name}/telemetry");
            for message in 0..run {
                let seq = round * run + message;
                let metric = METRICS[seq as usize % METRICS.len()];
                let value = 20.0 + ((seq.wrapping_mul(2_654_435_761) >> 7) % 1000) as f64 / 100.0;
                let timestamp = batch.arrival_ms + message as i64 * round_ms / run as i64;
                let payload = format!(
                    r#"{{"device_id":"{name}","metric":"{metric}","value":{value:.2},"timestamp":{timestamp},"seq":{seq}}}"#
                );
                let publish = PublishRecord {
                    client_id: &name,
                    topic: &topic,
                    own_device: None,
                    user: None,
                    packet_id: (seq % 65_535) as u16 + 1,
                    qos: 1,
                    dup: false,
                    retain: false,
                    repeats_retained: false,
                    payload: payload.as_bytes(),
                };
                encode_publish(&publish, message > 0, &mut batch.bytes);
                batch.ends.push(batch.bytes.len());
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
    let cases = [
        ("runs of 100 of 100 devices", batches(DEVICES, RUN, 20, 200)),
        ("single messages of 10,000 devices", batches(10_000, 1, 20, 1_000)),
    ];
    for (name, batches) in &cases {
        let readings: usize = batches.iter().map(|batch| batch.ends.len()).sum();
        group.throughput(Throughput::Elements(readings as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                let mut operator = Operator::new(Settings::default());
                let mut sink = Sink::default();
                apply_all(&mut operator, batches, &mut sink);
                assert_eq!(operator.totals().in_windows, readings as u64);
                black_box(sink.0.len())
            });
        });
    }
    group.finish();
}

fn snapshot(criterion: &mut Criterion) {
    let no_limits = Settings { max_devices_per_user: None, max_new_devices_per_hour: None, ..Settings::default() };
    let mut operator = Operator::new(no_limits);
    apply_all(&mut operator, &batches(100_000, 1, 1, 1_000), &mut Sink::default());
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
