//! Memory of a real `weir` process, and the bytes that it writes to disk.
//!
//! `cargo bench --bench memory`. Arguments: `-- [seconds of the steady load] [messages at full speed]`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_test_kit::measure::client::{LoadClient, connect_all, connect_packet};
use weir_test_kit::measure::form::BenchForm;
use weir_test_kit::measure::full_load::FullLoad;
use weir_test_kit::measure::paced::SteadyLoad;
use weir_test_kit::measure::reading::{BenchReading, now_ms};
use weir_test_kit::measure::times::ms;
use weir_test_kit::measure::{BenchArguments, megabytes, run};
use weir_test_kit::process::{Program, Weir};

/// The program under test.
const WEIR: Program = weir_test_kit::program!();

const KEYS: u64 = 100_000;
const IN_FLIGHT: u64 = 1_000;
/// Connections of the steady load. The devices are spread evenly over them.
const GATEWAYS: u64 = 1_000;
const METRIC: &[&str] = &["temperature"];
const CONNECTS_TOGETHER: usize = 100;
/// Time until the number of windows held for late readings, and so the size of checkpoints, stops growing.
const SETTLED: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(200);

const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    let Some(mut arguments) = BenchArguments::read() else { return };
    let (time, messages) = (Duration::from_secs(arguments.number(120)), arguments.number(5_000_000));
    run(LIMIT + time, async {
        let weir = start();
        println!("idle: {}", megabytes(weir.memory().now));
        one_window_each(weir).await;
        full_speed(start(), messages).await;
        steady(start(), time).await;
    });
}

/// Starts weir without limits that would refuse so many new devices at once.
fn start() -> Weir {
    let mut weir = WEIR.prepare_on_disk(&[("limits.new_devices_per_hour", "'off'"), ("limits.devices_share", "1.0")]);
    weir.restart();
    weir
}

/// Sends one message of each device: weir holds one window per device for late readings.
async fn one_window_each(mut weir: Weir) {
    let mut client = connected(&weir).await;
    let (time_ms, mut payload) = (now_ms(), String::new());
    let write = |index: u64, packet_id, out: &mut Vec<u8>| {
        let device = format!("key-{index:06}");
        let reading = BenchReading { device: &device, metric: METRIC[0], seq: 0, time_ms, named: false };
        reading.publish(packet_id, &mut payload, out);
    };
    client.publish_all(KEYS, IN_FLIGHT, &mut 0, write).await.expect("PUBACKs");
    weir.wait_until("all windows are there", |weir| weir.metric_sum("weir_windows_held") as u64 == KEYS);
    println!("{KEYS} keys, one window each: {}", megabytes(weir.memory().now));
    weir.forget_peak();
    // Every key group has changed, so the next checkpoint stores all of them.
    let newest = weir.watch("a checkpoint of all of them", |weir| {
        let checkpoints = weir.json("/api/v1/checkpoints");
        let newest = checkpoints["checkpoints"][0].clone();
        (newest["bytes"].as_u64()? > KEYS * 100).then_some(newest)
    });
    println!("while a checkpoint of all of them is under way, at most: {}", megabytes(weir.memory().peak));
    println!(
        "that checkpoint: {} on disk after {} ms, the pipeline held up for {} µs at most",
        megabytes(newest["bytes"].as_u64().unwrap_or(0)),
        newest["duration_ms"],
        newest["stall_us"]
    );
}

async fn connected(weir: &Weir) -> LoadClient {
    LoadClient::connect(weir.mqtt(), &connect_packet("gateway", None)).await.expect("a connection")
}

async fn full_speed(mut weir: Weir, messages: u64) {
    let load = FullLoad { form: BenchForm::Native, devices: 100, in_flight: 100, messages: messages / 100 };
    for device in load.run(weir.mqtt(), "bench-device").await {
        device.outcome.expect("the connection lasts");
    }
    weir.wait_until("all is processed", |weir| weir.metric_sum("weir_pipeline_backlog_records") == 0.0);
    let begun = now_ms() as u64;
    weir.wait_until("a checkpoint of that", |weir| {
        let newest = &weir.json("/api/v1/checkpoints")["checkpoints"][0]["started_ms"];
        newest.as_u64().is_some_and(|started| started >= begun)
    });
    println!("100 devices at full speed, {messages} messages: {}", WrittenBytes::by(&weir));
    println!("memory at most: {}", megabytes(weir.memory().peak));
}

