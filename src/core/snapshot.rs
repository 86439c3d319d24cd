//! Snapshots of the operator's state: one header, and one blob per key group that changed.
//!
//! ```text
//! header  04 settings(JSON) totals counters clock global-scope replays devices-forgotten devices-refused added-fields
//! group   04 devices clients
//! ```
//! A header of format 1 ends before the replays, one of format 2 behind them, one of format 3 before the added fields. Groups of
//! formats 1 to 3 have no added fields in devices and series, groups of formats 1 and 2 name no users, and clients in a
//! group of format 1 have a ring of messages. Totals of earlier versions may have fewer reasons. Fields are in the binary form
//! of [`codec`](crate::core::codec). Indexes, deadlines and sizes are not stored, because they can be derived.

use std::hint::black_box;

use crate::core::added_fields::{UNKNOWN_FIELD, end_fields, put_field, read_fields};
use crate::core::client::RememberedClient;
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64};
use crate::core::dedup::SequenceSet;
use crate::core::device::{Device, Slot};
use crate::core::error_share::ErrorShare;
use crate::core::formats::MapMemory;
use crate::core::group::{GroupBlob, GroupChange, Groups, key_group};
use crate::core::map_activity::MapActivities;
use crate::core::operator::Operator;
use crate::core::owners::DeviceLimit;
use crate::core::reason::Reason;
use crate::core::replayed::{DividedElements, ReplayedSet};
use crate::core::set_back::SetBacks;
use crate::core::settings::Settings;
use crate::core::totals::Totals;
use crate::core::watermark::NONE_MS;
use crate::defects::{self, Defect};

/// Format of the header.
const HEADER_FORMAT: u8 = 4;
/// Header of versions that had no added fields.
const HEADER_WITHOUT_FIELDS: u8 = 3;
/// Header of versions that forgot devices only after their silence.
const HEADER_WITHOUT_FORGETTING: u8 = 2;
/// Header of versions without replays.
const HEADER_WITHOUT_REPLAYS: u8 = 1;

/// Format of a key group.
const GROUP_FORMAT: u8 = 4;
/// Group of versions that had no added fields.
const GROUP_WITHOUT_FIELDS: u8 = 3;
/// Group of versions that did not record users.
const GROUP_WITHOUT_USERS: u8 = 2;
/// Group of versions that remembered at most 64 messages of a client.
const GROUP_WITH_RINGS: u8 = 1;

// Tags of the added fields of the header.

/// Number of messages that repeated what was retained.
const TAG_RETAINED_REPEATS: u8 = 1;
/// Counts of sequence numbers.
const TAG_SEQUENCE_COUNTS: u8 = 2;
/// Counts of absent values, arrival times and cleared topics.
const TAG_ODD_TOTALS: u8 = 3;
/// Times when the clock of the machine was set back.
const TAG_SET_BACKS: u8 = 4;
/// Number of window sizes that were dropped before their time.
const TAG_SIZES_DROPPED: u8 = 8;
/// Counts of backlogs, and until when windows of all devices are held.
const TAG_BACKLOGS: u8 = 9;
/// What the errors log holds of errors without a known device, and the number of errors that were not stored.
const TAG_ERROR_SHARE: u8 = 11;
/// Elements of which a part was replayed.
const TAG_DIVIDED_ELEMENTS: u8 = 12;
/// What maps remember of earlier messages.
const TAG_MAP_MEMORY: u8 = 13;
/// What became of the messages of each map.
const TAG_MAP_ACTIVITIES: u8 = 14;
/// What discovery messages said.
const TAG_DISCOVERIES: u8 = 15;
/// The first message of each map that gave readings.
const TAG_FIRST_READINGS: u8 = 20;

/// State that cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The header is not of a known format.
    #[error("the stored state is not of this format: {0} in the header")]
    Header(DecodeError),
    /// A key group is not of a known format, or contradicts the others.
    #[error("the stored state is not of this format: {what} in key group {group}")]
    Group {
        /// The key group.
        group: u16,
        /// What does not fit.
        what: DecodeError,
    },
}

