//! Fields of binary records: integers, floats, strings. Used by everything that has a binary form of its own, but for the
//! frames of MQTT and the batches of the logs.
//!
//! There are two forms of integers. In checkpoints and stored results unsigned integers are LEB128, signed ones are
//! zigzag-coded first, and strings have their length in front as such an integer (`u64`, `i64`, `str`, …). In journal records
//! integers are little-endian and of fixed size, and strings have a `u16` in front (`u64_le`, `str_u16`, …). Floats are
//! their 8 bytes, little-endian.

use thiserror::Error;

use crate::cursor::ByteCursor;

/// Bytes that are not of the expected form. Written so that "… in the header" can follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The data ends within a field.
    #[error("cut short")]
    CutShort,
    /// An integer that is too large for its field.
    #[error("an integer of more than {0} bits")]
    IntegerTooLarge(u32),
    /// A number of items, or a length, that is larger than what is left.
    #[error("a count beyond the data")]
    CountBeyondData,
    /// A string that is not UTF-8.
    #[error("a string that is not UTF-8")]
    NotUtf8,
    /// Something follows the last field.
    #[error("more bytes than the format has")]
    TrailingBytes,
    /// A field with a value that the format does not have.
    #[error("{0}")]
    Content(&'static str),
}

impl From<&'static str> for DecodeError {
    fn from(what: &'static str) -> Self {
        Self::Content(what)
    }
}

