//! The clock of the machine was set back: what a wrong time has moved is lowered, so that right readings count at once.
//!
//! A time that is later than the right clock by more than `validate.max_future` is of the wrong clock, because no reading
//! with such a time would be accepted. The rule is in docs/semantics.md, "The clock of the machine".

use std::fmt;

use crate::core::clocks::Clocks;
use crate::core::codec::{DecodeError, FieldReader, put_i64, put_u64};
use crate::core::device::{Device, DueWindow, NEVER_MS, Slot, WindowPlace};
use crate::core::device_clock::DeviceClock;
use crate::core::group::KEY_GROUPS;
use crate::core::operator::Operator;
use crate::core::output::Collector;
use crate::core::settings::Settings;
use crate::core::timestamp::{Rfc3339, Span};
use crate::core::watermark::{self, NONE_MS};
use crate::core::window::Window;
use crate::defects::{self, Defect};

/// How far ahead of the right clock a time may be where `validate.max_future` is off.
const USUAL_FUTURE_MS: i64 = 300_000;
/// A batch that comes so long after the one before begins another time: the clock may have jumped forward.
const LEAP_MS: i64 = 86_400_000;
/// Time between two batches that a jump of the clock may have made.
const GAP_MS: i64 = 60_000;
/// Most spans of time that are remembered as taken back.
const MAX_SPANS: usize = 8;
/// A clock that shows a time before 2024 was never set: weir is younger.
pub const FIRST_PLAUSIBLE_MS: i64 = 1_704_067_200_000;
/// A set-back counts as recent for so long.
const RECENT_MS: i64 = 86_400_000;
/// Highest revision that is assumed of windows that fired before revisions were recorded.
const UNKNOWN_REVISION: u32 = 9_999;

/// What is remembered of the times when the clock was set back, and what is needed for the next time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetBacks {
    /// Journal time from which on no batch came [`LEAP_MS`] or more after the one before.
    pub leapt_ms: i64,
    /// Latest journal time before any such leap since the clock was last set back.
    before_leap_ms: i64,
    /// How much of the gaps between batches that may have been jumps counted against `state.device_ttl`, less what was taken
    /// off again.
    gap_awake_ms: i64,
    /// Highest revision of any window that fired.
    pub highest_revision: u32,
    /// The last set-back, if there was one.
    pub last: Option<SetBack>,
    /// Windows that end in these spans of time may have fired and been forgotten before the clock was set back. Start and end
    /// of each belong to it. In order; none touches another.
    taken_back: Vec<(i64, i64)>,
    /// Revision with which such windows begin.
    revision: u32,
    /// Farthest watermark of scope `global` that was set back.
    pub passed_ms: i64,
}

/// The clock was set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetBack {
    /// Journal time from which it was set back.
    pub from_ms: i64,
    /// Journal time to which it was set back.
    pub to_ms: i64,
}

impl Default for SetBacks {
    fn default() -> Self {
        Self {
            leapt_ms: NONE_MS,
            before_leap_ms: NONE_MS,
            gap_awake_ms: 0,
            highest_revision: 0,
            last: None,
            taken_back: Vec::new(),
            revision: 0,
            passed_ms: NONE_MS,
        }
    }
}

impl SetBacks {
    /// The state of a version that did not record it.
    pub fn unknown() -> Self {
        Self { highest_revision: UNKNOWN_REVISION, ..Self::default() }
    }

    /// Revision of the first firing of the window from `start_ms` to `end_ms`, of a device whose watermark was set back from
    /// `passed_ms`. It is above 0 where a window with the same start, of whatever size, may have fired in a time that was set
    /// back: start and revision tell all firings of a key apart.
    #[inline]
    pub fn first_revision(&self, start_ms: i64, end_ms: i64, passed_ms: i64) -> u32 {
        let meets = |&(from_ms, until_ms): &(i64, i64)| from_ms <= end_ms && start_ms <= until_ms;
        let may_have_fired = start_ms <= passed_ms && self.taken_back.iter().any(meets);
        if may_have_fired { self.revision } else { 0 }
    }

