//! What is known of the sequence numbers of one device, and what a number says about the reading that came with it.
//!
//! A number that was not seen before counts. Under a number that was seen, the same reading is a duplicate, and another one
//! shows a restart of the device or a number that it uses twice: it counts. Readings are compared by digests, which are
//! remembered for recent numbers (`recent_digests`). Where a digest is forgotten and the event time does not tell, nothing
//! can be decided, and the reading is neither counted nor dropped: it is an error that can be replayed.

use crate::core::codec::{DecodeError, FieldReader, put_u64};
use crate::core::counter::{Counter, CounterPlace};
use crate::core::dedup::SequenceSet;
use crate::core::ingest::ElementTime;
use crate::core::recent_digests::{MAX_EXTRA, NumberOrder, NumberedDigest, RecentDigests};
use crate::core::settings::SequenceBits;
use crate::core::totals::Totals;
use crate::defects::{self, Defect};

/// Distance from the highest number within which the low bits of a number tell it apart.
const TOLD_APART: u64 = 1 << 16;
/// Newest numbers of an edge node that are told apart: the step to another number is one of 8 bits.
const NEWEST_SHARED: u64 = 128;
/// Readings under the first number since a restart that are remembered beside the first one.
const MAX_SIBLINGS: usize = 15;

/// One element with a sequence number.
#[derive(Clone, Copy)]
pub(super) struct NumberedElement {
    /// Its number.
    pub seq: u64,
    /// Width of the counter that the number is of.
    pub bits: SequenceBits,
    /// Digest of its readings.
    pub digest: u32,
    /// Its event time; `None` where the element has a problem: such an element does not tell a restart.
    pub time: Option<ElementTime>,
    /// Whether MQTT says that the message was sent before.
    pub dup: bool,
    /// Whether it is a fault.
    pub is_fault: bool,
}

impl NumberedElement {
    /// Whether the same content under the same number can only be the same reading, however long ago it came. A device
    /// without a clock may send the same again after a restart.
    fn is_dated(&self) -> bool {
        self.dup || self.time.is_none_or(|time| time.stated)
    }

    /// Whether it is a fault that nothing tells from an earlier one. It enters no window, so it is better stored twice than
    /// lost.
    fn is_undated_fault(&self) -> bool {
        self.is_fault && !self.is_dated()
    }

    /// Whether its event time is newer than all before.
    fn is_newer(&self, newest_ms: i64) -> bool {
        self.time.is_some_and(|time| time.ms > newest_ms && (time.stated || !self.dup && !self.is_fault))
    }

    fn entry(&self) -> NumberedDigest {
        NumberedDigest::new(self.seq, self.digest)
    }
}

/// What the number of an element says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SequenceVerdict {
    /// The element counts.
    Counts,
    /// The element was counted before.
    Duplicate,
    /// The number came before, and nothing tells whether the element did.
    Undecided,
}

/// Counts and sizes that all devices share.
pub(super) struct SharedSequences<'a> {
    /// Time of the journal.
    pub now_ms: i64,
    /// Width of the counters.
    pub bits: SequenceBits,
    /// Counts of all devices.
    pub totals: &'a mut Totals,
    /// Number of digests of all devices beyond those that each may have.
    pub extra_digests: &'a mut usize,
}

/// Counts of a device to which something unusual happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SequenceHistory {
    /// Where its counter is.
    counter: Counter,
    /// Times that its counter began again at 0 behind its largest number.
    pub wraps: u64,
    /// Restarts that were recognised.
    pub restarts: u64,
    /// Elements whose `seq` is no number.
    pub invalid: u64,
}

/// What is remembered of a device beside its numbers and its first reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct SequenceMemory {
    recent: RecentDigests,
    history: Option<Box<SequenceHistory>>,
    /// Other readings under the number of the first one, if there are any. They are not forgotten either.
    siblings: Option<Box<FirstSiblings>>,
}

/// Other readings under the first number since the device restarted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct FirstSiblings(Vec<NumberedDigest>);

/// Sequence numbers of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeviceSequences {
    /// Positions of the numbers seen since the device restarted: the numbers, continued to 64 bits.
    pub seen: SequenceSet,
    /// The first reading since the device restarted. It is not forgotten: a counter that begins anew mostly begins with the
    /// same number.
    first: Option<NumberedDigest>,
    memory: Option<Box<SequenceMemory>>,
}

