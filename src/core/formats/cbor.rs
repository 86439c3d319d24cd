//! A reader of CBOR (RFC 8949), item by item, that keeps to the bytes it is given and to a depth.

use std::borrow::Cow;

use crate::cursor::ByteCursor;

/// Deepest nesting of arrays, maps and tags.
const MAX_DEPTH: u32 = 16;
/// The head of the item that ends one of indefinite length.
const BREAK: u8 = 0xff;

/// One item, or the head of one that holds others.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum CborItem<'a> {
    /// An integer.
    Integer(i128),
    /// A float.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `null`, `undefined`, or a simple value without a meaning.
    Null,
    /// Bytes.
    Bytes,
    /// Text.
    Text(Cow<'a, str>),
    /// So many items follow; `None`: until [`CborReader::ends`].
    Array(Option<u64>),
    /// So many pairs follow; `None`: until [`CborReader::ends`].
    Map(Option<u64>),
    /// An item with this tag follows.
    Tag(u64),
}

/// Reads CBOR from front to back.
#[derive(Debug)]
pub(super) struct CborReader<'a> {
    cursor: ByteCursor<'a>,
    len: usize,
}

impl<'a> CborReader<'a> {
    /// A reader of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { cursor: ByteCursor::new(bytes), len: bytes.len() }
    }

    /// Offset of the next byte.
    pub fn position(&self) -> usize {
        self.len - self.cursor.rest().len()
    }

    /// Whether nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.cursor.rest().is_empty()
    }

    /// Whether an array or a map with `left` items to come ends here; counts the item that comes, and reads the end of one of
    /// indefinite length.
    pub fn ends(&mut self, left: &mut Option<u64>) -> bool {
        match left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => {
                let ends = self.cursor.rest().first() == Some(&BREAK);
                if ends {
                    self.cursor.u8();
                }
                ends
            }
        }
    }

    /// Reads an item, or the head of one that holds others.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub fn item(&mut self) -> Result<CborItem<'a>, String> {
        let at = self.position();
        let head = self.byte()?;
        let (major, low) = (head >> 5, head & 0x1f);
        let indefinite = low == 31;
        Ok(match major {
            2 | 3 if indefinite => return self.chunks(major, at),
            4 if indefinite => CborItem::Array(None),
            5 if indefinite => CborItem::Map(None),
            0 => CborItem::Integer(self.argument(low, at)?.into()),
            1 => CborItem::Integer(-1 - i128::from(self.argument(low, at)?)),
            2 => {
                self.slice(low, at)?;
                CborItem::Bytes
            }
            3 => CborItem::Text(self.text(low, at)?.into()),
            4 => CborItem::Array(Some(self.argument(low, at)?)),
            5 => CborItem::Map(Some(self.argument(low, at)?)),
            6 => CborItem::Tag(self.argument(low, at)?),
            _ => self.simple(low, at)?,
        })
    }

    /// Skips the items that follow `head`.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub fn skip_rest(&mut self, head: &CborItem<'a>, depth: u32) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels (at byte {})", self.position()));
        }
        let (mut left, items_each) = match head {
            CborItem::Array(left) => (*left, 1),
            CborItem::Map(left) => (*left, 2),
            CborItem::Tag(_) => (Some(1), 1),
            _ => return Ok(()),
        };
        while !self.ends(&mut left) {
            for _ in 0..items_each {
                let head = self.item()?;
                self.skip_rest(&head, depth + 1)?;
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.cursor.u8().ok_or_else(|| self.cut_short())
    }

    fn cut_short(&self) -> String {
        format!("cut short: the data ends within an item (at byte {})", self.len)
    }

    fn argument(&mut self, low: u8, at: usize) -> Result<u64, String> {
        let argument = match low {
            0..=23 => Some(low.into()),
            24 => self.cursor.u8().map(u64::from),
            25 => self.cursor.array().map(|bytes| u16::from_be_bytes(bytes).into()),
            26 => self.cursor.array().map(|bytes| u32::from_be_bytes(bytes).into()),
            27 => self.cursor.array().map(u64::from_be_bytes),
            _ => return Err(format!("no CBOR: an item with a head that the format does not have (at byte {at})")),
        };
        argument.ok_or_else(|| self.cut_short())
    }

    fn slice(&mut self, low: u8, at: usize) -> Result<&'a [u8], String> {
        let len = usize::try_from(self.argument(low, at)?).unwrap_or(usize::MAX);
        self.cursor.slice(len).ok_or_else(|| self.cut_short())
    }

    fn text(&mut self, low: u8, at: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.slice(low, at)?).map_err(|_| format!("a text that is not UTF-8 (at byte {at})"))
    }

    /// The chunks of bytes or text of indefinite length.
    fn chunks(&mut self, major: u8, at: usize) -> Result<CborItem<'a>, String> {
        let mut text = String::new();
        loop {
            let head = self.byte()?;
            match (head >> 5, head & 0x1f) {
                _ if head == BREAK => break,
                (2, low) if major == 2 && low != 31 => drop(self.slice(low, at)?),
                (3, low) if major == 3 && low != 31 => text.push_str(self.text(low, at)?),
                _ => return Err(format!("no CBOR: a text of pieces with a piece that is none (at byte {at})")),
            }
        }
        Ok(if major == 2 { CborItem::Bytes } else { CborItem::Text(text.into()) })
    }

    fn simple(&mut self, low: u8, at: usize) -> Result<CborItem<'a>, String> {
        Ok(match low {
            20 => CborItem::Bool(false),
            21 => CborItem::Bool(true),
            0..=23 => CborItem::Null,
            25 => {
                let bits = self.cursor.array().map(u16::from_be_bytes);
                CborItem::Float(half(bits.ok_or_else(|| self.cut_short())?))
            }
            26 => {
                let float = self.cursor.array().map(f32::from_be_bytes);
                CborItem::Float(float.ok_or_else(|| self.cut_short())?.into())
            }
            27 => CborItem::Float(self.cursor.array().map(f64::from_be_bytes).ok_or_else(|| self.cut_short())?),
            31 => return Err(format!("no CBOR: an end where an item should be (at byte {at})")),
            _ => {
                self.argument(low, at)?;
                CborItem::Null
            }
        })
    }
}

