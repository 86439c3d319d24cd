//! Event times: turns the timestamps of payloads into integer milliseconds, rounded down.

mod calendar;
mod date_time;
mod print;
mod rfc3339;

use crate::core::absent::is_absent_text;
use crate::core::json::{JsonNumber, JsonToken};
use crate::core::settings::TimestampUnit;

pub(super) use print::{Rfc3339, Span};

/// First accepted millisecond: -9999-01-01T00:00:00Z.
pub(super) const MIN_MS: i64 = -377_705_116_800_000;
/// Last accepted millisecond: 9999-12-31T23:59:59.999Z.
pub(super) const MAX_MS: i64 = 253_402_300_799_999;

const DAY_MS: i64 = 86_400_000;

/// Decimal digits that are kept exactly. Further digits are a fraction far below a nanosecond, or the number is out of
/// range.
const EXACT_DIGITS: usize = 36;

/// Numbers that are taken as milliseconds, unless the unit is configured: years 1973 to 5138.
const MILLISECONDS: std::ops::Range<u64> = 100_000_000_000..100_000_000_000_000;

/// The event time that a JSON number states; `None` where it is out of range.
#[inline]
pub(super) fn from_number(number: &JsonNumber<'_>, unit: TimestampUnit) -> Option<i64> {
    match number.as_short_unsigned() {
        Some(ms) if MILLISECONDS.contains(&ms) && matches!(unit, TimestampUnit::Auto | TimestampUnit::Ms) => {
            i64::try_from(ms).ok()
        }
        _ => from_any_number(number, unit),
    }
}

/// [`from_number`] for numbers that are not of the usual magnitude.
fn from_any_number(number: &JsonNumber<'_>, unit: TimestampUnit) -> Option<i64> {
    let ms = match number.as_integer() {
        Some((negative, magnitude)) => integer_to_ms(negative, magnitude, unit),
        None => Decimal::parse(number.text())?.to_ms(unit)?,
    };
    (MIN_MS..=MAX_MS).contains(&ms).then_some(ms)
}

/// The event time that a string states: Unix time in digits, or RFC 3339 with a zone. `None` where it is neither or out
/// of range.
pub(super) fn from_text(text: &str, unit: TimestampUnit) -> Option<i64> {
    let ms = if is_number(text) { Decimal::parse(text)?.to_ms(unit)? } else { rfc3339::read(text)? };
    (MIN_MS..=MAX_MS).contains(&ms).then_some(ms)
}

/// What a field says about the event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatedTime {
    /// Unix milliseconds.
    At(i64),
    /// A time without a zone, in milliseconds since 1970-01-01T00:00 on the clock that shows it.
    Local(i64),
    /// The device does not know the time.
    Unknown,
    /// The number is a time outside the years -9999 to 9999.
    OutOfRange,
    /// A date or a time of day that does not exist.
    NoSuchTime,
    /// No time that weir can read.
    Unreadable,
}

/// What a field says about the event time.
pub(super) fn stated(token: &JsonToken<'_>, unit: TimestampUnit) -> StatedTime {
    if states_none(token) {
        return StatedTime::Unknown;
    }
    let number = |ms: Option<i64>| ms.map_or(StatedTime::OutOfRange, StatedTime::At);
    let time = match token {
        JsonToken::Number(value) => number(from_number(value, unit)),
        JsonToken::Text(text) => match text.trim() {
            text if is_number(text) => number(from_text(text, unit)),
            text => date_time::read(text),
        },
        _ => StatedTime::Unreadable,
    };
    match time {
        // Where a clock begins that was never set.
        StatedTime::At(0) | StatedTime::Local(0) => StatedTime::Unknown,
        StatedTime::At(ms) if !(MIN_MS..=MAX_MS).contains(&ms) => StatedTime::OutOfRange,
        time => time,
    }
}

/// A number below this one is no time but a duration, such as an uptime, where a field other than `timestamp` states it:
/// 1973-03-03.
const FIRST_OTHER_TIME_MS: i64 = 100_000_000_000;

