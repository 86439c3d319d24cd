//! The clock of the MQTT broker, as [`Instant`]s, which tokio's timers take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{Clock, SystemClock};

/// A monotonic clock that the broker's deadlines are measured with. In the simulation it follows the simulated clock.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    clock: Arc<dyn Clock>,
    origin: Instant,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl Timeline {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let now = Instant::now();
        Self { origin: now.checked_sub(clock.monotonic()).unwrap_or(now), clock }
    }

    /// Current time, for deadlines and intervals.
    #[inline]
    pub fn now(&self) -> Instant {
        self.origin + self.clock.monotonic()
    }

    /// Whether the wall clock is right enough to end what is stored because of its age.
    pub fn judges_age(&self) -> bool {
        self.clock.age_now_ms().is_some()
    }

    /// Unix time of an instant, in milliseconds.
    pub fn wall_ms(&self, at: Instant) -> i64 {
        let now = self.now();
        let ahead = at.saturating_duration_since(now).as_millis() as i64;
        let behind = now.saturating_duration_since(at).as_millis() as i64;
        self.clock.now_ms().saturating_add(ahead).saturating_sub(behind)
    }

    /// Instant of a Unix time in milliseconds; the current instant for a time that has passed.
    pub fn at_wall_ms(&self, wall_ms: i64) -> Instant {
        let ahead = wall_ms.saturating_sub(self.clock.now_ms()).max(0);
        self.now() + Duration::from_millis(ahead.unsigned_abs())
    }
}
