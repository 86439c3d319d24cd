//! Waiting for conditions.

use std::time::{Duration, Instant};

/// How long a condition may take: far longer than it does, so that only a condition that never comes fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Looks until `condition` gives a value.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "gave up waiting: {what}");
        std::thread::sleep(Duration::from_millis(10));
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
