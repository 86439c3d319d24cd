//! Messages to systemd: readiness, status line and watchdog.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use weir::pipeline::handle::Pipeline;

/// Longest time between two updates of the status line.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Sends states to the service manager. Does nothing when there is no service manager.
pub fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Feeds the watchdog while the pipeline makes progress, and updates the status line, until `cancel`.
pub async fn run(pipeline: Pipeline, cancel: CancellationToken) {
    let watchdog = sd_notify::watchdog_enabled();
    // Half the period, as sd_watchdog_enabled(3) advises.
    let interval = watchdog.map_or(STATUS_INTERVAL, |period| (period / 2).min(STATUS_INTERVAL));
    let mut timer = tokio::time::interval(interval);
    // After a stall of the process the pipeline has a whole interval again.
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_turns = None;
    let mut stalled = false;
    while cancel.run_until_cancelled(timer.tick()).await.is_some() {
        let turns = pipeline.turns();
        let alive = last_turns != Some(turns);
        last_turns = Some(turns);
        if alive {
            send(&[NotifyState::Watchdog, NotifyState::Status(&status_line(&pipeline))]);
        } else if !stalled {
            tracing::warn!(?interval, "the pipeline makes no progress: no watchdog message is sent until it does");
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
