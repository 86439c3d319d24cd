//! What leaves the operator: window results and error entries, their stored form and their JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::core::codec::{FieldReader, Invalid, put_bytes, put_f64, put_i64, put_u64};
use crate::core::decode::MalformedMessage;
use crate::core::reason::Reason;
use crate::core::record::{ReplayItem, ReplayItems, ReplayRecord};

/// Bytes of a payload that an error entry keeps.
pub const MAX_PAYLOAD_BYTES: usize = 4096;

const WINDOW_FORMAT: u8 = 1;
const ERROR_FORMAT: u8 = 1;
/// [`ERROR_FORMAT`] with the origin of a replayed reading behind it.
const REPLAYED_ERROR_FORMAT: u8 = 2;
/// [`ERROR_FORMAT`] with the client's own device behind it, whether there is an origin, and the origin.
const OWN_DEVICE_ERROR_FORMAT: u8 = 3;
/// Bit of an origin's flags: the message as a whole was rejected.
const ORIGIN_WHOLE: u8 = 1;

/// One firing of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowResult<'a> {
    /// Device id.
    pub device_id: &'a str,
    /// Metric name.
    pub metric: &'a str,
    /// First millisecond of the window, Unix time.
    pub window_start_ms: i64,
    /// First millisecond after the window.
    pub window_end_ms: i64,
    /// 0 for the first firing; one more for each correction.
    pub revision: u32,
    /// Sequence number of the firing that this one corrects; `None` for revision 0.
    pub supersedes: Option<u64>,
    /// Number of readings.
    pub count: u64,
    /// Neumaier-compensated sum.
    pub sum: f64,
    /// Mean.
    pub mean: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Value with the oldest event time; the first in the journal among equals.
    pub first: f64,
    /// Value with the newest event time; the last in the journal among equals.
    pub last: f64,
    /// Population standard deviation.
    pub stddev: f64,
}

impl<'a> WindowResult<'a> {
    /// Appends the stored form: a format byte, then the fields as in the checkpoint's binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(WINDOW_FORMAT);
        put_bytes(self.device_id.as_bytes(), out);
        put_bytes(self.metric.as_bytes(), out);
        put_i64(self.window_start_ms, out);
        put_u64(self.window_end_ms.wrapping_sub(self.window_start_ms) as u64, out);
        put_u64(u64::from(self.revision), out);
        put_u64(self.supersedes.map_or(0, |seq| seq.wrapping_add(1)), out);
        put_u64(self.count, out);
        for float in [self.sum, self.mean, self.min, self.max, self.first, self.last, self.stddev] {
            put_f64(float, out);
        }
    }

    /// Reads the stored form.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        let mut reader = FieldReader::new(bytes);
        Self::read(&mut reader).map_err(InvalidOutput)
    }

    fn read(reader: &mut FieldReader<'a>) -> Result<Self, Invalid> {
        if reader.u8()? != WINDOW_FORMAT {
            return Err("unknown format of a window");
        }
        let (device_id, metric) = (reader.str()?, reader.str()?);
        let window_start_ms = reader.i64()?;
        let window = Self {
            device_id,
            metric,
            window_start_ms,
            window_end_ms: window_start_ms.wrapping_add(reader.u64()? as i64),
            revision: reader.u32()?,
            supersedes: reader.u64()?.checked_sub(1),
            count: reader.u64()?,
            sum: reader.f64()?,
            mean: reader.f64()?,
            min: reader.f64()?,
            max: reader.f64()?,
            first: reader.f64()?,
            last: reader.f64()?,
            stddev: reader.f64()?,
        };
        reader.end()?;
        Ok(window)
    }

    /// Appends the JSON object that the API, MQTT and files show. Floats are in the shortest form that reads back to
    /// the same value; what is not finite is `null`.
    pub fn write_json(&self, seq: u64, out: &mut Vec<u8>) {
        let mut object = JsonObject::new(out);
        object.integer("seq", seq);
        object.string("device_id", self.device_id);
        object.string("metric", self.metric);
        object.integer("window_start", self.window_start_ms);
        object.integer("window_end", self.window_end_ms);
        object.integer("revision", self.revision);
        object.integer("count", self.count);
        object.float("sum", self.sum);
        object.float("mean", self.mean);
        object.float("min", self.min);
        object.float("max", self.max);
        object.float("first", self.first);
        object.float("last", self.last);
        object.float("stddev", self.stddev);
        object.end();
    }
}

