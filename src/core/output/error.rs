//! Entries of the errors log.

use crate::core::output::{FoldedReadings, Sentence};
use crate::core::reason::Reason;
use crate::core::record::ReplayItem;

/// Longest part of a payload that an error entry keeps, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 4096;

/// One entry of the errors log.
///
/// What the errors of one message have in common is stored once, in the first of them. The entries behind it refer to it, and
/// are complete again when they are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorEntry<'a> {
    /// Journal position of the record that was rejected.
    pub journal_position: u64,
    /// Index of the reading in its message; 0 for a message as a whole.
    pub index: u32,
    /// Arrival time of the record, Unix milliseconds.
    pub arrival_ms: i64,
    /// Why the reading is in no window.
    pub reason: Reason,
    /// Which part of the message was rejected.
    pub part: RejectedPart,
    /// A sentence that says what is wrong and what a person can do. It is part of the result: a replay compares it.
    pub message: Sentence<'a>,
    /// Device, where it is known and its id is valid.
    pub device_id: Option<&'a str>,
    /// Metric, where it is known and its name is valid.
    pub metric: Option<&'a str>,
    /// Client identifier of the MQTT client that published the message.
    pub client_id: &'a str,
    /// Topic that the message was published on.
    pub topic: &'a str,
    /// Device that the client may speak for, if it is the only one; see
    /// [`PublishRecord::own_device`](crate::core::record::PublishRecord).
    pub own_device: Option<&'a str>,
    /// User of the client; `None`: it is anonymous, or not known.
    pub user: Option<&'a str>,
    /// Whether client, topic, device of the client or user are cut, because they are long and the message is short.
    pub is_cut: bool,
    /// The first 4 KiB of the payload.
    pub payload: &'a [u8],
    /// Length of the payload in bytes.
    pub payload_bytes: u64,
    /// Whether the `seq` of the message was not remembered when it was rejected, because its device had no state; see
    /// [`ReplayItem::unseen`]. Of an entry that stands for several readings, each run says it.
    pub is_unseen: bool,
    /// Error that was replayed, if this error is of a replay.
    pub origin: Option<ReplayOrigin>,
    /// The error of the same message that the stored form refers to; `None`: the stored form is complete.
    pub follows: Option<FollowedError>,
    /// The readings that the entry stands for, if it stands for several. Its index, reason, sentence, device and metric are
    /// then those that most of them have, or of the first.
    pub folded: Option<FoldedReadings<'a>>,
}

/// The part of a message that an error rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedPart {
    /// The message as a whole: it could not be decoded, so that it has no readings.
    Message,
    /// One reading, or one fault that a device reported.
    Reading,
}

/// The error that was replayed, and rejected again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayOrigin {
    /// Sequence number of the replayed error.
    pub replay_of: u64,
    /// When the message first arrived, Unix milliseconds.
    pub first_arrival_ms: i64,
}

/// The first error of the message of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowedError {
    /// Difference of the sequence numbers.
    pub distance: u64,
    /// Whether it has the same device.
    pub same_device: bool,
}

impl<'a> ErrorEntry<'a> {
    /// Number of readings that the entry stands for; 1 for a message as a whole.
    pub fn readings(&self) -> u64 {
        self.folded.map_or(1, |folded| folded.readings())
    }

    /// Whether one of the readings was rejected for this reason.
    pub fn has_reason(&self, reason: Reason) -> bool {
        self.reason == reason || self.folded.is_some_and(|folded| folded.reasons().contains_key(&reason))
    }

    /// This error as part of a [`ReplayRecord`](crate::core::record::ReplayRecord): items for its readings that can be replayed. `seq` is the
    /// sequence number of the error.
    pub fn replay_items(&self, seq: u64) -> Vec<ReplayItem> {
        let item = |index, readings, unseen| ReplayItem { error_seq: seq, index, readings, unseen };
        match self.folded {
            Some(folded) => {
                let runs = folded.runs().into_iter().filter(|run| run.reason.is_replayable());
                // A message has at most a million readings.
                runs.map(|run| item(run.first, run.readings().min(u64::from(u32::MAX)) as u32, run.unseen)).collect()
            }
            None if self.reason.is_replayable() => vec![item(self.index, 1, self.is_unseen)],
            None => Vec::new(),
        }
    }

    /// When the message first arrived, before any replay, Unix milliseconds.
    pub fn first_arrival_ms(&self) -> i64 {
        self.origin.map_or(self.arrival_ms, |origin| origin.first_arrival_ms)
    }
}

/// The part of a payload that an error entry keeps: at most [`MAX_PAYLOAD_BYTES`].
pub(in crate::core) fn kept_payload(payload: &[u8]) -> &[u8] {
    beginning(payload, MAX_PAYLOAD_BYTES)
}

/// The first `length` bytes, or less: text is cut between characters.
pub(in crate::core) fn beginning(payload: &[u8], length: usize) -> &[u8] {
    if payload.len() <= length {
        return payload;
    }
    let Some(kept) = payload.get(..length) else { return payload };
    match std::str::from_utf8(kept) {
        // Without an error length the text ends within a character, which the rest of the payload may complete.
        Err(error) if error.error_len().is_none() => kept.get(..error.valid_up_to()).unwrap_or(kept),
        _ => kept,
    }
}
