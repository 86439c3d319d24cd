//! The operator goes on under other settings. A change of settings loses nothing: what was counted stays counted, and a window
//! that could still get readings before the change can get them after it.
//!
//! docs/semantics.md states the rule of each setting ("Changes of settings").

use crate::core::carried::CarriedRules;
use crate::core::device::{Device, Slot};
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::settings::Settings;
use crate::core::validate::ValidationRules;
use crate::core::watermark::{self, NONE_MS};
use crate::core::window::{Window, bounds};
use crate::defects::{self, Defect};

impl Operator {
    /// Continues under other settings.
    pub fn reconfigure(&mut self, settings: Settings, out: &mut impl Collector) {
        self.settle_all();
        let slots: Vec<Slot> = self.devices.slots_after(None).collect();
        self.change_backlog(&settings, &slots, out);
        if settings.has_field_rules() {
            self.reconfigure_devices(&settings, &slots);
            self.take_settings(settings);
        } else {
            self.reconfigure_rules_0(settings, &slots, out);
        }
        self.drop_expired();
    }

    /// Puts the settings in force.
    pub(super) fn take_settings(&mut self, settings: Settings) {
        self.settings.rules = ValidationRules::new(&settings);
        self.map_activities = self.map_activities.of(&settings.maps);
        self.settings.current = settings;
        self.rebuild_indexes();
    }

    /// Notes in the devices what they keep of the settings so far.
    fn reconfigure_devices(&mut self, after: &Settings, slots: &[Slot]) {
        let before = &self.settings.current;
        let resizes = after.window_ms != before.window_ms;
        let relates = after.allowed_lateness_ms != before.allowed_lateness_ms;
        let rescopes = after.watermark != before.watermark;
        if !resizes && !relates && !rescopes {
            return;
        }
        for &slot in slots {
            self.about_to_change(self.devices[slot].group);
            if resizes && !defects::is(Defect::ResizeAtOnce) {
                self.change_size(slot, after.window_ms);
            }
            if relates {
                self.change_lateness(slot, after.allowed_lateness_ms);
            }
            if rescopes {
                self.change_scope(slot);
            }
        }
    }

    /// Gives a device another window size from the next border that both sizes have behind its windows.
    fn change_size(&mut self, slot: Slot, size_ms: i64) {
        let before_ms = self.settings.current.window_ms;
        let watermark_ms = self.watermark_at(slot);
        let oldest_ms = self.oldest_accepted_ms();
        let device = &mut self.devices[slot];
        let Some(occupied_ms) = device.newest_end_ms() else { return };
        device.carry(|carried| carried.drop_passed(oldest_ms, watermark_ms));
        device.carry(|carried| {
            carried.change_size(before_ms, size_ms, occupied_ms, watermark_ms);
            let dropped = carried.drop_excess();
            self.totals.window_sizes_dropped += u64::from(dropped.is_some());
            dropped
        });
    }

    /// A narrower lateness holds for windows behind those of the device. Under a wider one, windows that are closed for good
    /// stay closed.
    fn change_lateness(&mut self, slot: Slot, lateness_ms: i64) {
        let before_ms = self.settings.current.allowed_lateness_ms;
        let watermark_ms = self.watermark_at(slot);
        let device = &mut self.devices[slot];
        let Some(newest_end_ms) = device.newest_end_ms() else { return };
        if lateness_ms > before_ms || device.rare.carried.is_some() {
            device.keep_closed(watermark_ms, before_ms);
        }
        if lateness_ms < before_ms {
            device.carry(|carried| {
                carried.keep_lateness(newest_end_ms, before_ms);
                carried.drop_passed(NONE_MS, watermark_ms)
            });
        }
    }

