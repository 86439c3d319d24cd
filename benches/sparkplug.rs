//! Memory of what a real `weir` process remembers of the births of Sparkplug B, and what checkpoints of it cost.
//!
//! `cargo bench --bench sparkplug`. Argument: `-- [edge nodes]`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

use std::time::Duration;

use weir_test_kit::measure::client::{LoadClient, connect_packet};
use weir_test_kit::measure::reading::now_ms;
use weir_test_kit::measure::{BenchArguments, megabytes, run};
use weir_test_kit::mqtt::{MqttVersion, TestPublish};
use weir_test_kit::process::Program;

/// The program under test.
const WEIR: Program = weir_test_kit::program!();

const DEVICES_OF_NODE: u64 = 10;
const METRICS_OF_DEVICE: u64 = 250;
const IN_FLIGHT: u64 = 10;
const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    let Some(mut arguments) = BenchArguments::read() else { return };
    let nodes = arguments.number(40);
    run(LIMIT, births(nodes));
}

/// Sends the births of nodes and devices whose metrics have no values, so that there are no windows beside what is remembered.
async fn births(nodes: u64) {
    let mut weir = WEIR.prepare_on_disk(&[]);
    weir.restart();
    let before = weir.memory().now;
    let mut client = LoadClient::connect(weir.mqtt(), &connect_packet("nodes", None)).await.expect("a connection");
    let write = |number: u64, id, out: &mut Vec<u8>| {
        let (node, device) = (number / (DEVICES_OF_NODE + 1), number % (DEVICES_OF_NODE + 1));
        let topic = match device {
            0 => format!("spBv1.0/Plant/NBIRTH/edge-{node:03}"),
            _ => format!("spBv1.0/Plant/DBIRTH/edge-{node:03}/machine-{device:02}"),
        };
        let payload = birth(device);
        TestPublish { topic: &topic, payload: &payload, qos: 1, id, ..TestPublish::default() }
            .write(MqttVersion::V4, out);
    };
    client.publish_all(nodes * (DEVICES_OF_NODE + 1), IN_FLIGHT, &mut 0, write).await.expect("PUBACKs");
    let metrics = nodes * DEVICES_OF_NODE * METRICS_OF_DEVICE;
    weir.wait_until("all births are known", |weir| weir.metric_sum("weir_sparkplug_metrics") as u64 == metrics);
    let after = weir.memory().now;
    println!(
        "{metrics} aliases of {nodes} edge nodes with {DEVICES_OF_NODE} devices each: {} more than {} before, {} bytes each",
        megabytes(after - before),
        megabytes(before),
        (after - before) / metrics
    );
    let begun = now_ms() as u64;
    let newest = weir.watch("a checkpoint of all of them", |weir| {
        let newest = weir.json("/api/v1/checkpoints")["checkpoints"][0].clone();
        (newest["started_ms"].as_u64()? >= begun).then_some(newest)
    });
    println!(
        "a checkpoint of them: {} on disk, the pipeline held up for {} µs at most; memory at most {}",
        megabytes(newest["bytes"].as_u64().unwrap_or(0)),
        newest["stall_us"],
        megabytes(weir.memory().peak)
    );
}

/// The birth of a node (0), which has no metrics, or of a device of it.
fn birth(device: u64) -> Vec<u8> {
    let mut payload = field(1, now_ms() as u64);
    for metric in 0..if device == 0 { 0 } else { METRICS_OF_DEVICE } {
        let name = format!("Line {}/Motor {}/Bearing temperature", metric / 50, metric % 50);
        let unit = [field(1, 12), text(8, b"degC")].concat();
        let properties = [text(1, b"engUnit"), text(2, &unit)].concat();
        let alias = device * METRICS_OF_DEVICE + metric;
        // Type Float, and no value.
        let fields = [text(1, name.as_bytes()), field(2, alias), field(4, 9), field(7, 1), text(9, &properties)];
        payload.extend(text(2, &fields.concat()));
    }
    payload.extend(field(3, device));
    payload
}

/// A field with an integer.
fn field(number: u8, mut value: u64) -> Vec<u8> {
    let mut out = vec![number << 3];
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field with a text or a message.
fn text(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = field(number, content.len() as u64);
    out[0] |= 2;
    out.extend_from_slice(content);
    out
}
