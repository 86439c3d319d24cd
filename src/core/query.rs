//! Questions of the API about the operator's state. They change nothing.

use crate::core::device::{Device, Slot};
use crate::core::device_clock::ClockView;
use crate::core::formats::DeviceAbout;
use crate::core::liveness::DeviceLiveness;
use crate::core::notes::DeviceNote;
use crate::core::operator::Operator;
use crate::core::reason::Reason;
use crate::core::selection::{DeviceFilter, DeviceOrder};
use crate::core::watermark::NONE_MS;
use crate::core::window::Series;

/// One device in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSummary {
    /// Device id.
    pub device_id: String,
    /// User whose message created the device; `None`: an anonymous client, or it is not known.
    pub introduced_by: Option<String>,
    /// Arrival time of that message, Unix milliseconds; `None` if a version created the device that did not record it.
    pub first_seen_ms: Option<i64>,
    /// Arrival time of its last message, Unix milliseconds.
    pub last_seen_ms: i64,
    /// Watermark of the device, or the global one under that scope; `None` before the first accepted reading.
    pub watermark_ms: Option<i64>,
    /// Newest event time less the arrival time of that reading: how far the clock of the device is off, plus the transit
    /// time.
    pub clock_offset_ms: Option<i64>,
    /// What is known of the clock of the device.
    pub clock: ClockView,
    /// Number of readings in windows.
    pub accepted: u64,
    /// Numbers of rejected readings by reason, without zeros.
    pub rejected: Vec<(Reason, u64)>,
    /// Number of values that the device said are absent.
    pub values_absent: u64,
    /// Number of readings in windows whose event time is the arrival.
    pub arrival_times: u64,
    /// Number of sequence numbers between the lowest and the highest seen that have not come.
    pub sequence_missing: u64,
    /// Restarts of the device that its sequence numbers or `boot` showed.
    pub sequence_restarts: u64,
    /// Times that its counter began again at 0 behind its largest number.
    pub sequence_wraps: u64,
    /// Objects of the device whose `seq` is no number.
    pub sequence_invalid: u64,
    /// Number of messages that repeated what was retained on their topic.
    pub retained_repeats: u64,
    /// Errors that were counted and not stored, because the device had filled its share of the errors log.
    pub errors_not_stored: u64,
    /// Number of metrics.
    pub metrics: usize,
    /// Whether the device is online; `None` where nothing said so.
    pub liveness: Option<DeviceLiveness>,
    /// What the device says of itself.
    pub about: DeviceAbout,
    /// What it sends in another form than weir names.
    pub notes: Vec<DeviceNote>,
}

/// The last closed window of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct LastWindow {
    /// Device id.
    pub device_id: String,
    /// Metric name.
    pub metric: String,
    /// Unit of the metric, if it is known.
    pub unit: Option<String>,
    /// Sequence number of the newest firing.
    pub seq: u64,
    /// JSON of the newest firing, as the API shows it.
    pub json: Vec<u8>,
    /// First millisecond after the window.
    pub window_end_ms: i64,
    /// Number of readings.
    pub count: u64,
    /// Mean of the window.
    pub mean: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Newest value.
    pub last: f64,
}

/// What metrics say of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceFacts {
    /// Device id.
    pub device_id: String,
    /// Arrival time of its last message, Unix milliseconds.
    pub last_seen_ms: i64,
    /// What the device says of itself.
    pub about: DeviceAbout,
}

/// One device with its series.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceDetail {
    /// The fields of the list of devices.
    pub summary: DeviceSummary,
    /// Ranges of sequence numbers seen since the device restarted; both ends belong to them. Numbers behind a wrap are
    /// continued: 65,537 is the 1 behind the first wrap of a counter of 16 bits.
    pub sequence_ranges: Vec<(u64, u64)>,
    /// Metrics of the device.
    pub series: Vec<SeriesDetail>,
}

/// One metric of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesDetail {
    /// Metric name.
    pub metric: String,
    /// Unit, if it is known.
    pub unit: Option<String>,
    /// Its last closed window.
    pub last_window: Option<LastWindow>,
}

impl Operator {
    /// The newest event time accepted from any device, and the lowest watermark among devices with open windows. Under
    /// scope `device` this goes through all devices: it is meant for a status page, not for every batch.
    pub fn event_time(&self) -> (Option<i64>, Option<i64>) {
        let lowest = if self.series.open_windows == 0 {
            None
        } else if self.per_device() {
            let devices = self.devices.slots_after(None).map(|slot| &self.devices[slot]);
            let open = devices.filter(|device| device.has_open_windows());
            open.filter_map(|device| self.watermark_of(device)).min()
        } else {
            known(self.clocks.global.watermark_ms)
        };
        (known(self.clocks.newest_ms), lowest)
    }

