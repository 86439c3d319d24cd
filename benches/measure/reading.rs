//! Readings as devices publish them.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// The metrics of one device, in turn.
pub const METRICS: [&str; 3] = ["temperature", "humidity", "pressure"];

/// Unix time in milliseconds.
pub fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

/// One reading.
pub struct Reading<'a> {
    pub device: &'a str,
    pub metric: &'a str,
    pub seq: u64,
    pub time_ms: u128,
    /// Whether the payload names the device, as the topic does.
    pub named: bool,
}

impl Reading<'_> {
    /// Appends its PUBLISH of QoS 1. `payload` is scratch.
    pub fn publish(&self, packet_id: u16, payload: &mut String, out: &mut Vec<u8>) {
        let Self { device, metric, seq, time_ms, named } = self;
        let value = 2000 + (seq.wrapping_mul(2_654_435_761) >> 7) % 1000;
        payload.clear();
        payload.push('{');
        if *named {
            write!(payload, r#""device_id":"{device}","#).expect("writing to a String does not fail");
        }
        let (whole, hundredths) = (value / 100, value % 100);
        let rest = write!(
            payload,
            r#""metric":"{metric}","value":{whole}.{hundredths:02},"timestamp":{time_ms},"seq":{seq}}}"#
        );
        rest.expect("writing to a String does not fail");
        publish_packet(0x32, &["devices/", device, "/telemetry"], packet_id, payload, out);
    }
}

/// Appends a PUBLISH of QoS 1 with this first byte. By hand: a client that is slower than weir measures itself.
pub fn publish_packet(first: u8, topic: &[&str], packet_id: u16, payload: &str, out: &mut Vec<u8>) {
    let topic_len: usize = topic.iter().map(|part| part.len()).sum();
    let remaining = 2 + topic_len + 2 + payload.len();
    assert!(remaining < 16_384, "the remaining length takes two bytes at most");
    out.push(first);
    if remaining < 128 {
        out.push(remaining as u8);
    } else {
        out.extend_from_slice(&[(remaining % 128) as u8 | 0x80, (remaining / 128) as u8]);
    }
    out.extend_from_slice(&(topic_len as u16).to_be_bytes());
    for part in topic {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(&packet_id.to_be_bytes());
    out.extend_from_slice(payload.as_bytes());
}
