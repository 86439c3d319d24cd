//! Readings of a message that share one entry of the errors log, because the message has more errors than the log has room
//! for.
//!
//! ```text
//! 00 readings
//! 01 { gap, class u8, readings - 1 }…
//! 02 class_count u8, class u8…, code_count, codes
//! ```
//! Form 0 says only how many readings there are; it serves where the indexes have no room. A run of form 1 begins `gap` readings
//! behind the run before, and the first run at the index of the entry. A class is a reason; bit 7 says that the `seq` of the
//! message was not remembered. Codes are 4 bits per reading from the index of the entry on, the low half of a byte first:
//! 0 is a reading that is not among these, else the place of its class, counted from 1. Of forms 1 and 2 the shorter is
//! written. Integers are LEB128.

use std::collections::BTreeMap;

use crate::core::codec::{DecodeError, FieldReader, put_u64};
use crate::core::reason::Reason;

const COUNT_ONLY: u8 = 0;
const RUNS: u8 = 1;
const CODES: u8 = 2;
const UNSEEN: u8 = 0x80;
/// Runs whose indexes are stored, at most: as many as fit into the record of a replay.
const MAX_RUNS: usize = 5_000;
/// Classes that a code of 4 bits can name.
const MAX_CLASSES: usize = 15;

/// Readings that follow one another in their message and were rejected for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldedRun {
    /// Index of the first reading.
    pub first: u32,
    /// Index of the last reading.
    pub last: u32,
    /// Why they are in no window.
    pub reason: Reason,
    /// Whether the `seq` of the message was not remembered when they were rejected; see
    /// [`ReplayItem::unseen`](crate::core::record::ReplayItem::unseen).
    pub unseen: bool,
}

impl FoldedRun {
    /// Number of readings.
    pub fn readings(&self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    fn class(&self) -> u8 {
        self.reason as u8 | if self.unseen { UNSEEN } else { 0 }
    }
}

/// The readings that one entry stands for, in their stored form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldedReadings<'a> {
    /// Index of the first reading.
    first: u32,
    stored: &'a [u8],
}

impl<'a> FoldedReadings<'a> {
    /// The readings in `stored`, of which the first has the index `first`.
    ///
    /// # Errors
    /// Bytes that are of no form.
    pub fn decode(first: u32, stored: &'a [u8]) -> Result<Self, DecodeError> {
        let mut readings = 0_u64;
        read_runs(first, stored, &mut |run| readings += run.readings())?;
        Ok(Self { first, stored })
    }

    /// Index of the first reading.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The stored form.
    pub fn stored(&self) -> &'a [u8] {
        self.stored
    }

    /// Number of readings.
    pub fn readings(&self) -> u64 {
        match self.stored {
            [COUNT_ONLY, count @ ..] => FieldReader::new(count).u64().unwrap_or(0),
            _ => self.runs().iter().map(FoldedRun::readings).sum(),
        }
    }

    /// The readings in order of index; none where the indexes are not stored.
    pub fn runs(&self) -> Vec<FoldedRun> {
        let mut runs = Vec::new();
        // The bytes were checked when they were decoded, or were just encoded.
        let _ = read_runs(self.first, self.stored, &mut |run| runs.push(run));
        runs
    }

    /// Numbers of readings by reason; none where the indexes are not stored.
    pub fn reasons(&self) -> BTreeMap<Reason, u64> {
        let mut reasons = BTreeMap::new();
        for run in self.runs() {
            *reasons.entry(run.reason).or_default() += run.readings();
        }
        reasons
    }
}

fn read_runs(first: u32, stored: &[u8], found: &mut dyn FnMut(FoldedRun)) -> Result<(), DecodeError> {
    let mut reader = FieldReader::new(stored);
    match reader.u8()? {
        COUNT_ONLY => {
            reader.u64()?;
        }
        RUNS => read_form_1(first, &mut reader, found)?,
        CODES => read_form_2(first, &mut reader, found)?,
        _ => return Err(DecodeError::Content("unknown form of folded readings")),
    }
    reader.end()
}

fn read_form_1(first: u32, reader: &mut FieldReader<'_>, found: &mut dyn FnMut(FoldedRun)) -> Result<(), DecodeError> {
    let mut next = first;
    while reader.end().is_err() {
        let (gap, class, more) = (reader.u32()?, reader.u8()?, reader.u32()?);
        let first = next.checked_add(gap).ok_or("an index of more than 32 bits")?;
        let last = first.checked_add(more).ok_or("an index of more than 32 bits")?;
        let (reason, unseen) = read_class(class)?;
        found(FoldedRun { first, last, reason, unseen });
        next = last.checked_add(1).ok_or("an index of more than 32 bits")?;
    }
    Ok(())
}

