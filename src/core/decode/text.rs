//! The text of payloads that are not read as they came: with a byte order mark, compressed, or with bytes that are no UTF-8.

use std::borrow::Cow;
use std::fmt;

use crate::core::decode::foreign;
use crate::core::decode::malformed::MalformedMessage;
use crate::core::decode::unpack::{Packing, UnpackFailure};
use crate::core::decode::{DecodeRules, DecodedMessage};
use crate::core::json::{NOT_UTF8, is_filler};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a payload that could not be read as it came.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::core) struct RecoveredText<'a> {
    /// The text.
    text: Cow<'a, str>,
    /// How the payload is compressed, if it is.
    packing: Option<Packing>,
    /// Bytes of the payload before the text.
    offset: usize,
    /// Whether some of its characters stand for bytes that are no UTF-8.
    is_substituted: bool,
}

impl<'a> RecoveredText<'a> {
    /// The text of `payload`, which failed to decode as it came, where another attempt is worth it; else why it is malformed.
    pub fn of(payload: &'a [u8], rules: DecodeRules, malformed: MalformedMessage) -> Result<Self, MalformedText> {
        if !rules.lenient {
            let explained = std::str::from_utf8(payload).map_or(malformed, |text| malformed.explained(text, 0, false));
            return Err(explained.into());
        }
        if payload.is_empty() {
            return Err(MalformedMessage::Empty.into());
        }
        let Some(packing) = Packing::of(payload) else { return Ok(Self::as_it_came(payload, malformed)?) };
        match packing.unpack(payload) {
            Ok(unpacked) => Self::unpacked(&unpacked, packing)
                .map_err(|malformed| MalformedText { malformed, packing: Some(packing) }),
            Err(failure) => Ok(Self::not_unpacked(payload, packing, failure, malformed)?),
        }
    }

    /// The text of a payload that is not compressed.
    fn as_it_came(payload: &'a [u8], malformed: MalformedMessage) -> Result<Self, MalformedMessage> {
        match text_of(payload)? {
            Self { text: Cow::Borrowed(text), offset: 0, .. } => Err(malformed.explained(text, 0, false)),
            recovered => Ok(recovered),
        }
    }

    /// The text of what was unpacked.
    fn unpacked(unpacked: &[u8], packing: Packing) -> Result<Self, MalformedMessage> {
        let recovered = text_of(unpacked).map_err(|malformed| match Packing::of(unpacked) {
            Some(again) if again.is_certain(unpacked) => MalformedMessage::PackedAgain(again),
            _ => malformed,
        })?;
        let RecoveredText { text, offset, is_substituted, .. } = recovered;
        Ok(Self { text: text.into_owned().into(), packing: Some(packing), offset, is_substituted })
    }

    /// The text of a payload that begins as a compressed one and cannot be unpacked. Text and other formats may begin like
    /// zlib.
    fn not_unpacked(
        payload: &'a [u8],
        packing: Packing,
        failure: UnpackFailure,
        malformed: MalformedMessage,
    ) -> Result<Self, MalformedMessage> {
        let packed = MalformedMessage::Packed(packing, failure);
        if packing.is_certain(payload) && std::str::from_utf8(payload).is_err() {
            return Err(packed);
        }
        Self::as_it_came(payload, malformed).map_err(|other| match other {
            MalformedMessage::NotUtf8(_) => packed,
            other => other,
        })
    }

    /// Decodes the text.
    pub fn decode<'t>(&'t self, message: &mut DecodedMessage<'t>, rules: DecodeRules) -> Result<(), MalformedText> {
        message.decode_text(&self.text, rules).map_err(|malformed| self.malformed(malformed))
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Why the text cannot be read, told as far as it can be.
    pub fn malformed(&self, malformed: MalformedMessage) -> MalformedText {
        MalformedText {
            malformed: malformed.explained(&self.text, self.offset, self.is_substituted),
            packing: self.packing,
        }
    }
}

/// Why the recovered text of a message is malformed, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) struct MalformedText {
    malformed: MalformedMessage,
    packing: Option<Packing>,
}

impl From<MalformedMessage> for MalformedText {
    fn from(malformed: MalformedMessage) -> Self {
        Self { malformed, packing: None }
    }
}

impl fmt::Display for MalformedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.packing {
            Some(packing) => write!(f, "unpacked from {packing}, {}", self.malformed),
            None => self.malformed.fmt(f),
        }
    }
}

/// The text in `bytes`.
fn text_of(bytes: &[u8]) -> Result<RecoveredText<'_>, MalformedMessage> {
    if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{' | b'[', 0, _, 0, ..] | [0, b'{' | b'[', 0, ..]) {
        return Err(MalformedMessage::Utf16);
    }
    let rest = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let offset = bytes.len() - rest.len();
    let looks_like_json = matches!(rest.trim_ascii_start().first(), Some(b'{' | b'['));
    let text = std::str::from_utf8(rest);
    let foreign = match text {
        _ if looks_like_json => None,
        Ok(text) if text.chars().all(is_filler) => return Err(MalformedMessage::Blank),
        Ok(text) if !foreign::has_control_characters(text) => None,
        _ => foreign::of_bytes(rest),
    };
    match (text, foreign) {
        (_, Some(format)) => Err(MalformedMessage::Foreign(format)),
        (Ok(text), None) => Ok(RecoveredText { text: text.into(), packing: None, offset, is_substituted: false }),
        (Err(_), None) if looks_like_json => {
            Ok(RecoveredText { text: substituted(rest).into(), packing: None, offset, is_substituted: true })
        }
        (Err(error), None) => Err(MalformedMessage::NotUtf8(error.valid_up_to() + offset)),
    }
}

/// `bytes` with [`NOT_UTF8`] in the place of each byte that is no UTF-8. All others keep their places.
fn substituted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| NOT_UTF8));
    }
    text
}
