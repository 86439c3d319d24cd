//! An output log with the index that queries use.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use crate::log::{Log, Lsn, Reader};
use crate::results::error::ScanError;
use crate::results::index::{IndexEntry, TimeIndex};
use crate::results::record::{DecodedResult, ResultKind, ResultRecord};
use crate::sync::lock;

/// The two output logs.
#[derive(Debug)]
pub struct ResultLogs {
    /// Window firings.
    pub windows: ResultLog,
    /// Rejected readings and faults that devices reported.
    pub errors: ResultLog,
}

/// Positions in both output logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultPositions {
    /// Position in the windows log.
    pub windows: Lsn,
    /// Position in the errors log.
    pub errors: Lsn,
}

/// An output log with its index.
#[derive(Debug)]
pub struct ResultLog {
    log: Log,
    kind: ResultKind,
    indexer: Mutex<Indexer>,
}

#[derive(Debug, Default)]
struct Indexer {
    index: TimeIndex,
    reader: Option<Reader>,
}

impl ResultLogs {
    /// Wraps the two logs. Neither is read until something asks for results.
    pub fn new(windows: Log, errors: Log) -> Arc<Self> {
        Arc::new(Self {
            windows: ResultLog::new(windows, ResultKind::Window),
            errors: ResultLog::new(errors, ResultKind::Error),
        })
    }

    /// The ends of both logs.
    pub fn readable(&self) -> ResultPositions {
        ResultPositions { windows: self.windows.log.readable(), errors: self.errors.log.readable() }
    }
}

impl ResultLog {
    fn new(log: Log, kind: ResultKind) -> Self {
        Self { log, kind, indexer: Mutex::default() }
    }

    /// The log itself.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Which results the log holds.
    pub fn kind(&self) -> ResultKind {
        self.kind
    }

    /// Adds up to `max_records` further records to the index, and some more to end with a batch. Returns `true` when the
    /// index covers everything that was readable at the call.
    ///
    /// # Errors
    /// The log cannot be read, or a record is not a result; the next call goes on behind it.
    pub fn index(&self, max_records: u64) -> Result<bool, ScanError> {
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
            if reader.position().0 < index.next() {
                // The follower has indexed what it handed on.
                reader.seek(Lsn(index.next()));
            }
            let Some(batch) = reader.next_batch()? else {
                return Ok(true);
            };
            if batch.is_hole() {
                index.skip_to(batch.end().0);
            }
            for (seq, result) in self.kind.decode(&batch) {
                if seq >= index.next() {
                    let result = result.map_err(|error| ScanError::Record(seq, error))?;
                    index.add(seq, entry(&result));
                    added += 1;
                }
            }
        }
    }

    /// Adds a batch that the follower has decoded, if it is the next one that the index needs. `positions` are those of the
    /// batch. While another thread has the index, which may read from disk, nothing is added: a later step catches up, and
    /// subscribers do not wait.
    pub(super) fn index_batch(&self, positions: &Range<u64>, records: &[ResultRecord<'_>]) {
        let Ok(mut indexer) = self.indexer.try_lock() else { return };
        let index = &mut indexer.index;
        if !positions.contains(&index.next()) {
            return;
        }
        for record in records {
            if record.seq >= index.next() {
                index.add(record.seq, entry(&record.result));
            }
        }
    }

    /// Whether a later record corrects the one at `seq`.
    pub(super) fn is_superseded(&self, seq: u64) -> bool {
        lock(&self.indexer).index.is_superseded(seq)
    }

    /// Whether the block of the index that holds `seq` may have records with a time in `from_ms..to_ms`.
    pub(super) fn may_hold(&self, seq: u64, from_ms: i64, to_ms: i64) -> bool {
        lock(&self.indexer).index.may_hold(seq, from_ms, to_ms)
    }
}

fn entry(result: &DecodedResult<'_>) -> IndexEntry {
    IndexEntry { time_ms: result.time_ms(), supersedes: result.supersedes() }
}