fn read_form_2(first: u32, reader: &mut FieldReader<'_>, found: &mut dyn FnMut(FoldedRun)) -> Result<(), DecodeError> {
    let class_count = usize::from(reader.u8()?);
    let classes = reader.take(class_count)?;
    let count = reader.u32()?;
    let codes = reader.take((count as usize).div_ceil(2))?;
    let mut run: Option<FoldedRun> = None;
    for at in 0..count {
        let byte = codes.get(at as usize / 2).copied().unwrap_or(0);
        let code = usize::from(if at % 2 == 0 { byte & 0xf } else { byte >> 4 });
        let index = first.checked_add(at).ok_or("an index of more than 32 bits")?;
        let class = match code.checked_sub(1) {
            None => None,
            Some(place) => Some(*classes.get(place).ok_or("a class that is not listed")?),
        };
        match (&mut run, class) {
            (Some(run), Some(class)) if run.class() == class => run.last = index,
            (ended, class) => {
                if let Some(run) = ended.take() {
                    found(run);
                }
                if let Some((reason, unseen)) = class.map(read_class).transpose()? {
                    *ended = Some(FoldedRun { first: index, last: index, reason, unseen });
                }
            }
        }
    }
    if let Some(run) = run {
        found(run);
    }
    Ok(())
}

fn read_class(class: u8) -> Result<(Reason, bool), DecodeError> {
    let reason = Reason::from_code(class & !UNSEEN).ok_or("unknown reason")?;
    Ok((reason, class & UNSEEN != 0))
}

/// Collects readings in order of index. Its memory is kept from message to message.
#[derive(Debug, Default)]
pub(in crate::core) struct FoldedRuns {
    runs: Vec<FoldedRun>,
    stored: Vec<u8>,
}

impl FoldedRuns {
    /// Removes all readings.
    pub fn clear(&mut self) {
        self.runs.clear();
    }

    /// Whether there are no readings.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Adds the reading `index`, which comes behind all others.
    pub fn add(&mut self, index: u32, reason: Reason, unseen: bool) {
        match self.runs.last_mut() {
            Some(run) if (run.last.checked_add(1), run.reason, run.unseen) == (Some(index), reason, unseen) => {
                run.last = index;
            }
            _ => self.runs.push(FoldedRun { first: index, last: index, reason, unseen }),
        }
    }

