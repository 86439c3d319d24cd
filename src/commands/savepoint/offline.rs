//! Savepoints of a data directory that no running weir uses: the command opens the storage itself.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use weir::clock::{Clock, SystemClock};
use weir::config::Config;
use weir::core::operator::Operator;
use weir::disk::lock::DirectoryLock;
use weir::disk::{Disk, RealDisk, replace_file};
use weir::log::Lsn;
use weir::pipeline::run::Stop;
use weir::pipeline::start::prepare;
use weir::state::manifest::Positions;
use weir::state::savepoint::{self, SavepointInfo};

use crate::app::{CHECKPOINT_LIMIT, storage};
use crate::exit::CannotCreate;

/// Entries that an empty data directory may have.
const IGNORED: &[&str] = &["lock", "lost+found"];

/// Processes the rest of the journal, takes a checkpoint and writes it as a savepoint.
///
/// # Errors
/// The storage cannot be opened, or the savepoint cannot be written.
pub fn create(config: &Config, _lock: &DirectoryLock) -> anyhow::Result<SavepointInfo> {
    let storage = storage::open(config)?;
    let logs = [storage.journal.clone(), storage.windows.clone(), storage.errors.clone()];
    let (runner, pipeline) = prepare(storage.into_parts(config))?;
    let mut written = pipeline.request_savepoint()?;
    let stop = Stop::default();
    stop.request(&pipeline);
    runner.run(&stop, CHECKPOINT_LIMIT)?;
    for log in logs {
        log.close()?;
    }
    Ok(written.try_recv().context("the pipeline ended without an answer")??)
}

/// Prepares the empty data directory of the configuration so that weir continues from a savepoint.
///
/// # Errors
/// The savepoint cannot be used by this weir, the directory is not empty, or a file cannot be written.
pub fn restore(config: &Config, file: &Path) -> anyhow::Result<SavepointInfo> {
    let disk = RealDisk;
    let info = savepoint::inspect(&disk, file)?;
    let checkpoint = savepoint::read(&disk, file)?;
    let groups = checkpoint.groups.iter().map(|blob| (blob.group, blob.bytes.as_slice()));
    Operator::restore(&checkpoint.manifest.header, groups)
        .with_context(|| format!("{} cannot be restored by this weir", file.display()))?;
    let data_dir = &config.node.data_dir;
    let _lock = DirectoryLock::acquire(data_dir)?;
    check_empty(&disk, data_dir)?;
    let positions = checkpoint.manifest.positions;
    keep_copy(&disk, file, &data_dir.join(savepoint::DIRECTORY), &info)?;
    let Positions { replay_from, windows, errors } = positions;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for (options, first) in storage::log_options(config).into_iter().zip([replay_from, windows, errors]) {
        storage::open_log(options, &clock, Lsn(first), Lsn(first))?.close()?;
    }
    // The store is empty and the journal begins at the savepoint's position, so recovery takes the savepoint.
    let opened = storage::open(config)?;
    let restored = opened.checkpoint.as_ref().map(|checkpoint| checkpoint.manifest.positions);
    anyhow::ensure!(restored == Some(positions) || replay_from == 0, "the savepoint did not become the state");
    Ok(info)
}

fn check_empty(disk: &dyn Disk, data_dir: &Path) -> anyhow::Result<()> {
    let entries = disk.list(data_dir).with_context(|| format!("cannot read {}", data_dir.display()))?;
    let found: Vec<_> =
        entries.into_iter().map(|entry| entry.name).filter(|name| !IGNORED.contains(&name.as_str())).collect();
    if found.is_empty() {
        return Ok(());
    }
    let (directory, found) = (data_dir.display(), found.join(", "));
    let refusal = format!(
        "{directory} is not empty (it holds {found}): a savepoint replaces everything. Name an empty directory with \
         node.data_dir, or move this one aside"
    );
    Err(CannotCreate(refusal).into())
}

/// Copies the savepoint into the data directory: the state store may be lost later, and the journal does not reach
/// back.
fn keep_copy(disk: &dyn Disk, file: &Path, directory: &Path, info: &SavepointInfo) -> anyhow::Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let path = directory.join(savepoint::file_name(info.replay_from));
    disk.create_dir_all(directory)
        .and_then(|()| replace_file(disk, &path, &bytes))
        .with_context(|| format!("cannot write {}", path.display()))
}