impl DeviceSequences {
    /// Judges an element and remembers it. `newest_ms` is the newest event time before it; `other_boot`: it names another run
    /// of the device than the element before.
    #[inline]
    pub fn judge(
        &mut self,
        element: &NumberedElement,
        newest_ms: i64,
        other_boot: bool,
        shared: &mut SharedSequences<'_>,
    ) -> SequenceVerdict {
        if !other_boot && self.continues(element, shared) {
            return SequenceVerdict::Counts;
        }
        self.judge_any(element, newest_ms, other_boot, shared)
    }

    /// Remembers an element whose number is the one behind the highest number, of a device to which nothing unusual happened.
    /// Nearly all elements are such. Returns false where it does nothing, because the element has to be judged.
    #[inline]
    fn continues(&mut self, element: &NumberedElement, shared: &mut SharedSequences<'_>) -> bool {
        let Some(memory) = &mut self.memory else { return false };
        let is_usual = memory.history.is_none() && !memory.recent.has_old();
        let is_first = self.first.is_none_or(|first| first.is_of(element.seq));
        if !is_usual || is_first || !self.seen.extend(element.seq) {
            return false;
        }
        let order = NumberOrder { top: element.seq as u16, mask: Counter::default().mask(shared.bits) };
        let before = memory.recent.extra();
        memory.recent.remember(element.entry(), order, shared.now_ms, *shared.extra_digests < MAX_EXTRA);
        *shared.extra_digests = (*shared.extra_digests + memory.recent.extra()).saturating_sub(before);
        true
    }

    /// [`DeviceSequences::judge`] for any element.
    #[inline(never)]
    fn judge_any(
        &mut self,
        element: &NumberedElement,
        newest_ms: i64,
        other_boot: bool,
        shared: &mut SharedSequences<'_>,
    ) -> SequenceVerdict {
        if other_boot {
            // What was sent before the restart may come again after it.
            if self.is_remembered(element, shared.now_ms) {
                return self.duplicate(shared.now_ms);
            }
            self.restart(shared);
        }
        let place = self.counter().place(element.seq, self.seen.top(), shared.bits);
        if !self.seen.contains(place.position) {
            // Numbers may have begun anew below the first one.
            let is_first_again = element.is_dated() && self.has_begun_with(element.entry());
            let is_old = is_first_again || self.has_old() && self.is_old(element, shared.now_ms);
            if is_old || self.is_from_before_a_wrap(element, place) {
                return self.duplicate(shared.now_ms);
            }
            self.insert(place, shared);
            self.remember(element, shared);
            return SequenceVerdict::Counts;
        }
        self.judge_seen(element, place, newest_ms, shared)
    }

    /// Judges an element whose number was seen.
    fn judge_seen(
        &mut self,
        element: &NumberedElement,
        place: CounterPlace,
        newest_ms: i64,
        shared: &mut SharedSequences<'_>,
    ) -> SequenceVerdict {
        if self.is_remembered(element, shared.now_ms) && !element.is_undated_fault() {
            return self.duplicate(shared.now_ms);
        }
        let is_top = self.seen.top() == Some(place.position);
        let is_newer = element.is_newer(newest_ms);
        if element.time.is_none() || element.is_undated_fault() || is_newer && is_top {
            self.remember(element, shared);
            return SequenceVerdict::Counts;
        }
        let is_other = self.is_other(element, place.position, shared);
        if !is_newer && (self.remembers_nothing() || defects::is(Defect::IgnoreDigests)) {
            // All numbers are from an earlier version, which remembered no digests.
            return SequenceVerdict::Duplicate;
        }
        if is_newer || is_other && !is_top && self.is_first(element.seq) {
            self.restart(shared);
            self.insert(self.counter().place(element.seq, None, shared.bits), shared);
        } else if is_other {
            if !is_top {
                self.begin_anew_at(place, shared);
            }
        } else if !element.is_fault {
            return self.undecided(element, shared);
        }
        self.remember(element, shared);
        SequenceVerdict::Counts
    }

