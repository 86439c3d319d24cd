//! A rate that all connections of a user share.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time that an empty rate takes to fill: a second's worth may come at once.
const FILL_NS: u64 = 1_000_000_000;

/// A token bucket like [`TokenBucket`](crate::token_bucket::TokenBucket) that connections share without a lock.
#[derive(Debug, Default)]
pub(crate) struct SharedRate {
    /// Tokens per second; 0: no bound.
    per_second: AtomicU32,
    /// Time up to which the tokens are paid for, in nanoseconds on [`clock_ns`].
    paid_until_ns: AtomicU64,
}

/// Nanoseconds since a moment before the first call, at which every bucket is full.
fn clock_ns(now: Instant) -> u64 {
    /// The first `now` may have been read a moment before the first call.
    const BEFORE: Duration = Duration::from_secs(60);
    static START: LazyLock<Instant> = LazyLock::new(|| {
        let now = Instant::now();
        now.checked_sub(BEFORE).unwrap_or(now)
    });
    let since = u64::try_from(now.saturating_duration_since(*START).as_nanos()).unwrap_or(u64::MAX / 2);
    since.saturating_add(FILL_NS)
}

impl SharedRate {
    /// Sets the rate; `None`: no bound.
    pub fn set(&self, per_second: Option<u32>) {
        self.per_second.store(per_second.unwrap_or(0), Ordering::Relaxed);
    }

    /// Tokens per second; `None`: no bound.
    pub fn get(&self) -> Option<u32> {
        Some(self.per_second.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// Number of tokens that may be taken.
    pub fn tokens(&self, now: Instant) -> u64 {
        let Some(rate) = self.get() else { return u64::MAX };
        let saved = clock_ns(now).saturating_sub(self.paid_until_ns.load(Ordering::Relaxed)).min(FILL_NS);
        u64::try_from(u128::from(saved) * u128::from(rate) / u128::from(FILL_NS)).unwrap_or(u64::MAX)
    }

    /// Takes `count` tokens. With fewer left, the bucket is empty for longer.
    pub fn take(&self, count: u64, now: Instant) {
        let Some(rate) = self.get() else { return };
        let price = count.saturating_mul(FILL_NS) / u64::from(rate);
        let oldest = clock_ns(now).saturating_sub(FILL_NS);
        let pay = |paid: u64| Some(paid.max(oldest).saturating_add(price));
        // The update always succeeds, since `pay` always returns a value.
        let _ = self.paid_until_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
    }

    /// When an empty bucket has the next token, and not before `pause` after its debt is paid; `None`: it is not empty.
    pub fn refilled(&self, pause: Duration, now: Instant) -> Option<Instant> {
        let rate = self.get().filter(|_| self.tokens(now) == 0)?;
        let debt = self.paid_until_ns.load(Ordering::Relaxed).saturating_sub(clock_ns(now));
        let next = Duration::from_nanos(FILL_NS.div_ceil(u64::from(rate)));
        Some(now + Duration::from_nanos(debt) + pause.max(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_comes_at_once_and_then_at_the_rate() {
        let (rate, start) = (SharedRate::default(), Instant::now());
        assert_eq!((rate.tokens(start), rate.refilled(Duration::ZERO, start)), (u64::MAX, None));
        rate.set(Some(100));
        assert_eq!(rate.tokens(start), 100);
        rate.take(150, start);
        let pause = Duration::from_millis(100);
        assert_eq!(rate.tokens(start), 0);
        assert_eq!(rate.refilled(pause, start), Some(start + Duration::from_millis(600)));
        assert_eq!(rate.tokens(start + Duration::from_millis(600)), 10);
        assert_eq!(rate.tokens(start + Duration::from_secs(9)), 100);
        rate.set(None);
        assert_eq!(rate.refilled(pause, start), None);
    }
}
