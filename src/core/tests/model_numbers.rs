//! Sequence numbers in the model: whole readings are compared, not digests, and nothing is found by an index.

use std::collections::BTreeSet;

use crate::core::settings::SequenceBits;

/// A number and what came under it.
pub(super) type ModelReading = (u64, String);

/// What is known of the numbers of a device.
#[derive(Debug, Default)]
pub(super) struct ModelNumbers {
    /// Numbers seen, continued behind wraps.
    seen: BTreeSet<u64>,
    /// The first reading since the last restart, and those that came under its number since.
    first: Vec<ModelReading>,
    /// Readings that are remembered, oldest first, and whether they were decided.
    recent: Vec<(ModelReading, bool)>,
    /// The highest number of which a reading was forgotten since the last restart.
    forgotten: Option<u64>,
    /// How many of them are from before a restart.
    old: usize,
    period_ms: Option<i64>,
    counts: (usize, usize),
    /// How many came in the period before, if that was just before.
    before: usize,
    /// What is added to the numbers behind the last wrap, how often the counter wrapped, and the width that a wrap showed.
    base: u64,
    has_wrapped: bool,
    width: Option<u64>,
}

/// One element, as far as its number is concerned.
#[derive(Debug)]
pub(super) struct ModelNumbered {
    pub reading: ModelReading,
    /// Whether its own time is stated, or MQTT says that it comes again, or its time is invalid.
    pub dated: bool,
    /// Whether its time is newer than all before.
    pub newer: bool,
    /// Whether its time is valid.
    pub valid: bool,
}

/// Why an element does not count.
pub(super) type ModelObjection = Option<&'static str>;

impl ModelNumbers {
    pub fn judge(
        &mut self,
        element: &ModelNumbered,
        other_boot: bool,
        now_ms: i64,
        bits: SequenceBits,
    ) -> ModelObjection {
        let reading = &element.reading;
        if other_boot {
            if self.remembers(element, self.recent.len(), now_ms) {
                return self.duplicate(now_ms);
            }
            self.restart();
        }
        let (at, wraps) = self.position(reading.0, bits);
        if !self.seen.contains(&at) {
            let base = if wraps { self.base + 256 } else { at - reading.0 };
            let follows = self.seen.last().is_some_and(|&top| at == top + 1);
            let again = self.finds(reading);
            // Numbers may have begun anew below the first one.
            let first_again = element.dated && self.first.iter().take(16).any(|first| first == reading);
            if first_again || self.remembers_old(element, now_ms) || base > 0 && !follows && element.dated && again {
                return self.duplicate(now_ms);
            }
            self.insert(at, reading.0, wraps);
            self.remember(element, true, now_ms, bits);
            return None;
        }
        if self.remembers(element, self.recent.len(), now_ms) {
            return self.duplicate(now_ms);
        }
        let is_top = self.seen.last() == Some(&at);
        let other = self.is_other(reading, at, bits);
        if !element.valid || is_top && (element.newer || other) {
        } else if element.newer || other && self.is_first(reading.0) {
            self.restart();
            self.seen.insert(reading.0);
        } else if other {
            self.seen.retain(|&seen| seen <= at);
            self.base = at - reading.0;
            self.old = self.recent.len();
        } else {
            return self.repeated(element, now_ms, bits);
        }
        self.remember(element, true, now_ms, bits);
        None
    }

    /// Judges the replay of an element. `own`: its number was remembered for it.
    pub fn judge_replayed(
        &mut self,
        element: &ModelNumbered,
        own: bool,
        now_ms: i64,
        bits: SequenceBits,
    ) -> ModelObjection {
        let reading = &element.reading;
        let (at, wraps) = self.position(reading.0, bits);
        let at = if wraps { self.base + reading.0 } else { at };
        let known = self.finds(reading);
        if !self.seen.contains(&at) {
            self.insert(at, reading.0, false);
        } else if !own && !element.newer {
            if known {
                return Some("duplicate");
            }
            if !self.is_other(reading, at, bits) {
                return self.repeated(element, now_ms, bits);
            }
        }
        if !known {
            self.remember(element, true, now_ms, bits);
        }
        None
    }

    /// Nothing can be decided about an element. It is remembered, and proves nothing.
    fn repeated(&mut self, element: &ModelNumbered, now_ms: i64, bits: SequenceBits) -> ModelObjection {
        self.duplicate(now_ms);
        self.remember(element, false, now_ms, bits);
        Some("seq_repeated")
    }

    pub fn restart(&mut self) {
        self.seen.clear();
        self.base = 0;
        if !self.first.is_empty() {
            self.recent.insert(self.old, (self.first.remove(0), true));
            self.counts.0 += 1;
        }
        self.first.clear();
        self.forgotten = None;
        self.old = self.recent.len();
    }

    /// Whether all readings under the first number since the last restart are known, and this is it.
    fn is_first(&self, seq: u64) -> bool {
        self.base == 0 && self.first.len() <= 16 && self.first.first().is_some_and(|(first, _)| *first == seq)
    }