impl Operator {
    /// Begins a snapshot of the state as it is now, and returns the part that is in no key group.
    /// [`Operator::snapshot_step`] returns the groups that changed since the last snapshot. A group that is about to
    /// change meanwhile is encoded before it does. An unfinished snapshot counts as failed.
    pub fn begin_snapshot(&mut self) -> Vec<u8> {
        self.groups.begin();
        self.encode_header()
    }

    /// Encodes up to `max_groups` further groups into `out`. Returns whether the snapshot is complete.
    pub fn snapshot_step(&mut self, max_groups: usize, out: &mut Vec<GroupBlob>) -> bool {
        for _ in 0..max_groups {
            if let Some(blob) = self.groups.early.pop() {
                out.push(blob);
            } else if let Some(group) = self.groups.next_pending() {
                out.push(GroupBlob { group, bytes: self.encode_group(group) });
                self.groups.get_mut(group).change = GroupChange::Unchanged;
            } else {
                break;
            }
        }
        self.groups.early.is_empty() && self.groups.next_pending().is_none()
    }

    /// Notes that the last snapshot could not be stored: all groups count as changed.
    pub fn snapshot_failed(&mut self) {
        self.groups.change_all();
    }

    /// Marks a group as changed. If a running snapshot has not encoded it yet, it is encoded first.
    #[cold]
    pub(super) fn begin_change(&mut self, group: u16) {
        if self.groups.get(group).change == GroupChange::Pending {
            let bytes = self.encode_group(group);
            self.groups.early.push(GroupBlob { group, bytes });
        }
        self.groups.get_mut(group).change = GroupChange::Changed;
    }

    fn encode_group(&self, group: u16) -> Vec<u8> {
        let members = self.groups.get(group);
        self.touch(&members.devices);
        let mut out = Vec::with_capacity(64 + 256 * members.devices.len());
        out.push(GROUP_FORMAT);
        put_u64(members.devices.len() as u64, &mut out);
        for &slot in &members.devices {
            self.devices[slot].encode(&mut out);
        }
        let clients = members.clients.iter().filter_map(|&slot| self.clients.get(slot));
        let clients = clients.filter(|_| !defects::is(Defect::ForgetRedeliveryIdentity));
        put_u64(clients.clone().count() as u64, &mut out);
        for client in clients {
            client.encode(&mut out);
        }
        out
    }

    /// Reads a little of each device before all are encoded. Their memory is scattered: loads that do not depend on each
    /// other overlap, and encoding finds the data in the cache. This halves the time of a snapshot.
    fn touch(&self, slots: &[Slot]) {
        let devices = || slots.iter().map(|&slot| &self.devices[slot]);
        let series = || devices().filter_map(|device| device.series.first());
        black_box(devices().map(|device| device.last_awake_ms ^ device.accepted as i64).fold(0, i64::wrapping_add));
        black_box(devices().map(|device| device.id.as_bytes().first().copied().unwrap_or(0)).fold(0, u8::wrapping_add));
        black_box(series().map(|series| series.windows.len()).sum::<usize>());
        let windows = series().filter_map(|series| series.windows.first());
        black_box(windows.map(|window| window.start_ms ^ window.fired_seq as i64).fold(0, i64::wrapping_add));
    }

