//! Why a reading is rejected, and the sentence of the errors log that says so.
//!
//! The sentences are results: a replay of the journal compares them with those in the errors log. A version that changes
//! a sentence gives errors another stored format, since sentences of older formats are not compared.
//!
//! A sentence is short, about 200 bytes at most: that of a short message is cut where the errors log has no room for more (see
//! [`proportion`](crate::core::proportion)).

use std::borrow::Cow;
use std::fmt;

use crate::core::json::NOT_UTF8;
use crate::core::owners::DeviceLimit;
use crate::core::reason::Reason;
use crate::core::timestamp::{Rfc3339, Span};

/// The configured range of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ValueRange {
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl ValueRange {
    #[inline]
    pub fn admits(&self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }
}

/// Why a reading is rejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ReadingProblem<'m> {
    /// An element of the array is not an object but this.
    NotAnObject(&'static str),
    /// A replay concerns the reading with this index, which the message does not have.
    NoSuchReading(u32),
    /// `metrics` has no entries.
    EmptyMetrics,
    /// `metrics` stands beside `metric` or `value`.
    TwoForms,
    /// This field is missing.
    Missing(&'static str),
    /// A field has another type than it should.
    WrongType { field: &'static str, found: &'static str, wanted: &'static str },
    /// The value is a number that binary64 cannot hold.
    NotFinite(&'m str),
    /// The value is a string with this text, which is a number.
    NumericString(&'m str),
    /// The value is a string with this text, which is no number.
    TextValue(&'m str),
    /// The device id has a character that is not allowed, or the wrong length.
    InvalidDeviceId(&'m str),
    /// Topic and payload name different devices.
    DeviceMismatch { topic: &'m str, payload: &'m str },
    /// The client may speak for one device alone, and the payload names another.
    NotOwnDevice { own: &'m str, payload: &'m str },
    /// The metric name has a character that is not allowed, or the wrong length.
    InvalidMetric(&'m str),
    /// Two keys of the message become the same metric by its map. This is the second.
    NameTwice { first: &'m str, second: &'m str },
    /// No birth of its edge node defines the alias.
    UnknownAlias(u64),
    /// A part of a message that a map takes cannot be read; what is wrong and where.
    MalformedPart(&'m str),
    /// The value is outside the range of its metric.
    OutOfRange { value: f64, range: ValueRange },
    /// The timestamp is no time that weir can read.
    InvalidTimestamp(&'m str),
    /// The timestamp is outside the years -9999 to 9999.
    TimestampOutOfRange(&'m str),
    /// In the configured unit the timestamp is `time_ms`, which is rejected for `reason`; in the unit that its magnitude tells
    /// it is right.
    WrongUnit { text: &'m str, time_ms: i64, reason: Reason },
    /// The timestamp is a date or a time of day that does not exist.
    NoSuchTime(&'m str),
    /// The timestamp names no zone, and none is configured.
    NoZone(&'m str),
    /// The event time is too far ahead of the arrival.
    InFuture { time_ms: i64, arrival_ms: i64 },
    /// The event time is too far behind the arrival.
    TooOld { time_ms: i64, arrival_ms: i64 },
    /// The device is not in the allow-list.
    UnknownDevice(&'m str),
    /// The same reading came before under the sequence number.
    DuplicateSequence(u64),
    /// The sequence number came before, and what came with it is not remembered.
    SequenceRepeated(u64),
    /// The MQTT message with this packet id came before.
    DuplicateMessage(u16),
    /// There is no room for the device at this limit.
    TooManyDevices(DeviceLimit),
    /// There is no room for the metric; the limit.
    TooManyMetrics(usize),
    /// The window of the reading is closed for good. `backlog`: the setting `window.backlog`.
    Late { time_ms: i64, end_ms: i64, watermark_ms: i64, backlog: bool },
    /// The device reported a fault; `None` where its message has no `error` field.
    Fault(Option<&'m str>),
}

impl ReadingProblem<'_> {
    /// The event time of a reading that is too far from its arrival.
    pub fn stated_time_ms(&self) -> Option<i64> {
        match *self {
            Self::InFuture { time_ms, .. } | Self::TooOld { time_ms, .. } => Some(time_ms),
            _ => None,
        }
    }

    /// The reason under which the problem is counted.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NotAnObject(_)
            | Self::NoSuchReading(_)
            | Self::EmptyMetrics
            | Self::TwoForms
            | Self::MalformedPart(_) => Reason::Malformed,
            Self::Missing(_) => Reason::MissingField,
            Self::WrongType { .. } | Self::NotFinite(_) | Self::NumericString(_) | Self::TextValue(_) => {
                Reason::WrongType
            }
            Self::InvalidDeviceId(_) => Reason::InvalidDeviceId,
            Self::DeviceMismatch { .. } | Self::NotOwnDevice { .. } => Reason::DeviceMismatch,
            Self::InvalidMetric(_) | Self::NameTwice { .. } => Reason::InvalidMetric,
            Self::UnknownAlias(_) => Reason::UnknownAlias,
            Self::OutOfRange { .. } => Reason::ValueOutOfRange,
            Self::InvalidTimestamp(_) | Self::TimestampOutOfRange(_) | Self::NoSuchTime(_) | Self::NoZone(_) => {
                Reason::TimestampInvalid
            }
            Self::WrongUnit { reason, .. } => *reason,
            Self::InFuture { .. } => Reason::TimestampInFuture,
            Self::TooOld { .. } => Reason::TimestampTooOld,
            Self::UnknownDevice(_) => Reason::UnknownDevice,
            Self::DuplicateSequence(_) | Self::DuplicateMessage(_) => Reason::Duplicate,
            Self::SequenceRepeated(_) => Reason::SeqRepeated,
            Self::TooManyDevices(_) => Reason::TooManyDevices,
            Self::TooManyMetrics(_) => Reason::TooManyMetrics,
            Self::Late { .. } => Reason::Late,
            Self::Fault(_) => Reason::DeviceError,
        }
    }
}

impl fmt::Display for ReadingProblem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAnObject(found) => {
                write!(f, "an element of the array is {found}; send objects with readings")
            }
            Self::NoSuchReading(index) => {
                write!(f, "the replay is of reading {index}, which the message does not have")
            }
            Self::EmptyMetrics => f.write_str("`metrics` is empty; give it at least one metric with its value"),
            Self::TwoForms => {
                f.write_str("`metrics` stands beside `metric` or `value`; send one metric or several, not both")
            }
            Self::Missing("device_id") => f.write_str(
                "the field `device_id` is missing, and the topic names no device; send it, or have a + in the topic of \
                 ingest.telemetry_topics where the device stands",
            ),
            Self::Missing("metric") => f.write_str(
                r#"the field `metric` is missing; send {"metric":"temperature","value":21.5} or {"metrics":{"temperature":21.5}}, or this on flat/DEVICE for a map: [[ingest.map]] name="flat" topics=["flat/{device}"]"#,
            ),
            Self::Missing(field) => write!(f, "the field `{field}` is missing; send it"),
            // The value may stand in `metrics`, under the name of its metric.
            Self::WrongType { field: "value", found, .. } => {
                write!(f, "the value is {found}; send a number, or null where there is none")
            }
            Self::WrongType { field, found, wanted } => write!(f, "`{field}` is {found}; send {wanted}"),
            Self::NotFinite(text) => {
                write!(
                    f,
                    "the value {} is beyond what a 64-bit float can hold; send a smaller one, or null where there is none",
                    Excerpt(text)
                )
            }
            Self::NumericString(text) => write!(
                f,
                "the value is the string {:?}; send a number without quotes, or set ingest.numeric_strings to true",
                Excerpt(text)
            ),
            Self::TextValue(text) => write!(
                f,
                "the value is the string {:?}, which is no number; send a number, or null where there is none",
                Excerpt(text)
            ),
            Self::InvalidDeviceId("") => f.write_str(
                "the device has no id; send 1 to 128 bytes of UTF-8, or set device of the map to what its messages have",
            ),
            Self::InvalidDeviceId(id) => write!(
                f,
                "{:?} is no device id; send 1 to 128 bytes of UTF-8 without control characters, `/`, `+`, `#`, and without \
                 white space at either end",
                Excerpt(id)
            ),
            Self::DeviceMismatch { topic, payload } => write!(
                f,
                "the topic names device {:?}, the payload {:?}; leave `device_id` out or make them equal",
                Excerpt(topic),
                Excerpt(payload)
            ),
            Self::NotOwnDevice { own, payload } => write!(
                f,
                "the client may send for device {:?} only, and the payload names {:?}; if it is a gateway, give its user a \
                 role with any_device",
                Excerpt(own),
                Excerpt(payload)
            ),
            Self::InvalidMetric("") => f.write_str(
                "the metric has no name; send 1 to 64 characters, or for one value a topic set payload = \"scalar\" and \
                 metric of the map",
            ),
            Self::InvalidMetric(metric) => {
                write!(f, "{:?} is no metric name; send 1 to 64 characters of A-Z a-z 0-9 . _ : / -", Excerpt(metric))
            }
            Self::NameTwice { first, second } => write!(
                f,
                "{:?} and {:?} of the message become the same metric; rename or exclude one of them in the map",
                Excerpt(first),
                Excerpt(second)
            ),
            Self::UnknownAlias(alias) => write!(
                f,
                "no birth of the edge node defines alias {alias}; let the node send its births again (Node Control/Rebirth)"
            ),
            Self::MalformedPart(what) => write!(f, "a part of the message cannot be read: {what}"),
            Self::OutOfRange { value, range } => write_out_of_range(f, value, range),
            Self::InvalidTimestamp(text) => write!(
                f,
                "the timestamp {:?} is no time that weir can read; send Unix time, or RFC 3339 with a zone such as \
                 2026-11-30T07:00:00Z",
                Excerpt(text)
            ),
            Self::TimestampOutOfRange(text) => write!(
                f,
                "the timestamp {} is outside the years -9999 to 9999; send Unix time in s, ms, us or ns, and set \
                 ingest.timestamp_unit to its unit",
                Excerpt(text)
            ),
            Self::WrongUnit { text, time_ms, .. } => write!(
                f,
                "the timestamp {} is {} in the unit that ingest.timestamp_unit names; set it to auto, or to the unit that \
                 devices send",
                Excerpt(text),
                Rfc3339(time_ms)
            ),
            Self::NoSuchTime(text) => write!(
                f,
                "the timestamp {:?} names a day or a time of day that does not exist; set the device's clock, or set \
                 ingest.time to arrival for all devices",
                Excerpt(text)
            ),
            Self::NoZone(text) => write!(
                f,
                "the timestamp {:?} names no zone; set ingest.timezone to the zone of the devices' clocks, such as \
                 Europe/Berlin, or send UTC with a Z at the end",
                Excerpt(text)
            ),
            Self::InFuture { time_ms, arrival_ms } => write!(
                f,
                "event time {} is {} after the arrival, more than validate.max_future; set the device's clock, or set \
                 ingest.time to arrival for all devices",
                Rfc3339(time_ms),
                Span(time_ms.saturating_sub(arrival_ms))
            ),
            Self::TooOld { time_ms, arrival_ms } => write!(
                f,
                "event time {} is {} before the arrival, more than validate.max_age; raise validate.max_age for \
                 stored readings, else set the device's clock, or set ingest.time to arrival for all devices",
                Rfc3339(time_ms),
                Span(arrival_ms.saturating_sub(time_ms))
            ),
            Self::UnknownDevice(id) => {
                write!(f, "device {:?} is not in validate.allowed_devices; add it if it may send", Excerpt(id))
            }
            Self::DuplicateSequence(seq) => {
                write!(f, "the same reading with sequence number {seq} came before; nothing is to be done")
            }
            Self::SequenceRepeated(seq) => write!(
                f,
                "sequence number {seq} came before, and weir forgot with which reading; send a new `boot` when numbers begin \
                 anew, or set dedup.enabled = false; `weir errors replay` counts it if it is another one"
            ),
            Self::DuplicateMessage(packet_id) => {
                write!(f, "the client sent packet {packet_id} again (DUP), and it came before; nothing is to be done")
            }
            Self::TooManyDevices(limit) => limit.fmt(f),
            Self::TooManyMetrics(limit) => write!(
                f,
                "the device has {limit} metrics already (limits.metrics_per_device); raise the limit, or look for metric \
                 names made up by a defect"
            ),
            Self::Late { time_ms, end_ms, watermark_ms, backlog } => write!(
                f,
                "event time {} is late: its window is closed for good (watermark {}); \
                 window.allowed_lateness = \"{}s\" would have kept it open{}",
                Rfc3339(time_ms),
                Rfc3339(watermark_ms),
                watermark_ms.saturating_sub(end_ms.saturating_sub(1)).max(0) / 1_000 + 1,
                if backlog { "" } else { ", or window.backlog = \"on\" if it never fired" }
            ),
            Self::Fault(Some(text)) => write!(f, "the device reported: {}", Excerpt(text)),
            Self::Fault(None) => f.write_str("the device reported a fault"),
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

/// Prints the beginning of a text from outside. A sentence is stored with each error: what is printed is short even where
/// characters are printed as escapes.
struct Excerpt<'a>(&'a str);

impl Excerpt<'_> {
    /// Longest excerpt in bytes.
    const BYTES: usize = 80;

    /// The beginning of the text whose characters take at most [`Excerpt::BYTES`], `length` bytes each, and a sign that there
    /// is more. A byte that is no UTF-8 is shown as a replacement character.
    fn split(&self, length: impl Fn(char) -> usize) -> (Cow<'_, str>, &str) {
        let mut left = Self::BYTES;
        let fits = |&(_, character): &(usize, char)| {
            let length = length(character);
            let fits = length <= left;
            left = left.saturating_sub(length);
            !fits
        };
        let end = self.0.char_indices().find(fits).map_or(self.0.len(), |(at, _)| at);
        let text = self.0.get(..end).unwrap_or_default();
        let text = if text.contains(NOT_UTF8) { text.replace(NOT_UTF8, "\u{fffd}").into() } else { text.into() };
        (text, if end < self.0.len() { "…" } else { "" })
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, more) = self.split(char::len_utf8);
        write!(f, "{text}{more}")
    }
}

impl fmt::Debug for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, more) = self.split(|character| character.escape_debug().map(char::len_utf8).sum());
        write!(f, "{text:?}{more}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_to_do() {
        let check = |problem: ReadingProblem<'_>, expected: &str| assert_eq!(problem.to_string(), expected);
        check(
            ReadingProblem::InFuture { time_ms: 1_795_255_200_000, arrival_ms: 1_795_255_200_000 - 423_000 },
            "event time 2026-11-21T10:00:00.000Z is 7 min 3 s after the arrival, more than validate.max_future; \
             set the device's clock, or set ingest.time to arrival for all devices",
        );
        check(
            ReadingProblem::OutOfRange { value: 140.0, range: ValueRange { min: Some(-40.0), max: Some(125.0) } },
            "the value 140 is outside the configured range of the metric (-40 to 125); check the sensor, or \
             validate.metrics",
        );
        check(ReadingProblem::Missing("value"), "the field `value` is missing; send it");
        check(
            ReadingProblem::WrongType { field: "value", found: "an array", wanted: "a number" },
            "the value is an array; send a number, or null where there is none",
        );
        assert!(ReadingProblem::Fault(Some(&"x".repeat(10_000))).to_string().len() < 300);
    }
}
