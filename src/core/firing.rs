//! When windows fire: by the watermark, by silence, after late readings, and at the end of a bounded input.
//!
//! The rules are Flink's: a window fires when the watermark reaches its last millisecond (`EventTimeTrigger`), the
//! watermark follows the newest event time at a fixed distance (`BoundedOutOfOrdernessWatermarks`), readings within the
//! allowed lateness fire the window again, and later ones are rejected (`WindowOperator.isWindowLate`). Two rules differ.
//! A window that got late readings fires once per journal batch, not once per reading. And silence of a source lets its
//! watermark go on, up to the end of its newest open window: in Flink the windows of an idle source stay open until it
//! sends again.
//!
//! Windows that fire together do so in order of (end, device, metric), so that sequence numbers do not depend on hash
//! maps or on the order of slots.

use crate::core::clocks::GlobalScope;
use crate::core::device::{Device, DueWindow, NEVER_MS, Slot, WindowPlace};
use crate::core::fired_runs::{MAX_RUNS, RunLimits};
use crate::core::operator::Operator;
use crate::core::output::{Collector, WindowResult};
use crate::core::settings::{Settings, WatermarkScope};
use crate::core::watermark::{self, NONE_MS};
use crate::core::window::{Window, is_late};

impl Device {
    /// Whether a window of the device waits for the watermark.
    pub fn has_open_windows(&self) -> bool {
        self.first_end_ms != NEVER_MS
    }
}

impl Operator {
    /// The watermark of a device, under scope `device`, with the time that passed since its last message.
    pub(super) fn settled_watermark_ms(&self, device: &Device) -> i64 {
        // At the time of its last message the watermark is settled; what the message brought moves it when it is done.
        if device.last_arrival_ms >= self.clocks.journal.now_ms {
            return device.watermark_ms;
        }
        let passed_ms = self.passed_watermark_ms(device.watermark_ms, device.newest_ms);
        if !device.has_open_windows() {
            return passed_ms;
        }
        match self.counted_silence_ms(device.live_ms()) {
            Some(silence_ms) => {
                let newest_end_ms = device.newest_open_end_ms().unwrap_or(NONE_MS);
                passed_ms.max(self.silent_watermark_ms(device.newest_ms, silence_ms, newest_end_ms))
            }
            None => passed_ms,
        }
    }

    /// The largest watermark at this time; none with `window.backlog` off.
    #[inline]
    fn watermark_cap_ms(&self) -> i64 {
        let Settings { backlog, out_of_orderness_ms, .. } = self.settings.current;
        if backlog { watermark::cap(self.clocks.journal.now_ms, out_of_orderness_ms) } else { i64::MAX }
    }

    /// The watermark of a source whose readings reach to `newest_ms`. It is `watermark_ms`, unless the cap held it back and
    /// time has passed since.
    fn passed_watermark_ms(&self, watermark_ms: i64, newest_ms: i64) -> i64 {
        let Settings { backlog, out_of_orderness_ms, .. } = self.settings.current;
        if !backlog {
            return watermark_ms;
        }
        watermark_ms.max(watermark::after(newest_ms, out_of_orderness_ms).min(self.watermark_cap_ms()))
    }

    /// The watermark of a source that was silent, with open windows that end at `newest_end_ms` or before.
    fn silent_watermark_ms(&self, newest_ms: i64, silence_ms: i64, newest_end_ms: i64) -> i64 {
        let bound_ms = self.settings.current.out_of_orderness_ms;
        watermark::after_silence(newest_ms, silence_ms, bound_ms, newest_end_ms).min(self.watermark_cap_ms())
    }

    /// The silence since `last_arrival_ms`, if it is long enough to count.
    fn counted_silence_ms(&self, last_arrival_ms: i64) -> Option<i64> {
        let silence_ms = self.silence_ms(last_arrival_ms);
        // Without silence nothing is added: the readings move the watermark once their message is done.
        self.settings.current.idle_timeout_ms.filter(|&timeout_ms| silence_ms >= timeout_ms.max(1)).map(|_| silence_ms)
    }

    /// Whether the passing of time alone moves watermarks.
    fn time_moves_watermarks(&self) -> bool {
        self.settings.current.idle_timeout_ms.is_some() || self.settings.current.backlog
    }

