//! Simulated devices: their measurements, clocks and faults.

use std::collections::BTreeSet;

use weir::core::reason::Reason;

use weir::random::Random;

/// Expected outcome of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The reading is in its window, or rejected as late if its device was far enough ahead.
    Window,
    /// The reading is rejected for this reason.
    Rejected(Reason),
    /// There is no value: the reading is in no window, and no error.
    Absent,
}

/// One reading that a device sends.
#[derive(Debug, Clone, PartialEq)]
pub struct SimReading {
    pub device: String,
    pub metric: &'static str,
    pub value: i64,
    /// Event time; `None`: weir takes the arrival time.
    pub time_ms: Option<i64>,
    pub expect: Expect,
}

/// What a device measured at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct SimSample {
    pub device: String,
    /// Event time; `None`: the device has no clock.
    pub time_ms: Option<i64>,
    pub boot: Option<u64>,
    pub seq: Option<u64>,
    /// Tells messages apart where nothing else does.
    pub number: Option<u64>,
    /// Metrics with the JSON of their values.
    pub values: Vec<(&'static str, String)>,
    /// A fault that the device reports.
    pub fault: Option<String>,
    /// Text that says nothing.
    pub note: Option<String>,
    /// The first sample of this run of the device. It has all its metrics.
    pub begins: bool,
}

/// What is sent of one measurement.
#[derive(Debug, Clone, PartialEq)]
pub enum SimContent {
    Sample(SimSample),
    /// Nonsense, as it is.
    Text(String),
}

/// One measurement with what must become of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    pub content: SimContent,
    pub readings: Vec<SimReading>,
    /// Whether the element may be part of an array.
    pub packs: bool,
}

impl Element {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        match &self.content {
            SimContent::Sample(sample) => 100 + 20 * sample.values.len() + sample.note.as_ref().map_or(0, String::len),
            SimContent::Text(text) => text.len(),
        }
    }
}

/// State of a device's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClockKind {
    Right,
    /// The clock is off by this much, within the accepted range.
    Skewed(i64),
    /// The clock jumps by up to 20 s.
    Jumping,
    /// The clock is two days ahead: readings are rejected.
    Ahead,
    /// The clock is in 2001: readings are rejected.
    Ancient,
    /// The device has no clock.
    Missing,
}

/// One device.
#[derive(Debug)]
pub struct SimDevice {
    pub id: String,
    clock: ClockKind,
    /// The next sequence number; `None`: the device sends none.
    seq: Option<u64>,
    boot: Option<u64>,
    /// The counter has 8 bits and begins again at 0 behind 255.
    is_narrow: bool,
    /// Some numbers are used twice, for different readings.
    shares: bool,
    /// How far the clock was set back at restarts.
    behind_ms: i64,
    /// Whether the last number was used since the last restart.
    number_is_used: bool,
    metrics: Vec<&'static str>,
    period_ms: u64,
    next_ms: i64,
    disorder_ms: i64,
    /// The device sometimes sends invalid data.
    faulty: bool,
    /// The form of the messages is weir's own.
    is_native: bool,
    /// No sample was taken in this run yet.
    begins: bool,
    /// Some values are absent.
    lacks_values: bool,
    /// The device sometimes stops sending for a while.
    idles: bool,
    /// Event times of measurements that the device stored while it was away; the last is sent next.
    stored_ms: Vec<i64>,
    /// Used event times. Each is used once, so that the first and last reading of a window are unambiguous.
    used_ms: BTreeSet<i64>,
}

/// Event times of `count` measurements from `from_ms` on: newest first, oldest first, in two parts that are interleaved, or in
/// any order.
fn stored(from_ms: i64, step_ms: i64, count: i64, random: &mut Random) -> Vec<i64> {
    let mut times_ms: Vec<i64> = (0..count).map(|index| from_ms + index * step_ms).collect();
    match random.below(4) {
        0 => {}
        1 => times_ms.reverse(),
        2 => times_ms.sort_by_key(|time_ms| ((time_ms - from_ms) % (step_ms * count.max(2) / 2), *time_ms)),
        _ => times_ms.sort_by_cached_key(|_| random.next_u64()),
    }
    times_ms
}

/// What devices send where there is no value.
const ABSENT_VALUES: [&str; 4] = ["null", "NaN", "\"nan\"", "\"unavailable\""];

const METRICS: [&str; 5] = ["co2", "humidity", "pressure", "rpm", "temperature"];

/// What the client of a device says about it.
#[derive(Debug, Clone, Copy)]
pub struct DeviceTraits {
    /// The device numbers its readings.
    pub has_seq: bool,
    /// The client resends with DUP. Only then may the device leave the event time out.
    pub flags_redelivery: bool,
    /// Whether the numbers have 8 bits; `None`: any.
    pub is_narrow: Option<bool>,
    /// The form of the messages is weir's own. It has a place for faults that devices report.
    pub is_native: bool,
}

