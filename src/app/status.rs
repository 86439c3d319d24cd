//! Health and status of the running process, for the HTTP API; and the hint on where to look, which is printed at
//! start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir::client::reachable;
use weir::clock::{Clock, SystemClock};
use weir::config::Config;
use weir::disk::{Disk, RealDisk};
use weir::http::process_status::{
    ClockStatus, HealthCheck, MqttStatus, PendingDiskCall, ProcessStatus, RecoveryStatus, ReloadStatus,
};
use weir::log::Log;
use weir::mqtt::broker::{Broker, StoreHealth};
use weir::pipeline::handle::Pipeline;

use super::clock_watch::ClockWatch;
use super::disk_watch::DiskWatch;
use super::reload::LastReload;
use super::storage;

/// A checkpoint is overdue after this many checkpoint intervals, but not before [`OVERDUE_AT_LEAST`].
const OVERDUE_INTERVALS: u32 = 6;
const OVERDUE_AT_LEAST: Duration = Duration::from_secs(30);

/// Journal records that the pipeline may be behind and still be ready. Group commits in flight alone are far fewer.
const CAUGHT_UP_BACKLOG: u64 = 1_000_000;

/// Age of the oldest change of a session or retained message that is not on disk, above which weir is not ready. Normally
/// it is below two seconds.
const LATE_STORE: Duration = Duration::from_secs(30);

/// Time between two looks at the free disk space.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// Reads health and status from the parts of the process.
pub struct AppStatus {
    pipeline: Pipeline,
    journal: Log,
    outputs: [Log; 2],
    broker: Arc<Broker>,
    reloaded: LastReload,
    data_dir: PathBuf,
    state_directory: PathBuf,
    disk: Arc<DiskWatch>,
    clock: Arc<ClockWatch>,
    overdue: Duration,
    min_free_bytes: u64,
    /// When the free space was looked at.
    looked_at: Mutex<Option<Instant>>,
    /// Whether it was too small then.
    was_low: AtomicBool,
    started: Instant,
    started_ms: i64,
}

/// Parts whose health and status are reported.
pub struct StatusResources<'a> {
    pub pipeline: &'a Pipeline,
    /// The journal, the windows log and the errors log.
    pub logs: [&'a Log; 3],
    pub broker: &'a Arc<Broker>,
    pub disk: &'a Arc<DiskWatch>,
    pub clock: &'a Arc<ClockWatch>,
}

impl AppStatus {
    pub fn new(config: &Config, parts: StatusResources<'_>, reloaded: LastReload, started: Instant) -> Self {
        let StatusResources { pipeline, logs: [journal, windows, errors], broker, disk, clock } = parts;
        let interval = Duration::from_millis(config.state.checkpoint_interval_ms);
        Self {
            pipeline: pipeline.clone(),
            journal: journal.clone(),
            outputs: [windows.clone(), errors.clone()],
            broker: Arc::clone(broker),
            reloaded,
            data_dir: config.node.data_dir.clone(),
            state_directory: storage::state_directory(config),
            min_free_bytes: config.journal.min_free_disk_bytes,
            looked_at: Mutex::default(),
            was_low: AtomicBool::default(),
            disk: Arc::clone(disk),
            clock: Arc::clone(clock),
            overdue: (interval * OVERDUE_INTERVALS).max(OVERDUE_AT_LEAST),
            started,
            started_ms: SystemClock.now_ms(),
        }
    }

    fn log_failure(&self) -> HealthCheck {
        let failure = std::iter::once(&self.journal).chain(&self.outputs).find_map(|log| log.stats().failure);
        check("logs", failure.is_none(), failure.unwrap_or_else(|| "writing".into()))
    }

    fn pipeline_alive(&self) -> HealthCheck {
        let failure = self.pipeline.status().failure;
        check("pipeline", failure.is_none(), failure.unwrap_or_else(|| "running".into()))
    }

