//! How much of the errors log one device may fill, so that it cannot push the errors of all others out.
//!
//! Each device has an account. What is stored of its errors is charged to it, and the charge fades at the rate at which a full
//! account is empty again after [`ErrorShareSettings::refill_ms`] of journal time. While the account is full, the errors of one
//! message a minute are stored, up to half a share more; the others are counted only.

use crate::core::batch::ReadingOrigin;
use crate::core::codec::{DecodeError, FieldReader, put_i64, put_u64};
use crate::core::device::{DeviceId, Slot};
use crate::core::operator::Operator;
use crate::core::settings::ErrorShareSettings;
use crate::core::topic::TenantIndex;
use crate::core::watermark::NONE_MS;

/// Parts of a byte in which charges are counted, since less than a byte fades in a millisecond.
const BYTE: u64 = 1024;
/// Time after which a device whose account is full may store an error again.
const MINUTE_MS: i64 = 60_000;
/// Time after which a device that is over its share is told of again.
const DAY_MS: i64 = 86_400_000;
/// Devices over their share that are told of in one batch.
const MAX_TOLD: usize = 100;

/// The account of one device, or of all errors without a known device together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorShare {
    /// Charge at `stored_ms`, in parts of a byte.
    charge: u64,
    /// Journal time of the last stored error.
    stored_ms: i64,
    /// Number of errors that were not stored.
    pub not_stored: u64,
    /// Journal time at which it was last told that errors are not stored.
    told_ms: i64,
    /// Journal position of the last message with an error, and whether its errors are stored. It is not part of the stored
    /// state, which is never that within a message.
    decided: Option<(u64, bool)>,
}

impl Default for ErrorShare {
    fn default() -> Self {
        Self { charge: 0, stored_ms: NONE_MS, not_stored: 0, told_ms: NONE_MS, decided: None }
    }
}

impl ErrorShare {
    /// Whether the errors of the message at `lsn` may be stored.
    fn decide(&mut self, lsn: u64, settings: ErrorShareSettings, now_ms: i64) -> bool {
        let stored = match self.decided {
            Some((decided, stored)) if decided == lsn => stored,
            _ => self.admits(settings, now_ms),
        };
        self.decided = Some((lsn, stored));
        stored
    }

    /// Whether an error may be stored. Where journal time was set back, the time since the last one is not known.
    fn admits(&self, settings: ErrorShareSettings, now_ms: i64) -> bool {
        let (charge, share) = (self.charge_at(settings, now_ms), settings.bytes.saturating_mul(BYTE));
        // A message may take 384 KiB. One a minute would push the errors of all others out within a day.
        let is_due = now_ms.saturating_sub(self.stored_ms) >= MINUTE_MS && charge < share.saturating_add(share / 2);
        charge < share || now_ms < self.stored_ms || is_due
    }

    fn charge_at(&self, settings: ErrorShareSettings, now_ms: i64) -> u64 {
        let elapsed_ms = now_ms.saturating_sub(self.stored_ms).max(0).unsigned_abs();
        let refill_ms = settings.refill_ms.max(1).unsigned_abs();
        let faded = u128::from(settings.bytes.saturating_mul(BYTE)) * u128::from(elapsed_ms) / u128::from(refill_ms);
        self.charge.saturating_sub(u64::try_from(faded).unwrap_or(u64::MAX))
    }

    fn add(&mut self, bytes: u64, settings: ErrorShareSettings, now_ms: i64) {
        let charge = self.charge_at(settings, now_ms).saturating_add(bytes.saturating_mul(BYTE));
        // A message may be much longer than the share. It must not take the device years to come down again.
        self.charge = charge.min(settings.bytes.saturating_mul(2 * BYTE));
        self.stored_ms = now_ms;
    }

    /// Counts an error that is not stored. Returns whether this is told, if it may be told.
    fn refuse(&mut self, may_tell: bool, now_ms: i64) -> bool {
        self.not_stored += 1;
        let is_due = self.told_ms == NONE_MS || now_ms.saturating_sub(self.told_ms) >= DAY_MS;
        let is_told = is_due && may_tell;
        if is_told {
            self.told_ms = now_ms;
        }
        is_told
    }

    /// Counts from `now_ms` on what was told in a time that was wrong. When the last error was stored is then not known.
    pub fn set_back(&mut self, now_ms: i64) {
        self.told_ms = self.told_ms.min(now_ms);
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(self.charge, out);
        put_i64(self.stored_ms, out);
        put_u64(self.not_stored, out);
        put_i64(self.told_ms, out);
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            charge: reader.u64()?,
            stored_ms: reader.i64()?,
            not_stored: reader.u64()?,
            told_ms: reader.i64()?,
            decided: None,
        })
    }
}

