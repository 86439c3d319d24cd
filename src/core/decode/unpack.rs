//! Unpacks payloads that devices compressed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};

use flate2::bufread::{GzDecoder, ZlibDecoder};

use crate::core::decode::malformed::MalformedMessage;
use crate::core::json::is_filler;

/// A payload may unpack to this many times its own size, at least to [`SMALLEST_LIMIT_BYTES`], at most to
/// [`LARGEST_LIMIT_BYTES`]. The limits are part of the results: a replay of the journal must find the same ones.
const LARGEST_RATIO: usize = 64;
const SMALLEST_LIMIT_BYTES: usize = 64 << 10;
const LARGEST_LIMIT_BYTES: usize = 4 << 20;

/// How a payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum Packing {
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Zlib,
}

impl Packing {
    /// The packing that the first bytes tell.
    pub fn of(payload: &[u8]) -> Option<Self> {
        match *payload {
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [cmf, flags, ..] if is_zlib(cmf, flags) => Some(Self::Zlib),
            _ => None,
        }
    }

    /// Whether other formats seldom begin like `payload`, which does not unpack.
    pub fn is_certain(self, payload: &[u8]) -> bool {
        self == Self::Gzip || payload.first() == Some(&LARGEST_WINDOW)
    }

    /// Unpacks `payload`.
    pub fn unpack(self, payload: &[u8]) -> Result<Vec<u8>, UnpackFailure> {
        let limit = payload.len().saturating_mul(LARGEST_RATIO).clamp(SMALLEST_LIMIT_BYTES, LARGEST_LIMIT_BYTES);
        let mut unpacked = Vec::with_capacity(payload.len().saturating_mul(4).min(limit));
        let mut rest = payload;
        match self {
            // A file of gzip may have several members.
            Self::Gzip => {
                while Self::of(rest) == Some(Self::Gzip) {
                    rest = read(GzDecoder::new(rest), limit, &mut unpacked)?.into_inner();
                }
            }
            Self::Zlib => rest = read(ZlibDecoder::new(rest), limit, &mut unpacked)?.into_inner(),
        }
        let is_filled = rest.iter().all(|byte| is_filler(char::from(*byte)));
        if is_filled { Ok(unpacked) } else { Err(UnpackFailure::Damaged) }
    }
}

/// The payload, unpacked if it is compressed. What begins like zlib and does not unpack is something else.
pub(in crate::core) fn unpacked(payload: &[u8]) -> Result<Cow<'_, [u8]>, MalformedMessage> {
    match Packing::of(payload).map(|packing| (packing, packing.unpack(payload))) {
        None | Some((Packing::Zlib, Err(_))) => Ok(Cow::Borrowed(payload)),
        Some((_, Ok(unpacked))) => Ok(Cow::Owned(unpacked)),
        Some((packing, Err(failure))) => Err(MalformedMessage::Packed(packing, failure)),
    }
}

/// First byte of zlib data with the largest window, which nearly all devices use.
const LARGEST_WINDOW: u8 = 0x78;

/// Whether these are the first two bytes of zlib data: the method is deflate, the window is at most 32 KiB, both bytes are a
/// multiple of 31, and there is no preset dictionary.
fn is_zlib(cmf: u8, flags: u8) -> bool {
    let is_deflate = cmf & 0x0f == 8 && cmf <= LARGEST_WINDOW;
    is_deflate && u16::from_be_bytes([cmf, flags]).is_multiple_of(31) && flags & 0x20 == 0
}

/// Reads everything from `decoder` and returns it. Reads at most one byte beyond `limit`.
fn read<D: Read>(mut decoder: D, limit: usize, unpacked: &mut Vec<u8>) -> Result<D, UnpackFailure> {
    let room = limit.saturating_sub(unpacked.len()) as u64;
    let outcome = decoder.by_ref().take(room + 1).read_to_end(unpacked);
    match outcome.map_err(|error| error.kind()) {
        _ if unpacked.len() > limit => Err(UnpackFailure::TooLarge(limit)),
        Ok(_) => Ok(decoder),
        Err(io::ErrorKind::UnexpectedEof) => Err(UnpackFailure::CutOff),
        Err(_) => Err(UnpackFailure::Damaged),
    }
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
        })
    }
}

