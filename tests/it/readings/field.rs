//! What devices in the field send: publishes payloads to a weir and looks at windows, devices, errors and counts.

use serde_json::Value;

use crate::WEIR;
use weir_test_kit::mqtt::{MqttVersion, TestClient, TestMessage};
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

/// A weir and a client that publishes for all devices.
pub struct FieldCheck {
    pub weir: Weir,
    client: TestClient,
    messages: usize,
}

impl FieldCheck {
    /// Starts weir. Windows close half a second after the last reading of a device.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let weir = WEIR.start(&[&[("window.idle_timeout", "'500ms'")], settings].concat());
        let client = TestClient::connect(weir.mqtt(), MqttVersion::V4, "field");
        Self { weir, client, messages: 0 }
    }

    /// Publishes readings of a device.
    pub fn telemetry(&mut self, device: &str, payload: impl AsRef<[u8]>) {
        self.publish(&format!("devices/{device}/telemetry"), payload, false);
    }

    /// Publishes a message.
    pub fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>, retain: bool) {
        let payload = payload.as_ref().to_vec();
        let message = TestMessage { payload, retain, ..TestMessage::new(topic, "", 1) };
        self.client.publish_message(&message);
        self.messages += 1;
    }

    /// Waits until all messages are processed and all windows are closed, and checks that every reading has an outcome.
    pub fn settle(&self) {
        wait_for("all messages are processed", || {
            (self.weir.metric("weir_messages_total") as usize >= self.messages).then_some(())
        });
        self.weir.wait_closed();
        self.weir.assert_accounted();
    }

    /// Windows of a device, by metric, each with its number of readings and its sum.
    pub fn windows(&self, device: &str) -> Vec<(String, u64, f64)> {
        let windows = self.weir.list("windows", &format!("&device={device}"));
        let shown = windows.iter().map(|window| {
            let metric = window["metric"].as_str().expect("a metric").to_owned();
            (metric, window["count"].as_u64().expect("a count"), window["sum"].as_f64().expect("a sum"))
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by(|a, b| a.0.cmp(&b.0));
        shown
    }

    /// Checks that exactly one reading of a device counted, with this value.
    #[track_caller]
    pub fn counted_once(&self, device: &str, value: f64) {
        let windows = self.windows(device);
        assert!(matches!(windows[..], [(_, 1, sum)] if sum == value), "{device}: {windows:?}");
    }

    /// Reasons and sentences of the errors of a device, in order.
    pub fn errors(&self, device: &str) -> Vec<(String, String)> {
        let mut errors = self.weir.list("errors", &format!("&device={device}"));
        errors.sort_by_key(|error| error["seq"].as_u64());
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        errors.iter().map(|error| (text(&error["reason"]), text(&error["message"]))).collect()
    }

    /// Checks that a device has exactly one error, with this reason and a sentence that has `part`, and no window.
    #[track_caller]
    pub fn rejected_once(&self, device: &str, reason: &str, part: &str) {
        let errors = self.errors(device);
        let fits = matches!(&errors[..], [(found, sentence)] if found == reason && sentence.contains(part));
        assert!(fits, "{device}: {errors:?}, not {reason} with {part:?}");
        assert_eq!(self.windows(device), [], "{device}");
    }

    /// A number that the API shows of a device.
    pub fn of_device(&self, device: &str, field: &str) -> u64 {
        self.weir.json(&format!("/api/v1/devices/{device}"))[field].as_u64().expect("a number")
    }
}
