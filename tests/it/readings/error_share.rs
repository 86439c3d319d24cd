//! One device cannot push the errors of all others out of the error log.

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

/// Number of errors of a device in the log, and of those that were counted alone.
fn errors_of(weir: &Weir, device: &str) -> [u64; 2] {
    let stored = weir.list("errors", &format!("&device={device}")).len() as u64;
    [stored, weir.json(&format!("/api/v1/devices/{device}"))["errors_not_stored"].as_u64().expect("a number")]
}

#[test]
fn a_noisy_device_leaves_the_log_to_others() {
    let mut weir = WEIR.start(&[("errors.retention_bytes", "'1MiB'"), ("errors.device_share", "0.01")]);
    let mut client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "gateway");
    client.telemetry("quiet", r#"{"metric":"t","value":"before"}"#);
    for number in 0..200 {
        client.telemetry("noisy", &format!(r#"{{"metric":"t","value":"bad {number}"}}"#));
    }
    client.telemetry("quiet", r#"{"metric":"t","value":"behind"}"#);
    wait_for("all are rejected", || (weir.metric_sum("weir_readings_rejected_total") as u64 == 202).then_some(()));
    let quiet =
        wait_for("the last error is stored", || Some(errors_of(&weir, "quiet")).filter(|[stored, _]| *stored == 2));
    assert_eq!(quiet, [2, 0]);
    let noisy = errors_of(&weir, "noisy");
    assert_eq!(noisy[0] + noisy[1], 200);
    assert!(noisy[0] >= 20 && noisy[1] >= 50, "{noisy:?}");
    assert_eq!(weir.metric("weir_errors_not_stored_total") as u64, noisy[1]);
    assert_eq!(weir.output().matches("has filled its share of the error log").count(), 1, "{}", weir.output());
    weir.kill();
    weir.restart();
    assert_eq!((errors_of(&weir, "noisy"), errors_of(&weir, "quiet")), (noisy, quiet));
    weir.assert_accounted();
}
