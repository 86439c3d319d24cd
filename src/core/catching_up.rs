//! Devices that were away, and the readings that they stored.
//!
//! A reading behind the watermark is counted where its window has never fired: the device was away then. Its window waits in
//! the [`Backlog`] of the device. It fires once the backlog has been silent for `window.idle_timeout`, or has moved on past
//! it in ascending order, or where there is no more room. Until then, windows of the device that fired are held in the
//! backlog instead of being dropped, so that parts of a history may come in any order.

use crate::core::aggregate::Aggregate;
use crate::core::assign::Placement;
use crate::core::backlog::Backlog;
use crate::core::device::{Device, DueWindow, NEVER_MS, Slot, WindowPlace};
use crate::core::fired_runs::RunLimits;
use crate::core::operator::Operator;
use crate::core::output::{Collector, WindowFlags};
use crate::core::problem::ReadingProblem;
use crate::core::settings::Settings;
use crate::core::watermark::NONE_MS;
use crate::core::window::{Window, bounds};
use crate::defects::{self, Defect};

/// Silence that ends a backlog where `window.idle_timeout` is "off". A backlog always ends.
const SILENCE_WITHOUT_IDLENESS_MS: i64 = 10_000;

/// Windows that a backlog may always hold, however many devices have one.
const SMALLEST_SHARE: usize = 4;

/// Counts of the backlogs of all devices. They are derived from the devices.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct BacklogCounts {
    /// Devices with a backlog.
    pub devices: usize,
    /// Windows held.
    pub windows: usize,
    /// Windows that have not fired.
    pub waiting: usize,
}

impl Operator {
    /// Silence of journal time that ends a backlog.
    pub(super) fn backlog_silence_ms(&self) -> i64 {
        self.settings.current.idle_timeout_ms.unwrap_or(SILENCE_WITHOUT_IDLENESS_MS)
    }

    /// An absence longer than this may leave a backlog behind. Shorter ones are within the allowed lateness.
    fn absence_ms(&self) -> i64 {
        self.backlog_silence_ms().max(self.settings.current.allowed_lateness_ms)
    }

    /// Notes that something arrives from a device, which may have been away until now.
    #[inline]
    pub(super) fn note_return(&mut self, slot: Slot) {
        let now_ms = self.clocks.journal.now_ms;
        if now_ms.saturating_sub(self.devices[slot].last_arrival_ms) > self.absence_ms() {
            self.devices[slot].holds_until_ms = now_ms.saturating_add(self.backlog_silence_ms());
        }
    }

    /// Notes that a message moved the watermark of a device from `before_ms`: further than an absence may be, or while the
    /// device has a backlog. It catches up while its watermark moves faster than journal time.
    #[cold]
    pub(super) fn note_pace(&mut self, slot: Slot, before_ms: i64) {
        let (now_ms, absence_ms) = (self.clocks.journal.now_ms, self.absence_ms());
        let silence_ms = self.backlog_silence_ms();
        let device = &mut self.devices[slot];
        let (lag_before_ms, lag_ms) = (now_ms.saturating_sub(before_ms), now_ms.saturating_sub(device.watermark_ms));
        match device.rare.backlog_mut() {
            Some(backlog) => {
                backlog.lag_ms = backlog.lag_ms.max(lag_before_ms);
                if backlog.lag_ms.saturating_sub(lag_ms) > absence_ms {
                    backlog.lag_ms = lag_ms;
                    backlog.active_ms = now_ms;
                }
            }
            None if lag_before_ms.saturating_sub(lag_ms) > absence_ms => {
                device.holds_until_ms = now_ms.saturating_add(silence_ms);
            }
            None => {}
        }
    }

    /// Notes that the global watermark moved from `before_ms`. After a jump, windows are held for all devices.
    pub(super) fn note_global_pace(&mut self, before_ms: i64) {
        let global = &self.clocks.global;
        if global.watermark_ms.saturating_sub(before_ms) > self.absence_ms() {
            self.clocks.global.holds_until_ms = self.clocks.journal.now_ms.saturating_add(self.backlog_silence_ms());
        }
    }

