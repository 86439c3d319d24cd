//! Changes of settings in the journals of earlier versions, which recorded no version of the rules: a replay must give the
//! results that those versions gave.

use crate::core::device::Slot;
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::settings::Settings;
use crate::core::watermark::NONE_MS;
use crate::core::window;

impl Operator {
    /// Continues under other settings of rules 0. Windows that the new settings cannot continue fire now.
    ///
    /// - Another window size: open windows fire and are not continued. A reading for a new window that overlaps a fired
    ///   one is late.
    /// - A larger allowed lateness: windows that were closed for good stay closed.
    /// - Another watermark scope: no watermark goes back, so that windows of slower devices may fire.
    pub(super) fn reconfigure_rules_0(&mut self, settings: Settings, slots: &[Slot], out: &mut dyn Collector) {
        if settings.window_ms != self.settings.current.window_ms {
            self.fire_open(slots, out);
            self.retire_windows(slots, settings.window_ms);
        }
        if settings.allowed_lateness_ms > self.settings.current.allowed_lateness_ms {
            self.keep_all_closed(slots);
        }
        let scope_changes = settings.watermark != self.settings.current.watermark;
        if scope_changes {
            self.carry_watermarks_over(slots);
        }
        self.take_settings(settings);
        if scope_changes && self.per_device() {
            self.fire_open_due(slots, out);
        } else if scope_changes {
            self.fire_global(out);
        }
    }

    /// Drops all fired windows but the last of every series, which is kept for queries.
    fn retire_windows(&mut self, slots: &[Slot], size_ms: i64) {
        for &slot in slots {
            self.about_to_change(self.devices[slot].group);
            let device = &mut self.devices[slot];
            let last_end_ms = device.windows().map(|(_, _, window)| window.end_ms).max();
            if let Some(last_end_ms) = last_end_ms {
                let (_, end_ms) = window::bounds(last_end_ms.saturating_sub(1), size_ms);
                device.closed_ms = device.closed_ms.max(end_ms.saturating_sub(1));
            }
            for series in &mut device.series {
                self.series.windows -= series.drop_expired(|_| true);
            }
        }
    }

    /// Makes windows that are closed for good under the present settings stay closed under the next.
    fn keep_all_closed(&mut self, slots: &[Slot]) {
        let lateness_ms = self.settings.current.allowed_lateness_ms;
        for &slot in slots {
            self.about_to_change(self.devices[slot].group);
            let watermark_ms =
                if self.per_device() { self.devices[slot].watermark_ms } else { self.clocks.global.watermark_ms };
            let device = &mut self.devices[slot];
            device.closed_ms = device.closed_ms.max(watermark_ms.saturating_sub(lateness_ms));
        }
    }

    fn carry_watermarks_over(&mut self, slots: &[Slot]) {
        if self.per_device() {
            let devices = || slots.iter().map(|&slot| &self.devices[slot]);
            let watermark_ms = devices().map(|device| device.watermark_ms).max().unwrap_or(NONE_MS);
            let last_arrival_ms = devices().map(|device| device.last_arrival_ms).max().unwrap_or(NONE_MS);
            self.clocks.global.watermark_ms = watermark_ms.max(self.clocks.global.watermark_ms);
            self.clocks.global.newest_ms = self.clocks.newest_ms;
            self.clocks.global.last_arrival_ms = last_arrival_ms;
            return;
        }
        for &slot in slots {
            self.about_to_change(self.devices[slot].group);
            let device = &mut self.devices[slot];
            device.watermark_ms = device.watermark_ms.max(self.clocks.global.watermark_ms);
        }
    }
}
