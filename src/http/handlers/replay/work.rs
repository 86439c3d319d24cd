//! The work of a replay: reads errors from the errors log, and appends their messages to the journal.

use std::sync::Arc;
use std::task::{Wake, Waker};

use tokio::sync::Notify;

use crate::core::output::{ErrorEntry, RejectedPart};
use crate::core::reason::Reason;
use crate::core::record::{self, PublishRecord, Record, RecordDecoder, ReplayItems, ReplayRecord};
use crate::http::claims::ReplayClaim;
use crate::http::handlers::replay::outcome::{ReplayOutcome, ReplayRefusal};
use crate::http::problem::ApiProblem;
use crate::log::{AppendError, Log, LogError, Lsn, Records};
use crate::results::error::ScanError;
use crate::results::log::ResultLogs;
use crate::results::lookup::FoundError;

/// One append to the journal is closed at this size; with the largest record added it fits a batch, whatever
/// `journal.commit_max_bytes`.
const APPEND_BYTES: usize = 128 << 10;

/// Wakes the request when the journal's writer has synced.
#[derive(Debug, Default)]
struct SyncSignal(Notify);

impl Wake for SyncSignal {
    fn wake(self: Arc<Self>) {
        // There is one waiter. Where it does not wait yet, its next wait returns at once.
        self.0.notify_one();
    }
}

/// Waits for the journal without holding a thread.
#[derive(Debug)]
pub(super) struct SyncWait {
    journal: Log,
    signal: Arc<SyncSignal>,
}

impl SyncWait {
    /// Waits until the record at `position` is synced.
    ///
    /// # Errors
    /// The journal failed.
    pub async fn wait_for(&self, position: u64) -> Result<(), ApiProblem> {
        while self.journal.durable().0 <= position {
            if let Some(failure) = self.journal.stats().failure {
                let detail = format!("the journal failed, weir restarts: {failure}; look whether they were replayed");
                return Err(ApiProblem::unavailable(detail));
            }
            self.signal.0.notified().await;
        }
        Ok(())
    }
}

/// Largest size of the items of one record. A message with more is replayed by several records.
const MAX_ITEM_BYTES: usize = 96 << 10;

/// Errors of one message. The message is replayed once for all of them, and they are judged together, as when it first came.
struct MessageGroup {
    message: OwnedMessage,
    position: u64,
    part: RejectedPart,
    first_arrival_ms: i64,
    items: Vec<u8>,
}

/// A message as its client sent it.
#[derive(Debug, PartialEq, Eq)]
struct OwnedMessage {
    client_id: String,
    topic: String,
    own_device: Option<String>,
    user: Option<String>,
    payload: Vec<u8>,
}

impl MessageGroup {
    fn takes(&self, entry: &ErrorEntry<'_>) -> bool {
        entry.part == RejectedPart::Reading
            && (entry.part, entry.journal_position, entry.first_arrival_ms())
                == (self.part, self.position, self.first_arrival_ms)
            && self.message.is_of(entry)
            && self.items.len() < MAX_ITEM_BYTES
    }
}

impl OwnedMessage {
    fn new(client_id: &str, topic: &str, own_device: Option<&str>, user: Option<&str>, payload: &[u8]) -> Self {
        Self {
            client_id: client_id.to_owned(),
            topic: topic.to_owned(),
            own_device: own_device.map(str::to_owned),
            user: user.map(str::to_owned),
            payload: payload.to_owned(),
        }
    }

    /// Whether an error may be of this message: what it has of client, topic and payload are those, or their beginnings.
    fn is_of(&self, entry: &ErrorEntry<'_>) -> bool {
        let is = |whole: &str, stored: &str| if entry.is_cut { whole.starts_with(stored) } else { whole == stored };
        is(&self.client_id, entry.client_id)
            && is(&self.topic, entry.topic)
            && self.payload.len() as u64 == entry.payload_bytes
            && self.payload.starts_with(entry.payload)
    }
}

/// The part of one request that waits for the disk.
pub(super) struct ReplayWork {
    journal: Log,
    results: Arc<ResultLogs>,
    claim: ReplayClaim,
    signal: Arc<SyncSignal>,
    /// The message at hand, whose errors become one record.
    group: Option<MessageGroup>,
    /// Replays that are not appended yet.
    records: Records,
    /// Errors whose replays are not appended yet: their places among the outcomes, and the record that each is in.
    waiting: Vec<(usize, u32)>,
    /// Why the journal took no more; the remaining errors are not tried then.
    stopped: Option<ReplayRefusal>,
}

impl ReplayWork {
    /// The work on the errors that `claim` holds.
    pub fn new(journal: Log, results: Arc<ResultLogs>, claim: ReplayClaim) -> Self {
        let (signal, records) = (Arc::default(), Records::default());
        Self { journal, results, claim, signal, group: None, records, waiting: Vec::new(), stopped: None }
    }

    /// A wait for the records that [`ReplayWork::run`] appends.
    pub fn sync_wait(&self) -> SyncWait {
        SyncWait { journal: self.journal.clone(), signal: self.signal.clone() }
    }

