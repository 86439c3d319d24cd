//! Looks at the wall clock every second: counts its steps, lets the journal follow a clock that was set back, and says what is
//! wrong.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;

use weir::clock::Clock;
use weir::clock_jump::JumpGuard;
use weir::core::record;
use weir::http::process_status::{ClockStatus, HealthCheck};
use weir::log::{Log, Records};
use weir::sync::lock;
use weir::telemetry::names;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Smallest change of the wall clock against the monotonic clock, between two looks, that counts as a step.
const STEP_MS: i64 = 1_000;

/// Judges the wall clock.
pub struct ClockWatch {
    guard: Arc<JumpGuard>,
    journal: Log,
    /// See `node.clock_tolerance`.
    tolerance: Duration,
    steps: Mutex<WallClockSteps>,
}

/// Steps of the wall clock since the start.
#[derive(Debug, Default, Clone, Copy)]
struct WallClockSteps {
    /// Wall clock less monotonic clock at the last look.
    difference_ms: Option<i64>,
    forward: u64,
    back: u64,
}

impl ClockWatch {
    /// Watches the clock of `guard`. A clock that is behind the journal by more than `tolerance` was set back before this start.
    pub fn new(guard: &Arc<JumpGuard>, journal: &Log, tolerance: Duration) -> Arc<Self> {
        let watch = Self { guard: Arc::clone(guard), journal: journal.clone(), tolerance, steps: Mutex::default() };
        counter!(names::CLOCK_STEPS, "direction" => "forward").increment(0);
        let back = watch.journal_ahead() > tolerance;
        counter!(names::CLOCK_STEPS, "direction" => "back").increment(u64::from(back));
        if back {
            lock(&watch.steps).back = 1;
            watch.warn_of_set_back();
        }
        Arc::new(watch)
    }

    fn warn_of_set_back(&self) {
        tracing::warn!(
            by = rough(self.journal_ahead()),
            "the clock was set back: journal time follows it, and windows of the time that was wrong fire as \"wrong_clock\""
        );
    }

    /// How far the newest arrival time of the journal is ahead of the wall clock.
    fn journal_ahead(&self) -> Duration {
        let newest_ms = self.journal.segments().iter().rev().find_map(|segment| segment.last_arrival_ms);
        let ahead_ms = newest_ms.map_or(0, |newest_ms| newest_ms.saturating_sub(self.guard.now_ms()));
        Duration::from_millis(u64::try_from(ahead_ms).unwrap_or(0))
    }

    /// The clock, for the status.
    pub fn status(&self, set_back: Option<(i64, i64)>) -> ClockStatus {
        let steps = *lock(&self.steps);
        ClockStatus {
            synchronized: self.guard.is_synchronized(),
            journal_ahead_seconds: self.journal_ahead().as_secs_f64(),
            hold_seconds: self.guard.jump().map_or(0.0, |jump| jump.hold_left.as_secs_f64()),
            steps_forward: steps.forward,
            steps_back: steps.back,
            set_back_from: set_back.map(|(from_ms, _)| from_ms),
            set_back_to: set_back.map(|(_, to_ms)| to_ms),
        }
    }

    /// Fails for ten minutes after a suspicious jump while weir ran, and while the journal is ahead of the clock by more than
    /// the tolerance. Warns while it is ahead by less.
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
        if self.guard.is_synchronized() == Some(false) {
            message = format!("{message}; the kernel says that the clock is not synchronised (NTP)");
        }
        if ahead > self.tolerance {
            message = format!(
                "the clock is {} behind the newest record of the journal, and the record that sets journal time back is not \
                 written yet: until then readings with right times may be rejected as too old; {message}",
                rough(ahead)
            );
        } else if ahead > LOOK_EVERY {
            message = format!(
                "the clock is {} behind the newest record of the journal: the time of arrivals stands still until the clock has \
                 come there (node.clock_tolerance); {message}",
                rough(ahead)
            );
        }
        let ok = unready == Duration::ZERO && ahead <= self.tolerance;
        HealthCheck { name: "clock", ok, message, warns: ahead > LOOK_EVERY }
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
        self.count_step();
        self.follow();
        let hold = self.guard.jump().map_or(Duration::ZERO, |jump| jump.hold_left);
        gauge!(names::CLOCK_HOLD_SECONDS).set(hold.as_secs_f64());
        gauge!(names::CLOCK_JOURNAL_AHEAD_SECONDS).set(self.journal_ahead().as_secs_f64());
        if let Some(synchronized) = self.guard.is_synchronized() {
            gauge!(names::CLOCK_SYNCHRONIZED).set(f64::from(u8::from(synchronized)));
        }
    }

    /// Compares how far the wall clock and the monotonic clock went since the last look.
    fn count_step(&self) {
        let passed_ms = i64::try_from(self.guard.monotonic().as_millis()).unwrap_or(i64::MAX);
        let difference_ms = self.guard.now_ms().saturating_sub(passed_ms);
        let mut steps = lock(&self.steps);
        let step_ms = steps.difference_ms.map_or(0, |before_ms| difference_ms.saturating_sub(before_ms));
        steps.difference_ms = Some(difference_ms);
        if step_ms.saturating_abs() <= STEP_MS {
            return;
        }
        let (direction, count) = match step_ms > 0 {
            true => ("forward", &mut steps.forward),
            false => ("back", &mut steps.back),
        };
        *count += 1;
        drop(steps);
        counter!(names::CLOCK_STEPS, "direction" => direction).increment(1);
        tracing::info!(direction, by = rough(Duration::from_millis(step_ms.unsigned_abs())), "the clock was set");
        if self.journal_ahead() > self.tolerance {
            self.warn_of_set_back();
        }
    }

    /// Lets journal time follow a clock that was set back, although nothing arrives: the next batch, whatever it holds, says
    /// that the clock was set back.
    fn follow(&self) {
        if self.journal_ahead() > self.tolerance {
            let mut tick = Records::default();
            tick.push_with(record::encode_tick);
            // Without room in the journal the next look tries again, and readiness tells it.
            let _ = self.journal.append(&tick, None);
        }
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
