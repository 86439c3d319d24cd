//! What a device sent under its last sequence numbers, as digests: they tell a reading that is sent again from another one
//! under the same number.

use std::collections::VecDeque;

use crate::core::codec::{DecodeError, FieldReader, put_i64, put_u64};

/// Digests remembered of every device that sends more than one number, however slowly.
pub(super) const REMEMBERED: usize = 12;
/// Digests remembered of a device that sends more than [`REMEMBERED`] numbers in two periods of [`PERIOD_MS`]: as many as an
/// MQTT client may have in flight. Six bytes each.
pub(super) const MAX_REMEMBERED: usize = 65_535;
/// Journal time after which a message of a device that goes on sending was certainly acknowledged. The digests of the present
/// period and of the one before are remembered.
pub(super) const PERIOD_MS: i64 = 10_000;
/// Two periods.
const TWO_PERIODS_MS: i64 = 2 * PERIOD_MS;
/// Digests beyond [`REMEMBERED`] that all devices together may have: 6 MiB. At this limit no device gets more.
pub(super) const MAX_EXTRA: usize = 1 << 20;
/// Digests from before the last restart of a device that are remembered at most.
const MAX_OLD: usize = 8_192;

/// Bit of a digest that says that nothing was decided about the reading. The other 31 bits are of the digest.
const UNDECIDED: u16 = 1 << 15;

/// The digest of a reading, and the low bits of the number under which it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumberedDigest {
    number: u16,
    digest: [u16; 2],
}

impl NumberedDigest {
    /// The digest of the reading that came under `seq`.
    #[inline]
    pub fn new(seq: u64, digest: u32) -> Self {
        Self { number: seq as u16, digest: [digest as u16, (digest >> 16) as u16 & !UNDECIDED] }
    }

    /// The digest of a reading about which nothing could be decided: it may have been counted before.
    pub fn undecided(mut self) -> Self {
        self.digest[1] |= UNDECIDED;
        self
    }

    /// Whether both are digests of the same reading.
    #[inline]
    pub fn is_same(self, other: Self) -> bool {
        let high = (self.digest[1] ^ other.digest[1]) & !UNDECIDED;
        self.number == other.number && self.digest[0] == other.digest[0] && high == 0
    }

    /// Whether the reading was decided.
    #[inline]
    fn is_decided(self) -> bool {
        self.digest[1] & UNDECIDED == 0
    }

    /// Whether a reading that was decided came under this number, of which the low bits are compared.
    #[inline]
    pub fn is_of(self, seq: u64) -> bool {
        self.number == seq as u16 && self.is_decided()
    }

    /// Appends the stored form.
    pub fn encode(self, out: &mut Vec<u8>) {
        for word in [self.number, self.digest[0], self.digest[1]] {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { number: reader.u16_le()?, digest: [reader.u16_le()?, reader.u16_le()?] })
    }
}

/// The last digests of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RecentDigests {
    /// Digests, oldest first.
    entries: VecDeque<NumberedDigest>,
    /// When the present period began, in journal time.
    period_ms: i64,
    /// Number of digests remembered in the present period, and of those before it that are kept for this period.
    counts: [u16; 2],
    /// Number of digests that were remembered in the period before, if the present one followed it at once.
    before: u16,
    /// Number of digests, the first ones, that are from before the last restart of the device.
    old: u16,
    /// Low bits of the highest number of which a digest was forgotten since the last restart. Of numbers above it all are
    /// remembered.
    forgotten: Option<u16>,
}

/// Order of numbers of which the low bits are known.
#[derive(Debug, Clone, Copy)]
pub(super) struct NumberOrder {
    /// Low bits of the highest number.
    pub top: u16,
    /// Bits that tell numbers apart.
    pub mask: u16,
}

impl NumberOrder {
    /// How far a number is behind the highest one.
    fn behind(self, number: u16) -> u16 {
        self.top.wrapping_sub(number) & self.mask
    }
}

impl RecentDigests {
    /// Number of digests beyond [`REMEMBERED`].
    pub fn extra(&self) -> usize {
        self.entries.len().saturating_sub(REMEMBERED)
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether digests from before the last restart are remembered.
    #[inline]
    pub fn has_old(&self) -> bool {
        self.old > 0
    }

    /// Remembers a digest. `order` is that of the device's numbers, this one included. `may_grow`: whether the device may have
    /// more than [`REMEMBERED`] digests.
    #[inline]
    pub fn remember(&mut self, entry: NumberedDigest, order: NumberOrder, now_ms: i64, may_grow: bool) {
        self.begin_period(now_ms);
        self.counts[0] = self.counts[0].saturating_add(1);
        let grown = if may_grow { MAX_REMEMBERED } else { self.entries.len().max(REMEMBERED) };
        let limit = self.kept().clamp(REMEMBERED, grown);
        if self.entries.len() >= limit {
            self.make_room(limit, order);
        }
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(REMEMBERED);
        }
        self.entries.push_back(entry);
    }

    /// Forgets so many digests that one more makes `limit`.
    fn make_room(&mut self, limit: usize, order: NumberOrder) {
        let outdated = (self.entries.len() + 1).saturating_sub(limit);
        self.forget(outdated, order);
        self.old = self.old.saturating_sub(u16::try_from(outdated).unwrap_or(u16::MAX));
        if outdated > 1 {
            self.entries.shrink_to(limit);
        }
    }

