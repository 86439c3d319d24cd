//! Durations and their quantiles.

use std::fmt;
use std::time::Duration;

/// Sorted durations.
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorts durations, of which there is at least one.
    pub fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort_unstable();
        Self(times)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn min(&self) -> Duration {
        self.0[0]
    }

    pub fn max(&self) -> Duration {
        self.0[self.0.len() - 1]
    }

    /// The quantile of a share from 0 to 1.
    pub fn quantile(&self, share: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * share) as usize]
    }

    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99, max) = (ms(self.median()), ms(self.quantile(0.99)), ms(self.max()));
        write!(formatter, "p50 {median}, p99 {p99}, max {max}")
    }
}

/// Prints a time in milliseconds.
pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    let decimals = if ms < 10.0 { 2 } else { usize::from(ms < 100.0) };
    format!("{ms:.decimals$} ms")
}

/// Prints a rate per second.
pub fn per_second(count: u64, time: Duration) -> String {
    format!("{:.0}/s", count as f64 / time.as_secs_f64())
}