    /// Judges an element of the past, which is replayed. It shows no restart. `is_own`: its number was remembered for it when
    /// it was rejected.
    pub fn judge_replayed(
        &mut self,
        element: &NumberedElement,
        newest_ms: i64,
        is_own: bool,
        shared: &mut SharedSequences<'_>,
    ) -> SequenceVerdict {
        let place = self.counter().place_without_wrap(element.seq, self.seen.top(), shared.bits);
        let is_known = self.find(element.entry()).is_some();
        let is_seen = self.seen.contains(place.position);
        if !is_seen {
            self.insert(place, shared);
        } else if !is_own && !element.is_newer(newest_ms) {
            if is_known || self.remembers_nothing() {
                return SequenceVerdict::Duplicate;
            }
            if !self.is_other(element, place.position, shared) {
                return self.undecided(element, shared);
            }
        }
        if !is_known {
            self.remember(element, shared);
        }
        SequenceVerdict::Counts
    }

    /// The device restarted: its numbers begin anew.
    pub fn restart(&mut self, shared: &mut SharedSequences<'_>) {
        if self.first.is_none() && self.seen.top().is_none() {
            return;
        }
        self.seen.clear();
        let first = self.first.take();
        self.change(shared, |memory| {
            memory.recent.restart(first);
            memory.siblings = None;
            let history = memory.history.get_or_insert_default();
            history.restarts += 1;
            history.counter.begin_anew();
        });
        shared.totals.sequence_restarts += 1;
    }

    /// Numbers from this one on begin anew: a device restarted, or it uses numbers twice, some of them later.
    fn begin_anew_at(&mut self, place: CounterPlace, shared: &mut SharedSequences<'_>) {
        let order = self.order(shared);
        self.seen.remove_above(place.position);
        self.change(shared, |memory| {
            memory.recent.begin_anew(order);
            let history = memory.history.get_or_insert_default();
            history.restarts += 1;
            history.counter = place.counter;
        });
        shared.totals.sequence_restarts += 1;
    }

    /// Ends periods that began in a time that was wrong at `now_ms`.
    pub fn set_back(&mut self, now_ms: i64) {
        if let Some(memory) = &mut self.memory {
            memory.recent.set_back(now_ms);
        }
    }

    fn duplicate(&mut self, now_ms: i64) -> SequenceVerdict {
        if let Some(memory) = &mut self.memory {
            memory.recent.note_redelivery(now_ms);
        }
        SequenceVerdict::Duplicate
    }

    /// Remembers an element that may have been sent before, for the case that it is sent again. What is remembered of later ones
    /// must not give way to it: they may follow. It is no proof that another reading came under the number first.
    fn undecided(&mut self, element: &NumberedElement, shared: &mut SharedSequences<'_>) -> SequenceVerdict {
        if *shared.extra_digests < MAX_EXTRA {
            self.duplicate(shared.now_ms);
            self.remember_entry(element, element.entry().undecided(), shared);
        }
        SequenceVerdict::Undecided
    }

    fn insert(&mut self, place: CounterPlace, shared: &mut SharedSequences<'_>) {
        let is_top = self.seen.top().is_none_or(|top| place.position > top);
        if place.counter.is_shared() {
            // The numbers between are of other devices. Behind these, no number of the edge node can come any more.
            self.seen.insert(place.position);
            self.seen.close_below(place.position.saturating_sub(NEWEST_SHARED));
        }
        shared.totals.sequence_ranges_merged += u64::from(self.seen.insert(place.position));
        if is_top && place.counter != self.counter() {
            self.change(shared, |memory| {
                let history = memory.history.get_or_insert_default();
                history.counter = place.counter;
                history.wraps += u64::from(place.wrapped);
                if place.wrapped && history.wraps == 1 {
                    // The first numbers may have been of this run, if others of the run before came behind them.
                    memory.recent.mark_old();
                }
            });
            shared.totals.sequence_wraps += u64::from(place.wrapped);
        }
    }

    #[inline]
    fn remember(&mut self, element: &NumberedElement, shared: &mut SharedSequences<'_>) {
        self.remember_entry(element, element.entry(), shared);
    }

