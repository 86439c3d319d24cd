//! `weir run`: opens the data directory, builds all parts and binds their listeners (`start`), waits for a signal or a
//! failure (`shutdown`), and stops the parts in order. What the parts do is not decided here; files of configuration
//! and access that may change while weir runs are prepared and applied by `reload`.

pub mod access;
pub mod addresses;
mod clock_wait;
mod clock_watch;
mod disk_watch;
mod files;
pub mod http_access;
mod mqtt;
mod notify;
pub mod recorded_settings;
mod reload;
mod reloadable;
mod resources;
mod shutdown;
mod stalls;
mod start;
mod status;
pub mod storage;
mod tls;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use sd_notify::NotifyState;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use weir::clock::{Clock, SystemClock};
use weir::config::{Config, LogFormat};
use weir::disk::close_directories;
use weir::disk::lock::DirectoryLock;
use weir::log::Log;
use weir::mqtt::broker::Broker;
use weir::pipeline::handle::Pipeline;
use weir::pipeline::run::Stop;
use weir::results::follow::ResultFollower;
use weir::simulator::FleetProgress;
use weir::telemetry;

use addresses::BoundAddresses;
use files::ConfiguredFiles;
use shutdown::{FailureReporter, StopCause, StopSignals};
use start::{Bootstrap, start};
use storage::Storage;

/// Time for the whole of an orderly shutdown; systemd's TimeoutStopSec is longer.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// Longest time of the last checkpoint, within the orderly shutdown.
pub const CHECKPOINT_LIMIT: Duration = Duration::from_secs(12);

/// Time between two checks of the progress of a start.
const RECOVERY_POLL: Duration = Duration::from_millis(5);

/// Longest wait for the simulated devices before the hint on where to look is printed.
const FLEET_CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Runs the appliance until a signal or a failure.
///
/// # Errors
/// A part cannot be built, fails while weir runs, or does not stop in time.
pub fn run(config: Config, path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let filter = telemetry::logging::init(&config.log.level, config.log.format)?;
    let prometheus = telemetry::recorder::install();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let files = ConfiguredFiles::load(&config, &clock)?;
    let _lock = DirectoryLock::acquire(&config.node.data_dir)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = path.map_or_else(|| "defaults".into(), |path| path.display().to_string()),
        data_dir = %config.node.data_dir.display(),
        "weir starts"
    );
    if let Some(limit_ms) = config.node.wait_for_clock_ms {
        clock_wait::wait_for_clock(&*clock, Duration::from_millis(limit_ms));
    }
    for change in recorded_settings::changes(&config) {
        tracing::info!("a setting changes: {change}");
    }
    close_data(&config.node.data_dir);
    resources::raise_open_files(config.mqtt.max_connections);
    let storage = storage::open(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tokio").build()?;
    let bootstrap =
        Bootstrap { config: Arc::new(config), path: path.map(Path::to_path_buf), filter, prometheus, files, started };
    let result = runtime.block_on(serve(bootstrap, storage));
    // A task that hangs must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result.map(|()| ExitCode::SUCCESS)
}

/// Takes the rights of other users from directories that an earlier weir, or a copy, has left open to them. The data directory
/// itself may be shared for a reason, so it stays as it is.
fn close_data(data_dir: &Path) {
    match close_directories(data_dir, &storage::DATA_DIRECTORIES) {
        Ok(closed) if closed.is_empty() => {}
        Ok(closed) => tracing::warn!(
            directories = closed.join(", "),
            "other users of this machine could look into the data: their rights are removed"
        ),
        Err(error) => tracing::warn!("other users of this machine can look into the data: {error}"),
    }
}

/// The running parts, in the order in which they are stopped.
struct RunningApp {
    addresses: BoundAddresses,
    broker: Arc<Broker>,
    /// Progress of the built-in simulator's devices.
    fleet: Arc<FleetProgress>,
    mqtt: CancellationToken,
    mqtt_tasks: TaskTracker,
    journal: Log,
    windows: Log,
    errors: Log,
    pipeline: Pipeline,
    stop: Stop,
    pipeline_thread: JoinHandle<()>,
    follower: ResultFollower,
    results_thread: JoinHandle<()>,
    http: CancellationToken,
    http_tasks: TaskTracker,
}

