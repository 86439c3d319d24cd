//! Counts of a running fleet, and the progress line that shows them.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts that all devices of a fleet add to.
#[derive(Debug, Default)]
pub struct FleetProgress {
    connected: AtomicU64,
    connections: AtomicU64,
    produced: AtomicU64,
    published: AtomicU64,
    readings: AtomicU64,
    acknowledged: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// [`FleetProgress`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetCounts {
    /// Devices connected now.
    pub connected: u64,
    /// Connections opened.
    pub connections: u64,
    /// Messages produced.
    pub produced: u64,
    /// Publishes handed to a connection, repeated ones included.
    pub published: u64,
    /// Readings in the publishes that were handed to a connection.
    pub readings: u64,
    /// Publishes acknowledged.
    pub acknowledged: u64,
    /// Connections that failed or were lost.
    pub errors: u64,
    /// The latest error of a connection.
    pub last_error: Option<String>,
}

impl FleetProgress {
    /// Counts a connection that the broker accepted.
    pub fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of an accepted connection.
    pub fn disconnected(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a message that a device produced.
    pub fn produced(&self) {
        self.produced.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a publish with `readings` readings that was handed to a connection.
    pub fn published(&self, readings: u64) {
        self.published.fetch_add(1, Ordering::Relaxed);
        self.readings.fetch_add(readings, Ordering::Relaxed);
    }

    /// Counts an acknowledged publish.
    pub fn acknowledged(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that failed or was lost.
    pub fn failed(&self, error: &dyn fmt::Display) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut last) = self.last_error.lock() {
            *last = Some(error.to_string());
        }
    }

    /// The present counts.
    pub fn snapshot(&self) -> FleetCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        FleetCounts {
            connected: get(&self.connected),
            connections: get(&self.connections),
            produced: get(&self.produced),
            published: get(&self.published),
            readings: get(&self.readings),
            acknowledged: get(&self.acknowledged),
            errors: get(&self.errors),
            last_error: self.last_error.lock().ok().and_then(|last| last.clone()),
        }
    }
}

impl FleetCounts {
    /// The progress line. Rates are computed against `before`, which was taken `seconds` earlier.
    pub fn line(&self, before: &FleetCounts, seconds: f64, devices: usize) -> String {
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds.max(f64::MIN_POSITIVE);
        let error = self.last_error.as_ref().map_or_else(String::new, |error| format!(" (last: {error})"));
        format!(
            "{}/{devices} connected, {} published ({:.0}/s, {:.0} readings/s), {} acknowledged, {} connection errors{error}",
            self.connected,
            self.published,
            rate(self.published, before.published),
            rate(self.readings, before.readings),
            self.acknowledged,
            self.errors,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_rates_since_the_line_before() {
        let progress = FleetProgress::default();
        progress.connected();
        progress.published(3);
        let before = progress.snapshot();
        (0..10).for_each(|_| progress.published(3));
        progress.acknowledged();
        progress.failed(&"connection reset");
        assert_eq!(
            progress.snapshot().line(&before, 2.0, 5),
            "1/5 connected, 11 published (5/s, 15 readings/s), 1 acknowledged, 1 connection errors (last: connection reset)"
        );
    }

    #[test]
    fn a_connection_that_ended_is_not_connected() {
        let progress = FleetProgress::default();
        progress.connected();
        progress.disconnected();
        let snapshot = progress.snapshot();
        assert_eq!((snapshot.connected, snapshot.connections), (0, 1));
    }
}
