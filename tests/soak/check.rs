//! Checks while the fleet is silent.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::device::SentTotals;
use weir_test_kit::http;
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

/// Checks that every acknowledged reading is counted once, in the windows of this round and in total.
pub fn round(weir: &Weir, sent: &[SentTotals]) {
    weir.wait_closed();
    for one in sent {
        windows(weir, one);
    }
    totals(weir, sent);
    journal_is_sound(weir);
}

/// Checks the totals of all devices.
pub fn totals(weir: &Weir, sent: &[SentTotals]) {
    wait_for("weir is ready", || http::try_get(weir.http(), "/readyz").filter(|answer| answer.status == 200));
    weir.get("/healthz").ok();
    weir.assert_accounted();
    let listed = weir.list("devices", "");
    let devices: BTreeMap<&str, &Value> =
        listed.iter().filter_map(|one| Some((one["device_id"].as_str()?, one))).collect();
    for one in sent {
        let Some(device) = devices.get(one.device.as_str()) else {
            assert_eq!((one.readings, one.faulty), (0, 0), "{} is not known", one.device);
            continue;
        };
        let rejected = |reason: &str| device["rejected"][reason].as_u64().unwrap_or(0);
        assert_eq!(device["accepted"].as_u64(), Some(one.readings), "{one:?}\n{device}");
        let faulty = rejected("wrong_type") + rejected("malformed");
        assert!((one.faulty..=one.faulty + one.faulty_resent).contains(&faulty), "{one:?}\n{device}");
        let known = faulty + rejected("duplicate");
        let all: u64 = device["rejected"].as_object().map_or(0, |all| all.values().filter_map(Value::as_u64).sum());
        assert_eq!(known, all, "rejected for another reason: {device}");
        assert_eq!(device["sequence_missing"], 0, "{device}");
    }
}

/// Checks that the windows of this round hold each of its readings once.
fn windows(weir: &Weir, sent: &SentTotals) {
    // A window that has fired is shown once its log's writer has written it.
    let counted = wait_for("the windows are shown", || {
        let windows = weir.list("windows", &format!("&device={}&from={}", sent.device, sent.round_from_ms));
        let total = |name: &str| windows.iter().filter_map(|window| window[name].as_f64()).sum::<f64>() as u64;
        (total("count") >= sent.round_readings).then(|| (total("count"), total("sum")))
    });
    assert_eq!(counted, (sent.round_readings, sent.round_sum), "readings in windows of {sent:?}");
}

/// Checks that `weir journal verify` finds no damage.
pub fn journal_is_sound(weir: &Weir) {
    let output = weir.command(&["journal", "verify"]).output().expect("weir can be started");
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}");
}