    /// From scope `global` to `device`, each device goes on from its own event time: a device that is behind the others is
    /// behind no more. Windows that were closed for good stay closed. From `device` to `global`, the one source begins
    /// anew, and the watermark of a device holds for its own windows until the one source has passed it.
    fn change_scope(&mut self, slot: Slot) {
        if self.per_device() {
            return;
        }
        let Settings { out_of_orderness_ms, allowed_lateness_ms, .. } = self.settings.current;
        let global_ms = self.watermark_at(slot);
        let device = &mut self.devices[slot];
        device.keep_closed(global_ms, allowed_lateness_ms);
        let own_ms = watermark::after(device.newest_ms, out_of_orderness_ms).min(global_ms);
        device.watermark_ms = device.watermark_ms.max(own_ms);
    }

    /// Lowers what a device keeps of earlier settings after the clock of the box was set back, where the wrong time set it. Its
    /// windows of the wrong time are removed before.
    pub(super) fn lower_carried(&mut self, slot: Slot, latest_ms: i64, watermark_ms: i64) {
        let size_ms = self.settings.current.window_ms;
        let oldest_ms = self.settings.current.max_age_ms.map_or(NONE_MS, |max_ms| watermark_ms.saturating_sub(max_ms));
        let device = &mut self.devices[slot];
        let newest_end_ms = device.windows().map(|(_, _, window)| window.end_ms).max().unwrap_or(NONE_MS);
        let occupied_ms = newest_end_ms.max(watermark_ms.saturating_add(1));
        if let Some(carried) = device.rare.existing_mut().and_then(|rare| rare.carried.as_mut()) {
            carried.set_back(latest_ms, size_ms, occupied_ms);
        }
        // In the wrong time, the size of a window that still gets readings may have been dropped as passed.
        let differs = |window: &Window| {
            let held_ms = window.end_ms.saturating_sub(window.start_ms);
            window.end_ms > oldest_ms && held_ms != device.window_size_at(window.start_ms, size_ms)
        };
        let other = device.windows().map(|(_, _, window)| window).filter(|window| differs(window));
        if let Some(window) = other.max_by_key(|window| window.end_ms) {
            let held_ms = window.end_ms.saturating_sub(window.start_ms);
            device.rare.fields_mut().carried.get_or_insert_default().restore_size(held_ms, size_ms, occupied_ms);
        }
        if let Some(rare) = device.rare.existing_mut() {
            rare.carried.take_if(|carried| carried.is_empty());
            device.rare.drop_empty();
        }
    }

    /// The watermark that judges a device's readings. Under scope `global` a device may be ahead of the one source, by its
    /// own watermark of the time before a change to that scope.
    pub(super) fn watermark_at(&self, slot: Slot) -> i64 {
        let own_ms = self.devices[slot].watermark_ms;
        if self.per_device() { own_ms } else { own_ms.max(self.clocks.global.watermark_ms) }
    }

    /// The oldest event time that is accepted at present.
    fn oldest_accepted_ms(&self) -> i64 {
        let now_ms = self.clocks.journal.now_ms;
        self.settings.current.max_age_ms.map_or(NONE_MS, |max_age_ms| now_ms.saturating_sub(max_age_ms))
    }

    /// Start and end of the window of a device that holds `time_ms`, and whether the device has it in `series`. What the
    /// device keeps of earlier settings is dropped first where it concerns no reading that can come.
    pub(super) fn window_at(&mut self, slot: Slot, series: Option<usize>, time_ms: i64) -> (i64, i64, bool) {
        let size_ms = self.settings.current.window_ms;
        if !self.settings.current.has_field_rules() {
            let (start_ms, end_ms) = bounds(time_ms, size_ms);
            return (start_ms, end_ms, false);
        }
        if self.devices[slot].rare.carried.is_some() {
            let (oldest_ms, watermark_ms) = (self.oldest_accepted_ms(), self.watermark_at(slot));
            self.devices[slot].carry(|carried| carried.drop_passed(oldest_ms, watermark_ms));
        }
        let device = &mut self.devices[slot];
        if let Some(window) = series.and_then(|series| device.series.get_mut(series)?.window_mut(time_ms)) {
            return (window.start_ms, window.end_ms, true);
        }
        let (start_ms, end_ms) = bounds(time_ms, device.window_size_at(time_ms, size_ms));
        (start_ms, end_ms, false)
    }

