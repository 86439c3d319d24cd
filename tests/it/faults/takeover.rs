//! A client that abandons a connection and resends on a new one while weir still reads the first.

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, PUBACK, TestClient, publish_packet};
use weir_test_kit::wait::window_before;

const DEVICES: u64 = 24;
const ROUNDS: u64 = 150;
const BURST: u64 = 20;

/// Readings without sequence numbers: only MQTT's own identity tells that they came twice, and only if what came first
/// stands first in the journal.
fn burst(device: u64, round: u64, start_ms: i64, dup: bool) -> Vec<u8> {
    let topic = format!("devices/d{device}/telemetry");
    let message = |index: u64| {
        let number = round * BURST + index;
        let timestamp = start_ms + number as i64;
        let payload = format!(r#"{{"metric":"m","value":{number},"timestamp":{timestamp}}}"#);
        publish_packet(MqttVersion::V4, &topic, payload.as_bytes(), 1, dup, number as u16 + 1)
    };
    (0..BURST).flat_map(message).collect()
}

#[test]
fn what_is_sent_again_on_a_new_connection_counts_once() {
    let weir = WEIR.start(&[("window.idle_timeout", "'500ms'")]);
    let start_ms = window_before(3_600);
    let address = weir.mqtt();
    std::thread::scope(|scope| {
        for device in 0..DEVICES {
            scope.spawn(move || {
                let id = format!("d{device}");
                for round in 0..ROUNDS {
                    let mut first = TestClient::connect(address, MqttVersion::V4, &id);
                    first.send(&burst(device, round, start_ms, false)).expect("it can be sent");
                    // The first connection is neither closed nor read.
                    let mut second = TestClient::connect(address, MqttVersion::V4, &id);
                    second.send(&burst(device, round, start_ms, true)).expect("it can be sent");
                    for _ in 0..BURST {
                        second.expect(PUBACK);
                    }
                }
            });
        }
    });
    weir.wait_closed();
    for device in 0..DEVICES {
        let shown = weir.json(&format!("/api/v1/devices/d{device}"));
        assert_eq!(shown["accepted"], ROUNDS * BURST, "{shown}");
    }
    weir.assert_accounted();
}
