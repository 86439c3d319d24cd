//! What makes a reading invalid, and the sentence that says so.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::core::json::{JsonNumber, JsonToken};
use crate::core::reason::Reason;
use crate::core::settings::Settings;
use crate::core::timestamp::{self, Rfc3339, Span};
use crate::core::topic::Topics;

/// Longest device id in bytes.
pub(super) const MAX_DEVICE_ID_BYTES: usize = 128;
/// Longest metric name.
pub(super) const MAX_METRIC_BYTES: usize = 64;

/// Settings in the form in which they are looked up.
#[derive(Debug, Default)]
pub(super) struct ValidationRules {
    /// Topic patterns.
    pub topics: Topics,
    allowed: HashSet<Box<str>>,
    ranges: Vec<ValueRange>,
    range_of: BTreeMap<Box<str>, u32>,
}

/// The values that a metric may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ValueRange {
    min: Option<f64>,
    max: Option<f64>,
}

impl ValueRange {
    #[inline]
    fn admits(&self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

impl ValidationRules {
    /// The rules of `settings`.
    pub fn new(settings: &Settings) -> Self {
        let ranges = settings.metrics.values().map(|range| ValueRange { min: range.min, max: range.max }).collect();
        Self {
            topics: Topics::new(&settings.telemetry_topics, &settings.error_topics),
            allowed: settings.allowed_devices.iter().map(|id| id.as_str().into()).collect(),
            ranges,
            range_of: settings.metrics.keys().map(|metric| metric.as_str().into()).zip(0..).collect(),
        }
    }

    /// Whether the device may send.
    pub fn allows(&self, device_id: &str) -> bool {
        self.allowed.is_empty() || self.allowed.contains(device_id)
    }

    /// Index of the range of `metric`, if one is configured.
    pub fn range_of(&self, metric: &str) -> Option<u32> {
        self.range_of.get(metric).copied()
    }

    /// Whether the value is outside the range with this index.
    #[inline]
    pub fn check_range<'m>(&self, range: Option<u32>, value: f64) -> Result<(), ReadingProblem<'m>> {
        let Some(range) = range.and_then(|index| self.ranges.get(index as usize)) else { return Ok(()) };
        if range.admits(value) { Ok(()) } else { Err(ReadingProblem::OutOfRange { value, range: *range }) }
    }
}

/// Why a reading is rejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ReadingProblem<'m> {
    /// An element of an array that is not an object.
    NotAnObject(&'static str),
    /// A replay of a reading that its message does not have.
    NoSuchReading(u32),
    /// `metrics` without entries.
    EmptyMetrics,
    /// `metrics` beside `metric` or `value`.
    TwoForms,
    /// A field that is not there.
    Missing(&'static str),
    /// A field of another type.
    WrongType { field: &'static str, found: &'static str, wanted: &'static str },
    /// A number that binary64 cannot hold.
    NotFinite(&'m str),
    /// A value as string.
    NumericString(&'m str),
    /// A device id that is not allowed to be one.
    InvalidDeviceId(&'m str),
    /// Topic and payload name different devices.
    DeviceMismatch { topic: &'m str, payload: &'m str },
    /// The client may speak for one device alone, and the payload names another.
    NotOwnDevice { own: &'m str, payload: &'m str },
    /// A metric name that is not allowed to be one.
    InvalidMetric(&'m str),
    /// A value outside the metric's range.
    OutOfRange { value: f64, range: ValueRange },
    /// A number that is no time.
    InvalidTimestamp(&'m str),
    /// An event time too far ahead.
    InFuture { time_ms: i64, arrival_ms: i64 },
    /// An event time too far behind.
    TooOld { time_ms: i64, arrival_ms: i64 },
    /// Not in the allow-list.
    UnknownDevice(&'m str),
    /// Its sequence number was counted.
    DuplicateSequence(u64),
    /// Its MQTT message was counted.
    DuplicateMessage(u16),
    /// No room for the device.
    TooManyDevices(usize),
    /// No room for the metric.
    TooManyMetrics(usize),
    /// Its window is closed.
    Late { time_ms: i64, end_ms: i64, watermark_ms: i64 },
    /// The device reported a fault; `None`: without an `error` field.
    Fault(Option<&'m str>),
}

impl ReadingProblem<'_> {
    /// The reason under which it is counted.
    pub fn reason(&self) -> Reason {
        match self {
            ReadingProblem::NotAnObject(_)
            | ReadingProblem::NoSuchReading(_)
            | ReadingProblem::EmptyMetrics
            | ReadingProblem::TwoForms => Reason::Malformed,
            ReadingProblem::Missing(_) => Reason::MissingField,
            ReadingProblem::WrongType { .. } | ReadingProblem::NotFinite(_) | ReadingProblem::NumericString(_) => {
                Reason::WrongType
            }
            ReadingProblem::InvalidDeviceId(_) => Reason::InvalidDeviceId,
            ReadingProblem::DeviceMismatch { .. } | ReadingProblem::NotOwnDevice { .. } => Reason::DeviceMismatch,
            ReadingProblem::InvalidMetric(_) => Reason::InvalidMetric,
            ReadingProblem::OutOfRange { .. } => Reason::ValueOutOfRange,
            ReadingProblem::InvalidTimestamp(_) => Reason::TimestampInvalid,
            ReadingProblem::InFuture { .. } => Reason::TimestampInFuture,
            ReadingProblem::TooOld { .. } => Reason::TimestampTooOld,
            ReadingProblem::UnknownDevice(_) => Reason::UnknownDevice,
            ReadingProblem::DuplicateSequence(_) | ReadingProblem::DuplicateMessage(_) => Reason::Duplicate,
            ReadingProblem::TooManyDevices(_) => Reason::TooManyDevices,
            ReadingProblem::TooManyMetrics(_) => Reason::TooManyMetrics,
            ReadingProblem::Late { .. } => Reason::Late,
            ReadingProblem::Fault(_) => Reason::DeviceError,
        }
    }
}

impl fmt::Display for ReadingProblem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ReadingProblem::NotAnObject(found) => {
                write!(f, "an element of the array is {found}; send objects with readings")
            }
            ReadingProblem::NoSuchReading(index) => {
                write!(f, "the replay is of reading {index}, which the message does not have")
            }
            ReadingProblem::EmptyMetrics => {
                f.write_str("`metrics` is empty; give it at least one metric with its value")
            }
            ReadingProblem::TwoForms => {
                f.write_str("`metrics` stands beside `metric` or `value`; send one metric or several, not both")
            }
            ReadingProblem::Missing(field) => write!(f, "the field `{field}` is missing"),
            ReadingProblem::WrongType { field, found, wanted } => write!(f, "`{field}` is {found}; send {wanted}"),
            ReadingProblem::NotFinite(text) => {
                write!(f, "the value {} is beyond what a 64-bit float can hold", Excerpt(text))
            }
            ReadingProblem::NumericString(text) => write!(
                f,
                "the value is the string {:?}; send a number, or set ingest.numeric_strings if it is one",
                Excerpt(text)
            ),
            ReadingProblem::InvalidDeviceId(id) => write!(
                f,
                "{:?} is no device id: 1 to 128 bytes without control characters, `/`, `+`, `#`, and without white \
                 space at either end",
                Excerpt(id)
            ),
            ReadingProblem::DeviceMismatch { topic, payload } => write!(
                f,
                "the topic names device {:?}, the payload {:?}; leave `device_id` out or make them equal",
                Excerpt(topic),
                Excerpt(payload)
            ),
            ReadingProblem::NotOwnDevice { own, payload } => write!(
                f,
                "the client may speak for device {:?} alone, the payload names {:?}; if it is a gateway, give its user a \
                 role with any_device",
                Excerpt(own),
                Excerpt(payload)
            ),
            ReadingProblem::InvalidMetric(metric) => {
                write!(f, "{:?} is no metric name: 1 to 64 characters of A-Z a-z 0-9 . _ : / -", Excerpt(metric))
            }
            ReadingProblem::OutOfRange { value, range } => write_out_of_range(f, value, range),
            ReadingProblem::InvalidTimestamp(text) => write!(
                f,
                "the timestamp {} is no time in the years -9999 to 9999: send Unix time or RFC 3339 with a zone",
                Excerpt(text)
            ),
            ReadingProblem::InFuture { time_ms, arrival_ms } => write!(
                f,
                "event time {} is {} after arrival, more than validate.max_future allows; check the device's clock",
                Rfc3339(time_ms),
                Span(time_ms.saturating_sub(arrival_ms))
            ),
            ReadingProblem::TooOld { time_ms, arrival_ms } => write!(
                f,
                "event time {} is {} before arrival, more than validate.max_age allows; check the device's clock",
                Rfc3339(time_ms),
                Span(arrival_ms.saturating_sub(time_ms))
            ),
            ReadingProblem::UnknownDevice(id) => {
                write!(f, "device {:?} is not in validate.allowed_devices; add it if it may send", Excerpt(id))
            }
            ReadingProblem::DuplicateSequence(seq) => {
                write!(f, "sequence number {seq} was counted before; if the device restarted, let it send a new `boot`")
            }
            ReadingProblem::DuplicateMessage(packet_id) => {
                write!(f, "the client sent packet {packet_id} again (DUP), and it was counted before")
            }
            ReadingProblem::TooManyDevices(limit) => write!(
                f,
                "this would be a device beyond limits.devices = {limit}; raise it, or look for ids made up by a defect"
            ),
            ReadingProblem::TooManyMetrics(limit) => {
                write!(f, "this would be a metric beyond limits.metrics_per_device = {limit} of its device; raise it")
            }
            ReadingProblem::Late { time_ms, end_ms, watermark_ms } => write!(
                f,
                "event time {} came after its window, which ended at {}, was closed for good: the watermark is at {}; \
                 raise window.allowed_lateness if such readings must count",
                Rfc3339(time_ms),
                Rfc3339(end_ms),
                Rfc3339(watermark_ms)
            ),
            ReadingProblem::Fault(Some(text)) => write!(f, "the device reported: {}", Excerpt(text)),
            ReadingProblem::Fault(None) => f.write_str("the device reported a fault"),
        }
    }
}

fn write_out_of_range(f: &mut fmt::Formatter<'_>, value: f64, range: ValueRange) -> fmt::Result {
    write!(f, "the value {value} is outside the configured range of the metric (")?;
    match range {
        ValueRange { min: Some(min), max: Some(max) } => write!(f, "{min} to {max}")?,
        ValueRange { min: Some(min), max: None } => write!(f, "at least {min}")?,
        ValueRange { min: None, max: Some(max) } => write!(f, "at most {max}")?,
        ValueRange { min: None, max: None } => f.write_str("any")?,
    }
    f.write_str("); check the sensor, or validate.metrics")
}

/// Prints the first part of a text that came from outside.
struct Excerpt<'a>(&'a str);

impl Excerpt<'_> {
    const CHARS: usize = 200;

    fn split(&self) -> (&str, &str) {
        let end = self.0.char_indices().nth(Self::CHARS).map_or(self.0.len(), |(at, _)| at);
        (self.0.get(..end).unwrap_or_default(), if end < self.0.len() { "…" } else { "" })
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, more) = self.split();
        write!(f, "{text}{more}")
    }
}

impl fmt::Debug for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, more) = self.split();
        write!(f, "{text:?}{more}")
    }
}

/// Whether a device may have this id.
pub(super) fn is_device_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_DEVICE_ID_BYTES
        && id.trim().len() == id.len()
        && !id.chars().any(|c| c.is_control() || matches!(c, '/' | '+' | '#'))
}

