//! Rules of earlier settings that still hold for some windows of a device.
//!
//! A change of `window.size` takes effect at a border in event time that both sizes have, behind every window of the device.
//! Event times before it keep the size that held there, so that windows never overlap and none is closed early. A narrower
//! `window.allowed_lateness` holds for windows behind those that the device has.

use crate::core::codec::{DecodeError, FieldReader, put_i64, put_u64};
use crate::core::watermark::NONE_MS;
use crate::core::window::is_late;

/// Largest number of sizes that one device has at a time.
pub(super) const MAX_SIZES: usize = 8;

/// A window size and the event time from which on it holds. The first of a device holds for earlier times, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SizeFrom {
    /// First event time, a border of this size and of the size before.
    pub from_ms: i64,
    /// Window size.
    pub size_ms: i64,
}

/// A lateness of former settings, wider than the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptLateness {
    /// Windows that end at or before this time keep the lateness.
    pub until_ms: i64,
    /// The allowed lateness.
    pub lateness_ms: i64,
}

/// Rules of earlier settings that still hold for some windows of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct CarriedRules {
    /// Sizes in order of time; empty: the size of the settings holds for all times. The last is the size of the settings.
    sizes: Vec<SizeFrom>,
    lateness: Option<KeptLateness>,
}

impl CarriedRules {
    /// Whether nothing differs from the settings.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty() && self.lateness.is_none()
    }

    /// The size of the window that holds `time_ms`, where `settings_ms` is that of the settings.
    pub fn size_at(&self, time_ms: i64, settings_ms: i64) -> i64 {
        let held = self.sizes.iter().rev().find(|size| size.from_ms <= time_ms).or(self.sizes.first());
        held.map_or(settings_ms, |size| size.size_ms)
    }

    /// The allowed lateness of a window that ends at `end_ms`, where `settings_ms` is that of the settings.
    pub fn lateness_of(&self, end_ms: i64, settings_ms: i64) -> i64 {
        let kept = self.lateness.filter(|kept| end_ms <= kept.until_ms);
        kept.map_or(settings_ms, |kept| kept.lateness_ms.max(settings_ms))
    }

    /// Changes the size from `before_ms`, the one of the settings so far, to `after_ms`. The new one holds from the first
    /// border of both sizes at or after `occupied_ms`, the end of the newest window, and `watermark_ms`. A size whose
    /// time has not come holds for no window, and is passed over. Returns the border, or `None` if `after_ms` holds already.
    pub fn change_size(&mut self, before_ms: i64, after_ms: i64, occupied_ms: i64, watermark_ms: i64) -> Option<i64> {
        if self.sizes.is_empty() {
            self.sizes.push(SizeFrom { from_ms: NONE_MS, size_ms: before_ms });
        }
        while self.sizes.len() > 1 && self.sizes.last().is_some_and(|last| last.from_ms >= occupied_ms) {
            self.sizes.pop();
        }
        self.open_first();
        let last_ms = self.sizes.last().map_or(before_ms, |last| last.size_ms);
        let mut border_ms = None;
        if last_ms != after_ms {
            let from_ms = common_border(last_ms, after_ms, occupied_ms.max(watermark_ms.saturating_add(1)));
            self.sizes.push(SizeFrom { from_ms, size_ms: after_ms });
            border_ms = Some(from_ms);
        }
        if self.sizes.len() == 1 {
            self.sizes.clear();
        }
        border_ms
    }

    /// The first size holds for all earlier times. After the clock of the box was set back, another size may begin before the time
    /// from which on the first one held.
    fn open_first(&mut self) {
        if let Some(first) = self.sizes.first_mut() {
            first.from_ms = NONE_MS;
        }
    }

    /// Where there are too many sizes, drops the first; returns the end of its time, before which no window may begin.
    pub fn drop_excess(&mut self) -> Option<i64> {
        (self.sizes.len() > MAX_SIZES).then(|| self.drop_first(1)).flatten()
    }

    /// Drops the first `count` sizes, and returns the end of their times.
    fn drop_first(&mut self, count: usize) -> Option<i64> {
        self.sizes.drain(..count);
        let end_ms = self.sizes.first().map(|first| first.from_ms);
        if self.sizes.len() == 1 {
            self.sizes.clear();
        }
        end_ms
    }

    /// Keeps `lateness_ms` for windows that end at or before `until_ms`.
    pub fn keep_lateness(&mut self, until_ms: i64, lateness_ms: i64) {
        let before = self.lateness.unwrap_or(KeptLateness { until_ms, lateness_ms });
        self.lateness = Some(KeptLateness {
            until_ms: before.until_ms.max(until_ms),
            lateness_ms: before.lateness_ms.max(lateness_ms),
        });
    }

    /// Drops sizes of times before `oldest_ms`, the oldest event time that is accepted, and a lateness of windows that are
    /// closed for good at `watermark_ms`. Returns the end of the times whose size was dropped, before which no window may
    /// begin.
    pub fn drop_passed(&mut self, oldest_ms: i64, watermark_ms: i64) -> Option<i64> {
        if self.lateness.is_some_and(|kept| is_late(kept.until_ms, kept.lateness_ms, watermark_ms)) {
            self.lateness = None;
        }
        let passed = self.sizes.iter().skip(1).take_while(|size| size.from_ms <= oldest_ms).count();
        (passed > 0).then(|| self.drop_first(passed)).flatten()
    }

    /// Lowers what a wrong time set behind `latest_ms`, the latest possible time. Where the border of a size is behind it, the
    /// size of the settings, `settings_ms`, holds from the first border at or behind `occupied_ms`.
    pub fn set_back(&mut self, latest_ms: i64, settings_ms: i64, occupied_ms: i64) {
        if let Some(kept) = &mut self.lateness {
            kept.until_ms = kept.until_ms.min(latest_ms);
        }
        let right = 1 + self.sizes.iter().skip(1).take_while(|size| size.from_ms <= latest_ms).count();
        if right < self.sizes.len() {
            self.sizes.truncate(right);
            self.change_size(settings_ms, settings_ms, occupied_ms, NONE_MS);
        }
    }

    /// Lets `held_ms`, the size of a window that still gets readings, hold up to the first border at or behind `occupied_ms`.
    pub fn restore_size(&mut self, held_ms: i64, settings_ms: i64, occupied_ms: i64) {
        self.sizes.clear();
        self.change_size(held_ms, settings_ms, occupied_ms, NONE_MS);
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(self.sizes.len() as u64, out);
        for size in &self.sizes {
            put_i64(size.from_ms, out);
            put_i64(size.size_ms, out);
        }
        out.push(u8::from(self.lateness.is_some()));
        if let Some(kept) = self.lateness {
            put_i64(kept.until_ms, out);
            put_i64(kept.lateness_ms, out);
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut carried = Self::default();
        for _ in 0..reader.count()? {
            carried.sizes.push(SizeFrom { from_ms: reader.i64()?, size_ms: reader.i64()? });
        }
        carried.open_first();
        let ordered = carried.sizes.is_sorted_by(|a, b| a.from_ms < b.from_ms);
        if !ordered || carried.sizes.len() > MAX_SIZES || carried.sizes.iter().any(|size| size.size_ms < 1) {
            return Err(DecodeError::Content("window sizes of a device"));
        }
        carried.lateness = match reader.u8()? {
            0 => None,
            1 => Some(KeptLateness { until_ms: reader.i64()?, lateness_ms: reader.i64()? }),
            _ => return Err(DecodeError::Content("the lateness of a device")),
        };
        Ok(carried)
    }
}