async fn serve(bootstrap: Bootstrap, storage: Storage) -> anyhow::Result<()> {
    let (config, started) = (bootstrap.config.clone(), bootstrap.started);
    let (failures, mut failed) = FailureReporter::new();
    let signals = StopSignals::listen()?;
    let running = start(bootstrap, storage, &failures).await?;
    let cause = {
        let mut end = std::pin::pin!(signals.wait(&mut failed));
        tokio::select! {
            cause = &mut end => cause,
            () = announce(&config, &running, started) => end.await,
        }
    };
    match &cause {
        StopCause::Signal(name) => tracing::info!("{name}: stopping"),
        StopCause::Failure(error) => tracing::error!("{}: stopping", crate::exit::sentence_of(error)),
    }
    notify::send(&[NotifyState::Stopping]);
    shutdown::exit_on_second_signal()?;
    let stopped = tokio::time::timeout(SHUTDOWN_LIMIT, running.stop(&mut failed)).await;
    match (cause, stopped) {
        (StopCause::Failure(error), _) => Err(error),
        (_, Err(_)) => {
            Err(anyhow!("the shutdown took longer than {SHUTDOWN_LIMIT:?}; the next start replays the journal"))
        }
        (StopCause::Signal(_), Ok(result)) => result,
    }
}

/// Waits until the journal found at start is processed and sessions are restored, reports readiness, and prints where to look if a person
/// watches.
async fn announce(config: &Config, running: &RunningApp, started: Instant) {
    while !(running.pipeline.status().caught_up && running.broker.is_restored()) {
        tokio::time::sleep(RECOVERY_POLL).await;
    }
    let status = running.pipeline.status();
    tracing::info!(replayed = status.replayed_records, took = ?started.elapsed(), "ready");
    notify::send(&[NotifyState::Ready, NotifyState::Status("ready")]);
    let for_people = config.log.format == LogFormat::Text;
    if for_people && (config.simulator.enabled || std::io::stdout().is_terminal()) {
        fleet_connected(config, &running.fleet).await;
        let (mqtt, http) = (running.addresses.mqtt, running.addresses.http);
        status::print_where_to_look(mqtt, http, !config.http.allows_anonymous(), &config.node.data_dir);
    }
}

/// Waits until the simulator's devices are connected: their log lines would scroll the hint away.
async fn fleet_connected(config: &Config, fleet: &FleetProgress) {
    let devices = if config.simulator.enabled { config.simulator.devices as u64 } else { 0 };
    let connected = async {
        while fleet.snapshot().connected < devices {
            tokio::time::sleep(RECOVERY_POLL).await;
        }
    };
    // Devices that cannot connect are reported in the log.
    let _ = tokio::time::timeout(FLEET_CONNECT_LIMIT, connected).await;
}

impl RunningApp {
    /// Stops the parts from the input to the output: MQTT, whose tasks store sessions and retained messages; the
    /// journal, which is synced; the pipeline, which processes the rest and takes a checkpoint; HTTP; and last the
    /// logs.
    async fn stop(self, failed: &mut mpsc::Receiver<anyhow::Error>) -> anyhow::Result<()> {
        self.broker.announce_host(false);
        self.mqtt.cancel();
        self.mqtt_tasks.close();
        self.mqtt_tasks.wait().await;
        let journal = self.journal.clone();
        let synced = tokio::task::spawn_blocking(move || journal.sync()).await?;
        self.stop.request(&self.pipeline);
        let thread = self.pipeline_thread;
        tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow!("the pipeline panicked"))?;
        self.follower.stop();
        self.http.cancel();
        self.http_tasks.close();
        self.http_tasks.wait().await;
        let logs = [self.journal, self.windows, self.errors];
        tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            self.results_thread.join().map_err(|_| anyhow!("the results thread panicked"))?;
            for log in logs {
                log.close()?;
            }
            Ok(())
        })
        .await??;
        synced.context("cannot sync the journal")?;
        match failed.try_recv() {
            Ok(error) => Err(error),
            Err(_) => {
                tracing::info!("stopped");
                Ok(())
            }
        }
    }
}
