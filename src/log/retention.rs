//! Decides which segments retention frees. The writer removes them.

use super::segment::Segments;
use super::{Keep, Lsn, Retention};
use crate::core::FIRST_PLAUSIBLE_MS;

/// First record of the oldest segment, if it may be freed now. `now_ms` is the wall clock, `None` where it may be wrong and the
/// age of segments is not judged. The active segment and segments that are not released are
/// never freed.
pub(super) fn next_to_free(
    segments: &Segments,
    released: Lsn,
    retention: &Retention,
    now_ms: Option<i64>,
) -> Option<Lsn> {
    let oldest = segments.list.front()?;
    if segments.list.len() < 2 || oldest.end > released {
        return None;
    }
    let is_too_much = retention.max_bytes.is_some_and(|max_bytes| segments.bytes() > max_bytes);
    let is_unwanted = match retention.keep {
        Keep::Released => true,
        // A segment without an arrival time holds no batch.
        Keep::ForAge(max_age_ms) => {
            let is_old = |arrival_ms| now_ms.is_some_and(|now_ms| arrival_ms < now_ms.saturating_sub(max_age_ms));
            // An arrival time in the future is of a wrong clock, and so is one before 2024 where the clock was set since. The
            // segment is no younger than those that follow.
            let first_ms = |now_ms| if now_ms < FIRST_PLAUSIBLE_MS { i64::MIN } else { FIRST_PLAUSIBLE_MS };
            let is_possible =
                |arrival_ms: &i64| now_ms.is_none_or(|now_ms| (first_ms(now_ms)..=now_ms).contains(arrival_ms));
            let mut arrivals_ms = segments.list.iter().filter_map(|segment| segment.last_arrival_ms);
            oldest.last_arrival_ms.is_none() || arrivals_ms.find(is_possible).is_some_and(is_old)
        }
        Keep::UpToBytes => false,
    };
    (is_unwanted || is_too_much).then_some(oldest.first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segment::Segment;

    const T0: i64 = FIRST_PLAUSIBLE_MS;

    /// Segments [0, 10), [10, 20), ... of about 1,000 bytes whose batches arrived at 0, 100, ... after [`T0`].
    fn segments(count: u64) -> Segments {
        let mut segments = Segments::default();
        for index in 0..count {
            let mut segment = Segment::empty(Lsn(index * 10), 0);
            segment.grow(Lsn(index * 10), Lsn(index * 10 + 10), T0 + index as i64 * 100, 936);
            segments.list.push_back(segment);
        }
        segments
    }

    /// Frees until nothing more may go; returns how many stay.
    fn check(keep: Keep, max_bytes: Option<u64>, released: u64, now_ms: impl Into<Option<i64>>) -> usize {
        let (mut segments, now_ms) = (segments(5), now_ms.into().map(|now_ms| T0 + now_ms));
        let retention = Retention { keep, max_bytes };
        while let Some(first) = next_to_free(&segments, Lsn(released), &retention, now_ms) {
            assert_eq!(segments.list.pop_front().map(|segment| segment.first), Some(first), "oldest first");
        }
        segments.list.len()
    }

    #[test]
    fn released_segments_go_and_the_active_one_stays() {
        assert_eq!(check(Keep::Released, None, 0, 0), 5);
        assert_eq!(check(Keep::Released, None, 19, 0), 4);
        assert_eq!(check(Keep::Released, None, 20, 0), 3);
        assert_eq!(check(Keep::Released, None, 50, 0), 1);
    }

    #[test]
    fn age_keeps_released_segments() {
        assert_eq!(check(Keep::ForAge(1000), None, 50, 1000), 5);
        assert_eq!(check(Keep::ForAge(1000), None, 50, 1101), 3);
        assert_eq!(check(Keep::ForAge(1000), None, 50, None), 5, "the clock may be wrong");
        assert_eq!(check(Keep::ForAge(1000), None, 10, 99_999), 4, "age frees nothing that is not released");
    }

    /// Judges five segments of which the first two arrived at `first_ms`, by a clock that shows `now_ms`.
    fn check_wrong(first_ms: i64, now_ms: i64) -> Option<Lsn> {
        let mut segments = segments(5);
        for segment in segments.list.iter_mut().take(2) {
            segment.last_arrival_ms = Some(first_ms);
        }
        let retention = Retention { keep: Keep::ForAge(1000), max_bytes: None };
        next_to_free(&segments, Lsn(50), &retention, Some(now_ms))
    }

    #[test]
    fn segments_of_a_wrong_time_are_as_old_as_those_that_follow() {
        for first_ms in [T0 + 900_000_000, 0, T0 - 1] {
            assert_eq!(check_wrong(first_ms, T0 + 1_200), None, "the third arrived at 200");
            assert_eq!(check_wrong(first_ms, T0 + 1_201), Some(Lsn(0)));
        }
        assert_eq!(check_wrong(T0 + 900_000_000, T0 - 1), None, "all are in the future");
        assert_eq!(check_wrong(0, 1_000), None, "a clock that was never set");
        assert_eq!(check_wrong(0, 1_001), Some(Lsn(0)), "goes on by itself");
    }

    #[test]
    fn bytes_bound_what_is_kept_and_free_nothing_unreleased() {
        assert_eq!(check(Keep::UpToBytes, None, 50, i64::MAX - T0), 5);
        assert_eq!(check(Keep::UpToBytes, Some(3000), 50, 0), 3);
        assert_eq!(check(Keep::ForAge(1000), Some(2999), 50, 0), 2);
        assert_eq!(check(Keep::ForAge(1000), Some(2999), 50, None), 2, "whatever the clock shows");
        assert_eq!(check(Keep::UpToBytes, Some(0), 30, 0), 2);
    }
}