    /// The reason of most readings; of several such reasons the one that is checked first.
    pub fn most_frequent(&self) -> Option<Reason> {
        let mut counts = [0_u64; Reason::COUNT];
        for run in &self.runs {
            if let Some(count) = counts.get_mut(run.reason as usize) {
                *count += run.readings();
            }
        }
        let reasons = Reason::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0);
        reasons.max_by_key(|&(reason, count)| (count, std::cmp::Reverse(reason))).map(|(reason, _)| reason)
    }

    /// The readings with their indexes, in the shorter of the two forms; without, where there are too many runs.
    pub fn with_indexes(&mut self) -> Option<FoldedReadings<'_>> {
        if self.runs.len() > MAX_RUNS {
            return self.without_indexes();
        }
        let (first, last) = (self.runs.first()?.first, self.runs.last()?.last);
        self.stored.clear();
        self.stored.push(RUNS);
        let mut next = first;
        for run in &self.runs {
            put_u64(u64::from(run.first - next), &mut self.stored);
            self.stored.push(run.class());
            put_u64(run.readings() - 1, &mut self.stored);
            next = run.last.saturating_add(1);
        }
        let code_bytes = (last - first) as usize / 2;
        if code_bytes < self.stored.len()
            && let Some(codes) = self.codes(first, last)
            && codes.len() < self.stored.len()
        {
            self.stored = codes;
        }
        Some(FoldedReadings { first, stored: &self.stored })
    }

    /// The readings without their indexes.
    pub fn without_indexes(&mut self) -> Option<FoldedReadings<'_>> {
        let first = self.runs.first()?.first;
        self.stored.clear();
        self.stored.push(COUNT_ONLY);
        put_u64(self.runs.iter().map(FoldedRun::readings).sum(), &mut self.stored);
        Some(FoldedReadings { first, stored: &self.stored })
    }

    /// Form 2; `None` where there are too many classes.
    fn codes(&self, first: u32, last: u32) -> Option<Vec<u8>> {
        let mut classes: Vec<u8> = self.runs.iter().map(FoldedRun::class).collect();
        classes.sort_unstable();
        classes.dedup();
        if classes.len() > MAX_CLASSES {
            return None;
        }
        let count = u64::from(last - first) + 1;
        let mut stored = vec![CODES, classes.len() as u8];
        stored.extend_from_slice(&classes);
        put_u64(count, &mut stored);
        let start = stored.len();
        stored.resize(start + (count as usize).div_ceil(2), 0);
        for run in &self.runs {
            let code = 1 + classes.iter().position(|&class| class == run.class())? as u8;
            for at in (run.first - first) as usize..=(run.last - first) as usize {
                *stored.get_mut(start + at / 2)? |= if at % 2 == 0 { code } else { code << 4 };
            }
        }
        Some(stored)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn collect(readings: &[(u32, Reason, bool)]) -> FoldedRuns {
        let mut runs = FoldedRuns::default();
        readings.iter().for_each(|&(index, reason, unseen)| runs.add(index, reason, unseen));
        runs
    }

    #[test]
    fn the_bytes() {
        let mut runs = collect(&[(5, Reason::Malformed, true), (6, Reason::Malformed, true), (9, Reason::Late, false)]);
        assert_eq!(runs.with_indexes().unwrap().stored, [1, 0, 0x80, 1, 2, 14, 0]);
        assert_eq!(runs.without_indexes().unwrap().stored, [0, 3]);
        let alternating: Vec<_> =
            (0..6).map(|index| (index, [Reason::Malformed, Reason::Late][index as usize % 2], false)).collect();
        let mut runs = collect(&alternating);
        assert_eq!(runs.with_indexes().unwrap().stored, [2, 2, 0, 14, 6, 0x21, 0x21, 0x21]);
        assert_eq!(runs.most_frequent(), Some(Reason::Malformed));
        assert_eq!(collect(&alternating[1..]).most_frequent(), Some(Reason::Late));
    }

    #[test]
    fn many_runs_are_counted_in_one_pass() {
        let reasons = [Reason::Late, Reason::Malformed];
        let mut runs = FoldedRuns::default();
        // A pass over all runs for each run would take hours.
        (0..2_000_001).for_each(|index| runs.add(index, reasons[index as usize % 2], false));
        assert_eq!(runs.most_frequent(), Some(Reason::Late));
        runs.add(2_000_001, Reason::Malformed, false);
        assert_eq!(runs.most_frequent(), Some(Reason::Malformed), "of equals the first");
        assert_eq!(FoldedRuns::default().most_frequent(), None);
    }

    #[test]
    fn other_bytes_are_refused() {
        for stored in
            [&[][..], &[0], &[1, 0, 0], &[1, 0, 0x7f, 0], &[2, 1, 0, 1, 2], &[2, 1, 0, 9, 1], &[3], &[0, 1, 1]]
        {
            assert!(FoldedReadings::decode(0, stored).is_err(), "{stored:?}");
        }
        assert!(FoldedReadings::decode(u32::MAX, &[1, 0, 0, 1]).is_err());
    }

    proptest! {
        #[test]
        fn readings_read_back(steps in prop::collection::vec((1u32..4, 0u8..16, any::<bool>()), 1..200)) {
            let mut index = 7;
            let readings: Vec<_> = steps.into_iter().map(|(step, code, unseen)| {
                index += step;
                (index, Reason::from_code(code).unwrap(), unseen)
            }).collect();
            let mut runs = collect(&readings);
            let folded = runs.with_indexes().unwrap();
            let decoded = FoldedReadings::decode(readings[0].0, folded.stored).unwrap();
            let read: Vec<_> = decoded.runs().iter().flat_map(|run| {
                (run.first..=run.last).map(|index| (index, run.reason, run.unseen))
            }).collect();
            prop_assert_eq!(read, readings.clone());
            prop_assert_eq!(decoded.readings(), readings.len() as u64);
            prop_assert_eq!(decoded.reasons().values().sum::<u64>(), readings.len() as u64);
            prop_assert!(folded.stored.len() <= 1 + 3 * readings.len());
            prop_assert_eq!(runs.without_indexes().unwrap().readings(), readings.len() as u64);
        }

        #[test]
        fn any_bytes_are_handled(first: u32, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = FoldedReadings::decode(first, &bytes).map(|folded| (folded.readings(), folded.reasons()));
        }
    }
}