    fn encode_header(&self) -> Vec<u8> {
        let mut out = vec![HEADER_FORMAT];
        put_bytes(&self.settings.current.to_json(), &mut out);
        encode_totals(&self.totals, &mut out);
        put_u64(self.next_seq.window, &mut out);
        put_u64(self.next_seq.error, &mut out);
        let (clock, global) = (&self.clocks.journal, &self.clocks.global);
        for time_ms in [
            clock.now_ms,
            clock.listening_since_ms,
            clock.paused_ms,
            clock.swept_ms,
            global.watermark_ms,
            global.newest_ms,
            global.last_arrival_ms,
            self.clocks.newest_ms,
        ] {
            put_i64(time_ms, &mut out);
        }
        let Totals { replays, replays_ignored, replay_ranges_merged, .. } = self.totals;
        for count in [replays, replays_ignored, replay_ranges_merged] {
            put_u64(count, &mut out);
        }
        self.replays.replayed.encode(&mut out);
        self.replays.uncounted.encode(&mut out);
        put_u64(self.totals.devices_forgotten, &mut out);
        put_u64(DeviceLimit::COUNT as u64, &mut out);
        for count in self.totals.devices_refused {
            put_u64(count, &mut out);
        }
        put_field(TAG_SEQUENCE_COUNTS, &mut out, |out| encode_sequence_counts(&self.totals, out));
        let retained = [self.totals.retained_repeats, self.totals.retained_topics_forgotten];
        if retained != [0; 2] {
            put_field(TAG_RETAINED_REPEATS, &mut out, |out| retained.into_iter().for_each(|count| put_u64(count, out)));
        }
        let Totals { windows_backlog, backlog_windows_forced, fired_runs_merged, .. } = self.totals;
        let counts = [windows_backlog, backlog_windows_forced, fired_runs_merged];
        if counts != [0; 3] || global.holds_until_ms != NONE_MS {
            put_field(TAG_BACKLOGS, &mut out, |out| {
                counts.into_iter().for_each(|count| put_u64(count, out));
                put_i64(global.holds_until_ms, out);
            });
        }
        if self.unknown_error_share != ErrorShare::default() || self.totals.errors_not_stored > 0 {
            put_field(TAG_ERROR_SHARE, &mut out, |out| {
                self.unknown_error_share.encode(out);
                put_u64(self.totals.errors_not_stored, out);
            });
        }
        if !self.replays.divided.is_empty() {
            put_field(TAG_DIVIDED_ELEMENTS, &mut out, |out| {
                put_u64(self.totals.replay_elements_forgotten, out);
                self.replays.divided.encode(out);
            });
        }
        if !defects::is(Defect::ForgetBirths) {
            put_field(TAG_MAP_MEMORY, &mut out, |out| self.map_memory.encode(out));
        }
        put_field(TAG_MAP_ACTIVITIES, &mut out, |out| self.map_activities.encode(out));
        put_field(TAG_DISCOVERIES, &mut out, |out| self.map_memory.encode_discoveries(out));
        put_field(TAG_FIRST_READINGS, &mut out, |out| self.map_activities.encode_firsts(out));
        put_field(TAG_SET_BACKS, &mut out, |out| self.clocks.set_backs.encode(out));
        if self.totals.window_sizes_dropped > 0 {
            put_field(TAG_SIZES_DROPPED, &mut out, |out| put_u64(self.totals.window_sizes_dropped, out));
        }
        put_field(TAG_ODD_TOTALS, &mut out, |out| {
            let counts = [self.totals.values_absent, self.totals.arrival_times, self.totals.topics_cleared];
            for count in counts.into_iter().filter(|_| counts != [0; 3]) {
                put_u64(count, out);
            }
        });
        end_fields(&mut out);
        out
    }

