//! Bounded scans of a result log.

use std::sync::{Arc, Mutex};

use crate::core::output::InvalidOutput;
use crate::http::results::index::{BLOCK_RECORDS, Entry, Index};
use crate::log::{Batch, Log, LogError, Lsn, Reader};
use crate::sync::lock;

/// Records that one request looks at, at most: some tenths of a second.
const MAX_SCANNED: u64 = 250_000;
/// Records that one request adds to the index, at most, before it answers "not yet".
const MAX_INDEXED: u64 = 250_000;
/// An answer ends before its limit when it has this many bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Direction of a scan, by position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// Which part of a log a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    /// Direction.
    pub order: Order,
    /// Where to go on: the first position (ascending), or the position after it (descending).
    pub cursor: Option<u64>,
    /// Entries at most.
    pub limit: usize,
    /// Only entries of this time or later.
    pub from_ms: i64,
    /// Only entries before this time.
    pub to_ms: i64,
}

/// Why a scan gave no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum ScanError {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A record is not of its format.
    #[error("record {0}: {1}")]
    Record(u64, InvalidOutput),
    /// The index does not cover the log yet.
    #[error("not indexed yet")]
    NotIndexed,
}

/// A result log with its index.
#[derive(Debug)]
pub struct ResultLog {
    /// The log.
    pub log: Log,
    entry: fn(&[u8]) -> Result<Entry, InvalidOutput>,
    indexer: Mutex<Indexer>,
}

#[derive(Debug, Default)]
struct Indexer {
    index: Index,
    reader: Option<Reader>,
}

/// What the entries of an answer look like, written one after the other.
pub(super) trait Writer {
    /// Writes the record if the request asks for it, and says whether it did.
    fn write(&mut self, seq: u64, record: &[u8]) -> Result<bool, InvalidOutput>;
    /// Bytes written so far.
    fn bytes(&self) -> usize;
}

impl ResultLog {
    /// Wraps `log`; `entry` reads what the index needs of a record.
    pub(super) fn new(log: Log, entry: fn(&[u8]) -> Result<Entry, InvalidOutput>) -> Self {
        Self { log, entry, indexer: Mutex::default() }
    }

    /// Adds up to `max_records` further records to the index; `true` when it covers all that was readable at the
    /// call.
    pub(in crate::http) fn index(&self, max_records: u64) -> Result<bool, ScanError> {
        let end = self.log.readable().0;
        let mut added = 0;
        loop {
            // The lock is given back after each batch: scans wait for it.
            let mut indexer = lock(&self.indexer);
            let Indexer { index, reader } = &mut *indexer;
            if index.next() >= end {
                index.trim(self.log.stats().first.0);
                return Ok(true);
            }
            if added >= max_records {
                return Ok(false);
            }
            let reader = reader.get_or_insert_with(|| self.log.reader(Lsn(index.next())));
            let Some(batch) = reader.next_batch()? else {
                return Ok(true);
            };
            if batch.is_hole() {
                index.skip_to(batch.end().0);
            }
            for (seq, record) in numbered(&batch) {
                if seq >= index.next() {
                    index.add(seq, (self.entry)(record).map_err(|error| ScanError::Record(seq, error))?);
                    added += 1;
                }
            }
        }
    }

    /// Writes one page and returns where to go on, if there may be more. `newest_only` leaves out records that a
    /// later one corrects.
    pub(super) fn scan(
        &self,
        page: &Page,
        newest_only: bool,
        writer: &mut dyn Writer,
    ) -> Result<Option<u64>, ScanError> {
        // Taken before indexing: what is readable later is not in the index.
        let end = self.log.readable().0;
        if !self.index(MAX_INDEXED)? {
            return Err(ScanError::NotIndexed);
        }
        let scan = Scan { results: self, page, newest_only, first: self.log.stats().first.0, end };
        match page.order {
            Order::Ascending => scan.ascending(writer),
            Order::Descending => scan.descending(writer),
        }
    }

    fn is_superseded(&self, seq: u64) -> bool {
        lock(&self.indexer).index.is_superseded(seq)
    }

