//! `weir run`: builds the parts in order, watches over them, and takes them down in order.

mod notify;
mod resources;
mod shutdown;
mod source;
mod storage;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use weir::clock::SystemClock;
use weir::config::Config;
use weir::core::record;
use weir::disk::lock::{DirectoryLock, LockError};
use weir::disk::{RealDisk, replace_file};
use weir::http;
use weir::log::{Log, LogError, Records};
use weir::mqtt;
use weir::mqtt::broker::Broker;
use weir::pipeline::handle::Pipeline;
use weir::pipeline::run::Stop;
use weir::pipeline::start::{Parts, prepare};
use weir::state::StateError;
use weir::{simulator, telemetry};

use crate::cli::HealthArguments;
use shutdown::{Cause, Failures};
use storage::Storage;

/// Time for the whole of an orderly shutdown; systemd's TimeoutStopSec is longer.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// Part of it that connections have to take their last acknowledgements.
const CONNECTIONS_LIMIT: Duration = Duration::from_secs(5);

/// Runs the appliance until a signal or a failure.
pub fn run(config: Config, path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    telemetry::logging::init(&config.log)?;
    let prometheus = telemetry::recorder::install()?;
    resources::raise_open_files(config.mqtt.max_connections);
    let _lock = DirectoryLock::acquire(&config.node.data_dir)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = path.map_or_else(|| "defaults".into(), |path| path.display().to_string()),
        data_dir = %config.node.data_dir.display(),
        "weir starts"
    );
    let storage = storage::open(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tokio").build()?;
    let result = runtime.block_on(serve(config, storage, prometheus, started));
    // Tasks that hang must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result.map(|()| ExitCode::SUCCESS)
}