    fn silence_ms(&self, last_arrival_ms: i64) -> i64 {
        self.clocks.journal.now_ms.saturating_sub(last_arrival_ms.max(self.clocks.journal.listening_since_ms))
    }

    /// Lets the silence so far move the watermarks of all devices, under scope `device`. This makes no window due: those
    /// due by silence have fired at the start of the batch.
    pub(super) fn settle_all(&mut self) {
        if !self.per_device() || !self.time_moves_watermarks() || self.series.open_windows == 0 {
            return;
        }
        let slots: Vec<Slot> = self.devices.slots_after(None).collect();
        for slot in slots {
            self.settle(slot);
        }
    }

    /// Lets the silence so far move the watermark of one device, under scope `device`.
    pub(super) fn settle(&mut self, slot: Slot) {
        let settled_ms = self.settled_watermark_ms(&self.devices[slot]);
        if settled_ms > self.devices[slot].watermark_ms {
            self.about_to_change(self.devices[slot].group);
            self.devices[slot].watermark_ms = settled_ms;
        }
    }

    /// Fires the windows that the passing of time makes due at the start of a batch.
    pub(super) fn fire_idle(&mut self, out: &mut dyn Collector) {
        if !self.time_moves_watermarks() {
            return;
        }
        if self.per_device() {
            self.fire_idle_devices(out);
            return;
        }
        let GlobalScope { watermark_ms, newest_ms, last_arrival_ms, .. } = self.clocks.global;
        // Without a watermark, as after a change from scope `device`, it begins with a message or by silence.
        let is_begun = watermark_ms != NONE_MS;
        let mut moved_ms = if is_begun { self.passed_watermark_ms(watermark_ms, newest_ms) } else { NONE_MS };
        if let Some(silence_ms) = self.counted_silence_ms(last_arrival_ms)
            && let Some(newest_end_ms) = self.newest_open_end_ms()
        {
            moved_ms = moved_ms.max(self.silent_watermark_ms(newest_ms, silence_ms, newest_end_ms));
        }
        if moved_ms > watermark_ms {
            self.clocks.global.watermark_ms = moved_ms;
            if self.settings.current.backlog {
                self.note_global_pace(watermark_ms);
            }
            self.fire_global(out);
        }
    }

    /// Largest end of the open windows of all devices under scope `global`.
    fn newest_open_end_ms(&mut self) -> Option<i64> {
        while let Some(entry) = self.clocks.global.open.last_entry() {
            let end_ms = *entry.key();
            let is_open =
                |slot: &Slot| self.devices[*slot].windows().any(|(_, _, w)| w.is_open() && w.end_ms == end_ms);
            if entry.get().iter().any(is_open) {
                return Some(end_ms);
            }
            entry.remove();
        }
        None
    }

    fn fire_idle_devices(&mut self, out: &mut dyn Collector) {
        let mut idle = Vec::new();
        while let Some((at_ms, slot)) = self.clocks.deadlines.pop_due(self.clocks.journal.now_ms) {
            if self.devices[slot].queued_ms == at_ms {
                self.devices[slot].queued_ms = NEVER_MS;
                idle.push(slot);
            }
        }
        for &slot in &idle {
            if self.deadline_ms(&self.devices[slot]) <= self.clocks.journal.now_ms {
                self.settle(slot);
                self.collect_due(slot);
            }
        }
        self.fire_due(out);
        for slot in idle {
            let at_ms = self.deadline_ms(&self.devices[slot]);
            self.queue(slot, at_ms);
        }
    }

    /// Time at which the first open window of the device fires if the device stays silent.
    fn deadline_ms(&self, device: &Device) -> i64 {
        if !device.has_open_windows() {
            return NEVER_MS;
        }
        let Settings { idle_timeout_ms, out_of_orderness_ms: bound_ms, backlog, .. } = self.settings.current;
        let (newest_ms, first_end_ms) = (device.newest_ms, device.first_end_ms);
        let by_silence_ms = idle_timeout_ms.map_or(NEVER_MS, |timeout_ms| {
            let silence_ms = watermark::silence_to_fire(timeout_ms, newest_ms, bound_ms, first_end_ms);
            device.live_ms().max(self.clocks.journal.listening_since_ms).saturating_add(silence_ms)
        });
        if !backlog {
            return by_silence_ms;
        }
        let uncapped_ms = watermark::uncapped_at(first_end_ms, bound_ms);
        let is_held_back = watermark::after(newest_ms, bound_ms) >= first_end_ms.saturating_sub(1);
        if is_held_back { uncapped_ms } else { uncapped_ms.max(by_silence_ms) }
    }

