//! A token bucket: limits a rate and allows one second's worth at once after a pause.
//!
//! The limits of MQTT clients and of audit events use it. What happens beyond the limit (waiting, counting) is for its
//! users to decide.

use std::time::{Duration, Instant};

/// Time that it takes an empty bucket to fill.
const FILL_TIME: Duration = Duration::from_secs(1);

/// A bucket that holds at most one second's worth of tokens.
///
/// The state is the time up to which the tokens are paid for: a full bucket is paid for until a second ago, and a bucket in
/// debt until a time in the future. So the bucket refills without a timer.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    per_second: u64,
    paid_until: Instant,
}

impl TokenBucket {
    /// A full bucket that gains `per_second` tokens per second. `per_second` is not 0.
    pub fn full(per_second: u64, now: Instant) -> Self {
        Self { per_second: per_second.max(1), paid_until: now.checked_sub(FILL_TIME).unwrap_or(now) }
    }

    /// Number of tokens in the bucket.
    pub fn tokens(&self, now: Instant) -> u64 {
        let saved = now.saturating_duration_since(self.paid_until).min(FILL_TIME);
        u64::try_from(saved.as_nanos() * u128::from(self.per_second) / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// Takes `count` tokens. If the bucket has fewer, it goes into debt: it is empty for longer.
    pub fn take(&mut self, count: u64, now: Instant) {
        let oldest = now.checked_sub(FILL_TIME).unwrap_or(now);
        let price = u128::from(count) * 1_000_000_000 / u128::from(self.per_second);
        let price = Duration::from_nanos(u64::try_from(price).unwrap_or(u64::MAX));
        self.paid_until = self.paid_until.max(oldest) + price;
    }

    /// When a bucket without tokens has the next token, and not before `pause` after its debt is paid.
    pub fn refilled(&self, pause: Duration) -> Instant {
        self.paid_until + pause.max(Duration::from_nanos(1_000_000_000_u64.div_ceil(self.per_second)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_holds_a_second_and_refills_at_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(100, start);
        assert_eq!(bucket.tokens(start), 100);
        bucket.take(100, start);
        assert_eq!(bucket.tokens(start), 0);
        assert_eq!(bucket.tokens(start + Duration::from_millis(100)), 10);
        assert_eq!(bucket.tokens(start + Duration::from_secs(100)), 100, "a pause saves one second's worth at most");
    }

    #[test]
    fn a_debt_is_paid_before_the_next_token() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(10, start);
        bucket.take(30, start);
        assert_eq!(bucket.tokens(start + Duration::from_secs(2)), 0);
        assert_eq!(bucket.refilled(Duration::ZERO), start + Duration::from_millis(2_100));
        assert_eq!(bucket.refilled(Duration::from_secs(1)), start + Duration::from_secs(3));
    }
}
