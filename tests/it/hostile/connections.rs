//! Clients that are slow, silent or many on purpose, beside a device that must not notice.

use std::io::ErrorKind::WouldBlock;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::WEIR;
use crate::access::login::events;
use crate::hostile::steady::beside_a_steady_device;
use weir_test_kit::http::try_get;
use weir_test_kit::mqtt::{MqttVersion, PUBACK, TestClient, connect_packet, publish_packet};
use weir_test_kit::wait::wait_for;

const REFUSED: &str = "weir_mqtt_connections_refused_total";

/// Raises the limit of open files of this process to its maximum.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("the limit is raised");
}

#[test]
fn five_thousand_half_open_connections() {
    const HALF_OPEN: usize = 5_000;
    raise_open_files();
    // The limit is below the number of attackers, and no timeout ends their connections.
    let weir = WEIR.start(&[("mqtt.max_connections", "3000"), ("mqtt.connect_timeout", "'10m'")]);
    beside_a_steady_device(&weir, |steady| {
        let mut open = Vec::new();
        for index in 0..HALF_OPEN {
            // weir closes refused connections; that is no failure of the test.
            let Ok(mut client) = TestClient::open(weir.mqtt(), MqttVersion::V4) else { continue };
            let _ = client.send(&connect_packet(MqttVersion::V4, "half")[..index % 15]);
            open.push(client);
        }
        assert!(open.len() > HALF_OPEN / 2, "the attack was not one");
        steady.goes_on();
        wait_for("a new client gets in", || TestClient::try_connect(weir.mqtt(), MqttVersion::V5, "new").ok());
        wait_for("those that were too many are counted", || {
            (weir.metric_sum(REFUSED) >= (HALF_OPEN - 3_064) as f64).then_some(())
        });
        // Each reason is logged once per minute.
        let told = events(&weir, "mqtt_refused");
        assert!((1..20).contains(&told.len()), "{told:?}");
    });
}

/// Idle HTTP connections beyond the limit are closed first: health checks and scrapes are answered.
#[test]
fn http_connections_that_ask_nothing() {
    raise_open_files();
    let weir = WEIR.start(&[]);
    let silence = || {
        let mut silent = TcpStream::connect(weir.http()).ok()?;
        // weir closes connections beyond the limit; that is no failure of the test.
        let _ = silent.write_all(b"GET / HTTP/1.1\r\nHo");
        silent.set_nonblocking(true).ok()?;
        Some(silent)
    };
    let mut silent: Vec<TcpStream> = (0..600).filter_map(|_| silence()).collect();
    // New connections and closed ones may cross; no connection waits for a permit that another one took.
    for _ in 0..20 {
        let answered = || try_get(weir.http(), "/healthz").filter(|answer| answer.status == 200);
        wait_for("a request is answered", answered);
        silent.extend(silence());
    }
    let is_open = |mut silent: &TcpStream| silent.read(&mut [0]).is_err_and(|error| error.kind() == WouldBlock);
    let open = silent.iter().filter(|silent| is_open(silent)).count();
    assert!(open > 256, "only {open} were still there: they ended by time");
}

/// Bodies that do not end, without a token, on all connections and more: each question for health is answered.
#[test]
fn slow_bodies_do_not_hold_health() {
    raise_open_files();
    let weir = WEIR.start(&[]);
    let head = format!(
        "POST /api/v1/errors/replay HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{{",
        weir.http()
    );
    let slow = || {
        let mut slow = TcpStream::connect(weir.http()).ok()?;
        // weir closes connections beyond the limit; that is no failure of the test.
        let _ = slow.write_all(head.as_bytes());
        slow.set_nonblocking(true).ok()?;
        Some(slow)
    };
    let mut open: Vec<TcpStream> = Vec::new();
    for _ in 0..60 {
        open.extend((0..10).filter_map(|_| slow()));
        for path in ["/healthz", "/readyz"] {
            assert_eq!(try_get(weir.http(), path).expect("an answer").status, 200, "{path} with {} open", open.len());
        }
    }
    let is_open = |mut slow: &TcpStream| slow.read(&mut [0]).is_err_and(|error| error.kind() == WouldBlock);
    wait_for("only a share of the bodies is waited for", || {
        (open.iter().filter(|slow| is_open(slow)).count() <= 64).then_some(())
    });
    assert!(weir.metric_sum("weir_limits_hit_total") > 0.0);
}

/// Clients that ask for large answers and do not read them hold a bounded share.
#[test]
fn answers_that_nobody_reads() {
    raise_open_files();
    let weir = WEIR.start(&[("window.size", "'1ms'"), ("window.idle_timeout", "'100ms'")]);
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V5, "device");
    let start = weir_test_kit::wait::window_before(600);
    let mut windows = 0;
    // Far more than the buffers of a socket take.
    for message in 0..20_i64 {
        let reading =
            |at: i64| format!(r#"{{"metric":"m","value":1,"timestamp":{}}}"#, start + message * 1_000 + at * 2);
        let readings: Vec<String> = (0..500).map(reading).collect();
        windows += readings.len();
        device.telemetry("device", &format!("[{}]", readings.join(",")));
    }
    weir.wait_closed();
    wait_for("the windows are there", || {
        (weir.metric_sum("weir_windows_emitted_total") as usize >= windows).then_some(())
    });
    let request = format!("GET /api/v1/windows?limit=1000 HTTP/1.1\r\nHost: {}\r\n\r\n", weir.http()).repeat(40);
    let ask = || {
        let mut reader = TcpStream::connect(weir.http()).ok()?;
        let _ = reader.write_all(request.as_bytes());
        Some(reader)
    };
    let readers: Vec<TcpStream> = (0..40).filter_map(|_| ask()).collect();
    wait_for("the share is full", || (weir.metric_sum("weir_limits_hit_total") > 0.0).then_some(()));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(try_get(weir.http(), path).expect("an answer").status, 200, "{path}");
    }
    wait_for("others are served too", || {
        try_get(weir.http(), "/api/v1/windows?limit=1000").filter(|answer| answer.status == 200)
    });
    drop(readers);
}