    /// Runs of fired windows that ended before this time are not needed: readings so old are rejected. The clock that leapt
    /// less than this age ago may be set back, and then readings from before the leap are accepted.
    pub fn oldest_run_ms(&self, settings: &Settings, now_ms: i64) -> i64 {
        let Some(max_age_ms) = settings.max_age_ms else { return NONE_MS };
        let oldest_ms = now_ms.saturating_sub(max_age_ms).saturating_sub(settings.window_ms);
        if self.leapt_ms > oldest_ms { NONE_MS } else { oldest_ms }
    }

    /// The last set-back, if it is recent.
    pub fn recent(&self, now_ms: i64) -> Option<SetBack> {
        self.last.filter(|last| now_ms.saturating_sub(last.to_ms) < RECENT_MS)
    }

    /// Notes the time between the last batch and that at `now_ms`, and how much of it counts against `state.device_ttl`.
    #[inline]
    pub fn note_gap(&mut self, now_ms: i64, gap_ms: i64, awake_ms: i64) {
        if gap_ms >= GAP_MS {
            self.gap_awake_ms = self.gap_awake_ms.saturating_add(awake_ms);
            if gap_ms >= LEAP_MS {
                self.leapt_ms = now_ms;
                self.before_leap_ms = self.before_leap_ms.max(now_ms.saturating_sub(gap_ms));
            }
        }
    }

    /// Notes that the clock is set back.
    fn note(&mut self, from_ms: i64, to_ms: i64, settings: &Settings) {
        let future_ms = future_ms(settings);
        let past_ms = settings.out_of_orderness_ms.saturating_add(settings.allowed_lateness_ms);
        let near = (to_ms.saturating_sub(past_ms), to_ms.saturating_add(future_ms).saturating_add(settings.window_ms));
        // Readings of the wrong time were accepted up to this age.
        let oldest_ms = settings.max_age_ms.map_or(NONE_MS, |max_age_ms| self.leapt_ms.saturating_sub(max_age_ms));
        let newest_ms = from_ms.saturating_add(future_ms).saturating_add(settings.window_ms);
        // Under the right clock no reading is so old as what was taken back before this. Devices may be far behind it.
        let accepted_ms = settings.max_age_ms.map_or(NONE_MS, |max_age_ms| to_ms.saturating_sub(max_age_ms));
        self.taken_back.retain(|&(_, until_ms)| until_ms >= accepted_ms.min(near.0));
        self.taken_back.extend([near, (oldest_ms.max(near.0), newest_ms)]);
        // The time before a leap may be later than the right clock, too.
        let before_leap_ms = std::mem::replace(&mut self.before_leap_ms, NONE_MS);
        if before_leap_ms > to_ms {
            let until_ms = before_leap_ms.saturating_add(future_ms).saturating_add(settings.window_ms);
            self.taken_back.push((near.0, until_ms));
        }
        self.merge();
        self.revision = self.highest_revision.saturating_add(1);
        self.leapt_ms = self.leapt_ms.min(to_ms);
        self.last = Some(SetBack { from_ms, to_ms });
    }

    /// Merges spans that touch, and those nearest to each other where there are too many.
    fn merge(&mut self) {
        self.taken_back.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(self.taken_back.len());
        for &(from_ms, until_ms) in &self.taken_back {
            match merged.last_mut() {
                Some(last) if from_ms <= last.1 => last.1 = last.1.max(until_ms),
                _ => merged.push((from_ms, until_ms)),
            }
        }
        while merged.len() > MAX_SPANS {
            let gap = |at: usize| merged[at + 1].0.saturating_sub(merged[at].1);
            let Some(nearest) = (0..merged.len() - 1).min_by_key(|&at| gap(at)) else { break };
            let (_, until_ms) = merged.remove(nearest + 1);
            merged[nearest].1 = until_ms;
        }
        self.taken_back = merged;
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i64(self.leapt_ms, out);
        put_i64(self.before_leap_ms, out);
        put_i64(self.gap_awake_ms, out);
        put_u64(u64::from(self.highest_revision), out);
        put_u64(u64::from(self.revision), out);
        put_i64(self.passed_ms, out);
        let last = self.last.map(|SetBack { from_ms, to_ms }| (from_ms, to_ms));
        // The last set-back and the spans, all as pairs of times. Without a last set-back there are no spans.
        put_u64((usize::from(last.is_some()) + self.taken_back.len()) as u64, out);
        for (from_ms, to_ms) in last.iter().chain(&self.taken_back) {
            put_i64(*from_ms, out);
            put_i64(*to_ms, out);
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut set_backs = Self {
            leapt_ms: reader.i64()?,
            before_leap_ms: reader.i64()?,
            gap_awake_ms: reader.i64()?,
            highest_revision: reader.u32()?,
            revision: reader.u32()?,
            passed_ms: reader.i64()?,
            ..Self::default()
        };
        for index in 0..reader.count()? {
            let (from_ms, to_ms) = (reader.i64()?, reader.i64()?);
            match index {
                0 => set_backs.last = Some(SetBack { from_ms, to_ms }),
                1..=MAX_SPANS => set_backs.taken_back.push((from_ms, to_ms)),
                _ => return Err(DecodeError::Content("times of a clock that was set back")),
            }
        }
        Ok(set_backs)
    }
}

/// What is wrong with the clock of the machine, as far as the journal tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BoxClockFault {
    /// It shows a time at which no machine was set.
    NeverSet {
        /// The time.
        now_ms: i64,
    },
    /// It was wrong until a short time ago.
    SetBack(SetBack),
}

