//! Processes stored errors again.
//!
//! A replay passes all checks under the present settings except deduplication: the `seq` of a rejected reading was
//! remembered when it was rejected, so the replay would be a duplicate of itself. Instead each error is replayed once,
//! however often the journal holds its replay.

use std::fmt;
use std::ops::Range;

use crate::core::batch::{BatchContext, ReadingOrigin};
use crate::core::decode::{DecodeRules, DecodedMessage, MalformedMessage, RecoveredText};
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::problem::ReadingProblem;
use crate::core::reason::Reason;
use crate::core::record::{PublishRecord, ReplayItem, ReplayRecord};
use crate::core::replay_effects::ReplayEffect;
use crate::core::replayed::{ReplayOrigins, SeqOwner, UnsureElement, WantedError, WantedReadings};

impl Operator {
    /// From here on a replay counts only if `origins` say that its reading was rejected. Must be called before the first
    /// batch, with the origins of all replays in the journal.
    pub fn expect_replays(&mut self, origins: ReplayOrigins) {
        self.replays.origins = Some(origins);
    }

    /// Whether each of these errors was replayed, or counts as replayed because ranges were merged.
    pub fn are_replayed(&self, error_seqs: &[u64]) -> Vec<bool> {
        error_seqs.iter().map(|&seq| self.replays.replayed.contains(seq)).collect()
    }

    /// What became of the replays of these errors; `None`: the error was not replayed, or so many others were since that it
    /// is forgotten.
    pub fn replay_effects(&self, error_seqs: &[u64]) -> Vec<Option<ReplayEffect>> {
        error_seqs.iter().map(|&seq| self.replays.effects.get(seq).cloned()).collect()
    }

