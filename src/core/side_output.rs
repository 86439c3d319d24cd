//! Rejections: each is counted by its reason and told in the errors log.

use std::fmt;

use crate::core::batch::{BatchContext, ReadingOrigin};
use crate::core::device::Slot;
use crate::core::operator::Operator;
use crate::core::output::{Collector, ErrorEntry, RejectedPart, ReplayOrigin, Sentence, kept_payload};
use crate::core::problem::ReadingProblem;
use crate::core::reason::Reason;
use crate::core::record::PublishRecord;
use crate::core::validate;

impl Operator {
    /// Rejects a message that could not be decoded. `index` is the reading that a replay concerns; `None`: the message as
    /// a whole.
    pub(super) fn reject_message(
        &mut self,
        batch: &BatchContext<'_>,
        origin: &ReadingOrigin<'_>,
        index: Option<u32>,
        malformed: &dyn fmt::Display,
        out: &mut dyn Collector,
    ) {
        self.totals.received += 1;
        let device_id = batch.topic_device.filter(|id| validate::is_device_id(id));
        let slot = device_id.and_then(|id| self.find_device(batch.tenant, id));
        if let Some(slot) = slot {
            self.about_to_change(self.devices[slot].group);
        }
        self.record(origin, index, slot, (device_id, None), Reason::Malformed, malformed, out);
    }

    /// Rejects one reading.
    #[cold]
    pub(super) fn reject(
        &mut self,
        origin: &ReadingOrigin<'_>,
        index: u32,
        slot: Option<Slot>,
        names: (Option<&str>, Option<&str>),
        problem: ReadingProblem<'_>,
        out: &mut dyn Collector,
    ) {
        if let ReadingProblem::TooManyDevices(limit) = problem
            && let Some(count) = self.totals.devices_refused.get_mut(limit.index())
        {
            *count += 1;
        }
        self.record(origin, Some(index), slot, names, problem.reason(), &problem, out);
    }

    /// Adds to the sentence what is known of the clock that may be wrong: weir's own, or else that of the device.
    fn blame_clock(&mut self, slot: Option<Slot>, reason: Reason) {
        let is_of_time = matches!(reason, Reason::TimestampInFuture | Reason::TimestampTooOld);
        if let Some(fault) = self.clock_fault().filter(|_| is_of_time) {
            self.advise_instead(&fault);
        } else if let Some(fault) = slot.and_then(|slot| self.devices[slot].clock.fault(reason)) {
            self.advise_instead(&fault);
        }
    }

    /// Puts another advice in the place of the one that the sentence ends with.
    fn advise_instead(&mut self, fault: &dyn fmt::Display) {
        let sentence = &mut self.work.sentence;
        sentence.truncate(sentence.find("; ").unwrap_or(sentence.len()));
        // Writing into a string cannot fail.
        let _ = std::fmt::Write::write_fmt(sentence, format_args!("; {fault}"));
    }

