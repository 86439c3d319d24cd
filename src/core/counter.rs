//! Counters of 8, 16 and 32 bits begin again at 0 behind their largest number. Their numbers are continued to 64 bits, so
//! that a wrap is no restart, and what is sent again across it is known.
//!
//! A number is at `base` plus itself. `base` grows by the size of the counter with each wrap.

use crate::core::codec::{DecodeError, FieldReader, put_u64};
use crate::core::settings::SequenceBits;

/// Stands in the place of a width for numbers that devices share.
const SHARED: u8 = 64;

/// Widths of counters that are recognised by their wraps, narrowest first.
const WIDTHS: [u8; 3] = [8, 16, 32];

/// Where the present numbers of a device's counter are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counter {
    /// Position of the number 0 that belongs to the highest number.
    base: u64,
    /// Width that a wrap has shown, in bits; 0: none has; [`SHARED`]: the numbers are those of an edge node.
    bits: u8,
}

/// The position of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CounterPlace {
    /// The number, continued to 64 bits.
    pub position: u64,
    /// The counter, if it goes on from here.
    pub counter: Counter,
    /// Whether the counter has wrapped before this number.
    pub wrapped: bool,
}

impl Counter {
    /// The position of `seq`, where `top` is the highest position so far.
    #[inline]
    pub fn place(self, seq: u64, top: Option<u64>, bits: SequenceBits) -> CounterPlace {
        if bits == SequenceBits::Shared {
            return Self { bits: SHARED, ..self }.at(self.base, seq);
        }
        let own = Self { bits: if self.is_shared() { 0 } else { self.bits }, ..self };
        match top {
            None => own.at(self.base, seq),
            Some(top) => own.place_own(seq, top, bits),
        }
    }

    #[inline]
    fn place_own(self, seq: u64, top: u64, bits: SequenceBits) -> CounterPlace {
        let top_seq = top.saturating_sub(self.base);
        match bits {
            SequenceBits::Bits64 | SequenceBits::Shared => self.at(self.base, seq),
            SequenceBits::Auto => self.place_by_wraps(seq, top_seq),
            SequenceBits::Bits8 => self.place_nearest(seq, top_seq, 8),
            SequenceBits::Bits16 => self.place_nearest(seq, top_seq, 16),
            SequenceBits::Bits32 => self.place_nearest(seq, top_seq, 32),
        }
    }

    /// The position of `seq` if the counter has not wrapped since the highest number.
    pub fn place_without_wrap(self, seq: u64, top: Option<u64>, bits: SequenceBits) -> CounterPlace {
        let place = self.place(seq, top, bits);
        if place.wrapped { self.at(self.base, seq) } else { place }
    }

    /// Whether the counter has wrapped since the device restarted.
    #[inline]
    pub fn has_wrapped(self) -> bool {
        self.base > 0
    }

    /// Whether the numbers are those of an edge node, of which its devices see some each.
    pub fn is_shared(self) -> bool {
        self.bits == SHARED
    }

    /// Bits that tell low bits of numbers apart.
    #[inline]
    pub fn mask(self, bits: SequenceBits) -> u16 {
        if self.bits == 8 || bits == SequenceBits::Bits8 { 0xff } else { 0xffff }
    }

    /// The device restarted, and its counter with it.
    pub fn begin_anew(&mut self) {
        self.base = 0;
    }

    fn at(self, base: u64, seq: u64) -> CounterPlace {
        CounterPlace { position: base.saturating_add(seq), counter: Self { base, ..self }, wrapped: false }
    }

    fn wrap(self, seq: u64, bits: u8) -> CounterPlace {
        let counter = Self { base: self.base.saturating_add(1 << bits), bits };
        CounterPlace { wrapped: true, ..counter.at(counter.base, seq) }
    }

    /// The width is not configured: a number in the first sixteenth of a counter behind one in the last sixteenth is a wrap.
    #[inline]
    fn place_by_wraps(self, seq: u64, top_seq: u64) -> CounterPlace {
        let wraps = |bits: u8| {
            let size = 1_u64 << bits;
            seq < size / 16 && (size - size / 16..size).contains(&top_seq)
        };
        if self.bits == 0 {
            // Most numbers are higher than all before.
            if seq > top_seq {
                return self.at(self.base, seq);
            }
            let bits = WIDTHS.into_iter().find(|&bits| wraps(bits));
            return bits.map_or(self.at(self.base, seq), |bits| self.wrap(seq, bits));
        }
        let size = 1_u64 << self.bits;
        if seq >= size {
            // The counter is wider than it seemed.
            return Self { bits: 0, ..self }.at(self.base, seq);
        }
        if wraps(self.bits) {
            return self.wrap(seq, self.bits);
        }
        match self.base.checked_sub(size) {
            Some(before) if seq > top_seq.saturating_add(size / 2) => self.at(before, seq),
            _ => self.at(self.base, seq),
        }
    }