    /// Begins another period, if the present one is over.
    #[inline]
    fn begin_period(&mut self, now_ms: i64) {
        let passed_ms = now_ms.saturating_sub(self.period_ms);
        if passed_ms >= PERIOD_MS || self.entries.is_empty() {
            self.before = if passed_ms < TWO_PERIODS_MS { self.counts[0] } else { 0 };
            self.period_ms = now_ms;
            self.counts = [0, self.counts[0]];
        }
    }

    /// Number of digests that are kept.
    fn kept(&self) -> usize {
        usize::from(self.counts[0]) + usize::from(self.counts[1])
    }

    /// Keeps all digests remembered now for another period: the device sends again what was not acknowledged, however long
    /// ago it was sent first.
    pub fn note_redelivery(&mut self, now_ms: i64) {
        self.begin_period(now_ms);
        self.period_ms = now_ms;
        self.counts[1] = self.counts[1].max(self.entries.len() as u16);
    }

    /// Ends a period that began in a time that was wrong at `now_ms`: what is remembered stays as recent as it was.
    pub fn set_back(&mut self, now_ms: i64) {
        self.period_ms = self.period_ms.min(now_ms);
    }

    /// Index of a digest, the newest if it is there twice.
    pub fn find(&self, entry: NumberedDigest) -> Option<usize> {
        self.entries.iter().rposition(|&other| other.is_same(entry))
    }

    /// Index of a digest among those from before the last restart.
    pub fn find_old(&self, entry: NumberedDigest) -> Option<usize> {
        self.entries.iter().take(usize::from(self.old)).rposition(|&other| other.is_same(entry))
    }

    /// Whether a digest of this number is remembered that was decided.
    pub fn knows(&self, seq: u64) -> bool {
        self.entries.iter().any(|entry| entry.is_of(seq))
    }

    /// Whether no digest of this number was forgotten.
    pub fn knows_all(&self, seq: u64, order: NumberOrder) -> bool {
        self.forgotten.is_none_or(|forgotten| order.behind(seq as u16) < order.behind(forgotten))
    }

    /// Whether the digest at `index` is of the present period or of the one before.
    pub fn is_recent(&self, index: usize, now_ms: i64) -> bool {
        let recent = match now_ms.saturating_sub(self.period_ms) {
            ..PERIOD_MS => usize::from(self.counts[0]) + usize::from(self.before),
            PERIOD_MS..TWO_PERIODS_MS => usize::from(self.counts[0]),
            _ => 0,
        };
        index + recent >= self.entries.len()
    }

    /// Marks all digests as from before a restart, after which no number is seen. `first` is one more, the oldest of the run
    /// that ends.
    pub fn restart(&mut self, first: Option<NumberedDigest>) {
        if let Some(first) = first {
            self.entries.insert(usize::from(self.old), first);
            self.counts[0] = self.counts[0].saturating_add(1);
        }
        self.entries.drain(..self.entries.len().saturating_sub(MAX_OLD));
        self.entries.shrink_to(REMEMBERED);
        self.forgotten = None;
        self.mark_old();
    }

    /// Marks all digests as from before a restart after which some numbers stay seen. Of these, digests may be forgotten.
    pub fn begin_anew(&mut self, order: NumberOrder) {
        self.forget(self.entries.len().saturating_sub(MAX_OLD), order);
        self.entries.shrink_to(REMEMBERED);
        self.mark_old();
    }

    /// Forgets so many digests, the oldest.
    fn forget(&mut self, count: usize, order: NumberOrder) {
        for _ in 0..count {
            let Some(forgotten) = self.entries.pop_front() else { return };
            let is_higher = |other: u16| order.behind(forgotten.number) < order.behind(other);
            if forgotten.is_decided() && self.forgotten.is_none_or(is_higher) {
                self.forgotten = Some(forgotten.number);
            }
        }
    }

    /// Marks all digests as from before a restart, unless there are too many.
    pub fn mark_old(&mut self) {
        if self.entries.len() <= MAX_OLD {
            self.old = self.entries.len() as u16;
        }
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(self.entries.len() as u64, out);
        if self.entries.is_empty() {
            return;
        }
        self.entries.iter().for_each(|entry| entry.encode(out));
        put_i64(self.period_ms, out);
        for count in [self.counts[0], self.counts[1], self.before, self.old] {
            put_u64(u64::from(count), out);
        }
        put_u64(self.forgotten.map_or(0, |number| u64::from(number) + 1), out);
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let count = reader.count()?;
        if count > MAX_REMEMBERED {
            return Err(DecodeError::Content("too many digests"));
        }
        let mut digests = Self::default();
        if count == 0 {
            return Ok(digests);
        }
        digests.entries.reserve_exact(count.max(REMEMBERED));
        for _ in 0..count {
            digests.entries.push_back(NumberedDigest::decode(reader)?);
        }
        digests.period_ms = reader.i64()?;
        let mut short = || u16::try_from(reader.u64()?).map_err(|_| DecodeError::IntegerTooLarge(16));
        digests.counts = [short()?, short()?];
        digests.before = short()?;
        digests.old = short()?;
        digests.forgotten = match reader.u64()? {
            0 => None,
            next => Some(u16::try_from(next - 1).map_err(|_| DecodeError::IntegerTooLarge(16))?),
        };
        if usize::from(digests.old) > count { Err(DecodeError::Content("old digests")) } else { Ok(digests) }
    }
}
