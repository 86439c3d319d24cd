//! Messages of a simulated device: their content, which follows from the seed, and their encoding as MQTT publishes.

use std::ops::RangeInclusive;

use bytes::Bytes;
use serde::Serialize;

use crate::random::Random;
use crate::simulator::family_encoder::FamilyEncoder;
use crate::simulator::options::FleetOptions;

/// Longest payload of a backlog publish; longer backlogs are split. The error log keeps 4 KiB of a payload, so a
/// rejected reading of a shorter payload is found in its whole message.
const BACKLOG_PUBLISH_BYTES: usize = 3_500;

/// Largest number of messages in one backlog publish.
const BACKLOG_PUBLISH_MESSAGES: usize = 64;

/// Content of one message of a device.
#[derive(Debug, Clone, PartialEq)]
pub enum MessageContent {
    /// Readings: one value for each of the fleet's metrics.
    Readings(Vec<f64>),
    /// A report of a fault of the device.
    Fault,
    /// A payload that weir must reject.
    Malformed(MalformedPayload),
}

/// Payloads that are not readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MalformedPayload {
    /// JSON that is cut off in the middle.
    Cut,
    /// Text that is not JSON.
    Text,
    /// JSON whose value is not a number.
    WrongType,
}

/// One message of a device. It has a sequence number of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceMessage {
    /// Sequence number, from 0.
    pub seq: u64,
    /// Event time by the device's clock, Unix milliseconds.
    pub event_ms: i64,
    /// Content of the message.
    pub content: MessageContent,
}

/// One PUBLISH: one message, or several messages of a backlog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// Sequence numbers of the messages in the payload.
    pub seqs: RangeInclusive<u64>,
    /// Number of readings in the payload.
    pub readings: u64,
    /// Whether the broker keeps the message for later subscribers.
    pub retain: bool,
}

impl Publication {
    /// A publish that is none of the device's messages, such as a birth.
    pub fn beside_readings(topic: String, payload: Vec<u8>, retain: bool) -> Self {
        let no_messages = RangeInclusive::new(1, 0);
        Self { topic, payload: Bytes::from(payload), seqs: no_messages, readings: 0, retain }
    }

    /// Whether the publish holds messages of the device.
    pub fn has_messages(&self) -> bool {
        !self.seqs.is_empty()
    }
}

/// Produces the messages of one device.
#[derive(Debug)]
pub struct MessageGenerator {
    random: Random,
    next_seq: u64,
    skew_ms: i64,
    disorder_ms: u64,
    malformed_share: f64,
    fault_share: f64,
    resolution_ms: i64,
    walk: Vec<f64>,
    /// Event time of the newest reading. Faults carry this time: a redelivered fault that is newer than every reading
    /// of the device would look like a restart to weir.
    newest_reading_ms: Option<i64>,
}

impl MessageGenerator {
    /// A generator for one device of the fleet.
    pub fn new(options: &FleetOptions, mut random: Random) -> Self {
        let limit = options.clock_skew_ms;
        let skew_ms = random.up_to(limit.saturating_mul(2)) as i64 - limit as i64;
        let walk =
            (0..options.metrics.len()).map(|metric| 20.0 + 15.0 * metric as f64 + random.unit() * 10.0).collect();
        Self {
            random,
            next_seq: 0,
            skew_ms,
            disorder_ms: options.disorder_ms,
            malformed_share: options.malformed_share,
            fault_share: options.fault_share,
            resolution_ms: options.format.resolution_ms(),
            walk,
            newest_reading_ms: None,
        }
    }

    /// Number of messages produced so far.
    pub fn produced(&self) -> u64 {
        self.next_seq
    }

    /// The next message. Everything but its event time follows from the seed; `now_ms` is the wall clock.
    pub fn next_message(&mut self, now_ms: i64) -> DeviceMessage {
        let seq = self.next_seq;
        self.next_seq += 1;
        let late_ms = self.random.up_to(self.disorder_ms) as i64;
        let event_ms = now_ms.saturating_add(self.skew_ms).saturating_sub(late_ms);
        let event_ms = event_ms - event_ms.rem_euclid(self.resolution_ms);
        // Drawn for every message, so that one option does not change what the others produce.
        let (malformed, fault) = (self.random.unit(), self.random.unit());
        let way = self.random.up_to(2);
        let values = self.step();
        if malformed < self.malformed_share {
            let way = [MalformedPayload::Cut, MalformedPayload::Text, MalformedPayload::WrongType][way as usize];
            return DeviceMessage { seq, event_ms, content: MessageContent::Malformed(way) };
        }
        if let Some(newest) = self.newest_reading_ms.filter(|_| fault < self.fault_share) {
            return DeviceMessage { seq, event_ms: newest, content: MessageContent::Fault };
        }
        self.newest_reading_ms = self.newest_reading_ms.max(Some(event_ms));
        DeviceMessage { seq, event_ms, content: MessageContent::Readings(values) }
    }

