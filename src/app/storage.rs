//! Opens the state store and the three logs of a data directory, in the order in which they depend on one another: the
//! checkpoint says up to where the logs are known to be synced.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics::counter;

use weir::clock::{Clock, SystemClock};
use weir::clock_jump::JumpGuard;
use weir::config::{Config, OutputConfig};
use weir::disk::{Disk, RealDisk};
use weir::log::repair::RepairPlan;
use weir::log::{Keep, Log, LogOptions, Lsn, RecoverySummary, Retention, SyncPolicy};
use weir::pipeline::savepoints::SavepointPolicy;
use weir::pipeline::start::{PipelineResources, positions};
use weir::state::checkpoint_store::{Checkpoint, CheckpointStore, OPEN_LIMIT};
use weir::state::manifest::Positions;
use weir::state::open::StoreOptions;
use weir::state::recovery::{self, Fallback, RecoveredState, RecoveryOptions};
use weir::state::savepoint;
use weir::telemetry::names;

/// The directories in a data directory. Other entries, such as `lost+found` of a file system of its own, are not weir's.
pub const DATA_DIRECTORIES: [&str; 8] =
    ["journal", "windows", "errors", "state", "retained", "sessions", savepoint::DIRECTORY, "damaged"];

/// Size of the queue before a log's writer, in batches of the largest size.
const QUEUE_BATCHES: usize = 4;

/// A savepoint is written early when the journal holds this many segments only because the last savepoint needs them.
const SAVEPOINT_SEGMENTS: u64 = 4;

/// Largest batch of an output log, and size of the tail that readers find in memory.
const OUTPUT_COMMIT_BYTES: usize = 1024 * 1024;

/// State store and logs of a data directory, opened and recovered.
pub struct Storage {
    pub journal: Log,
    pub windows: Log,
    pub errors: Log,
    pub store: CheckpointStore,
    pub checkpoint: Option<Checkpoint>,
    /// The clock of all parts.
    pub clock: Arc<JumpGuard>,
}

/// Opens state store and logs of the data directory.
///
/// # Errors
/// A log or the state cannot be read or is damaged.
pub fn open(config: &Config) -> anyhow::Result<Storage> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let hold = Duration::from_millis(config.node.clock_jump_hold_ms);
    let guard = JumpGuard::open(Arc::new(SystemClock), disk.clone(), &config.node.data_dir, hold);
    let clock: Arc<dyn Clock> = guard.clone();
    let RecoveredState { store, checkpoint, .. } = open_state(config, disk, clock.clone())?;
    let Positions { replay_from, windows, errors } = positions(checkpoint.as_ref());
    let [journal_options, windows_options, errors_options] = log_options(config);
    let (journal, recovery) = open_recovered(journal_options, &clock, Lsn(replay_from), Lsn(0))?;
    if recovery.lost_until.is_some() {
        cut_back(&windows_options, Lsn(windows), config)?;
        cut_back(&errors_options, Lsn(errors), config)?;
    }
    let windows = open_log(windows_options, &clock, Lsn(windows), Lsn(0))?;
    let errors = open_log(errors_options, &clock, Lsn(errors), Lsn(0))?;
    guard.begin([&journal, &windows, &errors].into_iter().filter_map(newest_arrival_ms).max());
    Ok(Storage { journal, windows, errors, store, checkpoint, clock: guard })
}

/// Arrival time of the newest batch of a log.
fn newest_arrival_ms(log: &Log) -> Option<i64> {
    log.segments().iter().rev().find_map(|segment| segment.last_arrival_ms)
}

impl Storage {
    /// The resources of a pipeline over this storage.
    pub fn into_parts(self, config: &Config) -> PipelineResources {
        PipelineResources {
            recovered_end: self.journal.durable(),
            journal: self.journal,
            windows: self.windows,
            errors: self.errors,
            store: self.store,
            checkpoint: self.checkpoint,
            settings: config.settings(),
            checkpoint_interval: Duration::from_millis(config.state.checkpoint_interval_ms),
            savepoints: savepoint_policy(config),
            disk: Arc::new(RealDisk),
            clock: self.clock,
            threads: true,
        }
    }
}

/// Directory of the state store.
pub fn state_directory(config: &Config) -> PathBuf {
    config.node.data_dir.join("state")
}

/// Options of the journal, the windows log and the errors log.
pub fn log_options(config: &Config) -> [LogOptions; 3] {
    [
        journal_options(config),
        output_options("windows", &config.windows, config),
        output_options("errors", &config.errors.output, config),
    ]
}

/// Opens a log that is known to be synced up to `known_synced`, or creates it with `first` as its first position. `clock` gives
/// batches their arrival times, and judges the age of segments.
///
/// # Errors
/// The log cannot be read or created, or is damaged.
pub fn open_log(options: LogOptions, clock: &Arc<dyn Clock>, known_synced: Lsn, first: Lsn) -> anyhow::Result<Log> {
    Ok(open_recovered(options, clock, known_synced, first)?.0)
}