/// Keeps every key active in every window. Consecutive messages belong to different clients, devices and windows.
async fn steady(weir: Weir, time: Duration) {
    let packets = (0..GATEWAYS).map(|index| connect_packet(&format!("gateway-{index}"), None)).collect();
    let clients = connect_all(weir.mqtt(), packets, CONNECTS_TOGETHER).await;
    let (devices, interval) = (KEYS / GATEWAYS, Duration::from_secs(5));
    let pace = SteadyLoad { devices, metrics: METRIC, interval, time, named: false };
    let weir = Arc::new(weir);
    let (end, watched) = (Instant::now() + time, Arc::clone(&weir));
    let watch = tokio::task::spawn_blocking(move || written_at_checkpoints(&watched, end));
    let paced = pace.run(clients).await;
    println!(
        "{KEYS} devices over {GATEWAYS} connections, one message every {} s each for {} s: PUBLISH to PUBACK {}, {} lost",
        interval.as_secs(),
        time.as_secs(),
        paced.times,
        paced.lost
    );
    let memory = weir.memory();
    println!("memory at the end: {}, at most {}", megabytes(memory.now), megabytes(memory.peak));
    let written = watch.await.expect("reading metrics does not panic");
    match (written.first(), written.last()) {
        (Some(first), Some(last)) if written.len() > 1 => println!(
            "between the first checkpoint after {} s and the last, {} later: {}",
            SETTLED.as_secs(),
            written.len() - 1,
            last.since(first)
        ),
        _ => println!("too short a time for two checkpoints after {} s", SETTLED.as_secs()),
    }
    println!("longest stall by a checkpoint: {}", ms(longest_stall(&weir)));
}

fn longest_stall(weir: &Weir) -> Duration {
    let checkpoints = weir.json("/api/v1/checkpoints");
    let stalls = checkpoints["checkpoints"].as_array().expect("a list").iter();
    Duration::from_micros(stalls.filter_map(|one| one["stall_us"].as_u64()).max().unwrap_or(0))
}

/// Takes figures after each checkpoint once [`SETTLED`] has passed.
fn written_at_checkpoints(weir: &Weir, end: Instant) -> Vec<WrittenBytes> {
    let (settled, mut found) = (Instant::now() + SETTLED, Vec::<WrittenBytes>::new());
    let mut seen = None;
    while Instant::now() < end {
        std::thread::sleep(LOOK_EVERY);
        let newest = weir.json("/api/v1/checkpoints")["checkpoints"][0]["id"].as_u64();
        if newest != seen && Instant::now() > settled {
            // The first checkpoint seen may be older than the settled state: it is not counted.
            found.extend(seen.map(|_| WrittenBytes::by(weir)));
        }
        seen = newest;
    }
    found
}

/// Bytes written so far, by destination, and the payload bytes that caused them.
struct WrittenBytes {
    payload: f64,
    journal: f64,
    outputs: f64,
    checkpoints: f64,
    /// Bytes of whole pages of all files, as the kernel counts them.
    pages: f64,
}

impl WrittenBytes {
    fn by(weir: &Weir) -> Self {
        let log = |log| weir.metric_sum(&format!("weir_log_written_bytes_total{{log=\"{log}\"}}"));
        Self {
            payload: weir.metric_sum("weir_mqtt_publish_payload_bytes_total"),
            journal: log("journal"),
            outputs: log("windows") + log("errors"),
            checkpoints: weir.metric_sum("weir_checkpoint_written_bytes_total"),
            pages: weir.disk_bytes() as f64,
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            payload: self.payload - before.payload,
            journal: self.journal - before.journal,
            outputs: self.outputs - before.outputs,
            checkpoints: self.checkpoints - before.checkpoints,
            pages: self.pages - before.pages,
        }
    }
}

impl fmt::Display for WrittenBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_payload = |bytes: f64| bytes / self.payload;
        write!(
            formatter,
            "bytes written per byte of payload: journal {:.3}, outputs {:.4}, checkpoints {:.4}, together {:.2}; \
             in whole pages and with the store's own {:.2}",
            of_payload(self.journal),
            of_payload(self.outputs),
            of_payload(self.checkpoints),
            of_payload(self.journal + self.outputs + self.checkpoints),
            of_payload(self.pages)
        )
    }
}
