//! Deliberately broken variants of weir: the simulation must catch each of them.
//!
//! With the cargo feature `defects`, which is off by default and never in a release, `select` breaks one thing for the
//! calling thread. Without it [`is`] is a constant `false`, and the compiler leaves nothing of it.

/// One thing done wrong. docs/simulation.md says what catches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The journal counts as durable what it has only written.
    AcknowledgeBeforeSync,
    /// The door acknowledges what the journal has only taken.
    AcknowledgeAtOnce,
    /// A new segment's name is not synced.
    ForgetDirectorySync,
    /// The journal goes on after a failed sync.
    DurableAfterFailedSync,
    /// What a failed sync may have left out is not written again by the next start.
    SkipWriteAgain,
    /// What a start found counts as durable without a sync.
    SkipRecoverySync,
    /// The checksum of records is not compared.
    SkipBodyChecksum,
    /// The checksum of batch headers is not compared.
    SkipHeaderChecksum,
    /// A torn tail stays in the file.
    KeepTornTail,
    /// What was synced and cannot be read is cut like a torn tail.
    CutDamage,
    /// Arrival times follow the wall clock back.
    ArrivalGoesBack,
    /// A checkpoint is completed before the results below its positions are synced.
    CheckpointBeforeOutputs,
    /// Journal segments are freed when a checkpoint begins.
    FreeJournalEarly,
    /// A checkpoint overwrites the blobs of the last complete one.
    ReuseSlot,
    /// The manifest is written before the blobs are synced.
    SkipStoreSync,
    /// Checkpoints say that one record more is in the state.
    ReplayFromTooHigh,
    /// Checkpoints say that one record less is in the state.
    ReplayFromTooLow,
    /// Checkpoints leave out what clients published recently.
    ForgetRedeliveryIdentity,
    /// Checkpoints leave out which sequence numbers were counted.
    ForgetSequences,
    /// A replay appends its results again instead of comparing them.
    AppendReplayedResults,
    /// A replay goes on comparing where the output logs end, and does not append what they lack.
    DropReplayedResults,
    /// MQTT's redelivery is counted again.
    IgnoreRedelivery,
    /// Sequence numbers are not looked at.
    IgnoreSequences,
}

impl Defect {
    /// All of them.
    pub const ALL: [Defect; 23] = [
        Self::AcknowledgeBeforeSync,
        Self::AcknowledgeAtOnce,
        Self::ForgetDirectorySync,
        Self::DurableAfterFailedSync,
        Self::SkipWriteAgain,
        Self::SkipRecoverySync,
        Self::SkipBodyChecksum,
        Self::SkipHeaderChecksum,
        Self::KeepTornTail,
        Self::CutDamage,
        Self::ArrivalGoesBack,
        Self::CheckpointBeforeOutputs,
        Self::FreeJournalEarly,
        Self::ReuseSlot,
        Self::SkipStoreSync,
        Self::ReplayFromTooHigh,
        Self::ReplayFromTooLow,
        Self::ForgetRedeliveryIdentity,
        Self::ForgetSequences,
        Self::AppendReplayedResults,
        Self::DropReplayedResults,
        Self::IgnoreRedelivery,
        Self::IgnoreSequences,
    ];
}

/// Whether weir is to be broken in this way.
#[cfg(not(feature = "defects"))]
#[inline(always)]
pub const fn is(_: Defect) -> bool {
    false
}

/// Whether weir is to be broken in this way, on this thread.
#[cfg(feature = "defects")]
pub fn is(defect: Defect) -> bool {
    SELECTED.get() == Some(defect)
}

/// Breaks weir in one way on this thread, or in none.
#[cfg(feature = "defects")]
pub fn select(defect: Option<Defect>) {
    SELECTED.set(defect);
}

#[cfg(feature = "defects")]
thread_local! {
    static SELECTED: std::cell::Cell<Option<Defect>> = const { std::cell::Cell::new(None) };
}