    /// Restores the state from the header of [`Operator::begin_snapshot`] and the newest blob of every group.
    ///
    /// # Errors
    /// Bytes that are of no known format or contradict each other.
    pub fn restore<'a>(header: &[u8], groups: impl Iterator<Item = (u16, &'a [u8])>) -> Result<Self, RestoreError> {
        let mut operator = Self::decode_header(header).map_err(RestoreError::Header)?;
        for (group, bytes) in groups {
            operator.restore_group(group, bytes).map_err(|what| RestoreError::Group { group, what })?;
        }
        operator.rebuild_indexes();
        Ok(operator)
    }

    fn decode_header(header: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = FieldReader::new(header);
        let format = reader.u8()?;
        if !(HEADER_WITHOUT_REPLAYS..=HEADER_FORMAT).contains(&format) {
            return Err(DecodeError::Content("unknown format"));
        }
        let mut operator = Self::new(Settings::from_json(reader.bytes()?)?);
        operator.clocks.set_backs = SetBacks::unknown();
        operator.totals = decode_totals(&mut reader)?;
        operator.next_seq.window = reader.u64()?;
        operator.next_seq.error = reader.u64()?;
        operator.clocks.journal.now_ms = reader.i64()?;
        operator.clocks.journal.listening_since_ms = reader.i64()?;
        operator.clocks.journal.paused_ms = reader.i64()?;
        operator.clocks.journal.swept_ms = reader.i64()?;
        operator.clocks.global.watermark_ms = reader.i64()?;
        operator.clocks.global.newest_ms = reader.i64()?;
        operator.clocks.global.last_arrival_ms = reader.i64()?;
        operator.clocks.newest_ms = reader.i64()?;
        if format >= HEADER_WITHOUT_FORGETTING {
            operator.totals.replays = reader.u64()?;
            operator.totals.replays_ignored = reader.u64()?;
            operator.totals.replay_ranges_merged = reader.u64()?;
            operator.replays.replayed = ReplayedSet::decode(&mut reader)?;
            operator.replays.uncounted = SequenceSet::decode(&mut reader)?;
        }
        if format >= HEADER_WITHOUT_FIELDS {
            operator.totals.devices_forgotten = reader.u64()?;
            let count = reader.count()?;
            let counts = operator.totals.devices_refused.get_mut(..count).ok_or("another number of limits")?;
            for count in counts {
                *count = reader.u64()?;
            }
        }
        if format >= HEADER_FORMAT {
            read_fields(&mut reader, |tag, field| operator.read_field(tag, field))?;
        }
        reader.end()?;
        Ok(operator)
    }

    /// Reads one added field of the header.
    fn read_field(&mut self, tag: u8, field: &mut FieldReader<'_>) -> Result<(), DecodeError> {
        match tag {
            TAG_SEQUENCE_COUNTS => decode_sequence_counts(field, &mut self.totals),
            TAG_ERROR_SHARE => {
                self.unknown_error_share = ErrorShare::decode(field)?;
                self.totals.errors_not_stored = field.u64()?;
                Ok(())
            }
            TAG_DIVIDED_ELEMENTS => {
                self.totals.replay_elements_forgotten = field.u64()?;
                self.replays.divided = DividedElements::decode(field)?;
                Ok(())
            }
            TAG_RETAINED_REPEATS => {
                self.totals.retained_repeats = field.u64()?;
                self.totals.retained_topics_forgotten = field.u64()?;
                Ok(())
            }
            TAG_ODD_TOTALS => {
                self.totals.values_absent = field.u64()?;
                self.totals.arrival_times = field.u64()?;
                self.totals.topics_cleared = field.u64()?;
                Ok(())
            }
            TAG_BACKLOGS => {
                self.totals.windows_backlog = field.u64()?;
                self.totals.backlog_windows_forced = field.u64()?;
                self.totals.fired_runs_merged = field.u64()?;
                self.clocks.global.holds_until_ms = field.i64()?;
                Ok(())
            }
            TAG_SET_BACKS => {
                self.clocks.set_backs = SetBacks::decode(field)?;
                Ok(())
            }
            TAG_MAP_MEMORY => {
                self.map_memory = MapMemory::decode(field)?.with_discoveries_of(&self.map_memory);
                Ok(())
            }
            TAG_DISCOVERIES => self.map_memory.decode_discoveries(field),
            TAG_MAP_ACTIVITIES => {
                self.map_activities = MapActivities::decode(field)?.of(&self.settings.current.maps);
                Ok(())
            }
            TAG_FIRST_READINGS => self.map_activities.decode_firsts(field),
            TAG_SIZES_DROPPED => {
                self.totals.window_sizes_dropped = field.u64()?;
                Ok(())
            }
            _ => Err(UNKNOWN_FIELD),
        }
    }

    fn restore_group(&mut self, group: u16, bytes: &[u8]) -> Result<(), DecodeError> {
        let members = Groups::contains(group).then(|| self.groups.get(group)).ok_or("no such group")?;
        if !members.devices.is_empty() || !members.clients.is_empty() {
            return Err(DecodeError::Content("a second blob"));
        }
        let mut reader = FieldReader::new(bytes);
        let format = reader.u8()?;
        if !(GROUP_WITH_RINGS..=GROUP_FORMAT).contains(&format) {
            return Err(DecodeError::Content("unknown format"));
        }
        for _ in 0..reader.count()? {
            let has_fields = format >= GROUP_FORMAT;
            let mut device = Device::decode(&mut reader, group, has_fields)?;
            if format >= GROUP_WITHOUT_FIELDS {
                device.decode_introduction(&mut reader)?;
            }
            if has_fields {
                device.decode_fields(&mut reader)?;
            }
            for series in &mut device.series {
                series.metric = self.series.metric_names.share(&series.metric);
            }
            if let Some(description) = device.rare.existing_mut().and_then(|rare| rare.description.as_mut()) {
                description.units.share(|unit| self.series.units.share(unit));
            }
            if key_group(&device.id) != group || self.devices.find(&device.id).is_some() {
                return Err(DecodeError::Content("a device that does not belong there"));
            }
            self.series.count += device.series.len();
            self.series.windows += device.windows().count();
            self.series.open_windows += device.windows().filter(|(_, _, window)| window.is_open()).count();
            self.extra_digests += device.sequences.extra_digests();
            self.offline += Self::offline_count(device.rare.liveness.as_deref());
            self.add_device(device);
        }
        for _ in 0..reader.count()? {
            let client = match format {
                GROUP_WITH_RINGS => RememberedClient::decode_ring(&mut reader, group)?,
                GROUP_WITHOUT_USERS => RememberedClient::decode_without_user(&mut reader, group)?,
                _ => RememberedClient::decode(&mut reader, group)?,
            };
            if key_group(client.key().id) != group || self.clients.find(client.key()).is_some() {
                return Err(DecodeError::Content("a client that does not belong there"));
            }
            self.insert_client(client);
        }
        reader.end()
    }
}

