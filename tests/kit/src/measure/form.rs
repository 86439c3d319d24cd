//! Forms in which the devices of a load publish: weir's own, and those of families of devices.

use std::io::Write as _;

use super::reading::METRICS;

/// The sensors of a Tasmota and of an edge node: eight values a message, as a meter has them.
const SENSORS: [&str; 8] =
    ["Total", "Yesterday", "Today", "Power", "ApparentPower", "ReactivePower", "Voltage", "Current"];

/// The topics of a device that publishes one value a topic.
const TOPICS: [&str; 8] =
    ["relay/0/power", "relay/0/energy", "temperature", "temperature_f", "overtemperature", "voltage", "current", "pf"];

/// Form of messages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum BenchForm {
    /// weir's own: one reading of JSON a message.
    Native,
    /// Tasmota: JSON with eight values.
    Tasmota,
    /// Sparkplug B: eight values by alias, after a birth.
    Sparkplug,
    /// Shelly of the first generation: one value a topic, in turn.
    Scalar,
}

impl BenchForm {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Native, Self::Tasmota, Self::Sparkplug, Self::Scalar];

    /// Name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tasmota => "tasmota",
            Self::Sparkplug => "sparkplug_b",
            Self::Scalar => "scalar",
        }
    }

    /// Readings of a message.
    pub fn readings(self) -> u64 {
        match self {
            Self::Native | Self::Scalar => 1,
            Self::Tasmota | Self::Sparkplug => SENSORS.len() as u64,
        }
    }

    /// What the device publishes before its messages: topic and payload.
    pub fn greeting(self, device: &str, time_ms: u128) -> Option<(String, Vec<u8>)> {
        (self == Self::Sparkplug).then(|| (format!("spBv1.0/bench/NBIRTH/{device}"), birth(time_ms as u64)))
    }
}

/// One message of a device, written without allocation once the buffers have grown.
pub struct BenchMessage<'a> {
    pub form: BenchForm,
    pub device: &'a str,
    /// Number of the message, from 0.
    pub seq: u64,
    pub time_ms: u128,
}

impl BenchMessage<'_> {
    /// Puts topic and payload into the buffers, whose contents are lost.
    pub fn write(&self, topic: &mut String, payload: &mut Vec<u8>) {
        topic.clear();
        payload.clear();
        let Self { form, device, seq, time_ms } = self;
        let value = 2000 + (seq.wrapping_mul(2_654_435_761) >> 7) % 1000;
        let level = |topic: &mut String, parts: [&str; 3]| parts.iter().for_each(|part| topic.push_str(part));
        match form {
            BenchForm::Native => {
                level(topic, ["devices/", device, "/telemetry"]);
                let metric = METRICS[*seq as usize % METRICS.len()];
                let (whole, hundredths) = (value / 100, value % 100);
                write!(
                    payload,
                    r#"{{"device_id":"{device}","metric":"{metric}","value":{whole}.{hundredths:02},"timestamp":{time_ms},"seq":{seq}}}"#
                )
                .expect("writing to a Vec does not fail");
            }
            BenchForm::Tasmota => {
                level(topic, ["tele/", device, "/SENSOR"]);
                payload.extend(b"{\"Time\":\"");
                write_time((time_ms / 1_000) as u64, payload);
                payload.extend(b"\",\"ENERGY\":{\"TotalStartTime\":\"2022-03-20T15:20:48\"");
                for (index, sensor) in (0..).zip(SENSORS) {
                    let value = value + index;
                    write!(payload, ",\"{sensor}\":{}.{:02}", value / 100, value % 100).expect("as above");
                }
                payload.extend(b"}}");
            }
            BenchForm::Sparkplug => {
                level(topic, ["spBv1.0/bench/NDATA/", device, ""]);
                let time_ms = *time_ms as u64;
                put_integer(1, time_ms, payload);
                for alias in 1..=SENSORS.len() as u64 {
                    // A metric of 18 bytes: alias, timestamp, double.
                    payload.extend([2 << 3 | 2, 18, 2 << 3, alias as u8]);
                    put_integer(3, time_ms, payload);
                    payload.push(13 << 3 | 1);
                    payload.extend((value as f64 / 100.0 + alias as f64).to_le_bytes());
                }
                put_integer(3, (seq + 1) % 256, payload);
            }
            BenchForm::Scalar => {
                let name = TOPICS[*seq as usize % TOPICS.len()];
                level(topic, ["shellies/", device, "/"]);
                topic.push_str(name);
                write!(payload, "{}.{:02}", value / 100, value % 100).expect("as above");
            }
        }
    }
}

/// The time as Tasmota writes it, in UTC.
fn write_time(unix_s: u64, out: &mut Vec<u8>) {
    // Days from a 1st of March on: the leap day is the last of its year.
    let days = unix_s / 86_400 + 719_468;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + days / 146_097 * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (unix_s / 3_600 % 24, unix_s / 60 % 60, unix_s % 60);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}").expect("as above");
}

/// Appends an integer field of a protocol buffer.
fn put_integer(number: u8, mut value: u64, out: &mut Vec<u8>) {
    out.push(number << 3);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A birth that defines the sensors by alias, from 1 on.
fn birth(time_ms: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    put_integer(1, time_ms, &mut payload);
    for (alias, sensor) in (1..).zip(SENSORS) {
        let mut metric = vec![1 << 3 | 2, sensor.len() as u8];
        metric.extend(sensor.as_bytes());
        put_integer(2, alias, &mut metric);
        put_integer(4, 10, &mut metric);
        put_integer(7, 1, &mut metric);
        payload.extend([2 << 3 | 2, metric.len() as u8]);
        payload.extend(metric);
    }
    put_integer(3, 0, &mut payload);
    payload
}
