//! The binary form of integers, floats and strings in checkpoints and stored results.
//!
//! Unsigned integers are LEB128; signed ones are zigzag-coded first; floats are their 8 bytes, little-endian; strings have
//! their length in front.

use crate::cursor::ByteCursor;

/// Appends an unsigned integer.
#[inline]
pub(crate) fn put_u64(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer.
#[inline]
pub(crate) fn put_i64(value: i64, out: &mut Vec<u8>) {
    put_u64(((value << 1) ^ (value >> 63)) as u64, out);
}

/// Appends a float.
#[inline]
pub(crate) fn put_f64(value: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Appends integers or floats of 8 bytes each, together: many of them are faster so than as variable-length integers.
#[inline]
pub(crate) fn put_words<const N: usize>(words: [u64; N], out: &mut Vec<u8>) {
    out.extend_from_slice(words.map(u64::to_le_bytes).as_flattened());
}

/// Appends bytes with their length.
#[inline]
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_u64(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Reads what the `put` functions wrote. Every error is a sentence fragment.
#[derive(Debug)]
pub(crate) struct FieldReader<'a> {
    cursor: ByteCursor<'a>,
}

const CUT_SHORT: Invalid = "cut short";

/// What does not fit.
pub(crate) type Invalid = &'static str;

impl<'a> FieldReader<'a> {
    /// A reader of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { cursor: ByteCursor::new(bytes) }
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Invalid> {
        self.cursor.u8().ok_or(CUT_SHORT)
    }

    /// An unsigned integer.
    pub fn u64(&mut self) -> Result<u64, Invalid> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err("an integer of more than 64 bits");
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("an integer of more than 64 bits")
    }

    /// An unsigned integer of at most 32 bits.
    pub fn u32(&mut self) -> Result<u32, Invalid> {
        u32::try_from(self.u64()?).map_err(|_| "an integer of more than 32 bits")
    }

    /// A number of items that follow, each of at least one byte.
    pub fn count(&mut self) -> Result<usize, Invalid> {
        let count = usize::try_from(self.u64()?).map_err(|_| "a count beyond the data")?;
        if count > self.cursor.rest().len() { Err("a count beyond the data") } else { Ok(count) }
    }

    /// A signed integer.
    pub fn i64(&mut self) -> Result<i64, Invalid> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A float.
    pub fn f64(&mut self) -> Result<f64, Invalid> {
        self.word().map(f64::from_bits)
    }

    /// Several words.
    pub fn words<const N: usize>(&mut self) -> Result<[u64; N], Invalid> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.word()?;
        }
        Ok(words)
    }

    /// A word: 8 bytes, little-endian.
    pub fn word(&mut self) -> Result<u64, Invalid> {
        self.cursor.u64().ok_or(CUT_SHORT)
    }

    /// Bytes with their length.
    pub fn bytes(&mut self) -> Result<&'a [u8], Invalid> {
        let len = self.count()?;
        self.cursor.slice(len).ok_or(CUT_SHORT)
    }

    /// A string with its length.
    pub fn str(&mut self) -> Result<&'a str, Invalid> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a string that is not UTF-8")
    }

    /// Requires that nothing is left.
    pub fn end(&self) -> Result<(), Invalid> {
        if self.cursor.rest().is_empty() { Ok(()) } else { Err("more bytes than the format has") }
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
