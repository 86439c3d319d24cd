//! Aggregates of the values in a window: count, sum, mean, extremes, first, last, standard deviation.
//!
//! The order of values is that of the journal, so that rounding is the same in a replay.

/// Divisor of sums that have left the range of binary64, see [`Aggregate::sum`].
const SCALE: f64 = 18_446_744_073_709_551_616.0; // 2^64

/// Factor of differences from the mean before they are squared. Squares of tiny or huge differences leave the range of
/// binary64, although their root does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SquareScale {
    /// 2^600.
    Tiny = 0,
    /// 1.
    Plain = 1,
    /// 2^-600.
    Huge = 2,
}

impl SquareScale {
    /// Differences whose squares keep all their digits without a factor.
    const PLAIN: std::ops::RangeInclusive<f64> = 1e-140..=1e150;

    fn of(difference: f64) -> Self {
        if difference > *Self::PLAIN.end() {
            Self::Huge
        } else if difference >= *Self::PLAIN.start() {
            Self::Plain
        } else {
            Self::Tiny
        }
    }

    fn factor(self) -> f64 {
        match self {
            Self::Tiny => f64::from_bits((1023 + 600) << 52),
            Self::Plain => 1.0,
            Self::Huge => f64::from_bits((1023 - 600) << 52),
        }
    }
}

/// Aggregates of the values so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Aggregate {
    pub count: u64,
    /// Neumaier's running sum and its compensation, both divided by [`SCALE`] when `scaled`.
    sum: f64,
    compensation: f64,
    /// Welford's running mean and sum of squared differences; the differences are multiplied as `square_scale` says.
    mean: f64,
    squares: f64,
    pub min: f64,
    pub max: f64,
    pub first: f64,
    pub last: f64,
    first_ms: i64,
    last_ms: i64,
    scaled: bool,
    square_scale: SquareScale,
}

impl Aggregate {
    /// The aggregate of one value.
    #[inline]
    pub fn new(value: f64, time_ms: i64) -> Self {
        Self {
            count: 1,
            sum: value,
            compensation: 0.0,
            mean: value,
            squares: 0.0,
            min: value,
            max: value,
            first: value,
            last: value,
            first_ms: time_ms,
            last_ms: time_ms,
            scaled: false,
            square_scale: SquareScale::Plain,
        }
    }

    /// Adds a value. It must come after all others in the journal.
    #[inline]
    pub fn add(&mut self, value: f64, time_ms: i64) {
        self.count += 1;
        self.add_to_sum(value);
        let delta = value - self.mean;
        self.mean += delta / self.count as f64;
        self.add_square(delta, value - self.mean);
        if value < self.min {
            self.min = value;
        }
        if value > self.max {
            self.max = value;
        }
        if time_ms < self.first_ms {
            self.first = value;
            self.first_ms = time_ms;
        }
        if time_ms >= self.last_ms {
            self.last = value;
            self.last_ms = time_ms;
        }
    }

    #[inline]
    fn add_to_sum(&mut self, value: f64) {
        let value = if self.scaled { value / SCALE } else { value };
        let total = self.sum + value;
        if !total.is_finite() {
            return self.add_scaled(value);
        }
        self.compensation +=
            if self.sum.abs() >= value.abs() { (self.sum - total) + value } else { (value - total) + self.sum };
        self.sum = total;
    }

    /// Continues with a divided sum: a sum may leave the range of binary64 and come back. At that size, a division by a
    /// power of two is exact, and 2^64 values of any size fit.
    #[cold]
    fn add_scaled(&mut self, value: f64) {
        self.sum /= SCALE;
        self.compensation /= SCALE;
        self.scaled = true;
        self.add_to_sum(value);
    }

    /// Adds a squared difference: the product of the differences from the mean before and after a value.
    #[inline]
    fn add_square(&mut self, before: f64, after: f64) {
        let is_plain = SquareScale::PLAIN.contains(&before.abs()) || before == 0.0 || self.squares > 0.0;
        if self.square_scale == SquareScale::Plain && is_plain && before.abs() <= *SquareScale::PLAIN.end() {
            self.squares += before * after;
        } else {
            self.add_scaled_square(before, after);
        }
    }

    /// Continues with the factor of the largest difference so far. What smaller differences lose beside it is too small
    /// to count.
    #[cold]
    fn add_scaled_square(&mut self, before: f64, after: f64) {
        let scale = SquareScale::of(before.abs());
        if scale > self.square_scale || self.squares == 0.0 {
            let change = scale.factor() / self.square_scale.factor();
            self.squares = self.squares * change * change;
            self.square_scale = scale;
        }
        let factor = self.square_scale.factor();
        self.squares += (before * factor) * (after * factor);
    }

    /// The sum, rounded as if once; infinite when it is out of range.
    pub fn sum(&self) -> f64 {
        self.total(1.0)
    }

    /// The mean; finite even where the sum is not.
    pub fn mean(&self) -> f64 {
        self.total(self.count as f64)
    }

    fn total(&self, divisor: f64) -> f64 {
        // Adding a compensation of 0 would turn a sum of -0.0 into 0.0.
        let sum = if self.compensation == 0.0 { self.sum } else { self.sum + self.compensation };
        let total = sum / divisor;
        if self.scaled { total * SCALE } else { total }
    }

