//! The state of one device.

use std::sync::Arc;

use crate::core::added_fields::{UNKNOWN_FIELD, end_fields, put_field, read_fields};
use crate::core::backlog::Backlog;
use crate::core::carried::CarriedRules;
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64, put_words};
use crate::core::dedup::SequenceSet;
use crate::core::description::DeviceDescription;
use crate::core::device_clock::DeviceClock;
use crate::core::error_share::ErrorShare;
use crate::core::liveness::DeviceLiveness;
use crate::core::notes::DeviceNotes;
use crate::core::rare_state::{OddCounts, RareState};
use crate::core::reason::Reason;
use crate::core::retained::RetainedHistory;
use crate::core::sequences::DeviceSequences;
use crate::core::user::RecordedUser;
use crate::core::watermark::NONE_MS;
use crate::core::window::{Series, Window};
use crate::defects::{self, Defect};

/// A time that never comes: the device has no open window, or is not queued.
pub(super) const NEVER_MS: i64 = i64::MAX;

/// Up to this number of series a scan finds one faster than a binary search.
const SCANNED_SERIES: usize = 8;

// Tags of the added fields of a device.

/// The last retained messages.
const TAG_RETAINED: u8 = 1;
/// What is remembered beside the sequence numbers.
const TAG_SEQUENCES: u8 = 2;
/// [`OddCounts`].
const TAG_ODD_COUNTS: u8 = 3;
/// [`RareFields::passed_ms`](crate::core::rare_state::RareFields::passed_ms).
const TAG_PASSED: u8 = 4;
/// What is known of the clock.
const TAG_CLOCK: u8 = 5;
/// Rules of earlier settings that still hold.
const TAG_CARRIED: u8 = 8;
/// The backlog.
const TAG_BACKLOG: u8 = 9;
/// [`Device::holds_until_ms`] and [`Device::live_ms`].
const TAG_RETURN: u8 = 10;
/// What the errors log holds of the errors of the device.
const TAG_ERROR_SHARE: u8 = 11;
/// Whether the device is online.
const TAG_LIVENESS: u8 = 12;
/// What the device says of itself.
const TAG_DESCRIPTION: u8 = 13;
/// What a person was told about the device.
const TAG_NOTES: u8 = 20;

/// Index of a device, or of a client, in the table of all.
pub(super) type Slot = u32;

/// Id of a device. A copy costs no allocation.
pub type DeviceId = smol_str::SmolStr;

/// A window that is due to fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DueWindow {
    /// First millisecond after the window.
    pub end_ms: i64,
    /// Device of the window.
    pub slot: Slot,
    /// Index of the series in the device.
    pub series: usize,
    /// Where the window is.
    pub place: WindowPlace,
}

/// Where the window of a series is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowPlace {
    /// Among the windows of the series, at this index.
    Live(usize),
    /// In the backlog of the device. Holds the start of the window.
    Backlog(i64),
}

/// The state of one device.
#[derive(Debug, Clone)]
pub(super) struct Device {
    /// Device id.
    pub id: DeviceId,
    /// Key group of the device.
    pub group: u16,
    /// User whose message created the device.
    pub introduced_by: RecordedUser<Arc<str>>,
    /// Arrival time of that message; [`NONE_MS`] if a version created the device that did not record it.
    pub first_seen_ms: i64,
    /// Whether one of its windows got a late reading in this batch.
    pub touched: bool,
    /// Whether its expired windows are dropped at the end of this batch.
    pub to_clean: bool,
    /// Watermark of the device, under scope `device`.
    pub watermark_ms: i64,
    /// Newest event time in a window of the device.
    pub newest_ms: i64,
    /// How far `newest_ms` is ahead of the arrival of that reading, in milliseconds.
    pub clock_offset_ms: i64,
    /// Newest valid event time, of rejected readings too. A sequence number that comes again with a newer event time
    /// tells that the device restarted.
    pub newest_seen_ms: i64,
    /// Arrival time of the last message.
    pub last_arrival_ms: i64,
    /// Time of the last message on the clock that stands still while weir is down.
    pub last_awake_ms: i64,
    /// Windows that end at or before this time, plus one millisecond, are closed for good, unless the device holds them. A
    /// change of settings sets it: windows that were closed under the old settings stay closed.
    pub closed_ms: i64,
    /// Smallest end of the open windows, or [`NEVER_MS`].
    pub first_end_ms: i64,
    /// Time at which the device is queued to be looked at for silence, or [`NEVER_MS`].
    pub queued_ms: i64,
    /// Sequence numbers seen since the device restarted.
    pub sequences: DeviceSequences,
    /// Hash of the last `boot` that the device sent.
    pub boot: Option<u64>,
    /// Number of readings in windows.
    pub accepted: u64,
    /// What is known of its clock.
    pub clock: DeviceClock,
    /// Until this time windows that expire are held for a backlog, although none has come: the device was away.
    pub holds_until_ms: i64,
    /// What most devices do not have.
    pub rare: RareState,
    /// Series of the device, in order of metric name.
    pub series: Vec<Series>,
}

