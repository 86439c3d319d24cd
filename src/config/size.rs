//! Sizes as people write them in the configuration: a whole number and a binary unit.

/// Units and their bytes, the largest first.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SizeError {
    /// A number without a unit.
    NoUnit,
    /// Something else than a whole number and a known unit.
    Form,
    /// More bytes than 64 bits hold.
    TooLarge,
}

/// Reads a size such as `512B`, `64KiB`, `16MiB` or `1GiB`, in bytes.
///
/// # Errors
/// [`SizeError`] when the text is no such size.
pub(super) fn parse_size(text: &str) -> Result<u64, SizeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(SizeError::Form);
    }
    if unit.is_empty() {
        return Err(SizeError::NoUnit);
    }
    let (_, unit_bytes) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(SizeError::Form)?;
    // Digits alone fail only for numbers of more than 64 bits.
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_bytes));
    bytes.ok_or(SizeError::TooLarge)
}

/// The shortest text that [`parse_size`] reads as `bytes`.
pub(super) fn size_text(bytes: u64) -> String {
    let whole = |(_, unit_bytes): &(&str, u64)| bytes != 0 && bytes.is_multiple_of(*unit_bytes);
    let (unit, unit_bytes) = UNITS.into_iter().find(whole).unwrap_or(("B", 1));
    format!("{}{unit}", bytes / unit_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("1B", 1), ("64KiB", 65_536), ("4MiB", 4 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "64KB", "64kib", "1TiB", "-1B", "1.5GiB"] {
            assert_eq!(parse_size(text), Err(SizeError::Form), "{text:?}");
        }
        assert_eq!(parse_size("64"), Err(SizeError::NoUnit));
        assert_eq!(parse_size("99999999999GiB"), Err(SizeError::TooLarge));
    }

    proptest! {
        #[test]
        fn sizes_read_back(bytes in 0..=u64::MAX) {
            prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
    }
}