#[test]
fn byte_at_a_time() {
    let weir = WEIR.start(&[]);
    beside_a_steady_device(&weir, |_| {
        std::thread::scope(|scope| {
            for writer in 0..20 {
                let weir = &weir;
                scope.spawn(move || {
                    let version = if writer % 2 == 0 { MqttVersion::V4 } else { MqttVersion::V5 };
                    let mut client = TestClient::open(weir.mqtt(), version).expect("a connection");
                    let mut bytes = connect_packet(version, &format!("slow-{writer}"));
                    bytes.extend(publish_packet(version, "devices/slow/telemetry", b"{}", 1, false, 7));
                    for byte in bytes {
                        client.send(&[byte]).expect("it is sent");
                    }
                    assert_eq!(client.read().expect("a CONNACK").kind, weir_test_kit::mqtt::CONNACK);
                    assert_eq!(client.expect(PUBACK).id(), 7);
                });
            }
        });
    });
}

#[test]
fn readers_that_never_read() {
    const READERS: usize = 20;
    let weir = WEIR.start(&[("mqtt.max_queued_bytes", "'64KiB'"), ("mqtt.max_queued_messages", "100")]);
    beside_a_steady_device(&weir, |steady| {
        let readers: Vec<TestClient> = (0..READERS)
            .map(|index| {
                let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, &format!("reader-{index}"));
                client.subscribe("flood/#", (index % 3) as u8);
                client
            })
            .collect();
        let mut publisher = TestClient::connect(weir.mqtt(), MqttVersion::V4, "publisher");
        let payload = "x".repeat(50_000);
        // Far more than the socket buffers and the queues of weir hold for twenty connections.
        for index in 0..400 {
            publisher.publish(&format!("flood/{index}"), &payload, 1);
        }
        steady.goes_on();
        assert!(weir.metric_sum("weir_mqtt_messages_dropped_total") > 0.0, "a queue without a bound");
        let queued = weir.metric("weir_mqtt_queued_bytes");
        assert!(queued <= (READERS * 64 * 1_024) as f64, "{queued} bytes wait");
        drop(readers);
    });
}

#[test]
fn a_storm_of_take_overs() {
    let weir = WEIR.start(&[]);
    beside_a_steady_device(&weir, |_| {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut last = None;
                    for _ in 0..100 {
                        // Another connection may take the session over before the CONNACK.
                        if let Ok(mut client) = TestClient::try_connect(weir.mqtt(), MqttVersion::V5, "the one") {
                            let _ = client.send(&publish_packet(MqttVersion::V5, "x", b"y", 1, false, 1));
                            last = Some(client);
                        }
                    }
                    drop(last);
                });
            }
        });
        wait_for("every connection of the storm is gone", || {
            (weir.metric("weir_mqtt_connections") < 1.5).then_some(())
        });
    });
}

#[test]
fn a_client_that_is_too_fast_is_slowed_and_loses_nothing() {
    let weir = WEIR.start(&[("mqtt.max_messages_per_second", "200"), ("mqtt.max_bytes_per_second", "'64KiB'")]);
    beside_a_steady_device(&weir, |steady| {
        let mut fast = TestClient::connect(weir.mqtt(), MqttVersion::V4, "fast");
        let mut bytes = Vec::new();
        for id in 1..=600 {
            let payload = format!(r#"{{"metric":"m","value":1,"seq":{id}}}"#);
            bytes.extend(publish_packet(MqttVersion::V4, "devices/fast/telemetry", payload.as_bytes(), 1, false, id));
        }
        fast.send(&bytes).expect("it is sent");
        steady.goes_on();
        for id in 1..=600 {
            assert_eq!(fast.expect(PUBACK).id(), id, "everything is acknowledged, in order");
        }
        assert!(weir.metric_sum("weir_mqtt_throttled_total") >= 1.0, "it was not slowed");
    });
    wait_for("nothing was lost", || {
        (weir.json("/api/v1/devices/fast")["accepted"].as_u64() == Some(600)).then_some(())
    });
}

#[test]
fn connections_that_are_reset_at_any_moment() {
    let weir = WEIR.start(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    beside_a_steady_device(&weir, |_| {
        for round in 0..200 {
            // In pairs of the same client identifier, before and after the CONNACK could have been written.
            let sockets: Vec<TcpStream> = (0..2)
                .filter_map(|_| {
                    let mut client = TcpStream::connect(weir.mqtt()).ok()?;
                    let packet = connect_packet(MqttVersion::V5, "reset");
                    let cut = if round % 2 == 0 { packet.len() } else { round % packet.len() };
                    client.write_all(&packet[..cut]).ok()?;
                    Some(client)
                })
                .collect();
            runtime.block_on(async {
                for socket in sockets {
                    socket.set_nonblocking(true).expect("non-blocking");
                    let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
                    socket.set_zero_linger().expect("a reset instead of an end");
                }
            });
        }
        wait_for("all are gone", || (weir.metric("weir_mqtt_connections") < 1.5).then_some(()));
    });
}