impl fmt::Display for BoxClockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NeverSet { now_ms } => write!(
                f,
                "weir's own clock is wrong: it shows {}; once it is set, `weir errors replay` counts the reading",
                Rfc3339(now_ms)
            ),
            Self::SetBack(SetBack { from_ms, to_ms }) => write!(
                f,
                "weir's own clock was wrong until it was set back by {}; devices that take its time become right by \
                 themselves",
                Span(from_ms.saturating_sub(to_ms))
            ),
        }
    }
}

/// How far ahead of the right clock a time may be.
fn future_ms(settings: &Settings) -> i64 {
    settings.max_future_ms.unwrap_or(USUAL_FUTURE_MS)
}

/// The right clock, and the times that are possible under it.
#[derive(Debug, Clone, Copy)]
struct RightClock {
    now_ms: i64,
    /// Latest possible time of a reading.
    latest_ms: i64,
    /// Latest possible watermark.
    watermark_ms: i64,
}

impl RightClock {
    fn is_wrong(self, window: &Window) -> bool {
        window.end_ms > self.latest_ms
    }

    /// Lowers a watermark, and notes in `passed_ms` how far it was.
    fn lower_watermark(self, watermark_ms: &mut i64, passed_ms: &mut i64) {
        if *watermark_ms > self.watermark_ms && !defects::is(Defect::KeepWrongWatermarks) {
            *passed_ms = (*passed_ms).max(*watermark_ms);
            *watermark_ms = self.watermark_ms;
        }
    }

    fn lower_device(self, device: &mut Device) {
        let (mut passed_ms, live_ms) = (NONE_MS, device.live_ms());
        self.lower_watermark(&mut device.watermark_ms, &mut passed_ms);
        device.rare.raise_passed_ms(passed_ms);
        device.closed_ms = device.closed_ms.min(self.watermark_ms);
        device.newest_ms = device.newest_ms.min(self.now_ms);
        // The arrival time of a reading without a time of its own. What a device states tells its restarts as before.
        if device.newest_seen_ms == device.last_arrival_ms {
            device.newest_seen_ms = device.newest_seen_ms.min(self.now_ms);
        }
        device.last_arrival_ms = device.last_arrival_ms.min(self.now_ms);
        device.set_live_ms(live_ms);
        device.first_seen_ms = device.first_seen_ms.min(self.now_ms);
        device.sequences.set_back(self.now_ms);
        if let Some(share) = device.rare.existing_mut().and_then(|rare| rare.error_share.as_mut()) {
            share.set_back(self.now_ms);
        }
        // All offsets were measured with the wrong clock.
        (device.clock, device.clock_offset_ms) = (DeviceClock::default(), 0);
    }

    fn lower_clocks(self, clocks: &mut Clocks) {
        let journal = &mut clocks.journal;
        // The clock that stands still while weir is down goes back by as much as the jump moved it.
        let back_ms = journal.now_ms.saturating_sub(self.now_ms);
        let jumped_ms = clocks.set_backs.gap_awake_ms.min(back_ms);
        clocks.set_backs.gap_awake_ms -= jumped_ms;
        journal.paused_ms = journal.paused_ms.saturating_sub(back_ms).saturating_add(jumped_ms);
        journal.now_ms = self.now_ms;
        journal.listening_since_ms = self.now_ms;
        journal.swept_ms = journal.swept_ms.min(self.now_ms);
        self.lower_watermark(&mut clocks.global.watermark_ms, &mut clocks.set_backs.passed_ms);
        clocks.global.newest_ms = clocks.global.newest_ms.min(self.now_ms);
        clocks.global.last_arrival_ms = clocks.global.last_arrival_ms.min(self.now_ms);
        clocks.newest_ms = clocks.newest_ms.min(self.now_ms);
    }
}

