//! The checks that the fields of a reading must pass, and the settings in the form that the checks use.
//!
//! What a failed check is called is in `problem`; the order of checks is that of `Reason`.

use std::collections::{BTreeMap, HashSet};
use std::num::IntErrorKind;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::core::formats::Maps;
use crate::core::json::{JsonNumber, JsonToken, RefusedValue};
use crate::core::known_topics::KnownTopics;
use crate::core::problem::{ReadingProblem, ValueRange};
use crate::core::settings::Settings;
use crate::core::timezone;
use crate::core::topic::Topics;
use crate::defects::{self, Defect};

/// Longest device id in bytes.
pub(super) const MAX_DEVICE_ID_BYTES: usize = 128;
/// Longest metric name in bytes.
pub(super) const MAX_METRIC_BYTES: usize = 64;

/// Settings in a form for fast look-ups.
#[derive(Debug, Default)]
pub(super) struct ValidationRules {
    /// Topic patterns, compiled.
    pub topics: Topics,
    /// Maps, compiled; `None` where there are none.
    pub maps: Option<Arc<Maps>>,
    /// Topics and the maps that take them.
    pub known_topics: KnownTopics,
    /// Zone of times that name none.
    pub timezone: Option<TimeZone>,
    allowed: HashSet<Box<str>>,
    ranges: Vec<ValueRange>,
    range_of: BTreeMap<Box<str>, u32>,
}

impl ValidationRules {
    /// The rules of `settings`.
    pub fn new(settings: &Settings) -> Self {
        let ranges = settings.metrics.values().map(|range| ValueRange { min: range.min, max: range.max }).collect();
        Self {
            topics: Topics::new(&settings.telemetry_topics, &settings.error_topics, &settings.tenants),
            // The configuration refuses maps with faults; those of another version may not be understood any more.
            maps: Maps::new(&settings.maps).ok().filter(|maps| !maps.is_empty()).map(Arc::new),
            known_topics: KnownTopics::default(),
            timezone: timezone::find(&settings.timezone),
            allowed: settings.allowed_devices.iter().map(|id| id.as_str().into()).collect(),
            ranges,
            range_of: settings.metrics.keys().map(|metric| metric.as_str().into()).zip(0..).collect(),
        }
    }

    /// Whether the device may send: it is in the allow-list, or there is none.
    pub fn allows(&self, device_id: &str) -> bool {
        self.allowed.is_empty() || self.allowed.contains(device_id)
    }

    /// Index of the range of `metric`, if one is configured.
    pub fn range_of(&self, metric: &str) -> Option<u32> {
        self.range_of.get(metric).copied()
    }

    /// Checks a value against the range with this index.
    #[inline]
    pub fn check_range<'m>(&self, range: Option<u32>, value: f64) -> Result<(), ReadingProblem<'m>> {
        let Some(range) = range.and_then(|index| self.ranges.get(index as usize)) else { return Ok(()) };
        if range.admits(value) { Ok(()) } else { Err(ReadingProblem::OutOfRange { value, range: *range }) }
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

/// The device that topic and payload name. Both may name it, but not differently.
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

/// Reads the `device_id` field.
pub(super) fn device_id_field<'m>(token: &'m JsonToken<'_>) -> Result<Option<&'m str>, ReadingProblem<'m>> {
    match token {
        JsonToken::Text(text) => Ok(Some(text)),
        none if none.is_none() => Ok(None),
        other => Err(ReadingProblem::WrongType { field: "device_id", found: other.kind(), wanted: "a string" }),
    }
}

/// Reads the `metric` field.
pub(super) fn metric_field<'m>(token: &'m JsonToken<'_>) -> Result<&'m str, ReadingProblem<'m>> {
    match token {
        JsonToken::Text(text) => Ok(text),
        JsonToken::Absent => Err(ReadingProblem::Missing("metric")),
        other => Err(ReadingProblem::WrongType { field: "metric", found: other.kind(), wanted: "a string" }),
    }
}

/// Reads the `value` field, or a value in `metrics`.
#[inline]
pub(super) fn value<'m>(token: &'m JsonToken<'_>, settings: &Settings) -> Result<f64, ReadingProblem<'m>> {
    match token {
        JsonToken::Number(number) => finite(number.to_f64(), number.text()),
        JsonToken::Bool(value) => Ok(f64::from(u8::from(*value))),
        JsonToken::Text(text) => text_value(text, settings),
        JsonToken::Computed(value) | JsonToken::Measured(value, _) => finite(*value, "inf"),
        JsonToken::Refused(refused) => Err(refused_value(refused)),
        JsonToken::Absent => Err(ReadingProblem::Missing("value")),
        JsonToken::Null if defects::is(Defect::CountAbsentValues) => Ok(0.0),
        other => Err(ReadingProblem::WrongType { field: "value", found: other.kind(), wanted: "a number" }),
    }
}