    /// Population standard deviation; not finite where differences from the mean overflow.
    pub fn stddev(&self) -> f64 {
        (self.squares / self.count as f64).sqrt() / self.square_scale.factor()
    }

    /// All fields in a fixed order, for the checkpoint.
    pub fn to_parts(self) -> (u64, [f64; 8], [i64; 2], u8) {
        let floats = [self.sum, self.compensation, self.mean, self.squares, self.min, self.max, self.first, self.last];
        (self.count, floats, [self.first_ms, self.last_ms], u8::from(self.scaled) | (self.square_scale as u8) << 1)
    }

    /// Restores the aggregates from [`Aggregate::to_parts`]; `None` for scales that do not exist.
    pub fn from_parts(count: u64, floats: [f64; 8], times: [i64; 2], scales: u8) -> Option<Self> {
        let [sum, compensation, mean, squares, min, max, first, last] = floats;
        let [first_ms, last_ms] = times;
        let scaled = scales & 1 == 1;
        let square_scale = match scales >> 1 {
            0 => SquareScale::Tiny,
            1 => SquareScale::Plain,
            2 => SquareScale::Huge,
            _ => return None,
        };
        let aggregate = Self {
            count,
            sum,
            compensation,
            mean,
            squares,
            min,
            max,
            first,
            last,
            first_ms,
            last_ms,
            scaled,
            square_scale,
        };
        Some(aggregate)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn aggregate(values: &[f64]) -> Aggregate {
        let (&first, rest) = values.split_first().unwrap();
        let mut aggregate = Aggregate::new(first, 0);
        for &value in rest {
            aggregate.add(value, 0);
        }
        aggregate
    }

    #[test]
    fn compensated_sums() {
        assert_eq!(aggregate(&[1.0, 1e100, 1.0, -1e100]).sum(), 2.0);
        assert_eq!(aggregate(&[0.1; 10]).sum(), 1.0);
        assert_eq!(aggregate(&[-0.0]).sum().to_bits(), (-0.0f64).to_bits());
    }

    #[test]
    fn a_sum_may_leave_the_range_and_return() {
        assert_eq!(aggregate(&[f64::MAX, f64::MAX, -f64::MAX, -f64::MAX]).sum(), 0.0);
        assert_eq!(aggregate(&[1e308, 1e308, -1e308]).sum(), 1e308);
        let out = aggregate(&[f64::MAX, f64::MAX]);
        assert_eq!(out.sum(), f64::INFINITY);
        assert_eq!(out.mean(), f64::MAX);
        assert_eq!(aggregate(&[-f64::MAX, -f64::MAX, -f64::MAX]).mean(), -f64::MAX);
    }

    #[test]
    fn squares_may_leave_the_range() {
        let check = |values: &[f64], expected: f64| {
            let stddev = aggregate(values).stddev();
            assert!((stddev - expected).abs() <= 1e-12 * expected, "{values:?}: {stddev:e}");
        };
        check(&[1e200, -1e200], 1e200);
        check(&[-1e-300, 0.0], 5e-301);
        check(&[0.0, 0.0, 1e-300, -1e-300, 0.0, 0.0, 0.0, 0.0], 5e-301);
        check(&[-1e-300, 0.0, 4.0], 1.8856180831641267);
        check(&[4.0, -1e-300, 0.0], 1.8856180831641267);
        check(&[1.0, 1e-300, 3e180], 1.4142135623730951e180);
        check(&[1e-100, 1e-100], 0.0);
        assert!(!aggregate(&[f64::MAX, -f64::MAX, f64::MAX]).stddev().is_finite());
    }

    #[test]
    fn first_and_last_are_by_time_then_by_journal_order() {
        let mut aggregate = Aggregate::new(1.0, 5);
        for (value, time) in [(2.0, 5), (3.0, 4), (4.0, 4), (5.0, 6), (6.0, 6), (7.0, 5)] {
            aggregate.add(value, time);
        }
        assert_eq!((aggregate.first, aggregate.last), (3.0, 6.0));
        assert_eq!((aggregate.min, aggregate.max, aggregate.count), (1.0, 7.0, 7));
    }

    proptest! {
        #[test]
        fn close_to_two_passes(values in prop::collection::vec(-1e6f64..1e6, 1..50)) {
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
            let aggregate = aggregate(&values);
            prop_assert!((aggregate.mean() - mean).abs() <= 1e-9 * 1e6);
            prop_assert!((aggregate.stddev() - variance.sqrt()).abs() <= 1e-9 * 1e6);
        }

        #[test]
        fn parts_restore_it(values in prop::collection::vec(any::<f64>().prop_filter("finite", |v| v.is_finite()), 1..20)) {
            let aggregate = aggregate(&values);
            let (count, floats, times, scales) = aggregate.to_parts();
            let restored = Aggregate::from_parts(count, floats, times, scales).unwrap();
            prop_assert_eq!(restored.sum().to_bits(), aggregate.sum().to_bits());
            prop_assert_eq!(restored.stddev().to_bits(), aggregate.stddev().to_bits());
            prop_assert_eq!(restored.to_parts().1.map(f64::to_bits), floats.map(f64::to_bits));
        }
    }
}