impl Operator {
    /// What is wrong with the clock of the machine, for the sentence of a reading that is rejected by its time.
    pub(super) fn clock_fault(&self) -> Option<BoxClockFault> {
        let now_ms = self.clocks.journal.now_ms;
        if now_ms < FIRST_PLAUSIBLE_MS {
            return Some(BoxClockFault::NeverSet { now_ms });
        }
        self.clocks.set_backs.recent(now_ms).map(BoxClockFault::SetBack)
    }

    /// Journal times from which and to which the clock of the machine was last set back.
    pub fn last_set_back(&self) -> Option<(i64, i64)> {
        self.clocks.set_backs.last.map(|last| (last.from_ms, last.to_ms))
    }

    /// Sets journal time back to `to_ms`, before the batch that has this arrival time is applied. Only a batch that says so
    /// sets it back.
    pub fn set_clock_back(&mut self, to_ms: i64, out: &mut impl Collector) {
        let (from_ms, settings) = (self.clocks.journal.now_ms, &self.settings.current);
        if to_ms >= from_ms {
            return;
        }
        let right = RightClock {
            now_ms: to_ms,
            latest_ms: to_ms.saturating_add(future_ms(settings)),
            watermark_ms: watermark::after(to_ms, settings.out_of_orderness_ms),
        };
        for group in 0..KEY_GROUPS {
            self.about_to_change(group);
        }
        let slots: Vec<Slot> = self.devices.slots_after(None).collect();
        for &slot in &slots {
            self.mark_wrong_backlog(slot, right.latest_ms);
        }
        self.end_backlogs(&slots, out);
        self.fire_wrong(&slots, right, out);
        self.clocks.set_backs.note(from_ms, to_ms, &self.settings.current);
        for &slot in &slots {
            right.lower_device(&mut self.devices[slot]);
            self.lower_carried(slot, right.latest_ms, right.watermark_ms);
            self.lower_backlog(slot, right.watermark_ms);
        }
        right.lower_clocks(&mut self.clocks);
        self.owners.set_back(to_ms);
        self.clients.set_back(to_ms);
        self.unknown_error_share.set_back(to_ms);
        self.rebuild_indexes();
        self.drop_expired();
    }

    /// Fires the windows of the wrong time, those that fired before and are still held once more, and forgets them.
    fn fire_wrong(&mut self, slots: &[Slot], right: RightClock, out: &mut dyn Collector) {
        let mut due = std::mem::take(&mut self.work.due);
        for &slot in slots {
            let device = &mut self.devices[slot];
            let mut first_end_ms = NEVER_MS;
            for (index, series) in device.series.iter_mut().enumerate() {
                for (place, window) in series.windows.iter_mut().enumerate() {
                    if right.is_wrong(window) {
                        // Those of a backlog have fired.
                        if std::mem::replace(&mut window.flags.wrong_clock, true) {
                            continue;
                        }
                        let place = WindowPlace::Live(place);
                        due.push(DueWindow { end_ms: window.end_ms, slot, series: index, place });
                    } else if window.is_open() {
                        first_end_ms = first_end_ms.min(window.end_ms);
                    }
                }
            }
            device.first_end_ms = first_end_ms;
            let ends_ms = device.windows().filter(|(_, _, window)| right.is_wrong(window));
            let passed_ms = ends_ms.map(|(_, _, window)| window.end_ms.saturating_sub(1)).max();
            device.rare.raise_passed_ms(passed_ms.unwrap_or(NONE_MS));
        }
        self.sort_and_fire(&mut due, out);
        due.clear();
        self.work.due = due;
        for &slot in slots {
            for series in &mut self.devices[slot].series {
                let before = series.windows.len();
                series.windows.retain(|window| !right.is_wrong(window));
                self.series.windows -= before - series.windows.len();
            }
        }
    }
}