    /// The next step of a random walk, rounded to three decimals as a sensor would.
    fn step(&mut self) -> Vec<f64> {
        let random = &mut self.random;
        let step = |value: &mut f64| {
            *value = ((*value + random.unit() - 0.5) * 1_000.0).round() / 1_000.0;
            *value
        };
        self.walk.iter_mut().map(step).collect()
    }
}

#[derive(Serialize)]
struct OneReading<'a> {
    device_id: &'a str,
    metric: &'a str,
    value: f64,
    timestamp: i64,
    seq: u64,
    boot: &'a str,
}

#[derive(Serialize)]
struct SeveralReadings<'a> {
    timestamp: i64,
    seq: u64,
    boot: &'a str,
    metrics: MetricValues<'a>,
}

struct MetricValues<'a>(&'a [String], &'a [f64]);

impl Serialize for MetricValues<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}

#[derive(Serialize)]
struct FaultMessage<'a> {
    error: &'a str,
    timestamp: i64,
    seq: u64,
    boot: &'a str,
}

#[derive(Serialize)]
struct WrongType<'a> {
    metric: &'a str,
    value: &'a str,
    timestamp: i64,
    seq: u64,
    boot: &'a str,
}

/// Encodes the messages of one device as publishes.
#[derive(Debug, Clone)]
pub struct MessageEncoder {
    device_id: String,
    boot: String,
    metrics: Vec<String>,
    telemetry_topic: String,
    error_topic: String,
    /// Encodes in the place of this encoder where the device is of a family.
    family: Option<FamilyEncoder>,
}

impl MessageEncoder {
    /// An encoder for one device of the fleet.
    pub fn new(options: &FleetOptions, device_id: &str) -> Self {
        Self {
            device_id: device_id.to_owned(),
            boot: options.boot.clone(),
            metrics: options.metrics.clone(),
            telemetry_topic: options.telemetry_topic.replacen('+', device_id, 1),
            error_topic: options.error_topic.replacen('+', device_id, 1),
            family: FamilyEncoder::new(options, device_id),
        }
    }

    /// Encodes one message as a publish.
    pub fn encode(&self, message: &DeviceMessage) -> Publication {
        if let Some(family) = &self.family {
            return family.encode(message, false);
        }
        let (topic, readings) = match &message.content {
            MessageContent::Readings(values) => (&self.telemetry_topic, values.len() as u64),
            MessageContent::Fault => (&self.error_topic, 0),
            MessageContent::Malformed(_) => (&self.telemetry_topic, 0),
        };
        let payload = Bytes::from(self.text(message));
        Publication { topic: topic.clone(), payload, seqs: message.seq..=message.seq, readings, retain: false }
    }

    /// Encodes a backlog in its order. Consecutive readings share publishes, as JSON arrays; every other message has a
    /// publish of its own, and so have all messages of families of devices.
    pub fn encode_backlog(&self, backlog: &[DeviceMessage]) -> Vec<Publication> {
        if let Some(family) = &self.family {
            return backlog.iter().map(|message| family.encode(message, true)).collect();
        }
        let mut publications = Vec::new();
        let mut array = Array::default();
        for message in backlog {
            let MessageContent::Readings(values) = &message.content else {
                publications.extend(array.finish(&self.telemetry_topic));
                publications.push(self.encode(message));
                continue;
            };
            let text = self.text(message);
            if !array.has_room_for(&text) {
                publications.extend(array.finish(&self.telemetry_topic));
            }
            array.push(&text, message.seq, values.len() as u64);
        }
        publications.extend(array.finish(&self.telemetry_topic));
        publications
    }

    /// Whether the device is of a family, and does not use weir's own form.
    pub fn is_of_family(&self) -> bool {
        self.family.is_some()
    }

    /// Begins a session: a new connection. Returns its last will.
    pub fn begin_session(&mut self, now_ms: i64) -> Option<Publication> {
        self.family.as_mut()?.begin_session(now_ms)
    }

    /// What the device publishes first in a session.
    pub fn greeting(&self, now_ms: i64) -> Option<Publication> {
        self.family.as_ref()?.greeting(now_ms)
    }

    /// The payload of a publish that is about to be sent.
    pub fn payload_to_send(&mut self, publication: &Publication) -> Vec<u8> {
        match &mut self.family {
            Some(family) => family.payload_to_send(publication),
            None => publication.payload.to_vec(),
        }
    }

