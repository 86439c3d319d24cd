//! State that most devices do not have. It takes 8 bytes of a device until something of it is set.

use std::ops::Deref;

use crate::core::backlog::Backlog;
use crate::core::carried::CarriedRules;
use crate::core::description::DeviceDescription;
use crate::core::error_share::ErrorShare;
use crate::core::liveness::DeviceLiveness;
use crate::core::notes::DeviceNotes;
use crate::core::reason::Reason;
use crate::core::retained::RetainedHistory;
use crate::core::watermark::NONE_MS;

/// Counts of what a device sends that is not as it should be, and yet no error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OddCounts {
    /// Values that the device said are absent.
    pub values_absent: u64,
    /// Readings in windows whose event time is the arrival.
    pub arrival_times: u64,
}

/// What a [`RareState`] holds.
#[derive(Debug, Clone)]
pub(super) struct RareFields {
    /// Windows of the device that end at or before this time, plus one millisecond, may have fired before the clock of the box
    /// was set back; [`NONE_MS`] where it never was.
    pub passed_ms: i64,
    /// Arrival time of the last message with a reading that was not behind the watermark, of a device that has or had a
    /// backlog; `None`: that of the last message.
    pub live_ms: Option<i64>,
    /// Rules of earlier settings that still hold for some windows of the device.
    pub carried: Option<Box<CarriedRules>>,
    /// Windows behind the watermark, while the device catches up.
    pub backlog: Option<Box<Backlog>>,
    /// Its last messages with the RETAIN flag; `None` before the first one.
    pub retained: Option<Box<RetainedHistory>>,
    /// What the errors log holds of its errors; `None` before the first one.
    pub error_share: Option<Box<ErrorShare>>,
    /// Numbers of rejected readings by reason, in order of reason, without zeros.
    pub rejected: Vec<(Reason, u64)>,
    /// What is not as it should be.
    pub odd: OddCounts,
    /// What a person is told about the device.
    pub notes: DeviceNotes,
    /// Whether the device is online; `None` where nothing said so.
    pub liveness: Option<Box<DeviceLiveness>>,
    /// What it says of itself; `None` where it says nothing.
    pub description: Option<Box<DeviceDescription>>,
}

impl RareFields {
    const EMPTY: Self = Self {
        passed_ms: NONE_MS,
        live_ms: None,
        carried: None,
        backlog: None,
        retained: None,
        error_share: None,
        rejected: Vec::new(),
        odd: OddCounts { values_absent: 0, arrival_times: 0 },
        notes: DeviceNotes(0),
        liveness: None,
        description: None,
    };

    fn is_empty(&self) -> bool {
        let Self {
            passed_ms,
            live_ms,
            carried,
            backlog,
            retained,
            error_share,
            rejected,
            odd,
            notes,
            liveness,
            description,
        } = self;
        (*passed_ms, *live_ms, *odd, *notes) == (NONE_MS, None, OddCounts::default(), DeviceNotes::default())
            && (carried.is_none() && backlog.is_none() && retained.is_none() && error_share.is_none())
            && rejected.is_empty()
            && liveness.is_none()
            && description.is_none()
    }
}

static EMPTY: RareFields = RareFields::EMPTY;

/// State that most devices do not have. It is read as [`RareFields`], which are empty where nothing was set.
#[derive(Debug, Clone, Default)]
pub(super) struct RareState(Option<Box<RareFields>>);

impl RareState {
    /// The fields, if something was set.
    #[inline]
    pub fn existing_mut(&mut self) -> Option<&mut RareFields> {
        self.0.as_deref_mut()
    }

    /// The fields, to set one.
    pub fn fields_mut(&mut self) -> &mut RareFields {
        self.0.get_or_insert_with(|| Box::new(RareFields::EMPTY))
    }

    /// Drops the fields if none is set.
    pub fn drop_empty(&mut self) {
        self.0.take_if(|fields| fields.is_empty());
    }

    /// The backlog, if the device has one.
    pub fn backlog_mut(&mut self) -> Option<&mut Backlog> {
        self.existing_mut()?.backlog.as_deref_mut()
    }

    /// Raises [`RareFields::passed_ms`].
    pub fn raise_passed_ms(&mut self, passed_ms: i64) {
        if passed_ms > self.passed_ms {
            self.fields_mut().passed_ms = passed_ms;
        }
    }

    /// Counts a rejected reading.
    pub fn count_rejected(&mut self, reason: Reason) {
        let rejected = &mut self.fields_mut().rejected;
        match rejected.binary_search_by_key(&reason, |&(reason, _)| reason) {
            Ok(index) => {
                if let Some((_, count)) = rejected.get_mut(index) {
                    *count += 1;
                }
            }
            Err(index) => {
                rejected.reserve_exact(1);
                rejected.insert(index, (reason, 1));
            }
        }
    }
}

impl Deref for RareState {
    type Target = RareFields;

    #[inline]
    fn deref(&self) -> &RareFields {
        self.0.as_deref().unwrap_or(&EMPTY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_fields_are_dropped() {
        let mut rare = RareState::default();
        rare.raise_passed_ms(NONE_MS);
        assert!(rare.existing_mut().is_none() && rare.is_empty());
        rare.fields_mut().live_ms = Some(3);
        rare.drop_empty();
        assert_eq!(rare.live_ms, Some(3));
        rare.fields_mut().live_ms = None;
        rare.drop_empty();
        assert!(rare.existing_mut().is_none());
        rare.count_rejected(Reason::Late);
        rare.drop_empty();
        assert_eq!(rare.rejected, [(Reason::Late, 1)]);
    }
}
