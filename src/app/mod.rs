//! `weir run`: builds the parts in order, watches over them, and takes them down in order.

mod access;
mod check;
mod health;
mod http_access;
mod notify;
mod reload;
mod resources;
pub mod savepoint;
mod shutdown;
mod source;
mod storage;
mod tls;

use std::future::poll_fn;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use metrics_exporter_prometheus::PrometheusHandle;
use sd_notify::NotifyState;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use weir::access::Policy;
use weir::access::tokens::TokensError;
use weir::clock::{Clock, SystemClock};
use weir::config::{Config, ConfigErrors, LogFormat};
use weir::core::record;
use weir::core::settings::Settings;
use weir::disk::lock::{DirectoryLock, LockError};
use weir::disk::{Disk, RealDisk, replace_file};
use weir::http::live::Live;
use weir::log::{AppendError, Log, LogError, Lsn, Records};
use weir::mqtt::results::Results;
use weir::mqtt::retained_store::RetainedStore;
use weir::mqtt::session_store::SessionStore;
use weir::pipeline::handle::Pipeline;
use weir::pipeline::run::{PipelineError, Stop};
use weir::pipeline::start::{StartError, prepare};
use weir::state::StateError;
use weir::state::recovery::RecoveryError;
use weir::state::savepoint::SavepointError;
use weir::telemetry::logging::Filter;
use weir::tls::TlsError;
use weir::{http, mqtt, simulator, telemetry};

use access::Policies;
pub use check::check;
pub use health::{base_url, health};
use reload::Reloader;
use shutdown::{Cause, Failures};
use source::{AppSource, Parts};
use storage::Storage;

/// Time for the whole of an orderly shutdown; systemd's TimeoutStopSec is longer.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// Part of it that the last checkpoint may take.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(12);

/// How long the stores of retained messages and of sessions may take to open and load.
const RESTORE_LIMIT: Duration = Duration::from_secs(20);

/// Pause between two looks at a recovery that is under way.
const RECOVERY_POLL: Duration = Duration::from_millis(5);

/// Runs the appliance until a signal or a failure.
pub fn run(config: Config, path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let filter = telemetry::logging::init(&config.log.level, config.log.format)?;
    let prometheus = telemetry::recorder::install();
    let _lock = DirectoryLock::acquire(&config.node.data_dir)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = path.map_or_else(|| "defaults".into(), |path| path.display().to_string()),
        data_dir = %config.node.data_dir.display(),
        "weir starts"
    );
    resources::raise_open_files(config.mqtt.max_connections);
    let storage = storage::open(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tokio").build()?;
    let basis = Basis { config: Arc::new(config), path: path.map(Path::to_path_buf), filter, prometheus, started };
    let result = runtime.block_on(serve(basis, storage));
    // Tasks that hang must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result.map(|()| ExitCode::SUCCESS)
}

/// What everything else is built on.
struct Basis {
    config: Arc<Config>,
    /// Where it was read from.
    path: Option<PathBuf>,
    filter: Filter,
    prometheus: PrometheusHandle,
    started: Instant,
}

/// The code of `sysexits.h` for an error that ended the process.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    const FAILURE: u8 = 1;
    const DATA: u8 = 65;
    const CANNOT_CREATE: u8 = 73;
    const IO: u8 = 74;
    const CONFIG: u8 = 78;
    for cause in error.chain() {
        if cause.is::<LockError>() || cause.is::<savepoint::NotEmpty>() {
            return CANNOT_CREATE;
        }
        if cause.is::<TlsError>() || cause.is::<ConfigErrors>() || cause.is::<TokensError>() {
            return CONFIG;
        }
        if let Some(error) = cause.downcast_ref::<LogError>() {
            return if matches!(error, LogError::Damaged(_) | LogError::NewerFormat { .. }) { DATA } else { IO };
        }
        if let Some(error) = cause.downcast_ref::<StateError>() {
            return if error.is_damage() { DATA } else { IO };
        }
        if let Some(error) = cause.downcast_ref::<RecoveryError>() {
            return if error.is_damage() { DATA } else { IO };
        }
        if let Some(error) = cause.downcast_ref::<SavepointError>() {
            return if matches!(error, SavepointError::Io { .. }) { IO } else { DATA };
        }
        if let Some(StartError::Gap { .. } | StartError::Restore { .. }) = cause.downcast_ref::<StartError>() {
            return DATA;
        }
        // The next start can replace the store.
        if let Some(PipelineError::Store(_)) = cause.downcast_ref::<PipelineError>() {
            return IO;
        }
        if cause.is::<std::io::Error>() {
            return IO;
        }
    }
    FAILURE
}