    /// What tells a message that is sent alone in the error log, mostly its payload. In weir's own form no two messages of a device
    /// have the same; in the forms of families, those may have that say the same.
    pub fn identity(&self, message: &DeviceMessage) -> Vec<u8> {
        self.family.as_ref().map_or_else(|| self.text(message).into_bytes(), |family| family.identity(message))
    }

    /// The identity of a message with this payload.
    pub fn identity_of(&self, payload: &[u8]) -> Vec<u8> {
        self.family.as_ref().map_or_else(|| payload.to_vec(), |family| family.identity_of(payload))
    }

    /// The payload of a message in weir's own form that is sent alone. No two messages of a device have the same payload.
    pub fn text(&self, message: &DeviceMessage) -> String {
        let DeviceMessage { seq, event_ms: timestamp, content } = message;
        let (seq, timestamp, boot) = (*seq, *timestamp, self.boot.as_str());
        let metric = self.metrics.first().map_or("temperature", String::as_str);
        match content {
            MessageContent::Readings(values) => match values.as_slice() {
                [value] => {
                    json(&OneReading { device_id: &self.device_id, metric, value: *value, timestamp, seq, boot })
                }
                _ => json(&SeveralReadings { timestamp, seq, boot, metrics: MetricValues(&self.metrics, values) }),
            },
            MessageContent::Fault => json(&FaultMessage { error: "E42 sensor open", timestamp, seq, boot }),
            MessageContent::Malformed(MalformedPayload::Cut) => {
                format!("{{\"seq\":{seq},\"boot\":\"{boot}\",\"timestamp\":{timestamp},\"metrics\":{{\"{metric}\":")
            }
            MessageContent::Malformed(MalformedPayload::Text) => {
                format!("boot {boot} message {seq}: sensor is warming up")
            }
            MessageContent::Malformed(MalformedPayload::WrongType) => {
                json(&WrongType { metric, value: "warming up", timestamp, seq, boot })
            }
        }
    }
}

/// An array payload under construction.
#[derive(Debug, Default)]
struct Array {
    text: String,
    first_seq: u64,
    last_seq: u64,
    messages: usize,
    readings: u64,
}

impl Array {
    fn has_room_for(&self, text: &str) -> bool {
        self.messages == 0
            || (self.messages < BACKLOG_PUBLISH_MESSAGES && self.text.len() + text.len() + 2 <= BACKLOG_PUBLISH_BYTES)
    }

    fn push(&mut self, text: &str, seq: u64, readings: u64) {
        self.text.push(if self.messages == 0 { '[' } else { ',' });
        self.text.push_str(text);
        if self.messages == 0 {
            self.first_seq = seq;
        }
        self.last_seq = seq;
        self.messages += 1;
        self.readings += readings;
    }

    fn finish(&mut self, topic: &str) -> Option<Publication> {
        let mut array = std::mem::take(self);
        if array.messages == 0 {
            return None;
        }
        array.text.push(']');
        Some(Publication {
            topic: topic.to_owned(),
            payload: Bytes::from(array.text),
            seqs: array.first_seq..=array.last_seq,
            readings: array.readings,
            retain: false,
        })
    }
}