/// One entry of the error log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorEntry<'a> {
    /// Position of the publish in the journal.
    pub journal_position: u64,
    /// Index of the reading in its message.
    pub index: u32,
    /// Arrival time, Unix milliseconds.
    pub arrival_ms: i64,
    /// Why.
    pub reason: Reason,
    /// A sentence that a person can act on.
    pub message: &'a str,
    /// Device, where it is known.
    pub device_id: Option<&'a str>,
    /// Metric, where it is known.
    pub metric: Option<&'a str>,
    /// MQTT client that published it.
    pub client_id: &'a str,
    /// Topic it was published on.
    pub topic: &'a str,
    /// The only device that the client may speak for, see [`Publish::own_device`](crate::core::record::Publish).
    pub own_device: Option<&'a str>,
    /// The first 4 KiB of the payload.
    pub payload: &'a [u8],
    /// Full length of the payload in bytes.
    pub payload_bytes: u64,
    /// Where it comes from, if a replay was rejected.
    pub origin: Option<ReplayOrigin>,
}

/// The error whose replay was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayOrigin {
    /// Its sequence number.
    pub replay_of: u64,
    /// When the message first arrived, Unix milliseconds.
    pub first_arrival_ms: i64,
    /// Whether the replay was rejected as a whole message.
    pub whole: bool,
}

impl<'a> ErrorEntry<'a> {
    /// Whether the message as a whole was rejected, and no reading of it for itself.
    pub fn is_of_whole_message(&self) -> bool {
        match self.origin {
            Some(origin) => origin.whole,
            None => self.reason == Reason::Malformed && self.index == 0 && MalformedMessage::wrote(self.message),
        }
    }

    /// Whether the message's `seq` was not remembered at the rejection: without a device that may send there is no
    /// state to remember it in. A replay that is rejected is taken for remembered: which readings of its message were
    /// counted meanwhile cannot be told.
    pub fn is_unseen(&self) -> bool {
        let unknown = [Reason::InvalidDeviceId, Reason::DeviceMismatch, Reason::UnknownDevice, Reason::TooManyDevices];
        self.origin.is_none() && (self.device_id.is_none() || unknown.contains(&self.reason))
    }

    /// This error, whose sequence number is `seq`, as part of a [`ReplayRecord`].
    pub fn replay_item(&self, seq: u64) -> ReplayItem {
        ReplayItem { error_seq: seq, index: self.index, unseen: self.is_unseen() }
    }

    /// The journal record that processes errors of this one's message again. `payload`: the message's, whole.
    pub fn replay<'r>(&self, payload: &'r [u8], items: ReplayItems<'r>) -> ReplayRecord<'r>
    where
        'a: 'r,
    {
        ReplayRecord {
            position: self.journal_position,
            whole: self.is_of_whole_message(),
            arrival_ms: self.first_arrival_ms(),
            client_id: self.client_id,
            topic: self.topic,
            own_device: self.own_device,
            items,
            payload,
        }
    }

    /// When the message first arrived, Unix milliseconds.
    pub fn first_arrival_ms(&self) -> i64 {
        self.origin.map_or(self.arrival_ms, |origin| origin.first_arrival_ms)
    }

