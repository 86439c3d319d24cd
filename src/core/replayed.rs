//! Which errors were replayed, and which readings of a message a replay concerns.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::core::codec::{DecodeError, FieldReader, put_u64};
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
    /// Replayed errors whose reading was found to be counted from a redelivery, or may have been, under rules 0.
    pub uncounted: SequenceSet,
    /// Elements of which a part was replayed.
    pub divided: DividedElements,
    /// What became of the last replays.
    pub effects: ReplayEffects,
    /// Origins of replays, while a journal is processed anew under other settings.
    pub origins: Option<ReplayOrigins>,
}

/// Elements whose `seq` was not remembered at the rejection, and of which a part was replayed. The replay of another part must
/// not take the `seq` that the first part left behind for that of a redelivery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DividedElements {
    /// By journal position of the message and index of the first reading: whether the first part counted. If not, its `seq` did
    /// not tell.
    counted: BTreeMap<ElementPlace, bool>,
    /// Positions of replays that were rejected without a state of their device, with the positions of the messages that they
    /// replayed: the errors of these replays are of the same elements.
    replays: BTreeMap<u64, u64>,
}

/// Elements of which a part was replayed that are remembered. Beyond it those of the oldest messages are forgotten: the `seq`
/// alone decides about the replays of their other parts, and may take them for duplicates.
pub(super) const MAX_DIVIDED: usize = 4_096;

/// Journal position of the message of an element, and index of the first reading of the element.
type ElementPlace = (u64, u32);

impl DividedElements {
    /// Position of the message that the record at this position is a replay of, or this position.
    pub fn origin(&self, position: u64) -> u64 {
        self.replays.get(&position).copied().unwrap_or(position)
    }

    /// Notes that the record at `lsn` replays the message at `position`. Returns whether another one was forgotten.
    pub fn note_replay(&mut self, lsn: u64, position: u64) -> bool {
        self.replays.insert(lsn, self.origin(position));
        self.replays.len() > MAX_DIVIDED && self.replays.pop_first().is_some()
    }

    /// Whether the part that was replayed first counted; `None`: no part was, or it was a duplicate.
    pub fn get(&self, element: ElementPlace) -> Option<bool> {
        self.counted.get(&element).copied()
    }

    /// Remembers an element. Returns whether another one was forgotten.
    pub fn insert(&mut self, element: ElementPlace, counted: bool) -> bool {
        self.counted.insert(element, counted);
        self.counted.len() > MAX_DIVIDED && self.counted.pop_first().is_some()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty() && self.replays.is_empty()
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(self.counted.len() as u64, out);
        let mut before = 0;
        for (&(position, index), &counted) in &self.counted {
            put_u64(position - before, out);
            put_u64(u64::from(index), out);
            out.push(u8::from(counted));
            before = position;
        }
        put_u64(self.replays.len() as u64, out);
        for (&lsn, &position) in &self.replays {
            put_u64(lsn, out);
            put_u64(position, out);
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut elements = Self::default();
        let mut position = 0_u64;
        for _ in 0..reader.count()? {
            position = position.checked_add(reader.u64()?).ok_or("a position of more than 64 bits")?;
            let (index, counted) = (reader.u32()?, reader.u8()? != 0);
            elements.counted.insert((position, index), counted);
        }
        for _ in 0..reader.count()? {
            elements.replays.insert(reader.u64()?, reader.u64()?);
        }
        Ok(elements)
    }
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
    /// Journal position of the message.
    pub position: u64,
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

    /// Whether the `seq` of the reading with this index was not remembered at its first rejection; `None`: the message as a whole.
    pub fn is_unseen(&self, index: Option<u32>) -> bool {
        let found = index.and_then(|index| self.items.binary_search_by_key(&index, |item| item.index).ok());
        self.whole || found.and_then(|found| self.items.get(found)).is_none_or(|item| item.unseen)
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
    /// This message, or a redelivery of it: another part of the element was replayed, and its `seq` did not tell.
    Undecided,
    /// This message, or a redelivery of it.
    Unsure(UnsureElement<'w>),
}

/// An element whose `seq` was remembered for its own message or for a redelivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnsureElement<'w> {
    /// The replayed errors of the element.
    pub items: &'w [WantedError],
    /// The element, if a part of it is replayed.
    pub divided: Option<ElementPlace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_the_oldest_are_forgotten() {
        let mut elements = DividedElements::default();
        let forgotten = (0..=MAX_DIVIDED as u64).filter(|&position| elements.insert((position, 3), position % 2 == 0));
        assert_eq!(forgotten.count(), 1);
        assert_eq!([0, 1, 2].map(|position| elements.get((position, 3))), [None, Some(false), Some(true)]);
        assert_eq!(elements.get((1, 2)), None);
        let forgotten = (0..=MAX_DIVIDED as u64).filter(|&replay| elements.note_replay(10_000 + replay, 7 + replay));
        assert_eq!(forgotten.count(), 1);
        assert_eq!([10_000, 10_001].map(|position| elements.origin(position)), [10_000, 8]);
        elements.note_replay(20_000, 10_001);
        assert_eq!(elements.origin(20_000), 8, "a replay of a replay");
        let mut bytes = Vec::new();
        elements.encode(&mut bytes);
        assert_eq!(DividedElements::decode(&mut FieldReader::new(&bytes)), Ok(elements));
    }
}
