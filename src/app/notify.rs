//! What systemd is told: readiness, status, and that the pipeline is alive.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use weir::pipeline::handle::Pipeline;

/// How often the status line changes.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Sends states to the service manager; without one this does nothing.
pub fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Feeds the watchdog while the pipeline's loop turns, and keeps the status line current.
pub async fn run(pipeline: Pipeline, cancel: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    // Twice within the period, as sd_watchdog_enabled(3) advises.
    let interval = watchdog.map_or(STATUS_INTERVAL, |period| (period / 2).min(STATUS_INTERVAL));
    let mut timer = tokio::time::interval(interval);
    let mut last_turns = None;
    let mut stalled = false;
    while cancel.run_until_cancelled(timer.tick()).await.is_some() {
        let turns = pipeline.turns();
        let alive = last_turns != Some(turns);
        last_turns = Some(turns);
        if alive {
            send(&[NotifyState::Watchdog, NotifyState::Status(&status_line(&pipeline))]);
        } else if !stalled {
            tracing::warn!(?interval, "the pipeline has not turned since the last watchdog message; sending none");
        }
        stalled = !alive;
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
