//! What is special about the result of a window.

use crate::core::codec::DecodeError;

const BACKLOG: u8 = 1;
const WRONG_CLOCK: u8 = 2;

/// What is special about the result of a window. In most results nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowFlags {
    /// The window was filled by a backlog: the live data of its device had passed it before its first reading came.
    pub backlog: bool,
    /// The window is of a time that the clock of the box showed wrongly.
    pub wrong_clock: bool,
}

impl WindowFlags {
    /// The flags as bits, for stored forms. 0: nothing is special.
    pub(crate) fn bits(self) -> u8 {
        (u8::from(self.backlog) * BACKLOG) | (u8::from(self.wrong_clock) * WRONG_CLOCK)
    }

    /// Reads [`WindowFlags::bits`].
    ///
    /// # Errors
    /// A bit that no flag has.
    pub(crate) fn from_bits(bits: u8) -> Result<Self, DecodeError> {
        if bits & !(BACKLOG | WRONG_CLOCK) != 0 {
            return Err(DecodeError::Content("unknown flags of a window"));
        }
        Ok(Self { backlog: bits & BACKLOG != 0, wrong_clock: bits & WRONG_CLOCK != 0 })
    }
}
