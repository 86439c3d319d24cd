//! Keeps the errors log in proportion: for each message, what is written is at most twice its topic and payload, and
//! 256 bytes more.
//!
//! The first stored error of a message has everything that its errors have in common: client, topic, payload. The others
//! refer to it. Once they have taken what the message may take, the remaining readings are folded into one last entry, which
//! says how many they are, which, and for what reasons.

use crate::core::device::Slot;
use crate::core::output::{ErrorEntry, FoldedRuns, FollowedError, RejectedPart, ReplayOrigin, Sentence, beginning};
use crate::core::reason::Reason;
use crate::defects::{self, Defect};

/// Bytes of the errors log that each message may take besides twice its own: 256 less the header of the batch that is
/// written with it, and some of the header of the segment.
const PER_MESSAGE_BYTES: usize = 256 - 48 - 8;

/// Largest number of bytes that the entries of one message take. They are appended together, so that no crash and no
/// retention separates an entry from the one that it refers to.
pub const MAX_MESSAGE_BYTES: usize = 384 * 1024;

/// Bytes of a folded entry without a sentence, names and indexes.
const FOLDED_BYTES: usize = 48;

/// Bytes of the lengths of strings that were not there when a size was taken.
const LENGTH_BYTES: usize = 16;

/// The errors of the message at hand.
#[derive(Debug, Default)]
pub(super) struct MessageErrors {
    /// Whether one was stored.
    is_begun: bool,
    /// Bytes that the entries of the message may still take.
    left: usize,
    /// Bytes of the entry that was placed last.
    written: usize,
    /// Sequence number of the first.
    first_seq: u64,
    /// Sentence of the first.
    sentence: String,
    /// Device of the first.
    device_id: Option<String>,
    folded: FoldedErrors,
    scratch: Vec<u8>,
}

/// The readings that share the last entry.
#[derive(Debug, Default)]
struct FoldedErrors {
    runs: FoldedRuns,
    /// The first sentence of each reason.
    sentences: Vec<(Reason, String)>,
    /// Device of all of them; `None` where they differ.
    device_id: Option<String>,
    /// Metric of all of them; `None` where they differ.
    metric: Option<String>,
    replay_of: u64,
    /// Device of the first of them, in the table of all.
    slot: Option<Slot>,
}

