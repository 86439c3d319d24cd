//! Readings as devices publish them.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::mqtt::{MqttVersion, PublishPacket};

/// The metrics of one device, in turn.
pub const METRICS: [&str; 3] = ["temperature", "humidity", "pressure"];

/// Unix time in milliseconds.
pub fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

/// One reading.
pub struct BenchReading<'a> {
    pub device: &'a str,
    pub metric: &'a str,
    pub seq: u64,
    pub time_ms: u128,
    /// Whether the payload names the device, as the topic does.
    pub named: bool,
}

impl BenchReading<'_> {
    /// Appends a PUBLISH of QoS 1 with this reading. Allocates nothing once `scratch` has grown: a client slower than
    /// weir would measure itself.
    pub fn publish(&self, packet_id: u16, scratch: &mut String, out: &mut Vec<u8>) {
        let Self { device, metric, seq, time_ms, named } = self;
        let value = 2000 + (seq.wrapping_mul(2_654_435_761) >> 7) % 1000;
        scratch.clear();
        for part in ["devices/", device, "/telemetry"] {
            scratch.push_str(part);
        }
        let topic_end = scratch.len();
        scratch.push('{');
        if *named {
            write!(scratch, r#""device_id":"{device}","#).expect("writing to a String does not fail");
        }
        let (whole, hundredths) = (value / 100, value % 100);
        let rest = write!(
            scratch,
            r#""metric":"{metric}","value":{whole}.{hundredths:02},"timestamp":{time_ms},"seq":{seq}}}"#
        );
        rest.expect("writing to a String does not fail");
        let (topic, payload) = scratch.split_at(topic_end);
        let payload = payload.as_bytes();
        PublishPacket { topic, payload, qos: 1, id: packet_id, ..PublishPacket::default() }.write(MqttVersion::V4, out);
    }
}
