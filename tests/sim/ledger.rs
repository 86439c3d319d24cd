//! The messages that clients sent and their acknowledgements: the input of the reference model.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use weir::core::output::{ErrorEntry, WindowResult};
use weir::core::reason::Reason;
use weir::core::settings::{Settings, WatermarkScope};

use super::device::{Expect, SimReading};
use super::outputs::NewestWindows;

/// Number of a message.
pub type MessageId = usize;

/// One MQTT message.
#[derive(Debug)]
pub struct SimMessage {
    pub client: String,
    pub topic: String,
    pub payload: Vec<u8>,
    pub readings: Vec<SimReading>,
    /// Whether the message may be lost (QoS 0).
    pub lossy: bool,
    /// Number of times that the message was sent.
    pub sent: u32,
    pub acknowledged: bool,
}

impl SimMessage {
    /// The rejections of a reading without those that say that nothing told whether it was sent again: of a message that was
    /// sent again when its reading was not remembered any more.
    fn decided(&self, reasons: &[Reason]) -> Vec<Reason> {
        let is_undecided = |reason: &&Reason| **reason == Reason::SeqRepeated;
        if reasons.iter().filter(is_undecided).count() >= self.sent as usize {
            return reasons.to_vec();
        }
        reasons.iter().filter(|reason| !is_undecided(reason)).copied().collect()
    }
}

/// All messages.
#[derive(Debug, Default)]
pub struct SimLedger {
    pub messages: Vec<SimMessage>,
    by_payload: BTreeMap<(String, Vec<u8>), MessageId>,
    pub acknowledged: usize,
    /// The first message that was sent after the clock of the box was set right for good.
    pub right_from: Option<MessageId>,
}

/// The aggregates of one window that the model compares, first and last by event time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpectedAggregate {
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub first: (i64, f64),
    pub last: (i64, f64),
    squares: f64,
}

impl ExpectedAggregate {
    fn new(time_ms: i64, value: f64) -> Self {
        let end = (time_ms, value);
        Self { count: 1, sum: value, min: value, max: value, first: end, last: end, squares: value * value }
    }

    fn add(&mut self, time_ms: i64, value: f64) {
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if time_ms < self.first.0 {
            self.first = (time_ms, value);
        }
        if time_ms > self.last.0 {
            self.last = (time_ms, value);
        }
    }

    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// Population standard deviation; values are small integers, so the textbook's formula is exact enough.
    pub fn stddev(&self) -> f64 {
        (self.squares / self.count as f64 - self.mean() * self.mean()).max(0.0).sqrt()
    }
}

/// Expected content of the windows.
#[derive(Debug, Default)]
pub struct Expected {
    /// By device, metric and start of the window.
    pub windows: BTreeMap<(String, String, i64), ExpectedAggregate>,
    /// Count and sum of readings without event time, whose window only weir knows.
    pub untimed: BTreeMap<(String, String), (u64, i64)>,
    /// Readings that may be counted or not (QoS 0).
    pub lossy: BTreeMap<(String, String, i64), u64>,
    /// Windows of late readings.
    pub late: BTreeSet<(String, String, i64)>,
}

/// Reasons given in the errors log for one reading.
pub type ExpectedRejections = BTreeMap<(MessageId, u32), Vec<Reason>>;

impl SimLedger {
    pub fn add(&mut self, message: SimMessage) -> MessageId {
        let id = self.messages.len();
        let known = self.by_payload.insert((message.client.clone(), message.payload.clone()), id);
        assert!(known.is_none(), "two messages with one payload: a defect of the simulation");
        self.messages.push(message);
        id
    }

    pub fn find(&self, client: &str, payload: &[u8]) -> Option<MessageId> {
        self.by_payload.get(&(client.to_owned(), payload.to_vec())).copied()
    }

    /// The message of an error that holds the beginning of its client's name alone.
    pub fn find_cut(&self, entry: &ErrorEntry<'_>) -> Option<MessageId> {
        let is_of =
            |message: &SimMessage| message.payload == entry.payload && message.client.starts_with(entry.client_id);
        self.messages.iter().position(is_of)
    }

    pub fn acknowledge(&mut self, id: MessageId) {
        if !std::mem::replace(&mut self.messages[id].acknowledged, true) {
            self.acknowledged += 1;
        }
    }