/// The problem of a value that a map cannot take.
#[cold]
fn refused_value<'m>(refused: &'m RefusedValue<'_>) -> ReadingProblem<'m> {
    match refused {
        RefusedValue::NameTwice(first, second) => ReadingProblem::NameTwice { first, second },
        RefusedValue::UnknownAlias(alias) => ReadingProblem::UnknownAlias(*alias),
        RefusedValue::Time(text) => ReadingProblem::InvalidTimestamp(text),
        RefusedValue::Malformed(what) => ReadingProblem::MalformedPart(what),
    }
}

/// Reads a value that is a string. Printers with a fixed width put blanks around numbers.
fn text_value<'m>(text: &'m str, settings: &Settings) -> Result<f64, ReadingProblem<'m>> {
    let number = if settings.has_field_rules() { text.trim() } else { text };
    match number.parse() {
        Ok(value) if settings.numeric_strings && !number.contains(['n', 'N']) => finite(value, number),
        Ok(_) if !number.contains(['n', 'N']) => Err(ReadingProblem::NumericString(text)),
        _ => Err(ReadingProblem::TextValue(text)),
    }
}

/// Texts of an `error` field that say that there is no error, in lower case.
const NO_FAULTS: [&str; 14] = [
    "",
    "-",
    "false",
    "no",
    "none",
    "null",
    "nil",
    "n/a",
    "ok",
    "no error",
    "no errors",
    "no_error",
    "noerror",
    "no fault",
];

/// Whether the text of an `error` field, which stands beside a reading, says that there is an error. Zero in whatever form,
/// an empty array and an empty object say none.
pub(super) fn tells_fault(error: &str) -> bool {
    let text = error.trim();
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let is_zero = text.parse::<f64>().is_ok_and(|code| code == 0.0)
        || hex.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit == b'0'));
    let is_empty = text.strip_prefix(['[', '{']).is_some_and(|rest| matches!(rest.trim(), "]" | "}"));
    !is_zero && !is_empty && !NO_FAULTS.iter().any(|none| none.eq_ignore_ascii_case(text))
}

#[inline]
fn finite<'m>(value: f64, text: &'m str) -> Result<f64, ReadingProblem<'m>> {
    if value.is_finite() { Ok(value) } else { Err(ReadingProblem::NotFinite(text)) }
}

/// Reads the `seq` field.
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

/// Reads the `seq` field under field rules: a number may also be written as `42.0`, `4.2e1` or `"42"`.
#[inline]
pub(super) fn sequence_number<'m>(token: &JsonToken<'_>, largest: u64) -> Result<Option<u64>, ReadingProblem<'m>> {
    match token {
        JsonToken::Number(number)
            if let Some((false, seq)) = number.as_integer()
                && seq <= largest =>
        {
            Ok(Some(seq))
        }
        _ => unusual_sequence_number(token, largest),
    }
}

/// Reads a `seq` field that is no plain integer.
fn unusual_sequence_number<'m>(token: &JsonToken<'_>, largest: u64) -> Result<Option<u64>, ReadingProblem<'m>> {
    let seq = match token {
        JsonToken::Counted(seq, _) => return Ok(Some(*seq)),
        JsonToken::Number(number) => whole_number(number.text()),
        none if none.is_none() => return Ok(None),
        JsonToken::Text(text) => whole_number(text.trim()),
        _ => None,
    };
    let no_number = ReadingProblem::WrongType {
        field: "seq",
        found: token.kind(),
        wanted: "an integer from 0 to 18446744073709551615",
    };
    seq.filter(|&seq| seq <= largest).map(Some).ok_or(no_number)
}

/// The number that a text is, if it is a whole number that fits in 64 bits: digits, perhaps with a fraction and an exponent.
#[cold]
fn whole_number(text: &str) -> Option<u64> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = saturated(exponent)?;
    let (is_negative, whole) = whole.strip_prefix('-').map_or((false, whole), |whole| (true, whole));
    let mut digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut power = exponent.saturating_sub(i64::try_from(fraction.len()).ok()?);
    while digits.ends_with('0') {
        digits.pop();
        power = power.saturating_add(1);
    }
    if digits.is_empty() {
        return Some(0);
    }
    let power = u32::try_from(power).ok()?;
    digits.parse::<u64>().ok()?.checked_mul(10_u64.checked_pow(power)?).filter(|_| !is_negative)
}

