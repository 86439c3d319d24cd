//! How fast the whole of weir is from outside: a real `weir` process, publishes over loopback, acknowledgements counted.
//!
//! `cargo bench --bench door` prints readings per second for 100 connections with 100 publishes of QoS 1 in flight, and
//! the median time from PUBLISH to PUBACK of one connection with one in flight beside that of a bare write and
//! `fdatasync` on the same disk. Arguments: `-- [messages] [connections] [in flight]`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

#[allow(dead_code, reason = "shared by the benches")]
mod measure;

use std::time::{Duration, Instant};

use measure::client::connect_packet;
use measure::full_load::FullLoad;
use measure::round_trip::RoundTrips;
use measure::server::Server;
use measure::times::Times;
use measure::{Arguments, run};

/// Round trips of the latency measurement.
const ROUND_TRIPS: usize = 2_000;

const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    let Some(mut arguments) = Arguments::read() else { return };
    let (messages, devices, in_flight) = (arguments.number(5_000_000), arguments.number(100), arguments.number(100));
    let mut server = Server::start();
    let bare = server.bare_syncs().median();
    let publish = round_trips(&server).median();
    println!(
        "one connection, one in flight: PUBLISH to PUBACK {publish:?}, a bare write and fdatasync {bare:?}: {:.2} times",
        publish.as_secs_f64() / bare.as_secs_f64()
    );
    throughput(&mut server, FullLoad { devices, in_flight, messages: messages / devices });
}

fn round_trips(server: &Server) -> Times {
    let name = "bench-latency";
    let mut client =
        RoundTrips::connect(server.mqtt(), &connect_packet(name, None), name).expect("the CONNECT is accepted");
    Times::of((0..ROUND_TRIPS).map(|_| client.publish().expect("a PUBACK")).collect())
}

fn throughput(server: &mut Server, load: FullLoad) {
    let before = server.metric("weir_readings_received_total");
    let started = Instant::now();
    for device in run(LIMIT, load.run(server.mqtt(), "bench-device")) {
        device.outcome.expect("the connection lasts");
    }
    let acknowledged = started.elapsed();
    let total = (load.messages * load.devices) as f64;
    server.wait("all readings are processed", |server| server.metric("weir_readings_received_total") >= before + total);
    let processed = started.elapsed();
    println!(
        "{} connections, {} in flight: {total} publishes acknowledged in {:.2} s = {:.0}/s, \
         in windows after {:.2} s = {:.0}/s",
        load.devices,
        load.in_flight,
        acknowledged.as_secs_f64(),
        total / acknowledged.as_secs_f64(),
        processed.as_secs_f64(),
        total / processed.as_secs_f64(),
    );
    assert_eq!(server.metric("weir_readings_unaccounted"), 0.0);
}