impl Operator {
    /// The account of an error. A device that is known has its own, also where the error was found before its state was looked
    /// for.
    pub(super) fn error_account(
        &mut self,
        tenant: Option<TenantIndex>,
        slot: Option<Slot>,
        device_id: Option<&str>,
    ) -> Option<Slot> {
        let (None, Some(id), Some(_)) = (slot, device_id, self.settings.current.error_share) else { return slot };
        let account = self.find_device(tenant, id)?;
        self.about_to_change(self.devices[account].group);
        Some(account)
    }

    /// Whether an error of this device may be stored. The errors of one device in one message are stored together. Counts the
    /// error if it may not. Errors of replays are stored always: what was replayed cannot be replayed again, and their number is
    /// that of the requests of operators.
    pub(super) fn has_error_room(&mut self, origin: &ReadingOrigin<'_>, slot: Option<Slot>) -> bool {
        let Some(settings) = self.settings.current.error_share.filter(|_| origin.replay.is_none()) else { return true };
        let now_ms = self.clocks.journal.now_ms;
        let may_tell = self.work.over_share.len() < MAX_TOLD;
        let share = self.error_share(slot);
        let stored = share.decide(origin.lsn, settings, now_ms);
        if !stored {
            let is_told = share.refuse(may_tell, now_ms);
            self.totals.errors_not_stored += 1;
            if is_told {
                self.work.over_share.push(slot.map(|slot| self.devices[slot].id.clone()));
            }
        }
        stored
    }

    /// Charges what was written of the errors of this device.
    pub(super) fn charge_errors(&mut self, slot: Option<Slot>, bytes: usize) {
        if let Some(settings) = self.settings.current.error_share {
            let now_ms = self.clocks.journal.now_ms;
            self.error_share(slot).add(bytes as u64, settings, now_ms);
        }
    }

    /// The devices that are over their share of the errors log and were not told of within a day; `None`: errors without a
    /// known device.
    pub fn take_over_share(&mut self) -> Vec<Option<DeviceId>> {
        std::mem::take(&mut self.work.over_share)
    }

    fn error_share(&mut self, slot: Option<Slot>) -> &mut ErrorShare {
        match slot {
            Some(slot) => self.devices[slot].rare.fields_mut().error_share.get_or_insert_default(),
            None => &mut self.unknown_error_share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: ErrorShareSettings = ErrorShareSettings { bytes: 1_000, refill_ms: 100_000_000 };

    #[test]
    fn a_full_account_fades_and_takes_one_error_a_minute() {
        let mut share = ErrorShare::default();
        assert!(share.admits(SETTINGS, 0));
        share.add(999, SETTINGS, 0);
        assert!(share.admits(SETTINGS, 1), "there is room for one more, of any size");
        share.add(500, SETTINGS, 1);
        assert!(!share.admits(SETTINGS, 2) && !share.admits(SETTINGS, MINUTE_MS));
        assert!(share.admits(SETTINGS, MINUTE_MS + 1));
        share.add(0, SETTINGS, MINUTE_MS + 1);
        // 500 bytes more than the share fade in half of the time.
        let empty_ms = MINUTE_MS + SETTINGS.refill_ms / 2;
        share.stored_ms = empty_ms - 10;
        share.charge = share.charge.saturating_sub(498 * BYTE);
        assert!(!share.admits(SETTINGS, empty_ms));
        assert!(share.admits(SETTINGS, empty_ms + 200_000));
    }

    #[test]
    fn time_that_was_set_back_blocks_nothing() {
        let mut share = ErrorShare::default();
        share.add(5_000, SETTINGS, 1_000_000_000);
        assert_eq!(share.charge, 2_000 * BYTE);
        assert!(share.admits(SETTINGS, 5), "when the last error was stored is not known");
        share.add(1, SETTINGS, 5);
        assert!(!share.admits(SETTINGS, 6));
    }

    #[test]
    fn it_is_told_once_a_day() {
        let mut share = ErrorShare::default();
        let told: Vec<bool> = [0, 1, DAY_MS - 1, DAY_MS, DAY_MS + 1].map(|now_ms| share.refuse(true, now_ms)).to_vec();
        assert_eq!(told, [true, false, false, true, false]);
        share.set_back(-DAY_MS);
        assert!(!share.refuse(true, -1) && !share.refuse(false, 0), "no room to tell");
        assert!(share.refuse(true, 0), "a day after the clock was set back");
        assert_eq!(share.not_stored, 8);
        let mut bytes = Vec::new();
        share.encode(&mut bytes);
        assert_eq!(ErrorShare::decode(&mut FieldReader::new(&bytes)), Ok(share));
    }
}