    #[inline]
    fn remember_entry(&mut self, element: &NumberedElement, entry: NumberedDigest, shared: &mut SharedSequences<'_>) {
        let is_first = self.first.is_none();
        if self.is_first(element.seq) {
            self.add_sibling(entry, shared);
        }
        self.first.get_or_insert(entry);
        // Most devices have sent one reading when a fleet starts. It needs no further memory, unless the time at which it came
        // tells it apart.
        if is_first && element.is_dated() {
            return;
        }
        let (now_ms, may_grow) = (shared.now_ms, *shared.extra_digests < MAX_EXTRA);
        let order = self.order(shared);
        self.change(shared, |memory| memory.recent.remember(entry, order, now_ms, may_grow));
    }

    /// Remembers another reading under the first number. Where there are too many, that number proves nothing any more.
    fn add_sibling(&mut self, entry: NumberedDigest, shared: &mut SharedSequences<'_>) {
        let mut is_full = false;
        self.change(shared, |memory| {
            let FirstSiblings(siblings) = &mut **memory.siblings.get_or_insert_default();
            is_full = siblings.len() >= MAX_SIBLINGS;
            if !is_full {
                siblings.push(entry);
            }
        });
        if is_full {
            self.first = self.first.map(NumberedDigest::undecided);
        }
    }

    /// Order of the numbers.
    fn order(&self, shared: &SharedSequences<'_>) -> NumberOrder {
        let top = self.seen.top().unwrap_or(0);
        NumberOrder { top: top as u16, mask: self.counter().mask(shared.bits) }
    }

    /// Changes the memory, and keeps account of the digests of all devices.
    fn change(&mut self, shared: &mut SharedSequences<'_>, change: impl FnOnce(&mut SequenceMemory)) {
        let memory = self.memory.get_or_insert_default();
        let others = shared.extra_digests.saturating_sub(memory.recent.extra());
        change(memory);
        *shared.extra_digests = others + memory.recent.extra();
    }

    #[inline]
    fn counter(&self) -> Counter {
        let history = self.memory.as_ref().and_then(|memory| memory.history.as_ref());
        history.map_or(Counter::default(), |history| history.counter)
    }

    fn find(&self, entry: NumberedDigest) -> Option<usize> {
        let index = self.memory.as_ref().and_then(|memory| memory.recent.find(entry));
        index.or(self.has_begun_with(entry).then_some(0))
    }

    /// Whether a reading under the first number since the last restart has this digest.
    fn has_begun_with(&self, entry: NumberedDigest) -> bool {
        let siblings = self.memory.as_ref().and_then(|memory| memory.siblings.as_ref());
        let is_sibling = || siblings.is_some_and(|siblings| siblings.0.iter().any(|sibling| sibling.is_same(entry)));
        self.first.is_some_and(|first| first.is_same(entry)) || is_sibling()
    }

    /// Whether the same reading came under the same number, so far as it is remembered.
    fn is_remembered(&self, element: &NumberedElement, now_ms: i64) -> bool {
        let recent = self.memory.as_ref().map(|memory| &memory.recent);
        let index = recent.and_then(|recent| recent.find(element.entry()));
        let is_recent = index.zip(recent).is_some_and(|(index, recent)| recent.is_recent(index, now_ms));
        is_recent || element.is_dated() && (index.is_some() || self.has_begun_with(element.entry()))
    }