impl SimDevice {
    pub fn new(id: String, traits: DeviceTraits, now_ms: i64, random: &mut Random) -> Self {
        let DeviceTraits { has_seq, flags_redelivery, is_narrow, is_native } = traits;
        let clock = match random.below(20) {
            0..=9 => ClockKind::Right,
            10..=12 => ClockKind::Skewed(random.range(-60_000, 50_000)),
            13 => ClockKind::Skewed(-7_200_000),
            14..=15 => ClockKind::Jumping,
            16 => ClockKind::Ahead,
            17 => ClockKind::Ancient,
            _ if flags_redelivery => ClockKind::Missing,
            _ => ClockKind::Right,
        };
        let boot = (has_seq && random.one_in(3)).then_some(1);
        let is_narrow = has_seq && is_narrow.unwrap_or_else(|| random.one_in(3));
        // A counter that is never wrapped begins anew with its first number at each restart.
        let first = match (boot, is_narrow) {
            (_, true) => 225 + random.below(31),
            (Some(_), false) => random.below(3),
            (None, false) => 0,
        };
        let metrics = METRICS.iter().copied().filter(|_| random.one_in(3)).collect::<Vec<_>>();
        Self {
            id,
            clock,
            seq: has_seq.then_some(first),
            boot,
            is_narrow,
            shares: has_seq && random.one_in(3),
            behind_ms: 0,
            number_is_used: false,
            metrics: if metrics.is_empty() { vec![METRICS[random.index(METRICS.len())]] } else { metrics },
            period_ms: 100 + random.below(2_500),
            next_ms: now_ms + random.range(0, 2_000),
            disorder_ms: if random.one_in(3) { 0 } else { random.range(1, 4_000) },
            faulty: random.one_in(4),
            is_native,
            begins: true,
            lacks_values: random.one_in(4),
            idles: random.one_in(3),
            stored_ms: if random.one_in(6) { stored(now_ms - 7_200_000, 3_000, 40, random) } else { Vec::new() },
            used_ms: BTreeSet::new(),
        }
    }

    pub fn has_clock(&self) -> bool {
        self.clock != ClockKind::Missing
    }

    /// Restarts the device: sequence numbers begin again. The device says so, or its clock may be set back. Only without
    /// unacknowledged messages.
    pub fn restart(&mut self, random: &mut Random) {
        if self.is_narrow || self.seq.is_none() {
            return;
        }
        self.seq = Some(0);
        self.number_is_used = false;
        match &mut self.boot {
            Some(boot) => *boot += 1,
            None => self.behind_ms += random.range(0, 1) * random.range(0, 20_000),
        }
    }

    /// Restarts the device with its edge node, which says so. Only without unacknowledged messages.
    pub fn restart_with_node(&mut self) {
        self.begins = true;
    }

    /// How often the counter has begun again at 0 behind its largest number.
    pub fn wraps(&self) -> u64 {
        // `seq` is the next number.
        self.seq.filter(|_| self.is_narrow).map_or(0, |next| next.saturating_sub(1) / 256)
    }

    pub fn is_due(&self, now_ms: i64) -> bool {
        self.next_ms <= now_ms
    }

    /// Takes one measurement.
    pub fn measure(&mut self, now_ms: i64, random: &mut Random) -> Element {
        let pause_ms = if self.idles && random.one_in(25) { random.range(10_000, 50_000) } else { 0 };
        self.next_ms = now_ms + pause_ms + random.range(1, 2 * self.period_ms as i64);
        if pause_ms > 0 && random.one_in(2) {
            let step_ms = random.range(300, 2_000);
            self.stored_ms = stored(now_ms + 500, step_ms, pause_ms / step_ms, random);
        } else if !self.stored_ms.is_empty() {
            self.next_ms = now_ms + random.range(1, 400);
        }
        if self.faulty && !self.begins && random.one_in(12) {
            self.nonsense(now_ms, random)
        } else {
            self.readings(now_ms, random)
        }
    }