/// Whether a metric may have this name.
pub(super) fn is_metric(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'/' | b'-');
    (1..=MAX_METRIC_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

/// The device that topic and payload name together.
pub(super) fn device_id<'m>(topic: Option<&'m str>, payload: Option<&'m str>) -> Result<&'m str, ReadingProblem<'m>> {
    let id = payload.or(topic).ok_or(ReadingProblem::Missing("device_id"))?;
    if let Some(invalid) = [Some(id), topic].into_iter().flatten().find(|id| !is_device_id(id)) {
        return Err(ReadingProblem::InvalidDeviceId(invalid));
    }
    match topic {
        Some(topic) if topic != id => Err(ReadingProblem::DeviceMismatch { topic, payload: id }),
        _ => Ok(id),
    }
}

/// The `device_id` field.
pub(super) fn device_id_field<'m>(token: &'m JsonToken<'_>) -> Result<Option<&'m str>, ReadingProblem<'m>> {
    match token {
        JsonToken::Text(text) => Ok(Some(text)),
        JsonToken::Absent | JsonToken::Null => Ok(None),
        other => Err(ReadingProblem::WrongType { field: "device_id", found: other.kind(), wanted: "a string" }),
    }
}

/// The `metric` field.
pub(super) fn metric_field<'m>(token: &'m JsonToken<'_>) -> Result<&'m str, ReadingProblem<'m>> {
    match token {
        JsonToken::Text(text) => Ok(text),
        JsonToken::Absent => Err(ReadingProblem::Missing("metric")),
        other => Err(ReadingProblem::WrongType { field: "metric", found: other.kind(), wanted: "a string" }),
    }
}

