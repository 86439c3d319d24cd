//! The clock of the door on the scale of tokio's timers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{Clock, SystemClock};

/// A monotonic clock and the moment that it counts from.
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

    /// Now, for deadlines and intervals.
    #[inline]
    pub fn now(&self) -> Instant {
        self.origin + self.clock.monotonic()
    }

    /// Wall clock time of a moment, in milliseconds since 1970.
    pub fn wall_ms(&self, at: Instant) -> i64 {
        let now = self.now();
        let ahead = at.saturating_duration_since(now).as_millis() as i64;
        let behind = now.saturating_duration_since(at).as_millis() as i64;
        self.clock.now_ms().saturating_add(ahead).saturating_sub(behind)
    }

    /// The moment of a wall clock time; one that has passed is now.
    pub fn at_wall_ms(&self, wall_ms: i64) -> Instant {
        let ahead = wall_ms.saturating_sub(self.clock.now_ms()).max(0);
        self.now() + Duration::from_millis(ahead.unsigned_abs())
    }
}
