//! Buffers of a thread. A connection uses them while it is polled, so an idle connection needs none.

use std::cell::RefCell;

use crate::log::Records;

/// Size in bytes of the buffer for reads.
pub(crate) const READ_BYTES: usize = 128 * 1024;
/// Size in bytes of the output from which on it is sent before more is produced.
pub(crate) const OUTPUT_BYTES: usize = 64 * 1024;

/// Buffers for one poll of a connection.
#[derive(Debug, Default)]
pub(crate) struct ThreadBuffers {
    /// Bytes read from the socket. The buffer is always [`READ_BYTES`] long once used.
    pub read: Vec<u8>,
    /// Publishes to append; empty between polls.
    pub records: Records,
    /// Bytes to send; empty between polls.
    pub out: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<ThreadBuffers> = RefCell::default();
}

/// Runs `work` with the buffers of this thread. `records` and `out` are empty.
pub(crate) fn with<T>(work: impl FnOnce(&mut ThreadBuffers) -> T) -> T {
    SCRATCH.with_borrow_mut(|buffers| {
        buffers.read.resize(READ_BYTES, 0);
        // A panic in an earlier poll may have left something in the buffers.
        buffers.records.clear();
        buffers.out.clear();
        work(buffers)
    })
}