    /// The width is configured: the position nearest to the highest one.
    fn place_nearest(self, seq: u64, top_seq: u64, bits: u8) -> CounterPlace {
        let size = 1_u64 << bits;
        let ahead = seq.wrapping_sub(top_seq) % size;
        match (ahead <= size / 2, seq >= top_seq % size) {
            (true, false) => self.wrap(seq, bits),
            (false, true) => self.at(self.base.checked_sub(size).unwrap_or(self.base), seq),
            _ => self.at(self.base, seq),
        }
    }

    /// Appends the stored form.
    pub fn encode(self, out: &mut Vec<u8>) {
        put_u64(self.base, out);
        out.push(self.bits);
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let counter = Self { base: reader.u64()?, bits: reader.u8()? };
        let known = counter.bits == 0 || counter.is_shared() || WIDTHS.contains(&counter.bits);
        if known { Ok(counter) } else { Err(DecodeError::Content("width of a counter")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds numbers to a counter; returns their positions, and how often it wrapped.
    fn positions(bits: SequenceBits, seqs: &[u64]) -> (Vec<u64>, usize) {
        let (mut counter, mut top, mut wraps) = (Counter::default(), None, 0);
        let mut positions = Vec::new();
        for &seq in seqs {
            let place = counter.place(seq, top, bits);
            if top.is_none_or(|top| place.position > top) {
                (counter, top) = (place.counter, Some(place.position));
            }
            wraps += usize::from(place.wrapped);
            positions.push(place.position);
        }
        (positions, wraps)
    }

    fn check(bits: SequenceBits, seqs: &[u64], expected: &[u64], wraps: usize) {
        assert_eq!(positions(bits, seqs), (expected.to_vec(), wraps), "{bits:?} {seqs:?}");
    }

    #[test]
    fn a_wrap_is_recognised_by_its_numbers() {
        use SequenceBits::Auto;
        check(Auto, &[253, 254, 255, 0, 1, 254, 2], &[253, 254, 255, 256, 257, 254, 258], 1);
        check(Auto, &[65_535, 0, 65_534, 1], &[65_535, 65_536, 65_534, 65_537], 1);
        check(Auto, &[u64::from(u32::MAX), 0], &[u64::from(u32::MAX), 1 << 32], 1);
        // Some are lost around the wrap, but not too many.
        check(Auto, &[240, 15], &[240, 256 + 15], 1);
        check(Auto, &[239, 15], &[239, 15], 0);
        check(Auto, &[240, 16], &[240, 16], 0);
        // Again and again.
        check(Auto, &[255, 0, 100, 200, 255, 1, 255], &[255, 256, 356, 456, 511, 513, 511], 2);
        // No wrap at all.
        check(Auto, &[1_000, 0], &[1_000, 0], 0);
    }

    #[test]
    fn a_width_that_was_wrong_is_given_up() {
        // The device restarted at 250 and counts on beyond 255.
        let seqs = [250, 0, 100, 200, 255, 256, 257, 70_000, 0];
        check(SequenceBits::Auto, &seqs, &[250, 256, 356, 456, 511, 512, 513, 70_256, 256], 1);
    }

    #[test]
    fn numbers_at_the_end_are_placed() {
        let top = Some(u64::MAX);
        for bits in [SequenceBits::Auto, SequenceBits::Bits8, SequenceBits::Bits32, SequenceBits::Bits64] {
            for width in [0, 8, 16, 32, SHARED] {
                for base in [0, 256, 1 << 32, u64::MAX] {
                    for seq in [0, 1, 255, 65_535, u64::MAX] {
                        Counter { base, bits: width }.place(seq, top, bits);
                    }
                }
            }
        }
    }

    #[test]
    fn a_device_may_have_numbers_of_its_own_again() {
        let shared = Counter::default().place(250, None, SequenceBits::Shared).counter;
        assert!(shared.is_shared());
        let own = shared.place(251, Some(250), SequenceBits::Auto).counter;
        assert_eq!(own, Counter::default());
    }

    #[test]
    fn a_configured_width_takes_the_nearest_position() {
        use SequenceBits::*;
        check(Bits8, &[100, 200, 50, 190, 60], &[100, 200, 306, 190, 316], 1);
        check(Bits8, &[10, 138, 11, 0], &[10, 138, 11, 256], 1);
        check(Bits16, &[65_000, 1_000, 64_999], &[65_000, 66_536, 64_999], 1);
        check(Bits32, &[u64::from(u32::MAX), 7], &[u64::from(u32::MAX), (1 << 32) + 7], 1);
        check(Bits64, &[255, 0, u64::MAX], &[255, 0, u64::MAX], 0);
        check(Shared, &[255, 0, 1, u64::MAX], &[255, 0, 1, u64::MAX], 0);
        // Nothing is before the first number.
        check(Bits8, &[3, 250, 4], &[3, 250, 260], 1);
    }

    #[test]
    fn the_stored_form_reads_back() {
        for bits in [16, SHARED] {
            let counter = Counter { base: 1 << 40, bits };
            let mut bytes = Vec::new();
            counter.encode(&mut bytes);
            assert_eq!(Counter::decode(&mut FieldReader::new(&bytes)), Ok(counter));
        }
        assert!(Counter::decode(&mut FieldReader::new(&[0, 7])).is_err());
    }
}
