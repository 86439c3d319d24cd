//! Tells what a payload looks like that is no JSON, so that its error can name it.

use std::fmt;

use crate::core::json::is_filler;

/// A format that is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum ForeignFormat {
    /// RFC 8949.
    Cbor,
    /// MessagePack.
    MessagePack,
    /// BSON, of MongoDB.
    Bson,
    /// Protocol Buffers, for example of Sparkplug B.
    Protobuf,
    /// Compressed with Zstandard.
    Zstandard,
    /// XML or HTML.
    Xml,
    /// Line protocol of InfluxDB.
    LineProtocol,
    /// A plain number.
    Number,
    /// Other text.
    Text,
}

impl fmt::Display for ForeignFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EXAMPLE: &str = r#"{"metric":"temperature","value":21.5}"#;
        let name = match self {
            Self::Cbor => "CBOR",
            Self::MessagePack => "MessagePack",
            Self::Bson => "BSON",
            Self::Protobuf => "Protocol Buffers (as in Sparkplug B)",
            Self::Zstandard => {
                return write!(
                    f,
                    "the payload looks like Zstandard, which weir does not unpack; compress it with gzip or zlib, or send \
                     JSON such as {EXAMPLE}"
                );
            }
            Self::Xml => "XML",
            Self::LineProtocol => "the line protocol of InfluxDB",
            Self::Number => return write!(f, "the payload is a number alone; send it with its metric: {EXAMPLE}"),
            Self::Text => return write!(f, "the payload is text that is no JSON; send JSON such as {EXAMPLE}"),
        };
        write!(f, "the payload looks like {name}; send JSON such as {EXAMPLE}")
    }
}

/// The format of a text that is no object and no array.
pub(super) fn of_text(text: &str) -> Option<ForeignFormat> {
    let text = text.trim_matches(is_filler);
    if text.starts_with('<') {
        return Some(ForeignFormat::Xml);
    }
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        return Some(ForeignFormat::Number);
    }
    is_line_protocol(text).then_some(ForeignFormat::LineProtocol)
}

/// Whether the first line is `measurement[,tag=value…] field=value[,field=value…] [time]`.
fn is_line_protocol(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default();
    let mut parts = line.split(' ').filter(|part| !part.is_empty());
    let (Some(series), Some(fields)) = (parts.next(), parts.next()) else { return false };
    let mut tags = series.split(',');
    let is_pair = |pair: &str| pair.split_once('=').is_some_and(|(key, value)| !key.is_empty() && !value.is_empty());
    let is_measurement = tags.next().is_some_and(|name| !name.is_empty() && !name.contains(['=', '{', '"', ':']));
    is_measurement && tags.all(is_pair) && fields.split(',').next().is_some_and(is_pair)
}

/// Whether `text` has control characters, as a binary format has.
pub(super) fn has_control_characters(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_control() && !is_filler(c))
}

/// The binary format that `bytes` are of as a whole.
pub(super) fn of_bytes(bytes: &[u8]) -> Option<ForeignFormat> {
    let is_container =
        |bytes: &[u8], first: std::ops::RangeInclusive<u8>| bytes.first().is_some_and(|b| first.contains(b));
    let ends = |rest: Option<&[u8]>| rest.is_some_and(<[u8]>::is_empty);
    if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Some(ForeignFormat::Zstandard);
    }
    if is_container(bytes, 0x80..=0xdb) && ends(skip_cbor(bytes, 0)) {
        return Some(ForeignFormat::Cbor);
    }
    if (is_container(bytes, 0x80..=0x9f) || is_container(bytes, 0xdc..=0xdf)) && ends(skip_message_pack(bytes, 0)) {
        return Some(ForeignFormat::MessagePack);
    }
    let length = bytes.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
    if length == Some(bytes.len()) && bytes.ends_with(&[0]) {
        return Some(ForeignFormat::Bson);
    }
    is_protobuf(bytes).then_some(ForeignFormat::Protobuf)
}

/// Deepest nesting of binary formats that is looked at.
const MAX_DEPTH: u32 = 16;

/// The bytes behind one item of CBOR. Items without a stated length are not looked at beyond their first byte.
fn skip_cbor(bytes: &[u8], depth: u32) -> Option<&[u8]> {
    let (&first, rest) = bytes.split_first()?;
    let (argument, mut rest) = match first & 0x1f {
        short @ 0..=23 => (u64::from(short), rest),
        24 => big_endian(rest, 1)?,
        25 => big_endian(rest, 2)?,
        26 => big_endian(rest, 4)?,
        27 => big_endian(rest, 8)?,
        31 if matches!(first >> 5, 4 | 5) => return skip_until_break(rest, depth),
        _ => return None,
    };
    let nested = match first >> 5 {
        2 | 3 => return rest.get(usize::try_from(argument).ok()?..),
        4 => argument,
        5 => argument.checked_mul(2)?,
        6 => 1,
        _ => 0,
    };
    for _ in 0..nested {
        rest = skip_cbor(rest, next(depth)?)?;
    }
    Some(rest)
}

/// The bytes behind the items of a CBOR array or map that ends with a break.
fn skip_until_break(mut rest: &[u8], depth: u32) -> Option<&[u8]> {
    while *rest.first()? != 0xff {
        rest = skip_cbor(rest, next(depth)?)?;
    }
    rest.get(1..)
}