    fn may_hold(&self, seq: u64, page: &Page) -> bool {
        let indexer = lock(&self.indexer);
        indexer.index.may_hold(seq, page.from_ms, page.to_ms)
    }
}

struct Scan<'a> {
    results: &'a ResultLog,
    page: &'a Page,
    newest_only: bool,
    first: u64,
    end: u64,
}

impl Scan<'_> {
    fn ascending(&self, writer: &mut dyn Writer) -> Result<Option<u64>, ScanError> {
        let mut next = self.page.cursor.unwrap_or(0).max(self.first);
        let (mut scanned, mut taken) = (0, 0);
        let mut reader: Option<Reader> = None;
        while next < self.end {
            if !self.results.may_hold(next, self.page) {
                next = (next / BLOCK_RECORDS + 1) * BLOCK_RECORDS;
                reader = None;
                continue;
            }
            let reader = reader.get_or_insert_with(|| self.results.log.reader(Lsn(next)));
            let Some(batch) = reader.next_batch()? else { break };
            for (seq, record) in numbered(&batch).filter(|(seq, _)| (next..self.end).contains(seq)) {
                if self.is_full(taken, writer) || scanned >= MAX_SCANNED {
                    return Ok(Some(seq));
                }
                taken += usize::from(self.take(seq, record, writer)?);
                scanned += 1;
            }
            next = next.max(batch.end().0);
        }
        Ok(None)
    }

    /// Logs are read forwards: block by block from the end, each block's hits kept and then written backwards.
    fn descending(&self, writer: &mut dyn Writer) -> Result<Option<u64>, ScanError> {
        let mut upper = self.page.cursor.unwrap_or(u64::MAX).min(self.end);
        let (mut scanned, mut taken) = (0, 0);
        while upper > self.first {
            if self.is_full(taken, writer) || scanned >= MAX_SCANNED {
                return Ok(Some(upper));
            }
            let lower = ((upper - 1) / BLOCK_RECORDS * BLOCK_RECORDS).max(self.first);
            if self.results.may_hold(lower, self.page) {
                for batch in self.batches(lower, upper)?.iter().rev() {
                    let records: Vec<(u64, &[u8])> =
                        numbered(batch).filter(|(seq, _)| (lower..upper).contains(seq)).collect();
                    for (seq, record) in records.into_iter().rev() {
                        if self.is_full(taken, writer) {
                            return Ok(Some(seq + 1));
                        }
                        taken += usize::from(self.take(seq, record, writer)?);
                        scanned += 1;
                    }
                }
            }
            upper = lower;
        }
        Ok(None)
    }

    /// The batches that hold `lower..upper`. A block's records are in memory together, at most
    /// [`BLOCK_RECORDS`] and the rest of two batches.
    fn batches(&self, lower: u64, upper: u64) -> Result<Vec<Arc<Batch>>, ScanError> {
        let mut reader = self.results.log.reader(Lsn(lower));
        let mut batches = Vec::new();
        while let Some(batch) = reader.next_batch()? {
            let end = batch.end().0;
            batches.push(batch);
            if end >= upper {
                break;
            }
        }
        Ok(batches)
    }

    fn is_full(&self, taken: usize, writer: &dyn Writer) -> bool {
        taken >= self.page.limit || writer.bytes() >= MAX_ANSWER_BYTES
    }

    fn take(&self, seq: u64, record: &[u8], writer: &mut dyn Writer) -> Result<bool, ScanError> {
        let invalid = |error| ScanError::Record(seq, error);
        let time_ms = (self.results.entry)(record).map_err(invalid)?.time_ms;
        let in_time = time_ms >= self.page.from_ms && time_ms < self.page.to_ms;
        if !in_time || (self.newest_only && self.results.is_superseded(seq)) {
            return Ok(false);
        }
        writer.write(seq, record).map_err(invalid)
    }
}

/// The records of a batch with their positions, which are their sequence numbers.
pub(in crate::http) fn numbered(batch: &Batch) -> impl Iterator<Item = (u64, &[u8])> {
    (batch.first().0..).zip(batch.records())
}
