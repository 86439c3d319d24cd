//! Which errors were replayed, and which readings of a message a replay concerns.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::core::dedup::SequenceSet;
use crate::core::record::Record;

/// Ranges of replayed errors that are remembered: half a megabyte at the most. Beyond it the two lowest merge, so that
/// errors between them count as replayed.
pub(super) const MAX_REPLAYED_RANGES: usize = 16_384;

/// Sequence numbers of the errors that were replayed.
pub(super) type ReplayedSet = SequenceSet<MAX_REPLAYED_RANGES>;

/// What the operator knows of replays.
#[derive(Debug, Default)]
pub(super) struct ReplayState {
    /// Errors that were replayed.
    pub replayed: ReplayedSet,
    /// Replayed errors whose reading had been counted from a redelivery.
    pub redelivered: SequenceSet,
    /// Where replays come from, while a journal is processed anew under settings of its own.
    pub origins: Option<ReplayOrigins>,
}

/// Where the replays in a journal come from, for processing it anew under other settings than it was first processed
/// with: a replay then counts only if its reading is rejected this time too.
///
/// It holds something for each replay in the journal; it is not part of the state that a snapshot stores.
#[derive(Debug, Default)]
pub struct ReplayOrigins {
    positions: BTreeMap<u64, Position>,
}

#[derive(Debug, Default)]
struct Position {
    processed: bool,
    /// What was rejected this time, by index in the message, and the sequence number of its error.
    rejected: BTreeMap<Option<u32>, u64>,
}

impl ReplayOrigins {
    /// Notes the origin of a replay that the journal holds; other records are passed over.
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

    /// The error that one of a replay stands for this time; `None`: its reading was not rejected. A record that was not
    /// processed (the journal no longer has it) was rejected as far as is known.
    pub(super) fn error_seq(&self, position: u64, index: Option<u32>, error_seq: u64) -> Option<u64> {
        match self.positions.get(&position) {
            Some(position) if position.processed => position.rejected.get(&index).copied(),
            _ => Some(error_seq),
        }
    }
}

/// What is wanted of a message that is replayed.
#[derive(Debug)]
pub(super) struct WantedReadings {
    /// When the message first arrived.
    pub arrival_ms: i64,
    pub whole: bool,
    /// In order of their indexes, each once.
    pub items: Vec<WantedError>,
}

/// One error that is replayed.
#[derive(Debug, Clone, Copy)]
pub(super) struct WantedError {
    pub index: u32,
    /// Its number.
    pub error_seq: u64,
    /// The number that it had when it was stored: another one only where a journal is processed anew.
    pub stored_seq: u64,
    pub unseen: bool,
}

impl WantedReadings {
    /// Whether the reading with this index is wanted.
    pub fn has(&self, index: u32) -> bool {
        self.whole || self.items.binary_search_by_key(&index, |item| item.index).is_ok()
    }

    /// Whether one of these is.
    pub fn has_any(&self, indexes: &Range<u32>) -> bool {
        self.whole || !self.within(indexes).is_empty()
    }

    /// The error whose replay the reading with this index is part of; `None`: the message as a whole.
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

/// Which message a `seq` that is remembered was remembered for.
#[derive(Debug, Clone, Copy)]
pub(super) enum SeqOwner<'w> {
    /// It is not a replay: the `seq` alone decides.
    Any,
    /// This one.
    This,
    /// This one or a redelivery of it; the errors of the element that are replayed.
    Unsure(&'w [WantedError]),
}