/// Why a payload cannot be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::core) enum UnpackFailure {
    /// It ends before it is complete.
    CutOff,
    /// Its content contradicts its checksum or its format.
    Damaged,
    /// It unpacks to more than this many bytes.
    TooLarge(usize),
}

impl fmt::Display for UnpackFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff => f.write_str("it ends before it is complete; send all of it (is a send buffer too small?)"),
            Self::Damaged => f.write_str("its content is damaged; send it unchanged, or without compression"),
            Self::TooLarge(limit) => {
                write!(
                    f,
                    "it unpacks to more than {limit} bytes; send several messages, or send it without compression"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(payload: &[u8]) -> Option<Result<Vec<u8>, UnpackFailure>> {
        Packing::of(payload).map(|packing| packing.unpack(payload))
    }

    #[test]
    fn both_formats_unpack() {
        assert_eq!(unpack(&gzip(b"{\"a\":1}")), Some(Ok(b"{\"a\":1}".to_vec())));
        for level in [0, 1, 6, 9] {
            assert_eq!(unpack(&zlib(b"{\"a\":1}", level)), Some(Ok(b"{\"a\":1}".to_vec())));
        }
        let members = [gzip(b"[1,"), gzip(b"2]"), b"\0\n".to_vec()].concat();
        assert_eq!(unpack(&members), Some(Ok(b"[1,2]".to_vec())));
        assert_eq!(unpack(b"{}"), None);
        assert_eq!(unpack(b"x"), None);
        assert_eq!(unpack(b""), None);
    }

    #[test]
    fn windows_of_all_sizes_unpack() {
        let with_header = |header: [u8; 2]| [&header[..], &zlib(b"{\"a\":1}", 6)[2..]].concat();
        for header in [[0x08, 0x1d], [0x18, 0x19], [0x28, 0x15], [0x38, 0x11], [0x48, 0x89], [0x58, 0x85], [0x68, 0x81]]
        {
            assert_eq!(unpack(&with_header(header)), Some(Ok(b"{\"a\":1}".to_vec())), "{header:02x?}");
        }
        // A window of 64 KiB, another method, a wrong check, a preset dictionary.
        for header in [[0x88, 0x1c], [0x77, 0x85], [0x08, 0x1e], [0x78, 0xbb]] {
            assert_eq!(unpack(&with_header(header)), None, "{header:02x?}");
        }
    }

    #[test]
    fn what_is_cut_or_damaged_is_told_apart() {
        assert_eq!(unpack(&[gzip(b"{}"), b"\x0b\x0c\0 ".to_vec()].concat()), Some(Ok(b"{}".to_vec())));
        let whole = gzip(b"{\"metric\":\"t\",\"value\":1}");
        for len in 3..whole.len() {
            assert_eq!(unpack(&whole[..len]), Some(Err(UnpackFailure::CutOff)), "{len}");
        }
        let mut damaged = whole.clone();
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        assert_eq!(unpack(&damaged), Some(Err(UnpackFailure::Damaged)));
        assert_eq!(unpack(&[whole, b"x".to_vec()].concat()), Some(Err(UnpackFailure::Damaged)));
    }

    #[test]
    fn the_size_is_bounded() {
        let small = gzip(&vec![b' '; SMALLEST_LIMIT_BYTES]);
        assert_eq!(unpack(&small).unwrap().unwrap().len(), SMALLEST_LIMIT_BYTES);
        let bomb = gzip(&vec![b' '; SMALLEST_LIMIT_BYTES + 1]);
        assert_eq!(unpack(&bomb), Some(Err(UnpackFailure::TooLarge(SMALLEST_LIMIT_BYTES))));
        let large = gzip(&vec![b' '; 64 << 20]);
        let limit = (large.len() * LARGEST_RATIO).min(LARGEST_LIMIT_BYTES);
        assert_eq!(unpack(&large), Some(Err(UnpackFailure::TooLarge(limit))));
        let members: Vec<u8> = std::iter::repeat_n(gzip(&[b' '; 8_000]), 3_000).flatten().collect();
        assert_eq!(unpack(&members), Some(Err(UnpackFailure::TooLarge(LARGEST_LIMIT_BYTES))));
    }
}
