//! Tumbling windows of one series, as Flink's `TumblingEventTimeWindows`.

use std::sync::Arc;

use crate::core::added_fields::{UNKNOWN_FIELD, end_fields, put_field, read_fields};
use crate::core::aggregate::Aggregate;
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64, put_words};
use crate::core::fired_runs::FiredRuns;
use crate::core::output::{WindowFlags, WindowResult};
use crate::defects::{self, Defect};

/// Start and end of the window of `size_ms` that holds `time_ms`. Windows are aligned to the epoch, before it as well.
pub(super) fn bounds(time_ms: i64, size_ms: i64) -> (i64, i64) {
    let size_ms = size_ms.max(1);
    let start = time_ms.div_euclid(size_ms).saturating_mul(size_ms);
    (start, start.saturating_add(size_ms))
}

/// Whether a window that ends at `end_ms` is closed for good (Flink's `WindowOperator.isWindowLate`).
#[inline]
pub(super) fn is_late(end_ms: i64, allowed_lateness_ms: i64, watermark_ms: i64) -> bool {
    end_ms.saturating_sub(1).saturating_add(allowed_lateness_ms) <= watermark_ms
}

/// Where the flags of a window begin in the byte that its stored form shares with the scales of the aggregate.
const FLAGS_SHIFT: u32 = 4;

/// Added field of a series: event times of windows that fired.
const TAG_FIRED: u8 = 1;

/// One window of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Window {
    /// First millisecond of the window.
    pub start_ms: i64,
    /// First millisecond after the window. It is stored, because a kept window may be of a former size.
    pub end_ms: i64,
    /// Aggregates of the values in the window.
    pub aggregate: Aggregate,
    /// Sequence number of the newest firing; 0 before the first.
    pub fired_seq: u64,
    /// Number of firings so far: the revision of the next one.
    pub firings: u32,
    /// Whether late readings came in this batch, so that the window fires at the end of the batch.
    pub touched: bool,
    /// What is special about the window.
    pub flags: WindowFlags,
}

impl Window {
    /// Whether the window waits for the watermark.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.firings == 0 && !self.touched
    }

    /// The result of the window as the firing `revision`.
    pub fn result<'a>(
        &self,
        device_id: &'a str,
        metric: &'a str,
        unit: Option<&'a str>,
        revision: u32,
    ) -> WindowResult<'a> {
        WindowResult {
            device_id,
            metric,
            unit,
            window_start_ms: self.start_ms,
            window_end_ms: self.end_ms,
            revision,
            supersedes: (revision > 0).then_some(self.fired_seq),
            count: self.aggregate.count,
            sum: self.aggregate.sum(),
            mean: self.aggregate.mean(),
            min: self.aggregate.min,
            max: self.aggregate.max,
            first: self.aggregate.first,
            last: self.aggregate.last,
            stddev: self.aggregate.stddev(),
            flags: self.flags,
        }
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (count, floats, [first_ms, last_ms], scales) = self.aggregate.to_parts();
        put_i64(self.start_ms, out);
        put_u64(self.end_ms.wrapping_sub(self.start_ms) as u64, out);
        put_u64(u64::from(self.firings), out);
        out.push(scales | self.flags.bits() << FLAGS_SHIFT);
        if self.firings > 0 {
            put_u64(self.fired_seq, out);
        }
        put_u64(count, out);
        put_u64(first_ms.wrapping_sub(self.start_ms) as u64, out);
        put_u64(last_ms.wrapping_sub(self.start_ms) as u64, out);
        put_words(floats.map(f64::to_bits), out);
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let start_ms = reader.i64()?;
        let end_ms = start_ms.wrapping_add(reader.u64()? as i64);
        let firings = reader.u32()?;
        let scales_and_flags = reader.u8()?;
        let flags = WindowFlags::from_bits(scales_and_flags >> FLAGS_SHIFT)?;
        let scales = scales_and_flags & ((1 << FLAGS_SHIFT) - 1);
        let fired_seq = if firings > 0 { reader.u64()? } else { 0 };
        let count = reader.u64()?;
        let first_ms = start_ms.wrapping_add(reader.u64()? as i64);
        let last_ms = start_ms.wrapping_add(reader.u64()? as i64);
        let floats = reader.words()?.map(f64::from_bits);
        if count == 0 || end_ms <= start_ms {
            return Err(DecodeError::Content("an empty window"));
        }
        let aggregate =
            Aggregate::from_parts(count, floats, [first_ms, last_ms], scales).ok_or("the scales of a window")?;
        Ok(Self { start_ms, end_ms, aggregate, fired_seq, firings, touched: false, flags })
    }
}

