//! Many clients against a real `weir` process: connects, subscriptions, retained messages, idle and steady connections.
//!
//! `cargo bench --bench connections`. Arguments: `-- [seconds of the steady fleet] [devices of it]`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

#[allow(dead_code, reason = "shared by the benches")]
mod measure;

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Subscribe, SubscribeFilter};
use tokio::task::JoinSet;
use tokio::time::Instant;

use measure::client::{Client, PUBLISH, SUBACK, connect_all, connect_packet, connect_packet_v5};
use measure::paced::Pace;
use measure::reading::{METRICS, publish_packet};
use measure::server::Server;
use measure::times::{Times, ms, per_second};
use measure::{Arguments, megabytes, run};

/// Subscriptions of one client, and how many of them are in one SUBSCRIBE.
const SUBSCRIPTIONS: u64 = 10_000;
const SUBSCRIPTIONS_TOGETHER: u64 = 100;

const RETAINED: u64 = 20_000;
const RETAINED_IN_FLIGHT: u64 = 100;

/// Connects under way at a time while a fleet is opened.
const CONNECTS_TOGETHER: usize = 100;

/// How long it all may take beside the steady fleet.
const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    let Some(mut arguments) = Arguments::read() else { return };
    let time = Duration::from_secs(arguments.number(20));
    let devices = arguments.number(10_000);
    run(LIMIT + time, async {
        for (rate, seconds) in [(1_000, 5), (3_000, 1)] {
            arrivals(&Server::start(), rate, seconds).await;
        }
        let mut server = Server::start();
        subscriptions(&server).await;
        retained(&mut server).await;
        drop(server);
        fleet(&Server::start(), devices, time).await;
    });
}

/// `rate` clients connect each second, and stay.
async fn arrivals(server: &Server, rate: u32, seconds: u32) {
    let (address, count, start) = (server.mqtt(), rate * seconds, Instant::now());
    let mut connects = JoinSet::new();
    for index in 0..count {
        tokio::time::sleep_until(start + Duration::from_secs(1) * index / rate).await;
        let name = format!("arrival-{index:05}");
        let packet = if index % 2 == 0 { connect_packet(&name, None) } else { connect_packet_v5(&name) };
        connects.spawn(async move {
            let started = Instant::now();
            Client::connect(address, &packet).await.map(|client| (client, started.elapsed()))
        });
    }
    let open: Vec<_> = connects.join_all().await.into_iter().flatten().collect();
    let took = start.elapsed();
    let times = Times::of(open.iter().map(|(_, time)| *time).collect());
    println!(
        "{rate} connects per second for {seconds} s, all kept open: {}, {} failed; TCP connect to CONNACK {times}",
        per_second(u64::from(count), took),
        count as usize - times.len(),
    );
}

/// A SUBSCRIBE of these filters.
fn subscribe(filters: impl Iterator<Item = String>, qos: QoS) -> BytesMut {
    let mut subscribe = Subscribe::new_many(filters.map(|filter| SubscribeFilter::new(filter, qos)));
    subscribe.pkid = 1;
    let mut packet = BytesMut::new();
    subscribe.write(&mut packet).expect("a SUBSCRIBE that can be written");
    packet
}

async fn client(server: &Server, name: &str) -> Client {
    Client::connect(server.mqtt(), &connect_packet(name, None)).await.expect("a connection")
}

async fn subscriptions(server: &Server) {
    let mut client = client(server, "subscriber").await;
    let started = Instant::now();
    for first in (0..SUBSCRIPTIONS).step_by(SUBSCRIPTIONS_TOGETHER as usize) {
        let filters = (first..first + SUBSCRIPTIONS_TOGETHER).map(|index| format!("building/{index}/+/state"));
        client.send(&subscribe(filters, QoS::AtLeastOnce)).await.expect("a SUBSCRIBE");
        assert_eq!(client.packet().await.expect("a SUBACK").kind(), SUBACK);
    }
    println!(
        "{SUBSCRIPTIONS} subscriptions of one client, {SUBSCRIPTIONS_TOGETHER} in a SUBSCRIBE: {}",
        ms(started.elapsed())
    );
}

