//! Opens what is on disk, in the order in which the parts depend on one another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use metrics::counter;

use weir::clock::{Clock, SystemClock};
use weir::config::{Config, Output};
use weir::disk::{Disk, RealDisk};
use weir::log::{Keep, Log, LogOptions, Lsn, Recovery, Retention, SyncPolicy};
use weir::pipeline::start::positions;
use weir::state::StateError;
use weir::state::key_value::{KeyValue, SledStore};
use weir::state::store::{Checkpoint, Store, open_within};
use weir::telemetry::names;

/// How long sled may take to open and load: a damaged file can make it spin.
const STATE_OPEN_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of new batches that wait for their writer, in batches of the largest size.
const QUEUE_BATCHES: usize = 4;

/// Largest batch of an output log, and what readers of its tail find in memory.
const OUTPUT_COMMIT_BYTES: usize = 1024 * 1024;

/// Everything durable, opened and recovered.
pub struct Storage {
    pub journal: Log,
    pub windows: Log,
    pub errors: Log,
    pub store: Store,
    pub checkpoint: Option<Checkpoint>,
    pub state_directory: PathBuf,
}

/// Opens state and logs below the data directory.
pub fn open(config: &Config) -> anyhow::Result<Storage> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let data_dir = &config.node.data_dir;
    let state_directory = data_dir.join("state");
    let (store, checkpoint) = open_state(&state_directory, data_dir, &disk)?;
    let positions = positions(checkpoint.as_ref());
    let open = |options: LogOptions, synced: u64| -> anyhow::Result<Log> {
        let name = options.name;
        let opened = Log::open(disk.clone(), clock.clone(), options, Lsn(synced));
        let (log, recovery) = opened.with_context(|| format!("cannot open the {name} log"))?;
        report(name, &recovery);
        Ok(log)
    };
    Ok(Storage {
        journal: open(journal_options(config), positions.replay_from)?,
        windows: open(output_options("windows", &config.windows, config), positions.windows)?,
        errors: open(output_options("errors", &config.errors.output, config), positions.errors)?,
        store,
        checkpoint,
        state_directory,
    })
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
    }
}

/// Output logs may go on into half of the reserve, so that what the journal acknowledged can still be processed and
/// checkpointed when sockets are no longer read.
fn output_options(name: &'static str, output: &Output, config: &Config) -> LogOptions {
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
    }
}

fn report(name: &str, recovery: &Recovery) {
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

/// Opens the checkpoint store. Where it is damaged, it is moved aside (never deleted) if the journal still reaches
/// back to its beginning, and the state is rebuilt from there.
fn open_state(directory: &Path, data_dir: &Path, disk: &Arc<dyn Disk>) -> anyhow::Result<(Store, Option<Checkpoint>)> {
    match open_store(directory, disk) {
        Ok(opened) => Ok(opened),
        Err(error) if error.is_damage() && journal_is_whole(data_dir, disk.as_ref()) => {
            let aside = move_aside(directory, data_dir, disk.as_ref())?;
            tracing::error!(
                %error,
                moved_to = %aside.display(),
                "the state store is damaged; it was moved aside and the state is rebuilt from the whole journal"
            );
            counter!(names::STATE_MOVED_ASIDE).increment(1);
            Ok(open_store(directory, disk)?)
        }
        Err(error) => Err(error).context("cannot load the last checkpoint"),
    }
}

fn open_store(directory: &Path, disk: &Arc<dyn Disk>) -> Result<(Store, Option<Checkpoint>), StateError> {
    let (owned, disk) = (directory.to_owned(), disk.clone());
    open_within(STATE_OPEN_LIMIT, directory, move || {
        SledStore::open(&owned, disk).map(|store| Box::new(store) as Box<dyn KeyValue>)
    })
}

fn journal_is_whole(data_dir: &Path, disk: &dyn Disk) -> bool {
    let first = disk.list(&data_dir.join("journal")).ok().and_then(|entries| entries.into_iter().next());
    first.is_some_and(|segment| segment.name.trim_end_matches(".log").bytes().all(|byte| byte == b'0'))
}

fn move_aside(directory: &Path, data_dir: &Path, disk: &dyn Disk) -> anyhow::Result<PathBuf> {
    let aside = data_dir.join(format!("state.damaged-{}", SystemClock.now_ms()));
    disk.rename(directory, &aside).with_context(|| format!("cannot move {} aside", directory.display()))?;
    disk.sync_dir(data_dir)?;
    Ok(aside)
}