/// An exponent, or the nearest one that fits in 64 bits.
fn saturated(exponent: &str) -> Option<i64> {
    match exponent.parse::<i64>().map_err(|error| *error.kind()) {
        Ok(exponent) => Some(exponent),
        Err(IntErrorKind::PosOverflow) => Some(i64::MAX),
        Err(IntErrorKind::NegOverflow) => Some(i64::MIN),
        Err(_) => None,
    }
}

/// Reads the `boot` field; returns a hash of it.
pub(super) fn boot<'m>(token: &JsonToken<'_>) -> Result<Option<u64>, ReadingProblem<'m>> {
    use crate::core::hash::xxh64;
    let wanted = "a string or an integer";
    match token {
        JsonToken::Text(text) => Ok(Some(xxh64(text.as_bytes(), 0))),
        JsonToken::Number(number) if is_integer_text(number) => Ok(Some(xxh64(number.text().as_bytes(), 1))),
        JsonToken::Number(_) => Err(ReadingProblem::WrongType { field: "boot", found: "a fractional number", wanted }),
        none if none.is_none() => Ok(None),
        other => Err(ReadingProblem::WrongType { field: "boot", found: other.kind(), wanted }),
    }
}

fn is_integer_text(number: &JsonNumber<'_>) -> bool {
    number.text().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::json::JsonScanner;
    use crate::core::reason::Reason;
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
        let settings = Settings { numeric_strings, ..Settings::default() };
        assert_eq!(value(&token(text), &settings).map_err(|problem| problem.reason()), expected, "{text}");
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
        check_value("\"  21.50 \"", true, Ok(21.5));
        check_value("\"+1.5\"", true, Ok(1.5));
        let strict = Settings { numeric_strings: true, rules: 0, ..Settings::default() };
        assert!(value(&token("\" 1.5\""), &strict).is_err());
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
    fn sequence_numbers_in_other_forms() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(sequence_number(&token(text), u64::MAX).ok().flatten(), expected, "{text}");
        };
        for text in
            ["42", "42.0", "42.000", "4.2e1", "0.42E+2", "4200e-2", "\"42\"", "\" 42\"", "\"42.0\"", "\"4.2e1\""]
        {
            check(text, Some(42));
        }
        check("18446744073709551615.0", Some(u64::MAX));
        check("1.8446744073709551615e19", Some(u64::MAX));
        check("0.000e999999999999", Some(0));
        check("-0", Some(0));
        check("-0.0", Some(0));
        check("0e9223372036854775807", Some(0));
        check("0.0e-9223372036854775808", Some(0));
        check("0e99999999999999999999", Some(0));
        check("0e-99999999999999999999", Some(0));
        check("10e9223372036854775807", None);
        check("10.0e9223372036854775807", None);
        check("1000e-9223372036854775807", None);
        for text in ["-1", "1.5", "18446744073709551616", "1e20", "1e-1", "1e999999999999999999999", "true", "[]", "{}"]
        {
            check(text, None);
        }
        for text in ["\"\"", "\"x\"", "\"-1\"", "\"4 2\"", "\"0x2a\"", "\"--0\"", "\"1e\"", "\".\"", "\"+42\""] {
            check(text, None);
        }
        assert_eq!(sequence_number(&token("null"), 9), Ok(None));
        assert_eq!(sequence_number(&token(""), 9), Ok(None));
        assert_eq!(sequence_number(&token("9"), 9), Ok(Some(9)));
        assert!(sequence_number(&token("10"), 9).is_err());
    }

    #[test]
    fn boots() {
        assert_eq!(boot(&token("\"7\"")), boot(&token("\"7\"")));
        assert_ne!(boot(&token("\"7\"")), boot(&token("7")));
        assert_ne!(boot(&token("7")), boot(&token("-7")));
        assert!(boot(&token("123456789012345678901234567890")).is_ok());
        assert_eq!(boot(&token("null")), Ok(None));
        assert_eq!(boot(&JsonToken::BareWord), Ok(None));
        assert_eq!(sequence_number(&JsonToken::BareWord, 9), Ok(None));
        assert_eq!(device_id_field(&JsonToken::BareWord), Ok(None));
        assert!(boot(&token("7.5")).is_err());
        assert!(boot(&token("[]")).is_err());
    }

    #[test]
    fn errors_that_tell_no_fault() {
        for error in [
            "",
            " ",
            "no error",
            "No Error",
            "NONE",
            "ok",
            "OK",
            "0",
            "0.0",
            "-0",
            "0x0",
            "0x00",
            "0X00000000",
            "false",
            "[]",
            "{ }",
            "n/a",
        ] {
            assert!(!tells_fault(error), "{error:?}");
        }
        for error in ["E1", "1", "true", "[0]", "{\"code\":0}", "no sensor", "not ok", "-1", "0x", "0x01"] {
            assert!(tells_fault(error), "{error:?}");
        }
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
}
