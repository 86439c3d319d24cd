//! Decides when to ask the file system for its free space, and whether that is below the reserve. Times are those of
//! [`crate::clock::Clock::monotonic`].

use std::time::Duration;

/// Written bytes after which free space is checked again.
const CHECK_EVERY_BYTES: u64 = 16 * 1024 * 1024;
/// Time after which the next write has free space checked again.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// When free space was checked, and what was written since.
#[derive(Debug)]
pub(super) struct SpaceCheck {
    min_free_bytes: u64,
    /// Bytes written since the last check.
    written_bytes: u64,
    /// Time of the last check.
    last: Option<Duration>,
}

impl SpaceCheck {
    pub(super) fn new(min_free_bytes: u64) -> SpaceCheck {
        SpaceCheck { min_free_bytes, written_bytes: 0, last: None }
    }

    /// Whether a reserve is configured.
    pub(super) fn is_on(&self) -> bool {
        self.min_free_bytes > 0
    }

    /// Time of the last check.
    pub(super) fn last(&self) -> Option<Duration> {
        self.last
    }

    /// Counts a write at `now`; returns whether free space must be checked.
    pub(super) fn count_write(&mut self, written_bytes: u64, now: Duration) -> bool {
        self.written_bytes += written_bytes;
        let is_old = self.last.is_none_or(|last| now.saturating_sub(last) >= CHECK_EVERY);
        self.is_on() && (is_old || self.written_bytes >= CHECK_EVERY_BYTES)
    }

    /// Records a check at `now`; returns whether the available bytes are below the reserve.
    pub(super) fn check(&mut self, available_bytes: u64, now: Duration) -> bool {
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
        let mut space = SpaceCheck::new(1000);
        assert!(space.count_write(1, start), "never looked at");
        assert!(space.check(999, start));
        assert!(!space.check(1000, start));
        assert!(!space.count_write(CHECK_EVERY_BYTES - 1, start));
        assert!(space.count_write(1, start));
        assert!(!space.check(5000, start));
        assert!(!space.count_write(1, start + CHECK_EVERY - Duration::from_millis(1)));
        assert!(space.count_write(1, start + CHECK_EVERY));
    }

    #[test]
    fn without_a_reserve_nobody_asks() {
        assert!(!SpaceCheck::new(0).count_write(u64::MAX, Duration::ZERO));
    }
}
