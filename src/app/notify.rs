//! Messages to systemd: readiness, status line and watchdog.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use weir::pipeline::handle::Pipeline;
use weir::stall;

use super::disk_watch::DiskWatch;

/// Longest time between two updates of the status line.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Sends states to the service manager. Does nothing when there is no service manager.
pub fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Feeds the watchdog while the pipeline makes progress and the disk answers, and updates the status line, until `cancel`.
pub async fn run(pipeline: Pipeline, disk: Arc<DiskWatch>, cancel: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    // Half the period, as sd_watchdog_enabled(3) advises.
    let interval = watchdog.map_or(STATUS_INTERVAL, |period| (period / 2).min(STATUS_INTERVAL));
    let mut timer = tokio::time::interval(interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_turns = None;
    let mut was_alive = true;
    while cancel.run_until_cancelled(timer.tick()).await.is_some() {
        let turns = pipeline.turns();
        // After a stall of the process the pipeline has a whole interval again.
        let has_just_continued = stall::last_end(Instant::now()).is_some_and(|end| end.elapsed() < interval);
        let progress = last_turns != Some(turns) || has_just_continued;
        last_turns = Some(turns);
        let alive = progress && disk.is_alive();
        if alive {
            send(&[NotifyState::Watchdog, NotifyState::Status(&status_line(&pipeline))]);
        } else if was_alive {
            let reason = if progress { "the disk does not answer" } else { "the pipeline makes no progress" };
            tracing::warn!(?interval, "{reason}: no watchdog message is sent until this changes");
        }
        was_alive = alive;
    }
}

fn status_line(pipeline: &Pipeline) -> String {
    let status = pipeline.status();
    format!(
        "{} readings from {} devices, {} windows, journal position {}",
        status.totals.received,
        status.sizes.devices,
        status.totals.windows_first + status.totals.windows_corrected,
        status.position
    )
}
