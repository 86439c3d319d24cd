//! A strict scanner of JSON text (RFC 8259) that copies nothing: strings are borrowed unless they hold escapes, and
//! numbers keep their text, so that neither a 64-bit sequence number nor a nanosecond timestamp loses digits.

use std::borrow::Cow;

/// Deepest nesting of objects and arrays.
pub(super) const MAX_DEPTH: u32 = 8;

/// Integer digits that always fit in 64 bits.
const EXACT_DIGITS: usize = 19;

/// Powers of ten that are exact in binary64.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Where text stops being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    /// What was expected or does not fit.
    pub what: &'static str,
    /// Byte offset.
    pub at: usize,
}

/// A JSON number as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number<'a> {
    text: &'a str,
    mantissa: u64,
    exponent: i32,
    /// [`NEGATIVE`], [`EXACT`], [`INTEGER`]: one word, because a number with odd bytes at its end is slow to move.
    flags: u32,
}

/// It has a minus sign.
const NEGATIVE: u32 = 1;
/// The mantissa holds all digits.
const EXACT: u32 = 2;
/// It has neither fraction nor exponent.
const INTEGER: u32 = 4;

impl<'a> Number<'a> {
    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Its text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The nearest binary64; infinite when it is out of range.
    pub fn to_f64(self) -> f64 {
        // Both operands are exact, so one IEEE operation rounds correctly (Clinger's fast path).
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

    /// Sign and magnitude of a number written as an integer that fits in 64 bits.
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

/// A scalar value, or the kind of one that was skipped.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Token<'a> {
    /// The field is not there.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number<'a>),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    Array,
    /// An object.
    Object,
}

impl Token<'_> {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Token::Absent => "nothing",
            Token::Null => "null",
            Token::Bool(_) => "a boolean",
            Token::Number(_) => "a number",
            Token::Text(_) => "a string",
            Token::Array => "an array",
            Token::Object => "an object",
        }
    }

    /// Whether the field is absent or `null`.
    pub fn is_none(&self) -> bool {
        matches!(self, Token::Absent | Token::Null)
    }
}

