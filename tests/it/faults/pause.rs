//! A process that stands still for a while: stopped by a signal, as a suspended or paused machine stops it.

use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestConnect, TestMessage, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

const CLIENTS: usize = 40;
const READINGS: usize = 4;
/// Long enough for clients of a loaded machine to send a ping in time; half as much again may pass without one.
const KEEP_ALIVE_S: u16 = 4;
/// How long the process is stopped: longer than any client may be silent.
const STOPPED: Duration = Duration::from_secs(7);

fn client(weir: &Weir, name: &str, keep_alive_s: u16) -> TestClient {
    let will = TestMessage::new("gone", name, 1);
    TestConnect::new(MqttVersion::V5, name).keep_alive(keep_alive_s).will(&will).accepted(weir.mqtt()).0
}

fn publish(client: &mut TestClient, device: usize, number: usize, start_ms: i64) {
    let payload = format!(r#"{{"metric":"m","value":{number},"timestamp":{}}}"#, start_ms + number as i64);
    let topic = format!("devices/d{device}/telemetry");
    let packet = publish_packet(MqttVersion::V5, &topic, payload.as_bytes(), 0, false, 0);
    client.send(&packet).expect("the socket takes it");
}

/// What clients sent while weir stood still is read before anybody is called silent; and a client that is silent when weir runs
/// is still found.
#[test]
fn a_pause_ends_no_connection_and_loses_nothing() {
    let weir = WEIR.start(&[]);
    let mut watcher = TestClient::connect(weir.mqtt(), MqttVersion::V5, "watcher");
    watcher.subscribe("gone", 1);
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| client(&weir, &format!("c{number}"), KEEP_ALIVE_S)).collect();
    clients.iter_mut().for_each(TestClient::ping);
    let start_ms = window_before(60);
    weir.signal(Signal::STOP);
    // Half of the clients go on publishing. The others have nothing to say.
    for number in 0..READINGS {
        for (device, client) in clients.iter_mut().enumerate().filter(|(device, _)| device % 2 == 0) {
            publish(client, device, number, start_ms);
        }
        sleep(STOPPED / READINGS as u32);
    }
    weir.signal(Signal::CONT);
    clients.iter_mut().for_each(TestClient::ping);
    watcher.expect_nothing();
    let sent = (CLIENTS / 2 * READINGS) as f64;
    wait_for("all readings are counted", || (weir.metric("weir_readings_received_total") >= sent).then_some(()));
    wait_for("the stall is counted", || (weir.metric("weir_process_stalls_total") >= 1.0).then_some(()));
    assert!(weir.output().contains("the process stood still"), "it is logged");
    let mut silent = client(&weir, "silent", 1);
    assert_eq!(watcher.take_message().text(), "silent");
    silent.expect_closed(0x8d);
}