/// The windows of one metric of one device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// Metric name, shared by all devices that have the metric.
    pub metric: Arc<str>,
    /// Index of the metric's configured range, if it has one.
    pub range: Option<u32>,
    /// Open windows, fired windows that still accept readings, and the newest fired window; in order of start.
    pub windows: Vec<Window>,
    /// Event times of windows that fired; not kept with `window.backlog` off.
    pub fired: FiredRuns,
}

impl Series {
    /// A series without windows.
    pub fn new(metric: Arc<str>, range: Option<u32>) -> Self {
        Self { metric, range, windows: Vec::new(), fired: FiredRuns::default() }
    }

    /// The window that holds `time_ms`. The search begins at the newest, where most readings belong.
    #[inline]
    pub fn window_mut(&mut self, time_ms: i64) -> Option<&mut Window> {
        self.windows.iter_mut().rev().find(|window| window.start_ms <= time_ms).filter(|window| time_ms < window.end_ms)
    }

    /// Adds a window. There must be none with the same start.
    pub fn add_window(&mut self, window: Window) {
        let index = self.windows.partition_point(|other| other.start_ms < window.start_ms);
        // Most series hold few windows for long: these grow by one and not by doubling.
        if self.windows.len() < 8 {
            self.windows.reserve_exact(1);
        }
        self.windows.insert(index, window);
    }

    /// The newest window that fired.
    pub fn last_fired(&self) -> Option<&Window> {
        self.windows.iter().rev().find(|window| window.firings > 0)
    }

    /// Drops fired windows for which `is_expired` holds, but not the newest fired window. Returns how many were dropped.
    pub fn drop_expired(&mut self, is_expired: impl Fn(&Window) -> bool) -> usize {
        self.take_expired(is_expired, |_| {})
    }

    /// As [`Series::drop_expired`]; each window that is dropped is given to `take`.
    pub fn take_expired(&mut self, is_expired: impl Fn(&Window) -> bool, mut take: impl FnMut(Window)) -> usize {
        let before = self.windows.len();
        if before <= 1 {
            return 0;
        }
        let last_fired = self.last_fired().map(|window| (window.start_ms, window.end_ms));
        self.windows.retain(|window| {
            let stays =
                window.firings == 0 || Some((window.start_ms, window.end_ms)) == last_fired || !is_expired(window);
            if !stays {
                take(*window);
            }
            stays
        });
        // A backlog may have needed room for many windows at a time.
        if self.windows.capacity() > 2 * self.windows.len() + 8 {
            self.windows.shrink_to_fit();
        }
        before - self.windows.len()
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(self.metric.as_bytes(), out);
        put_u64(self.windows.len() as u64, out);
        for window in &self.windows {
            window.encode(out);
        }
        if !defects::is(Defect::ForgetFiredRuns) {
            put_field(TAG_FIRED, out, |out| self.fired.encode(out));
        }
        end_fields(out);
    }