async fn retained(server: &mut Server) {
    let mut publisher = client(server, "publisher").await;
    let write = |number: u64, packet_id, out: &mut Vec<u8>| {
        let topic = format!("plant/{number}/state");
        publish_packet(0x33, &[&topic], packet_id, r#"{"state":"on","since":1732098765}"#, out);
    };
    let (started, mut acknowledged) = (Instant::now(), 0);
    publisher.publish_all(RETAINED, RETAINED_IN_FLIGHT, &mut acknowledged, write).await.expect("PUBACKs");
    println!(
        "{RETAINED} retained messages published at QoS 1, {RETAINED_IN_FLIGHT} in flight: {}",
        ms(started.elapsed())
    );
    for when in ["", ", after a restart"] {
        if !when.is_empty() {
            server.terminate();
            server.spawn();
            server.wait("weir is ready", Server::is_ready);
        }
        for (qos, name) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 1)] {
            println!("all of them to a new subscriber, QoS {name}{when}: {}", ms(receive_retained(server, qos).await));
        }
    }
}

/// From SUBSCRIBE to the last retained message.
async fn receive_retained(server: &Server, qos: QoS) -> Duration {
    let mut subscriber = client(server, "new-subscriber").await;
    let started = Instant::now();
    subscriber.send(&subscribe(std::iter::once("plant/+/state".into()), qos)).await.expect("a SUBSCRIBE");
    let (mut received, mut acknowledgements) = (0, BytesMut::new());
    while received < RETAINED {
        let mut next = Some(subscriber.packet().await.expect("a packet"));
        while let Some(packet) = next {
            if packet.kind() == PUBLISH {
                assert!(packet.is_retained());
                received += 1;
                if let Some(packet_id) = packet.publish_id() {
                    acknowledgements.put_u16(0x4002);
                    acknowledgements.put_u16(packet_id);
                }
            }
            next = subscriber.received_packet();
        }
        // What has come together is acknowledged together.
        subscriber.send(&acknowledgements.split()).await.expect("PUBACKs");
    }
    started.elapsed()
}

/// Connections that are idle at first; then each device publishes once a second.
async fn fleet(server: &Server, devices: u64, time: Duration) {
    let before = server.memory().now;
    let packets = (0..devices).map(|index| connect_packet(&format!("paced-{index:06}"), None)).collect();
    let started = Instant::now();
    let clients = connect_all(server.mqtt(), packets, CONNECTS_TOGETHER).await;
    let (took, memory) = (started.elapsed(), server.memory().now);
    println!("{devices} connections, {CONNECTS_TOGETHER} at a time: {}", per_second(devices, took));
    println!(
        "memory with {devices} idle connections: {}, {:.1} KiB each beside {} without",
        megabytes(memory),
        (memory - before) as f64 / 1024.0 / devices as f64,
        megabytes(before),
    );
    let bare = server.bare_syncs().median();
    let interval = Duration::from_secs(1);
    let pace = Pace { devices: 1, metrics: &METRICS, interval, time, named: true };
    let cpu = server.metric("process_cpu_seconds_total");
    let paced = pace.run(clients).await;
    let cpu = server.metric("process_cpu_seconds_total") - cpu;
    println!(
        "{devices} devices, one message per second each for {} s: PUBLISH to PUBACK {}, {} connections lost; \
         a bare write and fdatasync {}",
        time.as_secs(),
        paced.times,
        paced.lost,
        ms(bare),
    );
    println!(
        "while they did: {:.0} % of one core, memory {}",
        cpu / time.as_secs_f64() * 100.0,
        megabytes(server.memory().now)
    );
}