impl Device {
    /// A device without readings.
    pub fn new(id: DeviceId, group: u16) -> Self {
        Self {
            id,
            group,
            introduced_by: RecordedUser::Unknown,
            first_seen_ms: NONE_MS,
            touched: false,
            to_clean: false,
            watermark_ms: NONE_MS,
            newest_ms: NONE_MS,
            clock_offset_ms: 0,
            newest_seen_ms: NONE_MS,
            last_arrival_ms: NONE_MS,
            last_awake_ms: NONE_MS,
            closed_ms: NONE_MS,
            first_end_ms: NEVER_MS,
            queued_ms: NEVER_MS,
            sequences: DeviceSequences::default(),
            boot: None,
            accepted: 0,
            clock: DeviceClock::default(),
            holds_until_ms: NONE_MS,
            rare: RareState::default(),
            series: Vec::new(),
        }
    }

    /// Index of the series of `metric`; `Err`: where a new one belongs.
    #[inline]
    pub fn find_series(&self, metric: &str) -> Result<usize, usize> {
        if self.series.len() <= SCANNED_SERIES
            && let Some(index) = self.series.iter().position(|series| *series.metric == *metric)
        {
            return Ok(index);
        }
        self.series.binary_search_by(|series| (*series.metric).cmp(metric))
    }

    /// Adds a series where [`Device::find_series`] says that it belongs.
    pub fn insert_series(&mut self, at: usize, series: Series) {
        self.series.reserve_exact(1);
        self.series.insert(at, series);
        if let Some(backlog) = self.rare.backlog_mut() {
            backlog.insert_series(at);
        }
        if let Some(description) = self.rare.existing_mut().and_then(|rare| rare.description.as_mut()) {
            description.units.insert_series(at);
        }
    }

    /// The newest window of a series that fired.
    pub fn last_fired(&self, index: usize) -> Option<&Window> {
        let live = self.series.get(index).and_then(Series::last_fired);
        let behind = self.rare.backlog.as_ref().and_then(|backlog| backlog.last_fired(index));
        live.into_iter().chain(behind).max_by_key(|window| window.end_ms)
    }

    /// Arrival time of the last message; while the device has a backlog, of the last one with a reading that was not behind
    /// the watermark. Silence begins there.
    #[inline]
    pub fn live_ms(&self) -> i64 {
        self.rare.live_ms.unwrap_or(self.last_arrival_ms)
    }

    /// Sets [`Device::live_ms`].
    #[inline]
    pub fn set_live_ms(&mut self, live_ms: i64) {
        if live_ms != self.last_arrival_ms {
            self.rare.fields_mut().live_ms = Some(live_ms);
        } else if let Some(rare) = self.rare.existing_mut() {
            rare.live_ms = None;
        }
    }

    /// Notes the arrival of a message. Returns whether it may be a sign that the live data of the device goes on: it is none
    /// while the device has a backlog.
    #[inline]
    pub fn note_arrival(&mut self, now_ms: i64, awake_ms: i64) -> bool {
        let before_ms = std::mem::replace(&mut self.last_arrival_ms, now_ms);
        self.last_awake_ms = awake_ms;
        let Some(rare) = self.rare.existing_mut() else { return true };
        if rare.backlog.is_some() {
            rare.live_ms.get_or_insert(before_ms);
            return false;
        }
        if rare.live_ms.take().is_some() {
            self.rare.drop_empty();
        }
        true
    }

    /// All windows of the device, each with the index of its series and its own index.
    pub fn windows(&self) -> impl Iterator<Item = (usize, usize, &Window)> {
        let series = self.series.iter().enumerate();
        series.flat_map(|(s, series)| series.windows.iter().enumerate().map(move |(w, window)| (s, w, window)))
    }