    /// Counts a rejection and, where such errors are stored, emits its entry. `index` is that of the reading; `None`: the
    /// message as a whole.
    #[expect(clippy::too_many_arguments, reason = "the parts of one entry")]
    fn record(
        &mut self,
        origin: &ReadingOrigin<'_>,
        index: Option<u32>,
        slot: Option<Slot>,
        (device_id, metric): (Option<&str>, Option<&str>),
        reason: Reason,
        sentence: &dyn fmt::Display,
        out: &mut dyn Collector,
    ) {
        if let Some(count) = self.totals.rejected.get_mut(reason as usize) {
            *count += 1;
        }
        if let Some(slot) = slot {
            self.devices[slot].rare.count_rejected(reason);
        }
        // What was remembered at the first rejection stays so.
        let is_unseen = slot.is_none() && origin.replay.is_none_or(|replay| replay.is_unseen(index));
        if let Some(replay) = origin.replay
            && is_unseen
            && index.is_some()
            && device_id.is_some()
        {
            let forgotten = self.replays.divided.note_replay(origin.lsn, replay.position);
            self.totals.replay_elements_forgotten += u64::from(forgotten);
        }
        let account = self.error_account(origin.tenant, slot, device_id);
        let is_stored = (reason != Reason::Duplicate || self.settings.current.store_duplicates)
            && self.has_error_room(origin, account);
        if !is_stored && origin.replay.is_none() {
            self.note_rejected(origin.lsn, index, reason, self.next_seq.error);
            return;
        }
        self.work.sentence.clear();
        // Writing into a string cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut self.work.sentence, format_args!("{sentence}"));
        self.blame_clock(slot, reason);
        if let Some(replay) = origin.replay {
            let error_seq = is_stored.then_some(self.next_seq.error);
            self.replays.effects.reject(replay, index, reason, &self.work.sentence, error_seq);
        }
        if !is_stored {
            self.note_rejected(origin.lsn, index, reason, self.next_seq.error);
            return;
        }
        let device_id = match (origin.tenant, device_id) {
            (Some(tenant), Some(id)) => {
                self.write_full_id(tenant, id);
                Some(self.work.device_id.as_str())
            }
            (_, device_id) => device_id,
        };
        let entry = ErrorEntry {
            index: index.unwrap_or(0),
            reason,
            part: if index.is_some() { RejectedPart::Reading } else { RejectedPart::Message },
            message: self.work.sentence.as_str().into(),
            device_id,
            metric,
            is_unseen,
            origin: origin
                .replay
                .map(|wanted| ReplayOrigin { replay_of: wanted.error_seq(index), first_arrival_ms: wanted.arrival_ms }),
            ..message_entry(origin)
        };
        let seq = self.next_seq.error;
        let placed = match self.settings.current.errors_in_proportion {
            true => {
                let later = origin.readings.saturating_sub(entry.index).saturating_sub(1);
                self.work.errors.place(seq, account, entry, later)
            }
            false => Some(entry),
        };
        if let Some(entry) = placed {
            out.error(seq, &entry);
            self.next_seq.error += 1;
            let bytes = self.work.errors.written();
            self.charge_errors(account, bytes);
        }
        self.note_rejected(origin.lsn, index, reason, seq);
    }

    /// Ends the errors of a message: those that share an entry are emitted.
    #[inline]
    pub(super) fn end_message(&mut self, origin: &ReadingOrigin<'_>, out: &mut dyn Collector) {
        if self.work.errors.is_begun() {
            self.emit_folded(origin, out);
        }
    }

    #[cold]
    fn emit_folded(&mut self, origin: &ReadingOrigin<'_>, out: &mut dyn Collector) {
        let seq = self.next_seq.error;
        let next = &mut self.next_seq.error;
        let slot = self.work.errors.end(seq, &message_entry(origin), |entry| {
            out.error(seq, entry);
            *next += 1;
        });
        if let Some(slot) = slot {
            let bytes = self.work.errors.written();
            self.charge_errors(slot, bytes);
        }
    }
}

/// The fields that the errors of a message have in common.
fn message_entry<'a>(origin: &ReadingOrigin<'a>) -> ErrorEntry<'a> {
    let PublishRecord { client_id, topic, own_device, user, payload, .. } = *origin.publish;
    let first_arrival_ms = origin.first_arrival_ms();
    ErrorEntry {
        journal_position: origin.lsn,
        index: 0,
        arrival_ms: origin.arrival_ms,
        reason: Reason::Malformed,
        part: RejectedPart::Message,
        message: Sentence::default(),
        device_id: None,
        metric: None,
        client_id,
        topic,
        own_device,
        user,
        is_cut: false,
        payload: kept_payload(payload),
        payload_bytes: payload.len() as u64,
        is_unseen: false,
        origin: origin.replay.map(|_| ReplayOrigin { replay_of: 0, first_arrival_ms }),
        follows: None,
        folded: None,
    }
}
