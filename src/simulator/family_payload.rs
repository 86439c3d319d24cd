//! Payloads of the families whose messages are text.

use serde_json::{Map, Value, json};

use crate::simulator::format::{DeviceFormat, capitalised};
use crate::simulator::message::{DeviceMessage, MalformedPayload, MessageContent};

/// What stands in the place of a number when a sensor is not ready.
pub(super) const NOT_READY: &str = "warming up";

/// A message of one device, as its payload says it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PayloadSource<'a> {
    /// Name of the device.
    pub device: &'a str,
    /// Names of the fleet's metrics.
    pub metrics: &'a [String],
    /// What is sent.
    pub message: &'a DeviceMessage,
}

impl PayloadSource<'_> {
    /// The values by metric; text where the sensor is not ready.
    fn values(self, name: impl Fn(&str) -> String) -> Map<String, Value> {
        match &self.message.content {
            MessageContent::Readings(values) => {
                self.metrics.iter().zip(values).map(|(metric, value)| (name(metric), json!(value))).collect()
            }
            _ => self.metrics.iter().take(1).map(|metric| (name(metric), json!(NOT_READY))).collect(),
        }
    }

    /// The payload in a form that is text.
    pub fn text(self, format: DeviceFormat) -> String {
        match &self.message.content {
            MessageContent::Malformed(MalformedPayload::Text) => format!("message {}: {NOT_READY}", self.message.seq),
            MessageContent::Malformed(MalformedPayload::Cut) => self.cut(format),
            _ => self.whole(format),
        }
    }

    fn whole(self, format: DeviceFormat) -> String {
        let (device, event_ms) = (self.device, self.message.event_ms);
        let same = |metric: &str| metric.to_owned();
        match format {
            DeviceFormat::Native | DeviceFormat::SparkplugB => String::new(),
            DeviceFormat::Tasmota => {
                let sensor = self.values(capitalised);
                json!({"Time": local_time(event_ms), "BME280": sensor, "TempUnit": "C"}).to_string()
            }
            DeviceFormat::Zigbee2mqtt => {
                let mut state = self.values(same);
                state.insert("last_seen".to_owned(), json!(utc(event_ms)));
                Value::Object(state).to_string()
            }
            DeviceFormat::ShellyGen2 => {
                let mut switch = Map::from_iter([("id".to_owned(), json!(0))]);
                switch.extend(self.values(same));
                let params = json!({"ts": seconds(event_ms), "switch:0": switch});
                json!({"src": device, "dst": format!("{device}/events"), "method": "NotifyStatus", "params": params})
                    .to_string()
            }
            DeviceFormat::Senml => self.senml(),
            DeviceFormat::Influx => self.line(),
            DeviceFormat::TtnV3 => self.uplink(),
        }
    }

    /// A payload that ends in the middle of a number. It has the number of the message, so that no two are the same.
    fn cut(self, format: DeviceFormat) -> String {
        let metric = self.metrics.first().map_or("temperature", String::as_str);
        let DeviceMessage { seq, event_ms, .. } = self.message;
        match format {
            DeviceFormat::Influx => format!("sensors,host={} {metric}={seq}.5,", self.device),
            DeviceFormat::Senml => format!("[{{\"bt\":{},\"n\":\"{metric}\",\"v\":{seq}.", seconds(*event_ms)),
            _ => format!("{{\"Time\":\"{}\",\"{metric}\":{seq}.", local_time(*event_ms)),
        }
    }

    /// A pack with base name and base time in its first record.
    fn senml(self) -> String {
        let base = json!({"bn": format!("urn:dev:ow:{}:", self.device), "bt": seconds(self.message.event_ms)});
        let mut records: Vec<Value> = Vec::new();
        for (metric, value) in self.values(str::to_owned) {
            let mut record = if records.is_empty() { base.clone() } else { json!({}) };
            let key = if value.is_string() { "vs" } else { "v" };
            if let Value::Object(record) = &mut record {
                record.insert("n".to_owned(), json!(metric));
                record.insert(key.to_owned(), value);
            }
            records.push(record);
        }
        Value::Array(records).to_string()
    }

    /// A line with one field for each metric.
    fn line(self) -> String {
        let fields: Vec<String> =
            self.values(str::to_owned).iter().map(|(metric, value)| format!("{metric}={value}")).collect();
        format!("sensors,host={} {} {}000000\n", self.device, fields.join(","), self.message.event_ms)
    }

    /// An uplink whose payload the server has decoded. The counter 0 is left out, as protocol buffers do.
    fn uplink(self) -> String {
        let time = utc(self.message.event_ms);
        let mut uplink = json!({
            "f_port": 1, "frm_payload": "AQ==", "decoded_payload": self.values(str::to_owned),
            "rx_metadata": [{"gateway_ids": {"gateway_id": "gtw1"}, "rssi": -35, "snr": 5.2}], "received_at": time,
        });
        if let (Value::Object(uplink), true) = (&mut uplink, self.message.seq > 0) {
            uplink.insert("f_cnt".to_owned(), json!(self.message.seq));
        }
        let ids = json!({"device_id": self.device, "application_ids": {"application_id": "weir"}});
        json!({"end_device_ids": ids, "received_at": time, "uplink_message": uplink}).to_string()
    }
}

/// The time in UTC with milliseconds, as JavaScript writes it.
fn utc(event_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(event_ms).unwrap_or_default();
    format!("{time:.3}")
}

/// The time in UTC with whole seconds and without a zone.
fn local_time(event_ms: i64) -> String {
    let text = utc(event_ms);
    text.split('.').next().unwrap_or_default().to_owned()
}

/// Seconds with their fraction, as a number.
fn seconds(event_ms: i64) -> f64 {
    event_ms as f64 / 1_000.0
}