fn open_recovered(
    options: LogOptions,
    clock: &Arc<dyn Clock>,
    known_synced: Lsn,
    first: Lsn,
) -> anyhow::Result<(Log, RecoverySummary)> {
    let name = options.name;
    let opened = Log::open_at(Arc::new(RealDisk), clock.clone(), options, known_synced, first);
    let (log, recovery) = opened.with_context(|| format!("cannot open the {name} log"))?;
    report(name, &recovery);
    Ok((log, recovery))
}

/// Cuts an output log back to the checkpoint after journal records behind the checkpoint were lost. Sequence numbers of
/// results are positions in this log, so all results since the checkpoint are computed again without the lost records.
/// The bytes that are cut out are kept in side files.
fn cut_back(options: &LogOptions, position: Lsn, config: &Config) -> anyhow::Result<()> {
    let plan = RepairPlan::cut_back(&RealDisk, &options.dir, position)?;
    if !plan.is_empty() {
        let side_dir = config.node.data_dir.join("damaged");
        plan.apply(&RealDisk, options.name, &side_dir)?;
        tracing::warn!(
            log = options.name,
            from = position.0,
            kept_in = %side_dir.display(),
            "journal records since the last checkpoint are lost: results since then are computed again without them"
        );
    }
    Ok(())
}

fn journal_options(config: &Config) -> LogOptions {
    let journal = &config.journal;
    LogOptions {
        name: "journal",
        dir: config.node.data_dir.join("journal"),
        segment_bytes: journal.segment_size_bytes,
        commit_max_bytes: journal.commit_max_bytes,
        queue_max_bytes: journal.commit_max_bytes * QUEUE_BATCHES,
        tail_max_bytes: journal.commit_max_bytes * QUEUE_BATCHES,
        sync: SyncPolicy::EveryCommit,
        min_free_bytes: journal.min_free_disk_bytes,
        retention: Retention {
            keep: journal.retention_ms.map_or(Keep::Released, Keep::ForAge),
            max_bytes: Some(journal.retention_bytes),
        },
        clock_tolerance_ms: config.node.clock_tolerance_ms,
    }
}

/// Output logs may use half of the disk reserve: records that the journal has acknowledged can still be processed and
/// checkpointed when the journal takes no new ones.
fn output_options(name: &'static str, output: &OutputConfig, config: &Config) -> LogOptions {
    LogOptions {
        name,
        dir: config.node.data_dir.join(name),
        segment_bytes: (output.retention_bytes / 16).clamp(1 << 20, 64 << 20),
        commit_max_bytes: OUTPUT_COMMIT_BYTES,
        queue_max_bytes: OUTPUT_COMMIT_BYTES * QUEUE_BATCHES,
        tail_max_bytes: OUTPUT_COMMIT_BYTES,
        sync: SyncPolicy::OnRequest,
        min_free_bytes: config.journal.min_free_disk_bytes / 2,
        retention: Retention {
            keep: output.retention_ms.map_or(Keep::UpToBytes, Keep::ForAge),
            max_bytes: Some(output.retention_bytes),
        },
        clock_tolerance_ms: config.node.clock_tolerance_ms,
    }
}

fn report(name: &str, recovery: &RecoverySummary) {
    if recovery.torn_bytes > 0 {
        counter!(names::LOG_TORN_BYTES, "log" => name.to_owned()).increment(recovery.torn_bytes);
        tracing::warn!(
            log = name,
            bytes = recovery.torn_bytes,
            "cut the unsynced end of the log: nothing in it was acknowledged"
        );
    }
    tracing::debug!(log = name, first = recovery.first.0, end = recovery.end.0, "log recovered");
}

fn open_state(config: &Config, disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> anyhow::Result<RecoveredState> {
    let recovered = recovery::open(&RecoveryOptions {
        data_dir: config.node.data_dir.clone(),
        store: StoreOptions::sled(disk.clone(), OPEN_LIMIT),
        disk,
        clock,
    })
    .context("cannot load the last checkpoint")?;
    if let Some(Fallback { reason, moved_to, savepoint }) = &recovered.fallback {
        counter!(names::STATE_MOVED_ASIDE).increment(u64::from(moved_to.is_some()));
        tracing::error!(
            reason,
            moved_to = moved_to.as_ref().map(|path| tracing::field::display(path.display())),
            from = %savepoint.as_ref().map_or("the whole journal".into(), |path| path.display().to_string()),
            "the state store cannot be used: the state is rebuilt, and nothing acknowledged is lost"
        );
    }
    Ok(recovered)
}

/// Directory, interval and number of savepoints.
fn savepoint_policy(config: &Config) -> SavepointPolicy {
    SavepointPolicy {
        directory: config.node.data_dir.join(savepoint::DIRECTORY),
        interval: config.state.savepoint_interval_ms.map(Duration::from_millis),
        kept: config.state.savepoints_kept,
        max_journal_bytes: config.journal.segment_size_bytes * SAVEPOINT_SEGMENTS,
    }
}
