//! Deliberately broken variants of weir. The simulation must catch each of them.
//!
//! With the cargo feature `defects`, which is off by default and never in a release, `select` breaks one thing for the
//! calling thread. Without the feature [`is`] is a constant `false`, and the compiler removes every use of it.

/// One thing that is done wrong. docs/simulation.md says which check catches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The journal reports records as durable that are only written.
    AcknowledgeBeforeSync,
    /// The MQTT server acknowledges records that the journal has only queued.
    AcknowledgeAtOnce,
    /// The directory is not synced after a new segment was created.
    ForgetDirectorySync,
    /// The journal continues after a failed sync.
    DurableAfterFailedSync,
    /// The next start does not write again what a failed sync may have left out.
    SkipWriteAgain,
    /// Records found at start count as durable without a sync.
    SkipRecoverySync,
    /// The checksum of batch bodies is not compared.
    SkipBodyChecksum,
    /// The checksum of batch headers is not compared.
    SkipHeaderChecksum,
    /// A torn tail stays in the file.
    KeepTornTail,
    /// Records that were synced and cannot be read are cut like a torn tail.
    CutDamage,
    /// Arrival times follow a wall clock that goes back, without a mark at the batch.
    ArrivalGoesBack,
    /// Arrival times stand still however far the wall clock was set back.
    ArrivalNeverGoesBack,
    /// Watermarks stay where a wrong wall clock moved them.
    KeepWrongWatermarks,
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
    /// Checkpoints leave out the recent messages of clients.
    ForgetRedeliveryIdentity,
    /// Checkpoints leave out the sequence numbers of devices.
    ForgetSequences,
    /// A replay appends its results again and does not compare them.
    AppendReplayedResults,
    /// A replay continues to compare behind the end of the output logs, and does not append what they lack.
    DropReplayedResults,
    /// Redelivered MQTT messages are counted again.
    IgnoreRedelivery,
    /// Sequence numbers are ignored.
    IgnoreSequences,
    /// Whatever comes under a known sequence number is a duplicate.
    IgnoreDigests,
    /// Checkpoints leave out the digests of what came under recent sequence numbers.
    ForgetDigests,
    /// A counter that begins again at 0 is a restart.
    IgnoreWraps,
    /// Retained messages and sessions are not stored any more after one failed write or sync of their store.
    GiveUpStore,
    /// The numbers of unstored sessions and retained messages leave out what an outage of their store dropped.
    ForgetStoreOutage,
    /// Removals that an outage of a store dropped are not made up for.
    KeepStaleValues,
    /// After the wall clock jumped forward, results are deleted by age at once.
    DeleteAfterClockJump,
    /// Retained messages that come again are counted as readings.
    CountRetainedRepeats,
    /// Messages that repeat what is retained are passed over although the journal does not hold the first one.
    TrustRetainedMark,
    /// Checkpoints hold no record of which windows fired.
    ForgetFiredRuns,
    /// A backlog that ends drops its windows instead of firing them.
    DropBacklogWindows,
    /// Checkpoints leave out the former window sizes that devices carry.
    ForgetWindowSizes,
    /// A change of the window size holds at once, for event times whose windows are there already, too.
    ResizeAtOnce,
    /// `null` counts as 0.
    CountAbsentValues,
    /// Checkpoints leave out the births of edge nodes.
    ForgetBirths,
    /// Settings in the journal do not change the maps: those of the last start stay in force.
    KeepMapsOfStart,
    /// The numbers of an edge node are not continued behind their largest one.
    IgnoreNodeWraps,
    /// Errors refer to the first error of an earlier message.
    ReferToEarlierMessage,
    /// Readings that share the last entry of their message are counted, and the entry is not written.
    DropFoldedErrors,
}

impl Defect {
    /// All defects.
    pub const ALL: [Defect; 44] = [
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
        Self::ArrivalNeverGoesBack,
        Self::KeepWrongWatermarks,
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
        Self::IgnoreDigests,
        Self::ForgetDigests,
        Self::IgnoreWraps,
        Self::GiveUpStore,
        Self::ForgetStoreOutage,
        Self::KeepStaleValues,
        Self::DeleteAfterClockJump,
        Self::CountRetainedRepeats,
        Self::TrustRetainedMark,
        Self::ForgetFiredRuns,
        Self::DropBacklogWindows,
        Self::ForgetWindowSizes,
        Self::ResizeAtOnce,
        Self::CountAbsentValues,
        Self::ForgetBirths,
        Self::KeepMapsOfStart,
        Self::IgnoreNodeWraps,
        Self::ReferToEarlierMessage,
        Self::DropFoldedErrors,
    ];
}

/// Whether weir is broken in this way.
#[cfg(not(feature = "defects"))]
#[inline(always)]
pub const fn is(_: Defect) -> bool {
    false
}

/// Whether weir is broken in this way on the calling thread.
#[cfg(feature = "defects")]
pub fn is(defect: Defect) -> bool {
    SELECTED.get() == Some(defect)
}

/// Breaks weir in this way on the calling thread, or in none.
#[cfg(feature = "defects")]
pub fn select(defect: Option<Defect>) {
    SELECTED.set(defect);
}

#[cfg(feature = "defects")]
thread_local! {
    static SELECTED: std::cell::Cell<Option<Defect>> = const { std::cell::Cell::new(None) };
}
