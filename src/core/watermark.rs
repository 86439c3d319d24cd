//! Arithmetic of watermarks. It saturates, so that extreme event times cannot overflow.

/// The watermark and the newest event time before the first reading.
pub(super) const NONE_MS: i64 = i64::MIN;

/// The watermark after readings up to `newest_ms`, as Flink's `BoundedOutOfOrdernessWatermarks`: one millisecond is
/// subtracted because a watermark says that no reading at or before it is expected.
#[inline]
pub(super) fn after(newest_ms: i64, out_of_orderness_ms: i64) -> i64 {
    newest_ms.saturating_sub(out_of_orderness_ms).saturating_sub(1)
}

/// The watermark after `silence_ms` without readings, while windows are open. The clock of the source is assumed to have
/// gone on, but only as far as its newest open window needs.
pub(super) fn after_silence(newest_ms: i64, silence_ms: i64, out_of_orderness_ms: i64, newest_end_ms: i64) -> i64 {
    after(newest_ms.saturating_add(silence_ms), out_of_orderness_ms).min(newest_end_ms.saturating_sub(1))
}

/// The largest watermark at `now_ms`: none is ahead of the arrival, so that one event time in the future makes no reading of
/// the present late.
#[inline]
pub(super) fn cap(now_ms: i64, out_of_orderness_ms: i64) -> i64 {
    after(now_ms, out_of_orderness_ms)
}

/// When a window that ends at `end_ms` may fire under [`cap`].
#[inline]
pub(super) fn uncapped_at(end_ms: i64, out_of_orderness_ms: i64) -> i64 {
    end_ms.saturating_add(out_of_orderness_ms)
}

/// The silence, at least `idle_timeout_ms`, after which the window that ends first fires.
pub(super) fn silence_to_fire(
    idle_timeout_ms: i64,
    newest_ms: i64,
    out_of_orderness_ms: i64,
    first_end_ms: i64,
) -> i64 {
    first_end_ms.saturating_add(out_of_orderness_ms).saturating_sub(newest_ms).max(idle_timeout_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundary_of_a_firing() {
        // For [0, 5000) and a bound of 2000: 6999 does not fire it, 7000 does.
        assert!(after(6999, 2000) < 4999);
        assert_eq!(after(7000, 2000), 4999);
    }

    #[test]
    fn silence_stops_at_the_newest_open_window() {
        assert_eq!(after_silence(1000, 3000, 2000, 5000), 1999);
        assert_eq!(after_silence(1000, 60_000, 2000, 5000), 4999);
    }

    #[test]
    fn silence_to_fire_is_the_first_that_does() {
        let silence = silence_to_fire(0, 1000, 2000, 5000);
        assert_eq!(after_silence(1000, silence, 2000, 10_000), 4999);
        assert_eq!(after_silence(1000, silence - 1, 2000, 10_000), 4998);
        assert_eq!(silence_to_fire(10_000, 1000, 2000, 5000), 10_000);
    }

    #[test]
    fn a_window_may_fire_when_the_cap_reaches_it() {
        let at_ms = uncapped_at(5000, 2000);
        assert_eq!((cap(at_ms - 1, 2000), cap(at_ms, 2000)), (4998, 4999));
    }

    #[test]
    fn extremes_saturate() {
        assert_eq!(after(NONE_MS, i64::MAX), i64::MIN);
        assert_eq!(after_silence(i64::MAX, i64::MAX, 0, i64::MAX), i64::MAX - 1);
        assert_eq!(silence_to_fire(0, NONE_MS, i64::MAX, i64::MAX), i64::MAX);
    }
}
