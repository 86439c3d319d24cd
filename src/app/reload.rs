//! SIGHUP: weir reads the configuration and every file that it names again. If all of it is valid, it takes effect
//! together; otherwise nothing changes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use metrics::gauge;
use sd_notify::NotifyState;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use weir::clock::{Clock, SystemClock};
use weir::config::{Config, ConfigChange, ReadConfig, environment};
use weir::http::process_status::ReloadStatus;
use weir::mqtt::AdmissionControl;
use weir::pipeline::handle::Pipeline;
use weir::sync::lock;
use weir::telemetry::audit;
use weir::telemetry::logging::LogFilter;
use weir::telemetry::names;

use super::notify;
use super::reloadable::{Apply, Reloadable};
use crate::commands::check;

/// Largest number of faults in the log line of a reload. A users file can have a fault in each of its lines.
const MAX_LOGGED_FAULTS: usize = 50;

/// Result of the last reload, shared with the status page.
#[derive(Debug, Clone, Default)]
pub struct LastReload(Arc<Mutex<ReloadStatus>>);

impl LastReload {
    fn lock(&self) -> MutexGuard<'_, ReloadStatus> {
        lock(&self.0)
    }

    /// A copy of the result.
    pub fn get(&self) -> ReloadStatus {
        self.lock().clone()
    }
}

/// Reloads the configuration of all reloadable parts.
pub struct Reloader {
    /// The configuration file; `None` when weir runs on the defaults and the environment.
    path: Option<PathBuf>,
    /// The configuration in use.
    running: Config,
    parts: Vec<Box<dyn Reloadable>>,
    pipeline: Pipeline,
    outcome: LastReload,
}

impl Reloader {
    /// Makes a reloader of `parts`. All of them run with the configuration `running`, which was read from `path`.
    pub fn new(path: Option<PathBuf>, running: Config, parts: Vec<Box<dyn Reloadable>>, pipeline: Pipeline) -> Self {
        gauge!(names::CONFIG_RELOAD_SUCCESSFUL).set(1.0);
        gauge!(names::CONFIG_RESTART_REQUIRED).set(0.0);
        Self { path, running, parts, pipeline, outcome: LastReload::default() }
    }

    /// A shared view of the result of the last reload.
    pub fn outcome(&self) -> LastReload {
        self.outcome.clone()
    }

    /// Reloads on each of `hangups`, until `cancel`.
    pub async fn run(self, mut hangups: Signal, cancel: CancellationToken) {
        let mut reloader = self;
        while let Some(Some(())) = cancel.run_until_cancelled(hangups.recv()).await {
            let reloaded = tokio::task::spawn_blocking(move || {
                reloader.reload();
                reloader
            });
            match reloaded.await {
                Ok(back) => reloader = back,
                Err(_) => return tracing::error!("a reload panicked; restart weir to reload, and report this defect"),
            }
        }
    }

    /// Name of the configuration's source, for people.
    fn source(&self) -> String {
        self.path.as_ref().map_or_else(|| "environment".into(), |path| path.display().to_string())
    }

    fn reload(&mut self) {
        // systemd wants READY=1 after a reload. During recovery weir is not ready, so it reports no reload either.
        let ready = self.pipeline.status().caught_up;
        if ready && let Ok(now) = NotifyState::monotonic_usec_now() {
            notify::send(&[NotifyState::Reloading, now]);
        }
        match self.try_reload() {
            Ok((taken, left)) => self.taken(&taken, &left),
            Err(faults) => self.refused(&faults),
        }
        if ready {
            notify::send(&[NotifyState::Ready]);
        }
    }

    /// Returns the changes that took effect, and the changes that need a restart.
    fn try_reload(&mut self) -> Result<(Vec<ConfigChange>, Vec<ConfigChange>), Vec<String>> {
        let read = ReadConfig::load(self.path.as_deref(), environment());
        if read.has_faults() {
            return Err(check::faults(&read, self.path.as_deref()));
        }
        let loaded = read.into_result().map_err(|errors| vec![errors.to_string()])?;
        let config = loaded.over(&self.running);
        let (mut prepared, mut faults) = (Vec::new(), Vec::new());
        for part in &self.parts {
            match part.prepare(&config) {
                Ok(apply) => prepared.push(apply),
                Err(wrong) => faults.extend(wrong),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        for apply in prepared {
            apply();
        }
        let taken = loaded.changes(&self.running).into_iter().filter(|change| change.reloadable).collect();
        let left = loaded.changes(&config);
        self.running = config;
        Ok((taken, left))
    }

    fn taken(&self, taken: &[ConfigChange], left: &[ConfigChange]) {
        let changed = listed(taken.iter().map(|change| change.key.to_owned()));
        let mut message = match taken {
            [] => "the configuration was read again; no setting changed".to_owned(),
            _ => format!("the configuration was read again; took effect: {changed}"),
        };
        let mut detail = changed;
        if !left.is_empty() {
            let places = listed(left.iter().map(|change| format!("{} ({})", change.key, change.origin)));
            message = format!("{message}; cannot change at run time, restart weir for: {places}");
            detail = format!("these keys need a restart: {}", listed(left.iter().map(|change| change.key.to_owned())));
        }
        audit::record_reload(!left.is_empty(), &self.source(), &detail, &message);
        gauge!(names::CONFIG_RELOAD_SUCCESSFUL).set(1.0);
        gauge!(names::CONFIG_RESTART_REQUIRED).set(left.len() as f64);
        let now_ms = SystemClock.now_ms();
        gauge!(names::CONFIG_RELOAD_SUCCESS_TIMESTAMP).set(now_ms as f64 / 1_000.0);
        *self.outcome.lock() = ReloadStatus {
            last: Some(now_ms),
            errors: Vec::new(),
            restart_required: left.iter().map(|change| change.key).collect(),
        };
    }

    fn refused(&self, faults: &[String]) {
        let more = match faults.len().saturating_sub(MAX_LOGGED_FAULTS) {
            0 => String::new(),
            more => format!("; and {more} more, see weir check"),
        };
        let told: Vec<&str> = faults.iter().take(MAX_LOGGED_FAULTS).map(String::as_str).collect();
        let message = format!("the reload changed nothing: {}{more}", told.join("; "));
        let detail = format!("nothing changed: {} faults", faults.len());
        audit::record_reload(true, &self.source(), &detail, &message);
        gauge!(names::CONFIG_RELOAD_SUCCESSFUL).set(0.0);
        let mut outcome = self.outcome.lock();
        outcome.last = Some(SystemClock.now_ms());
        outcome.errors = faults.to_vec();
    }
}

fn listed(keys: impl Iterator<Item = String>) -> String {
    keys.collect::<Vec<_>>().join(", ")
}

impl Reloadable for LogFilter {
    fn prepare(&self, config: &Config) -> Result<Apply, Vec<String>> {
        let (filter, level) = (self.clone(), config.log.level.clone());
        Ok(Box::new(move || {
            // The level was checked with the configuration.
            if let Err(error) = filter.set(&level) {
                tracing::error!("log.level: {error}");
            }
        }))
    }
}

impl Reloadable for AdmissionControl {
    fn prepare(&self, config: &Config) -> Result<Apply, Vec<String>> {
        let (admission, rates) = (self.clone(), config.mqtt.rates);
        Ok(Box::new(move || admission.set_rates(rates)))
    }
}