    /// Largest end of the open windows.
    pub fn newest_open_end_ms(&self) -> Option<i64> {
        self.windows().filter(|(_, _, window)| window.is_open()).map(|(_, _, window)| window.end_ms).max()
    }

    /// Collects into `due` the open windows that `watermark_ms` makes due, and updates `first_end_ms` to those that stay
    /// open.
    pub fn collect_due(&mut self, slot: Slot, watermark_ms: i64, due: &mut Vec<DueWindow>) {
        let mut first_end_ms = NEVER_MS;
        for (series, window, state) in self.windows() {
            if !state.is_open() {
                continue;
            }
            if state.end_ms.saturating_sub(1) <= watermark_ms {
                due.push(DueWindow { end_ms: state.end_ms, slot, series, place: WindowPlace::Live(window) });
            } else {
                first_end_ms = first_end_ms.min(state.end_ms);
            }
        }
        self.first_end_ms = first_end_ms;
    }

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(self.id.as_bytes(), out);
        put_words(self.times().map(i64::cast_unsigned), out);
        if defects::is(Defect::ForgetSequences) {
            <SequenceSet>::default().encode(out)
        } else {
            self.sequences.seen.encode(out)
        }
        out.push(u8::from(self.boot.is_some()));
        if let Some(boot) = self.boot {
            out.extend_from_slice(&boot.to_le_bytes());
        }
        put_u64(self.accepted, out);
        put_u64(self.rare.rejected.len() as u64, out);
        for &(reason, count) in &self.rare.rejected {
            out.push(reason as u8);
            put_u64(count, out);
        }
        put_u64(self.series.len() as u64, out);
        for series in &self.series {
            series.encode(out);
        }
        self.introduced_by.encode(out);
        put_i64(self.first_seen_ms, out);
        put_field(TAG_CLOCK, out, |out| self.clock.encode(out));
        if self.rare.passed_ms != NONE_MS {
            put_field(TAG_PASSED, out, |out| put_i64(self.rare.passed_ms, out));
        }
        if self.rare.odd != OddCounts::default() {
            put_field(TAG_ODD_COUNTS, out, |out| {
                put_u64(self.rare.odd.values_absent, out);
                put_u64(self.rare.odd.arrival_times, out);
            });
        }
        if self.rare.notes != DeviceNotes::default() {
            put_field(TAG_NOTES, out, |out| out.push(self.rare.notes.0));
        }
        put_field(TAG_SEQUENCES, out, |out| self.sequences.encode_memory(out));
        if let Some(retained) = &self.rare.retained {
            put_field(TAG_RETAINED, out, |out| retained.encode(out));
        }
        if let Some(backlog) = &self.rare.backlog {
            put_field(TAG_BACKLOG, out, |out| backlog.encode(out));
        }
        // A time that has passed means nothing any more.
        let holds_until_ms = if self.holds_until_ms > self.last_arrival_ms { self.holds_until_ms } else { NONE_MS };
        if holds_until_ms != NONE_MS || self.live_ms() != self.last_arrival_ms {
            put_field(TAG_RETURN, out, |out| {
                put_i64(holds_until_ms, out);
                put_i64(self.live_ms(), out);
            });
        }
        if let Some(share) = &self.rare.error_share {
            put_field(TAG_ERROR_SHARE, out, |out| share.encode(out));
        }
        if let Some(liveness) = &self.rare.liveness {
            put_field(TAG_LIVENESS, out, |out| liveness.encode(out));
        }
        if let Some(description) = &self.rare.description {
            put_field(TAG_DESCRIPTION, out, |out| description.encode(out));
        }
        if let Some(carried) = &self.rare.carried
            && !defects::is(Defect::ForgetWindowSizes)
        {
            put_field(TAG_CARRIED, out, |out| carried.encode(out));
        }
        end_fields(out);
    }

    fn times(&self) -> [i64; 7] {
        [
            self.watermark_ms,
            self.newest_ms,
            self.clock_offset_ms,
            self.newest_seen_ms,
            self.last_arrival_ms,
            self.last_awake_ms,
            self.closed_ms,
        ]
    }

    /// Reads the end of the stored form, which group formats 1 and 2 do not have.
    pub fn decode_introduction(&mut self, reader: &mut FieldReader<'_>) -> Result<(), DecodeError> {
        self.introduced_by = RecordedUser::decode(reader)?.to_kept();
        self.first_seen_ms = reader.i64()?;
        Ok(())
    }

    /// Reads the added fields, which are behind the introduction. Group formats 1 to 3 do not have them.
    pub fn decode_fields(&mut self, reader: &mut FieldReader<'_>) -> Result<(), DecodeError> {
        read_fields(reader, |tag, field| match tag {
            TAG_CLOCK => {
                self.clock = DeviceClock::decode(field)?;
                Ok(())
            }
            TAG_BACKLOG => {
                self.rare.fields_mut().backlog = Some(Box::new(Backlog::decode(field, self.series.len())?));
                Ok(())
            }
            TAG_RETURN => {
                self.holds_until_ms = field.i64()?;
                self.set_live_ms(field.i64()?);
                Ok(())
            }
            TAG_ODD_COUNTS => {
                self.rare.fields_mut().odd = OddCounts { values_absent: field.u64()?, arrival_times: field.u64()? };
                Ok(())
            }
            TAG_NOTES => {
                self.rare.fields_mut().notes = DeviceNotes(field.u8()?);
                Ok(())
            }
            TAG_SEQUENCES => self.sequences.decode_memory(field),
            TAG_RETAINED => {
                self.rare.fields_mut().retained = Some(Box::new(RetainedHistory::decode(field)?));
                Ok(())
            }
            TAG_ERROR_SHARE => {
                self.rare.fields_mut().error_share = Some(Box::new(ErrorShare::decode(field)?));
                Ok(())
            }
            TAG_LIVENESS => {
                self.rare.fields_mut().liveness = Some(Box::new(DeviceLiveness::decode(field)?));
                Ok(())
            }
            TAG_DESCRIPTION => {
                let description = DeviceDescription::decode(field, self.series.len())?;
                self.rare.fields_mut().description = Some(Box::new(description));
                Ok(())
            }
            TAG_PASSED => {
                self.rare.raise_passed_ms(field.i64()?);
                Ok(())
            }
            TAG_CARRIED => {
                self.rare.fields_mut().carried = Some(Box::new(CarriedRules::decode(field)?));
                Ok(())
            }
            _ => Err(UNKNOWN_FIELD),
        })
    }

    /// Reads the stored form up to [`Device::decode_introduction`]. `has_fields` says whether series have added fields.
    pub fn decode(reader: &mut FieldReader<'_>, group: u16, has_fields: bool) -> Result<Self, DecodeError> {
        let mut device = Self::new(reader.str()?.into(), group);
        [
            device.watermark_ms,
            device.newest_ms,
            device.clock_offset_ms,
            device.newest_seen_ms,
            device.last_arrival_ms,
            device.last_awake_ms,
            device.closed_ms,
        ] = reader.words()?.map(u64::cast_signed);
        device.sequences.seen = SequenceSet::decode(reader)?;
        device.boot = match reader.u8()? {
            0 => None,
            1 => Some(reader.u64_le()?),
            _ => return Err(DecodeError::Content("boot")),
        };
        device.accepted = reader.u64()?;
        for _ in 0..reader.count()? {
            let reason = Reason::from_code(reader.u8()?).ok_or("unknown reason")?;
            device.rare.fields_mut().rejected.push((reason, reader.u64()?));
        }
        let count = reader.count()?;
        device.series.reserve_exact(count.min(1024));
        for _ in 0..count {
            device.series.push(Series::decode(reader, has_fields)?);
        }
        let ordered = device.rare.rejected.is_sorted_by(|a, b| a.0 < b.0)
            && device.series.is_sorted_by(|a, b| a.metric < b.metric);
        if !ordered {
            return Err(DecodeError::Content("a device's lists out of order"));
        }
        let open = device.windows().filter(|(_, _, window)| window.is_open());
        device.first_end_ms = open.map(|(_, _, window)| window.end_ms).min().unwrap_or(NEVER_MS);
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::aggregate::Aggregate;
    use crate::core::output::WindowFlags;

    fn device(windows: &[(&str, i64, u32)]) -> Device {
        let mut device = Device::new("d".into(), 3);
        for &(metric, start_ms, firings) in windows {
            let at = device.find_series(metric);
            let at = at.unwrap_or_else(|at| {
                device.series.insert(at, Series::new(metric.into(), None));
                at
            });
            let aggregate = Aggregate::new(1.0, start_ms);
            let window = Window {
                start_ms,
                end_ms: start_ms + 10,
                aggregate,
                fired_seq: u64::from(firings),
                firings,
                touched: false,
                flags: WindowFlags::default(),
            };
            device.series[at].add_window(window);
        }
        device
    }

    #[test]
    fn series_are_found_among_few_and_many() {
        let mut device = device(&[]);
        for index in (0..100).rev() {
            let metric = format!("m{index:02}");
            let at = device.find_series(&metric).unwrap_err();
            device.series.insert(at, Series::new(metric.as_str().into(), None));
            assert_eq!(device.find_series(&metric), Ok(at));
        }
        assert!(device.series.is_sorted_by(|a, b| a.metric < b.metric));
        assert_eq!(device.find_series("m50"), Ok(50));
        assert_eq!(device.find_series("m505"), Err(51));
    }

    #[test]
    fn due_windows_leave_the_account() {
        let mut device = device(&[("a", 0, 0), ("a", 10, 0), ("b", 0, 1), ("b", 20, 0)]);
        let mut due = Vec::new();
        device.collect_due(9, 19, &mut due);
        let ends: Vec<_> = due.iter().map(|due| (due.end_ms, due.series, due.place)).collect();
        assert_eq!(ends, [(10, 0, WindowPlace::Live(0)), (20, 0, WindowPlace::Live(1))]);
        assert_eq!(device.first_end_ms, 30);
        assert_eq!(device.newest_open_end_ms(), Some(30));
    }

    #[test]
    fn rejections_are_counted_by_reason() {
        let mut device = device(&[]);
        for reason in [Reason::Late, Reason::Malformed, Reason::Late] {
            device.rare.count_rejected(reason);
        }
        assert_eq!(device.rare.rejected, [(Reason::Malformed, 1), (Reason::Late, 2)]);
    }

    /// Messages while there is a backlog leave the time of live data as it is.
    #[test]
    fn live_data_goes_on_behind_a_backlog() {
        let mut device = device(&[]);
        let arrives = |device: &mut Device, now_ms, expected| {
            let is_live = device.note_arrival(now_ms, now_ms);
            assert_eq!((is_live, device.live_ms(), device.last_arrival_ms), expected);
        };
        arrives(&mut device, 10, (true, 10, 10));
        assert!(device.rare.existing_mut().is_none());
        device.rare.fields_mut().backlog = Some(Box::new(Backlog::new(10, 0)));
        arrives(&mut device, 20, (false, 10, 20));
        device.set_live_ms(20);
        arrives(&mut device, 30, (false, 20, 30));
        arrives(&mut device, 40, (false, 20, 40));
        device.rare.fields_mut().backlog = None;
        assert_eq!(device.live_ms(), 20);
        arrives(&mut device, 50, (true, 50, 50));
        assert!(device.rare.existing_mut().is_none());
    }

    /// The memory of 100,000 devices with one metric is a promise. State that few devices have belongs into [`RareState`].
    #[test]
    fn what_every_device_has_stays_small() {
        assert_eq!(std::mem::size_of::<Device>(), 288);
        assert_eq!(std::mem::size_of::<Series>(), 72);
        assert_eq!(std::mem::size_of::<Window>(), 128);
    }

    #[test]
    fn the_stored_form_reads_back() {
        let mut device = device(&[("a", 0, 0), ("b", 0, 1), ("b", 20, 0)]);
        device.boot = Some(7);
        device.introduced_by = RecordedUser::Named("u".into());
        device.first_seen_ms = -3;
        device.sequences.seen.insert(4);
        device.sequences.count_invalid();
        device.closed_ms = 77;
        device.rare.fields_mut().odd = OddCounts { values_absent: 3, arrival_times: 200 };
        device.rare.fields_mut().notes = DeviceNotes(2);
        device.rare.fields_mut().carried = Some(Box::default());
        device.rare.count_rejected(Reason::Late);
        device.first_end_ms = 10;
        let mut bytes = Vec::new();
        device.encode(&mut bytes);
        let restore = |bytes: &[u8]| {
            let mut reader = FieldReader::new(bytes);
            let mut device = Device::decode(&mut reader, 3, true)?;
            device.decode_introduction(&mut reader)?;
            device.decode_fields(&mut reader).map(|()| device)
        };
        assert_eq!(format!("{:?}", restore(&bytes).unwrap()), format!("{device:?}"));
        for len in 0..bytes.len() {
            assert!(restore(&bytes[..len]).is_err(), "prefix of {len} bytes");
        }
    }
}