    /// How many absent values weir has counted at the end: those of each message once at least, and at most as often as it was
    /// sent.
    pub fn absent_values(&self) -> RangeInclusive<u64> {
        let (mut least, mut most) = (0, 0);
        for message in &self.messages {
            let absent = message.readings.iter().filter(|reading| reading.expect == Expect::Absent).count() as u64;
            least += if message.acknowledged && !message.lossy { absent } else { 0 };
            most += absent * u64::from(message.sent);
        }
        least..=most
    }

    /// The first acknowledged message that is not among `present`.
    pub fn missing(&self, present: &BTreeSet<MessageId>) -> Option<(MessageId, &SimMessage)> {
        self.messages.iter().enumerate().find(|(id, message)| message.acknowledged && !present.contains(id))
    }

    /// The expected windows if exactly the messages in `counted` were counted, each once, and these readings
    /// were rejected. Also judges the rejections.
    pub fn expect(
        &self,
        counted: &dyn Fn(MessageId) -> bool,
        rejections: &ExpectedRejections,
        bounds: &WindowBounds<'_>,
        lateness_ms: i64,
        is_global: bool,
    ) -> Result<Expected, String> {
        let mut expected = Expected::default();
        let furthest = Furthest::of(self, is_global);
        for (id, message) in self.messages.iter().enumerate() {
            if !counted(id) {
                continue;
            }
            for (index, reading) in (0u32..).zip(&message.readings) {
                let reasons = &message.decided(rejections.get(&(id, index)).map_or(&[][..], Vec::as_slice))[..];
                let wrong = |what: &str| {
                    let text = String::from_utf8_lossy(&message.payload);
                    Err(format!(
                        "reading {index} of message {id} {what}: it is in the errors log as {reasons:?}; {text}"
                    ))
                };
                match (reading.expect, reasons) {
                    (Expect::Rejected(_), []) if message.lossy => {}
                    (Expect::Rejected(_), []) => return wrong("is missing in the errors log"),
                    (Expect::Rejected(reason), given) => {
                        if given.iter().any(|given| *given != reason) {
                            return wrong("is rejected for the wrong reason");
                        }
                        if given.len() > message.sent as usize {
                            return wrong("is rejected more often than it was sent");
                        }
                    }
                    (Expect::Window, []) if message.lossy => expected.add_lossy(reading, bounds),
                    (Expect::Window, []) => expected.add(reading, bounds),
                    (Expect::Window, [Reason::Late])
                        if furthest.justifies_late(reading, bounds.sizes_ms, lateness_ms) =>
                    {
                        expected.late.extend(bounds.key(reading));
                    }
                    (Expect::Window, _) => return wrong("must not be rejected so"),
                    (Expect::Absent, []) => {}
                    (Expect::Absent, _) => return wrong("has no value, and is no error"),
                }
            }
        }
        Ok(expected)
    }
}

impl SimLedger {
    /// Judges the rejections of what was sent after the clock of the box was set right: no right reading is rejected by its time,
    /// and none is late because of the wrong time.
    pub fn judge_right(
        &self,
        rejections: &ExpectedRejections,
        settings: &Settings,
        sizes_ms: (i64, i64),
    ) -> Result<(), String> {
        let Some(right_from) = self.right_from else { return Ok(()) };
        let is_global = settings.watermark == WatermarkScope::Global;
        let furthest = Furthest::of(self, is_global);
        for ((id, index), reasons) in rejections.range((right_from, 0)..) {
            let Some(reading) = self.messages[*id].readings.get(*index as usize) else { continue };
            match reading.expect {
                Expect::Window => {}
                Expect::Rejected(_) => continue,
                Expect::Absent => {
                    return Err(format!("a value that is absent is rejected as {reasons:?}: {reading:?}"));
                }
            }
            let may_be_late = match reading.time_ms {
                // Its time is that of the arrival.
                None => is_global,
                Some(_) => furthest.justifies_late(reading, sizes_ms, settings.allowed_lateness_ms),
            };
            let reasons = self.messages[*id].decided(reasons);
            if reasons.iter().any(|reason| *reason != Reason::Late || !may_be_late) {
                return Err(format!(
                    "reading {index} of message {id} is rejected as {reasons:?}, and the clock was right: {reading:?}"
                ));
            }
        }
        Ok(())
    }
}

/// Start of the window of an event time.
fn start(time_ms: i64, window_ms: i64) -> i64 {
    time_ms.div_euclid(window_ms) * window_ms
}