/// Whether a field other than `timestamp` looks like a time, in whatever unit.
pub(super) fn looks_like_time(token: &JsonToken<'_>) -> bool {
    match stated(token, TimestampUnit::Auto) {
        StatedTime::At(ms) | StatedTime::Local(ms) => ms >= FIRST_OTHER_TIME_MS,
        StatedTime::NoSuchTime => true,
        StatedTime::Unknown | StatedTime::OutOfRange | StatedTime::Unreadable => false,
    }
}

/// Whether a field says that the device does not know the time: it is absent, `null` or a bare word, 0 or -1 (what C prints
/// for a time that is not known), a string that says so, one of these numbers as a string, or a date of zeros.
fn states_none(token: &JsonToken<'_>) -> bool {
    match token {
        JsonToken::Absent | JsonToken::Null | JsonToken::BareWord => true,
        JsonToken::Number(number) => is_no_time(number.to_f64()),
        JsonToken::Text(text) => {
            let text = text.trim();
            is_absent_text(text) || is_date_of_zeros(text) || text.parse().is_ok_and(is_no_time)
        }
        JsonToken::Bool(_)
        | JsonToken::Array
        | JsonToken::Object
        | JsonToken::Computed(_)
        | JsonToken::Measured(..)
        | JsonToken::UnixMs(_)
        | JsonToken::Counted(..)
        | JsonToken::Refused(_) => false,
    }
}

fn is_date_of_zeros(text: &str) -> bool {
    ["0000-00-00", "0000/00/00", "00000000"].iter().any(|zeros| text.starts_with(zeros))
}

fn is_no_time(number: f64) -> bool {
    number == 0.0 || number == -1.0
}

/// Whether `text` has the form of a number without exponent.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.bytes().filter(|byte| *byte == b'.').count() <= 1
}

/// The usual case: an integer. It needs no wide arithmetic.
fn integer_to_ms(negative: bool, magnitude: u64, unit: TimestampUnit) -> i64 {
    let signed = |ms: u64| {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        if negative { -ms } else { ms }
    };
    let divided = |by: u64| signed(if negative { magnitude.div_ceil(by) } else { magnitude / by });
    match resolve(unit, u128::from(magnitude)) {
        TimestampUnit::S => signed(magnitude.saturating_mul(1000)),
        TimestampUnit::Ms | TimestampUnit::Auto => signed(magnitude),
        TimestampUnit::Us => divided(1000),
        TimestampUnit::Ns => divided(1_000_000),
    }
}

/// The unit of a number: the configured one, or the one that the magnitude tells.
fn resolve(unit: TimestampUnit, magnitude: u128) -> TimestampUnit {
    match unit {
        TimestampUnit::Auto => match magnitude {
            0..100_000_000_000 => TimestampUnit::S,
            100_000_000_000..100_000_000_000_000 => TimestampUnit::Ms,
            100_000_000_000_000..100_000_000_000_000_000 => TimestampUnit::Us,
            _ => TimestampUnit::Ns,
        },
        fixed => fixed,
    }
}

/// A decimal number `digits · 10^exponent`. It is exact unless `inexact`, which says that there are non-zero digits
/// beyond the kept ones.
struct Decimal {
    negative: bool,
    digits: u128,
    exponent: i64,
    inexact: bool,
}