/// The `value` field, or a value in `metrics`.
#[inline]
pub(super) fn value<'m>(token: &'m JsonToken<'_>, numeric_strings: bool) -> Result<f64, ReadingProblem<'m>> {
    match token {
        JsonToken::Number(number) => finite(number.to_f64(), number.text()),
        JsonToken::Bool(value) => Ok(f64::from(u8::from(*value))),
        JsonToken::Text(text) if numeric_strings => match text.parse() {
            Ok(value) if !text.contains(['n', 'N']) => finite(value, text),
            _ => Err(ReadingProblem::WrongType {
                field: "value",
                found: "a string that is no number",
                wanted: "a number",
            }),
        },
        JsonToken::Text(text) => Err(ReadingProblem::NumericString(text)),
        JsonToken::Absent => Err(ReadingProblem::Missing("value")),
        other => Err(ReadingProblem::WrongType { field: "value", found: other.kind(), wanted: "a number" }),
    }
}

#[inline]
fn finite<'m>(value: f64, text: &'m str) -> Result<f64, ReadingProblem<'m>> {
    if value.is_finite() { Ok(value) } else { Err(ReadingProblem::NotFinite(text)) }
}

/// The `seq` field.
#[inline]
pub(super) fn sequence<'m>(token: &JsonToken<'_>) -> Result<Option<u64>, ReadingProblem<'m>> {
    let wanted = "an integer from 0 to 18446744073709551615";
    match token {
        JsonToken::Number(number) => match number.as_integer() {
            Some((false, seq)) | Some((true, seq @ 0)) => Ok(Some(seq)),
            _ => Err(ReadingProblem::WrongType { field: "seq", found: "another number", wanted }),
        },
        JsonToken::Absent | JsonToken::Null => Ok(None),
        other => Err(ReadingProblem::WrongType { field: "seq", found: other.kind(), wanted }),
    }
}

