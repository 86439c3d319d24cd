//! Stored errors that are processed again.
//!
//! A replay goes through all checks under the settings in force, but for deduplication: the `seq` of a rejected reading
//! was remembered when it was rejected. Instead each error is replayed once, whatever the journal holds.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::core::decode::Message;
use crate::core::dedup::SequenceSet;
use crate::core::device::Slot;
use crate::core::ingest::{Batch, EventTime, Site};
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::reason::Reason;
use crate::core::record::{Publish, Record, Replay};
use crate::core::validate::Problem;

/// Ranges of replayed errors that are remembered: half a megabyte at the most. Beyond it the two lowest merge, so that
/// errors between them count as replayed.
pub(super) const MAX_REPLAYED_RANGES: usize = 16_384;

/// Sequence numbers of the errors that were replayed.
pub(super) type ReplayedSet = SequenceSet<MAX_REPLAYED_RANGES>;

/// Where the replays in a journal come from, for processing it anew under other settings than it was first processed
/// with: a replay then counts only if its reading is rejected this time too.
///
/// It holds something for each replay in the journal; it is not part of the state that a snapshot stores.
#[derive(Debug, Default)]
pub struct Origins {
    positions: BTreeMap<u64, Position>,
}

#[derive(Debug, Default)]
struct Position {
    processed: bool,
    /// What was rejected this time, by index in the message, and the sequence number of its error.
    rejected: BTreeMap<Option<u32>, u64>,
}

impl Origins {
    /// Notes the origin of a replay that the journal holds; other records are passed over.
    pub fn note(&mut self, record: &Record<'_>) {
        if let Record::Replay(replay) = record {
            self.positions.entry(replay.position).or_default();
        }
    }

    fn processed(&mut self, lsn: u64) {
        if let Some(position) = self.positions.get_mut(&lsn) {
            position.processed = true;
        }
    }

    fn rejected(&mut self, lsn: u64, index: Option<u32>, error_seq: u64) {
        if let Some(position) = self.positions.get_mut(&lsn) {
            position.rejected.insert(index, error_seq);
        }
    }

    /// The error that a replay stands for this time; `None`: its reading was not rejected. A record that was not
    /// processed (the journal no longer has it) was rejected as far as is known.
    fn error_seq(&self, replay: &Replay<'_>) -> Option<u64> {
        match self.positions.get(&replay.position) {
            Some(position) if position.processed => position.rejected.get(&replay.index).copied(),
            _ => Some(replay.error_seq),
        }
    }
}

impl Operator {
    /// From here on a replay counts only if `origins` say that its reading was rejected. To be called before the first
    /// batch, with the origins of all replays in the journal.
    pub fn expect_replays(&mut self, origins: Origins) {
        self.origins = Some(origins);
    }

    /// Whether each of these errors was replayed, or counts as replayed.
    pub fn are_replayed(&self, error_seqs: &[u64]) -> Vec<bool> {
        error_seqs.iter().map(|&seq| self.replayed.contains(seq)).collect()
    }

    /// Applies one replay. `arrival_ms` is that of the batch.
    pub(super) fn replay<'a>(
        &mut self,
        lsn: u64,
        arrival_ms: i64,
        message: &mut Message<'a>,
        mut replay: Replay<'a>,
        out: &mut dyn Collector,
    ) {
        self.note_processed(lsn);
        let error_seq = self.origins.as_ref().map_or(Some(replay.error_seq), |origins| origins.error_seq(&replay));
        let (Some(error_seq), false) = (error_seq, self.replayed.contains(replay.error_seq)) else {
            self.totals.replays_ignored += 1;
            return;
        };
        self.totals.replays += 1;
        self.totals.replay_ranges_merged += u64::from(self.replayed.insert(replay.error_seq));
        let siblings_of = replay.error_seq;
        replay.error_seq = error_seq;
        // What follows in the journal's batch goes on after the publish before this: nothing of it may change.
        let mut batch = Batch::new(lsn, replay.arrival_ms);
        batch.resolve(&self.rules.topics, replay.topic);
        let publish = Publish {
            client_id: replay.client_id,
            topic: replay.topic,
            packet_id: 0,
            qos: 0,
            dup: false,
            retain: false,
            payload: replay.payload,
        };
        let site = Site { lsn, arrival_ms, publish: &publish, replay: Some(&replay), siblings_of, remembered: false };
        // One reading was rejected for itself, so the message had a form; its limit of readings then held.
        let max_readings = replay.index.map_or(self.settings.max_readings_per_message, |_| usize::MAX);
        if let Err(malformed) = message.decode(replay.payload, max_readings) {
            self.reject_message(&batch, site, malformed, out);
            return;
        }
        let readings = self.elements(&mut batch, site, message, false, out);
        if let Some(index) = replay.index.filter(|index| *index >= readings) {
            self.totals.received += 1;
            self.reject(site, index, None, (None, None), Problem::NoSuchReading(index), out);
        }
    }

    /// A record that a replay may have come from.
    #[inline]
    pub(super) fn note_processed(&mut self, lsn: u64) {
        if let Some(origins) = &mut self.origins {
            origins.processed(lsn);
        }
    }

    /// An error that a replay may have come from.
    pub(super) fn note_rejected(&mut self, lsn: u64, index: Option<u32>, reason: Reason, error_seq: u64) {
        if let Some(origins) = &mut self.origins
            && reason.is_replayable()
        {
            origins.rejected(lsn, index, error_seq);
        }
    }

    /// Whether the message's `seq` is known to be remembered for this message itself, and not for a redelivery of it:
    /// where it was not remembered at the rejection, that is so once another reading of the same element was replayed.
    /// `indexes` are those of the element. An element whose device has no state is rejected as a whole, so that the
    /// errors of its readings follow one another.
    pub(super) fn is_remembered(&self, site: &Site<'_>, indexes: Range<u32>) -> bool {
        let Some(replay) = site.replay else { return false };
        let Some(index) = replay.index else { return false };
        if !replay.unseen {
            return true;
        }
        let first = site.siblings_of.saturating_sub(u64::from(index.saturating_sub(indexes.start)));
        let siblings = (first..).take(indexes.len());
        let counted = |seq: u64| self.replayed.contains(seq) && !self.redelivered.contains(seq);
        siblings.filter(|seq| *seq != site.siblings_of).any(counted)
    }

    /// What deduplication is for a replay: its `seq` is remembered for later redeliveries, and is a duplicate only where
    /// it was not remembered at the rejection and a redelivery was counted since. It tells nothing of restarts: it is
    /// from the past.
    pub(super) fn deduplicate_replayed<'m>(
        &mut self,
        site: &Site<'_>,
        slot: Slot,
        seq: Option<u64>,
        boot: Option<u64>,
        time: Option<EventTime>,
    ) -> Option<Problem<'m>> {
        let device = &mut self.devices[slot];
        if let Some(boot) = boot
            && *device.boot.get_or_insert(boot) != boot
        {
            // Numbers of another run of the device.
            return None;
        }
        let seq = seq?;
        let newest_ms = device.newest_seen_ms;
        if let Some(time) = time {
            device.newest_seen_ms = newest_ms.max(time.ms);
        }
        if !device.sequences.contains(seq) {
            self.totals.sequence_ranges_merged += u64::from(device.sequences.insert(seq));
            return None;
        }
        // Newer than anything seen: then the number was that of another message, from before a restart.
        let is_newer = time.is_some_and(|time| time.stated && time.ms > newest_ms);
        if site.remembered || is_newer {
            return None;
        }
        self.redelivered.insert(site.siblings_of);
        Some(Problem::DuplicateSequence(seq))
    }
}