impl Decimal {
    /// Reads `-?digits(.digits)?([eE][+-]?digits)?`.
    fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            // With an exponent this large the number is out of range whatever its digits, unless they are all 0.
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut decimal = Self { negative, digits: 0, exponent: i64::from(exponent), inexact: false };
        let mut kept = 0;
        for (is_fraction, byte) in
            whole.bytes().map(|byte| (false, byte)).chain(fraction.bytes().map(|byte| (true, byte)))
        {
            let digit = byte.is_ascii_digit().then(|| u128::from(byte - b'0'))?;
            if kept < EXACT_DIGITS {
                decimal.digits = decimal.digits * 10 + digit;
                kept += usize::from(decimal.digits != 0);
                decimal.exponent -= i64::from(is_fraction);
            } else {
                decimal.inexact |= digit != 0;
                decimal.exponent += i64::from(!is_fraction);
            }
        }
        Some(decimal)
    }

    fn to_ms(&self, unit: TimestampUnit) -> Option<i64> {
        if self.digits == 0 {
            return Some(0);
        }
        let unit = resolve(unit, self.scaled(0).map_or(u128::MAX, |(whole, _)| whole));
        let shift = match unit {
            TimestampUnit::S => 3,
            TimestampUnit::Ms | TimestampUnit::Auto => 0,
            TimestampUnit::Us => -3,
            TimestampUnit::Ns => -6,
        };
        let (whole, remainder) = self.scaled(shift)?;
        let whole = i64::try_from(whole).ok()?;
        Some(if self.negative { -whole - i64::from(remainder) } else { whole })
    }

    /// The integer part of the magnitude times 10^`shift`, and whether there is a remainder; `None` when it is too large.
    fn scaled(&self, shift: i64) -> Option<(u128, bool)> {
        let exponent = self.exponent + shift;
        if exponent >= 0 {
            let factor = 10u128.checked_pow(u32::try_from(exponent).ok()?)?;
            return Some((self.digits.checked_mul(factor)?, self.inexact));
        }
        match u32::try_from(-exponent).ok().and_then(|power| 10u128.checked_pow(power)) {
            Some(divisor) => Some((self.digits / divisor, self.inexact || !self.digits.is_multiple_of(divisor))),
            None => Some((0, true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::json::JsonScanner;

    fn number_ms(text: &str, unit: TimestampUnit) -> Option<i64> {
        from_number(&JsonScanner::new(text).number().unwrap(), unit)
    }

    fn check(text: &str, expected: Option<i64>) {
        assert_eq!(number_ms(text, TimestampUnit::Auto), expected, "{text}");
        if !text.contains(['e', 'E']) {
            assert_eq!(from_text(text, TimestampUnit::Auto), expected, "{text:?}");
        }
    }

    #[test]
    fn the_unit_follows_the_magnitude() {
        check("0", Some(0));
        check("1732098765", Some(1_732_098_765_000));
        check("99999999999", Some(99_999_999_999_000));
        check("100000000000", Some(100_000_000_000));
        check("1732098765123", Some(1_732_098_765_123));
        check("99999999999999", Some(99_999_999_999_999));
        check("100000000000000", Some(100_000_000_000));
        check("1732098765123456", Some(1_732_098_765_123));
        check("99999999999999999", Some(99_999_999_999_999));
        check("100000000000000000", Some(100_000_000_000));
        check("1732098765123456789", Some(1_732_098_765_123));
        check("-1", Some(-1000));
        check("-1732098765123", Some(-1_732_098_765_123));
    }

    #[test]
    fn fractions_are_exact_and_rounded_down() {
        check("1732098765.123", Some(1_732_098_765_123));
        check("1732098765.1239999999999999999999999999999999999999999999", Some(1_732_098_765_123));
        check("-0.0001", Some(-1));
        check("-1.5", Some(-1500));
        check("-1732098765123.0000000000000000000000000000000000000000001", Some(-1_732_098_765_124));
        check("-100000000000000001", Some(-100_000_000_001));
        check("1.7320987651239e9", Some(1_732_098_765_123));
        check("1732098765123E0", Some(1_732_098_765_123));
        check("-0.0", Some(0));
        check("0e5", Some(0));
    }

    #[test]
    fn out_of_range_is_invalid() {
        check("18446744073709551615", Some(18_446_744_073_709));
        check("170141183460469231731687303715884105728", None);
        check("1e30", None);
        check("1e999999999999", None);
        assert_eq!(number_ms("253402300799999", TimestampUnit::Ms), Some(MAX_MS));
        assert_eq!(number_ms("253402300800000", TimestampUnit::Ms), None);
        assert_eq!(number_ms("-377705116800000", TimestampUnit::Ms), Some(MIN_MS));
        assert_eq!(number_ms("-377705116800001", TimestampUnit::Ms), None);
        assert_eq!(number_ms("9223372036854775807", TimestampUnit::Ms), None);
        assert_eq!(number_ms("18446744073709551615", TimestampUnit::S), None);
        assert_eq!(number_ms("-18446744073709551615", TimestampUnit::Ns), Some(-18_446_744_073_710));
    }

    #[test]
    fn a_fixed_unit_wins_over_the_magnitude() {
        assert_eq!(number_ms("5", TimestampUnit::Ms), Some(5));
        assert_eq!(number_ms("5", TimestampUnit::S), Some(5000));
        assert_eq!(number_ms("5999", TimestampUnit::Us), Some(5));
        assert_eq!(number_ms("-5999", TimestampUnit::Us), Some(-6));
        assert_eq!(number_ms("5999999", TimestampUnit::Ns), Some(5));
        assert_eq!(number_ms("5.9", TimestampUnit::Ms), Some(5));
    }

    #[test]
    fn rfc3339() {
        let check = |text: &str, expected| assert_eq!(from_text(text, TimestampUnit::Auto), expected, "{text:?}");
        check("2024-11-20T10:32:45.123Z", Some(1_732_098_765_123));
        check("2024-11-20t10:32:45.1239z", Some(1_732_098_765_123));
        check("2024-11-20 12:32:45.123+02:00", Some(1_732_098_765_123));
        check("2024-11-20T02:02:45.123-08:30", Some(1_732_098_765_123));
        check("1969-12-31T23:59:59.9999Z", Some(-1));
        check("9999-12-31T23:59:59.999Z", Some(MAX_MS));
        check("9999-12-31T23:59:59.999-00:01", None);
        check("2016-12-31T23:59:60Z", Some(1_483_228_800_000));
        for wrong in [
            "",
            "-",
            "now",
            "1.2.3",
            "0x10",
            "2024-11-20",
            "2024-11-20T10:32:45",
            "2024-11-20T10:32:45.Z",
            "2024-13-20T10:32:45Z",
            "2023-02-29T10:32:45Z",
            "2024-11-20T24:00:00Z",
            "2024-11-20T10:32:45+2:00",
            "2024-11-20T10:32:45Z ",
            "20é4-11-20T10:32:45Z",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn printing() {
        assert_eq!(Rfc3339(1_732_098_765_123).to_string(), "2024-11-20T10:32:45.123Z");
        assert_eq!(Rfc3339(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(Rfc3339(MIN_MS).to_string(), "-9999-01-01T00:00:00.000Z");
        assert_eq!(Rfc3339(MAX_MS).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Span(12).to_string(), "12 ms");
        assert_eq!(Span(1_012).to_string(), "1.012 s");
        assert_eq!(Span(423_000).to_string(), "7 min 3 s");
        assert_eq!(Span(7_380_000).to_string(), "2 h 3 min");
        assert_eq!(Span(-90_000_000).to_string(), "1 d 1 h");
    }

    proptest! {
        #[test]
        fn printed_times_read_back(ms in -62_167_219_200_000..=MAX_MS) {
            prop_assert_eq!(from_text(&Rfc3339(ms).to_string(), TimestampUnit::Auto), Some(ms));
        }

        #[test]
        fn agrees_with_jiff(ms in -62_000_000_000_000i64..253_000_000_000_000) {
            let printed = jiff::Timestamp::from_millisecond(ms).unwrap().to_string();
            prop_assert_eq!(from_text(&printed, TimestampUnit::Auto), Some(ms));
        }

        #[test]
        fn any_text_is_handled(text in "\\PC{0,40}") {
            from_text(&text, TimestampUnit::Auto);
        }
    }
}