    /// Appends the stored form: a format byte, then the fields as in the checkpoint's binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match (self.own_device, self.origin) {
            (Some(_), _) => OWN_DEVICE_ERROR_FORMAT,
            (None, Some(_)) => REPLAYED_ERROR_FORMAT,
            (None, None) => ERROR_FORMAT,
        });
        put_u64(self.journal_position, out);
        put_u64(u64::from(self.index), out);
        put_i64(self.arrival_ms, out);
        out.push(self.reason as u8);
        put_bytes(self.message.as_bytes(), out);
        for name in [self.device_id, self.metric] {
            out.push(u8::from(name.is_some()));
            if let Some(name) = name {
                put_bytes(name.as_bytes(), out);
            }
        }
        put_bytes(self.client_id.as_bytes(), out);
        put_bytes(self.topic.as_bytes(), out);
        put_bytes(self.payload, out);
        put_u64(self.payload_bytes, out);
        if let Some(device) = self.own_device {
            put_bytes(device.as_bytes(), out);
            out.push(u8::from(self.origin.is_some()));
        }
        if let Some(ReplayOrigin { replay_of, first_arrival_ms, whole }) = self.origin {
            put_u64(replay_of, out);
            put_i64(first_arrival_ms, out);
            out.push(if whole { ORIGIN_WHOLE } else { 0 });
        }
    }

    /// Reads the stored form.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        let mut reader = FieldReader::new(bytes);
        Self::read(&mut reader).map_err(InvalidOutput)
    }

    fn read(reader: &mut FieldReader<'a>) -> Result<Self, Invalid> {
        let format = reader.u8()?;
        if !(ERROR_FORMAT..=OWN_DEVICE_ERROR_FORMAT).contains(&format) {
            return Err("unknown format of an error");
        }
        let mut entry = Self {
            journal_position: reader.u64()?,
            index: reader.u32()?,
            arrival_ms: reader.i64()?,
            reason: Reason::from_code(reader.u8()?).ok_or("unknown reason")?,
            message: reader.str()?,
            device_id: read_name(reader)?,
            metric: read_name(reader)?,
            client_id: reader.str()?,
            topic: reader.str()?,
            own_device: None,
            payload: reader.bytes()?,
            payload_bytes: reader.u64()?,
            origin: None,
        };
        let mut replayed = format == REPLAYED_ERROR_FORMAT;
        if format == OWN_DEVICE_ERROR_FORMAT {
            entry.own_device = Some(reader.str()?);
            replayed = match reader.u8()? {
                0 => false,
                1 => true,
                _ => return Err("an optional origin"),
            };
        }
        if replayed {
            entry.origin = Some(read_origin(reader)?);
        }
        reader.end()?;
        Ok(entry)
    }

    /// Appends the JSON object that the API, MQTT and files show. The payload is `payload` where it is UTF-8, else
    /// `payload_base64`; `device_id` and `metric` are `null` where they are not known; `replay_of` and
    /// `first_arrival_time` are there where a replay was rejected.
    pub fn write_json(&self, seq: u64, out: &mut Vec<u8>) {
        let mut object = JsonObject::new(out);
        object.integer("seq", seq);
        object.integer("journal_position", self.journal_position);
        object.integer("index", self.index);
        object.integer("arrival_time", self.arrival_ms);
        object.string("reason", self.reason.as_str());
        object.string("message", self.message);
        object.optional_string("device_id", self.device_id);
        object.optional_string("metric", self.metric);
        object.string("client_id", self.client_id);
        object.string("topic", self.topic);
        match std::str::from_utf8(self.payload) {
            Ok(text) => object.string("payload", text),
            Err(_) => object.string("payload_base64", &BASE64.encode(self.payload)),
        }
        object.integer("payload_bytes", self.payload_bytes);
        if let Some(origin) = self.origin {
            object.integer("replay_of", origin.replay_of);
            object.integer("first_arrival_time", origin.first_arrival_ms);
        }
        object.end();
    }
}

fn read_origin(reader: &mut FieldReader<'_>) -> Result<ReplayOrigin, Invalid> {
    let (replay_of, first_arrival_ms) = (reader.u64()?, reader.i64()?);
    let whole = match reader.u8()? {
        0 => false,
        ORIGIN_WHOLE => true,
        _ => return Err("the origin of a replay"),
    };
    Ok(ReplayOrigin { replay_of, first_arrival_ms, whole })
}

fn read_name<'a>(reader: &mut FieldReader<'a>) -> Result<Option<&'a str>, Invalid> {
    match reader.u8()? {
        0 => Ok(None),
        1 => reader.str().map(Some),
        _ => Err("an optional name"),
    }
}

