//! Reads the output logs, and computes their content again from the journal.

use std::collections::{BTreeMap, BTreeSet};

use weir::core::operator::Operator;
use weir::core::output::{Collector, ErrorEntry, ErrorReader, WindowResult};
use weir::core::reason::Reason;
use weir::core::record::{Record, RecordDecoder};
use weir::core::settings::Settings;
use weir::log::{Log, Lsn};

use super::ledger::{ExpectedRejections, MessageId, SimLedger};
use super::plan::CLOCK_TOLERANCE_MS;

/// Newest results by device, metric and start of their window.
pub type NewestWindows<'a> = BTreeMap<(String, String, i64), Vec<WindowResult<'a>>>;

/// Stored forms of windows and errors, by sequence number.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outputs {
    pub windows: Vec<Vec<u8>>,
    pub errors: Vec<Vec<u8>>,
}

impl Collector for Outputs {
    fn window(&mut self, seq: u64, window: &WindowResult<'_>) {
        assert_eq!(seq, self.windows.len() as u64);
        let mut bytes = Vec::new();
        window.encode(&mut bytes);
        self.windows.push(bytes);
    }

    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>) {
        assert_eq!(seq, self.errors.len() as u64);
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        self.errors.push(bytes);
    }
}

impl Outputs {
    /// Reads both output logs from their first record.
    pub fn read(windows: &Log, errors: &Log) -> Result<Self, String> {
        Ok(Self { windows: read(windows)?, errors: read(errors)? })
    }

    /// Newest results of each window, by device, metric and start: normally one. A window whose time was set back with the clock
    /// may come again, and then has another one. A key and revision must be there once, and revisions must follow one another.
    pub fn newest(&self) -> Result<NewestWindows<'_>, String> {
        let mut newest = NewestWindows::new();
        for (seq, bytes) in self.windows.iter().enumerate() {
            let window = WindowResult::decode(bytes).map_err(|error| format!("window {seq}: {error}"))?;
            let key = (window.device_id.to_owned(), window.metric.to_owned(), window.window_start_ms);
            let revision = window.revision;
            let wrong = |due: u32| format!("window {seq} of {key:?} has revision {revision} where {due} is due");
            let known = newest.entry(key.clone()).or_default();
            match (known.last_mut(), window.supersedes) {
                (Some(last), Some(_)) if revision != last.revision + 1 => return Err(wrong(last.revision + 1)),
                (Some(last), Some(_)) => *last = window,
                (None, Some(_)) => return Err(wrong(0)),
                (Some(last), None) if revision <= last.revision => return Err(wrong(last.revision + 1)),
                (_, None) => known.push(window),
            }
        }
        Ok(newest)
    }

    /// Rejected readings by message and index; duplicates are no rejection.
    pub fn rejections(&self, ledger: &SimLedger) -> Result<ExpectedRejections, String> {
        let mut rejections = ExpectedRejections::new();
        let mut errors = ErrorReader::default();
        for (seq, bytes) in (0..).zip(&self.errors) {
            let entry = errors.read(seq, bytes).map_err(|error| format!("error {seq}: {error}"))?;
            // The client is cut where a sentence is long and its message short.
            let id = if entry.is_cut { ledger.find_cut(&entry) } else { ledger.find(entry.client_id, entry.payload) };
            let id = id.ok_or_else(|| format!("error {seq} is about a payload that nobody sent: {}", entry.message))?;
            for (index, reason) in readings(&entry) {
                if reason != Reason::Duplicate {
                    rejections.entry((id, index)).or_default().push(reason);
                }
            }
        }
        Ok(rejections)
    }
}

/// The readings that an error stands for, and why each was rejected.
fn readings(entry: &ErrorEntry<'_>) -> Vec<(u32, Reason)> {
    let Some(folded) = entry.folded else { return vec![(entry.index, entry.reason)] };
    folded.runs().iter().flat_map(|run| (run.first..=run.last).map(|index| (index, run.reason))).collect()
}

fn read(log: &Log) -> Result<Vec<Vec<u8>>, String> {
    let mut reader = log.reader(Lsn(0));
    let mut records = Vec::new();
    while let Some(batch) = reader.next_batch().map_err(|error| error.to_string())? {
        if batch.first().0 != records.len() as u64 {
            return Err(format!("record {} follows record {}", batch.first(), records.len()));
        }
        records.extend(batch.records().map(<[u8]>::to_vec));
    }
    Ok(records)
}

/// First record, arrival time and "sets the clock back" of each batch of a log.
pub fn batch_times(log: &Log) -> Result<Vec<(Lsn, i64, bool)>, String> {
    let mut reader = log.reader(log.stats().first);
    let mut times = Vec::new();
    while let Some(batch) = reader.next_batch().map_err(|error| error.to_string())? {
        times.push((batch.first(), batch.arrival_ms(), batch.sets_clock_back()));
    }
    Ok(times)
}

/// Results computed from the journal alone.
#[derive(Debug)]
pub struct SimReplay {
    pub outputs: Outputs,
    /// Results computed from the journal, with all windows closed at the end.
    pub closed: Outputs,
    /// Messages that are in the journal.
    pub present: BTreeSet<MessageId>,
    /// Messages of edge nodes of Sparkplug B that are missing, as their numbers say.
    pub missed: u64,
}

/// Replays a whole journal with a fresh operator.
pub fn replay(journal: &Log, settings: &Settings, ledger: &SimLedger) -> Result<SimReplay, String> {
    let mut operator = Operator::new(settings.clone());
    let mut outputs = Outputs::default();
    let mut present = BTreeSet::new();
    let mut reader = journal.reader(Lsn(0));
    let mut arrival_ms = i64::MIN;
    while let Some(batch) = reader.next_batch().map_err(|error| error.to_string())? {
        let back_ms = arrival_ms.saturating_sub(batch.arrival_ms());
        if back_ms > 0 && !batch.sets_clock_back() || batch.sets_clock_back() && back_ms <= CLOCK_TOLERANCE_MS {
            return Err(format!("arrival time went back by {back_ms} ms at journal record {}", batch.first()));
        }
        arrival_ms = batch.arrival_ms();
        if batch.sets_clock_back() {
            operator.set_clock_back(arrival_ms, &mut outputs);
        }
        let mut decoder = RecordDecoder::default();
        for bytes in batch.records() {
            if let Record::Publish(publish, _) = decoder.decode(bytes).map_err(|error| error.to_string())? {
                let id = ledger.find(publish.client_id, publish.payload);
                present.insert(id.ok_or("the journal holds a publish that nobody sent")?);
            }
        }
        let applied = operator.apply(batch.first().0, arrival_ms, batch.records(), &mut outputs);
        applied.map_err(|error| error.to_string())?;
    }
    let mut closed = outputs.clone();
    operator.close_all(&mut closed);
    let missed = operator.map_memory().totals().missed;
    Ok(SimReplay { outputs, closed, present, missed })
}
