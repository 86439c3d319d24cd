//! Builds all parts over the opened storage, binds the listeners, and then starts threads and tasks: a part that cannot
//! be built ends the start before any client is served.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use weir::clock::Clock;
use weir::config::Config;
use weir::http;
use weir::log::{Log, LogError};
use weir::mqtt;
use weir::mqtt::results::ResultPublisher;
use weir::pipeline::handle::Pipeline;
use weir::pipeline::run::{RebirthSender, Runner, Stop};
use weir::pipeline::start::prepare;
use weir::results::feed::EventFeed;
use weir::results::follow::ResultFollower;
use weir::results::log::{ResultLogs, ResultPositions};
use weir::simulator::FleetProgress;
use weir::telemetry::logging::LogFilter;

use super::access::ReloadableAccess;
use super::addresses::BoundAddresses;
use super::clock_watch::ClockWatch;
use super::disk_watch::DiskWatch;
use super::files::ConfiguredFiles;
use super::reload::Reloader;
use super::reloadable::Reloadable;
use super::shutdown::{self, FailureReporter};
use super::status::{AppStatus, StatusResources};
use super::storage::Storage;
use super::{CHECKPOINT_LIMIT, RunningApp, notify, stalls, tls};

/// Input of the start: configuration, telemetry and the time of the start.
pub struct Bootstrap {
    pub config: Arc<Config>,
    /// The configuration file; `None` when weir runs on the defaults.
    pub path: Option<PathBuf>,
    pub filter: LogFilter,
    pub prometheus: PrometheusHandle,
    pub files: ConfiguredFiles,
    pub started: Instant,
}

/// Handles of the three logs.
#[derive(Clone)]
struct OpenLogs {
    journal: Log,
    windows: Log,
    errors: Log,
    /// Positions of the first window and the first error that are not published yet.
    results_from: ResultPositions,
}

impl OpenLogs {
    fn of(storage: &Storage, failures: &FailureReporter) -> Self {
        let [journal, windows, errors] = [&storage.journal, &storage.windows, &storage.errors].map(Log::clone);
        for (name, log) in [("journal", &journal), ("windows", &windows), ("errors", &errors)] {
            let failures = failures.clone();
            log.on_failure(Box::new(move |reason| failures.report(LogError::Failed { log: name, reason }.into())));
        }
        let results_from = ResultPositions { windows: windows.readable(), errors: errors.readable() };
        Self { journal, windows, errors, results_from }
    }
}

/// All parts, with bound listeners, before their threads and tasks start.
struct AssembledApp {
    config: Arc<Config>,
    logs: OpenLogs,
    runner: Runner,
    pipeline: Pipeline,
    follower: ResultFollower,
    disk: Arc<DiskWatch>,
    clock: Arc<ClockWatch>,
    renewal: tls::Renewal,
    mqtt: mqtt::MqttServer,
    http: http::HttpServer,
    reloader: Reloader,
    hangups: Signal,
}

/// Builds all parts in order, binds the listeners, and starts threads and tasks.
///
/// # Errors
/// A file, a listener or a thread that a part needs is not available.
pub async fn start(bootstrap: Bootstrap, storage: Storage, failures: &FailureReporter) -> anyhow::Result<RunningApp> {
    let started = bootstrap.started;
    let built = build(bootstrap, storage, failures).await?;
    let addresses = BoundAddresses {
        pid: std::process::id(),
        mqtt: built.mqtt.local_addr(),
        mqtt_tls: built.mqtt.tls_addr(),
        http: built.http.local_addr(),
        http_tls: built.http.tls_addr(),
    };
    addresses.write(&built.config.node.data_dir)?;
    let secure = |address: Option<SocketAddr>| address.map(tracing::field::display);
    tracing::info!(
        mqtt = %addresses.mqtt,
        mqtt_tls = secure(addresses.mqtt_tls),
        http = %addresses.http,
        http_tls = secure(addresses.http_tls),
        took = ?started.elapsed(),
        "listening"
    );
    launch(built, addresses, failures)
}

