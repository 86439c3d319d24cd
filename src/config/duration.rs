//! Durations as people write them in the configuration and on the command line: a whole number and a unit.

use std::time::Duration;

/// Units and their milliseconds, the longest first.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// A number without a unit.
    #[error("there is no unit: give ms, s, m, h or d, such as 500ms")]
    NoUnit,
    /// Something else than a whole number and a known unit.
    #[error("give a whole number and a unit (ms, s, m, h or d), such as 500ms")]
    Form,
    /// More milliseconds than 64 bits hold.
    #[error("this is too long")]
    TooLong,
}

/// Reads a duration such as `250ms`, `5s`, `1m`, `24h` or `7d`.
///
/// # Errors
/// [`DurationError`] when the text is no such duration.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(DurationError::Form);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit);
    }
    let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(DurationError::Form)?;
    // Digits alone fail only for numbers of more than 64 bits.
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    ms.map(Duration::from_millis).ok_or(DurationError::TooLong)
}

/// The shortest text that [`parse_duration`] reads as `ms` milliseconds.
pub(super) fn duration_text(ms: i64) -> String {
    let whole = |(_, unit_ms): &(&str, u64)| ms != 0 && ms.unsigned_abs().is_multiple_of(*unit_ms);
    let (unit, unit_ms) = UNITS.into_iter().find(whole).unwrap_or(("ms", 1));
    format!("{}{unit}", ms / unit_ms as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        let ms = |text: &str| parse_duration(text).map(|duration| duration.as_millis());
        for (text, expected) in
            [("250ms", 250), ("5s", 5_000), ("1m", 60_000), ("24h", 86_400_000), ("7d", 604_800_000), ("0s", 0)]
        {
            assert_eq!(ms(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "5 s", "-5s", "1.5s", "5S", "5sec", "٣s"] {
            assert_eq!(ms(text), Err(DurationError::Form), "{text:?}");
        }
        assert_eq!(ms("5"), Err(DurationError::NoUnit));
        for text in ["99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(ms(text), Err(DurationError::TooLong), "{text}");
        }
    }

    proptest! {
        #[test]
        fn durations_read_back(ms in 0..=i64::MAX) {
            prop_assert_eq!(parse_duration(&duration_text(ms)), Ok(Duration::from_millis(ms as u64)));
        }
    }
}
