//! Waiting for conditions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for a condition: so long that only a condition that never holds fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Longest wait for a condition that may take the work of a whole bench.
const CLOSE_DEADLINE: Duration = Duration::from_secs(120);

/// Looks every ten milliseconds until `condition` gives a value.
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    look(what, condition, Duration::from_millis(10), DEADLINE)
}

/// Looks every millisecond until `condition` gives a value: for starts, which benches measure.
#[track_caller]
pub fn wait_closely<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    look(what, condition, Duration::from_millis(1), CLOSE_DEADLINE)
}

#[track_caller]
fn look<T>(what: &str, mut condition: impl FnMut() -> Option<T>, pause: Duration, deadline: Duration) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "gave up waiting: {what}");
        std::thread::sleep(pause);
    }
}

/// Unix time in milliseconds.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    since.as_millis() as i64
}

/// The start of a five-second window whose readings are `seconds` old.
pub fn window_before(seconds: i64) -> i64 {
    (now_ms() - seconds * 1_000) / 5_000 * 5_000
}

/// Sets a flag when it is dropped. Threads that run until then end also where the test fails.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