/// The first time at or after `from_ms` at which windows of both sizes begin; the largest time where that is beyond it.
pub fn common_border(a_ms: i64, b_ms: i64, from_ms: i64) -> i64 {
    let (a_ms, b_ms) = (i128::from(a_ms.max(1)), i128::from(b_ms.max(1)));
    let step_ms = a_ms / greatest_common_divisor(a_ms, b_ms) * b_ms;
    let from_ms = i128::from(from_ms);
    let border_ms = from_ms + (-from_ms).rem_euclid(step_ms);
    i64::try_from(border_ms).unwrap_or(i64::MAX)
}

fn greatest_common_divisor(mut a: i128, mut b: i128) -> i128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_that_two_sizes_have() {
        let check = |sizes: (i64, i64), from_ms, expected| {
            assert_eq!(common_border(sizes.0, sizes.1, from_ms), expected, "{sizes:?} from {from_ms}");
            assert_eq!(common_border(sizes.1, sizes.0, from_ms), expected, "{sizes:?} from {from_ms}");
        };
        check((5, 60), 0, 0);
        check((5, 60), 1, 60);
        check((5, 60), 60, 60);
        check((4, 6), 13, 24);
        check((4, 6), -13, -12);
        check((4, 6), -12, -12);
        check((4, 6), -11, 0);
        check((86_399_999, 86_400_000), 1, 86_399_999 * 86_400_000);
        check((i64::MAX, i64::MAX - 1), 1, i64::MAX);
        check((1, 1), i64::MIN, i64::MIN);
        check((0, 7), -1, 0);
    }

    #[test]
    fn a_size_holds_from_its_border() {
        let mut carried = CarriedRules::default();
        assert_eq!(carried.size_at(0, 5), 5);
        assert_eq!(carried.change_size(5, 60, 65, 61), Some(120));
        for (time_ms, size_ms) in [(i64::MIN, 5), (-1, 5), (119, 5), (120, 60), (i64::MAX, 60)] {
            assert_eq!(carried.size_at(time_ms, 60), size_ms, "{time_ms}");
        }
        // A watermark ahead of all windows counts, too.
        assert_eq!(carried.change_size(60, 7, 180, 430), Some(840));
        assert_eq!([carried.size_at(839, 7), carried.size_at(840, 7)], [60, 7]);
    }

    #[test]
    fn a_size_whose_time_has_not_come_is_passed_over() {
        let mut carried = CarriedRules::default();
        assert_eq!(carried.change_size(5, 86_399, 10, 0), Some(5 * 86_399));
        assert_eq!(carried.change_size(86_399, 60, 15, 0), Some(60));
        assert_eq!(carried.change_size(60, 5, 20, 0), None);
        assert!(carried.is_empty());
    }

    #[test]
    fn too_many_sizes_drop_the_oldest() {
        let mut carried = CarriedRules::default();
        let mut occupied_ms = 0;
        for round in 0..MAX_SIZES as i64 - 1 {
            let border_ms = carried.change_size(round + 1, round + 2, occupied_ms, NONE_MS).unwrap();
            assert_eq!(carried.drop_excess(), None);
            occupied_ms = border_ms + 1;
        }
        let last = carried.change_size(8, 9, occupied_ms, NONE_MS);
        assert_eq!(carried.drop_excess(), Some(0));
        assert_eq!(carried.size_at(-100, 9), 2);
        assert_eq!(carried.size_at(last.unwrap(), 9), 9);
    }

    #[test]
    fn a_border_of_a_wrong_time_is_lowered() {
        let mut carried = CarriedRules::default();
        carried.change_size(5, 60, 65, 61);
        carried.keep_lateness(125, 30);
        let before = carried.clone();
        carried.set_back(125, 60, 100);
        assert_eq!(carried, before, "what is possible stays");
        assert_eq!(carried.change_size(60, 7, 100_000, 0), Some(100_380));
        assert_eq!(carried.change_size(7, 9, 200_000, 0), Some(200_025));
        carried.keep_lateness(100_000, 30);
        carried.set_back(300, 9, 201);
        assert_eq!([119, 120, 359, 360].map(|time_ms| carried.size_at(time_ms, 9)), [5, 60, 60, 9]);
        assert_eq!([carried.lateness_of(300, 0), carried.lateness_of(301, 0)], [30, 0]);
        // The sizes between were of the wrong time alone.
        let mut carried = CarriedRules::default();
        carried.change_size(5, 60, 100_000, 0);
        carried.change_size(60, 5, 200_000, 0);
        carried.set_back(300, 5, 201);
        assert!(carried.is_empty());
    }

    /// The first size that is left began in a wrong time, and the next one begins before it.
    #[test]
    fn sizes_stay_in_order_after_a_wrong_time() {
        let mut carried = CarriedRules::default();
        carried.change_size(5, 60, 100_000, 0);
        carried.change_size(60, 7, 200_000, 0);
        assert_eq!(carried.drop_passed(100_020, 0), Some(100_020));
        carried.set_back(300, 7, 201);
        assert_eq!([419, 420].map(|time_ms| carried.size_at(time_ms, 7)), [60, 7]);
        let mut bytes = Vec::new();
        carried.encode(&mut bytes);
        assert_eq!(CarriedRules::decode(&mut FieldReader::new(&bytes)), Ok(carried));
    }

    #[test]
    fn passed_rules_are_dropped() {
        let mut carried = CarriedRules::default();
        carried.change_size(5, 60, 60, 0);
        carried.keep_lateness(60, 30);
        carried.keep_lateness(50, 10);
        assert_eq!([carried.lateness_of(60, 0), carried.lateness_of(61, 0), carried.lateness_of(60, 40)], [30, 0, 40]);
        assert_eq!(carried.drop_passed(59, 88), None);
        assert_eq!((carried.size_at(59, 60), carried.lateness_of(60, 0)), (5, 30));
        assert_eq!(carried.drop_passed(60, 89), Some(60));
        assert!(carried.is_empty());
    }

    #[test]
    fn the_stored_form_reads_back() {
        let mut carried = CarriedRules::default();
        let read = |carried: &CarriedRules, cut: usize| {
            let mut bytes = Vec::new();
            carried.encode(&mut bytes);
            let mut reader = FieldReader::new(&bytes[..bytes.len() - cut]);
            CarriedRules::decode(&mut reader).and_then(|read| reader.end().map(|()| read))
        };
        carried.change_size(5, 60, -61, -200);
        assert_eq!(read(&carried, 0), Ok(carried.clone()));
        assert!(read(&carried, 1).is_err());
        carried.keep_lateness(-60, 30);
        assert_eq!(read(&carried, 0), Ok(carried.clone()));
        assert!(read(&carried, 1).is_err());
    }
}
