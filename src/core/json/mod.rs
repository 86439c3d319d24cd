//! A scanner of JSON text (RFC 8259) that copies nothing: strings are borrowed unless they hold escapes. Numbers
//! keep their text, so that neither a 64-bit sequence number nor a nanosecond timestamp loses digits.
//!
//! A lenient scanner reads besides: bare words such as `NaN` where a value stands, control characters and halves of surrogate
//! pairs in strings, and NULs and white space of all kinds behind the text.

mod bare_word;
mod number;
mod string;

use std::borrow::Cow;

pub(super) use number::JsonNumber;

use crate::core::settings::SequenceBits;

/// Deepest nesting of objects and arrays.
pub(super) const MAX_DEPTH: u32 = 8;

/// The rule that a key is missing.
pub(super) const EXPECTED_KEY: &str = "expected a key in double quotes";
/// The rule that something follows the value.
pub(super) const NOTHING_MAY_FOLLOW: &str = "nothing may follow the JSON value";

/// Why text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JsonSyntaxError {
    /// The rule that the text breaks.
    pub what: &'static str,
    /// Byte offset of the offence.
    pub at: usize,
}

/// Stands for each byte that is no UTF-8 (SUBSTITUTE), and for half of a surrogate pair. A lenient scanner passes over it in
/// strings that nobody needs, and no device id, metric or time may have it.
pub(super) const NOT_UTF8: char = '\u{1a}';

/// Whether a character says nothing where it stands behind JSON.
pub(super) fn is_filler(c: char) -> bool {
    matches!(c, '\0' | ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

/// A scalar value, or the kind of a value that was skipped.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum JsonToken<'a> {
    /// There is no value.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(JsonNumber<'a>),
    /// A string.
    Text(Cow<'a, str>),
    /// A bare word in the place of a number, such as `NaN`: there is no value.
    BareWord,
    /// An array.
    Array,
    /// An object.
    Object,
    /// A number that a map made.
    Computed(f64),
    /// As [`JsonToken::Computed`], with the index of its unit among those of the message.
    Measured(f64, u16),
    /// A time that a map read, Unix milliseconds.
    UnixMs(i64),
    /// A number that a map read of a counter of this width.
    Counted(u64, SequenceBits),
    /// What a map found and cannot take.
    Refused(Box<RefusedValue<'a>>),
}

/// What a map found in the place of a value or a time, and cannot take.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RefusedValue<'a> {
    /// Two keys, the earlier first, become the same metric.
    NameTwice(Cow<'a, str>, Cow<'a, str>),
    /// No birth defines this alias.
    UnknownAlias(u64),
    /// The text is no time.
    Time(Cow<'a, str>),
    /// A part of the message that cannot be read; the sentence.
    Malformed(Cow<'a, str>),
}

impl JsonToken<'_> {
    /// The kind of the value, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            JsonToken::Absent => "nothing",
            JsonToken::Null => "null",
            JsonToken::Bool(_) => "a boolean",
            JsonToken::Number(_)
            | JsonToken::Computed(_)
            | JsonToken::Measured(..)
            | JsonToken::UnixMs(_)
            | JsonToken::Counted(..) => "a number",
            JsonToken::Text(_) => "a string",
            JsonToken::BareWord => "a bare word such as NaN",
            JsonToken::Array => "an array",
            JsonToken::Object => "an object",
            JsonToken::Refused(_) => "something that the map cannot take",
        }
    }

    /// Puts another token in the place of this one. Nearly all tokens own nothing: their drop, which is a call, is left out.
    #[inline(always)]
    pub fn replace(&mut self, token: Self) {
        let before = std::mem::replace(self, token);
        if before.owns() {
            drop(before);
        } else {
            std::mem::forget(before);
        }
    }

    /// Whether the token has memory of its own. All kinds are named, so that a new one is not forgotten.
    #[inline(always)]
    fn owns(&self) -> bool {
        match self {
            JsonToken::Text(Cow::Owned(_)) | JsonToken::Refused(_) => true,
            JsonToken::Text(Cow::Borrowed(_))
            | JsonToken::Number(_)
            | JsonToken::Absent
            | JsonToken::Null
            | JsonToken::Bool(_)
            | JsonToken::BareWord
            | JsonToken::Array
            | JsonToken::Object
            | JsonToken::Computed(_)
            | JsonToken::Measured(..)
            | JsonToken::UnixMs(_)
            | JsonToken::Counted(..) => false,
        }
    }

    /// Whether there is no value, `null`, or a bare word that says so.
    pub fn is_none(&self) -> bool {
        matches!(self, JsonToken::Absent | JsonToken::Null | JsonToken::BareWord)
    }
}

/// Reads JSON text from front to back.
#[derive(Debug)]
pub(super) struct JsonScanner<'a> {
    text: &'a str,
    at: usize,
    lenient: bool,
}

impl<'a> JsonScanner<'a> {
    /// A strict scanner at the start of `text`.
    #[cfg(test)]
    pub fn new(text: &'a str) -> Self {
        Self::with_leniency(text, false)
    }

    /// A scanner at the start of `text` that is lenient or strict.
    pub fn with_leniency(text: &'a str, lenient: bool) -> Self {
        Self { text, at: 0, lenient }
    }

