//! What is known of the clock of a device, from the event times that it states and the arrival times of its messages.
//!
//! Each message gives one offset: arrival less the newest event time in it. Of messages of a device
//! that come in a row in one batch of the journal the first five give one each, and the others together one: they arrived together.
//! A message is live if its offset is within a minute of that of the live message before it; the clock is told from the last live ones. Messages with other offsets are a backlog, or the
//! clock was set. A clock that was set goes on at the rate of time, so that the offsets are again like each other. The offsets of a
//! backlog change with each message, because stored readings come faster than they were taken.

use std::fmt;

use crate::core::codec::{DecodeError, FieldReader, put_i64, put_u64};
use crate::core::reason::Reason;
use crate::core::timestamp::Span;

/// Offsets that differ by at most this from the one before are of one clock that is not set in between.
const NEAR_MS: i64 = 60_000;
/// Offsets after a step of the clock differ by at most this.
const STABLE_MS: i64 = 5_000;
/// Number of messages that tell a step.
const STEP_MESSAGES: u32 = 5;
/// Time over which the messages after a step must come before the step counts.
const STEP_TIME_MS: i64 = 10_000;
/// Live messages that are remembered.
pub(super) const RECENT: usize = 5;
/// Messages from which on an offset may be called constant.
const CONSTANT_MESSAGES: usize = 3;
/// A constant offset within this of a time zone's is called a time zone.
const ZONE_TOLERANCE_MS: i64 = 120_000;
/// Largest offset of a time zone.
const MAX_ZONE_MS: i64 = 14 * HOUR_MS;
const HOUR_MS: i64 = 3_600_000;
const QUARTER_MS: i64 = 900_000;

/// The clock of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeviceClock {
    /// Offsets of the last live messages, packed; the first `len` are filled.
    recent: [i32; RECENT],
    len: u8,
    /// Place of the next offset.
    next: u8,
    /// Seconds from `since_ms` to the last live message, as far as they fit.
    span_s: u16,
    /// Arrival of the first message with the present clock.
    since_ms: i64,
    /// `None` until a message is not live.
    steps: Option<Box<ClockSteps>>,
}

/// Steps of a clock, and the messages that may be after another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ClockSteps {
    forward: u64,
    backward: u64,
    /// By how much the clock went forward with the last step, negative for backward.
    last_ms: i64,
    /// Arrival of the first message after the last step.
    last_at_ms: i64,
    /// Number of messages with the offset `first_ms`, apart from [`STABLE_MS`]; 0: the last message was live.
    messages: u32,
    /// Offset of the first of these messages.
    first_ms: i64,
    /// Offset of the last of these messages.
    newest_ms: i64,
    /// Arrival of the first of these messages.
    since_ms: i64,
    /// Whether the offsets have changed since the last live message: it is a backlog, until time shows something else.
    drifts: bool,
}

/// What is to be said of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockState {
    /// The device states no times.
    NoClock,
    /// No message with a time has come.
    Unknown,
    /// The clock is right within a minute.
    Ok,
    /// The clock is ahead of the arrival.
    Ahead,
    /// The clock is behind the arrival, or messages take long.
    Behind,
    /// The clock went back, and is behind since.
    SteppedBack,
    /// The clock is ahead or behind by the difference of a time zone.
    TimeZone,
}

impl ClockState {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoClock => "no_clock",
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Ahead => "ahead",
            Self::Behind => "behind",
            Self::SteppedBack => "stepped_back",
            Self::TimeZone => "time_zone",
        }
    }
}

/// The clock of a device as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockView {
    /// What is to be said of it.
    pub state: ClockState,
    /// Median of the last arrival times less event times: negative for a clock that is ahead.
    pub offset_ms: Option<i64>,
    /// The time zone whose local time the device seems to send as UTC, as in `+01:00`.
    pub time_zone: Option<String>,
    /// Number of steps forward.
    pub steps_forward: u64,
    /// Number of steps backward.
    pub steps_backward: u64,
    /// The last step and the arrival of the first message after it.
    pub last_step: Option<(i64, i64)>,
}

/// What the sentence of a rejected reading says of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeviceClockFault {
    /// The clock went back by this time.
    SteppedBack { by_ms: i64 },
    /// The clock is ahead by the offset of a time zone, in milliseconds.
    TimeZone(i64),
    /// The arrival is always this many milliseconds after the event time.
    Constant(i64),
}