async fn build(bootstrap: Bootstrap, storage: Storage, failures: &FailureReporter) -> anyhow::Result<AssembledApp> {
    let hangups = shutdown::hangups()?;
    let Bootstrap { config, path, filter, prometheus, files, started } = bootstrap;
    let logs = OpenLogs::of(&storage, failures);
    let guard = storage.clock.clone();
    let clock: Arc<dyn Clock> = guard.clone();
    let (runner, pipeline) = prepare(storage.into_parts(&config))?;

    let mqtt = bind_mqtt(&config, &files, logs.journal.clone(), clock.clone()).await?;
    let ConfiguredFiles { certificates, http_access, .. } = files;
    let renewal = tls::Renewal { certificates: certificates.clone(), admission: mqtt.admission() };
    let reloadable: Vec<Box<dyn Reloadable>> = vec![
        Box::new(filter),
        Box::new(mqtt.admission()),
        Box::new(renewal.clone()),
        Box::new(http_access.clone()),
        Box::new(ReloadableAccess(mqtt.admission())),
    ];
    let reloader = Reloader::new(path, Config::clone(&config), reloadable, pipeline.clone());
    let disk = DiskWatch::new(&config, [&logs.journal, &logs.windows, &logs.errors]);
    let clock_watch = ClockWatch::new(
        &guard,
        &logs.journal,
        Duration::from_millis(u64::try_from(config.node.clock_tolerance_ms).unwrap_or(0)),
    );
    let parts = StatusResources {
        pipeline: &pipeline,
        logs: [&logs.journal, &logs.windows, &logs.errors],
        broker: &mqtt.broker(),
        disk: &disk,
        clock: &clock_watch,
    };
    let status = AppStatus::new(&config, parts, reloader.outcome(), started);
    let follower = ResultFollower::new(ResultLogs::new(logs.windows.clone(), logs.errors.clone()));
    let state = http::ApiState::new(http::HttpResources {
        config: config.clone(),
        pipeline: pipeline.clone(),
        journal: logs.journal.clone(),
        results: follower.results().clone(),
        feed: EventFeed::new(follower.clone()),
        process: Arc::new(status),
        metrics: prometheus,
        mqtt_admission: Some(mqtt.admission()),
        access: http_access,
        certificates: certificates.all(),
        clock,
    });
    let mut http = http::HttpServer::bind(&config.http, state).await?;
    if let Some((address, endpoint)) = certificates.http.clone() {
        http = http.with_tls(address, endpoint).await?;
    }
    Ok(AssembledApp {
        config,
        logs,
        runner,
        pipeline,
        follower,
        disk,
        clock: clock_watch,
        renewal,
        mqtt,
        http,
        reloader,
        hangups,
    })
}

/// Binds the MQTT listeners.
async fn bind_mqtt(
    config: &Config,
    files: &ConfiguredFiles,
    journal: Log,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<mqtt::MqttServer> {
    let mqtt = mqtt::MqttServer::bind(&config.mqtt, &config.ingest, journal, files.access.clone(), clock).await?;
    mqtt.admission().set_pending_bytes(config.limits.pending_bytes);
    Ok(match files.certificates.mqtt.clone() {
        Some((address, endpoint)) => mqtt.with_tls(address, endpoint).await?,
        None => mqtt,
    })
}

fn launch(built: AssembledApp, addresses: BoundAddresses, failures: &FailureReporter) -> anyhow::Result<RunningApp> {
    let AssembledApp { config, logs, runner, pipeline, follower, disk, clock, .. } = built;
    let stop = Stop::default();
    let runner = runner.with_rebirths({
        let broker = built.mqtt.broker();
        RebirthSender(Box::new(move |request| broker.publish(&request.topic, request.payload.into(), 0, false)))
    });
    let pipeline_thread = failures.spawn("pipeline", {
        let stop = stop.clone();
        move || runner.run(&stop, CHECKPOINT_LIMIT).map_err(anyhow::Error::from)
    })?;
    let results_thread = failures.spawn("results", {
        let follower = follower.clone();
        move || {
            follower.run();
            Ok(())
        }
    })?;
    let publish_results = {
        let (follower, from) = (follower.clone(), logs.results_from);
        let (windows, errors) = (config.windows.publish, config.errors.output.publish);
        let publisher = ResultPublisher::new(built.mqtt.broker(), windows, errors, config.tenants.clone());
        let broker = built.mqtt.broker();
        move || {
            // Before the first client is served, so that none sees what a crash left behind.
            broker.announce_host(true);
            follower.subscribe(from, Box::new(publisher));
        }
    };
    let broker = built.mqtt.broker();
    let (mqtt, mqtt_tasks) = (CancellationToken::new(), TaskTracker::new());
    let (http, http_tasks) = (CancellationToken::new(), TaskTracker::new());
    mqtt_tasks.spawn(super::mqtt::serve(
        built.mqtt,
        logs.journal.clone(),
        config.clone(),
        publish_results,
        failures.clone(),
        mqtt.clone(),
    ));
    http_tasks.spawn(built.http.run(http.clone()));
    http_tasks.spawn(stalls::watch(http.clone()));
    http_tasks.spawn(notify::run(pipeline.clone(), disk.clone(), http.clone()));
    http_tasks.spawn(clock.watch(http.clone()));
    http_tasks.spawn(disk.watch(http.clone()));
    http_tasks.spawn(built.renewal.watch(http.clone()));
    http_tasks.spawn(built.reloader.run(built.hangups, http.clone()));
    let fleet: Arc<FleetProgress> = Arc::default();
    if config.simulator.enabled {
        mqtt_tasks.spawn(super::mqtt::simulate(config.clone(), addresses.mqtt.port(), fleet.clone(), mqtt.clone()));
    }
    let OpenLogs { journal, windows, errors, .. } = logs;
    Ok(RunningApp {
        addresses,
        broker,
        fleet,
        mqtt,
        mqtt_tasks,
        journal,
        windows,
        errors,
        pipeline,
        stop,
        pipeline_thread,
        follower,
        results_thread,
        http,
        http_tasks,
    })
}
