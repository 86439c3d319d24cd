//! When savepoints are written, and how far the journal may be freed because of them.
//!
//! A savepoint rebuilds a damaged state store only if the journal still has all records behind it. So the journal is kept
//! for the newest savepoint, and a savepoint is written before the kept journal becomes too large.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge, histogram};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::log::Log;
use crate::pipeline::error::SavepointFailure;
use crate::pipeline::handle::Pipeline;
use crate::state::checkpoint_store::CheckpointStore;
use crate::state::savepoint::{self, SavepointError, SavepointInfo, SavepointKind};
use crate::telemetry::names;

/// Largest number of savepoints that may be asked for: each is a copy of the whole state.
const MAX_MANUAL: usize = 100;

/// Where savepoints are stored, and when weir writes one by itself.
#[derive(Debug, Clone)]
pub struct SavepointPolicy {
    /// Directory of the savepoint files.
    pub directory: PathBuf,
    /// Time between automatic savepoints; `None`: none is written, and the journal is not kept for them.
    pub interval: Option<Duration>,
    /// Number of automatic savepoints that are kept.
    pub kept: usize,
    /// An automatic savepoint is also written when the journal kept for the newest one reaches this number of bytes.
    pub max_journal_bytes: u64,
}

/// Writes and lists the savepoints of a data directory.
#[derive(Debug)]
pub(super) struct SavepointManager {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    policy: SavepointPolicy,
    pipeline: Pipeline,
    /// The newest readable savepoint, in the order of the journal.
    newest: Option<SavepointInfo>,
    /// Wall clock at start. Without a savepoint, the interval begins here.
    started_ms: i64,
    /// Whether the journal is freed without a savepoint, because there was no space to write one.
    given_up: bool,
}

impl SavepointManager {
    /// Lists the savepoints in the directory, and makes their names durable: an earlier run may have ended between the renaming
    /// of a savepoint and the sync of its directory, and the journal is freed up to the newest one.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        policy: SavepointPolicy,
        pipeline: Pipeline,
    ) -> Result<Self, SavepointError> {
        let started_ms = clock.now_ms();
        savepoint::sync_names(&*disk, &policy.directory)?;
        let mut savepoints = Self { disk, clock, policy, pipeline, newest: None, started_ms, given_up: false };
        savepoints.look()?;
        Ok(savepoints)
    }

    /// Writes the last checkpoint of the store as a savepoint, where one is due. Returns the position up to which the
    /// journal may be freed.
    pub(super) fn after_checkpoint(&mut self, store: &CheckpointStore, journal: &Log) -> u64 {
        let Some(manifest) = store.last_manifest() else { return 0 };
        let replay_from = manifest.positions.replay_from;
        let Some(interval) = self.policy.interval else { return replay_from };
        if self.is_due(interval, replay_from, journal) {
            match self.write(store, SavepointKind::Automatic) {
                Ok(_) => self.given_up = false,
                Err(error) => self.failed(&error, journal),
            }
        }
        if self.given_up { replay_from } else { self.covered(replay_from) }
    }

    /// Writes the last checkpoint of the store as a savepoint that was asked for.
    pub(super) fn write_manual(&mut self, store: &CheckpointStore) -> Result<SavepointInfo, SavepointFailure> {
        let manual = self.pipeline.savepoints().iter().filter(|info| info.kind == SavepointKind::Manual).count();
        if manual >= MAX_MANUAL {
            return Err(SavepointFailure::TooMany { directory: self.policy.directory.clone(), count: manual });
        }
        Ok(self.write(store, SavepointKind::Manual)?)
    }

    fn covered(&self, replay_from: u64) -> u64 {
        self.newest.as_ref().map_or(0, |newest| newest.replay_from.min(replay_from))
    }

    /// Whether an automatic savepoint is due. Its age is taken by the wall clock, so that the interval goes on across
    /// restarts; a clock that was set back makes one due.
    fn is_due(&self, interval: Duration, replay_from: u64, journal: &Log) -> bool {
        let covered = self.covered(replay_from);
        if covered == replay_from && self.newest.is_some() {
            return false;
        }
        let since_ms = self.newest.as_ref().map_or(self.started_ms, |newest| newest.created_ms);
        let age_ms = self.clock.now_ms().saturating_sub(since_ms);
        let is_old = age_ms < 0 || age_ms as u128 >= interval.as_millis();
        let segments = journal.segments();
        let held = segments.iter().filter(|segment| segment.end.0 > covered && segment.end.0 <= replay_from);
        let held_bytes: u64 = held.map(|segment| segment.bytes).sum();
        is_old || held_bytes >= self.policy.max_journal_bytes || (held_bytes > 0 && journal.stats().disk_full)
    }

    fn write(&mut self, store: &CheckpointStore, kind: SavepointKind) -> Result<SavepointInfo, SavepointError> {
        let begun = self.clock.monotonic();
        let (disk, directory) = (&*self.disk, &self.policy.directory);
        let info = savepoint::write(disk, directory, store, kind, self.clock.now_ms())?;
        savepoint::prune(disk, directory, self.policy.kept.max(1))?;
        let took = self.clock.monotonic().saturating_sub(begun);
        counter!(names::SAVEPOINTS).increment(1);
        histogram!(names::SAVEPOINT_SECONDS).record(took.as_secs_f64());
        tracing::info!(file = info.file, bytes = info.bytes, ?took, "savepoint written");
        self.look()?;
        Ok(info)
    }

    fn look(&mut self) -> Result<(), SavepointError> {
        let listed = savepoint::list(&*self.disk, &self.policy.directory)?;
        let found: Vec<_> = listed.into_iter().filter_map(|(_, info)| info.ok()).collect();
        gauge!(names::SAVEPOINT_BYTES).set(found.iter().map(|info| info.bytes).sum::<u64>() as f64);
        self.newest = found.first().cloned();
        self.pipeline.update_savepoints(found);
        Ok(())
    }

    /// Decides what a failure means. On a full disk the journal is freed without a savepoint: the journal that is kept
    /// for savepoints must not be what fills the disk.
    fn failed(&mut self, error: &SavepointError, journal: &Log) {
        counter!(names::SAVEPOINT_FAILURES).increment(1);
        let give_up = error.is_disk_full() && journal.stats().disk_full;
        if give_up && !self.given_up {
            self.given_up = true;
            tracing::warn!(
                %error,
                "no space for a savepoint: the journal is freed without one. Until the next one is written, a damaged \
                 state store cannot be rebuilt"
            );
        } else if !give_up {
            tracing::error!(%error, "the savepoint failed; the journal is kept until one succeeds");
        }
    }
}