    #[inline]
    fn has_old(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.recent.has_old())
    }

    /// Whether the same reading came under the same number before the last restart.
    fn is_old(&self, element: &NumberedElement, now_ms: i64) -> bool {
        let Some(memory) = &self.memory else { return false };
        let index = memory.recent.find_old(element.entry());
        index.is_some_and(|index| element.is_dated() || memory.recent.is_recent(index, now_ms))
    }

    /// Whether the same reading came under the same number of an earlier turn of the counter. A number that is so old that it
    /// seems to lie ahead is known by its reading.
    #[inline]
    fn is_from_before_a_wrap(&self, element: &NumberedElement, place: CounterPlace) -> bool {
        let follows = || self.seen.top().is_some_and(|top| top.checked_add(1) == Some(place.position));
        place.counter.has_wrapped() && !follows() && element.is_dated() && self.find(element.entry()).is_some()
    }

    /// Whether it is certain enough that `element` is another reading than those that came under its number. Under the highest
    /// number one of these must be remembered, under others all of them: what came before may be sent again.
    fn is_other(&self, element: &NumberedElement, position: u64, shared: &SharedSequences<'_>) -> bool {
        let behind = self.seen.top().map_or(TOLD_APART, |top| top.saturating_sub(position));
        let order = self.order(shared);
        let recent = || {
            let recent = self.memory.as_ref().map(|memory| &memory.recent);
            recent.is_some_and(|recent| {
                recent.knows(element.seq) && (behind == 0 || recent.knows_all(element.seq, order))
            })
        };
        behind < TOLD_APART && (self.is_first(element.seq) || recent()) && self.find(element.entry()).is_none()
    }

    /// Whether the numbers since the last restart began with this one. Behind a wrap, numbers come again.
    fn is_first(&self, seq: u64) -> bool {
        let is_first = seq < TOLD_APART && self.first.is_some_and(|first| first.is_of(seq));
        is_first && !self.counter().has_wrapped()
    }

    fn remembers_nothing(&self) -> bool {
        self.first.is_none() && self.memory.as_ref().is_none_or(|memory| memory.recent.is_empty())
    }

    /// Numbers between the lowest and the highest that have not come. Of numbers that devices share each sees some only, and none
    /// are missing: those of the edge node are counted.
    pub fn missing(&self) -> u64 {
        if self.counter().is_shared() { 0 } else { self.seen.missing() }
    }

    /// Counts an element whose `seq` is no number.
    pub fn count_invalid(&mut self) {
        self.memory.get_or_insert_default().history.get_or_insert_default().invalid += 1;
    }

    /// Counts of the device.
    pub fn history(&self) -> SequenceHistory {
        let history = self.memory.as_ref().and_then(|memory| memory.history.as_deref());
        history.copied().unwrap_or_default()
    }

    /// Number of digests beyond those that each device may have.
    pub fn extra_digests(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.recent.extra())
    }

    /// Appends the stored form of what is remembered beside the numbers; nothing if there is nothing.
    pub fn encode_memory(&self, out: &mut Vec<u8>) {
        if self.first.is_none() && self.memory.is_none() {
            return;
        }
        out.push(u8::from(self.first.is_some()));
        if let Some(first) = self.first {
            first.encode(out);
        }
        let forgets = defects::is(Defect::ForgetDigests);
        let kept = self.memory.as_deref().filter(|_| !forgets).map(|memory| &memory.recent);
        kept.unwrap_or(&RecentDigests::default()).encode(out);
        let SequenceHistory { counter, wraps, restarts, invalid } = self.history();
        counter.encode(out);
        for count in [wraps, restarts, invalid] {
            put_u64(count, out);
        }
        let siblings = self.memory.as_ref().and_then(|memory| memory.siblings.as_ref());
        let siblings = siblings.map_or(&[][..], |siblings| &siblings.0);
        put_u64(siblings.len() as u64, out);
        siblings.iter().for_each(|sibling| sibling.encode(out));
    }

    /// Reads what [`DeviceSequences::encode_memory`] wrote.
    pub fn decode_memory(&mut self, reader: &mut FieldReader<'_>) -> Result<(), DecodeError> {
        self.first = match reader.u8()? {
            0 => None,
            1 => Some(NumberedDigest::decode(reader)?),
            _ => return Err(DecodeError::Content("the first digest")),
        };
        let recent = RecentDigests::decode(reader)?;
        let history = SequenceHistory {
            counter: Counter::decode(reader)?,
            wraps: reader.u64()?,
            restarts: reader.u64()?,
            invalid: reader.u64()?,
        };
        let history = (history != SequenceHistory::default()).then(|| Box::new(history));
        let count = reader.count()?;
        if count > MAX_SIBLINGS {
            return Err(DecodeError::Content("too many readings under the first number"));
        }
        let siblings: Result<Vec<_>, _> = (0..count).map(|_| NumberedDigest::decode(reader)).collect();
        let siblings = (count > 0).then_some(Box::new(FirstSiblings(siblings?)));
        if !recent.is_empty() || history.is_some() || siblings.is_some() {
            self.memory = Some(Box::new(SequenceMemory { recent, history, siblings }));
        }
        Ok(())
    }
}
