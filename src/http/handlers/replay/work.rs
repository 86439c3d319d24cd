//! The work of a replay: reads errors from the errors log, and appends their messages to the journal.

use std::sync::Arc;
use std::task::{Wake, Waker};

use tokio::sync::Notify;

use crate::core::output::{ErrorEntry, RejectedPart};
use crate::core::reason::Reason;
use crate::core::record::{self, Record, RecordDecoder, ReplayItems};
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

/// Errors of one message. The message is replayed once for all of them, and they are judged together, as when it first came.
struct MessageGroup {
    /// The stored form of the first error.
    first: Vec<u8>,
    payload: Vec<u8>,
    items: Vec<u8>,
}

impl MessageGroup {
    fn takes<'a>(&'a self, entry: &ErrorEntry<'a>) -> bool {
        let Ok(first) = ErrorEntry::decode(&self.first) else { return false };
        let message = |entry: &ErrorEntry<'a>| {
            let origin = (entry.client_id, entry.topic, entry.own_device, entry.user);
            (entry.journal_position, origin, entry.payload_bytes, entry.part)
        };
        entry.part == RejectedPart::Reading && message(&first) == message(entry)
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
    fn add(&mut self, seq: u64, found: FoundError) -> Result<Result<(), ReplayRefusal>, ScanError> {
        let bytes = match found {
            FoundError::Stored(bytes) => bytes,
            FoundError::Unknown => return Ok(Err(ReplayRefusal::Unknown)),
            FoundError::Freed(first) => return Ok(Err(ReplayRefusal::Freed(first))),
            FoundError::CutOut => return Ok(Err(ReplayRefusal::Unreadable)),
        };
        let entry = ErrorEntry::decode(&bytes).map_err(|error| ScanError::Record(seq, error))?;
        match entry.reason {
            Reason::DeviceError => return Ok(Err(ReplayRefusal::DeviceError)),
            reason if !reason.is_replayable() => return Ok(Err(ReplayRefusal::Duplicate)),
            _ => {}
        }
        if let Some(group) = self.group.as_mut().filter(|group| group.takes(&entry)) {
            entry.replay_item(seq).encode(&mut group.items);
            return Ok(Ok(()));
        }
        let payload = if entry.payload.len() as u64 == entry.payload_bytes {
            entry.payload.to_vec()
        } else if let Some(payload) = whole_payload(&self.journal, &entry)? {
            payload
        } else {
            let (stored, whole) = (entry.payload.len(), entry.payload_bytes);
            return Ok(Err(ReplayRefusal::PayloadCut { stored, whole }));
        };
        let mut items = Vec::new();
        entry.replay_item(seq).encode(&mut items);
        self.close_group();
        self.group = Some(MessageGroup { first: bytes, payload, items });
        Ok(Ok(()))
    }

    /// Turns the message at hand into a record.
    fn close_group(&mut self) {
        let Some(MessageGroup { first, payload, items }) = self.group.take() else { return };
        // It was decoded when it was added.
        if let Ok(entry) = ErrorEntry::decode(&first) {
            let replay = entry.replay(&payload, ReplayItems(&items));
            self.records.push_with(|out| record::encode_replay(&replay, out));
        }
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

/// The whole payload of a message of which the errors log kept the beginning, if the journal still has it.
fn whole_payload(journal: &Log, entry: &ErrorEntry<'_>) -> Result<Option<Vec<u8>>, LogError> {
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
        let (client_id, topic, payload) = match &record {
            Record::Publish(publish, _) => (publish.client_id, publish.topic, publish.payload),
            Record::Replay(replay) => (replay.client_id, replay.topic, replay.payload),
            Record::Tick | Record::Resumed | Record::Settings(_) | Record::Forget(_) => return Ok(None),
        };
        // The journal may be another one, where a data directory was put together from copies.
        let is_same = (client_id, topic, payload.len() as u64) == (entry.client_id, entry.topic, entry.payload_bytes)
            && payload.starts_with(entry.payload);
        return Ok(is_same.then(|| payload.to_vec()));
    }
    Ok(None)
}
