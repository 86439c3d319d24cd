//! Looks at the wall clock every second, and reports a clock that jumped or that the journal is ahead of.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;

use weir::clock::Clock;
use weir::clock_jump::{JumpGuard, STEP};
use weir::http::process_status::HealthCheck;
use weir::log::Log;
use weir::telemetry::names;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Judges the wall clock.
pub struct ClockWatch {
    guard: Arc<JumpGuard>,
    journal: Log,
}

impl ClockWatch {
    /// Watches the clock of `guard`.
    pub fn new(guard: &Arc<JumpGuard>, journal: &Log) -> Arc<Self> {
        Arc::new(Self { guard: Arc::clone(guard), journal: journal.clone() })
    }

    /// How far the newest arrival time of the journal is ahead of the wall clock.
    fn journal_ahead(&self) -> Duration {
        let newest_ms = self.journal.segments().iter().rev().find_map(|segment| segment.last_arrival_ms);
        let ahead_ms = newest_ms.map_or(0, |newest_ms| newest_ms.saturating_sub(self.guard.now_ms()));
        Duration::from_millis(u64::try_from(ahead_ms).unwrap_or(0))
    }

    /// Fails for ten minutes after a suspicious jump while weir ran, and while the journal is ahead of the clock by more than an hour.
    pub fn readiness(&self) -> HealthCheck {
        let (jump, ahead) = (self.guard.jump(), self.journal_ahead());
        let mut message = match jump {
            None => "no jump".to_owned(),
            Some(jump) => format!(
                "the clock jumped forward by {}; nothing is deleted by age for another {} (node.clock_jump_hold)",
                rough(jump.step),
                rough(jump.hold_left)
            ),
        };
        let unready = jump.map_or(Duration::ZERO, |jump| jump.unready_left);
        if unready > Duration::ZERO {
            message = format!("{message}; ready in {} if the clock stays, at once if it is set back", rough(unready));
        }
        if ahead > STEP {
            message = format!(
                "the clock is {} behind the newest record of the journal, so the time of arrivals stands still and \
                 readings with right times may be rejected as too old; {message}",
                rough(ahead)
            );
        }
        HealthCheck { name: "clock", ok: unready == Duration::ZERO && ahead <= STEP, message }
    }

    /// Looks at the clock and sets its metrics until `cancel`; then stores the time for the next start.
    pub async fn watch(self: Arc<Self>, cancel: CancellationToken) {
        counter!(names::CLOCK_JUMPS).increment(0);
        loop {
            // A disk that hangs must not keep this task from a thread that others need.
            let watch = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || watch.look());
            if looked.await.is_err() {
                tracing::error!("looking at the clock panicked; please report this defect");
            }
            if cancel.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
                break;
            }
        }
        let guard = Arc::clone(&self.guard);
        // The process ends. What was stored before is nearly as good.
        let _ = tokio::task::spawn_blocking(move || guard.store_now()).await;
    }

    fn look(&self) {
        self.guard.look();
        let hold = self.guard.jump().map_or(Duration::ZERO, |jump| jump.hold_left);
        gauge!(names::CLOCK_HOLD_SECONDS).set(hold.as_secs_f64());
        gauge!(names::CLOCK_JOURNAL_AHEAD_SECONDS).set(self.journal_ahead().as_secs_f64());
    }
}

/// A time in its largest unit, for people.
fn rough(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 172_800.. => format!("{} days", seconds / 86_400),
        seconds @ 7_200.. => format!("{} hours", seconds / 3_600),
        seconds @ 120.. => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}
