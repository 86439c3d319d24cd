//! The query engine: bounded scans of an output log, forwards or backwards, that skip what the index rules out.
//!
//! A scan is bounded in results, in bytes written and in records looked at. Where a bound ends it early, it returns the
//! position to go on from.

use std::sync::Arc;

use crate::core::output::InvalidOutput;
use crate::core::reason::Reason;
use crate::log::{Batch, Lsn, Reader};
use crate::results::error::ScanError;
use crate::results::index::BLOCK_RECORDS;
use crate::results::log::ResultLog;
use crate::results::record::DecodedResult;

/// Records that one query looks at, at most: some tenths of a second.
const MAX_SCANNED: u64 = 250_000;
/// Records that one query adds to the index, at most, before it answers [`ScanError::NotIndexed`].
const MAX_INDEXED: u64 = 250_000;
/// An answer ends before its limit when it has this many bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Direction of a scan, by position in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanOrder {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}

/// Which results a query wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultQuery {
    /// Direction.
    pub order: ScanOrder,
    /// Where to go on: the first position (ascending), or the position behind it (descending).
    pub cursor: Option<u64>,
    /// Results at most.
    pub limit: usize,
    /// Only results of this time or later, Unix milliseconds.
    pub from_ms: i64,
    /// Only results before this time, Unix milliseconds.
    pub to_ms: i64,
    /// Leave out window firings that a later one corrects.
    pub newest_only: bool,
    /// Only results of this device.
    pub device: Option<String>,
    /// Only results of this metric.
    pub metric: Option<String>,
    /// Only errors with this reason.
    pub reason: Option<Reason>,
}

impl ResultQuery {
    fn selects(&self, seq: u64, result: &DecodedResult<'_>, results: &ResultLog) -> bool {
        let is = |wanted: &Option<String>, found| wanted.is_none() || wanted.as_deref() == found;
        (self.from_ms..self.to_ms).contains(&result.time_ms())
            && is(&self.device, result.device_id())
            && is(&self.metric, result.metric())
            && self.reason.is_none_or(|reason| result.has_reason(reason))
            && !(self.newest_only && results.is_superseded(seq))
    }
}

/// Takes the results of a query, one after the other.
pub trait ResultWriter {
    /// Writes one result. `seq` is its sequence number.
    fn write(&mut self, seq: u64, result: &DecodedResult<'_>);
    /// Bytes written so far.
    fn bytes(&self) -> usize;
}

impl ResultLog {
    /// Writes the results that `query` selects, up to its limit. Returns where to go on, if there may be more.
    ///
    /// # Errors
    /// The log cannot be read, a record in it is not a result, or the index does not cover the log yet.
    pub fn scan(&self, query: &ResultQuery, writer: &mut dyn ResultWriter) -> Result<Option<u64>, ScanError> {
        // Taken before indexing: what is readable later is not in the index.
        let end = self.log().readable().0;
        if !self.index(MAX_INDEXED)? {
            return Err(ScanError::NotIndexed);
        }
        let scan = Scan { results: self, query, first: self.log().stats().first.0, end };
        match query.order {
            ScanOrder::Ascending => scan.ascending(writer),
            ScanOrder::Descending => scan.descending(writer),
        }
    }
}

/// One run of a query.
struct Scan<'a> {
    results: &'a ResultLog,
    query: &'a ResultQuery,
    /// Position of the oldest record kept.
    first: u64,
    /// Position behind the newest record that the index covers.
    end: u64,
}

impl Scan<'_> {
    fn ascending(&self, writer: &mut dyn ResultWriter) -> Result<Option<u64>, ScanError> {
        let mut next = self.query.cursor.unwrap_or(0).max(self.first);
        let (mut scanned, mut taken) = (0, 0);
        let mut reader: Option<Reader> = None;
        while next < self.end {
            if !self.may_hold(next) {
                next = (next / BLOCK_RECORDS + 1) * BLOCK_RECORDS;
                reader = None;
                continue;
            }
            let reader = reader.get_or_insert_with(|| self.results.log().reader(Lsn(next)));
            let Some(batch) = reader.next_batch()? else { break };
            let results = self.results.kind().decode(&batch);
            for (seq, result) in results.filter(|(seq, _)| (next..self.end).contains(seq)) {
                if self.is_full(taken, writer) || scanned >= MAX_SCANNED {
                    return Ok(Some(seq));
                }
                taken += usize::from(self.take(seq, &decoded(seq, result)?, writer));
                scanned += 1;
            }
            next = next.max(batch.end().0);
        }
        Ok(None)
    }

    /// Logs are read forwards: block by block from the end, each block's hits kept and then written backwards.
    fn descending(&self, writer: &mut dyn ResultWriter) -> Result<Option<u64>, ScanError> {
        let mut upper = self.query.cursor.unwrap_or(u64::MAX).min(self.end);
        let (mut scanned, mut taken) = (0, 0);
        while upper > self.first {
            if self.is_full(taken, writer) || scanned >= MAX_SCANNED {
                return Ok(Some(upper));
            }
            let lower = ((upper - 1) / BLOCK_RECORDS * BLOCK_RECORDS).max(self.first);
            if self.may_hold(lower) {
                for batch in self.batches(lower, upper)?.iter().rev() {
                    let results = self.results.kind().decode(batch);
                    let results: Vec<_> = results.filter(|(seq, _)| (lower..upper).contains(seq)).collect();
                    for (seq, result) in results.into_iter().rev() {
                        if self.is_full(taken, writer) {
                            return Ok(Some(seq + 1));
                        }
                        taken += usize::from(self.take(seq, &decoded(seq, result)?, writer));
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
        let mut reader = self.results.log().reader(Lsn(lower));
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

    fn may_hold(&self, seq: u64) -> bool {
        self.results.may_hold(seq, self.query.from_ms, self.query.to_ms)
    }

    fn is_full(&self, taken: usize, writer: &dyn ResultWriter) -> bool {
        taken >= self.query.limit || writer.bytes() >= MAX_ANSWER_BYTES
    }

    /// Writes the result if the query selects it, and returns whether it did.
    fn take(&self, seq: u64, result: &DecodedResult<'_>, writer: &mut dyn ResultWriter) -> bool {
        let selected = self.query.selects(seq, result, self.results);
        if selected {
            writer.write(seq, result);
        }
        selected
    }
}

/// The result, or the error that says which record is none.
pub(super) fn decoded<'a>(
    seq: u64,
    result: Result<DecodedResult<'a>, InvalidOutput>,
) -> Result<DecodedResult<'a>, ScanError> {
    result.map_err(|error| ScanError::Record(seq, error))
}