    /// Queues a device with open windows for the earliest time at which the passing of time can matter.
    #[inline]
    pub(super) fn queue_if_open(&mut self, slot: Slot) {
        let now_ms = self.clocks.journal.now_ms;
        let device = &self.devices[slot];
        let at_ms = if self.settings.current.backlog && device.newest_ms > now_ms {
            // The cap may hold back windows that are due.
            self.deadline_ms(device)
        } else {
            let Some(idle_timeout_ms) = self.settings.current.idle_timeout_ms else { return };
            now_ms.saturating_add(idle_timeout_ms)
        };
        if device.has_open_windows() && at_ms < device.queued_ms {
            self.queue(slot, at_ms);
        }
    }

    fn queue(&mut self, slot: Slot, at_ms: i64) {
        if at_ms == NEVER_MS {
            return;
        }
        self.devices[slot].queued_ms = at_ms;
        self.clocks.deadlines.push(at_ms, slot);
        if self.clocks.deadlines.len() > 2 * self.devices.len() + 64 {
            let devices = &self.devices;
            self.clocks.deadlines.retain(|at_ms, slot| devices[slot].queued_ms == at_ms);
        }
    }

    /// Queues all devices with open windows anew.
    pub(super) fn rebuild_deadlines(&mut self) {
        self.clocks.deadlines.clear();
        let slots: Vec<Slot> = self.devices.slots_after(None).collect();
        for slot in slots {
            self.devices[slot].queued_ms = NEVER_MS;
            if self.per_device() && self.time_moves_watermarks() {
                let at_ms = self.deadline_ms(&self.devices[slot]);
                self.queue(slot, at_ms);
            }
        }
    }

    /// Moves the watermark after a message and fires the windows that this makes due. `moved` are the devices with
    /// readings accepted from the message. The watermark does not move between readings of one message: they arrive
    /// together, and their order within the message must not make one of them late.
    pub(super) fn advance(&mut self, moved: &[Slot], out: &mut dyn Collector) {
        if self.per_device() {
            for &slot in moved {
                self.advance_device(slot);
            }
            if !self.work.due.is_empty() {
                self.fire_due(out);
            }
        } else if !moved.is_empty() {
            let before_ms = self.clocks.global.watermark_ms;
            let after_ms = watermark::after(self.clocks.global.newest_ms, self.settings.current.out_of_orderness_ms);
            self.clocks.global.watermark_ms =
                self.clocks.global.watermark_ms.max(after_ms.min(self.watermark_cap_ms()));
            if self.settings.current.backlog {
                let now_ms = self.clocks.journal.now_ms;
                moved.iter().for_each(|&slot| self.devices[slot].set_live_ms(now_ms));
                self.clocks.global.last_arrival_ms = now_ms;
                self.note_global_pace(before_ms);
            }
            self.fire_global(out);
        }
    }

    #[inline]
    fn advance_device(&mut self, slot: Slot) {
        let Settings { out_of_orderness_ms, allowed_lateness_ms, backlog, .. } = self.settings.current;
        let now_ms = self.clocks.journal.now_ms;
        let device = &mut self.devices[slot];
        let before_ms = device.watermark_ms;
        // The same as the cap of the watermark, which is computed in the same way.
        let newest_ms = if backlog { device.newest_ms.min(now_ms) } else { device.newest_ms };
        device.watermark_ms = before_ms.max(watermark::after(newest_ms, out_of_orderness_ms));
        if backlog {
            device.set_live_ms(now_ms);
            let step_ms = device.watermark_ms.saturating_sub(before_ms);
            if device.rare.backlog.is_some() || step_ms > allowed_lateness_ms {
                self.note_pace(slot, before_ms);
            }
        }
        let device = &mut self.devices[slot];
        if device.first_end_ms.saturating_sub(1) <= device.watermark_ms {
            self.collect_due(slot);
        }
        self.queue_if_open(slot);
    }