    /// Reads the stored form. `has_fields` says whether added fields follow, which group formats 1 to 3 do not have.
    pub fn decode(reader: &mut FieldReader<'_>, has_fields: bool) -> Result<Self, DecodeError> {
        let metric = reader.str()?.into();
        let count = reader.count()?;
        let mut windows = Vec::with_capacity(count.min(16));
        for _ in 0..count {
            windows.push(Window::decode(reader)?);
        }
        if windows.windows(2).any(|pair| matches!(pair, [a, b] if a.start_ms >= b.start_ms)) {
            return Err(DecodeError::Content("windows out of order"));
        }
        let mut fired = FiredRuns::default();
        if has_fields {
            read_fields(reader, |tag, field| {
                match tag {
                    TAG_FIRED => fired = FiredRuns::decode(field)?,
                    _ => return Err(UNKNOWN_FIELD),
                }
                Ok(())
            })?;
        }
        Ok(Self { metric, range: None, windows, fired })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::fired_runs::RunLimits;

    fn window(start_ms: i64, firings: u32) -> Window {
        let aggregate = Aggregate::new(1.0, start_ms);
        let flags = WindowFlags { backlog: firings == 0, wrong_clock: firings > 2 };
        Window { start_ms, end_ms: start_ms + 10, aggregate, fired_seq: 0, firings, touched: false, flags }
    }

    fn series(windows: &[(i64, u32)]) -> Series {
        let mut series = Series::new("m".into(), None);
        for &(start, firings) in windows {
            series.add_window(window(start, firings));
        }
        series
    }

    fn starts(series: &Series) -> Vec<i64> {
        series.windows.iter().map(|window| window.start_ms).collect()
    }

    #[test]
    fn bounds_are_aligned_to_the_epoch() {
        assert_eq!(bounds(0, 5000), (0, 5000));
        assert_eq!(bounds(4999, 5000), (0, 5000));
        assert_eq!(bounds(5000, 5000), (5000, 10_000));
        assert_eq!(bounds(-1, 5000), (-5000, 0));
        assert_eq!(bounds(-5000, 5000), (-5000, 0));
        assert_eq!(bounds(-5001, 5000), (-10_000, -5000));
        assert_eq!(bounds(7, 0), (7, 8));
        assert_eq!(bounds(7, i64::MAX), (0, i64::MAX));
        assert_eq!(bounds(-7, i64::MAX), (-i64::MAX, 0));
    }

    #[test]
    fn lateness_is_inclusive() {
        assert!(is_late(5000, 3000, 7999));
        assert!(!is_late(5000, 3000, 7998));
        assert!(!is_late(i64::MAX, i64::MAX, i64::MAX - 1));
    }

    #[test]
    fn windows_are_found_by_time() {
        let mut series = series(&[(30, 0), (0, 0), (10, 0)]);
        assert_eq!(starts(&series), [0, 10, 30]);
        let mut check = |time, expected: Option<i64>| {
            assert_eq!(series.window_mut(time).map(|window| window.start_ms), expected, "{time}");
        };
        check(-1, None);
        check(0, Some(0));
        check(9, Some(0));
        check(19, Some(10));
        check(20, None);
        check(30, Some(30));
        check(40, None);
    }

    #[test]
    fn the_newest_fired_window_stays() {
        let mut series = series(&[(0, 1), (10, 2), (20, 1), (30, 0)]);
        assert_eq!(series.drop_expired(|_| true), 2);
        assert_eq!(starts(&series), [20, 30]);
        assert_eq!(series.drop_expired(|_| true), 0);
        assert_eq!(series.last_fired().map(|window| window.start_ms), Some(20));
    }

    #[test]
    fn the_stored_form_reads_back() {
        let mut series = series(&[(-20, 3), (10, 0)]);
        series.windows[0].aggregate.add(f64::MAX, -11);
        series.windows[0].aggregate.add(f64::MAX, -15);
        series.fired.add(-20, -10, RunLimits::COUNT);
        series.fired.add(30, 40, RunLimits::COUNT);
        let mut bytes = Vec::new();
        series.encode(&mut bytes);
        assert_eq!(Series::decode(&mut FieldReader::new(&bytes), true), Ok(series));
        for len in 0..bytes.len() {
            assert!(Series::decode(&mut FieldReader::new(&bytes[..len]), true).is_err(), "prefix of {len} bytes");
        }
    }
}
