//! Compares the windows of a device with the readings that it sent.

use std::collections::BTreeMap;

use super::rejections::RejectedReadings;
use super::{DeviceVerification, Expectations, WindowSeen, window_start_ms};
use crate::simulator::ledger::DeviceLedger;
use crate::simulator::message::MessageContent;

/// Allowed relative difference of sums: their last digits depend on the order of the additions.
const TOLERANCE: f64 = 1e-9;

/// Readings that belong to one window: event time and value.
#[derive(Debug, Default)]
struct WindowReadings {
    sure: Vec<(i64, f64)>,
    /// Readings that were sent, and not acknowledged.
    possible: Vec<(i64, f64)>,
}

type WindowKey = (usize, i64);

/// Compares all windows of one device, and adds the differences to `outcome`.
pub(super) fn compare(
    ledger: &DeviceLedger,
    expectations: &Expectations,
    rejections: &RejectedReadings,
    windows: &[WindowSeen],
    outcome: &mut DeviceVerification,
) {
    let (expected, closed_until) = expected(ledger, expectations, rejections);
    let format = expectations.options.format;
    let metrics: Vec<String> = expectations.options.metrics.iter().map(|name| format.metric(name)).collect();
    let mut seen: BTreeMap<WindowKey, &WindowSeen> = BTreeMap::new();
    let mut report = |text: String| outcome.differences.push(format!("{}: {text}", ledger.device_id));
    for window in windows {
        let name = format!("{} window {}", window.metric, window.window_start);
        let Some(metric) = metrics.iter().position(|metric| *metric == window.metric) else {
            report(format!("{name} is of a metric that was not sent"));
            continue;
        };
        if window.window_end != window.window_start.saturating_add(expectations.window_ms) {
            report(format!("{name} ends at {}: is weir's window.size another one?", window.window_end));
        }
        if seen.insert((metric, window.window_start), window).is_some() {
            report(format!("{name} is listed twice as newest revision"));
        }
        if !expected.contains_key(&(metric, window.window_start)) {
            report(format!("{name} has {} readings; none was sent for it", window.count));
        }
    }
    let (mut right, mut readings) = (0, 0);
    for (key, content) in &expected {
        let name = || format!("{} window {}", metrics[key.0], key.1);
        match seen.get(key) {
            Some(window) => match content.differs(window) {
                None => (right, readings) = (right + 1, readings + window.count),
                Some(why) => report(format!("{}: {why}", name())),
            },
            None if content.sure.is_empty() || closed_until.is_some_and(|until| key.1 >= until) => {}
            None => report(format!("{} is missing; {} acknowledged readings belong to it", name(), content.sure.len())),
        }
    }
    outcome.windows += right;
    outcome.readings += readings;
}

/// The readings that belong to each window. If windows do not close by silence, also the start from which on windows
/// may still be open.
fn expected(
    ledger: &DeviceLedger,
    expectations: &Expectations,
    rejections: &RejectedReadings,
) -> (BTreeMap<WindowKey, WindowReadings>, Option<i64>) {
    let mut windows: BTreeMap<WindowKey, WindowReadings> = BTreeMap::new();
    let mut newest_ms = i64::MIN;
    for entry in ledger.entries.iter().filter(|entry| entry.publishes > 0) {
        let MessageContent::Readings(values) = &entry.message.content else { continue };
        let event_ms = entry.message.event_ms;
        newest_ms = newest_ms.max(event_ms);
        // A message that does not say which one it is counts each time that it arrives.
        let counted = if expectations.options.format.tells_repeats() { 1 } else { u32::MAX };
        let (sure, most) = (entry.acknowledgements.min(counted), entry.publishes.min(counted));
        for (metric, value) in values.iter().enumerate() {
            let late = rejections.late.get(&(entry.message.seq, metric)).copied().unwrap_or(0);
            let (sure, most) = (sure.saturating_sub(late), most.saturating_sub(late));
            if most == 0 {
                continue;
            }
            let window = windows.entry((metric, window_start_ms(event_ms, expectations.window_ms))).or_default();
            let reading = (event_ms, *value);
            window.sure.extend(std::iter::repeat_n(reading, sure as usize));
            window.possible.extend(std::iter::repeat_n(reading, most.saturating_sub(sure) as usize));
        }
    }
    let watermark_ms = newest_ms.saturating_sub(expectations.out_of_orderness_ms).saturating_sub(1);
    let open_from = watermark_ms.saturating_sub(expectations.window_ms).saturating_add(2);
    (windows, (!expectations.closed_by_silence).then_some(open_from))
}