    fn replay_agrees(&self) -> HealthCheck {
        let mismatches = self.pipeline.status().replay_mismatches;
        let message = match mismatches {
            0 => "agrees with the stored results".to_owned(),
            count => {
                format!("{count} replayed results differ from the stored ones: see the ERROR lines, and report it")
            }
        };
        check("replay", mismatches == 0, message)
    }

    fn caught_up(&self) -> HealthCheck {
        let status = self.pipeline.status();
        let backlog = self.journal.durable().0.saturating_sub(status.position);
        if !status.caught_up {
            return check("recovery", false, format!("replaying the journal: {backlog} records to go"));
        }
        check("backlog", backlog <= CAUGHT_UP_BACKLOG, format!("{backlog} records"))
    }

    /// Whether less than `journal.min_free_disk` is free. The journal itself looks only when it is written, so without traffic
    /// it does not notice that others fill the disk.
    fn is_disk_low(&self) -> bool {
        // If the file system does not answer, one request waits for it; the others get the last answer.
        if let Ok(mut looked_at) = self.looked_at.try_lock()
            && looked_at.is_none_or(|at| at.elapsed() >= SPACE_INTERVAL)
        {
            let is_low = self.disk_available_bytes().is_some_and(|available| available < self.min_free_bytes);
            self.was_low.store(is_low, Ordering::Relaxed);
            *looked_at = Some(Instant::now());
        }
        self.was_low.load(Ordering::Relaxed)
    }

    fn journal_writable(&self) -> HealthCheck {
        let stats = self.journal.stats();
        let disk_full = stats.disk_full || self.is_disk_low();
        let message = match (&stats.failure, disk_full) {
            (Some(failure), _) => failure.clone(),
            (None, true) => "the disk is nearly full: sockets are not read until there is space \
                             (journal.min_free_disk)"
                .to_owned(),
            (None, false) => "writable".to_owned(),
        };
        check("journal", stats.failure.is_none() && !disk_full, message)
    }

    fn checkpoint_recent(&self) -> HealthCheck {
        let status = self.pipeline.status();
        let since = status.checkpoint_completed_ms.unwrap_or(self.started_ms);
        let age = Duration::from_millis(u64::try_from(SystemClock.now_ms() - since).unwrap_or(0));
        // Without new records there is nothing to checkpoint.
        let done = status.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.replay_from);
        let ok = age <= self.overdue || done == status.position;
        let mut message = format!("the last one completed {} s ago", age.as_secs());
        if let Some(error) = status.checkpoint_error {
            message = format!("{message}; the latest attempt failed: {error}");
        }
        check("checkpoint", ok, message)
    }
}

/// Checks of the stores of sessions and retained messages.
fn stores(broker: &Broker) -> Vec<HealthCheck> {
    if !broker.is_restored() {
        let message = "sessions, wills and retained messages are being read from disk".into();
        return vec![check("restored", false, message)];
    }
    broker.store_health().iter().map(store).collect()
}

fn store(health: &StoreHealth) -> HealthCheck {
    let StoreHealth { directory, what, unstored, unstored_for, .. } = health;
    let age_s = unstored_for.as_secs();
    let (ok, message) = match &health.failure {
        Some((error, lasting)) => (
            false,
            format!(
                "{what} cannot be stored for {} s: {error}; weir tries again by itself. Free space or mend the disk: a \
                 restart before that loses their changes",
                lasting.as_secs()
            ),
        ),
        None if health.is_rewriting => {
            (false, format!("{what} are written anew after a failure; {unstored} are not on disk yet"))
        }
        None if *unstored_for > LATE_STORE => (
            false,
            format!(
                "{what} change faster than the disk takes them: {unstored} are not on disk, the oldest change is {age_s} s \
                 old. A crash loses these changes. Lower the load, or see mqtt.max_queued_bytes_total"
            ),
        ),
        None => (true, format!("{unstored} not on disk yet")),
    };
    check(directory, ok, message)
}

