//! Many clients against a real `weir` process: connects, subscriptions, retained messages, idle and steady connections.
//!
//! `cargo bench --bench connections`. Arguments: `-- [seconds of the steady fleet] [devices of it]`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on ends")]

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use weir_test_kit::measure::client::{LoadClient, connect_all, connect_packet};
use weir_test_kit::measure::paced::SteadyLoad;
use weir_test_kit::measure::reading::METRICS;
use weir_test_kit::measure::times::{Times, ms, per_second};
use weir_test_kit::measure::{BenchArguments, megabytes, run};
use weir_test_kit::mqtt::{
    self, MqttVersion, PUBACK, PUBLISH, PublishPacket, SUBACK, TestMessage, acknowledgement, subscribe_packet,
};
use weir_test_kit::process::{Program, Weir};

/// The program under test.
const WEIR: Program = weir_test_kit::program!();

/// Subscriptions of one client, and how many of them are in one SUBSCRIBE.
const SUBSCRIPTIONS: u64 = 10_000;
const SUBSCRIPTIONS_TOGETHER: u64 = 100;

const RETAINED: u64 = 20_000;
const RETAINED_IN_FLIGHT: u64 = 100;

/// Most connection attempts at a time while a fleet is opened.
const CONNECTS_TOGETHER: usize = 100;

/// Time limit of the bench without the time of the steady fleet.
const LIMIT: Duration = Duration::from_secs(300);

fn main() {
    let Some(mut arguments) = BenchArguments::read() else { return };
    let time = Duration::from_secs(arguments.number(20));
    let devices = arguments.number(10_000);
    run(LIMIT + time, async {
        for (rate, seconds) in [(1_000, 5), (3_000, 1)] {
            arrivals(&WEIR.start_on_disk(), rate, seconds).await;
        }
        let mut weir = WEIR.start_on_disk();
        subscriptions(&weir).await;
        retained(&mut weir).await;
        drop(weir);
        fleet(&WEIR.start_on_disk(), devices, time).await;
    });
}

/// Connects `rate` clients per second and keeps them connected.
async fn arrivals(weir: &Weir, rate: u32, seconds: u32) {
    let (address, count, start) = (weir.mqtt(), rate * seconds, Instant::now());
    let mut connects = JoinSet::new();
    for index in 0..count {
        tokio::time::sleep_until(start + Duration::from_secs(1) * index / rate).await;
        let name = format!("arrival-{index:05}");
        let packet = mqtt::connect_packet(if index % 2 == 0 { MqttVersion::V4 } else { MqttVersion::V5 }, &name);
        connects.spawn(async move {
            let started = Instant::now();
            LoadClient::connect(address, &packet).await.map(|client| (client, started.elapsed()))
        });
    }
    let open: Vec<_> = connects.join_all().await.into_iter().flatten().collect();
    let took = start.elapsed();
    let times = Times::of(open.iter().map(|(_, time)| *time).collect());
    println!(
        "{rate} connects per second for {seconds} s, all kept open: {}, {} failed; TCP connect to CONNACK {times}",
        per_second(u64::from(count), took),
        count as usize - times.count(),
    );
}

async fn client(weir: &Weir, name: &str) -> LoadClient {
    LoadClient::connect(weir.mqtt(), &connect_packet(name, None)).await.expect("a connection")
}

async fn subscriptions(weir: &Weir) {
    let mut client = client(weir, "subscriber").await;
    let started = Instant::now();
    for first in (0..SUBSCRIPTIONS).step_by(SUBSCRIPTIONS_TOGETHER as usize) {
        let filters = (first..first + SUBSCRIPTIONS_TOGETHER).map(|index| format!("building/{index}/+/state"));
        client.send(&subscribe_packet(MqttVersion::V4, 1, filters, 1, &[])).await.expect("a SUBSCRIBE");
        assert_eq!(client.packet().await.expect("a SUBACK").kind, SUBACK);
    }
    println!(
        "{SUBSCRIPTIONS} subscriptions of one client, {SUBSCRIPTIONS_TOGETHER} in a SUBSCRIBE: {}",
        ms(started.elapsed())
    );
}

async fn retained(weir: &mut Weir) {
    let mut publisher = client(weir, "publisher").await;
    let write = |number: u64, packet_id, out: &mut Vec<u8>| {
        let topic = format!("plant/{number}/state");
        let payload = br#"{"state":"on","since":1732098765}"#;
        let publish =
            PublishPacket { topic: &topic, payload, qos: 1, retain: true, id: packet_id, ..Default::default() };
        publish.write(MqttVersion::V4, out);
    };
    let (started, mut acknowledged) = (Instant::now(), 0);
    publisher.publish_all(RETAINED, RETAINED_IN_FLIGHT, &mut acknowledged, write).await.expect("PUBACKs");
    println!(
        "{RETAINED} retained messages published at QoS 1, {RETAINED_IN_FLIGHT} in flight: {}",
        ms(started.elapsed())
    );
    for when in ["", ", after a restart"] {
        if !when.is_empty() {
            weir.terminate();
            weir.spawn();
            weir.wait_until("weir is ready", Weir::is_ready);
        }
        for qos in [0, 1] {
            println!("all of them to a new subscriber, QoS {qos}{when}: {}", ms(receive_retained(weir, qos).await));
        }
    }
}

/// Time from SUBSCRIBE to the last retained message.
async fn receive_retained(weir: &Weir, qos: u8) -> Duration {
    let mut subscriber = client(weir, "new-subscriber").await;
    let started = Instant::now();
    subscriber.send(&subscribe_packet(MqttVersion::V4, 1, ["plant/+/state"], qos, &[])).await.expect("a SUBSCRIBE");
    let (mut received, mut acknowledgements) = (0, Vec::new());
    while received < RETAINED {
        let mut next = Some(subscriber.packet().await.expect("a packet"));
        while let Some(packet) = next {
            if packet.kind == PUBLISH {
                let message = TestMessage::read(&packet, MqttVersion::V4);
                assert!(message.retain);
                received += 1;
                if message.qos == 1 {
                    acknowledgements.extend(acknowledgement(PUBACK, message.id));
                }
            }
            next = subscriber.received_packet();
        }
        // One write acknowledges all messages of one read.
        subscriber.send(&acknowledgements).await.expect("PUBACKs");
        acknowledgements.clear();
    }
    started.elapsed()
}

/// Opens connections, measures them idle, and then lets each device publish once per second.
async fn fleet(weir: &Weir, devices: u64, time: Duration) {
    let before = weir.memory().now;
    let packets = (0..devices).map(|index| connect_packet(&format!("paced-{index:06}"), None)).collect();
    let started = Instant::now();
    let clients = connect_all(weir.mqtt(), packets, CONNECTS_TOGETHER).await;
    let (took, memory) = (started.elapsed(), weir.memory().now);
    println!("{devices} connections, {CONNECTS_TOGETHER} at a time: {}", per_second(devices, took));
    println!(
        "memory with {devices} idle connections: {}, {:.1} KiB each beside {} without",
        megabytes(memory),
        (memory - before) as f64 / 1024.0 / devices as f64,
        megabytes(before),
    );
    let bare = weir.bare_syncs().median();
    let interval = Duration::from_secs(1);
    let pace = SteadyLoad { devices: 1, metrics: &METRICS, interval, time, named: true };
    let cpu = weir.metric_sum("process_cpu_seconds_total");
    let paced = pace.run(clients).await;
    let cpu = weir.metric_sum("process_cpu_seconds_total") - cpu;
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
        megabytes(weir.memory().now)
    );
}
