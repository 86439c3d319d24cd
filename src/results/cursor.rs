//! A position in an output log, for a reader that sets its own pace.

use std::ops::Range;
use std::sync::Arc;

use crate::log::{Batch, LogError, Lsn, Reader};
use crate::results::log::ResultLog;
use crate::results::record::{ResultKind, ResultRecord};

/// Reads an output log from a position on: from memory at its end, from disk where it is behind.
#[derive(Debug)]
pub struct ResultCursor {
    kind: ResultKind,
    reader: Reader,
}

/// Results that were read together, not decoded yet.
#[derive(Debug)]
pub struct ResultBatch {
    kind: ResultKind,
    batch: Arc<Batch>,
    from: Lsn,
}

impl ResultCursor {
    /// A cursor whose first result is the one at `from`, or the oldest one kept.
    pub fn new(results: &ResultLog, from: Lsn) -> Self {
        Self { kind: results.kind(), reader: results.log().reader(from) }
    }

    /// Position of the next result.
    pub fn position(&self) -> Lsn {
        self.reader.position()
    }

    /// The next results; `None` at the end of the log.
    ///
    /// # Errors
    /// The log cannot be read at this position. The position stays.
    pub fn next_batch(&mut self) -> Result<Option<ResultBatch>, LogError> {
        let from = self.reader.position();
        let batch = self.reader.next_batch()?;
        Ok(batch.map(|batch| ResultBatch { kind: self.kind, batch, from }))
    }

    /// Moves to another position.
    pub fn seek(&mut self, position: Lsn) {
        if self.reader.position() != position {
            self.reader.seek(position);
        }
    }
}

impl ResultBatch {
    /// Position behind the last result.
    pub fn end(&self) -> Lsn {
        self.batch.end()
    }

    /// Decodes the results from the cursor's position on. A record that is no result is logged and left out.
    pub fn results(&self) -> impl Iterator<Item = ResultRecord<'_>> {
        let wanted = self.kind.decode(&self.batch).filter(|(seq, _)| *seq >= self.from.0);
        wanted.filter_map(|(seq, result)| match result {
            Ok(result) => Some(ResultRecord::new(seq, result)),
            Err(error) => {
                let log = self.kind.log_name();
                tracing::error!(%error, log, seq, "a stored result cannot be read; subscribers do not get it");
                None
            }
        })
    }

    /// The positions that [`ResultBatch::results`] comes to; none in place of lost records.
    pub(super) fn positions(&self) -> Range<u64> {
        let end = if self.batch.is_hole() { self.batch.first() } else { self.batch.end() };
        self.from.0.max(self.batch.first().0)..end.0
    }
}
