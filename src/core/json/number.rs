//! JSON numbers: read once, eight digits at a time, and converted only when the value is asked for.

use super::{JsonScanner, JsonSyntaxError};

/// Integer digits that always fit in 64 bits.
const EXACT_DIGITS: usize = 19;

/// Powers of ten that are exact in binary64.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A JSON number in the form in which it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) struct JsonNumber<'a> {
    text: &'a str,
    mantissa: u64,
    exponent: i32,
    /// [`NEGATIVE`], [`EXACT`] and [`INTEGER`] in one word: a number with odd bytes at its end is slow to move.
    flags: u32,
}

/// The number has a minus sign.
const NEGATIVE: u32 = 1;
/// The mantissa holds all digits.
const EXACT: u32 = 2;
/// The number has neither fraction nor exponent.
const INTEGER: u32 = 4;

impl<'a> JsonNumber<'a> {
    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Text of the number.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The nearest binary64; infinite when the number is out of range.
    pub fn to_f64(self) -> f64 {
        // Both operands are exact, so that one IEEE operation rounds correctly (Clinger's fast path).
        if self.is(EXACT) && self.mantissa <= 1 << 53 {
            let magnitude = self.mantissa as f64;
            let power = EXACT_POWERS.get(self.exponent.unsigned_abs() as usize);
            if let Some(&power) = power {
                let value = if self.exponent < 0 { magnitude / power } else { magnitude * power };
                return if self.is(NEGATIVE) { -value } else { value };
            }
        }
        self.text.parse().unwrap_or(f64::NAN)
    }

    /// The number, if it is written as a short integer without a sign.
    #[inline]
    pub fn as_short_unsigned(&self) -> Option<u64> {
        (self.flags == EXACT | INTEGER).then_some(self.mantissa)
    }

    /// Sign and magnitude, if the number is written as an integer that fits in 64 bits.
    pub fn as_integer(&self) -> Option<(bool, u64)> {
        if !self.is(INTEGER) {
            return None;
        }
        let magnitude = if self.is(EXACT) {
            self.mantissa
        } else {
            self.text.strip_prefix('-').unwrap_or(self.text).parse().ok()?
        };
        Some((self.is(NEGATIVE), magnitude))
    }
}

impl<'a> JsonScanner<'a> {
    /// Reads a number.
    #[inline(always)]
    pub fn number(&mut self) -> Result<JsonNumber<'a>, JsonSyntaxError> {
        let start = self.at;
        let negative = self.eat(b'-');
        let mut mantissa = 0;
        let leading_zero = self.byte() == Some(b'0');
        let whole = self.digits(&mut mantissa);
        if whole == 0 {
            return Err(self.error("expected a digit"));
        }
        if leading_zero && whole > 1 {
            return Err(self.error("a number has no leading zeros"));
        }
        let mut fraction = 0;
        let has_fraction = self.eat(b'.');
        if has_fraction {
            fraction = self.digits(&mut mantissa);
            if fraction == 0 {
                return Err(self.error("expected a digit after the decimal point"));
            }
        }
        let has_exponent = matches!(self.byte(), Some(b'e' | b'E'));
        let written = if has_exponent { self.exponent()? } else { 0 };
        let is_integer = !has_fraction && !has_exponent;
        Ok(JsonNumber {
            text: self.text_since(start),
            mantissa,
            exponent: written.saturating_sub(i32::try_from(fraction).unwrap_or(i32::MAX)),
            flags: [(negative, NEGATIVE), (whole + fraction <= EXACT_DIGITS, EXACT), (is_integer, INTEGER)]
                .into_iter()
                .fold(0, |flags, (holds, flag)| if holds { flags | flag } else { flags }),
        })
    }

    /// Reads digits into `mantissa`; returns how many. Beyond [`EXACT_DIGITS`] digits the mantissa is meaningless.
    #[inline]
    fn digits(&mut self, mantissa: &mut u64) -> usize {
        let mut digits = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let mut len = 0;
        while let Some((chunk, rest)) = digits.split_first_chunk::<8>()
            && let Some(eight) = eight_digits(u64::from_le_bytes(*chunk))
        {
            *mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight);
            digits = rest;
            len += 8;
        }
        for byte in digits {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            len += 1;
        }
        self.at += len;
        len
    }

    fn exponent(&mut self) -> Result<i32, JsonSyntaxError> {
        self.at += 1;
        let negative = self.eat(b'-');
        if !negative {
            self.eat(b'+');
        }
        let start = self.at;
        let mut exponent: i32 = 0;
        while let Some(byte @ b'0'..=b'9') = self.byte() {
            exponent = exponent.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
            self.at += 1;
        }
        if self.at == start {
            return Err(self.error("expected a digit in the exponent"));
        }
        Ok(if negative { -exponent } else { exponent })
    }
}

/// The number that eight ASCII digits form, the first digit in the lowest byte; `None` if one byte is no digit.
#[inline(always)]
pub(super) fn eight_digits(text: u64) -> Option<u64> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HIGH_NIBBLES: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    // A digit has high nibble 3, and still has it when 6 is added.
    let plus_six = text.wrapping_add(0x0606_0606_0606_0606);
    if (text & HIGH_NIBBLES) != ZEROS || (plus_six & HIGH_NIBBLES) != ZEROS {
        return None;
    }
    // Digits become pairs, pairs fours, fours eight. The earlier one of two is in the lower lane and worth more.
    let digits = text - ZEROS;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff)
}