    /// Applies one replay. `arrival_ms` is the arrival time of the batch that the replay is in.
    pub(super) fn replay<'a>(
        &mut self,
        lsn: u64,
        arrival_ms: i64,
        message: &mut DecodedMessage<'a>,
        replay: ReplayRecord<'a>,
        out: &mut dyn Collector,
    ) {
        self.note_processed(lsn);
        let wanted = self.wanted(&replay);
        if wanted.items.is_empty() {
            return;
        }
        let before = self.totals.in_windows;
        self.replay_wanted(lsn, arrival_ms, message, replay, &wanted, out);
        self.replays.effects.finish(&wanted, self.totals.in_windows - before);
    }

    fn replay_wanted<'a>(
        &mut self,
        lsn: u64,
        arrival_ms: i64,
        message: &mut DecodedMessage<'a>,
        replay: ReplayRecord<'a>,
        wanted: &WantedReadings,
        out: &mut dyn Collector,
    ) {
        // A context of its own: the next publish in the batch may share client and topic with the publish before this
        // replay.
        let mut batch = BatchContext::new(lsn, replay.arrival_ms);
        let publish = PublishRecord {
            client_id: replay.client_id,
            topic: replay.topic,
            own_device: replay.own_device,
            user: replay.user,
            packet_id: 0,
            qos: 0,
            dup: false,
            retain: false,
            repeats_retained: false,
            payload: replay.payload,
        };
        batch.resolve(&mut self.settings.rules, &publish);
        let (tenant, items) = (batch.tenant, u32::try_from(wanted.items.len()).unwrap_or(u32::MAX));
        let mut origin =
            ReadingOrigin { lsn, arrival_ms, publish: &publish, tenant, readings: items, replay: Some(wanted) };
        // Single readings were rejected, so the message was decoded then, under a limit that may have been higher.
        let mut rules = DecodeRules::of(&self.settings.current);
        rules.max_readings = if wanted.whole { rules.max_readings } else { usize::MAX };
        let readings = if batch.map.is_some() {
            self.replay_mapped(&batch, &mut origin, wanted, rules, out)
        } else {
            match message.decode(replay.payload, rules) {
                Ok(()) => {
                    origin.readings = message.max_readings();
                    Some(self.elements(&mut batch, &origin, message, false, out))
                }
                Err(malformed) => self.replay_unusual(&batch, &mut origin, wanted, rules, malformed, out),
            }
        };
        let Some(readings) = readings else { return self.end_message(&origin, out) };
        for item in wanted.within(&(readings..u32::MAX)).iter().filter(|_| !wanted.whole) {
            self.totals.received += 1;
            self.reject(&origin, item.index, None, (None, None), ReadingProblem::NoSuchReading(item.index), out);
        }
        self.end_message(&origin, out);
    }

    /// Replays a message whose payload cannot be decoded as it came. Returns the number of indexes of readings in the
    /// message; `None`: the message is malformed.
    #[cold]
    fn replay_unusual(
        &mut self,
        batch: &BatchContext<'_>,
        origin: &mut ReadingOrigin<'_>,
        wanted: &WantedReadings,
        rules: DecodeRules,
        malformed: MalformedMessage,
        out: &mut dyn Collector,
    ) -> Option<u32> {
        let recovered = match RecoveredText::of(origin.publish.payload, rules, malformed) {
            Ok(recovered) => recovered,
            Err(malformed) => {
                self.reject_wanted(batch, origin, wanted, &malformed, out);
                return None;
            }
        };
        let mut message = DecodedMessage::default();
        if let Err(malformed) = recovered.decode(&mut message, rules) {
            self.reject_wanted(batch, origin, wanted, &malformed, out);
            return None;
        }
        origin.readings = message.max_readings();
        Some(self.elements(&mut batch.of_message(), origin, &message, false, out))
    }

    /// Rejects the readings that a replay concerns, because the message is malformed.
    pub(super) fn reject_wanted(
        &mut self,
        batch: &BatchContext<'_>,
        origin: &ReadingOrigin<'_>,
        wanted: &WantedReadings,
        malformed: &dyn fmt::Display,
        out: &mut dyn Collector,
    ) {
        for item in &wanted.items {
            let index = (!wanted.whole).then_some(item.index);
            self.reject_message(batch, origin, index, malformed, out);
        }
    }

    /// The errors of a replay that were not replayed before. Marks them as replayed.
    fn wanted(&mut self, replay: &ReplayRecord<'_>) -> WantedReadings {
        let mut items: Vec<WantedError> = Vec::with_capacity(replay.items.count());
        let all: Vec<ReplayItem> = replay.items.iter().collect();
        // An error that stands for several readings has an item for each run of them.
        for of_error in all.chunk_by(|a, b| a.error_seq == b.error_seq && a.index < b.index) {
            let wanted = items.len();
            for item in of_error {
                for index in item.indexes() {
                    self.add_wanted(replay, item, index, &mut items);
                }
            }
            match of_error.first() {
                Some(item) if items.len() > wanted => {
                    self.totals.replays += 1;
                    self.totals.replay_ranges_merged += u64::from(self.replays.replayed.insert(item.error_seq));
                }
                _ => self.totals.replays_ignored += 1,
            }
        }
        WantedReadings { position: replay.position, arrival_ms: replay.arrival_ms, whole: replay.whole, items }
    }

    /// Adds a reading of an error, unless the error was replayed before.
    fn add_wanted(&self, replay: &ReplayRecord<'_>, item: &ReplayItem, index: u32, items: &mut Vec<WantedError>) {
        let &ReplayItem { error_seq: stored_seq, unseen, .. } = item;
        if self.replays.replayed.contains(stored_seq) {
            return;
        }
        let part = (!replay.whole).then_some(index);
        let origins = self.replays.origins.as_ref();
        let error_seq = origins.map_or(Some(stored_seq), |all| all.error_seq(replay.position, part, stored_seq));
        if let Some(error_seq) = error_seq
            && let Err(place) = items.binary_search_by_key(&index, |item| item.index)
        {
            items.insert(place, WantedError { index, error_seq, stored_seq, unseen });
        }
    }

    /// Notes that the record at this position was processed.
    #[inline]
    pub(super) fn note_processed(&mut self, lsn: u64) {
        if let Some(origins) = &mut self.replays.origins {
            origins.processed(lsn);
        }
    }

    /// Notes that a reading of the record at this position was rejected.
    pub(super) fn note_rejected(&mut self, lsn: u64, index: Option<u32>, reason: Reason, error_seq: u64) {
        if let Some(origins) = &mut self.replays.origins
            && reason.is_replayable()
        {
            origins.rejected(lsn, index, error_seq);
        }
    }

    /// For which message the `seq` of an element may have been remembered. Where it was not remembered at the rejection,
    /// it is remembered for this message once another reading of the element was replayed and found to be no duplicate.
    /// `indexes` are those of the element.
    pub(super) fn seq_owner<'w>(&self, wanted: &'w WantedReadings, indexes: Range<u32>) -> SeqOwner<'w> {
        if wanted.whole {
            return SeqOwner::Unsure(UnsureElement { items: &wanted.items, divided: None });
        }
        let items = wanted.within(&indexes);
        if items.iter().any(|item| !item.unseen) {
            return SeqOwner::This;
        }
        let is_part = items.len() < indexes.len();
        let unsure = UnsureElement {
            items,
            divided: is_part.then_some((self.replays.divided.origin(wanted.position), indexes.start)),
        };
        if self.settings.current.has_field_rules() {
            return match unsure.divided.and_then(|element| self.replays.divided.get(element)) {
                Some(true) => SeqOwner::This,
                Some(false) => SeqOwner::Undecided,
                None => SeqOwner::Unsure(unsure),
            };
        }
        if self.has_counted_sibling(items, &indexes) { SeqOwner::This } else { SeqOwner::Unsure(unsure) }
    }

    /// Whether another reading of the element was replayed and found to be no duplicate, under rules 0: there, each
    /// reading of an element whose device has no state has an error, and they follow one another.
    fn has_counted_sibling(&self, items: &[WantedError], indexes: &Range<u32>) -> bool {
        let Some(item) = items.first() else { return false };
        let first = item.stored_seq.saturating_sub(u64::from(item.index - indexes.start));
        let mut siblings = (first..).take(indexes.len());
        let counted = |seq: u64| {
            let is_other = items.iter().all(|item| item.stored_seq != seq);
            is_other && self.replays.replayed.contains(seq) && !self.replays.uncounted.contains(seq)
        };
        siblings.any(counted)
    }
}
