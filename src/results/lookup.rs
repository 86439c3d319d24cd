//! Single errors by their sequence number.

use std::sync::Arc;

use crate::core::output::{ErrorEntry, ErrorReader};
use crate::log::{Batch, Lsn, Reader};
use crate::results::error::ScanError;
use crate::results::log::{ResultLog, ResultLogs};

/// What the errors log has under a sequence number.
#[derive(Debug, Clone, PartialEq)]
pub enum FoundError<'a> {
    /// The error.
    Stored(Box<ErrorEntry<'a>>),
    /// No error has this number yet.
    Unknown,
    /// Retention freed the error. The value is the oldest number that is kept.
    Freed(u64),
    /// A repair cut the error out of the log.
    CutOut,
}

/// Looks up errors one after the other.
#[derive(Debug)]
pub struct ErrorLookup<'a> {
    results: &'a ResultLog,
    reader: Reader,
    batch: Option<Arc<Batch>>,
}

impl ResultLogs {
    /// To look up errors by their sequence numbers, in ascending order.
    pub fn error_lookup(&self) -> ErrorLookup<'_> {
        ErrorLookup { results: &self.errors, reader: self.errors.log().reader(Lsn(0)), batch: None }
    }
}

impl ErrorLookup<'_> {
    /// The error with the number `seq`, which is greater than that of the call before.
    ///
    /// # Errors
    /// The log cannot be read, or the record is no error.
    pub fn find(&mut self, seq: u64) -> Result<FoundError<'_>, ScanError> {
        if seq >= self.results.log().readable().0 {
            return Ok(FoundError::Unknown);
        }
        if self.batch.as_ref().is_none_or(|batch| batch.end().0 <= seq) {
            if self.reader.position().0 != seq {
                self.reader.seek(Lsn(seq));
            }
            self.batch = self.reader.next_batch()?;
        }
        let Some(batch) = &self.batch else { return Ok(FoundError::Unknown) };
        let Some(at) = seq.checked_sub(batch.first().0) else { return Ok(FoundError::Freed(batch.first().0)) };
        let record = |at: Option<u64>| batch.records().nth(usize::try_from(at?).ok()?);
        let Some(bytes) = record(Some(at)) else { return Ok(FoundError::CutOut) };
        let mut errors = ErrorReader::default();
        if let Some(distance) = ErrorEntry::distance(bytes)
            && let Some(first) = record(at.checked_sub(distance))
        {
            errors.read(seq - distance, first).map_err(|error| ScanError::Record(seq - distance, error))?;
        }
        errors
            .read(seq, bytes)
            .map(|entry| FoundError::Stored(Box::new(entry)))
            .map_err(|error| ScanError::Record(seq, error))
    }
}
