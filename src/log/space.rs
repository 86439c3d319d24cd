//! When to ask the file system for its free space. Times are those of [`crate::clock::Clock::monotonic`].

use std::time::Duration;

const CHECK_EVERY_BYTES: u64 = 16 * 1024 * 1024;
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Decides when free space is looked at again: after so many bytes, or so much time with writes.
#[derive(Debug)]
pub(super) struct SpaceCheck {
    min_free_bytes: u64,
    written_bytes: u64,
    last: Option<Duration>,
}

impl SpaceCheck {
    pub(super) fn new(min_free_bytes: u64) -> SpaceCheck {
        SpaceCheck { min_free_bytes, written_bytes: 0, last: None }
    }

    /// Whether a reserve is configured at all.
    pub(super) fn is_on(&self) -> bool {
        self.min_free_bytes > 0
    }

    /// When the file system was asked last.
    pub(super) fn last(&self) -> Option<Duration> {
        self.last
    }

    /// Counts a write at `now`; whether free space is to be looked at.
    pub(super) fn is_due(&mut self, written_bytes: u64, now: Duration) -> bool {
        self.written_bytes += written_bytes;
        let is_old = self.last.is_none_or(|last| now.saturating_sub(last) >= CHECK_EVERY);
        self.is_on() && (is_old || self.written_bytes >= CHECK_EVERY_BYTES)
    }

    /// Takes what the file system said at `now`; whether it is too little.
    pub(super) fn is_low(&mut self, available_bytes: u64, now: Duration) -> bool {
        self.last = Some(now);
        self.written_bytes = 0;
        available_bytes < self.min_free_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_looked_at_after_enough_bytes_or_time() {
        let start = Duration::from_secs(9);
        let mut check = SpaceCheck::new(1000);
        assert!(check.is_due(1, start), "never looked at");
        assert!(check.is_low(999, start));
        assert!(!check.is_low(1000, start));
        assert!(!check.is_due(CHECK_EVERY_BYTES - 1, start));
        assert!(check.is_due(1, start));
        assert!(!check.is_low(5000, start));
        assert!(!check.is_due(1, start + CHECK_EVERY - Duration::from_millis(1)));
        assert!(check.is_due(1, start + CHECK_EVERY));
    }

    #[test]
    fn without_a_reserve_nobody_asks() {
        assert!(!SpaceCheck::new(0).is_due(u64::MAX, Duration::ZERO));
    }
}