fn encode_totals(totals: &Totals, out: &mut Vec<u8>) {
    let Totals {
        messages,
        received,
        in_windows,
        rejected,
        windows_first,
        windows_corrected,
        sequence_ranges_merged,
        devices_expired,
        // These are at the end of the header, because a later format added them.
        replays: _,
        replays_ignored: _,
        replay_ranges_merged: _,
        devices_forgotten: _,
        devices_refused: _,
        sequence_restarts: _,
        sequence_wraps: _,
        sequence_invalid: _,
        // These are added fields.
        values_absent: _,
        arrival_times: _,
        topics_cleared: _,
        retained_repeats: _,
        retained_topics_forgotten: _,
        replay_elements_forgotten: _,
        windows_backlog: _,
        backlog_windows_forced: _,
        fired_runs_merged: _,
        errors_not_stored: _,
        window_sizes_dropped: _,
    } = totals;
    for count in [
        messages,
        received,
        in_windows,
        windows_first,
        windows_corrected,
        sequence_ranges_merged,
        devices_expired,
        &(Reason::COUNT as u64),
    ] {
        put_u64(*count, out);
    }
    for count in rejected {
        put_u64(*count, out);
    }
}

/// Appends the counts, unless all are 0.
fn encode_sequence_counts(totals: &Totals, out: &mut Vec<u8>) {
    let counts = [totals.sequence_restarts, totals.sequence_wraps, totals.sequence_invalid];
    if counts != [0; 3] {
        counts.into_iter().for_each(|count| put_u64(count, out));
    }
}

fn decode_sequence_counts(reader: &mut FieldReader<'_>, totals: &mut Totals) -> Result<(), DecodeError> {
    totals.sequence_restarts = reader.u64()?;
    totals.sequence_wraps = reader.u64()?;
    totals.sequence_invalid = reader.u64()?;
    Ok(())
}

fn decode_totals(reader: &mut FieldReader<'_>) -> Result<Totals, DecodeError> {
    let mut totals = Totals {
        messages: reader.u64()?,
        received: reader.u64()?,
        in_windows: reader.u64()?,
        rejected: [0; Reason::COUNT],
        windows_first: reader.u64()?,
        windows_corrected: reader.u64()?,
        sequence_ranges_merged: reader.u64()?,
        devices_expired: reader.u64()?,
        ..Totals::default()
    };
    let reasons = reader.count()?;
    for count in totals.rejected.get_mut(..reasons).ok_or("reasons of a later version")? {
        *count = reader.u64()?;
    }
    Ok(totals)
}