impl fmt::Display for DeviceClockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::SteppedBack { by_ms } => {
                write!(f, "its clock went back by {}; correct it, or set ingest.time to arrival", Span(rounded(by_ms)))
            }
            Self::TimeZone(zone_ms) => write!(
                f,
                "it seems to send local time of {} as UTC; send UTC, text with its zone, or text without one and set \
                 ingest.timezone (maps: timezone)",
                zone_name(zone_ms)
            ),
            Self::Constant(offset_ms) => write!(
                f,
                "its clock is always {} {}; set it, or set ingest.time to arrival",
                Span(rounded(offset_ms)),
                if offset_ms < 0 { "ahead" } else { "behind" }
            ),
        }
    }
}

impl DeviceClock {
    /// Notes a message whose newest stated event time is `event_ms`.
    #[inline]
    pub fn note(&mut self, event_ms: i64, arrival_ms: i64) {
        let offset_ms = arrival_ms.saturating_sub(event_ms);
        match self.newest() {
            Some(before_ms) if offset_ms.saturating_sub(before_ms).saturating_abs() <= NEAR_MS => {
                self.push(offset_ms, arrival_ms);
                if let Some(steps) = &mut self.steps {
                    (steps.messages, steps.drifts) = (0, false);
                }
            }
            Some(_) => self.note_other(offset_ms, arrival_ms),
            None => {
                self.since_ms = arrival_ms;
                self.push(offset_ms, arrival_ms);
            }
        }
    }

    #[inline]
    fn push(&mut self, offset_ms: i64, arrival_ms: i64) {
        if let Some(place) = self.recent.get_mut(usize::from(self.next)) {
            *place = pack(offset_ms);
        }
        self.next = if usize::from(self.next) + 1 >= RECENT { 0 } else { self.next + 1 };
        self.len = if usize::from(self.len) < RECENT { self.len + 1 } else { self.len };
        let span_s = arrival_ms.saturating_sub(self.since_ms) / 1_000;
        self.span_s = u16::try_from(span_s).unwrap_or(if span_s < 0 { 0 } else { u16::MAX });
    }

    /// Offset of the last live message.
    #[inline]
    fn newest(&self) -> Option<i64> {
        let at = usize::from(if self.next == 0 { self.len.max(1) } else { self.next }) - 1;
        (self.len > 0).then(|| self.recent.get(at).copied().map_or(0, unpack))
    }

    #[cold]
    fn note_other(&mut self, offset_ms: i64, arrival_ms: i64) {
        let steps = self.steps.get_or_insert_default();
        let is_like = steps.messages > 0 && offset_ms.saturating_sub(steps.first_ms).saturating_abs() <= STABLE_MS;
        if !is_like {
            steps.drifts |= steps.messages > 0;
            (steps.messages, steps.first_ms, steps.since_ms) = (0, offset_ms, arrival_ms);
        }
        steps.messages = steps.messages.saturating_add(1);
        steps.newest_ms = offset_ms;
        let is_step = steps.messages >= STEP_MESSAGES && arrival_ms.saturating_sub(steps.since_ms) >= STEP_TIME_MS;
        if is_step {
            self.step(offset_ms, arrival_ms);
        }
    }

    /// The clock is another one since the first message with this offset.
    fn step(&mut self, offset_ms: i64, arrival_ms: i64) {
        let before_ms = self.median().unwrap_or_default();
        let was_known = self.was_known(before_ms);
        let Some(steps) = &mut self.steps else { return };
        if was_known {
            steps.last_ms = before_ms.saturating_sub(offset_ms);
            steps.last_at_ms = steps.since_ms;
            *(if steps.last_ms > 0 { &mut steps.forward } else { &mut steps.backward }) += 1;
        }
        (steps.messages, steps.drifts) = (0, false);
        (self.since_ms, self.recent, self.len, self.next) = (steps.since_ms, [0; RECENT], 0, 0);
        self.push(offset_ms, arrival_ms);
    }

    /// Whether the offset of the last live messages is that of a clock, and not of a backlog that came before anything else.
    fn was_known(&self, offset_ms: i64) -> bool {
        offset_ms.saturating_abs() <= NEAR_MS
            || usize::from(self.len) >= RECENT && i64::from(self.span_s) * 1_000 >= STEP_TIME_MS
    }

    fn offsets(&self) -> impl Iterator<Item = i64> {
        self.recent.iter().take(usize::from(self.len)).copied().map(unpack)
    }