/// A hash of the `boot` field.
pub(super) fn boot<'m>(token: &JsonToken<'_>) -> Result<Option<u64>, ReadingProblem<'m>> {
    use crate::core::hash::xxh64;
    let wanted = "a string or an integer";
    match token {
        JsonToken::Text(text) => Ok(Some(xxh64(text.as_bytes(), 0))),
        JsonToken::Number(number) if is_integer_text(number) => Ok(Some(xxh64(number.text().as_bytes(), 1))),
        JsonToken::Number(_) => Err(ReadingProblem::WrongType { field: "boot", found: "a fractional number", wanted }),
        JsonToken::Absent | JsonToken::Null => Ok(None),
        other => Err(ReadingProblem::WrongType { field: "boot", found: other.kind(), wanted }),
    }
}

fn is_integer_text(number: &JsonNumber<'_>) -> bool {
    number.text().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

/// What a timestamp may be, at all.
pub(super) fn timestamp_type<'m>(token: &JsonToken<'_>) -> Result<(), ReadingProblem<'m>> {
    match token {
        JsonToken::Bool(_) | JsonToken::Array | JsonToken::Object => Err(ReadingProblem::WrongType {
            field: "timestamp",
            found: token.kind(),
            wanted: "Unix time or an RFC 3339 string",
        }),
        _ => Ok(()),
    }
}

