//! Reading stored integers and byte strings off the front of a slice. Integers are little-endian, as in every file of
//! weir. MQTT's own fields are big-endian and read by `mqtt::wire`.

/// The part of a slice that is not read yet. Every method returns `None`, and reads nothing, when too few bytes are
/// left; the caller knows which error that is in its format.
#[derive(Debug, Clone, Copy)]
pub struct ByteCursor<'a> {
    rest: &'a [u8],
}

impl<'a> ByteCursor<'a> {
    /// A cursor at the start of `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// All bytes that are not read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    #[inline]
    pub fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        self.rest.split_off(..len)
    }

    /// The next `N` bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    /// The next byte.
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        self.rest.split_off_first().copied()
    }

    /// The next 2 bytes.
    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next 4 bytes.
    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next 8 bytes.
    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next 8 bytes as a signed integer.
    #[inline]
    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_bytes_are_not_read() {
        let mut cursor = ByteCursor::new(&[1, 2, 0, 3, 4]);
        assert_eq!((cursor.u8(), cursor.u16()), (Some(1), Some(2)));
        assert_eq!(
            (cursor.u32(), cursor.u64(), cursor.i64(), cursor.array::<3>(), cursor.slice(3)),
            (None, None, None, None, None)
        );
        assert_eq!(cursor.rest(), [3, 4]);
        assert_eq!(cursor.slice(2), Some(&[3, 4][..]));
        assert_eq!((cursor.u8(), cursor.slice(0)), (None, Some(&[][..])));
    }
}
