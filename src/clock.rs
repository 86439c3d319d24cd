//! The clock, as a trait that tests and simulations replace.

use std::fmt::Debug;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rtime_clock::adjtime::{Timex, adjtimex};

/// State of the kernel's clock that means "not synchronised", see adjtimex(2).
const TIME_ERROR: i32 = 5;

/// A source of time. `core` never uses a clock: its time is the arrival time of journal batches, so that a replay computes the
/// same results.
pub trait Clock: Send + Sync + Debug {
    /// Wall clock, in milliseconds since 1970-01-01T00:00:00Z. It may jump in either direction when somebody sets it.
    fn now_ms(&self) -> i64;
    /// Time since a fixed moment of this process. It never goes back, so intervals and deadlines are measured with it.
    fn monotonic(&self) -> Duration;
    /// Whether the kernel says that the wall clock is synchronised, as by NTP; `None` where it does not tell.
    fn is_synchronized(&self) -> Option<bool> {
        None
    }
    /// Wall clock, for judging how old something stored is before it is deleted; `None` while the wall clock may be wrong: then
    /// nothing is deleted by age. See [`crate::clock_jump`].
    fn age_now_ms(&self) -> Option<i64> {
        Some(self.now_ms())
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn is_synchronized(&self) -> Option<bool> {
        let state = adjtimex(&mut Timex::new()).ok()?;
        Some(state != TIME_ERROR)
    }

    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}