impl MessageErrors {
    /// Whether an error of the message was stored.
    #[inline]
    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// The entry as it is to be stored under the number `seq`; `None`: its reading joins the last entry of the message.
    /// `slot` is the device, and `later` is how many readings the message has behind this one, at most.
    pub fn place<'e>(
        &mut self,
        seq: u64,
        slot: Option<Slot>,
        entry: ErrorEntry<'e>,
        later: u32,
    ) -> Option<ErrorEntry<'e>> {
        if !self.is_begun {
            return Some(self.begin(seq, entry, later));
        }
        if self.folded.runs.is_empty() {
            let same_device = self.device_id.as_deref() == entry.device_id;
            let distance = seq.saturating_sub(self.first_seq);
            let text = entry.message.middle;
            let entry = ErrorEntry {
                follows: Some(FollowedError { distance, same_device }),
                message: Sentence::divided(text, &self.sentence),
                ..entry
            };
            let bytes = self.size(&entry);
            if bytes + reserve(later) <= self.left {
                self.left -= bytes;
                self.written = bytes;
                return Some(entry);
            }
            self.folded.slot = slot;
        }
        self.folded.add(&entry);
        None
    }

    /// Bytes of the entry that was placed last.
    pub fn written(&self) -> usize {
        self.written
    }

    /// The first entry of a message. It is cut to what the message may take.
    fn begin<'e>(&mut self, seq: u64, entry: ErrorEntry<'e>, later: u32) -> ErrorEntry<'e> {
        let received = entry.topic.len().saturating_add(usize::try_from(entry.payload_bytes).unwrap_or(usize::MAX));
        self.left = received.saturating_mul(2).saturating_add(PER_MESSAGE_BYTES).min(MAX_MESSAGE_BYTES);
        // An unpacked message may have far more readings than bytes.
        let reserved = reserve(later).min(self.left / 3);
        let entry = self.fit(entry, self.left - reserved);
        self.written = self.size(&entry);
        self.left = self.left.saturating_sub(self.written);
        self.is_begun = true;
        self.first_seq = seq;
        self.sentence.clear();
        entry.message.parts().iter().for_each(|part| self.sentence.push_str(part));
        self.device_id = entry.device_id.map(str::to_owned);
        entry
    }

    /// Cuts an entry to `limit` bytes. The payload stays as long as it can, and what tells the device and its user, because the
    /// error cannot be replayed without them; then the sentence, and the client is the first to go.
    fn fit<'e>(&mut self, entry: ErrorEntry<'e>, limit: usize) -> ErrorEntry<'e> {
        if self.size(&entry) <= limit {
            return entry;
        }
        let message = Sentence::default();
        let mut cut = ErrorEntry {
            client_id: "",
            topic: "",
            own_device: None,
            user: None,
            payload: b"",
            message,
            is_cut: true,
            ..entry
        };
        let mut rest = limit.saturating_sub(self.size(&cut) + LENGTH_BYTES);
        let mut take = |length: usize| {
            let taken = length.min(rest);
            rest -= taken;
            taken
        };
        let text = entry.message.middle;
        cut.payload = beginning(entry.payload, take(entry.payload.len()));
        cut.topic = text_beginning(entry.topic, take(entry.topic.len()));
        cut.own_device = entry.own_device.filter(|device| take(device.len()) == device.len());
        cut.user = entry.user.map(|user| text_beginning(user, take(user.len())));
        cut.message = text_beginning(text, take(text.len())).into();
        cut.client_id = text_beginning(entry.client_id, take(entry.client_id.len()));
        let whole = (entry.client_id, entry.topic, entry.own_device, entry.user);
        cut.is_cut = whole != (cut.client_id, cut.topic, cut.own_device, cut.user);
        cut
    }

    /// Ends the message. The entry that its folded readings share is handed to `emit`, if there are any; `common` is an entry
    /// of the message, and `seq` the number of the folded one. Returns the device of that entry, if there is one.
    pub fn end(
        &mut self,
        seq: u64,
        common: &ErrorEntry<'_>,
        emit: impl FnOnce(&ErrorEntry<'_>),
    ) -> Option<Option<Slot>> {
        self.is_begun = defects::is(Defect::ReferToEarlierMessage);
        if self.folded.runs.is_empty() {
            return None;
        }
        if defects::is(Defect::DropFoldedErrors) {
            self.folded.clear();
            return None;
        }
        let Self { left, written, first_seq, sentence, device_id, folded, scratch, .. } = self;
        let FoldedErrors { runs, sentences, device_id: own_device, metric: own_metric, replay_of, slot } = folded;
        let reason = runs.most_frequent()?;
        let own_sentence = sentences.iter().find(|(of, _)| *of == reason).map_or("", |(_, text)| text.as_str());
        let own_sentence = Sentence::divided(own_sentence, sentence);
        let (own_device, own_metric) = (own_device.as_deref(), own_metric.as_deref());
        let distance = seq.saturating_sub(*first_seq);
        // From the entry that says most to the one that says least: the first that fits is taken.
        let detail = [
            (true, own_sentence, own_device, own_metric),
            (true, Sentence::default(), own_device, own_metric),
            (true, Sentence::default(), own_device, None),
            (true, Sentence::default(), None, None),
            (false, Sentence::default(), None, None),
        ];
        let last = detail.len() - 1;
        for (at, (indexes, message, own_device, metric)) in detail.into_iter().enumerate() {
            let readings = if indexes { runs.with_indexes() } else { runs.without_indexes() }?;
            let same_device = device_id.as_deref() == own_device;
            let entry = ErrorEntry {
                index: readings.first(),
                reason,
                part: RejectedPart::Reading,
                message,
                device_id: own_device,
                metric,
                origin: common.origin.map(|origin| ReplayOrigin { replay_of: *replay_of, ..origin }),
                follows: Some(FollowedError { distance, same_device }),
                folded: Some(readings),
                ..*common
            };
            let bytes = size(&entry, scratch);
            if bytes <= *left || at == last {
                *written = bytes;
                emit(&entry);
                break;
            }
        }
        let slot = *slot;
        folded.clear();
        Some(slot)
    }

    fn size(&mut self, entry: &ErrorEntry<'_>) -> usize {
        size(entry, &mut self.scratch)
    }
}

impl FoldedErrors {
    fn add(&mut self, entry: &ErrorEntry<'_>) {
        if self.runs.is_empty() {
            self.device_id = entry.device_id.map(str::to_owned);
            self.metric = entry.metric.map(str::to_owned);
            self.replay_of = entry.origin.map_or(0, |origin| origin.replay_of);
        }
        if self.device_id.as_deref() != entry.device_id {
            self.device_id = None;
        }
        if self.metric.as_deref() != entry.metric {
            self.metric = None;
        }
        if !self.sentences.iter().any(|(reason, _)| *reason == entry.reason) {
            self.sentences.push((entry.reason, entry.message.to_string()));
        }
        self.runs.add(entry.index, entry.reason, entry.is_unseen);
    }

    fn clear(&mut self) {
        self.runs.clear();
        self.sentences.clear();
        (self.device_id, self.metric) = (None, None);
    }
}

/// Bytes that the folded entry of a message may need, while up to `later` of its readings are still to be judged.
fn reserve(later: u32) -> usize {
    if later == 0 { 0 } else { FOLDED_BYTES + LENGTH_BYTES + (later as usize).div_ceil(2) }
}

/// Bytes that an entry takes in a batch of the log, with its length.
fn size(entry: &ErrorEntry<'_>, scratch: &mut Vec<u8>) -> usize {
    scratch.clear();
    entry.encode(scratch);
    scratch.len() + if scratch.len() < 1 << 14 { 2 } else { 3 }
}

fn text_beginning(text: &str, length: usize) -> &str {
    std::str::from_utf8(beginning(text.as_bytes(), length)).unwrap_or_default()
}