/// Appends an unsigned integer as LEB128.
#[inline]
pub(crate) fn put_u64(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer, zigzag-coded, as LEB128.
#[inline]
pub(crate) fn put_i64(value: i64, out: &mut Vec<u8>) {
    put_u64(((value << 1) ^ (value >> 63)) as u64, out);
}

/// Appends a float.
#[inline]
pub(crate) fn put_f64(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Appends integers or floats of 8 bytes each, together: for many of them this is faster than LEB128.
#[inline]
pub(crate) fn put_words<const N: usize>(words: [u64; N], out: &mut Vec<u8>) {
    out.extend_from_slice(words.map(u64::to_le_bytes).as_flattened());
}

/// Appends bytes with their length in front, as LEB128.
#[inline]
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_u64(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends a string with its length in front, as a `u16`. The string must not be longer than 65,535 bytes; MQTT's never
/// are [MQTT-1.5.4].
#[inline]
pub(crate) fn put_str_u16(text: &str, out: &mut Vec<u8>) {
    debug_assert!(text.len() <= usize::from(u16::MAX));
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Reads fields from front to back. After an error the position is anywhere within the field.
#[derive(Debug)]
pub(crate) struct FieldReader<'a> {
    cursor: ByteCursor<'a>,
}

impl<'a> FieldReader<'a> {
    /// A reader of `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { cursor: ByteCursor::new(bytes) }
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.cursor.u8().ok_or(DecodeError::CutShort)
    }

    /// An unsigned integer in LEB128.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::IntegerTooLarge(64));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::IntegerTooLarge(64))
    }

    /// An unsigned integer of at most 32 bits in LEB128.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.u64()?).map_err(|_| DecodeError::IntegerTooLarge(32))
    }

    /// A signed integer, zigzag-coded, in LEB128.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number of items that follow, each of at least one byte, in LEB128.
    pub fn count(&mut self) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u64()?).map_err(|_| DecodeError::CountBeyondData)?;
        if count > self.cursor.rest().len() { Err(DecodeError::CountBeyondData) } else { Ok(count) }
    }

    /// Bytes with their length in front, in LEB128.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count()?;
        self.take(len)
    }

    /// A string with its length in front, in LEB128.
    pub fn str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::NotUtf8)
    }

    /// A `u16`, little-endian.
    #[inline]
    pub fn u16_le(&mut self) -> Result<u16, DecodeError> {
        self.cursor.u16().ok_or(DecodeError::CutShort)
    }

    /// A `u32`, little-endian.
    #[inline]
    pub fn u32_le(&mut self) -> Result<u32, DecodeError> {
        self.cursor.u32().ok_or(DecodeError::CutShort)
    }

    /// A `u64`, little-endian.
    #[inline]
    pub fn u64_le(&mut self) -> Result<u64, DecodeError> {
        self.cursor.u64().ok_or(DecodeError::CutShort)
    }

    /// An `i64`, little-endian.
    #[inline]
    pub fn i64_le(&mut self) -> Result<i64, DecodeError> {
        self.cursor.i64().ok_or(DecodeError::CutShort)
    }

    /// A float: 8 bytes, little-endian.
    #[inline]
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.u64_le().map(f64::from_bits)
    }

    /// `N` times a `u64`, little-endian.
    pub fn words<const N: usize>(&mut self) -> Result<[u64; N], DecodeError> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.u64_le()?;
        }
        Ok(words)
    }

    /// A string with its length in front, as a `u16`, little-endian.
    #[inline]
    pub fn str_u16(&mut self) -> Result<&'a str, DecodeError> {
        let len = usize::from(self.u16_le()?);
        std::str::from_utf8(self.take(len)?).map_err(|_| DecodeError::NotUtf8)
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        self.cursor.slice(len).ok_or(DecodeError::CutShort)
    }

    /// Everything that is left.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.cursor.rest()
    }

    /// Requires that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`].
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.cursor.rest().is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn widths() {
        let mut out = Vec::new();
        put_u64(127, &mut out);
        put_u64(128, &mut out);
        put_i64(-1, &mut out);
        assert_eq!(out, [0x7f, 0x80, 0x01, 0x01]);
    }

    #[test]
    fn overlong_integers_are_refused() {
        assert!(FieldReader::new(&[0xff; 11]).u64().is_err());
        assert!(FieldReader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).u64().is_err());
        assert!(FieldReader::new(&[0x80]).u64().is_err());
        assert!(FieldReader::new(&[5, 1]).bytes().is_err());
    }

    #[test]
    fn fixed_sizes() {
        let mut out = Vec::new();
        put_str_u16("é", &mut out);
        out.extend_from_slice(&7_u16.to_le_bytes());
        out.extend_from_slice(&(-2_i64).to_le_bytes());
        out.extend_from_slice(b"rest");
        let mut reader = FieldReader::new(&out);
        assert_eq!(reader.str_u16(), Ok("é"));
        assert_eq!((reader.u16_le(), reader.i64_le()), (Ok(7), Ok(-2)));
        assert_eq!(reader.take(5), Err(DecodeError::CutShort));
        assert_eq!(reader.end(), Err(DecodeError::TrailingBytes));
        assert_eq!(reader.rest(), b"rest");
        assert_eq!(FieldReader::new(&[1, 0, 0xff]).str_u16(), Err(DecodeError::NotUtf8));
        assert_eq!(FieldReader::new(&[1, 0]).str_u16(), Err(DecodeError::CutShort));
    }

    proptest! {
        #[test]
        fn values_read_back(unsigned: u64, signed: i64, float: f64, text: String) {
            let mut out = Vec::new();
            put_u64(unsigned, &mut out);
            put_i64(signed, &mut out);
            put_f64(float, &mut out);
            put_bytes(text.as_bytes(), &mut out);
            put_words([unsigned, 1], &mut out);
            let mut reader = FieldReader::new(&out);
            prop_assert_eq!(reader.u64(), Ok(unsigned));
            prop_assert_eq!(reader.i64(), Ok(signed));
            prop_assert_eq!(reader.f64().unwrap().to_bits(), float.to_bits());
            prop_assert_eq!(reader.str(), Ok(text.as_str()));
            prop_assert_eq!(reader.words(), Ok([unsigned, 1]));
            prop_assert_eq!(reader.end(), Ok(()));
        }
    }
}
