//! The simulated clock.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use weir::clock::Clock;

/// True time at the start of a simulation, Unix milliseconds.
pub const T0_MS: i64 = 1_700_000_000_000;

/// A wall clock that jumps and a monotonic clock that does not.
#[derive(Debug, Default)]
pub struct SimClock {
    /// Time since the start of the simulation.
    passed_ms: AtomicU64,
    /// How far the wall clock is ahead of true time.
    wall_offset_ms: AtomicI64,
    /// Time of the last start of weir: its monotonic clock begins there.
    booted_ms: AtomicU64,
}

impl SimClock {
    pub fn advance(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// True time, Unix milliseconds, as on a device whose clock is right.
    pub fn true_ms(&self) -> i64 {
        T0_MS + self.passed_ms.load(Ordering::Relaxed) as i64
    }

    pub fn wall_offset_ms(&self) -> i64 {
        self.wall_offset_ms.load(Ordering::Relaxed)
    }

    pub fn set_wall_offset_ms(&self, offset_ms: i64) {
        self.wall_offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    /// Starts the monotonic clock of a new process at zero.
    pub fn boot(&self) {
        self.booted_ms.store(self.passed_ms.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.true_ms() + self.wall_offset_ms()
    }

    fn monotonic(&self) -> Duration {
        let passed_ms = self.passed_ms.load(Ordering::Relaxed);
        Duration::from_millis(passed_ms - self.booted_ms.load(Ordering::Relaxed))
    }
}