/// The bytes behind one item of MessagePack.
fn skip_message_pack(bytes: &[u8], depth: u32) -> Option<&[u8]> {
    let (&first, rest) = bytes.split_first()?;
    let sized = |width: usize, extra: u64| {
        let (length, rest) = big_endian(rest, width)?;
        rest.get(usize::try_from(length.checked_add(extra)?).ok()?..)
    };
    let (nested, mut rest) = match first {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => return Some(rest),
        0x80..=0x8f => (u64::from(first & 0x0f) * 2, rest),
        0x90..=0x9f => (u64::from(first & 0x0f), rest),
        0xa0..=0xbf => return rest.get(usize::from(first & 0x1f)..),
        0xc4 | 0xd9 => return sized(1, 0),
        0xc5 | 0xda => return sized(2, 0),
        0xc6 | 0xdb => return sized(4, 0),
        0xc7 => return sized(1, 1),
        0xc8 => return sized(2, 1),
        0xc9 => return sized(4, 1),
        0xcc | 0xd0 => return rest.get(1..),
        0xcd | 0xd1 => return rest.get(2..),
        0xca | 0xce | 0xd2 => return rest.get(4..),
        0xcb | 0xcf | 0xd3 => return rest.get(8..),
        0xd4..=0xd8 => return rest.get(1 + (1usize << (first - 0xd4))..),
        0xdc => big_endian(rest, 2)?,
        0xdd => big_endian(rest, 4)?,
        0xde => big_endian(rest, 2).map(|(count, rest)| (count * 2, rest))?,
        0xdf => big_endian(rest, 4).map(|(count, rest)| (count * 2, rest))?,
        0xc1 => return None,
    };
    for _ in 0..nested {
        rest = skip_message_pack(rest, next(depth)?)?;
    }
    Some(rest)
}

fn next(depth: u32) -> Option<u32> {
    (depth < MAX_DEPTH).then_some(depth + 1)
}

fn big_endian(bytes: &[u8], width: usize) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(width)?;
    Some((number.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)), rest))
}

/// Whether `bytes` are fields of Protocol Buffers from the first byte to the last.
fn is_protobuf(mut bytes: &[u8]) -> bool {
    let skip = |bytes| -> Option<&[u8]> {
        let (tag, rest) = varint(bytes)?;
        let rest = match tag & 7 {
            _ if !(1..1 << 29).contains(&(tag >> 3)) => return None,
            0 => varint(rest)?.1,
            1 => rest.get(8..)?,
            2 => {
                let (length, rest) = varint(rest)?;
                rest.get(usize::try_from(length).ok()?..)?
            }
            5 => rest.get(4..)?,
            _ => return None,
        };
        Some(rest)
    };
    let is_any = !bytes.is_empty();
    while !bytes.is_empty() {
        let Some(rest) = skip(bytes) else { return false };
        bytes = rest;
    }
    is_any
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte < 0x80 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn binary_formats() {
        let check = |bytes: &[u8], expected| assert_eq!(of_bytes(bytes), expected, "{bytes:02x?}");
        // {"t":21.5} of cbor2, msgpack, protoc, bson.
        check(b"\xa1\x61t\xfb\x40\x35\x80\0\0\0\0\0", Some(ForeignFormat::Cbor));
        check(b"\xbf\x61t\x18\x2a\xff", Some(ForeignFormat::Cbor));
        check(b"\xd9\xd9\xf7\x82\x01\x20", Some(ForeignFormat::Cbor));
        check(b"\x81\xa1t\xcb\x40\x35\x80\0\0\0\0\0", Some(ForeignFormat::MessagePack));
        check(b"\xde\0\x01\xa1t\xcd\x01\x00", Some(ForeignFormat::MessagePack));
        check(b"\x92\x81\xa1t\x01\xc0", Some(ForeignFormat::MessagePack));
        check(b"\x0a\x01t\x11\0\0\0\0\0\x80\x35\x40\x18\x96\x01", Some(ForeignFormat::Protobuf));
        check(b"\x10\0\0\0\x01t\0\0\0\0\0\0\x80\x35\x40\0", Some(ForeignFormat::Bson));
        check(b"\x28\xb5\x2f\xfd\x04", Some(ForeignFormat::Zstandard));
        check(b"\xff\0\xfe", None);
        check(b"", None);
    }

    #[test]
    fn texts() {
        let check = |text: &str, expected| assert_eq!(of_text(text), expected, "{text}");
        check(" 21.5\r\n", Some(ForeignFormat::Number));
        check("<t>21.5</t>", Some(ForeignFormat::Xml));
        check("weather,room=a t=21.5,h=40 1732098765123", Some(ForeignFormat::LineProtocol));
        check("weather t=21.5", Some(ForeignFormat::LineProtocol));
        check("online", None);
        check("21.5 C", None);
        check("a b", None);
        check("NaN", None);
        check("hum=40 temp=21", None);
    }

    #[test]
    fn deep_nesting_ends() {
        assert_eq!(of_bytes(&[0x81; 100_000]), None);
        assert_eq!(of_bytes(&[0x9f; 100_000]), None);
        assert_eq!(of_bytes(&[0xdd, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(of_bytes(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "\\PC{0,40}") {
            of_bytes(&bytes);
            of_text(&text);
        }
    }
}