/// The part of a payload that an error entry keeps: up to [`MAX_PAYLOAD_BYTES`], and where it is text, no half
/// characters.
pub(super) fn kept_payload(payload: &[u8]) -> &[u8] {
    let Some(kept) = payload.get(..MAX_PAYLOAD_BYTES) else { return payload };
    match std::str::from_utf8(kept) {
        // No error length: the text ends within a character, which the rest of the payload may complete.
        Err(error) if error.error_len().is_none() => kept.get(..error.valid_up_to()).unwrap_or(kept),
        _ => kept,
    }
}

/// Writes a JSON object field by field.
struct JsonObject<'o> {
    out: &'o mut Vec<u8>,
    next: u8,
}

impl<'o> JsonObject<'o> {
    fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, next: b'{' }
    }

    fn key(&mut self, key: &str) {
        self.out.extend_from_slice(&[self.next, b'"']);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.next = b',';
    }

    fn value(&mut self, value: &impl serde::Serialize) {
        // Writing numbers and strings into a vector cannot fail; were it ever to, the field would be `null`.
        let before = self.out.len();
        if serde_json::to_writer(&mut *self.out, value).is_err() {
            self.out.truncate(before);
            self.out.extend_from_slice(b"null");
        }
    }

    fn integer(&mut self, key: &str, integer: impl serde::Serialize) {
        self.key(key);
        self.value(&integer);
    }

    fn float(&mut self, key: &str, float: f64) {
        self.key(key);
        self.value(&float);
    }

    fn string(&mut self, key: &str, string: &str) {
        self.key(key);
        self.value(&string);
    }

    fn optional_string(&mut self, key: &str, string: Option<&str>) {
        self.key(key);
        self.value(&string);
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

/// A record of the windows or errors log that no writer of this format produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stored result of this format: {0}")]
pub struct InvalidOutput(pub &'static str);

/// Takes the operator's effects in order.
pub trait Collector {
    /// A window fired. `seq` grows by one per firing.
    fn window(&mut self, seq: u64, window: &WindowResult<'_>);
    /// A reading was rejected, or a device reported a fault. `seq` grows by one per stored entry.
    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window() -> WindowResult<'static> {
        WindowResult {
            device_id: "gärät \"3\"",
            metric: "temperature",
            window_start_ms: -5000,
            window_end_ms: 0,
            revision: 2,
            supersedes: Some(0),
            count: 3,
            sum: 0.1 + 0.2,
            mean: 21.0,
            min: -0.0,
            max: 1e300,
            first: f64::INFINITY,
            last: 5e-324,
            stddev: f64::NAN,
        }
    }

    fn entry(payload: &[u8]) -> ErrorEntry<'_> {
        ErrorEntry {
            journal_position: 7,
            index: 1,
            arrival_ms: 1_732_098_765_123,
            reason: Reason::InvalidMetric,
            message: "no",
            device_id: Some("d"),
            metric: None,
            client_id: "c",
            topic: "t",
            own_device: None,
            payload,
            payload_bytes: 9,
            origin: None,
        }
    }

    fn replayed(payload: &[u8]) -> ErrorEntry<'_> {
        let origin = ReplayOrigin { replay_of: 300, first_arrival_ms: -1, whole: true };
        ErrorEntry { origin: Some(origin), ..entry(payload) }
    }

    fn window_json(window: &WindowResult<'_>) -> String {
        let mut json = Vec::new();
        window.write_json(17, &mut json);
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn windows_as_json() {
        assert_eq!(
            window_json(&window()),
            r#"{"seq":17,"device_id":"gärät \"3\"","metric":"temperature","window_start":-5000,"window_end":0,"#
                .to_owned()
                + r#""revision":2,"count":3,"sum":0.30000000000000004,"mean":21.0,"min":-0.0,"max":1e+300,"first":null,"#
                + r#""last":5e-324,"stddev":null}"#
        );
    }

    #[test]
    fn errors_as_json() {
        let check = |payload: &[u8], expected: &str| {
            let mut json = Vec::new();
            entry(payload).write_json(5, &mut json);
            let start =
                r#"{"seq":5,"journal_position":7,"index":1,"arrival_time":1732098765123,"reason":"invalid_metric","#
                    .to_owned()
                    + r#""message":"no","device_id":"d","metric":null,"client_id":"c","topic":"t","#;
            assert_eq!(String::from_utf8(json).unwrap(), start + expected + r#","payload_bytes":9}"#);
        };
        check(b"{\"a\"}", r#""payload":"{\"a\"}""#);
        check(b"\xff\x00", r#""payload_base64":"/wA=""#);
        let mut json = Vec::new();
        replayed(b"x").write_json(5, &mut json);
        let end = r#","payload":"x","payload_bytes":9,"replay_of":300,"first_arrival_time":-1}"#;
        assert!(String::from_utf8(json).unwrap().ends_with(end));
    }

    /// Formats 1 to 3 as released: a change here is a new format.
    #[test]
    fn the_bytes_of_an_error() {
        let mut bytes = Vec::new();
        entry(b"p").encode(&mut bytes);
        let expected = b"\x01\x07\x01\x86\xc5\x8d\x92\xe9\x64\x05\x02no\x01\x01d\x00\x01c\x01t\x01p\x09";
        assert_eq!(bytes, expected);
        bytes.clear();
        replayed(b"p").encode(&mut bytes);
        assert_eq!(bytes, [b"\x02", &expected[1..], b"\xac\x02\x01\x01"].concat());
        for (entry, end) in [(entry(b"p"), &b"\x01o\x00"[..]), (replayed(b"p"), b"\x01o\x01\xac\x02\x01\x01")] {
            bytes.clear();
            ErrorEntry { own_device: Some("o"), ..entry }.encode(&mut bytes);
            assert_eq!(bytes, [b"\x03", &expected[1..], end].concat());
        }
    }

    #[test]
    fn what_is_known_of_the_first_arrival() {
        let arrival_ms = entry(b"").arrival_ms;
        assert_eq!((entry(b"").first_arrival_ms(), replayed(b"").first_arrival_ms()), (arrival_ms, -1));
        assert!(!entry(b"").is_of_whole_message() && replayed(b"").is_of_whole_message());
        assert!(!entry(b"").is_unseen());
        assert!(ErrorEntry { device_id: None, ..entry(b"") }.is_unseen());
        assert!(ErrorEntry { reason: Reason::UnknownDevice, ..entry(b"") }.is_unseen());
    }

    #[test]
    fn stored_forms_read_back() {
        let mut bytes = Vec::new();
        window().encode(&mut bytes);
        let decoded = WindowResult::decode(&bytes).unwrap();
        assert_eq!(window_json(&decoded), window_json(&window()));
        assert_eq!(decoded.supersedes, Some(0));
        assert_eq!(decoded.stddev.to_bits(), f64::NAN.to_bits());
        for len in 0..bytes.len() {
            assert!(WindowResult::decode(&bytes[..len]).is_err(), "prefix of {len} bytes");
        }
        let own = |entry| ErrorEntry { own_device: Some("o"), ..entry };
        for entry in [entry(b"\xff"), replayed(b"\xff"), own(entry(b"")), own(replayed(b""))] {
            bytes.clear();
            entry.encode(&mut bytes);
            assert_eq!(ErrorEntry::decode(&bytes), Ok(entry));
            for len in 0..bytes.len() {
                assert!(ErrorEntry::decode(&bytes[..len]).is_err(), "prefix of {len} bytes");
            }
        }
    }

    #[test]
    fn payloads_are_cut_between_characters() {
        let check = |payload: &[u8], kept: usize| assert_eq!(kept_payload(payload).len(), kept);
        check(&[b'x'; 4096], 4096);
        check(&[b'x'; 5000], 4096);
        check("x".repeat(4095).as_bytes(), 4095);
        check(["x".repeat(4095), "éé".into()].concat().as_bytes(), 4095);
        check(["x".repeat(4093), "😀x".into()].concat().as_bytes(), 4093);
        check(&[0xff; 5000], 4096);
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes: Vec<u8>) {
            let _ = WindowResult::decode(&bytes);
            let _ = ErrorEntry::decode(&bytes);
        }

        #[test]
        fn floats_read_back(float in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
            let json = window_json(&WindowResult { sum: float, ..window() });
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["sum"].as_f64().unwrap().to_bits(), float.to_bits());
        }
    }
}
