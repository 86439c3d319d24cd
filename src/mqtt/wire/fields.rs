//! Elements of MQTT packets: integers, length-prefixed fields and variable byte integers.
//!
//! Packets themselves are read and written by [`super::frame`] and [`super::codec`].

use super::close::CloseReason;

/// A variable byte integer (MQTT 5.0 section 1.5.5) and the bytes it takes; `None` where it is cut short.
#[inline]
pub(crate) fn variable_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, CloseReason> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(CloseReason::Malformed) }
}

/// Appends a variable byte integer; `value` is below 268,435,456.
pub(crate) fn put_variable_length(mut value: usize, out: &mut Vec<u8>) {
    debug_assert!(value < 1 << 28);
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a variable byte integer.
pub(crate) fn variable_length_bytes(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Splits a length-prefixed string or binary field off the front of `bytes`.
#[inline]
pub(crate) fn take_field<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], CloseReason> {
    let len = usize::from(take_u16(bytes)?);
    let (field, rest) = bytes.split_at_checked(len).ok_or(CloseReason::Malformed)?;
    *bytes = rest;
    Ok(field)
}

/// Splits a big-endian integer off the front of `bytes`.
#[inline]
pub(crate) fn take_u16(bytes: &mut &[u8]) -> Result<u16, CloseReason> {
    let (head, rest) = bytes.split_first_chunk::<2>().ok_or(CloseReason::Malformed)?;
    *bytes = rest;
    Ok(u16::from_be_bytes(*head))
}

/// Splits properties with their length off the front of `bytes`.
pub(crate) fn take_properties<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], CloseReason> {
    let (len, len_bytes) = variable_length(bytes)?.ok_or(CloseReason::Malformed)?;
    let (properties, rest) = bytes[len_bytes..].split_at_checked(len).ok_or(CloseReason::Malformed)?;
    *bytes = rest;
    Ok(properties)
}