/// Where the listeners are bound.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    mqtt: SocketAddr,
    mqtt_tls: Option<SocketAddr>,
    http: SocketAddr,
    http_tls: Option<SocketAddr>,
}

/// The parts that run, in the order in which they are stopped.
struct Running {
    addresses: Addresses,
    mqtt: CancellationToken,
    mqtt_tasks: TaskTracker,
    journal: Log,
    windows: Log,
    errors: Log,
    pipeline: Pipeline,
    stop: Stop,
    pipeline_thread: JoinHandle<()>,
    results_stop: Arc<AtomicBool>,
    results_thread: JoinHandle<()>,
    live: Arc<Live>,
    live_thread: JoinHandle<()>,
    http: CancellationToken,
    http_tasks: TaskTracker,
}

async fn serve(basis: Basis, storage: Storage) -> anyhow::Result<()> {
    let (config, started) = (basis.config.clone(), basis.started);
    let (failures, mut failed) = Failures::new();
    let running = start(basis, storage, &failures).await?;
    let cause = {
        let mut end = std::pin::pin!(shutdown::wait(&mut failed));
        tokio::select! {
            cause = &mut end => cause?,
            () = announce(&config, &running, started) => end.await?,
        }
    };
    match &cause {
        Cause::Signal(name) => tracing::info!("{name}: stopping"),
        Cause::Failure(error) => tracing::error!("{error:#}: stopping"),
    }
    notify::send(&[NotifyState::Stopping]);
    shutdown::exit_on_second_signal()?;
    let stopped = tokio::time::timeout(SHUTDOWN_LIMIT, running.stop(&mut failed)).await;
    match (cause, stopped) {
        (Cause::Failure(error), _) => Err(error),
        (_, Err(_)) => {
            Err(anyhow!("the shutdown took longer than {SHUTDOWN_LIMIT:?}; the next start replays the journal"))
        }
        (Cause::Signal(_), Ok(result)) => result,
    }
}

