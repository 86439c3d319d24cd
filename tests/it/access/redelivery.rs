//! Redelivered messages are those of one user: a client of another user never counts as the sender.

use crate::access::acl::{BOTH, connect, start};
use weir_test_kit::mqtt::{MqttVersion, PUBACK, TestClient, publish_packet};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::{wait_for, window_before};

const GATEWAYS: &str = "[roles.own]\npublish = ['devices/+/telemetry']\n";

fn same_client(weir: &Weir, version: MqttVersion, user: &str) -> TestClient {
    connect(version, user).client_id("X").accepted(weir.mqtt()).0
}

fn publish(client: &mut TestClient, version: MqttVersion, payload: &str, dup: bool) {
    let packet = publish_packet(version, "devices/d/telemetry", payload.as_bytes(), 1, dup, 7);
    client.send(&packet).expect("the connection is open");
    client.expect(PUBACK);
}

/// Number of messages that were found to be sent before, once weir has processed `messages`.
fn duplicates(weir: &Weir, messages: u64) -> u64 {
    wait_for("weir has processed what was sent", || {
        let device = weir.json("/api/v1/devices/d");
        let duplicates = device["rejected"]["duplicate"].as_u64().unwrap_or(0);
        (device["accepted"].as_u64().unwrap_or(0) + duplicates == messages).then_some(duplicates)
    })
}

#[test]
fn a_client_id_of_another_user_is_another_client() {
    let mut weir = start(GATEWAYS, &[]);
    let mut sent = Vec::new();
    for (version, round) in BOTH.into_iter().zip(0..) {
        let payload = format!(r#"{{"metric":"m","value":{round},"timestamp":{}}}"#, window_before(60));
        let mut own = same_client(&weir, version, "own");
        publish(&mut own, version, &payload, false);
        publish(&mut same_client(&weir, version, "both"), version, &payload, true);
        assert_eq!(duplicates(&weir, 3 * round + 2), round, "the message of another user is new");
        publish(&mut own, version, &payload, true);
        assert_eq!(duplicates(&weir, 3 * round + 3), round + 1, "the message of the same user is not");
        sent.push((version, payload));
    }
    // The journal tells it after a crash, and the last checkpoint after an orderly stop.
    for (stop, round) in [Weir::kill, Weir::terminate].into_iter().zip(1..) {
        stop(&mut weir);
        weir.restart();
        for (version, payload) in &sent {
            publish(&mut same_client(&weir, *version, "own"), *version, payload, true);
        }
        assert_eq!(duplicates(&weir, 6 + 2 * round), 2 + 2 * round);
    }
}
