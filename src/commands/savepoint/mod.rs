//! `weir savepoint create`, `list` and `restore`.

mod offline;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::Deserialize;

use weir::client::{ApiArguments, HttpClient, reachable};
use weir::config::Config;
use weir::disk::RealDisk;
use weir::disk::lock::{DirectoryLock, LockError};
use weir::state::savepoint::{self, SavepointInfo, SavepointKind};

use crate::app::addresses::BoundAddresses;
use crate::cli::SavepointCommand;
use crate::exit;

/// Runs `weir savepoint create`, `list` or `restore`.
///
/// # Errors
/// The data directory cannot be used, or the running weir cannot be reached or refuses.
pub fn run(command: SavepointCommand, config: &Config) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match command {
        SavepointCommand::Create { url, api } => create(config, url.as_deref(), &api, &mut out)?,
        SavepointCommand::List { directory } => {
            let directory = directory.unwrap_or_else(|| config.node.data_dir.clone());
            if !list(&directory, &mut out)? {
                return Ok(ExitCode::from(exit::DATA));
            }
        }
        SavepointCommand::Restore { file } => restore(config, &file, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a savepoint: asks the weir that runs on the data directory or, if there is none, works on the directory
/// itself.
fn create(config: &Config, url: Option<&str>, api: &ApiArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let data_dir = &config.node.data_dir;
    let path = match url {
        Some(url) => ask(&HttpClient::new(url, api)?)?,
        None => match DirectoryLock::acquire(data_dir) {
            Ok(lock) => offline::create(config, &lock)?.file,
            Err(LockError::Held { .. }) => ask(&HttpClient::new(&running_http(data_dir)?, api)?)?,
            Err(error) => return Err(error.into()),
        },
    };
    writeln!(out, "{}", data_dir.join(savepoint::DIRECTORY).join(path).display())?;
    Ok(())
}

/// Base URL of the weir that holds the lock of the data directory.
fn running_http(data_dir: &Path) -> anyhow::Result<String> {
    let addresses = BoundAddresses::read(data_dir)
        .context("a weir runs on this directory, but its address is not known: name it with --url")?;
    Ok(format!("http://{}", reachable(addresses.http)))
}

/// The answer to a request to write a savepoint.
#[derive(Deserialize)]
struct CreatedSavepoint {
    file: String,
}

/// Lets a running weir write a savepoint, and returns the name of its file.
fn ask(client: &HttpClient) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let response = runtime.block_on(client.post("/api/v1/savepoints", bytes::Bytes::new()))?;
    if let Some(refusal) = client.access_refusal(&response) {
        bail!("{refusal}");
    }
    if response.status != 201 {
        bail!("{}: {}: {}", client.base(), response.status, response.detail());
    }
    let written: CreatedSavepoint = serde_json::from_slice(&response.body)
        .with_context(|| format!("{} answered in an unknown form", client.base()))?;
    Ok(written.file)
}

/// Prints the savepoints of a data directory, newest first. Returns whether all of them can be used.
fn list(data_dir: &Path, out: &mut impl Write) -> anyhow::Result<bool> {
    let directory = data_dir.join(savepoint::DIRECTORY);
    let listed = savepoint::list(&RealDisk, &directory)?;
    if listed.is_empty() {
        writeln!(out, "no savepoints in {}", directory.display())?;
    } else {
        writeln!(out, "{:<36} {:<9} {:>20} {:>12} {:>12}  weir", "file", "kind", "created", "records", "bytes")?;
    }
    let mut sound = true;
    for (path, info) in listed {
        match info {
            Ok(info) => writeln!(out, "{}", line(&info))?,
            Err(error) => {
                sound = false;
                writeln!(out, "{:<36} UNUSABLE: {error}", path.file_name().unwrap_or_default().to_string_lossy())?;
            }
        }
    }
    Ok(sound)
}

fn line(info: &SavepointInfo) -> String {
    let created = Timestamp::from_millisecond(info.created_ms);
    let created = created.map_or_else(|_| info.created_ms.to_string(), |time| format!("{time:.0}"));
    let kind = match info.kind {
        SavepointKind::Automatic => "automatic",
        SavepointKind::Manual => "manual",
    };
    let SavepointInfo { file, replay_from, bytes, weir, .. } = info;
    format!("{file:<36} {kind:<9} {created:>20} {replay_from:>12} {bytes:>12}  {weir}")
}

/// Restores a savepoint into the empty data directory of the config.
fn restore(config: &Config, file: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let info = offline::restore(config, file)?;
    writeln!(
        out,
        "restored {} into {}: weir goes on after journal record {}, window {} and error {}",
        info.file,
        config.node.data_dir.display(),
        info.replay_from,
        info.windows_position,
        info.errors_position,
    )?;
    Ok(())
}
