//! Which errors were replayed, and which readings of a message a replay concerns.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::core::dedup::SequenceSet;
use crate::core::record::Record;
use crate::core::replay_effects::ReplayEffects;

/// Largest number of ranges of replayed errors that are remembered: half a megabyte. Beyond it the two lowest ranges
/// merge, so that errors between them count as replayed.
pub(super) const MAX_REPLAYED_RANGES: usize = 16_384;

/// Sequence numbers of the errors that were replayed.
pub(super) type ReplayedSet = SequenceSet<MAX_REPLAYED_RANGES>;

/// State of replays.
#[derive(Debug, Default)]
pub(super) struct ReplayState {
    /// Errors that were replayed.
    pub replayed: ReplayedSet,
    /// Replayed errors whose reading was found to be counted from a redelivery, or may have been.
    pub uncounted: SequenceSet,
    /// What became of the last replays.
    pub effects: ReplayEffects,
    /// Origins of replays, while a journal is processed anew under other settings.
    pub origins: Option<ReplayOrigins>,
}

/// Which readings were rejected at the origins of replays, while a journal is processed anew under other settings than
/// the first time: a replay then counts only if its reading is rejected this time too.
///
/// It grows with the number of replays in the journal. It is not part of the state that a snapshot stores.
#[derive(Debug, Default)]
pub struct ReplayOrigins {
    positions: BTreeMap<u64, Position>,
}

#[derive(Debug, Default)]
struct Position {
    processed: bool,
    /// Sequence numbers of this time's errors, by index in the message; `None`: the message as a whole.
    rejected: BTreeMap<Option<u32>, u64>,
}

impl ReplayOrigins {
    /// Notes the origin of a replay in the journal. Other records are passed over.
    pub fn note(&mut self, record: &Record<'_>) {
        if let Record::Replay(replay) = record {
            self.positions.entry(replay.position).or_default();
        }
    }

    pub(super) fn processed(&mut self, lsn: u64) {
        if let Some(position) = self.positions.get_mut(&lsn) {
            position.processed = true;
        }
    }

    pub(super) fn rejected(&mut self, lsn: u64, index: Option<u32>, error_seq: u64) {
        if let Some(position) = self.positions.get_mut(&lsn) {
            position.rejected.insert(index, error_seq);
        }
    }

    /// The sequence number that a replayed error has this time; `None` if its reading was not rejected. A record that was
    /// not processed, because the journal no longer has it, counts as rejected.
    pub(super) fn error_seq(&self, position: u64, index: Option<u32>, error_seq: u64) -> Option<u64> {
        match self.positions.get(&position) {
            Some(position) if position.processed => position.rejected.get(&index).copied(),
            _ => Some(error_seq),
        }
    }
}

/// Readings of a message that a replay concerns.
#[derive(Debug)]
pub(super) struct WantedReadings {
    /// When the message first arrived, Unix milliseconds.
    pub arrival_ms: i64,
    /// Whether the message as a whole was rejected.
    pub whole: bool,
    /// Errors of the replay in order of index, each index once.
    pub items: Vec<WantedError>,
}

/// One error of a replay.
#[derive(Debug, Clone, Copy)]
pub(super) struct WantedError {
    /// Index of the reading in its message.
    pub index: u32,
    /// Sequence number of the error in this run.
    pub error_seq: u64,
    /// Sequence number of the error in the errors log. It differs from `error_seq` only while a journal is processed
    /// anew.
    pub stored_seq: u64,
    /// Whether the `seq` of the message was not remembered when it was rejected.
    pub unseen: bool,
}

impl WantedReadings {
    /// Whether the replay concerns the reading with this index.
    pub fn has(&self, index: u32) -> bool {
        self.whole || self.items.binary_search_by_key(&index, |item| item.index).is_ok()
    }

    /// Whether the replay concerns one of the readings with these indexes.
    pub fn has_any(&self, indexes: &Range<u32>) -> bool {
        self.whole || !self.within(indexes).is_empty()
    }

    /// The error whose replay concerns the reading with this index; `None`: the message as a whole.
    pub fn error_seq(&self, index: Option<u32>) -> u64 {
        let found = index.and_then(|index| self.items.binary_search_by_key(&index, |item| item.index).ok());
        self.items.get(found.unwrap_or(0)).map_or(0, |item| item.error_seq)
    }

    pub fn within(&self, indexes: &Range<u32>) -> &[WantedError] {
        let start = self.items.partition_point(|item| item.index < indexes.start);
        let end = self.items.partition_point(|item| item.index < indexes.end);
        self.items.get(start..end).unwrap_or_default()
    }
}

/// The message for which a remembered `seq` was remembered.
#[derive(Debug, Clone, Copy)]
pub(super) enum SeqOwner<'w> {
    /// The element is not replayed: the `seq` alone decides.
    Any,
    /// This message.
    This,
    /// This message, or a redelivery of it. Holds the replayed errors of the element.
    Unsure(&'w [WantedError]),
}
