//! Puts a checked reading into its window, or rejects it.

use crate::core::absent;
use crate::core::aggregate::Aggregate;
use crate::core::batch::{BatchContext, ReadingOrigin};
use crate::core::device::Slot;
use crate::core::ingest::{Checked, first_failure};
use crate::core::json::JsonToken;
use crate::core::notes::DeviceNote;
use crate::core::operator::Operator;
use crate::core::output::{Collector, WindowFlags};
use crate::core::problem::ReadingProblem;
use crate::core::validate;
use crate::core::window::{Series, Window, is_late};

/// Where a reading is relative to the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// In a window that is not closed. The watermark moves after its message.
    Live,
    /// In a window behind the watermark, of a backlog. It moves no watermark.
    Behind,
}

impl Operator {
    /// Counts one reading into its window, or rejects it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one reading, borrowed apart from each other")]
    #[inline]
    pub(super) fn reading<'m>(
        &mut self,
        batch: &mut BatchContext<'_>,
        origin: &ReadingOrigin<'_>,
        index: u32,
        checked: &Checked<'m>,
        metric: Result<&'m str, ReadingProblem<'m>>,
        value: &'m JsonToken<'_>,
        out: &mut dyn Collector,
    ) {
        let name = metric.unwrap_or_default();
        let accepted = self.judge(checked, metric, value);
        let placed = accepted.and_then(|(slot, series, value)| {
            self.place(slot, series, name, checked.time_ms, value).map(|placement| (slot, placement))
        });
        match placed {
            Ok((slot, placement)) => {
                if let JsonToken::Measured(_, unit) = value {
                    self.note_unit(slot, name, *unit);
                }
                self.count_accepted(batch, slot, checked, placement);
                if matches!(value, JsonToken::Bool(_)) {
                    self.note_device(slot, DeviceNote::BooleanValue);
                }
            }
            Err(_) if self.is_absent(value) => self.count_absent(origin, index, checked.slot),
            Err(problem) => {
                self.totals.received += 1;
                let metric = Some(name).filter(|name| validate::is_metric(name));
                self.reject(origin, index, checked.slot, (checked.device_id, metric), problem, out);
            }
        }
    }

    #[inline]
    fn count_accepted(
        &mut self,
        batch: &mut BatchContext<'_>,
        slot: Slot,
        checked: &Checked<'_>,
        placement: Placement,
    ) {
        self.totals.received += 1;
        self.totals.in_windows += 1;
        let time_ms = checked.time_ms;
        let device = &mut self.devices[slot];
        device.accepted += 1;
        if !checked.states_time {
            self.totals.arrival_times += 1;
            device.rare.fields_mut().odd.arrival_times += 1;
        }
        if time_ms > device.newest_ms {
            device.newest_ms = time_ms;
            device.clock_offset_ms = time_ms.saturating_sub(batch.arrival_ms);
        }
        self.clocks.newest_ms = self.clocks.newest_ms.max(time_ms);
        self.clocks.global.newest_ms = self.clocks.newest_ms.max(self.clocks.global.newest_ms);
        if placement == Placement::Live && batch.moved.last() != Some(&slot) {
            batch.moved.push(slot);
        }
    }

    /// Whether the device says that there is no value.
    #[cold]
    fn is_absent(&self, value: &JsonToken<'_>) -> bool {
        self.settings.current.has_field_rules() && absent::is_absent_value(value)
    }

    /// Counts a value that the device says is absent. It is no reading, and no error.
    #[cold]
    fn count_absent(&mut self, origin: &ReadingOrigin<'_>, index: u32, slot: Option<Slot>) {
        self.totals.values_absent += 1;
        if let Some(slot) = slot {
            self.devices[slot].rare.fields_mut().odd.values_absent += 1;
        }
        if let Some(replay) = origin.replay {
            self.replays.effects.absent(replay, index);
        }
    }

    /// Makes all checks except the one for lateness. Returns the device, its series and the value. The series is `Ok(index)`
    /// where the device has it, and `Err(index)` where a new one has to be inserted at `index`.
    #[inline]
    fn judge<'m>(
        &self,
        checked: &Checked<'m>,
        metric: Result<&'m str, ReadingProblem<'m>>,
        value: &'m JsonToken<'_>,
    ) -> Result<(Slot, Result<usize, usize>, f64), ReadingProblem<'m>> {
        let (mut series, mut number) = (Err(0), 0.0);
        let own = metric.and_then(|name| {
            number = validate::value(value, &self.settings.current)?;
            if let Some(slot) = checked.slot {
                series = self.devices[slot].find_series(name);
            }
            let range = match series.ok().zip(checked.slot) {
                Some((index, slot)) => self.devices[slot].series.get(index).and_then(|series| series.range),
                None if validate::is_metric(name) => self.settings.rules.range_of(name),
                None => return Err(ReadingProblem::InvalidMetric(name)),
            };
            self.settings.rules.check_range(range, number)
        });
        let is_right = own.is_ok() && checked.problem.is_none() && checked.duplicate.is_none();
        if !is_right && let Some(problem) = first_failure(checked.problem, own.err()).or(checked.duplicate) {
            return Err(problem);
        }
        let slot = checked.slot.ok_or(ReadingProblem::TooManyDevices(checked.no_room))?;
        if series.is_err() && self.devices[slot].series.len() >= self.settings.current.max_metrics_per_device {
            return Err(ReadingProblem::TooManyMetrics(self.settings.current.max_metrics_per_device));
        }
        Ok((slot, series, number))
    }

    /// Adds a value to its window.
    #[inline]
    fn place<'m>(
        &mut self,
        slot: Slot,
        series: Result<usize, usize>,
        metric: &str,
        time_ms: i64,
        value: f64,
    ) -> Result<Placement, ReadingProblem<'m>> {
        // An open window is never late: the watermark before the message would have fired it.
        if let Ok(index) = series
            && let Some(series) = self.devices[slot].series.get_mut(index)
            && let Some(window) = series.window_mut(time_ms)
            && window.is_open()
        {
            window.aggregate.add(value, time_ms);
            return Ok(Placement::Live);
        }
        self.place_elsewhere(slot, series, metric, time_ms, value)
    }

    fn place_elsewhere<'m>(
        &mut self,
        slot: Slot,
        series: Result<usize, usize>,
        metric: &str,
        time_ms: i64,
        value: f64,
    ) -> Result<Placement, ReadingProblem<'m>> {
        let watermark_ms = self.watermark_at(slot);
        let (start_ms, end_ms, is_held) = self.window_at(slot, series.ok(), time_ms);
        let is_closed = !is_held && end_ms.saturating_sub(1) <= self.devices[slot].closed_ms;
        if is_closed || self.is_behind(slot, series.ok(), (start_ms, end_ms), time_ms) {
            return self.place_behind(slot, series, metric, (time_ms, value), (start_ms, end_ms));
        }
        let index = self.series_index(slot, series, metric);
        let device = &mut self.devices[slot];
        let Some(series) = device.series.get_mut(index) else { return Ok(Placement::Live) };
        let touched = match series.window_mut(time_ms) {
            Some(window) => {
                window.aggregate.add(value, time_ms);
                window.touched = true;
                true
            }
            None => {
                let aggregate = Aggregate::new(value, time_ms);
                let touched = end_ms.saturating_sub(1) <= watermark_ms;
                let flags = WindowFlags::default();
                series.add_window(Window { start_ms, end_ms, aggregate, fired_seq: 0, firings: 0, touched, flags });
                self.series.windows += 1;
                touched
            }
        };
        if touched {
            self.touch_device(slot);
            return Ok(Placement::Live);
        }
        device.first_end_ms = device.first_end_ms.min(end_ms);
        self.series.open_windows += 1;
        if !self.per_device() {
            self.clocks.global.open.entry(end_ms).or_default().push(slot);
        }
        Ok(Placement::Live)
    }

    /// Whether a reading has come too late for live data: the window that it belongs to is closed for good, or is held by the
    /// backlog of its device, or fired and is not held.
    fn is_behind(&self, slot: Slot, series: Option<usize>, (start_ms, end_ms): (i64, i64), time_ms: i64) -> bool {
        let (device, settings) = (&self.devices[slot], &self.settings.current);
        if is_late(end_ms, device.lateness_of(end_ms, settings.allowed_lateness_ms), self.watermark_at(slot)) {
            return true;
        }
        if !settings.backlog {
            return false;
        }
        let Some((index, series)) = series.and_then(|index| Some((index, device.series.get(index)?))) else {
            return false;
        };
        let holds = |window: &Window| (window.start_ms..window.end_ms).contains(&time_ms);
        let is_held = device.rare.backlog.as_ref().is_some_and(|backlog| backlog.find(index, time_ms).is_some());
        !series.windows.iter().any(holds) && (is_held || series.fired.overlap(start_ms, end_ms))
    }

    /// Index of the series of a device, which is created if the device does not have it: `Err` says where.
    pub(super) fn series_index(&mut self, slot: Slot, series: Result<usize, usize>, metric: &str) -> usize {
        series.unwrap_or_else(|at| {
            let name = self.series.metric_names.share(metric);
            let series = Series::new(name, self.settings.rules.range_of(metric));
            self.devices[slot].insert_series(at, series);
            self.series.count += 1;
            at
        })
    }

    /// Notes that windows of the device fire at the end of the batch.
    pub(super) fn touch_device(&mut self, slot: Slot) {
        let device = &mut self.devices[slot];
        if !device.touched {
            device.touched = true;
            self.work.touched.push(slot);
        }
    }
}
