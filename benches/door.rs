//! Throughput and latency of a real `weir` process: publishes over loopback, acknowledgements counted.
//!
//! `cargo bench --bench door` prints readings per second for 100 connections with 100 publishes of QoS 1 in flight, and
//! the median time from PUBLISH to PUBACK of one connection with one in flight beside that of a bare write and
//! `fdatasync` on the same disk. The load is repeated for each form of messages. Arguments:
//! `-- [readings] [connections] [in flight] [native|tasmota|sparkplug_b|scalar]`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

use std::time::{Duration, Instant};

use weir_test_kit::measure::client::connect_packet;
use weir_test_kit::measure::full_load::FullLoad;
use weir_test_kit::measure::round_trip::RoundTrips;
use weir_test_kit::measure::times::Times;
use weir_test_kit::measure::{BenchArguments, run};
use weir_test_kit::process::{Program, Weir};

/// The program under test.
const WEIR: Program = weir_test_kit::program!();

/// Round trips of the latency measurement.
const ROUND_TRIPS: usize = 2_000;

const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    let Some(mut arguments) = BenchArguments::read() else { return };
    let (messages, devices, in_flight) = (arguments.number(5_000_000), arguments.number(100), arguments.number(100));
    let forms = arguments.forms();
    let mut weir = WEIR.start_on_disk();
    let bare = weir.bare_syncs().median();
    let publish = round_trips(&weir).median();
    println!(
        "one connection, one in flight: PUBLISH to PUBACK {publish:?}, a bare write and fdatasync {bare:?}: {:.2} times",
        publish.as_secs_f64() / bare.as_secs_f64()
    );
    for form in forms {
        let messages = messages / form.readings() / devices;
        throughput(&mut weir, FullLoad { form, devices, in_flight, messages });
    }
}

fn round_trips(weir: &Weir) -> Times {
    let name = "bench-latency";
    let mut client =
        RoundTrips::connect(weir.mqtt(), &connect_packet(name, None), name).expect("the CONNECT is accepted");
    Times::of((0..ROUND_TRIPS).map(|_| client.publish().expect("a PUBACK")).collect())
}

fn throughput(weir: &mut Weir, load: FullLoad) {
    let form = load.form.name();
    let before = weir.metric_sum("weir_readings_received_total");
    let started = Instant::now();
    for device in run(LIMIT, load.run(weir.mqtt(), &format!("bench-{form}"))) {
        device.outcome.expect("the connection lasts");
    }
    let acknowledged = started.elapsed();
    let publishes = (load.messages * load.devices) as f64;
    let total = publishes * load.form.readings() as f64;
    weir.wait_until("all readings are processed", |weir| {
        weir.metric_sum("weir_readings_received_total") >= before + total
    });
    let processed = started.elapsed();
    println!(
        "{form}: {} connections, {} in flight: {publishes} publishes acknowledged in {:.2} s = {:.0}/s, \
         {total} readings in windows after {:.2} s = {:.0}/s",
        load.devices,
        load.in_flight,
        acknowledged.as_secs_f64(),
        publishes / acknowledged.as_secs_f64(),
        processed.as_secs_f64(),
        total / processed.as_secs_f64(),
    );
    assert_eq!(weir.metric_sum("weir_readings_unaccounted"), 0.0);
}