    /// Median offset of the last live messages.
    fn median(&self) -> Option<i64> {
        let mut offsets: Vec<i64> = self.offsets().collect();
        offsets.sort_unstable();
        offsets.get(offsets.len() / 2).copied()
    }

    /// Whether the last messages are of a clock that has just gone back.
    fn goes_back(&self) -> Option<&ClockSteps> {
        let steps = self.steps.as_deref()?;
        let is_step = steps.messages >= STEP_MESSAGES && !steps.drifts;
        let median_ms = self.median().filter(|median_ms| self.was_known(*median_ms))?;
        (is_step && steps.newest_ms > median_ms).then_some(steps)
    }

    /// The offset, if it stayed the same over some messages.
    fn constant_ms(&self) -> Option<i64> {
        let (least, most) = (self.offsets().min()?, self.offsets().max()?);
        let spread_ms = if i64::from(self.span_s) * 1_000 >= STEP_TIME_MS { NEAR_MS } else { STABLE_MS };
        let is_constant = usize::from(self.len) >= CONSTANT_MESSAGES && most.saturating_sub(least) <= spread_ms;
        is_constant.then(|| self.median()).flatten()
    }

    /// How the clock is described. `states_times` says whether the device states event times at all, where no message told.
    pub fn view(&self, states_times: bool) -> ClockView {
        let (steps, back) = (self.steps.as_deref(), self.goes_back());
        let offset_ms = back.map(|steps| steps.newest_ms).or_else(|| self.median());
        let counted = steps.filter(|steps| steps.forward + steps.backward > 0);
        let last_step = match (back, self.median()) {
            (Some(steps), Some(before_ms)) => Some((before_ms.saturating_sub(steps.newest_ms), steps.since_ms)),
            _ => counted.map(|steps| (steps.last_ms, steps.last_at_ms)),
        };
        let zone_ms = self.constant_ms().and_then(zone_ms).filter(|_| back.is_none());
        let is_behind_since_step = last_step.is_some_and(|(step_ms, _)| step_ms < 0);
        let state = match offset_ms {
            None if states_times => ClockState::Unknown,
            None => ClockState::NoClock,
            Some(offset_ms) if offset_ms.saturating_abs() <= NEAR_MS => ClockState::Ok,
            Some(offset_ms) if offset_ms > 0 && is_behind_since_step => ClockState::SteppedBack,
            Some(_) if zone_ms.is_some() => ClockState::TimeZone,
            Some(offset_ms) if offset_ms < 0 => ClockState::Ahead,
            Some(_) => ClockState::Behind,
        };
        ClockView {
            state,
            offset_ms,
            time_zone: zone_ms.filter(|_| state == ClockState::TimeZone).map(zone_name),
            steps_forward: steps.map_or(0, |steps| steps.forward),
            steps_backward: steps.map_or(0, |steps| steps.backward) + u64::from(back.is_some()),
            last_step,
        }
    }

    /// What the clock has to do with a reading that is rejected because of its time, as far as that is known.
    pub fn fault(&self, reason: Reason) -> Option<DeviceClockFault> {
        if !matches!(reason, Reason::Late | Reason::TimestampInFuture | Reason::TimestampTooOld) {
            return None;
        }
        let view = self.view(true);
        if let (ClockState::SteppedBack, Some((step_ms, _))) = (view.state, view.last_step) {
            return Some(DeviceClockFault::SteppedBack { by_ms: step_ms });
        }
        let constant_ms = self.constant_ms().filter(|offset_ms| offset_ms.saturating_abs() > NEAR_MS)?;
        match zone_ms(constant_ms) {
            Some(zone_ms) => Some(DeviceClockFault::TimeZone(zone_ms)),
            // A reading is late for other reasons than a clock that is always off by the same time.
            None => (reason != Reason::Late).then_some(DeviceClockFault::Constant(constant_ms)),
        }
    }