/// Reads JSON text from front to back.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Byte offset of what comes next.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The text from `start` to what comes next.
    pub fn text_since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// An error at what comes next.
    pub fn error(&self, what: &'static str) -> Syntax {
        Syntax { what, at: self.at }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space; the byte that follows.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.byte() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Requires that nothing but white space is left.
    pub fn end(&mut self) -> Result<(), Syntax> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("nothing may follow the JSON value")),
        }
    }

    /// Skips `"key":` if that is what comes next, to the letter. A constant key costs a comparison or two.
    #[inline(always)]
    pub fn eat_key<const N: usize>(&mut self, quoted_with_colon: &[u8; N]) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let found = rest.first_chunk::<N>() == Some(quoted_with_colon);
        self.at += if found { N } else { 0 };
        found
    }

    /// Reads a key and the colon after it.
    #[inline]
    pub fn key(&mut self) -> Result<Cow<'a, str>, Syntax> {
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a key in double quotes"));
        }
        let key = self.string()?;
        if self.peek() != Some(b':') {
            return Err(self.error("expected `:` after a key"));
        }
        self.at += 1;
        Ok(key)
    }

    /// Reads an object: `member` reads each key with its value.
    #[inline(always)]
    pub fn object(&mut self, mut member: impl FnMut(&mut Self) -> Result<(), Syntax>) -> Result<(), Syntax> {
        self.at += 1;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            member(self)?;
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.peek();
                }
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error("expected `,` or `}`")),
            }
        }
    }

    /// Reads an array: `item` reads each value.
    pub fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Syntax>) -> Result<(), Syntax> {
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            item(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.error("expected `,` or `]`")),
            }
        }
    }

    /// Reads any value. `depth` containers are open around it.
    pub fn value(&mut self, depth: u32) -> Result<Token<'a>, Syntax> {
        let mut token = Token::Absent;
        self.value_into(&mut token, depth)?;
        Ok(token)
    }

    /// Reads any value into its place: tokens that are returned by value are copied in pieces, which costs more than
    /// reading them.
    #[inline(always)]
    pub fn value_into(&mut self, token: &mut Token<'a>, depth: u32) -> Result<(), Syntax> {
        match self.peek() {
            Some(b'"') => match self.plain_string() {
                Ok(text) => *token = Token::Text(Cow::Borrowed(text)),
                Err(start) => *token = Token::Text(Cow::Owned(self.escaped_string(start)?)),
            },
            Some(b'-' | b'0'..=b'9') => *token = Token::Number(self.number()?),
            _ => *token = self.other_value(depth)?,
        }
        Ok(())
    }

    /// Reads any value and forgets it.
    pub fn skip(&mut self, depth: u32) -> Result<(), Syntax> {
        self.value(depth).map(drop)
    }

    fn other_value(&mut self, depth: u32) -> Result<Token<'a>, Syntax> {
        match self.byte() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => Err(self.error("nested deeper than 8 levels")),
            Some(b'{') => {
                self.object(|scanner| {
                    scanner.key()?;
                    scanner.skip(depth + 1)
                })?;
                Ok(Token::Object)
            }
            Some(b'[') => {
                self.array(|scanner| scanner.skip(depth + 1))?;
                Ok(Token::Array)
            }
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'n') => self.word("null", Token::Null),
            Some(_) => Err(self.error("expected a JSON value")),
            None => Err(self.error("the text ends where a JSON value is expected")),
        }
    }

    fn word(&mut self, word: &'static str, token: Token<'a>) -> Result<Token<'a>, Syntax> {
        let found = self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        if !found {
            return Err(self.error("expected a JSON value"));
        }
        self.at += word.len();
        Ok(token)
    }

    /// Reads a string; the opening quote comes next.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Syntax> {
        match self.plain_string() {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(start) => self.escaped_string(start).map(Cow::Owned),
        }
    }

    /// Reads a string without escapes; fails with the position after the opening quote where there may be some.
    #[inline(always)]
    fn plain_string(&mut self) -> Result<&'a str, usize> {
        self.at += 1;
        let start = self.at;
        self.skip_plain();
        if self.byte() != Some(b'"') {
            return Err(start);
        }
        let text = self.text_since(start);
        self.at += 1;
        Ok(text)
    }

    /// Moves to the next quote, backslash or control character, or to the end.
    #[inline]
    fn skip_plain(&mut self) {
        let bytes = self.text.as_bytes();
        // Eight bytes at a time: a byte's high bit is set in `found` where it ends the run. A borrow can set it in
        // bytes after the first such byte, never before it, and the first is all that counts.
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        while let Some(chunk) = bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*chunk);
            let quote = word ^ (ONES * b'"' as u64);
            let escape = word ^ (ONES * b'\\' as u64);
            let zero_in = |x: u64| x.wrapping_sub(ONES) & !x;
            let control = word.wrapping_sub(ONES * 0x20) & !word;
            let found = (zero_in(quote) | zero_in(escape) | control) & HIGHS;
            if found != 0 {
                self.at += (found.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while let Some(byte) = self.byte() {
            if byte == b'"' || byte == b'\\' || byte < 0x20 {
                return;
            }
            self.at += 1;
        }
    }

    #[cold]
    fn escaped_string(&mut self, start: usize) -> Result<String, Syntax> {
        let mut text = String::from(self.text_since(start));
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                Some(_) => return Err(self.error("control characters must be escaped in strings")),
                None => return Err(self.error("the text ends within a string")),
            }
            let run = self.at;
            self.skip_plain();
            text.push_str(self.text_since(run));
        }
    }

    fn escape(&mut self) -> Result<char, Syntax> {
        let escaped = match self.byte() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return Err(self.error("unknown escape in a string")),
        };
        self.at += 1;
        Ok(escaped)
    }

    fn unicode_escape(&mut self) -> Result<char, Syntax> {
        let first = self.hex4()?;
        let code = match first {
            0xD800..=0xDBFF => {
                if !(self.eat(b'\\') && self.eat(b'u')) {
                    return Err(self.error("half of a surrogate pair in a string"));
                }
                match self.hex4()? {
                    second @ 0xDC00..=0xDFFF => 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00),
                    _ => return Err(self.error("half of a surrogate pair in a string")),
                }
            }
            other => other,
        };
        char::from_u32(code).ok_or(self.error("half of a surrogate pair in a string"))
    }

    fn hex4(&mut self) -> Result<u32, Syntax> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or(self.error("expected four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// Reads a number.
    #[inline(always)]
    pub fn number(&mut self) -> Result<Number<'a>, Syntax> {
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
        Ok(Number {
            text: self.text_since(start),
            mantissa,
            exponent: written.saturating_sub(i32::try_from(fraction).unwrap_or(i32::MAX)),
            flags: [(negative, NEGATIVE), (whole + fraction <= EXACT_DIGITS, EXACT), (is_integer, INTEGER)]
                .into_iter()
                .fold(0, |flags, (holds, flag)| if holds { flags | flag } else { flags }),
        })
    }

    /// Reads digits into `mantissa`; how many. Beyond [`EXACT_DIGITS`] the mantissa is meaningless.
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

    fn exponent(&mut self) -> Result<i32, Syntax> {
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

/// The number that eight ASCII digits make, the first in the lowest byte; `None` if one is no digit.
#[inline(always)]
fn eight_digits(text: u64) -> Option<u64> {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const HIGH_NIBBLES: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    // A digit has high nibble 3, and still has it when 6 is added.
    let plus_six = text.wrapping_add(0x0606_0606_0606_0606);
    if (text & HIGH_NIBBLES) != ZEROS || (plus_six & HIGH_NIBBLES) != ZEROS {
        return None;
    }
    // Digits to pairs, pairs to fours, fours to eight: the earlier one of two is in the lower lane and worth more.
    let digits = text - ZEROS;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &str) -> Result<Token<'_>, Syntax> {
        let mut scanner = Scanner::new(text);
        let token = scanner.value(0)?;
        scanner.end()?;
        Ok(token)
    }

    /// Accepts and rejects what `serde_json` does, and reads scalars to the same values.
    fn agrees_with_serde_json(text: &str) {
        let ours = scan(text);
        let theirs: Result<serde_json::Value, _> = serde_json::from_str(text);
        match (&ours, &theirs) {
            (Ok(Token::Number(number)), Ok(value)) => {
                assert_eq!(number.to_f64().to_bits(), value.as_f64().unwrap().to_bits(), "{text}");
            }
            (Ok(Token::Text(string)), Ok(value)) => assert_eq!(Some(string.as_ref()), value.as_str(), "{text}"),
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
            // What serde_json calls out of range is JSON all the same: the check of the value says so.
            (Ok(_), Err(error)) if error.to_string().contains("out of range") => {}
            (Err(syntax), Ok(_)) if syntax.what.contains("deeper") => {}
            _ => panic!("{text:?}: {ours:?} but {theirs:?}"),
        }
    }

    #[test]
    fn scalars_and_shapes() {
        for text in [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "-0.0",
            "1e5",
            "1E+5",
            "1e-5",
            "0.1",
            "123456789012345678901234567890",
            "1e400",
            "-1e400",
            "5e-324",
            "2.2250738585072014e-308",
            "1e23",
            "9007199254740993",
            "\"\"",
            "\"a\\u00e9\\ud83d\\ude00\\n\\/\"",
            "\"ä\u{2028}\"",
            "[]",
            "{}",
            "[1,2]",
            "{\"a\":[{}]}",
            " [ 1 , 2 ] \r\n\t",
            "",
            " ",
            "tru",
            "nul",
            "truex",
            "01",
            "-",
            "+1",
            ".5",
            "5.",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\u12\"",
            "\"a\u{1}\"",
            "\"tab\tinside the string\"",
            "[1,]",
            "[,1]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "1 2",
            "[1]]",
            "\u{feff}1",
            "'a'",
            "[1;2]",
            "\"0123456\\\\89\"",
            "\"01234567\"",
            "\"0123456789abcdef\u{1f}\"",
        ] {
            agrees_with_serde_json(text);
        }
    }

    #[test]
    fn eight_digits_at_once() {
        let check = |text: &[u8; 8], expected| assert_eq!(eight_digits(u64::from_le_bytes(*text)), expected);
        check(b"12345678", Some(12_345_678));
        check(b"00000000", Some(0));
        check(b"99999999", Some(99_999_999));
        for index in 0..8 {
            for byte in (0..=255u8).filter(|byte| !byte.is_ascii_digit()) {
                let mut text = *b"09182736";
                text[index] = byte;
                check(&text, None);
            }
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(scan(&format!("{}{}", "[".repeat(8), "]".repeat(8))).is_ok());
        let error = scan(&format!("{}{}", "[".repeat(9), "]".repeat(9))).unwrap_err();
        assert_eq!(error, Syntax { what: "nested deeper than 8 levels", at: 8 });
        assert!(scan(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn strings_are_borrowed_unless_escaped() {
        assert!(matches!(scan("\"plain text, long enough\""), Ok(Token::Text(Cow::Borrowed(_)))));
        assert!(matches!(scan("\"a\\tb\""), Ok(Token::Text(Cow::Owned(_)))));
    }

    #[test]
    fn integers_keep_all_digits() {
        let integer = |text| Scanner::new(text).number().unwrap().as_integer();
        assert_eq!(integer("18446744073709551615"), Some((false, u64::MAX)));
        assert_eq!(integer("-18446744073709551615"), Some((true, u64::MAX)));
        assert_eq!(integer("18446744073709551616"), None);
        assert_eq!(integer("1.0"), None);
        assert_eq!(integer("1e3"), None);
    }

    proptest! {
        #[test]
        fn any_text(text in "\\PC{0,30}") {
            agrees_with_serde_json(&text);
        }

        #[test]
        fn text_of_json_characters(text in "[\\[\\]{}:,\"\\\\0-9.eE+\\- tfnu]{0,24}") {
            agrees_with_serde_json(&text);
        }

        #[test]
        fn strings(text in any::<String>()) {
            agrees_with_serde_json(&serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn printed_floats(value in any::<f64>()) {
            agrees_with_serde_json(&serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn decimal_texts(text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?") {
            agrees_with_serde_json(&text);
        }
    }
}