/// A float of 16 bits.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], expected: CborItem<'_>) {
        let mut reader = CborReader::new(bytes);
        assert_eq!(reader.item(), Ok(expected), "{bytes:x?}");
        assert!(reader.is_at_end());
    }

    /// From RFC 8949, appendix A.
    #[test]
    fn items_of_the_standard() {
        check(&[0x19, 0x03, 0xe8], CborItem::Integer(1_000));
        check(&[0x1b, 255, 255, 255, 255, 255, 255, 255, 255], CborItem::Integer(u64::MAX.into()));
        check(&[0x38, 0x63], CborItem::Integer(-100));
        check(&[0xf9, 0x3e, 0x00], CborItem::Float(1.5));
        check(&[0xf9, 0x00, 0x01], CborItem::Float(5.960_464_477_539_063e-8));
        check(&[0xf9, 0xc4, 0x00], CborItem::Float(-4.0));
        check(&[0xf9, 0xfc, 0x00], CborItem::Float(f64::NEG_INFINITY));
        check(&[0xfa, 0x47, 0xc3, 0x50, 0x00], CborItem::Float(100_000.0));
        check(&[0xf5], CborItem::Bool(true));
        check(&[0xf6], CborItem::Null);
        check(&[0x62, 0xc3, 0xbc], CborItem::Text("ü".into()));
        check(
            &[0x7f, 0x65, 0x73, 0x74, 0x72, 0x65, 0x61, 0x64, 0x6d, 0x69, 0x6e, 0x67, 0xff],
            CborItem::Text("streaming".into()),
        );
        check(&[0x5f, 0x42, 1, 2, 0x41, 3, 0xff], CborItem::Bytes);
    }

    #[test]
    fn faults_name_their_place() {
        let refused = |bytes: &[u8]| CborReader::new(bytes).item().unwrap_err();
        assert_eq!(refused(&[0x19, 3]), "cut short: the data ends within an item (at byte 2)");
        assert_eq!(
            refused(&[0x7b, 255, 255, 255, 255, 255, 255, 255, 255]),
            "cut short: the data ends within an item (at byte 9)"
        );
        assert_eq!(refused(&[0x61, 0xff]), "a text that is not UTF-8 (at byte 0)");
        assert!(refused(&[0xff]).contains("an end where"));
        assert!(refused(&[0x1c]).contains("does not have"));
        assert!(refused(&[0x7f, 0x01]).contains("a piece that is none"));
    }

    #[test]
    fn depth_is_bounded() {
        let bytes = [0x81; 1_000];
        let mut reader = CborReader::new(&bytes);
        let head = reader.item().unwrap();
        assert!(reader.skip_rest(&head, 0).unwrap_err().contains("deeper than 16"));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = CborReader::new(&bytes);
            while let Ok(head) = reader.item() {
                if reader.skip_rest(&head, 0).is_err() {
                    break;
                }
            }
        }
    }
}