fn json(value: &impl Serialize) -> String {
    #[expect(clippy::expect_used, reason = "maps with string keys, finite numbers and strings always have a JSON form")]
    serde_json::to_string(value).expect("plain values have a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn options(change: impl FnOnce(&mut FleetOptions)) -> FleetOptions {
        let mut options = FleetOptions { boot: "b1".into(), ..FleetOptions::default() };
        change(&mut options);
        options
    }

    fn messages(options: &FleetOptions, count: usize) -> Vec<DeviceMessage> {
        let mut generator = MessageGenerator::new(options, Random::for_member(options.seed, 3));
        (0..count).map(|step| generator.next_message(1_000_000 + step as i64 * 100)).collect()
    }

    #[test]
    fn the_seed_decides_the_content() {
        let options = options(|options| options.malformed_share = 0.2);
        assert_eq!(messages(&options, 200), messages(&options, 200));
        let other = FleetOptions { seed: 2, ..options.clone() };
        assert_ne!(messages(&options, 200), messages(&other, 200));
    }

    #[test]
    fn sequence_numbers_have_no_gaps() {
        let options = options(|options| options.malformed_share = 0.5);
        let seqs: Vec<u64> = messages(&options, 100).iter().map(|message| message.seq).collect();
        assert_eq!(seqs, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn disorder_and_skew_stay_within_their_limits() {
        let options = options(|options| {
            options.disorder_ms = 500;
            options.clock_skew_ms = 2_000;
        });
        let mut skews = Vec::new();
        for member in 0..50 {
            let mut generator = MessageGenerator::new(&options, Random::for_member(1, member));
            assert!(generator.skew_ms.abs() <= 2_000);
            skews.push(generator.skew_ms);
            for _ in 0..50 {
                let offset = generator.next_message(1_000_000).event_ms - 1_000_000 - generator.skew_ms;
                assert!((-500..=0).contains(&offset), "{offset}");
            }
        }
        assert!(skews.iter().any(|skew| *skew > 500) && skews.iter().any(|skew| *skew < -500));
    }

    #[test]
    fn a_fault_is_never_newer_than_the_readings_before_it() {
        let options = options(|options| options.fault_share = 0.5);
        let mut newest = None;
        let mut faults = 0;
        for message in messages(&options, 500) {
            match message.content {
                MessageContent::Fault => {
                    faults += 1;
                    assert_eq!(Some(message.event_ms), newest);
                }
                MessageContent::Readings(_) => newest = newest.max(Some(message.event_ms)),
                MessageContent::Malformed(_) => {}
            }
        }
        assert!(faults > 100);
    }

    #[test]
    fn one_metric_takes_the_short_form() {
        let options = options(|options| options.metrics = vec!["temperature".into()]);
        let encoder = MessageEncoder::new(&options, "d");
        let message = DeviceMessage { seq: 4, event_ms: 9, content: MessageContent::Readings(vec![1.5]) };
        let publication = encoder.encode(&message);
        assert_eq!(publication.topic, "devices/d/telemetry");
        assert_eq!(
            std::str::from_utf8(&publication.payload).unwrap(),
            r#"{"device_id":"d","metric":"temperature","value":1.5,"timestamp":9,"seq":4,"boot":"b1"}"#
        );
    }

    #[test]
    fn several_metrics_share_a_message() {
        let options = options(|options| options.metrics = vec!["b".into(), "a".into()]);
        let message = DeviceMessage { seq: 4, event_ms: 9, content: MessageContent::Readings(vec![1.0, 2.25]) };
        let publication = MessageEncoder::new(&options, "d").encode(&message);
        assert_eq!(publication.readings, 2);
        assert_eq!(
            std::str::from_utf8(&publication.payload).unwrap(),
            r#"{"timestamp":9,"seq":4,"boot":"b1","metrics":{"b":1.0,"a":2.25}}"#
        );
    }

    #[test]
    fn faults_go_to_the_errors_topic() {
        let publication = MessageEncoder::new(&options(|_| ()), "d").encode(&DeviceMessage {
            seq: 1,
            event_ms: 2,
            content: MessageContent::Fault,
        });
        assert_eq!(publication.topic, "devices/d/errors");
        let value: Value = serde_json::from_slice(&publication.payload).unwrap();
        assert_eq!(value["seq"], 1);
        assert!(value["error"].is_string());
    }

    #[test]
    fn malformed_payloads_are_malformed_and_unlike_each_other() {
        let encoder = MessageEncoder::new(&options(|_| ()), "d");
        let text =
            |seq, way| encoder.text(&DeviceMessage { seq, event_ms: 2, content: MessageContent::Malformed(way) });
        for way in [MalformedPayload::Cut, MalformedPayload::Text] {
            assert!(serde_json::from_str::<Value>(&text(1, way)).is_err(), "{way:?}");
        }
        assert!(serde_json::from_str::<Value>(&text(1, MalformedPayload::WrongType)).unwrap()["value"].is_string());
        for way in [MalformedPayload::Cut, MalformedPayload::Text, MalformedPayload::WrongType] {
            assert_ne!(text(1, way), text(2, way));
        }
    }

    #[test]
    fn a_backlog_becomes_arrays_in_order() {
        let options = options(|options| {
            options.fault_share = 0.05;
            options.malformed_share = 0.05;
        });
        let backlog = messages(&options, 300);
        let publications = MessageEncoder::new(&options, "d").encode_backlog(&backlog);
        let mut next = 0;
        for publication in &publications {
            assert_eq!(*publication.seqs.start(), next);
            next = publication.seqs.end() + 1;
            assert!(publication.payload.len() < 4_096);
            if publication.seqs.start() < publication.seqs.end() {
                let value: Value = serde_json::from_slice(&publication.payload).unwrap();
                let seqs: Vec<u64> = value.as_array().unwrap().iter().map(|one| one["seq"].as_u64().unwrap()).collect();
                assert_eq!(seqs, publication.seqs.clone().collect::<Vec<_>>());
            }
        }
        assert_eq!(next, 300);
        assert!(publications.len() < 100, "readings travel together");
    }
}
