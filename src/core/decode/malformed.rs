//! Why a message as a whole is `malformed`, and the sentences that say so.

use std::fmt;

use crate::core::decode::foreign::{self, ForeignFormat};
use crate::core::decode::unpack::{Packing, UnpackFailure};
use crate::core::json::{EXPECTED_KEY, JsonSyntaxError, NOT_UTF8, NOTHING_MAY_FOLLOW, is_filler};

/// Why a message as a whole is `malformed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum MalformedMessage {
    /// The payload has no bytes.
    Empty,
    /// The payload has only white space and NULs.
    Blank,
    /// The payload is not UTF-8; it is valid up to this byte offset.
    NotUtf8(usize),
    /// The payload is UTF-16.
    Utf16,
    /// The payload is compressed and cannot be unpacked.
    Packed(Packing, UnpackFailure),
    /// What was unpacked is compressed again.
    PackedAgain(Packing),
    /// The payload is of another format than JSON.
    Foreign(ForeignFormat),
    /// The payload is not JSON.
    Syntax(JsonSyntaxError),
    /// The JSON is not complete after this number of bytes, which are all.
    CutOff(usize),
    /// The comma before the bracket at this byte has nothing behind it.
    TrailingComma(usize),
    /// There are single quotes at this byte.
    SingleQuotes(usize),
    /// The key at this byte has no quotes.
    BareKey(usize),
    /// Another value begins at this byte.
    SecondValue(usize),
    /// The JSON is neither an object nor an array, but this.
    NotAForm(&'static str),
    /// The JSON is an array without elements.
    EmptyArray,
    /// The message has more readings than this, `ingest.max_readings_per_message`.
    TooManyReadings(usize),
}

impl MalformedMessage {
    /// Says more about a syntax error in `text`, which begins at byte `offset` of the payload. `is_substituted` says whether it
    /// has characters that stand for bytes that are no UTF-8.
    pub fn explained(self, text: &str, offset: usize, is_substituted: bool) -> Self {
        let end = text.trim_end_matches(is_filler).len();
        let JsonSyntaxError { what, at } = match self {
            Self::Syntax(syntax) => syntax,
            Self::NotAForm(_) => return foreign::of_text(text).map_or(self, Self::Foreign),
            other => return other,
        };
        let before = text.get(..at).unwrap_or_default().trim_end_matches(is_filler);
        let next = text.as_bytes().get(at).copied().unwrap_or_default();
        let shown = at + offset;
        if !text.trim_start().starts_with(['{', '[']) {
            return Self::Foreign(foreign::of_text(text).unwrap_or(ForeignFormat::Text));
        }
        match next {
            _ if at >= end => Self::CutOff(end + offset),
            _ if is_substituted && char::from(next) == NOT_UTF8 => Self::NotUtf8(shown),
            _ if is_cut_word(text.get(at..end).unwrap_or_default()) => Self::CutOff(end + offset),
            b',' if what == NOTHING_MAY_FOLLOW && at + 1 == end => Self::TrailingComma(shown + 1),
            b'}' | b']' if before.ends_with(',') => Self::TrailingComma(shown),
            b'\'' if what != NOTHING_MAY_FOLLOW => Self::SingleQuotes(shown),
            b'{' | b'[' | b',' if what == NOTHING_MAY_FOLLOW => Self::SecondValue(shown),
            _ if what == EXPECTED_KEY && (next.is_ascii_alphabetic() || next == b'_') => Self::BareKey(shown),
            _ => Self::Syntax(JsonSyntaxError { what, at: shown }),
        }
    }
}

/// Whether the text, which is the last of a payload, is the beginning of a word of JSON.
fn is_cut_word(rest: &str) -> bool {
    ["true", "false", "null"].iter().any(|word| word.starts_with(rest))
}

impl fmt::Display for MalformedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => {
                f.write_str("the payload is empty; send JSON, or set RETAIN if the message is to clear its topic")
            }
            Self::Blank => f.write_str("the payload has only white space and NULs; send JSON"),
            Self::NotUtf8(at) => write!(f, "the payload is not UTF-8 at byte {at}; send JSON text in UTF-8"),
            Self::Utf16 => f.write_str("the payload looks like UTF-16; send JSON text in UTF-8"),
            Self::Packed(packing, failure) => write!(f, "the payload is compressed with {packing}, and {failure}"),
            Self::PackedAgain(packing) => {
                write!(f, "the payload is compressed with {packing} once more; compress it once")
            }
            Self::Foreign(format) => format.fmt(f),
            Self::Syntax(JsonSyntaxError { what, at }) => {
                write!(f, "the payload is not valid JSON at byte {at}: {what}")
            }
            Self::CutOff(length) => write!(
                f,
                "the payload ends after {length} bytes, where the JSON is not complete; send all of it (is a send buffer too \
                 small?)"
            ),
            Self::TrailingComma(at) => {
                write!(f, "the comma before byte {at} has nothing after it; leave it out")
            }
            Self::SingleQuotes(at) => write!(f, "there are single quotes at byte {at}; send double quotes"),
            Self::BareKey(at) => write!(f, "the key at byte {at} has no quotes; put it in double quotes"),
            Self::SecondValue(at) => write!(
                f,
                "the JSON ends before byte {at}, and more follows; send an array of objects, or each object on a line \
                 of its own"
            ),
            Self::NotAForm(kind) => {
                write!(f, "the payload is {kind}; send an object with a reading, or an array of such objects")
            }
            Self::EmptyArray => f.write_str("the payload is an array without readings; send at least one"),
            Self::TooManyReadings(max) => write!(
                f,
                "the message has more than {max} readings (ingest.max_readings_per_message); send several messages"
            ),
        }
    }
}

impl From<JsonSyntaxError> for MalformedMessage {
    fn from(syntax: JsonSyntaxError) -> Self {
        Self::Syntax(syntax)
    }
}
