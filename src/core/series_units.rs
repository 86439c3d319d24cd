//! Units of the metrics of a device, as its messages say them. A result carries the unit that was known when it was made.

use std::sync::Arc;

use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_u64};

/// Longest unit in bytes. A longer one is none.
pub(super) const MAX_UNIT_BYTES: usize = 32;

/// The unit as it is kept; `None` where the text is none: it is empty, too long, or has control characters.
pub(super) fn kept_unit(text: &str) -> Option<&str> {
    let unit = text.trim();
    let is_unit = (1..=MAX_UNIT_BYTES).contains(&unit.len()) && !unit.contains(char::is_control);
    is_unit.then_some(unit)
}

/// The unit of one series.
#[derive(Debug, Clone, Default, PartialEq)]
struct SeriesUnit {
    newest: Option<Arc<str>>,
    /// What the last result has, where it was made before the newest unit came.
    before: Option<Box<EarlierUnit>>,
}

/// The unit that held before another one came.
#[derive(Debug, Clone, PartialEq)]
struct EarlierUnit {
    unit: Option<Arc<str>>,
    /// Results with a smaller sequence number have this unit.
    until_seq: u64,
}

/// Units of the series of a device, by the index of the series. Series behind the end have none.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SeriesUnits(Vec<SeriesUnit>);

impl SeriesUnits {
    /// The unit of a series.
    pub fn newest(&self, series: usize) -> Option<&Arc<str>> {
        self.0.get(series)?.newest.as_ref()
    }

    /// The unit that the result `seq` of a series carries. It is right for the last result of the series.
    pub fn of_result(&self, series: usize, seq: u64) -> Option<&Arc<str>> {
        let SeriesUnit { newest, before } = self.0.get(series)?;
        match before {
            Some(before) if seq < before.until_seq => before.unit.as_ref(),
            _ => newest.as_ref(),
        }
    }

    /// Sets the unit of a series. `last_seq` is the number of its last result, `next_seq` the next number of all results.
    pub fn set(&mut self, series: usize, unit: Arc<str>, last_seq: Option<u64>, next_seq: u64) {
        if self.0.len() <= series {
            self.0.reserve_exact(series + 1 - self.0.len());
            self.0.resize_with(series + 1, SeriesUnit::default);
        }
        let Some(entry) = self.0.get_mut(series) else { return };
        let of_last = match (last_seq, entry.before.take()) {
            (None, _) => None,
            (Some(seq), Some(before)) if seq < before.until_seq => Some(before.unit),
            _ => Some(entry.newest.take()),
        };
        entry.before = of_last.map(|unit| Box::new(EarlierUnit { unit, until_seq: next_seq }));
        entry.newest = Some(unit);
    }

    /// Notes that a series was inserted.
    pub fn insert_series(&mut self, at: usize) {
        if at < self.0.len() {
            self.0.reserve_exact(1);
            self.0.insert(at, SeriesUnit::default());
        }
    }

    /// Replaces each unit by `share` of it, so that equal ones are one in memory.
    pub fn share(&mut self, mut share: impl FnMut(&str) -> Arc<str>) {
        for SeriesUnit { newest, before } in &mut self.0 {
            let before = before.iter_mut().map(|before| &mut before.unit);
            for unit in std::iter::once(newest).chain(before).flatten() {
                *unit = share(unit);
            }
        }
    }

    /// Appends the stored form; nothing where no unit is known.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.0.is_empty() {
            return;
        }
        let text =
            |unit: &Option<Arc<str>>, out: &mut Vec<u8>| put_bytes(unit.as_deref().unwrap_or("").as_bytes(), out);
        put_u64(self.0.len() as u64, out);
        for SeriesUnit { newest, before } in &self.0 {
            text(newest, out);
            out.push(before.is_some().into());
            if let Some(before) = before {
                text(&before.unit, out);
                put_u64(before.until_seq, out);
            }
        }
    }

    /// Reads the stored form of the units of a device with this number of series.
    ///
    /// # Errors
    /// What is not of the form, or does not belong to such a device.
    pub fn decode(reader: &mut FieldReader<'_>, series: usize) -> Result<Self, DecodeError> {
        let count = reader.count()?;
        if count > series {
            return Err(DecodeError::Content("more units than metrics"));
        }
        let mut units = Vec::with_capacity(count);
        for _ in 0..count {
            let newest = unit(reader)?;
            let before = match reader.u8()? {
                0 => None,
                1 => Some(Box::new(EarlierUnit { unit: unit(reader)?, until_seq: reader.u64()? })),
                _ => return Err(DecodeError::Content("an earlier unit")),
            };
            units.push(SeriesUnit { newest, before });
        }
        Ok(Self(units))
    }
}

fn unit(reader: &mut FieldReader<'_>) -> Result<Option<Arc<str>>, DecodeError> {
    match reader.str()? {
        "" => Ok(None),
        text if text.len() <= MAX_UNIT_BYTES => Ok(Some(text.into())),
        _ => Err(DecodeError::Content("a unit that is too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(units: &SeriesUnits) -> Vec<u8> {
        let mut bytes = Vec::new();
        units.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_result_has_the_unit_of_its_time() {
        let mut units = SeriesUnits::default();
        let check = |units: &SeriesUnits, seq, expected: (Option<&str>, Option<&str>)| {
            let found = (units.of_result(1, seq), units.newest(1));
            assert_eq!((found.0.map(|unit| &**unit), found.1.map(|unit| &**unit)), expected, "{seq}");
        };
        check(&units, 3, (None, None));
        // The last result of the series is 3, and 5 is the next of all.
        units.set(1, "C".into(), Some(3), 5);
        check(&units, 3, (None, Some("C")));
        check(&units, 5, (Some("C"), Some("C")));
        units.set(1, "F".into(), Some(3), 6);
        check(&units, 3, (None, Some("F")));
        units.set(1, "K".into(), Some(7), 9);
        check(&units, 7, (Some("F"), Some("K")));
        check(&units, 9, (Some("K"), Some("K")));
        units.set(1, "R".into(), None, 9);
        check(&units, 0, (Some("R"), Some("R")));
    }

    #[test]
    fn units_move_with_their_series() {
        let mut units = SeriesUnits::default();
        units.set(1, "C".into(), None, 0);
        units.insert_series(0);
        units.insert_series(3);
        assert_eq!((units.newest(1), units.newest(2).map(|unit| &**unit)), (None, Some("C")));
    }

    #[test]
    fn the_stored_form_reads_back() {
        assert!(stored(&SeriesUnits::default()).is_empty());
        let mut units = SeriesUnits::default();
        units.set(0, "°C".into(), Some(3), 500);
        units.set(2, "%".into(), None, 0);
        let bytes = stored(&units);
        let read = |bytes: &[u8], series| {
            let mut reader = FieldReader::new(bytes);
            let units = SeriesUnits::decode(&mut reader, series)?;
            reader.end().map(|()| units)
        };
        assert_eq!(read(&bytes, 3), Ok(units));
        assert!(read(&bytes, 2).is_err());
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len], 3).is_err(), "prefix of {len} bytes");
        }
        assert!(read(&[&[1, 33][..], &[b'u'; 33], &[0]].concat(), 3).is_err());
    }

    #[test]
    fn what_is_no_unit_is_left_out() {
        assert_eq!(kept_unit(" µg/m³ "), Some("µg/m³"));
        for none in ["", "  ", "a\u{7}b", &"u".repeat(33)] {
            assert_eq!(kept_unit(none), None);
        }
    }
}
