//! Bounds that hold for the whole HTTP API.

/// Queries of the output logs at a time. They read files, and must leave the cores to the pipeline.
pub(super) const MAX_SCANS: usize = 3;
/// Event streams at a time.
pub(super) const MAX_STREAMS: usize = 64;
/// Bytes in the body of a request.
pub(super) const MAX_BODY_BYTES: u64 = 64 << 10;
