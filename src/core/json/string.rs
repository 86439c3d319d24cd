//! JSON strings: borrowed where they hold no escapes.

use std::borrow::Cow;

use super::{JsonScanner, JsonSyntaxError, NOT_UTF8};

impl<'a> JsonScanner<'a> {
    /// Reads a string. The opening quote comes next.
    pub fn string(&mut self) -> Result<Cow<'a, str>, JsonSyntaxError> {
        match self.plain_string() {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(start) => self.escaped_string(start).map(Cow::Owned),
        }
    }

    /// Reads a string without escapes. Fails with the position after the opening quote where there may be escapes.
    #[inline(always)]
    pub(super) fn plain_string(&mut self) -> Result<&'a str, usize> {
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

    /// Moves to the next quote, backslash or control character, or to the end of the text.
    #[inline]
    fn skip_plain(&mut self) {
        let bytes = self.text.as_bytes();
        // Eight bytes at a time: the high bit of a byte is set in `found` where the byte ends the run. A borrow can set
        // it in bytes behind the first such byte, never in one before it, and only the first counts.
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
    pub(super) fn escaped_string(&mut self, start: usize) -> Result<String, JsonSyntaxError> {
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
                Some(control) if self.lenient => {
                    self.at += 1;
                    text.push(char::from(control));
                }
                Some(_) => return Err(self.error("control characters must be escaped in strings")),
                None => return Err(self.error("the text ends within a string")),
            }
            let run = self.at;
            self.skip_plain();
            text.push_str(self.text_since(run));
        }
    }

    fn escape(&mut self) -> Result<char, JsonSyntaxError> {
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

    fn unicode_escape(&mut self) -> Result<char, JsonSyntaxError> {
        let first = self.hex4()?;
        if self.lenient && (0xD800..=0xDFFF).contains(&first) {
            return Ok(self.lenient_pair(first));
        }
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

    /// The character of a surrogate pair whose first half is read; [`NOT_UTF8`] where there is only half of one.
    fn lenient_pair(&mut self, first: u32) -> char {
        let behind = self.at;
        if first < 0xDC00
            && self.eat(b'\\')
            && self.eat(b'u')
            && let Ok(second @ 0xDC00..=0xDFFF) = self.hex4()
            && let Some(pair) = char::from_u32(0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))
        {
            return pair;
        }
        self.at = behind;
        NOT_UTF8
    }

    fn hex4(&mut self) -> Result<u32, JsonSyntaxError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or(self.error("expected four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(code)
    }
}
