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
    /// The first reading since the last restart.
    first: Option<ModelReading>,
    /// Readings that are remembered, oldest first.
    recent: Vec<ModelReading>,
    /// How many of them are from before a restart.
    old: usize,
    period_ms: Option<i64>,
    counts: (usize, usize),
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
            let again = self.recent.contains(reading) || self.first.as_ref() == Some(reading);
            if self.remembers_old(element, now_ms) || base > 0 && !follows && element.dated && again {
                return self.duplicate(now_ms);
            }
            self.insert(at, reading.0, wraps);
            self.remember(element, now_ms);
            return None;
        }
        if self.remembers(element, self.recent.len(), now_ms) {
            return self.duplicate(now_ms);
        }
        let is_top = self.seen.last() == Some(&at);
        let known = self.is_first(reading.0) || self.recent.iter().any(|(seq, _)| *seq == reading.0);
        let other = known && !self.recent.contains(reading) && self.first.as_ref() != Some(reading);
        if !element.valid || is_top && (element.newer || other) {
        } else if element.newer || other && self.is_first(reading.0) {
            self.restart();
            self.seen.insert(reading.0);
        } else if other {
            self.seen.retain(|&seen| seen <= at);
            self.base = at - reading.0;
            self.old = self.recent.len();
        } else {
            self.duplicate(now_ms);
            self.remember(element, now_ms);
            return Some("seq_repeated");
        }
        self.remember(element, now_ms);
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
        let known = self.recent.contains(reading) || self.first.as_ref() == Some(reading);
        if !self.seen.contains(&at) {
            self.insert(at, reading.0, false);
        } else if !own && !element.newer {
            if known {
                return Some("duplicate");
            }
            if !self.is_first(reading.0) && !self.recent.iter().any(|(seq, _)| *seq == reading.0) {
                self.duplicate(now_ms);
                self.remember(element, now_ms);
                return Some("seq_repeated");
            }
        }
        if !known {
            self.remember(element, now_ms);
        }
        None
    }

    pub fn restart(&mut self) {
        self.seen.clear();
        self.base = 0;
        if let Some(first) = self.first.take() {
            self.recent.insert(self.old, first);
            self.counts.0 += 1;
        }
        self.old = self.recent.len();
    }

    fn is_first(&self, seq: u64) -> bool {
        self.first.as_ref().is_some_and(|(first, _)| *first == seq)
    }

    /// Whether the reading is among the first `count` that are remembered, or the first of all.
    fn remembers(&self, element: &ModelNumbered, count: usize, now_ms: i64) -> bool {
        let newest = self.recent[..count].iter().rposition(|reading| *reading == element.reading);
        let silence_ms = now_ms - self.period_ms.unwrap_or(now_ms);
        let recent = match silence_ms {
            ..10_000 => self.counts.0 + self.counts.1,
            10_000..20_000 => self.counts.0,
            _ => 0,
        };
        let is_recent = newest.is_some_and(|index| index + recent >= self.recent.len());
        is_recent || element.dated && (newest.is_some() || self.first.as_ref() == Some(&element.reading))
    }

    fn remembers_old(&self, element: &ModelNumbered, now_ms: i64) -> bool {
        let undated = || self.remembers(element, self.old, now_ms);
        self.recent[..self.old].contains(&element.reading) && (element.dated || undated())
    }

    fn duplicate(&mut self, now_ms: i64) -> ModelObjection {
        if !self.recent.is_empty() {
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

    fn remember(&mut self, element: &ModelNumbered, now_ms: i64) {
        if self.first.is_none() {
            self.first = Some(element.reading.clone());
            if element.dated {
                return;
            }
        }
        if self.recent.is_empty() || self.period_ms.is_none_or(|period_ms| now_ms - period_ms >= 10_000) {
            self.period_ms = Some(now_ms);
            self.counts = (0, self.counts.0);
        }
        self.counts.0 += 1;
        self.recent.push(element.reading.clone());
        while self.recent.len() > 12.max(self.counts.0 + self.counts.1) {
            self.recent.remove(0);
            self.old = self.old.saturating_sub(1);
        }
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