    /// Appends the stored form; nothing where no message was noted.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if *self == Self::default() {
            return;
        }
        out.extend_from_slice(&[self.len, self.next]);
        put_u64(u64::from(self.span_s), out);
        put_i64(self.since_ms, out);
        for packed in self.recent.iter().take(usize::from(self.len)) {
            put_i64(i64::from(*packed), out);
        }
        let Some(steps) = &self.steps else {
            out.push(0);
            return;
        };
        out.push(1 | u8::from(steps.drifts) << 1);
        put_u64(steps.forward, out);
        put_u64(steps.backward, out);
        put_u64(u64::from(steps.messages), out);
        for ms in [steps.last_ms, steps.last_at_ms, steps.first_ms, steps.newest_ms, steps.since_ms] {
            put_i64(ms, out);
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let wrong = DecodeError::Content("the clock of a device");
        let (len, next) = (reader.u8()?, reader.u8()?);
        if usize::from(len) > RECENT || usize::from(next) >= RECENT || usize::from(len) < RECENT && next != len {
            return Err(wrong);
        }
        let span_s = u16::try_from(reader.u64()?).map_err(|_| wrong)?;
        let mut clock = Self { len, next, span_s, since_ms: reader.i64()?, ..Self::default() };
        for packed in clock.recent.iter_mut().take(usize::from(len)) {
            *packed = i32::try_from(reader.i64()?).map_err(|_| wrong)?;
        }
        let flags = reader.u8()?;
        if flags == 0 {
            return Ok(clock);
        }
        if flags > 3 || flags & 1 == 0 {
            return Err(wrong);
        }
        let (forward, backward) = (reader.u64()?, reader.u64()?);
        let messages = u32::try_from(reader.u64()?).map_err(|_| wrong)?;
        let mut times = [0; 5];
        for ms in &mut times {
            *ms = reader.i64()?;
        }
        let [last_ms, last_at_ms, first_ms, newest_ms, since_ms] = times;
        let drifts = flags & 2 != 0;
        let steps =
            ClockSteps { forward, backward, last_ms, last_at_ms, messages, first_ms, newest_ms, since_ms, drifts };
        clock.steps = Some(Box::new(steps));
        Ok(clock)
    }
}

/// The time to the next ten seconds: messages take a moment, which is no part of the clock's error.
fn rounded(ms: i64) -> i64 {
    const STEP_MS: i64 = 10_000;
    ms.saturating_add(STEP_MS / 2).div_euclid(STEP_MS).saturating_mul(STEP_MS)
}

/// Offsets of up to six days are kept in milliseconds, larger ones in minutes: the lowest bit tells.
fn pack(offset_ms: i64) -> i32 {
    const EXACT: i64 = 1 << 29;
    if offset_ms.saturating_abs() <= EXACT {
        return i32::try_from(offset_ms).unwrap_or_default() << 1;
    }
    let minutes = (offset_ms / 60_000).clamp(-EXACT, EXACT);
    i32::try_from(minutes).unwrap_or_default() << 1 | 1
}

fn unpack(packed: i32) -> i64 {
    let unit_ms = if packed & 1 == 0 { 1 } else { 60_000 };
    i64::from(packed >> 1) * unit_ms
}

/// The offset of the time zone that `offset_ms` is near, as far as the clock is ahead: a whole number of hours, or with a half or
/// three quarters.
fn zone_ms(offset_ms: i64) -> Option<i64> {
    let ahead_ms = offset_ms.saturating_neg();
    let quarters = ahead_ms.saturating_add(QUARTER_MS / 2).div_euclid(QUARTER_MS);
    let zone_ms = quarters.saturating_mul(QUARTER_MS);
    let is_near = zone_ms.saturating_sub(ahead_ms).saturating_abs() <= ZONE_TOLERANCE_MS;
    let part = zone_ms.saturating_abs() % HOUR_MS / QUARTER_MS;
    (is_near && part != 1 && zone_ms != 0 && zone_ms.saturating_abs() <= MAX_ZONE_MS).then_some(zone_ms)
}