    fn collect_due(&mut self, slot: Slot) {
        let watermark_ms = self.devices[slot].watermark_ms;
        self.devices[slot].collect_due(slot, watermark_ms, &mut self.work.due);
    }

    /// Fires the windows that the global watermark makes due.
    pub(super) fn fire_global(&mut self, out: &mut dyn Collector) {
        let watermark_ms = self.clocks.global.watermark_ms;
        let mut slots = Vec::new();
        while let Some(entry) = self.clocks.global.open.first_entry()
            && entry.key().saturating_sub(1) <= watermark_ms
        {
            slots.extend(entry.remove());
        }
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            self.devices[slot].collect_due(slot, watermark_ms, &mut self.work.due);
        }
        self.fire_due(out);
    }

    /// Fires the open windows of `slots` that the watermarks of their devices make due.
    pub(super) fn fire_open_due(&mut self, slots: &[Slot], out: &mut dyn Collector) {
        for &slot in slots {
            self.collect_due(slot);
        }
        self.fire_due(out);
    }

    /// Fires all windows of `slots` that have not fired, due or not, those of backlogs too.
    pub(super) fn fire_open(&mut self, slots: &[Slot], out: &mut dyn Collector) {
        for &slot in slots {
            self.devices[slot].collect_due(slot, NEVER_MS, &mut self.work.due);
            self.collect_waiting(slot);
        }
        self.fire_due(out);
        for &slot in slots {
            if let Some(backlog) = self.devices[slot].rare.backlog_mut() {
                backlog.forget_fired();
            }
        }
    }

    /// Fires every window that has not fired yet, as the end of a bounded input does.
    pub fn close_all(&mut self, out: &mut impl Collector) {
        let slots: Vec<Slot> = self.devices.slots_after(None).collect();
        self.fire_open(&slots, out);
        self.drop_expired();
    }

    /// Fires the windows in `work.due`.
    fn fire_due(&mut self, out: &mut dyn Collector) {
        let due = std::mem::take(&mut self.work.due);
        self.fire_together(due, out);
    }

    /// Fires windows in their order.
    pub(super) fn fire_together(&mut self, mut due: Vec<DueWindow>, out: &mut dyn Collector) {
        self.sort_and_fire(&mut due, out);
        due.clear();
        self.work.due = due;
    }

    /// Fires the windows that got late readings in this batch, each window once, and those that backlogs have moved on past.
    pub(super) fn fire_touched(&mut self, out: &mut dyn Collector) {
        let mut due = std::mem::take(&mut self.work.due);
        for slot in std::mem::take(&mut self.work.touched) {
            self.devices[slot].touched = false;
            let touched = self.devices[slot].windows().filter(|(_, _, state)| state.touched);
            due.extend(touched.map(|(series, window, state)| {
                let place = WindowPlace::Live(window);
                DueWindow { end_ms: state.end_ms, slot, series, place }
            }));
            self.collect_behind(slot, &mut due);
        }
        self.fire_together(due, out);
    }

    pub(super) fn sort_and_fire(&mut self, due: &mut [DueWindow], out: &mut dyn Collector) {
        let devices = &self.devices;
        due.sort_unstable_by(|a, b| {
            let by_device =
                || if a.slot == b.slot { a.series.cmp(&b.series) } else { devices[a.slot].id.cmp(&devices[b.slot].id) };
            a.end_ms.cmp(&b.end_ms).then_with(by_device)
        });
        for due in due {
            self.fire(*due, out);
        }
    }

    /// Event time up to which windows of a device are closed for good, whatever settings they are of.
    pub(super) fn closed_for_good_ms(&self, slot: Slot) -> i64 {
        let allowed_ms = self.settings.current.allowed_lateness_ms;
        let watermark_ms = self.watermark_at(slot);
        watermark_ms.saturating_sub(self.devices[slot].lateness_of(NONE_MS, allowed_ms))
    }

    fn fire(&mut self, due: DueWindow, out: &mut dyn Collector) {
        self.about_to_change(self.devices[due.slot].group);
        let (seq, max_held) = (self.next_seq.window, self.backlog_bound());
        let is_live = matches!(due.place, WindowPlace::Live(_));
        let closed_ms = self.closed_for_good_ms(due.slot);
        let device = &mut self.devices[due.slot];
        let max_runs = MAX_RUNS + device.rare.backlog.as_ref().map_or(0, |_| max_held);
        let closing_end_ms = device.closing_end_ms(due.end_ms, self.settings.current.allowed_lateness_ms);
        let unit = device.unit(due.series).cloned();
        let passed_ms = device.rare.passed_ms.max(self.clocks.set_backs.passed_ms);
        let Some(series) = device.series.get_mut(due.series) else { return };
        let window = match due.place {
            WindowPlace::Live(index) => series.windows.get_mut(index),
            WindowPlace::Backlog(start_ms) => {
                let backlog = device.rare.backlog_mut();
                backlog.and_then(|backlog| backlog.get_mut((due.series as u32, start_ms)))
            }
        };
        let Some(window) = window else { return };
        let mut revision = window.firings;
        if revision == 0 {
            revision = self.clocks.set_backs.first_revision(window.start_ms, window.end_ms, passed_ms);
        }
        self.clocks.set_backs.highest_revision = self.clocks.set_backs.highest_revision.max(revision);
        let supersedes = (window.firings > 0).then_some(window.fired_seq);
        let result = window.result(&device.id, &series.metric, unit.as_deref(), revision);
        out.window(seq, &WindowResult { supersedes, ..result });
        if window.firings == 0 {
            self.totals.windows_first += 1;
            self.totals.windows_backlog += u64::from(window.flags.backlog);
            match due.place {
                WindowPlace::Live(_) => self.series.open_windows -= usize::from(window.is_open()),
                WindowPlace::Backlog(_) => self.backlogs.waiting -= 1,
            }
            if self.settings.current.backlog {
                let settings = &self.settings.current;
                let oldest_ms = self.clocks.set_backs.oldest_run_ms(settings, self.clocks.journal.now_ms);
                let limits = RunLimits { oldest_ms, closed_ms, max_runs };
                let closed = series.fired.add(window.start_ms, window.end_ms, limits);
                self.totals.fired_runs_merged += closed;
            }
            if is_live && self.settings.current.watermark == WatermarkScope::Global {
                self.clocks.global.fired.entry(closing_end_ms).or_default().push(due.slot);
            }
        } else {
            self.totals.windows_corrected += 1;
        }
        window.fired_seq = seq;
        window.firings = revision.saturating_add(1);
        window.touched = false;
        self.next_seq.window += 1;
        if is_live && !device.to_clean {
            device.to_clean = true;
            self.work.to_clean.push(due.slot);
        }
    }

    /// Drops windows that are closed for good: those of devices with a firing in this batch and, under scope `global`,
    /// those that the watermark has passed.
    pub(super) fn drop_expired(&mut self) {
        let allowed_ms = self.settings.current.allowed_lateness_ms;
        while let Some(entry) = self.clocks.global.fired.first_entry()
            && is_late(*entry.key(), allowed_ms, self.clocks.global.watermark_ms)
        {
            self.work.to_clean.extend(entry.remove());
        }
        for slot in std::mem::take(&mut self.work.to_clean) {
            if self.devices[slot].id.is_empty() {
                continue; // It was forgotten in this batch.
            }
            self.about_to_change(self.devices[slot].group);
            let watermark_ms = self.watermark_at(slot);
            let carried = self.devices[slot].rare.carried.clone();
            let lateness_ms = |end_ms| carried.as_deref().map_or(allowed_ms, |all| all.lateness_of(end_ms, allowed_ms));
            let is_expired = |window: &Window| is_late(window.end_ms, lateness_ms(window.end_ms), watermark_ms);
            self.devices[slot].to_clean = false;
            if self.holds_windows(&self.devices[slot]) {
                self.hold_expired(slot, is_expired);
                continue;
            }
            for series in &mut self.devices[slot].series {
                self.series.windows -= series.drop_expired(is_expired);
            }
        }
    }

    /// Moves windows that expired into the backlog of the device.
    fn hold_expired(&mut self, slot: Slot, is_expired: impl Fn(&Window) -> bool) {
        for index in 0..self.devices[slot].series.len() {
            let mut expired = Vec::new();
            if let Some(series) = self.devices[slot].series.get_mut(index) {
                self.series.windows -= series.take_expired(&is_expired, |window| expired.push(window));
            }
            self.hold(slot, index, expired);
        }
    }
}
