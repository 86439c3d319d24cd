//! A Mosquitto that bridges its topics into weir, and sends what it holds as retained after each reconnection.

use crate::WEIR;
use weir_test_kit::process::Weir;
use weir_test_kit::programs::Mosquitto;
use weir_test_kit::wait::wait_for;

const READING: &str = r#"{"metric":"t","value":21.5}"#;

/// `options` are further lines of the bridge's configuration.
fn check(options: &str) {
    let mut weir = WEIR.start(&[]);
    // The bridge comes back to the same port.
    let port = weir.mqtt().port();
    weir.terminate();
    let listen = format!("'127.0.0.1:{port}'");
    weir.configure(&[("mqtt.listen", &listen)]);
    weir.restart();
    let mosquitto = Mosquitto::start(&format!(
        "connection weir\naddress 127.0.0.1:{port}\ntopic devices/# out 1\nremote_clientid site-bridge\n\
         restart_timeout 1 2\n{options}"
    ));
    let connections = |weir: &Weir| weir.json("/api/v1/status")["mqtt"]["connections"].as_u64();
    wait_for("the bridge is connected", || (connections(&weir) == Some(1)).then_some(()));
    mosquitto.publish("devices/esp-1/telemetry", READING, true);
    mosquitto.publish("devices/esp-2/telemetry", READING, false);
    let device = |weir: &Weir, id: &str| weir.json(&format!("/api/v1/devices/{id}"));
    let repeats = |weir: &Weir| weir.metric_sum("weir_retained_repeats_total") as u64;
    wait_for("both readings are processed", || (weir.metric_sum("weir_readings_accepted_total") == 2.0).then_some(()));
    for _ in 0..2 {
        let before = repeats(&weir);
        weir.terminate();
        weir.restart();
        // A bridge with a session may send it twice: once from its queue, and once because it is retained.
        wait_for("the bridge has sent what it holds", || (repeats(&weir) > before).then_some(()));
        for id in ["esp-1", "esp-2"] {
            assert_eq!(device(&weir, id)["accepted"], 1, "{options}: {id}");
        }
        weir.assert_accounted();
    }
    // A change after all that is a reading.
    mosquitto.publish("devices/esp-1/telemetry", r#"{"metric":"t","value":22}"#, true);
    wait_for("the change is processed", || (device(&weir, "esp-1")["accepted"] == 2).then_some(()));
}

#[test]
fn what_a_bridge_holds_is_counted_once() {
    check("cleansession false");
    check("cleansession true\ntry_private false\nbridge_protocol_version mqttv50");
}
