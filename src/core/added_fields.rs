//! Fields that versions added to stored state after its first format.
//!
//! ```text
//! { tag u8, length, bytes }… 00
//! ```
//! Each field has a tag of its own within its list. A field that is empty is left out, so that state in which nothing is
//! special costs one byte. A version that adds a field adds a tag, and reads lists without it.

use crate::core::codec::{DecodeError, FieldReader, put_u64};

/// The tag that ends a list.
const END: u8 = 0;

/// Appends the field `tag`, which must not be 0, as `write` writes it; nothing if `write` appends nothing.
pub(super) fn put_field(tag: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    debug_assert_ne!(tag, END);
    let start = out.len();
    write(out);
    let length = out.len() - start;
    if length == 0 {
        return;
    }
    out.push(tag);
    put_u64(length as u64, out);
    let prefix = out.len() - start - length;
    if let Some(field) = out.get_mut(start..) {
        field.rotate_right(prefix);
    }
}

/// Ends a list of fields.
pub(super) fn end_fields(out: &mut Vec<u8>) {
    out.push(END);
}

/// Reads a list of fields: calls `read` with each tag and a reader of the field, which `read` must read to its end.
///
/// # Errors
/// What `read` returns, bytes that are no such list, and a field that is longer than what `read` reads.
pub(super) fn read_fields<'a>(
    reader: &mut FieldReader<'a>,
    mut read: impl FnMut(u8, &mut FieldReader<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    loop {
        let tag = reader.u8()?;
        if tag == END {
            return Ok(());
        }
        let mut field = FieldReader::new(reader.bytes()?);
        read(tag, &mut field)?;
        field.end()?;
    }
}

/// The error of a tag that this version does not know.
pub(super) const UNKNOWN_FIELD: DecodeError = DecodeError::Content("a field of a later version");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u8, u64)>, DecodeError> {
        let mut fields = Vec::new();
        read_fields(&mut FieldReader::new(bytes), |tag, field| {
            fields.push((tag, field.u64()?));
            Ok(())
        })?;
        Ok(fields)
    }

    #[test]
    fn fields_read_back_and_empty_ones_are_left_out() {
        let mut bytes = Vec::new();
        put_field(1, &mut bytes, |out| put_u64(7, out));
        put_field(2, &mut bytes, |_| {});
        put_field(9, &mut bytes, |out| put_u64(u64::MAX, out));
        end_fields(&mut bytes);
        assert_eq!(read(&bytes), Ok(vec![(1, 7), (9, u64::MAX)]));
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "prefix of {len} bytes");
        }
        assert_eq!(read(&[1, 2, 7, 8, 0]), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn a_long_field_has_a_long_length() {
        let mut bytes = Vec::new();
        put_field(3, &mut bytes, |out| out.extend_from_slice(&[5; 300]));
        end_fields(&mut bytes);
        assert_eq!(bytes.len(), 1 + 2 + 300 + 1);
        assert_eq!(bytes[..3], [3, 0xac, 0x02]);
    }
}