    /// Rebuilds everything that is derived from settings and state together.
    pub(super) fn rebuild_indexes(&mut self) {
        self.clocks.global.open.clear();
        self.clocks.global.fired.clear();
        let lateness_ms = self.settings.current.allowed_lateness_ms;
        let slots: Vec<Slot> = self.devices.slots_after(None).collect();
        for &slot in &slots {
            for series in &mut self.devices[slot].series {
                series.range = self.settings.rules.range_of(&series.metric);
            }
            if self.per_device() {
                continue;
            }
            let device = &self.devices[slot];
            for (_, _, window) in device.windows() {
                let (by_end, end_ms) = if window.is_open() {
                    (&mut self.clocks.global.open, window.end_ms)
                } else {
                    (&mut self.clocks.global.fired, device.closing_end_ms(window.end_ms, lateness_ms))
                };
                by_end.entry(end_ms).or_default().push(slot);
            }
        }
        self.rebuild_deadlines();
        self.rebuild_backlogs();
    }
}

impl Device {
    /// End of the newest window that the device has or that fired, those of its backlog included.
    fn newest_end_ms(&self) -> Option<i64> {
        let live = self.series.iter().filter_map(|series| series.windows.last()).map(|window| window.end_ms);
        let fired = self.series.iter().filter_map(|series| series.fired.newest_end_ms());
        let behind = self.rare.backlog.as_ref().and_then(|backlog| backlog.newest_end_ms());
        live.chain(fired).chain(behind).max()
    }

    /// Changes what the device keeps of earlier settings. `change` may return a time before which no window may begin.
    fn carry(&mut self, change: impl FnOnce(&mut CarriedRules) -> Option<i64>) {
        let kept = self.rare.existing_mut().and_then(|rare| rare.carried.take());
        let mut carried = kept.unwrap_or_default();
        if let Some(end_ms) = change(&mut carried) {
            self.closed_ms = self.closed_ms.max(end_ms.saturating_sub(1));
        }
        if carried.is_empty() {
            self.rare.drop_empty();
        } else {
            self.rare.fields_mut().carried = Some(carried);
        }
    }

    /// Notes which windows are closed for good at `watermark_ms`. Windows behind the newest that fired have not fired.
    fn keep_closed(&mut self, watermark_ms: i64, lateness_ms: i64) {
        let lateness_ms = match &self.rare.carried {
            // Up to this end, windows may be closed.
            Some(carried) => {
                carried.lateness_of(watermark_ms.saturating_sub(lateness_ms).saturating_add(1), lateness_ms)
            }
            None => lateness_ms,
        };
        let newest_end_ms =
            self.series.iter().filter_map(|series| series.last_fired()).map(|window| window.end_ms).max();
        let closed_ms =
            newest_end_ms.map(|end_ms| end_ms.saturating_sub(1).min(watermark_ms.saturating_sub(lateness_ms)));
        self.closed_ms = self.closed_ms.max(closed_ms.unwrap_or(NONE_MS));
    }

    /// Size of the window that holds `time_ms`, where the settings say `settings_ms`.
    pub fn window_size_at(&self, time_ms: i64, settings_ms: i64) -> i64 {
        self.rare.carried.as_ref().map_or(settings_ms, |carried| carried.size_at(time_ms, settings_ms))
    }

    /// Allowed lateness of a window that ends at `end_ms`, where the settings say `settings_ms`.
    pub fn lateness_of(&self, end_ms: i64, settings_ms: i64) -> i64 {
        self.rare.carried.as_ref().map_or(settings_ms, |carried| carried.lateness_of(end_ms, settings_ms))
    }

    /// End of a window with the lateness of the settings that closes for good with a window that ends at `end_ms`.
    pub fn closing_end_ms(&self, end_ms: i64, settings_ms: i64) -> i64 {
        end_ms.saturating_add(self.lateness_of(end_ms, settings_ms).saturating_sub(settings_ms))
    }
}
