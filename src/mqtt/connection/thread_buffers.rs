//! Buffers of a thread: a connection has them while it is polled, so an idle one needs none.

use std::cell::RefCell;

use crate::log::Records;

/// Bytes read at once.
pub(crate) const READ_BYTES: usize = 128 * 1024;
/// Once the output holds this much it is sent before more is produced.
pub(crate) const OUTPUT_BYTES: usize = 64 * 1024;

/// What one poll works with.
#[derive(Debug, Default)]
pub(crate) struct ThreadBuffers {
    /// Always [`READ_BYTES`] long once used.
    pub read: Vec<u8>,
    /// Publishes to append; empty between polls.
    pub records: Records,
    /// Bytes to send; empty between polls.
    pub out: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<ThreadBuffers> = RefCell::default();
}

/// Runs `work` with the buffers of this thread, emptied.
pub(crate) fn with<T>(work: impl FnOnce(&mut ThreadBuffers) -> T) -> T {
    SCRATCH.with_borrow_mut(|buffers| {
        buffers.read.resize(READ_BYTES, 0);
        // A panic may have left something behind.
        buffers.records.clear();
        buffers.out.clear();
        work(buffers)
    })
}