    /// Whether windows of the device that expire are held, because it may be catching up.
    pub(super) fn holds_windows(&self, device: &Device) -> bool {
        let now_ms = self.clocks.journal.now_ms;
        let until_ms = device.holds_until_ms.max(self.clocks.global.holds_until_ms);
        self.settings.current.backlog && (device.rare.backlog.is_some() || now_ms < until_ms)
    }

    /// Puts a reading behind the watermark into its window, if that is held or has never fired.
    ///
    /// # Errors
    /// The window fired, and is not held: the reading is late.
    pub(super) fn place_behind<'m>(
        &mut self,
        slot: Slot,
        series: Result<usize, usize>,
        metric: &str,
        (time_ms, value): (i64, f64),
        (start_ms, end_ms): (i64, i64),
    ) -> Result<Placement, ReadingProblem<'m>> {
        let (now_ms, bound_ms) = (self.clocks.journal.now_ms, self.settings.current.out_of_orderness_ms);
        let backlog = self.settings.current.backlog;
        let late = ReadingProblem::Late { time_ms, end_ms, watermark_ms: self.watermark_at(slot), backlog };
        if !backlog {
            return Err(late);
        }
        let holds = self.holds_windows(&self.devices[slot]);
        if let Ok(index) = series {
            let device = &mut self.devices[slot];
            let Some(series) = device.series.get_mut(index) else { return Err(late) };
            // A window that fires at the end of this batch anyway takes further readings of the batch.
            if let Some(window) = series.window_mut(time_ms).filter(|window| holds || window.touched) {
                window.aggregate.add(value, time_ms);
                window.touched = true;
                self.note_activity(slot);
                self.touch_device(slot);
                return Ok(Placement::Behind);
            }
            if let Some(backlog) = device.rare.backlog_mut()
                && let Some(key) = backlog.find(index, time_ms)
            {
                backlog.add(key, value, time_ms, now_ms, bound_ms);
                self.touch_device(slot);
                return Ok(Placement::Behind);
            }
            if series.fired.overlap(start_ms, end_ms) {
                return Err(late);
            }
        }
        let index = self.series_index(slot, series, metric);
        let flags = WindowFlags { backlog: true, ..WindowFlags::default() };
        let aggregate = Aggregate::new(value, time_ms);
        let window = Window { start_ms, end_ms, aggregate, fired_seq: 0, firings: 0, touched: false, flags };
        self.backlog_mut(slot).create(index, window, time_ms, now_ms, bound_ms);
        self.backlogs.windows += 1;
        self.backlogs.waiting += 1;
        self.touch_device(slot);
        if self.work.crowded.last() != Some(&slot) {
            self.work.crowded.push(slot);
        }
        Ok(Placement::Behind)
    }

    fn note_activity(&mut self, slot: Slot) {
        let now_ms = self.clocks.journal.now_ms;
        let silence_ms = self.backlog_silence_ms();
        let device = &mut self.devices[slot];
        match device.rare.backlog_mut() {
            Some(backlog) => backlog.active_ms = now_ms,
            None => device.holds_until_ms = device.holds_until_ms.max(now_ms.saturating_add(silence_ms)),
        }
    }

    /// The backlog of a device, which begins if it has none.
    fn backlog_mut(&mut self, slot: Slot) -> &mut Backlog {
        let now_ms = self.clocks.journal.now_ms;
        if self.devices[slot].rare.backlog.is_none() {
            let lag_ms = now_ms.saturating_sub(self.devices[slot].watermark_ms);
            self.devices[slot].rare.fields_mut().backlog = Some(Box::new(Backlog::new(now_ms, lag_ms)));
            self.backlogs.devices += 1;
            self.queue_backlog(slot);
        }
        self.devices[slot].rare.fields_mut().backlog.get_or_insert_with(|| Box::new(Backlog::new(now_ms, 0)))
    }

    /// Holds windows of a series that fired as live data and expired. Where there is no room they are dropped.
    pub(super) fn hold(&mut self, slot: Slot, series: usize, expired: Vec<Window>) {
        for window in expired {
            let bound = self.backlog_bound();
            let backlog = self.backlog_mut(slot);
            let excess = (backlog.len() + 1).saturating_sub(bound);
            if excess > 0 {
                let oldest = backlog.oldest(excess + bound / 8, true);
                if oldest.len() < excess {
                    continue;
                }
                self.remove_held(slot, &oldest);
            }
            self.backlog_mut(slot).hold(series, window);
            self.backlogs.windows += 1;
        }
    }

    /// Number of windows that one backlog may hold: its share of those of all devices, unless these are used up.
    pub(super) fn backlog_bound(&self) -> usize {
        let Settings { max_backlog_windows, max_backlog_windows_per_device, .. } = self.settings.current;
        if self.backlogs.windows > max_backlog_windows {
            return SMALLEST_SHARE;
        }
        let share = max_backlog_windows / self.backlogs.devices.max(1);
        share.min(max_backlog_windows_per_device).max(SMALLEST_SHARE)
    }

    /// Makes room in the backlogs that grew: drops fired windows, else fires those least recently touched. More than one
    /// goes at a time, so that room is not made for each single window.
    pub(super) fn make_room(&mut self, out: &mut dyn Collector) {
        let mut crowded = std::mem::take(&mut self.work.crowded);
        for &slot in &crowded {
            let bound = self.backlog_bound();
            let held = self.devices[slot].rare.backlog.as_ref().map_or(0, |backlog| backlog.len());
            if held <= bound {
                continue;
            }
            let room = bound - bound / 8;
            let oldest = self.backlog_mut(slot).oldest(held - room, true);
            self.remove_held(slot, &oldest);
            let held = held - oldest.len();
            if held > bound {
                let oldest = self.backlog_mut(slot).oldest(held - room, false);
                self.totals.backlog_windows_forced += oldest.len() as u64;
                let due = oldest.iter().filter_map(|&key| self.due_of_backlog(slot, key)).collect();
                self.fire_together(due, out);
                self.remove_held(slot, &oldest);
            }
        }
        crowded.clear();
        self.work.crowded = crowded;
    }

    /// Removes windows from a backlog. The newest fired window of a series is kept for queries.
    fn remove_held(&mut self, slot: Slot, keys: &[(u32, i64)]) {
        for &key in keys {
            let Some(window) = self.devices[slot].rare.backlog_mut().and_then(|backlog| backlog.remove(key)) else {
                continue;
            };
            self.backlogs.windows -= 1;
            self.keep_newest(slot, key.0 as usize, window);
        }
        if let Some(backlog) = self.devices[slot].rare.backlog_mut() {
            backlog.forget_fired();
        }
    }

    /// Keeps a fired window of a backlog as the last one of its series, where it is newer than that.
    fn keep_newest(&mut self, slot: Slot, series: usize, window: Window) {
        let device = &mut self.devices[slot];
        let Some(series) = device.series.get_mut(series) else { return };
        if window.firings == 0 || series.last_fired().is_some_and(|last| last.end_ms >= window.end_ms) {
            return;
        }
        series.add_window(window);
        self.series.windows += 1;
        if !device.to_clean {
            device.to_clean = true;
            self.work.to_clean.push(slot);
        }
    }

    fn due_of_backlog(&self, slot: Slot, key: (u32, i64)) -> Option<DueWindow> {
        let window = self.devices[slot].rare.backlog.as_ref()?.get(key)?;
        let place = WindowPlace::Backlog(window.start_ms);
        Some(DueWindow { end_ms: window.end_ms, slot, series: key.0 as usize, place })
    }

    /// Collects into `work.due` all windows of the device's backlog that have not fired.
    pub(super) fn collect_waiting(&mut self, slot: Slot) {
        let Some(backlog) = &self.devices[slot].rare.backlog else { return };
        let due: Vec<_> = backlog.waiting_keys().filter_map(|key| self.due_of_backlog(slot, key)).collect();
        self.work.due.extend(due);
    }

    /// Collects into `due` the windows of the device's backlog that fire at the end of the batch.
    pub(super) fn collect_behind(&mut self, slot: Slot, due: &mut Vec<DueWindow>) {
        let bound_ms = self.settings.current.out_of_orderness_ms;
        let Some(backlog) = self.devices[slot].rare.backlog_mut() else { return };
        let keys = backlog.due(bound_ms);
        due.extend(keys.into_iter().filter_map(|key| self.due_of_backlog(slot, key)));
    }

    /// Queues a backlog for the time at which it ends if it stays silent.
    fn queue_backlog(&mut self, slot: Slot) {
        let at_ms = self.backlog_end_ms(slot);
        let Some(backlog) = self.devices[slot].rare.backlog_mut() else { return };
        backlog.queued_ms = at_ms;
        self.clocks.backlogs.push(at_ms, slot);
        if self.clocks.backlogs.len() > 2 * self.devices.len() + 64 {
            let devices = &self.devices;
            let is_queued =
                |at_ms, slot: Slot| devices[slot].rare.backlog.as_ref().is_some_and(|b| b.queued_ms == at_ms);
            self.clocks.backlogs.retain(is_queued);
        }
    }

    /// When the backlog of a device ends if it stays silent.
    fn backlog_end_ms(&self, slot: Slot) -> i64 {
        let active_ms = self.devices[slot].rare.backlog.as_ref().map_or(NEVER_MS, |backlog| backlog.active_ms);
        active_ms.max(self.clocks.journal.listening_since_ms).saturating_add(self.backlog_silence_ms())
    }

    /// Ends the backlogs that have been silent: their windows fire, and nothing is held any longer.
    pub(super) fn end_silent_backlogs(&mut self, out: &mut dyn Collector) {
        let now_ms = self.clocks.journal.now_ms;
        let mut ended = Vec::new();
        while let Some((at_ms, slot)) = self.clocks.backlogs.pop_due(now_ms) {
            // Each entry counts once: one of a forgotten device may name the same slot and time.
            match self.devices[slot].rare.backlog_mut() {
                Some(backlog) if backlog.queued_ms == at_ms => backlog.queued_ms = NEVER_MS,
                _ => continue,
            }
            if self.backlog_end_ms(slot) <= now_ms {
                ended.push(slot);
            } else {
                self.queue_backlog(slot);
            }
        }
        self.end_backlogs(&ended, out);
    }

    /// Fires what waits in the backlogs of these devices, and drops the backlogs.
    pub(super) fn end_backlogs(&mut self, slots: &[Slot], out: &mut dyn Collector) {
        if !defects::is(Defect::DropBacklogWindows) {
            for &slot in slots {
                self.collect_waiting(slot);
            }
            let due = std::mem::take(&mut self.work.due);
            self.fire_together(due, out);
        }
        for &slot in slots {
            self.about_to_change(self.devices[slot].group);
            let rare = &mut self.devices[slot].rare;
            let Some(mut backlog) = rare.existing_mut().and_then(|rare| rare.backlog.take()) else { continue };
            rare.drop_empty();
            backlog.forget_fired();
            self.backlogs.waiting -= backlog.waiting();
            self.backlogs.devices -= 1;
            self.backlogs.windows -= backlog.len();
            for (series, window) in backlog.into_windows() {
                self.keep_newest(slot, series, window);
            }
            let closed_ms = self.closed_for_good_ms(slot);
            let series = self.devices[slot].series.iter_mut();
            let closed = series.map(|series| series.fired.close_excess(closed_ms));
            self.totals.fired_runs_merged += closed.sum::<u64>();
        }
    }

    /// Drops the counts of a device's backlog. The device is being removed.
    pub(super) fn uncount_backlog(&mut self, device: &Device) {
        if let Some(backlog) = &device.rare.backlog {
            self.backlogs.devices -= 1;
            self.backlogs.windows -= backlog.len();
            self.backlogs.waiting -= backlog.waiting();
        }
    }

    /// Counts and queues all backlogs anew.
    pub(super) fn rebuild_backlogs(&mut self) {
        self.clocks.backlogs.clear();
        self.backlogs = BacklogCounts::default();
        let slots: Vec<Slot> = self.devices.slots_after(None).collect();
        for slot in slots {
            if let Some(backlog) = &self.devices[slot].rare.backlog {
                self.backlogs.devices += 1;
                self.backlogs.windows += backlog.len();
                self.backlogs.waiting += backlog.waiting();
                self.queue_backlog(slot);
            }
        }
    }

    /// Marks the windows of a backlog that end after `latest_ms` as of a wrong time of the box. Those that have fired fire once
    /// more when the backlog ends.
    pub(super) fn mark_wrong_backlog(&mut self, slot: Slot, latest_ms: i64) {
        let Some(backlog) = self.devices[slot].rare.backlog_mut() else { return };
        let fired = backlog.mark_wrong(latest_ms);
        // Such a window may have fired where the watermark has not been.
        let passed_ms =
            backlog.newest_end_ms().filter(|end_ms| *end_ms > latest_ms).map(|end_ms| end_ms.saturating_sub(1));
        self.devices[slot].rare.raise_passed_ms(passed_ms.unwrap_or(NONE_MS));
        let due: Vec<_> = fired.into_iter().filter_map(|key| self.due_of_backlog(slot, key)).collect();
        self.work.due.extend(due);
    }

    /// Lowers what a device knows of backlogs after the clock of the box was set back: windows that begin behind the watermark of
    /// the right time have not fired in it. Its backlog has ended before.
    pub(super) fn lower_backlog(&mut self, slot: Slot, watermark_ms: i64) {
        let now_ms = watermark_ms.saturating_add(self.settings.current.out_of_orderness_ms).saturating_add(1);
        self.clocks.global.holds_until_ms = NONE_MS;
        let device = &mut self.devices[slot];
        let next_ms = watermark_ms.saturating_add(1);
        let (right_ms, _) = bounds(next_ms, device.window_size_at(next_ms, self.settings.current.window_ms));
        device.holds_until_ms = NONE_MS;
        device.set_live_ms(device.live_ms().min(now_ms));
        for series in &mut device.series {
            series.fired.cut_at(right_ms);
            // What the device still has goes on, and is not late.
            for window in series.windows.iter().filter(|window| window.firings > 0) {
                series.fired.add(window.start_ms, window.end_ms, RunLimits::NONE);
            }
        }
    }

    /// Turns backlogs on or off, before `next` are the settings. Off: backlogs end, and nothing is known of what fired. On:
    /// all that is closed for good counts as fired, and what has fired.
    pub(super) fn change_backlog(&mut self, next: &Settings, slots: &[Slot], out: &mut dyn Collector) {
        if next.backlog == self.settings.current.backlog {
            return;
        }
        self.end_backlogs(slots, out);
        for &slot in slots {
            self.about_to_change(self.devices[slot].group);
            let watermark_ms = self.watermark_at(slot);
            let closed_ms = self.closed_for_good_ms(slot);
            let device = &mut self.devices[slot];
            device.set_live_ms(device.last_arrival_ms);
            device.holds_until_ms = NONE_MS;
            let closed_ms = closed_ms.max(device.closed_ms).saturating_add(1);
            let size_ms = device.window_size_at(closed_ms, self.settings.current.window_ms);
            let (closed_ms, _) = bounds(closed_ms, size_ms);
            for series in &mut device.series {
                series.fired = Default::default();
                if next.backlog && watermark_ms != NONE_MS {
                    series.fired.cover_before(closed_ms);
                }
                let fired = series.windows.iter().filter(|window| next.backlog && window.firings > 0);
                for window in fired {
                    series.fired.add(window.start_ms, window.end_ms, RunLimits::NONE);
                }
            }
        }
    }
}