/// Which window a reading belongs to.
pub struct WindowBounds<'a> {
    /// Smallest and largest window size.
    pub sizes_ms: (i64, i64),
    /// Windows that weir has, which say where their size changed.
    pub found: &'a NewestWindows<'a>,
}

impl WindowBounds<'_> {
    /// Device, metric, and start of the window; `None` without an event time.
    fn key(&self, reading: &SimReading) -> Option<(String, String, i64)> {
        let time_ms = reading.time_ms?;
        let key = |start_ms| (reading.device.clone(), reading.metric.to_owned(), start_ms);
        if self.sizes_ms.0 == self.sizes_ms.1 {
            return Some(key(start(time_ms, self.sizes_ms.0)));
        }
        let holds = |windows: &Vec<WindowResult<'_>>| windows.iter().any(|window| time_ms < window.window_end_ms);
        let before = self.found.range(key(i64::MIN)..=key(time_ms)).next_back();
        let held = before.filter(|(_, windows)| holds(windows)).map(|(key, _)| key.clone());
        Some(held.unwrap_or_else(|| key(start(time_ms, self.sizes_ms.0))))
    }
}

impl Expected {
    /// The window of a late reading that holds no other reading: it has never fired, so the reading is not late.
    pub fn late_without_window(&self) -> Option<&(String, String, i64)> {
        let fired = |key: &(String, String, i64)| {
            let series = (key.0.clone(), key.1.clone());
            self.windows.contains_key(key) || self.lossy.contains_key(key) || self.untimed.contains_key(&series)
        };
        self.late.iter().find(|key| !fired(key))
    }

    fn add(&mut self, reading: &SimReading, bounds: &WindowBounds<'_>) {
        let Some((time_ms, key)) = reading.time_ms.zip(bounds.key(reading)) else {
            let series = (reading.device.clone(), reading.metric.to_owned());
            let (count, sum) = self.untimed.entry(series).or_default();
            *count += 1;
            *sum += reading.value;
            return;
        };
        let value = reading.value as f64;
        self.windows
            .entry(key)
            .and_modify(|aggregate| aggregate.add(time_ms, value))
            .or_insert_with(|| ExpectedAggregate::new(time_ms, value));
    }

    fn add_lossy(&mut self, reading: &SimReading, bounds: &WindowBounds<'_>) {
        if let Some(key) = bounds.key(reading) {
            *self.lossy.entry(key).or_default() += 1;
        }
    }
}

/// The newest event times that were sent.
struct Furthest {
    by_device: BTreeMap<String, i64>,
    of_all: i64,
    is_global: bool,
    /// Devices without event times, whose progress is unknown.
    untimed: BTreeSet<String>,
}

impl Furthest {
    fn of(ledger: &SimLedger, is_global: bool) -> Self {
        let mut furthest = Self { by_device: BTreeMap::new(), of_all: i64::MIN, is_global, untimed: BTreeSet::new() };
        let sent = ledger.messages.iter().filter(|message| message.sent > 0).flat_map(|message| &message.readings);
        for reading in sent.filter(|reading| reading.expect == Expect::Window) {
            match reading.time_ms {
                Some(time_ms) => {
                    let newest = furthest.by_device.entry(reading.device.clone()).or_insert(i64::MIN);
                    *newest = time_ms.max(*newest);
                    furthest.of_all = furthest.of_all.max(time_ms);
                }
                None => {
                    furthest.untimed.insert(reading.device.clone());
                }
            }
        }
        furthest
    }

    /// A watermark comes no further than the newest event time, or the end of the newest window. So a reading can be
    /// late only if another one was sent whose window ends later by the allowed lateness at least.
    fn justifies_late(&self, reading: &SimReading, sizes_ms: (i64, i64), lateness_ms: i64) -> bool {
        if self.untimed.contains(&reading.device) || self.is_global && !self.untimed.is_empty() {
            return true;
        }
        let newest_ms = if self.is_global { Some(self.of_all) } else { self.by_device.get(&reading.device).copied() };
        match (reading.time_ms, newest_ms) {
            (Some(time_ms), Some(newest_ms)) => {
                let (smallest_ms, largest_ms) = sizes_ms;
                start(newest_ms, largest_ms) + largest_ms >= start(time_ms, smallest_ms) + smallest_ms + lateness_ms
            }
            _ => false,
        }
    }
}
