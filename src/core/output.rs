//! Results of the operator: window firings and error entries, and their stored form in the output logs.

use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_f64, put_i64, put_u64};

mod error;
mod flags;
mod folded;
mod json;
mod sentence;
mod stored_error;

pub use error::{ErrorEntry, FollowedError, MAX_PAYLOAD_BYTES, RejectedPart, ReplayOrigin};
pub(super) use error::{beginning, kept_payload};
pub use flags::WindowFlags;
pub(super) use folded::FoldedRuns;
pub use folded::{FoldedReadings, FoldedRun};
pub use sentence::Sentence;
pub use stored_error::{ErrorReader, is_same_error};

/// Format of windows of which nothing is special.
const WINDOW_FORMAT: u8 = 1;
/// [`WINDOW_FORMAT`] with a byte of flags at the end, which is not 0.
const FLAGGED_WINDOW_FORMAT: u8 = 2;
/// [`WINDOW_FORMAT`] with a byte of flags, which may be 0, and the unit at the end.
const UNIT_WINDOW_FORMAT: u8 = 3;

/// One firing of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowResult<'a> {
    /// Device id.
    pub device_id: &'a str,
    /// Metric name.
    pub metric: &'a str,
    /// Unit of the values, as it was known when the window fired; `None` where none was known, and never empty.
    pub unit: Option<&'a str>,
    /// First millisecond of the window, Unix time.
    pub window_start_ms: i64,
    /// First millisecond after the window, Unix time.
    pub window_end_ms: i64,
    /// Number of earlier firings of the window: 0 for the first firing, one more for each correction.
    pub revision: u32,
    /// Sequence number of the firing that this one corrects; `None` for revision 0.
    pub supersedes: Option<u64>,
    /// Number of readings.
    pub count: u64,
    /// Sum of the values, with Neumaier's compensation.
    pub sum: f64,
    /// Mean of the values.
    pub mean: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Value with the oldest event time; among equals, the first in the journal.
    pub first: f64,
    /// Value with the newest event time; among equals, the last in the journal.
    pub last: f64,
    /// Population standard deviation of the values.
    pub stddev: f64,
    /// What is special about the result.
    pub flags: WindowFlags,
}

impl<'a> WindowResult<'a> {
    /// Appends the stored form: a format byte, then the fields in the binary form of [`codec`](crate::core::codec).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = self.flags.bits();
        out.push(match (self.unit, flags) {
            (Some(_), _) => UNIT_WINDOW_FORMAT,
            (None, 0) => WINDOW_FORMAT,
            (None, _) => FLAGGED_WINDOW_FORMAT,
        });
        put_bytes(self.device_id.as_bytes(), out);
        put_bytes(self.metric.as_bytes(), out);
        put_i64(self.window_start_ms, out);
        put_u64(self.window_end_ms.wrapping_sub(self.window_start_ms) as u64, out);
        put_u64(u64::from(self.revision), out);
        put_u64(self.supersedes.map_or(0, |seq| seq.wrapping_add(1)), out);
        put_u64(self.count, out);
        for float in [self.sum, self.mean, self.min, self.max, self.first, self.last, self.stddev] {
            put_f64(float, out);
        }
        if flags != 0 || self.unit.is_some() {
            out.push(flags);
        }
        if let Some(unit) = self.unit {
            put_bytes(unit.as_bytes(), out);
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// Bytes that are not of a known format.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        let mut reader = FieldReader::new(bytes);
        Self::read(&mut reader).map_err(InvalidOutput)
    }

    fn read(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let format = reader.u8()?;
        if !(WINDOW_FORMAT..=UNIT_WINDOW_FORMAT).contains(&format) {
            return Err(DecodeError::Content("unknown format of a window"));
        }
        let (device_id, metric) = (reader.str()?, reader.str()?);
        let window_start_ms = reader.i64()?;
        let mut window = Self {
            device_id,
            metric,
            unit: None,
            window_start_ms,
            window_end_ms: window_start_ms.wrapping_add(reader.u64()? as i64),
            revision: reader.u32()?,
            supersedes: reader.u64()?.checked_sub(1),
            count: reader.u64()?,
            sum: reader.f64()?,
            mean: reader.f64()?,
            min: reader.f64()?,
            max: reader.f64()?,
            first: reader.f64()?,
            last: reader.f64()?,
            stddev: reader.f64()?,
            flags: match format {
                FLAGGED_WINDOW_FORMAT => read_window_flags(reader)?,
                UNIT_WINDOW_FORMAT => WindowFlags::from_bits(reader.u8()?)?,
                _ => WindowFlags::default(),
            },
        };
        if format == UNIT_WINDOW_FORMAT {
            let unit = Some(reader.str()?).filter(|unit| !unit.is_empty());
            window.unit = Some(unit.ok_or("a window of format 3 without a unit")?);
        }
        reader.end()?;
        Ok(window)
    }
}

/// Reads flags of which one is set: windows without flags have one stored form only.
fn read_window_flags(reader: &mut FieldReader<'_>) -> Result<WindowFlags, DecodeError> {
    match reader.u8()? {
        0 => Err(DecodeError::Content("a window of format 2 without flags")),
        bits => WindowFlags::from_bits(bits),
    }
}

/// A record of the windows or errors log that is of no known format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stored result of this format: {0}")]
pub struct InvalidOutput(#[from] pub DecodeError);

/// Takes the results of the operator, in order.
pub trait Collector {
    /// Takes a firing of a window. `seq` grows by one per firing.
    fn window(&mut self, seq: u64, window: &WindowResult<'_>);
    /// Takes an error. `seq` grows by one per error.
    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>);
}

#[cfg(test)]
mod tests;