    fn readings(&mut self, now_ms: i64, random: &mut Random) -> Element {
        let time_ms = self.event_time(now_ms, random);
        let expect = match self.clock {
            ClockKind::Ahead => Expect::Rejected(Reason::TimestampInFuture),
            ClockKind::Ancient => Expect::Rejected(Reason::TimestampTooOld),
            _ => Expect::Window,
        };
        let single = self.metrics.len() == 1 || random.one_in(3) && !self.begins;
        let metrics = if single { vec![*random.pick(&self.metrics)] } else { self.metrics.clone() };
        let mut sample = self.sample(time_ms);
        // The model must tell messages apart, and nothing else differs.
        sample.number = time_ms.is_none().then(|| random.next_u64());
        let mut readings: Vec<SimReading> = metrics
            .into_iter()
            .map(|metric| SimReading {
                device: self.id.clone(),
                metric,
                value: random.range(-999, 999),
                time_ms,
                expect,
            })
            .collect();
        let mut texts: Vec<String> = readings.iter().map(|reading| reading.value.to_string()).collect();
        if self.faulty && expect == Expect::Window && random.one_in(10) {
            let broken = random.index(readings.len());
            readings[broken].expect = Expect::Rejected(Reason::WrongType);
            texts[broken] = "\"broken\"".into();
        }
        // A map passes over an element without values, its number included.
        let may_lack = self.lacks_values && (self.is_native || readings.len() > 1);
        if may_lack && random.one_in(4) {
            let absent = random.index(readings.len());
            readings[absent].expect = Expect::Absent;
            texts[absent] = (*random.pick(&ABSENT_VALUES)).into();
        }
        sample.values = readings.iter().map(|reading| reading.metric).zip(texts).collect();
        sample.note = random.one_in(8).then(|| "x".repeat(random.index(1_200)));
        Element { content: SimContent::Sample(sample), readings, packs: true }
    }

    /// A payload that is not JSON, an array with more errors than the errors log has room for, or a fault report of the
    /// device.
    fn nonsense(&mut self, now_ms: i64, random: &mut Random) -> Element {
        let number = random.next_u64();
        let reading = |expect| SimReading { device: self.id.clone(), metric: "", value: 0, time_ms: None, expect };
        if self.is_native && random.one_in(4) {
            let count = 2 + random.index(300);
            let elements: Vec<&str> = (0..count).map(|_| if random.one_in(5) { "[]" } else { "7" }).collect();
            let readings = (0..=count).map(|_| reading(Expect::Rejected(Reason::Malformed))).collect();
            let content = SimContent::Text(format!("[{},{number}]", elements.join(",")));
            return Element { content, readings, packs: false };
        }
        if !self.is_native || random.one_in(2) {
            let content = SimContent::Text(format!(r#"{{"garbage":{number},"#));
            return Element { content, readings: vec![reading(Expect::Rejected(Reason::Malformed))], packs: false };
        }
        let readings = vec![reading(Expect::Rejected(Reason::DeviceError))];
        let time_ms = Some(self.unused(now_ms));
        let mut sample = self.sample(time_ms);
        sample.fault = Some(format!("E42 sensor open {number}"));
        Element { content: SimContent::Sample(sample), readings, packs: false }
    }

    /// A sample without values.
    fn sample(&mut self, time_ms: Option<i64>) -> SimSample {
        SimSample {
            device: self.id.clone(),
            time_ms,
            boot: self.boot,
            seq: self.next_seq(time_ms),
            number: None,
            values: Vec::new(),
            fault: None,
            note: None,
            begins: std::mem::take(&mut self.begins),
        }
    }

    fn next_seq(&mut self, time_ms: Option<i64>) -> Option<u64> {
        let seq = self.seq.as_mut()?;
        let is_shared = self.shares && self.number_is_used && time_ms.is_some_and(|time_ms| time_ms % 3 == 0);
        let number = if is_shared { *seq - 1 } else { *seq };
        *seq = number + 1;
        self.number_is_used = true;
        Some(if self.is_narrow { number % 256 } else { number })
    }

    fn event_time(&mut self, now_ms: i64, random: &mut Random) -> Option<i64> {
        let disorder_ms = random.range(0, self.disorder_ms);
        // A live measurement comes between those that were stored now and then, and often before them.
        if matches!(self.clock, ClockKind::Right)
            && !random.one_in(4)
            && let Some(stored_ms) = self.stored_ms.pop()
        {
            return Some(self.unused(stored_ms));
        }
        let shown_ms = match self.clock {
            ClockKind::Right => now_ms,
            ClockKind::Skewed(by_ms) => now_ms + by_ms,
            ClockKind::Jumping => now_ms + random.range(-1, 1) * random.range(0, 20_000),
            ClockKind::Ahead => now_ms + 2 * 86_400_000,
            ClockKind::Ancient => now_ms - 700_000_000_000,
            ClockKind::Missing => return None,
        };
        Some(self.unused(shown_ms - disorder_ms - self.behind_ms))
    }

    fn unused(&mut self, mut time_ms: i64) -> i64 {
        while !self.used_ms.insert(time_ms) {
            time_ms += 1;
        }
        time_ms
    }
}