    /// Up to `limit` devices in order of id, after the id `after`.
    pub fn devices(&self, after: Option<&str>, limit: usize) -> Vec<DeviceSummary> {
        self.select_devices(&DeviceFilter::default(), DeviceOrder::Id, after, limit)
    }

    /// One device, if it is known.
    pub fn device(&self, device_id: &str) -> Option<DeviceDetail> {
        let device = &self.devices[self.devices.find(device_id)?];
        let detail = |(index, series): (usize, &Series)| SeriesDetail {
            metric: series.metric.to_string(),
            unit: device.unit(index).map(|unit| unit.to_string()),
            last_window: last_window(device, index),
        };
        Some(DeviceDetail {
            summary: self.summary(device),
            sequence_ranges: device.sequences.seen.ranges().collect(),
            series: device.series.iter().enumerate().map(detail).collect(),
        })
    }

    /// The last closed windows of all series, in order of (device, metric): those that end after `since_ms`, up to
    /// `limit`, and how many more there are.
    pub fn last_windows(&self, since_ms: i64, limit: usize) -> (Vec<LastWindow>, usize) {
        let mut windows = Vec::new();
        let mut more = 0;
        for slot in self.devices.slots_after(None) {
            let device = &self.devices[slot];
            for index in 0..device.series.len() {
                if device.last_fired(index).is_none_or(|window| window.end_ms <= since_ms) {
                    continue;
                }
                if windows.len() < limit {
                    windows.extend(last_window(device, index));
                } else {
                    more += 1;
                }
            }
        }
        (windows, more)
    }

    /// Facts about up to `limit` devices, in order of id, and how many devices there are besides. Those that have been silent for
    /// longest come first into the number: an alert on silence must not end because others send.
    pub fn device_facts(&self, limit: usize) -> (Vec<DeviceFacts>, usize) {
        let mut slots: Vec<(usize, Slot)> = self.devices.slots_after(None).enumerate().collect();
        let more = slots.len().saturating_sub(limit);
        if more > 0 {
            slots.sort_unstable_by_key(|&(place, slot)| (self.devices[slot].last_arrival_ms, place));
            slots.truncate(limit);
            slots.sort_unstable();
        }
        let facts = |(_, slot): (usize, Slot)| {
            let device = &self.devices[slot];
            DeviceFacts {
                device_id: device.id.to_string(),
                last_seen_ms: device.last_arrival_ms,
                about: device.about(),
            }
        };
        (slots.into_iter().map(facts).collect(), more)
    }

    pub(super) fn summary(&self, device: &Device) -> DeviceSummary {
        let odd = device.rare.odd;
        let history = device.sequences.history();
        DeviceSummary {
            device_id: device.id.to_string(),
            introduced_by: device.introduced_by.as_deref().name().map(str::to_owned),
            first_seen_ms: known(device.first_seen_ms),
            last_seen_ms: device.last_arrival_ms,
            watermark_ms: self.watermark_of(device),
            clock_offset_ms: (device.newest_ms != NONE_MS).then_some(device.clock_offset_ms),
            clock: device.clock.view(odd.arrival_times == 0),
            accepted: device.accepted,
            rejected: device.rare.rejected.clone(),
            values_absent: odd.values_absent,
            arrival_times: odd.arrival_times,
            sequence_missing: device.sequences.missing(),
            sequence_restarts: history.restarts,
            sequence_wraps: history.wraps,
            sequence_invalid: history.invalid,
            errors_not_stored: device.rare.error_share.as_ref().map_or(0, |share| share.not_stored),
            retained_repeats: device.rare.retained.as_ref().map_or(0, |history| history.repeats),
            metrics: device.series.len(),
            liveness: device.rare.liveness.as_deref().cloned(),
            about: device.about(),
            notes: device.rare.notes.all().collect(),
        }
    }

    fn watermark_of(&self, device: &Device) -> Option<i64> {
        known(if self.per_device() { self.settled_watermark_ms(device) } else { self.clocks.global.watermark_ms })
    }
}

fn known(time_ms: i64) -> Option<i64> {
    (time_ms != NONE_MS).then_some(time_ms)
}

fn last_window(device: &Device, index: usize) -> Option<LastWindow> {
    let series = device.series.get(index)?;
    let window = device.last_fired(index)?;
    let unit = device.unit_of_result(index, window.fired_seq).map(|unit| &**unit);
    let result = window.result(&device.id, &series.metric, unit, window.firings - 1);
    let mut json = Vec::new();
    result.write_json(window.fired_seq, &mut json);
    Some(LastWindow {
        device_id: device.id.to_string(),
        metric: series.metric.to_string(),
        unit: device.unit(index).map(|unit| unit.to_string()),
        seq: window.fired_seq,
        json,
        window_end_ms: window.end_ms,
        count: result.count,
        mean: result.mean,
        min: result.min,
        max: result.max,
        last: result.last,
    })
}