    fn finds(&self, reading: &ModelReading) -> bool {
        self.recent.iter().any(|(other, _)| other == reading)
            || self.first.iter().take(16).any(|first| first == reading)
    }

    /// Whether the reading is certainly none of those that came under its number.
    fn is_other(&self, reading: &ModelReading, at: u64, bits: SequenceBits) -> bool {
        let is_proof = |(other, decided): &(ModelReading, bool)| other.0 == reading.0 && *decided;
        let is_top = self.seen.last() == Some(&at);
        let knows_all = self.forgotten.is_none_or(|seq| self.behind(reading.0, bits) < self.behind(seq, bits));
        let recent = self.recent.iter().any(is_proof) && (is_top || knows_all);
        (self.is_first(reading.0) || recent) && !self.finds(reading)
    }

    /// How far a number is behind the highest one.
    fn behind(&self, seq: u64, bits: SequenceBits) -> u64 {
        let size = if self.width.is_some() || bits == SequenceBits::Bits8 { 256 } else { 65_536 };
        (self.seen.last().copied().unwrap_or(0) + 65_536 - seq) % size
    }

    /// Whether the reading is among the first `count` that are remembered, or the first of all.
    fn remembers(&self, element: &ModelNumbered, count: usize, now_ms: i64) -> bool {
        let newest = self.recent[..count].iter().rposition(|(reading, _)| *reading == element.reading);
        let silence_ms = now_ms - self.period_ms.unwrap_or(now_ms);
        let recent = match silence_ms {
            ..10_000 => self.counts.0 + self.before,
            10_000..20_000 => self.counts.0,
            _ => 0,
        };
        let is_recent = newest.is_some_and(|index| index + recent >= self.recent.len());
        is_recent || element.dated && (newest.is_some() || self.finds(&element.reading))
    }

    fn remembers_old(&self, element: &ModelNumbered, now_ms: i64) -> bool {
        let undated = || self.remembers(element, self.old, now_ms);
        self.recent[..self.old].iter().any(|(reading, _)| *reading == element.reading) && (element.dated || undated())
    }

    fn duplicate(&mut self, now_ms: i64) -> ModelObjection {
        if !self.recent.is_empty() {
            self.begin_period(now_ms);
            self.period_ms = Some(now_ms);
            self.counts.1 = self.counts.1.max(self.recent.len());
        }
        Some("duplicate")
    }

    fn insert(&mut self, at: u64, seq: u64, wraps: bool) {
        let is_top = self.seen.last().is_none_or(|&top| at > top);
        let was_empty = self.seen.is_empty();
        self.seen.insert(at);
        if is_top {
            self.base = at - seq;
            if wraps || seq >= 256 && !was_empty {
                self.width = wraps.then_some(256);
            }
            if wraps && !std::mem::replace(&mut self.has_wrapped, true) {
                self.old = self.recent.len();
            }
        }
    }

    fn begin_period(&mut self, now_ms: i64) {
        let passed_ms = self.period_ms.map_or(i64::MAX, |period_ms| now_ms - period_ms);
        if self.recent.is_empty() || passed_ms >= 10_000 {
            self.before = if passed_ms < 20_000 { self.counts.0 } else { 0 };
            self.period_ms = Some(now_ms);
            self.counts = (0, self.counts.0);
        }
    }

    fn remember(&mut self, element: &ModelNumbered, decided: bool, now_ms: i64, bits: SequenceBits) {
        if self.first.is_empty() {
            self.first.push(element.reading.clone());
            if element.dated {
                return;
            }
        } else if self.is_first(element.reading.0) {
            self.first.push(element.reading.clone());
        }
        self.begin_period(now_ms);
        self.counts.0 += 1;
        while self.recent.len() >= 12.max(self.counts.0 + self.counts.1) {
            let ((seq, _), was_decided) = self.recent.remove(0);
            self.old = self.old.saturating_sub(1);
            if was_decided && self.forgotten.is_none_or(|other| self.behind(seq, bits) < self.behind(other, bits)) {
                self.forgotten = Some(seq);
            }
        }
        self.recent.push((element.reading.clone(), decided));
    }

    /// Where a number is, and whether the counter wraps before it. Counters of 16 bits and more do not occur here.
    fn position(&self, seq: u64, bits: SequenceBits) -> (u64, bool) {
        let Some(&top) = self.seen.last() else { return (seq, false) };
        let top_seq = top - self.base;
        let wraps = match bits {
            SequenceBits::Bits8 => (seq + 256 - top_seq) % 256 <= 128 && seq < top_seq,
            SequenceBits::Auto => seq < 16 && (240..256).contains(&top_seq),
            _ => false,
        };
        if wraps {
            return (self.base + 256 + seq, true);
        }
        let before = match bits {
            SequenceBits::Bits8 => (seq + 256 - top_seq) % 256 > 128 && seq >= top_seq,
            SequenceBits::Auto => self.width.is_some() && seq < 256 && seq > top_seq + 128,
            _ => false,
        };
        if before && self.base >= 256 { (self.base - 256 + seq, false) } else { (self.base + seq, false) }
    }
}