async fn start(basis: Basis, storage: Storage, failures: &Failures) -> anyhow::Result<Running> {
    let hangups = shutdown::hangups()?;
    let Basis { config, path, filter, prometheus, started } = basis;
    let config = &config;
    let [journal, windows, errors] = [&storage.journal, &storage.windows, &storage.errors].map(Log::clone);
    for (name, log) in [("journal", &journal), ("windows", &windows), ("errors", &errors)] {
        let failures = failures.clone();
        log.on_failure(Box::new(move |reason| failures.report(LogError::Failed { log: name, reason }.into())));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let results_from = (windows.readable(), errors.readable());
    let (runner, pipeline) = prepare(storage.into_parts(config, clock.clone()))?;

    let certificates = tls::Certificates::load(config, &clock)?;
    let http_access = http_access::load(&config.http, &clock)?;
    let access = access::load(config)?;
    let policy = access.policy();
    let mut server = mqtt::listener::Server::bind(&config.mqtt, &config.ingest, journal.clone(), access).await?;
    if let Some((address, endpoint)) = certificates.mqtt.clone() {
        server = server.with_tls(address, endpoint).await?;
    }
    let broker = server.broker();
    let live = Live::new(windows.clone(), errors.clone());
    let reloadable: Vec<Box<dyn reload::Part>> = vec![
        Box::new(filter),
        Box::new(server.entrance()),
        Box::new(certificates.clone()),
        Box::new(http_access.clone()),
        Box::new(Policies(server.entrance())),
    ];
    let reloader = Reloader::new(path, Config::clone(config), reloadable, pipeline.clone());
    let parts = Parts { pipeline: &pipeline, logs: [&journal, &windows, &errors], broker: &broker };
    let source = AppSource::new(config, parts, reloader.outcome(), started);
    let state = http::State::new(http::Parts {
        config: config.clone(),
        pipeline: Arc::new(pipeline.clone()),
        journal: journal.clone(),
        live: live.clone(),
        source: Arc::new(source),
        metrics: prometheus,
        entrance: Some(server.entrance()),
        access: http_access,
        certificates: certificates.all(),
        clock,
    });
    let mut http_server = http::Server::bind(&config.http, state).await?;
    if let Some((address, endpoint)) = certificates.http.clone() {
        http_server = http_server.with_tls(address, endpoint).await?;
    }
    let addresses = Addresses {
        mqtt: server.local_addr(),
        mqtt_tls: server.tls_addr(),
        http: http_server.local_addr(),
        http_tls: http_server.tls_addr(),
    };
    write_addresses(config, addresses)?;
    let secure = |address: Option<SocketAddr>| address.map(tracing::field::display);
    tracing::info!(
        mqtt = %addresses.mqtt,
        mqtt_tls = secure(addresses.mqtt_tls),
        http = %addresses.http,
        http_tls = secure(addresses.http_tls),
        took = ?started.elapsed(),
        "listening"
    );

    let (stop, results_stop, door_open) =
        (Stop::default(), Arc::new(AtomicBool::new(false)), Arc::<AtomicBool>::default());
    let pipeline_thread = failures.spawn("pipeline", {
        let stop = stop.clone();
        move || runner.run(&stop, CHECKPOINT_LIMIT).map_err(anyhow::Error::from)
    })?;
    let results = Results::new(
        broker,
        config.windows.publish.then(|| (windows.clone(), results_from.0)),
        config.errors.output.publish.then(|| (errors.clone(), results_from.1)),
    );
    let results_thread = failures.spawn("results", {
        let (stop, opened) = (results_stop.clone(), door_open.clone());
        move || {
            // Sessions that are not yet restored would miss them.
            while !opened.load(Ordering::Acquire) && !stop.load(Ordering::Acquire) {
                std::thread::park_timeout(RECOVERY_POLL);
            }
            results.run(&stop);
            Ok(())
        }
    })?;
    let live_thread = failures.spawn("live", {
        let live = live.clone();
        move || {
            live.run();
            Ok(())
        }
    })?;
    let (mqtt, mqtt_tasks) = (CancellationToken::new(), TaskTracker::new());
    let (http, http_tasks) = (CancellationToken::new(), TaskTracker::new());
    mqtt_tasks.spawn(open_door(server, journal.clone(), config.clone(), policy, door_open, mqtt.clone()));
    http_tasks.spawn(http_server.run(http.clone()));
    http_tasks.spawn(notify::run(pipeline.clone(), http.clone()));
    http_tasks.spawn(certificates.watch(http.clone()));
    http_tasks.spawn(reloader.run(hangups, http.clone()));
    if config.simulator.enabled {
        mqtt_tasks.spawn(simulate(config.clone(), addresses.mqtt.port(), mqtt.clone()));
    }
    Ok(Running {
        addresses,
        mqtt,
        mqtt_tasks,
        journal,
        windows,
        errors,
        pipeline,
        stop,
        pipeline_thread,
        results_stop,
        results_thread,
        live,
        live_thread,
        http,
        http_tasks,
    })
}

/// Nothing was heard while weir was down, and the settings may be others: the journal says so before the first publish,
/// then the door opens. On a full disk it stays closed until there is space.
async fn open_door(
    server: mqtt::listener::Server,
    journal: Log,
    config: Arc<Config>,
    policy: Arc<Policy>,
    opened: Arc<AtomicBool>,
    cancel: CancellationToken,
) {
    let journal_end = journal.durable();
    let settings: Settings = config.settings();
    let mut start = Records::default();
    start.push_with(record::encode_resumed);
    start.push_with(|out| record::encode_settings(&settings, out));
    while journal.append(&start, None) == Err(AppendError::Full) {
        if cancel.run_until_cancelled(poll_fn(|context| journal.poll_room(context))).await.is_none() {
            return;
        }
    }
    let broker = server.broker();
    restore(broker.clone(), config, journal_end, policy).await;
    opened.store(true, Ordering::Release);
    server.run(cancel).await;
    store(broker, journal).await;
}

/// Retained messages and sessions, beside everything else that starts: devices may connect before, and are served once
/// this is done.
async fn restore(broker: Arc<mqtt::broker::Broker>, config: Arc<Config>, journal_end: Lsn, policy: Arc<Policy>) {
    let (of_sessions, data_dir) = (broker.clone(), config.node.data_dir.clone());
    let retained = tokio::task::spawn_blocking(move || {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        if let Some(store) = RetainedStore::open(&config.node.data_dir, &disk, &SystemClock, RESTORE_LIMIT) {
            broker.keep_retained(store);
        }
    });
    let sessions = tokio::task::spawn_blocking(move || {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        if let Some(store) = SessionStore::open(&data_dir, &disk, &SystemClock, RESTORE_LIMIT) {
            of_sessions.keep_sessions(store, journal_end, &policy);
        }
    });
    if retained.await.is_err() || sessions.await.is_err() {
        tracing::error!("retained messages or sessions could not be restored; please report this defect");
    }
}

async fn store(broker: Arc<mqtt::broker::Broker>, journal: Log) {
    let storing = move || {
        broker.sync_retained();
        broker.sync_sessions(journal.durable());
    };
    if tokio::task::spawn_blocking(storing).await.is_err() {
        tracing::error!("retained messages or sessions could not be stored; please report this defect");
    }
}

/// For scripts and tests that chose port 0.
fn write_addresses(config: &Config, addresses: Addresses) -> anyhow::Result<()> {
    let path = config.node.data_dir.join("addresses.json");
    let text = json!({
        "pid": std::process::id(),
        "mqtt": addresses.mqtt.to_string(),
        "mqtt_tls": addresses.mqtt_tls.map(|address| address.to_string()),
        "http": addresses.http.to_string(),
        "http_tls": addresses.http_tls.map(|address| address.to_string()),
    })
    .to_string();
    replace_file(&RealDisk, &path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// The built-in fleet goes through the same door as real devices. If it fails, devices are not affected.
async fn simulate(config: Arc<Config>, port: u16, cancel: CancellationToken) {
    let boot = SystemClock.now_ms().to_string();
    let mut options = simulator::Options::from_config(&config, boot);
    options.address.set_port(port);
    tracing::info!(devices = options.devices, "the simulator is on (simulator.enabled)");
    if let Err(error) = simulator::run(options, cancel, Arc::default()).await {
        tracing::warn!(%error, "the simulator stopped");
    }
}

/// Waits until the journal found at start is processed, then says where to look, and keeps waiting.
async fn announce(config: &Config, running: &Running, started: Instant) {
    while !running.pipeline.status().caught_up {
        tokio::time::sleep(RECOVERY_POLL).await;
    }
    let status = running.pipeline.status();
    tracing::info!(replayed = status.replayed_records, took = ?started.elapsed(), "ready");
    notify::send(&[NotifyState::Ready, NotifyState::Status("ready")]);
    let for_people = config.log.format == LogFormat::Text;
    if for_people && (config.simulator.enabled || std::io::stdout().is_terminal()) {
        let (mqtt, http) = (running.addresses.mqtt, running.addresses.http);
        source::print_where_to_look(mqtt, http, !config.http.allows_anonymous(), &config.node.data_dir);
    }
}

impl Running {
    /// Stops accepting → closes sessions → syncs the journal → drains the pipeline → takes a checkpoint → stops HTTP.
    async fn stop(self, failed: &mut mpsc::Receiver<anyhow::Error>) -> anyhow::Result<()> {
        self.mqtt.cancel();
        self.mqtt_tasks.close();
        self.mqtt_tasks.wait().await;
        let journal = self.journal.clone();
        let synced = tokio::task::spawn_blocking(move || journal.sync()).await?;
        self.stop.request(&self.pipeline);
        let thread = self.pipeline_thread;
        tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow!("the pipeline panicked"))?;
        self.results_stop.store(true, Ordering::Release);
        self.results_thread.thread().unpark();
        self.live.stop();
        self.http.cancel();
        self.http_tasks.close();
        self.http_tasks.wait().await;
        let logs = [self.journal, self.windows, self.errors];
        let threads = [self.results_thread, self.live_thread];
        tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            for thread in threads {
                thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            }
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