    /// Appends the replays of all errors that have no outcome yet. The errors are in ascending order.
    ///
    /// # Errors
    /// A log cannot be read, or a stored error is damaged.
    pub fn run(
        mut self,
        mut outcomes: Vec<(u64, Option<ReplayOutcome>)>,
    ) -> Result<Vec<(u64, ReplayOutcome)>, ScanError> {
        let results = self.results.clone();
        let mut errors = results.error_lookup();
        for at in 0..outcomes.len() {
            let Some(&(seq, None)) = outcomes.get(at) else { continue };
            if self.stopped.is_some() {
                break;
            }
            let found = errors.find(seq)?;
            match self.add(seq, found)? {
                Ok(()) => self.waiting.push((at, self.records.count())),
                Err(refusal) => settle(&mut outcomes, at, ReplayOutcome::Refused(refusal)),
            }
            if self.records.bytes() >= APPEND_BYTES {
                self.append(&mut outcomes);
            }
        }
        self.close_group();
        self.append(&mut outcomes);
        let stopped = self.stopped.take().unwrap_or(ReplayRefusal::Busy);
        let settled = |(seq, outcome): (u64, Option<ReplayOutcome>)| {
            (seq, outcome.unwrap_or_else(|| ReplayOutcome::Refused(stopped.clone())))
        };
        Ok(outcomes.into_iter().map(settled).collect())
    }

    /// Adds one error to the message at hand, or begins another message.
    fn add(&mut self, seq: u64, found: FoundError<'_>) -> Result<Result<(), ReplayRefusal>, ScanError> {
        let entry = match found {
            FoundError::Stored(entry) => entry,
            FoundError::Unknown => return Ok(Err(ReplayRefusal::Unknown)),
            FoundError::Freed(first) => return Ok(Err(ReplayRefusal::Freed(first))),
            FoundError::CutOut => return Ok(Err(ReplayRefusal::Unreadable)),
        };
        let items = entry.replay_items(seq);
        if items.is_empty() {
            return Ok(Err(match entry.reason {
                Reason::DeviceError => ReplayRefusal::DeviceError,
                reason if !reason.is_replayable() => ReplayRefusal::Duplicate,
                _ => ReplayRefusal::NotListed(entry.readings()),
            }));
        }
        if self.group.as_ref().is_none_or(|group| !group.takes(&entry)) {
            let Some(message) = whole_message(&self.journal, &entry)? else {
                let (stored, whole) = (entry.payload.len(), entry.payload_bytes);
                return Ok(Err(ReplayRefusal::PayloadCut { stored, whole }));
            };
            self.close_group();
            let (position, part, first_arrival_ms) = (entry.journal_position, entry.part, entry.first_arrival_ms());
            self.group = Some(MessageGroup { message, position, part, first_arrival_ms, items: Vec::new() });
        }
        if let Some(group) = &mut self.group {
            items.iter().for_each(|item| item.encode(&mut group.items));
        }
        Ok(Ok(()))
    }

    /// Turns the message at hand into a record.
    fn close_group(&mut self) {
        let Some(MessageGroup { message, position, part, first_arrival_ms, items }) = self.group.take() else { return };
        let replay = ReplayRecord {
            position,
            whole: part == RejectedPart::Message,
            arrival_ms: first_arrival_ms,
            client_id: &message.client_id,
            topic: &message.topic,
            own_device: message.own_device.as_deref(),
            user: message.user.as_deref(),
            items: ReplayItems(&items),
            payload: &message.payload,
        };
        self.records.push_with(|out| record::encode_replay(&replay, out));
    }

    fn append(&mut self, outcomes: &mut [(u64, Option<ReplayOutcome>)]) {
        if self.records.is_empty() {
            return;
        }
        // The errors of the message at hand are not in a record yet.
        let count = self.records.count();
        let open = self.waiting.split_off(self.waiting.partition_point(|(_, record)| *record < count));
        let waker = Waker::from(self.signal.clone());
        match self.journal.append(&self.records, Some(&waker)) {
            Ok(end) => {
                let first = end.0 - u64::from(count);
                for (at, record) in self.waiting.drain(..) {
                    let position = first + u64::from(record);
                    if let Some(&(seq, _)) = outcomes.get(at) {
                        self.claim.appended(seq, position);
                    }
                    settle(outcomes, at, ReplayOutcome::Replayed(position));
                }
            }
            Err(AppendError::Full) if self.journal.stats().disk_full => self.stopped = Some(ReplayRefusal::DiskFull),
            Err(_) => self.stopped = Some(ReplayRefusal::Busy),
        }
        self.waiting = open.into_iter().map(|(at, _)| (at, 0)).collect();
        self.records.clear();
    }
}

fn settle(outcomes: &mut [(u64, Option<ReplayOutcome>)], at: usize, outcome: ReplayOutcome) {
    if let Some((_, place)) = outcomes.get_mut(at) {
        *place = Some(outcome);
    }
}

/// The message of an error, not cut: from the entry if it has everything, else from the journal if it still has it.
fn whole_message(journal: &Log, entry: &ErrorEntry<'_>) -> Result<Option<OwnedMessage>, LogError> {
    if !entry.is_cut && entry.payload.len() as u64 == entry.payload_bytes {
        let ErrorEntry { client_id, topic, own_device, user, payload, .. } = *entry;
        return Ok(Some(OwnedMessage::new(client_id, topic, own_device, user, payload)));
    }
    let position = entry.journal_position;
    let mut reader = journal.reader(Lsn(position));
    let Some(batch) = reader.next_batch()? else { return Ok(None) };
    let Some(at) = position.checked_sub(batch.first().0) else { return Ok(None) };
    let mut decoder = RecordDecoder::default();
    for (index, bytes) in (0..).zip(batch.records()) {
        let Ok(record) = decoder.decode(bytes) else { return Ok(None) };
        if index < at {
            continue;
        }
        let message = match record {
            Record::Publish(PublishRecord { client_id, topic, own_device, user, payload, .. }, _) => {
                OwnedMessage::new(client_id, topic, own_device, user, payload)
            }
            Record::Replay(ReplayRecord { client_id, topic, own_device, user, payload, .. }) => {
                OwnedMessage::new(client_id, topic, own_device, user, payload)
            }
            _ => return Ok(None),
        };
        // The journal may be another one, where a data directory was put together from copies.
        return Ok(message.is_of(entry).then_some(message));
    }
    Ok(None)
}