/// The event time that the `timestamp` field states; `None` where it states none. A replay arrives again, but was sent
/// before its first arrival: the one bounds the future, the other the age.
#[inline]
pub(super) fn event_time<'m>(
    token: &'m JsonToken<'_>,
    settings: &Settings,
    arrival_ms: i64,
    first_arrival_ms: i64,
) -> Result<Option<i64>, ReadingProblem<'m>> {
    let unit = settings.timestamp_unit;
    let (time_ms, text) = match token {
        JsonToken::Number(number) => (timestamp::from_number(number, unit), number.text()),
        JsonToken::Text(text) => (timestamp::from_text(text, unit), text.as_ref()),
        _ => return Ok(None),
    };
    let time_ms = time_ms.ok_or(ReadingProblem::InvalidTimestamp(text))?;
    if settings.max_future_ms.is_some_and(|max| time_ms > arrival_ms.saturating_add(max)) {
        return Err(ReadingProblem::InFuture { time_ms, arrival_ms });
    }
    if settings.max_age_ms.is_some_and(|max| time_ms < first_arrival_ms.saturating_sub(max)) {
        return Err(ReadingProblem::TooOld { time_ms, arrival_ms: first_arrival_ms });
    }
    Ok(Some(time_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::json::JsonScanner;
    use crate::core::settings::MetricRange;

    fn token(text: &str) -> JsonToken<'_> {
        if text.is_empty() { JsonToken::Absent } else { JsonScanner::new(text).value(0).unwrap() }
    }

    #[test]
    fn device_ids() {
        for id in ["a", "gärät-温度-\"3\"\\x", "a b", &"x".repeat(128), "..", "$sys"] {
            assert!(is_device_id(id), "{id:?}");
        }
        for id in ["", " a", "a ", "\u{a0}a", "a/b", "a+b", "#", "a\0", "a\u{85}b", &"x".repeat(129)] {
            assert!(!is_device_id(id), "{id:?}");
        }
    }

    #[test]
    fn topic_and_payload_name_one_device() {
        assert_eq!(device_id(Some("a"), None), Ok("a"));
        assert_eq!(device_id(None, Some("a")), Ok("a"));
        assert_eq!(device_id(Some("a"), Some("a")), Ok("a"));
        assert_eq!(device_id(None, None), Err(ReadingProblem::Missing("device_id")));
        assert_eq!(device_id(Some("a"), Some("b")), Err(ReadingProblem::DeviceMismatch { topic: "a", payload: "b" }));
        assert_eq!(device_id(Some("a"), Some(" ")), Err(ReadingProblem::InvalidDeviceId(" ")));
        assert_eq!(device_id(Some(""), Some("a")), Err(ReadingProblem::InvalidDeviceId("")));
    }

    #[test]
    fn metrics() {
        for name in ["a", "A.z_0:/-", &"x".repeat(64)] {
            assert!(is_metric(name), "{name:?}");
        }
        for name in ["", " a", "ä", "a b", "a+", &"x".repeat(65)] {
            assert!(!is_metric(name), "{name:?}");
        }
        assert_eq!(metric_field(&token("")), Err(ReadingProblem::Missing("metric")));
        assert_eq!(metric_field(&token("7")).unwrap_err().reason(), Reason::WrongType);
    }

    fn check_value(text: &str, numeric_strings: bool, expected: Result<f64, Reason>) {
        assert_eq!(value(&token(text), numeric_strings).map_err(|problem| problem.reason()), expected, "{text}");
    }

    #[test]
    fn values() {
        check_value("-1.5", false, Ok(-1.5));
        check_value("true", false, Ok(1.0));
        check_value("false", false, Ok(0.0));
        check_value("123456789012345678901234567890", false, Ok(1.234_567_890_123_456_8e29));
        check_value("1e400", false, Err(Reason::WrongType));
        check_value("\"1.5\"", false, Err(Reason::WrongType));
        check_value("\"1.5\"", true, Ok(1.5));
        check_value("\"1e400\"", true, Err(Reason::WrongType));
        check_value("\"nan\"", true, Err(Reason::WrongType));
        check_value("\"inf\"", true, Err(Reason::WrongType));
        check_value("\"\"", true, Err(Reason::WrongType));
        check_value("\"x\"", true, Err(Reason::WrongType));
        check_value("null", false, Err(Reason::WrongType));
        check_value("[1]", false, Err(Reason::WrongType));
        check_value("{}", false, Err(Reason::WrongType));
        check_value("", false, Err(Reason::MissingField));
    }

    #[test]
    fn sequence_numbers() {
        let check = |text: &str, expected: Result<Option<u64>, ()>| {
            assert_eq!(sequence(&token(text)).map_err(drop), expected, "{text}");
        };
        check("0", Ok(Some(0)));
        check("-0", Ok(Some(0)));
        check("18446744073709551615", Ok(Some(u64::MAX)));
        check("18446744073709551616", Err(()));
        check("-1", Err(()));
        check("1.0", Err(()));
        check("\"1\"", Err(()));
        check("true", Err(()));
        check("null", Ok(None));
        check("", Ok(None));
    }

    #[test]
    fn boots() {
        assert_eq!(boot(&token("\"7\"")), boot(&token("\"7\"")));
        assert_ne!(boot(&token("\"7\"")), boot(&token("7")));
        assert_ne!(boot(&token("7")), boot(&token("-7")));
        assert!(boot(&token("123456789012345678901234567890")).is_ok());
        assert_eq!(boot(&token("null")), Ok(None));
        assert!(boot(&token("7.5")).is_err());
        assert!(boot(&token("[]")).is_err());
    }

    #[test]
    fn event_times_are_bounded_by_the_arrival() {
        let settings = Settings { max_future_ms: Some(1000), max_age_ms: Some(5000), ..Settings::default() };
        let arrival = 1_732_098_765_123;
        let check = |time: i64, expected: Result<(), Reason>| {
            let text = time.to_string();
            let token = token(&text);
            let result = event_time(&token, &settings, arrival, arrival).map_err(|problem| problem.reason());
            assert_eq!(result, expected.map(|()| Some(time)), "{time}");
        };
        check(arrival + 1000, Ok(()));
        check(arrival + 1001, Err(Reason::TimestampInFuture));
        check(arrival - 5000, Ok(()));
        check(arrival - 5001, Err(Reason::TimestampTooOld));
        assert_eq!(event_time(&JsonToken::Absent, &settings, arrival, arrival), Ok(None));
        assert_eq!(event_time(&JsonToken::Null, &settings, arrival, arrival), Ok(None));
        assert!(timestamp_type(&token("true")).is_err());
        assert!(timestamp_type(&token("\"x\"")).is_ok());
        let off = Settings { max_future_ms: None, max_age_ms: None, ..settings.clone() };
        assert_eq!(event_time(&token("99999999999"), &off, arrival, arrival), Ok(Some(99_999_999_999_000)));
    }

    #[test]
    fn ranges_are_inclusive() {
        let range = |min, max| MetricRange { min, max, unit: None };
        let metrics = [("a", range(Some(-1.0), Some(1.0))), ("b", range(None, Some(0.0)))];
        let metrics = metrics.into_iter().map(|(name, range)| (name.to_owned(), range)).collect();
        let rules = ValidationRules::new(&Settings { metrics, ..Settings::default() });
        let check = |metric: &str, value, ok| {
            assert_eq!(rules.check_range(rules.range_of(metric), value).is_ok(), ok, "{metric} {value}");
        };
        check("a", 1.0, true);
        check("a", -1.0, true);
        check("a", 1.5, false);
        check("a", -1.5, false);
        check("b", -1e300, true);
        check("b", 0.1, false);
        check("c", 1e300, true);
    }

    #[test]
    fn messages_say_what_to_do() {
        let check = |problem: ReadingProblem<'_>, expected: &str| assert_eq!(problem.to_string(), expected);
        check(
            ReadingProblem::InFuture { time_ms: 1_795_255_200_000, arrival_ms: 1_795_255_200_000 - 423_000 },
            "event time 2026-11-21T10:00:00.000Z is 7 min 3 s after arrival, more than validate.max_future allows; \
             check the device's clock",
        );
        check(
            ReadingProblem::OutOfRange { value: 140.0, range: ValueRange { min: Some(-40.0), max: Some(125.0) } },
            "the value 140 is outside the configured range of the metric (-40 to 125); check the sensor, or \
             validate.metrics",
        );
        check(ReadingProblem::Missing("metric"), "the field `metric` is missing");
        check(
            ReadingProblem::WrongType { field: "value", found: "null", wanted: "a number" },
            "`value` is null; send a number",
        );
        assert!(ReadingProblem::Fault(Some(&"x".repeat(10_000))).to_string().len() < 300);
    }
}