fn zone_name(zone_ms: i64) -> String {
    let (sign, minutes) = (if zone_ms < 0 { '-' } else { '+' }, zone_ms.saturating_abs() / 60_000);
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: i64 = 1_732_098_765_000;

    /// A clock after messages, each with its arrival in seconds and how far its event time is behind, in seconds.
    fn clock(messages: impl IntoIterator<Item = (i64, i64)>) -> DeviceClock {
        let mut clock = DeviceClock::default();
        for (arrival_s, behind_s) in messages {
            let arrival_ms = T0 + arrival_s * 1_000;
            clock.note(arrival_ms - behind_s * 1_000, arrival_ms);
            let mut bytes = Vec::new();
            clock.encode(&mut bytes);
            assert_eq!(DeviceClock::decode(&mut FieldReader::new(&bytes)).as_ref(), Ok(&clock));
        }
        clock
    }

    /// State, offset in seconds, steps forward and backward.
    fn check(messages: impl IntoIterator<Item = (i64, i64)>, expected: (&str, i64, u64, u64)) -> ClockView {
        let view = clock(messages).view(true);
        let offset_s = view.offset_ms.unwrap_or_default() / 1_000;
        assert_eq!((view.state.as_str(), offset_s, view.steps_forward, view.steps_backward), expected, "{view:?}");
        view
    }

    fn steady(from_s: i64, behind_s: i64) -> impl Iterator<Item = (i64, i64)> {
        (0..10).map(move |index| (from_s + 5 * index, behind_s))
    }

    #[test]
    fn offsets_have_a_name() {
        check([], ("unknown", 0, 0, 0));
        assert_eq!(clock([]).view(false).state, ClockState::NoClock);
        check(steady(0, 1), ("ok", 1, 0, 0));
        check(steady(0, -600), ("ahead", -600, 0, 0));
        check(steady(0, 400), ("behind", 400, 0, 0));
        check(steady(0, 56 * 365 * 86_400), ("behind", 56 * 365 * 86_400, 0, 0));
        for (behind_s, zone) in [(-3_590, "+01:00"), (18_030, "-05:00"), (-20_700, "+05:45"), (-34_200, "+09:30")] {
            let view = check(steady(0, behind_s), ("time_zone", behind_s, 0, 0));
            assert_eq!(view.time_zone.as_deref(), Some(zone));
        }
        for behind_s in [-900, 3_400, 86_400, -15 * 3_600] {
            assert_eq!(clock(steady(0, behind_s)).view(true).time_zone, None, "{behind_s}");
        }
    }

    #[test]
    fn steps_are_counted_with_their_size_and_time() {
        let view = check(steady(0, 0).chain(steady(100, 3_600)), ("stepped_back", 3_600, 0, 1));
        assert_eq!(view.last_step, Some((-3_600_000, T0 + 100_000)));
        let corrected = steady(0, 0).chain(steady(100, 3_600)).chain(steady(200, 0));
        let view = check(corrected, ("ok", 0, 1, 1));
        assert_eq!(view.last_step, Some((3_600_000, T0 + 200_000)));
        // A clock that was ahead and is right now.
        check(steady(0, -200).chain(steady(100, 0)), ("ok", 0, 0, 1));
        // A device without a battery: 1970, then the right time.
        check(steady(0, 56 * 365 * 86_400).chain(steady(100, 0)), ("ok", 0, 1, 0));
        // Small corrections and jitter are none.
        check((0..50).map(|index| (5 * index, index % 7)), ("ok", 4, 0, 0));
    }

    /// Five readings of a clock that went back by an hour, all at once: it is told, and counts when time has passed.
    #[test]
    fn a_step_is_told_before_it_is_certain() {
        let burst = [(0, 1), (1, 3_600), (1, 3_599), (1, 3_598), (1, 3_597), (1, 3_596)];
        let view = check(burst, ("stepped_back", 3_596, 0, 1));
        assert_eq!(view.last_step, Some((-3_595_000, T0 + 1_000)));
        check(burst.into_iter().chain([(2, 1)]), ("ok", 1, 0, 0));
    }

    #[test]
    fn a_backlog_is_no_step() {
        for interval_s in [1, 10, 600] {
            // Behind live data, newest first, and beside live data.
            let stored = (0..200).map(|index| (100 + index / 50, 200_000 - interval_s * index));
            let reversed = (0..200).map(|index| (100 + index / 50, 300 + interval_s * index));
            check(steady(0, 0).chain(stored.clone()).chain(steady(200, 0)), ("ok", 0, 0, 0));
            check(steady(0, 0).chain(stored.clone()), ("ok", 0, 0, 0));
            check(steady(0, 0).chain(reversed), ("ok", 0, 0, 0));
            check(steady(0, 0).chain(stored.clone().flat_map(|stored| [stored, (stored.0, 0)])), ("ok", 0, 0, 0));
            // Before anything else.
            let view = clock(stored.chain(steady(200, 0))).view(true);
            assert_eq!((view.state, view.steps_forward, view.steps_backward), (ClockState::Ok, 0, 0), "{interval_s}");
        }
    }

    #[test]
    fn packed_offsets_are_near() {
        for ms in [0, 1, -1, 500_000_000, -536_870_912, 600_000_000, -1_800_000_000_000, i64::MAX, i64::MIN] {
            let error = unpack(pack(ms)).saturating_sub(ms).saturating_abs();
            assert!(error < 60_000 || ms.saturating_abs() > 1 << 44, "{ms}");
        }
    }
}
