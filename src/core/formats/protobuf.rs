//! A reader of protocol buffers, field by field: it copies nothing and keeps to the bytes it is given.

use crate::cursor::ByteCursor;

/// Value of a field as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireValue<'a> {
    /// An integer, a boolean or an enumeration.
    Varint(u64),
    /// 8 bytes.
    Fixed64(u64),
    /// 4 bytes.
    Fixed32(u32),
    /// Text, bytes, or a message.
    Bytes(&'a [u8]),
}

impl WireValue<'_> {
    /// The integer, whatever its width; 0 for bytes.
    pub fn integer(self) -> u64 {
        match self {
            Self::Varint(value) | Self::Fixed64(value) => value,
            Self::Fixed32(value) => value.into(),
            Self::Bytes(_) => 0,
        }
    }
}

/// Reads the fields of one message from front to back.
#[derive(Debug, Clone)]
pub(super) struct FieldsReader<'a> {
    cursor: ByteCursor<'a>,
    /// Offset of the end of the message in the payload.
    end: usize,
}

impl<'a> FieldsReader<'a> {
    /// A reader of a whole payload.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { cursor: ByteCursor::new(payload), end: payload.len() }
    }

    /// Offset of the next byte in the payload.
    pub fn position(&self) -> usize {
        self.end - self.cursor.rest().len()
    }

    /// A reader of a message that was just read as `bytes`.
    pub fn of_message(&self, bytes: &'a [u8]) -> Self {
        Self { cursor: ByteCursor::new(bytes), end: self.position() }
    }

    /// Number and value of the next field; `None` at the end.
    ///
    /// # Errors
    /// What is wrong, and at which byte of the payload.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<(u64, WireValue<'a>)>, String> {
        if self.cursor.rest().is_empty() {
            return Ok(None);
        }
        let at = self.position();
        let key = self.varint()?;
        let value = match key & 7 {
            0 => WireValue::Varint(self.varint()?),
            1 => WireValue::Fixed64(self.cursor.u64().ok_or_else(|| self.cut_short())?),
            5 => WireValue::Fixed32(self.cursor.u32().ok_or_else(|| self.cut_short())?),
            2 => {
                let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                WireValue::Bytes(self.cursor.slice(len).ok_or_else(|| self.cut_short())?)
            }
            _ => return Err(format!("no protocol buffer: a field of a kind that there is not (at byte {at})")),
        };
        match key >> 3 {
            0 => Err(format!("no protocol buffer: a field with number 0 (at byte {at})")),
            number => Ok(Some((number, value))),
        }
    }

    #[cold]
    fn cut_short(&self) -> String {
        format!("cut short: a field goes beyond the end of its message (at byte {})", self.position())
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.cursor.u8().ok_or_else(|| self.cut_short())?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(format!("no protocol buffer: an integer of more than 10 bytes (at byte {})", self.position()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_of_all_kinds() {
        let payload = [0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 2, 0x08, 7, 0x25, 2, 0, 0, 0];
        let mut reader = FieldsReader::new(&payload);
        assert_eq!(reader.next_field(), Ok(Some((1, WireValue::Varint(150)))));
        assert_eq!(reader.next_field(), Ok(Some((2, WireValue::Fixed64(1)))));
        assert_eq!(reader.next_field(), Ok(Some((3, WireValue::Bytes(&[0x08, 7])))));
        let mut inner = reader.of_message(&[0x08, 7]);
        assert_eq!(inner.position(), 14);
        assert_eq!(inner.next_field(), Ok(Some((1, WireValue::Varint(7)))));
        assert_eq!(inner.next_field(), Ok(None));
        assert_eq!(reader.next_field(), Ok(Some((4, WireValue::Fixed32(2)))));
        assert_eq!(reader.next_field(), Ok(None));
    }

    #[test]
    fn faults_name_their_place() {
        let refused = |payload: &[u8]| FieldsReader::new(payload).next_field().unwrap_err();
        assert_eq!(refused(&[0x1a, 9, 1]), "cut short: a field goes beyond the end of its message (at byte 2)");
        assert!(refused(&[0x08]).starts_with("cut short"));
        assert!(refused(&[0x0b]).contains("of a kind that there is not (at byte 0)"));
        assert!(refused(&[0x00, 0]).contains("number 0"));
        assert!(refused(&[0xff; 12]).contains("more than 10 bytes"));
    }

    proptest! {
        #[test]
        fn never_panics(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = FieldsReader::new(&payload);
            let mut fields = 0;
            while let Ok(Some(_)) = reader.next_field() {
                fields += 1;
            }
            prop_assert!(2 * fields <= payload.len());
        }
    }
}
