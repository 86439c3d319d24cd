//! Errors of queries.

use crate::core::output::InvalidOutput;
use crate::log::LogError;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The record at this position is not a result.
    #[error("record {0}: {1}")]
    Record(u64, InvalidOutput),
    /// The index does not cover the log yet.
    #[error("the log is not indexed yet")]
    NotIndexed,
}