impl WindowReadings {
    /// The difference between `window` and these readings; `None` when there is none.
    fn differs(&self, window: &WindowSeen) -> Option<String> {
        let (least, most) = (self.sure.len() as u64, (self.sure.len() + self.possible.len()) as u64);
        let all: Vec<(i64, f64)> = self.sure.iter().chain(&self.possible).copied().collect();
        if !(least..=most).contains(&window.count) {
            return Some(format!("has {} readings; {least} were acknowledged and {most} sent", window.count));
        }
        if window.count == most {
            return aggregates_differ(&all, window);
        }
        if window.count == least {
            return aggregates_differ(&self.sure, window);
        }
        bounds_differ(&self.sure, &all, window)
    }
}

fn smallest(readings: &[(i64, f64)]) -> f64 {
    readings.iter().map(|reading| reading.1).fold(f64::INFINITY, f64::min)
}

fn largest(readings: &[(i64, f64)]) -> f64 {
    readings.iter().map(|reading| reading.1).fold(f64::NEG_INFINITY, f64::max)
}

/// Compares every aggregate of `window` with the aggregates of `readings`.
fn aggregates_differ(readings: &[(i64, f64)], window: &WindowSeen) -> Option<String> {
    let sum: f64 = readings.iter().map(|reading| reading.1).sum();
    let magnitude: f64 = readings.iter().map(|reading| reading.1.abs()).sum();
    let count = readings.len().max(1) as f64;
    let near =
        |seen: Option<f64>, right: f64, scale: f64| seen.is_some_and(|seen| (seen - right).abs() <= TOLERANCE * scale);
    if !near(window.sum, sum, magnitude) {
        return Some(format!("sum is {:?}, of what was sent {sum}", window.sum));
    }
    if !near(window.mean, sum / count, magnitude / count) {
        return Some(format!("mean is {:?}, of what was sent {}", window.mean, sum / count));
    }
    for (name, seen, right) in [("min", window.min, smallest(readings)), ("max", window.max, largest(readings))] {
        if seen != Some(right) {
            return Some(format!("{name} is {seen:?}, of what was sent {right}"));
        }
    }
    let oldest = readings.iter().map(|reading| reading.0).min();
    let newest = readings.iter().map(|reading| reading.0).max();
    for (name, seen, at) in [("first", window.first, oldest), ("last", window.last, newest)] {
        // Among equal event times the order in the journal decides. Redelivery makes this order unknown.
        if !readings.iter().any(|reading| Some(reading.0) == at && Some(reading.1) == seen) {
            return Some(format!("{name} is {seen:?}, which is no value sent for {at:?}"));
        }
    }
    None
}

/// Checks bounds of min and max when it is unknown which unacknowledged readings arrived.
fn bounds_differ(sure: &[(i64, f64)], all: &[(i64, f64)], window: &WindowSeen) -> Option<String> {
    let inside = |seen: Option<f64>, low: f64, high: f64| seen.is_some_and(|seen| (low..=high).contains(&seen));
    let min = inside(window.min, smallest(all), smallest(sure));
    let max = inside(window.max, largest(sure), largest(all));
    (!min || !max).then(|| format!("min {:?} and max {:?} cannot come from what was sent", window.min, window.max))
}