    /// Whether the scanner is lenient.
    pub fn is_lenient(&self) -> bool {
        self.lenient
    }

    /// Byte offset of the next character.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The text from `start` to the next character.
    pub fn text_since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// An error at the next character.
    pub fn error(&self, what: &'static str) -> JsonSyntaxError {
        JsonSyntaxError { what, at: self.at }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space; returns the next byte.
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

    /// Requires that only white space is left, for a lenient scanner only what [`is_filler`] admits.
    pub fn end(&mut self) -> Result<(), JsonSyntaxError> {
        match self.peek() {
            None => Ok(()),
            Some(_) if self.lenient && self.rest().chars().all(is_filler) => Ok(()),
            Some(_) => Err(self.error(NOTHING_MAY_FOLLOW)),
        }
    }

    /// Whether only white space stands before the next character on its line.
    pub fn is_new_line(&self) -> bool {
        let before = self.text.get(..self.at).unwrap_or_default();
        before.trim_end_matches([' ', '\t', '\r']).ends_with('\n')
    }

    /// The text from the next character on.
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next eight bytes; zeros where there are fewer.
    #[inline(always)]
    pub fn next_eight(&self) -> [u8; 8] {
        self.text.as_bytes().get(self.at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
    }

    /// Skips `"key":` if it comes next, byte for byte. `next` is [`JsonScanner::next_eight`]: the compiler makes one comparison of
    /// these with a constant key, and further ones only where they are equal.
    #[inline(always)]
    pub fn eat_key<const N: usize>(&mut self, next: [u8; 8], quoted_with_colon: &[u8; N]) -> bool {
        let (mut first, mut mask) = ([0; 8], [0; 8]);
        for ((first, mask), byte) in first.iter_mut().zip(&mut mask).zip(quoted_with_colon) {
            (*first, *mask) = (*byte, 0xff);
        }
        if u64::from_le_bytes(next) & u64::from_le_bytes(mask) != u64::from_le_bytes(first) {
            return false;
        }
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let found = N <= 8 || rest.first_chunk::<N>() == Some(quoted_with_colon);
        self.at += if found { N } else { 0 };
        found
    }

    /// Reads a key and the colon after it.
    #[inline]
    pub fn key(&mut self) -> Result<Cow<'a, str>, JsonSyntaxError> {
        if self.peek() != Some(b'"') {
            return Err(self.error(EXPECTED_KEY));
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
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self) -> Result<(), JsonSyntaxError>,
    ) -> Result<(), JsonSyntaxError> {
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
    pub fn array(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), JsonSyntaxError>,
    ) -> Result<(), JsonSyntaxError> {
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

    /// Reads any value. `depth` is the number of containers that are open around it.
    pub fn value(&mut self, depth: u32) -> Result<JsonToken<'a>, JsonSyntaxError> {
        let mut token = JsonToken::Absent;
        self.value_into(&mut token, depth)?;
        Ok(token)
    }

    /// Reads any value into its place. Returning tokens by value would copy them in pieces, which costs more than reading
    /// them.
    #[inline(always)]
    pub fn value_into(&mut self, token: &mut JsonToken<'a>, depth: u32) -> Result<(), JsonSyntaxError> {
        match self.peek() {
            Some(b'"') => match self.plain_string() {
                Ok(text) => token.replace(JsonToken::Text(Cow::Borrowed(text))),
                Err(start) => token.replace(JsonToken::Text(Cow::Owned(self.escaped_string(start)?))),
            },
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                match self.number() {
                    Ok(number) => token.replace(JsonToken::Number(number)),
                    Err(error) => token.replace(self.bare_word(start).ok_or(error)?),
                }
            }
            _ => token.replace(self.other_value(depth)?),
        }
        Ok(())
    }

    /// Reads any value and drops it.
    pub fn skip(&mut self, depth: u32) -> Result<(), JsonSyntaxError> {
        self.value(depth).map(drop)
    }

    fn other_value(&mut self, depth: u32) -> Result<JsonToken<'a>, JsonSyntaxError> {
        match self.byte() {
            Some(b'{' | b'[') if depth >= MAX_DEPTH => Err(self.error("nested deeper than 8 levels")),
            Some(b'{') => {
                self.object(|scanner| {
                    scanner.key()?;
                    scanner.skip(depth + 1)
                })?;
                Ok(JsonToken::Object)
            }
            Some(b'[') => {
                self.array(|scanner| scanner.skip(depth + 1))?;
                Ok(JsonToken::Array)
            }
            Some(b't') => self.word("true", JsonToken::Bool(true)),
            Some(b'f') => self.word("false", JsonToken::Bool(false)),
            Some(b'n') => self.word("null", JsonToken::Null),
            Some(_) => self.bare_word(self.at).ok_or(self.error("expected a JSON value")),
            None => Err(self.error("the text ends where a JSON value is expected")),
        }
    }

    fn word(&mut self, word: &'static str, token: JsonToken<'a>) -> Result<JsonToken<'a>, JsonSyntaxError> {
        if !self.rest().starts_with(word) {
            return self.bare_word(self.at).ok_or(self.error("expected a JSON value"));
        }
        self.at += word.len();
        Ok(token)
    }
}

#[cfg(test)]
mod tests;
