//! Finds elements that were counted before, by their sequence numbers. What a number says is in `sequences`.

use crate::core::device::{Device, Slot};
use crate::core::ingest::ElementTime;
use crate::core::json::JsonToken;
use crate::core::operator::Operator;
use crate::core::problem::ReadingProblem;
use crate::core::replayed::SeqOwner;
use crate::core::sequences::{NumberedElement, SequenceVerdict, SharedSequences};
use crate::core::settings::SequenceBits;
use crate::core::validate;
use crate::defects::{self, Defect};

impl Operator {
    /// Reads a `seq` field. A number beyond the width of the counters is none.
    #[inline(always)]
    pub(super) fn sequence<'m>(&self, token: &JsonToken<'_>) -> Result<Option<u64>, ReadingProblem<'m>> {
        match token {
            JsonToken::Number(number)
                if let Some(seq) = number.as_short_unsigned()
                    && seq <= self.settings.current.sequence_bits.largest() =>
            {
                Ok(Some(seq))
            }
            JsonToken::Absent => Ok(None),
            _ => self.unusual_sequence(token),
        }
    }

    /// Reads a `seq` field that is no short integer.
    #[inline(never)]
    fn unusual_sequence<'m>(&self, token: &JsonToken<'_>) -> Result<Option<u64>, ReadingProblem<'m>> {
        let settings = &self.settings.current;
        if settings.has_field_rules() {
            validate::sequence_number(token, settings.sequence_bits.largest())
        } else {
            validate::sequence(token)
        }
    }

    /// Counts a `seq` that is no number. The readings that came with it count as readings without one.
    #[cold]
    pub(super) fn note_invalid_sequence(&mut self, slot: Option<Slot>) -> Option<u64> {
        self.totals.sequence_invalid += 1;
        if let Some(slot) = slot {
            self.devices[slot].sequences.count_invalid();
        }
        None
    }

    /// A device, and what the sequence numbers of all devices share.
    #[inline]
    fn numbered_device(&mut self, slot: Slot, element: Option<&NumberedElement>) -> (&mut Device, SharedSequences<'_>) {
        let bits = element.map_or(self.settings.current.sequence_bits, |element| element.bits);
        let shared = SharedSequences {
            now_ms: self.clocks.journal.now_ms,
            bits: if defects::is(Defect::IgnoreWraps) { SequenceBits::Bits64 } else { bits },
            totals: &mut self.totals,
            extra_digests: &mut self.extra_digests,
        };
        (&mut self.devices[slot], shared)
    }

    /// Notes an element of a device; returns the problem if it was counted before or may have been. `element` is `None` where
    /// it has no sequence number.
    #[inline]
    pub(super) fn deduplicate<'m>(
        &mut self,
        slot: Slot,
        element: Option<&NumberedElement>,
        boot: Option<u64>,
    ) -> Option<ReadingProblem<'m>> {
        let (device, mut shared) = self.numbered_device(slot, element);
        let other_boot = boot.is_some() && device.boot.is_some() && device.boot != boot;
        let Some(element) = element else {
            if other_boot {
                device.sequences.restart(&mut shared);
            }
            device.boot = boot.or(device.boot);
            return None;
        };
        let newest_ms = device.newest_seen_ms;
        if let Some(time) = element.time
            && (time.stated || !element.is_fault)
        {
            device.newest_seen_ms = newest_ms.max(time.ms);
        }
        let verdict = device.sequences.judge(element, newest_ms, other_boot, &mut shared);
        // A message from before the restart does not undo it.
        if verdict == SequenceVerdict::Counts || !other_boot {
            device.boot = boot.or(device.boot);
        }
        problem(element.seq, verdict)
    }

    /// Deduplicates a replayed element: remembers its `seq` for later redeliveries. It is a duplicate only where its `seq` was
    /// not remembered at the rejection and a redelivery was counted since. The element tells no restart of its device, because
    /// it is from the past.
    pub(super) fn deduplicate_replayed<'m>(
        &mut self,
        owner: SeqOwner<'_>,
        slot: Slot,
        element: Option<&NumberedElement>,
        boot: Option<u64>,
    ) -> Option<ReadingProblem<'m>> {
        let (device, mut shared) = self.numbered_device(slot, element);
        if let Some(boot) = boot
            && *device.boot.get_or_insert(boot) != boot
        {
            // The numbers are of another run of the device.
            return None;
        }
        let element = element?;
        if let SeqOwner::Undecided = owner {
            return Some(ReadingProblem::SequenceRepeated(element.seq));
        }
        let newest_ms = device.newest_seen_ms;
        if let Some(time) = element.time {
            device.newest_seen_ms = newest_ms.max(time.ms);
        }
        let is_own = !matches!(owner, SeqOwner::Unsure(_));
        let verdict = device.sequences.judge_replayed(element, newest_ms, is_own, &mut shared);
        if let SeqOwner::Unsure(unsure) = owner
            && let Some(element) = unsure.divided
            && verdict != SequenceVerdict::Duplicate
        {
            let forgotten = self.replays.divided.insert(element, verdict == SequenceVerdict::Counts);
            self.totals.replay_elements_forgotten += u64::from(forgotten);
        }
        problem(element.seq, verdict)
    }

    /// [`Operator::deduplicate`] under rules 0: whatever comes under a number that was seen is a duplicate, unless it shows
    /// a restart.
    pub(super) fn deduplicate_by_numbers<'m>(
        &mut self,
        slot: Slot,
        seq: Option<u64>,
        boot: Option<u64>,
        time: Option<ElementTime>,
        dup: bool,
        is_fault: bool,
    ) -> Option<ReadingProblem<'m>> {
        let device = &mut self.devices[slot];
        let seen = &mut device.sequences.seen;
        if let Some(boot) = boot {
            if device.boot.is_some_and(|before| before != boot) {
                seen.clear();
            }
            device.boot = Some(boot);
        }
        let seq = seq?;
        let newest_ms = device.newest_seen_ms;
        if let Some(time) = time
            && (time.stated || !is_fault)
        {
            device.newest_seen_ms = newest_ms.max(time.ms);
        }
        if !seen.contains(seq) {
            self.totals.sequence_ranges_merged += u64::from(seen.insert(seq));
            return None;
        }
        let restarted = time.is_some_and(|time| time.ms > newest_ms && (time.stated || !dup && !is_fault));
        if restarted {
            seen.clear();
            seen.insert(seq);
            return None;
        }
        // A fault without a time of its own cannot show that its device restarted. It enters no window, so unless MQTT
        // says that it is redelivered, it is better stored twice than lost.
        let told_again = is_fault && !dup && time.is_some_and(|time| !time.stated);
        (!told_again).then_some(ReadingProblem::DuplicateSequence(seq))
    }

    /// [`Operator::deduplicate_replayed`] under rules 0.
    pub(super) fn deduplicate_replayed_by_numbers<'m>(
        &mut self,
        owner: SeqOwner<'_>,
        slot: Slot,
        seq: Option<u64>,
        boot: Option<u64>,
        time: Option<ElementTime>,
    ) -> Option<ReadingProblem<'m>> {
        let device = &mut self.devices[slot];
        if let Some(boot) = boot
            && *device.boot.get_or_insert(boot) != boot
        {
            return None;
        }
        let seq = seq?;
        let newest_ms = device.newest_seen_ms;
        if let Some(time) = time {
            device.newest_seen_ms = newest_ms.max(time.ms);
        }
        let seen = &mut device.sequences.seen;
        if !seen.contains(seq) {
            self.totals.sequence_ranges_merged += u64::from(seen.insert(seq));
            return None;
        }
        // Newer than anything seen: the number that is remembered is of another message, from before a restart.
        let is_newer = time.is_some_and(|time| time.stated && time.ms > newest_ms);
        let SeqOwner::Unsure(unsure) = owner else { return None };
        if is_newer {
            return None;
        }
        for item in unsure.items {
            self.replays.uncounted.insert(item.stored_seq);
        }
        Some(ReadingProblem::DuplicateSequence(seq))
    }
}

/// The problem of an element with this number, if it does not count.
#[inline]
fn problem<'m>(seq: u64, verdict: SequenceVerdict) -> Option<ReadingProblem<'m>> {
    match verdict {
        SequenceVerdict::Counts => None,
        SequenceVerdict::Duplicate => Some(ReadingProblem::DuplicateSequence(seq)),
        SequenceVerdict::Undecided => Some(ReadingProblem::SequenceRepeated(seq)),
    }
}