fn check(name: &'static str, ok: bool, message: String) -> HealthCheck {
    HealthCheck { name, ok, message, warns: false }
}

impl ProcessStatus for AppStatus {
    fn liveness(&self) -> Vec<HealthCheck> {
        vec![self.log_failure(), self.pipeline_alive(), self.replay_agrees(), self.disk.liveness()]
    }

    fn readiness(&self) -> Vec<HealthCheck> {
        let mut checks = vec![
            self.caught_up(),
            self.journal_writable(),
            self.pipeline_alive(),
            self.checkpoint_recent(),
            self.disk.readiness(),
            self.clock.readiness(),
        ];
        checks.extend(stores(&self.broker));
        checks
    }

    fn mqtt(&self) -> MqttStatus {
        let stats = self.broker.stats();
        let health = self.broker.store_health();
        let of = |directory: &str| health.iter().find(|store| store.directory == directory);
        let age_seconds = |directory: &str| of(directory).map_or(0, |store| store.unstored_for.as_secs());
        MqttStatus {
            connections: stats.connections,
            sessions: stats.sessions,
            subscriptions: stats.subscriptions,
            retained_messages: stats.retained,
            queued_messages: stats.queued_messages,
            queued_bytes: stats.queued_bytes,
            session_bytes: stats.held_bytes,
            wills: stats.wills,
            unstored_sessions: stats.unstored_sessions,
            unstored_sessions_age_seconds: age_seconds("sessions"),
            unstored_retained_messages: of("retained").map_or(0, |store| store.unstored),
            unstored_retained_age_seconds: age_seconds("retained"),
            restored: self.broker.is_restored(),
        }
    }

    fn clock(&self) -> ClockStatus {
        self.clock.status(self.pipeline.status().set_back)
    }

    fn reload(&self) -> ReloadStatus {
        self.reloaded.get()
    }

    fn recovered(&self) -> Option<RecoveryStatus> {
        let status = self.pipeline.status();
        let seconds = status.caught_up_at?.saturating_duration_since(self.started).as_secs_f64();
        Some(RecoveryStatus { seconds, records: status.replayed_records })
    }

    fn pending_disk_calls(&self) -> BTreeMap<&'static str, Option<PendingDiskCall>> {
        self.disk.pending()
    }

    fn disk_available_bytes(&self) -> Option<u64> {
        RealDisk.available_bytes(&self.data_dir).ok()
    }

    fn state_disk_bytes(&self) -> Option<u64> {
        let entries = RealDisk.list(&self.state_directory).ok()?;
        Some(entries.iter().map(|entry| entry.len).sum())
    }
}

/// Prints commands that show a new user the running weir. `tokens`: the HTTP API asks for a token.
pub fn print_where_to_look(mqtt: SocketAddr, http: SocketAddr, tokens: bool, data_dir: &Path) {
    let http = reachable(http);
    // The token stands in a variable: the lines can be copied as they are, and no shell history keeps the token.
    let with = if tokens { "-H \"Authorization: Bearer $WEIR_TOKEN\" " } else { "" };
    println!(
        "\n  publish   mosquitto_pub -p {mqtt_port} -t devices/pump-7/telemetry -q 1 \\\n              \
         -m '{{\"metric\":\"temperature\",\"value\":21.5}}'\n  \
         windows   curl -s {with}'http://{http}/api/v1/windows?order=desc&limit=3'\n  \
         errors    curl -s {with}'http://{http}/api/v1/errors?order=desc&limit=3'\n  \
         status    curl -s {with}http://{http}/api/v1/status\n  \
         live      curl -sN {with}http://{http}/api/v1/stream\n  \
         metrics   curl -s {with}http://{http}/metrics\n  \
         data      {data}\n",
        mqtt_port = mqtt.port(),
        data = data_dir.display(),
    );
}
