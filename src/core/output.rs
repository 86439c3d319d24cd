//! Results of the operator: window firings and error entries, and their stored form in the output logs.

use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_f64, put_i64, put_u64};
use crate::core::reason::Reason;
use crate::core::record::{ReplayItem, ReplayItems, ReplayRecord};

mod flags;
mod json;

pub use flags::WindowFlags;

/// Longest part of a payload that an error entry keeps, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 4096;

/// Format of windows of which nothing is special.
const WINDOW_FORMAT: u8 = 1;
/// [`WINDOW_FORMAT`] with a byte of flags at the end, which is not 0.
const FLAGGED_WINDOW_FORMAT: u8 = 2;
/// Format of errors that is written. Flags say which part of the message was rejected and which optional fields follow.
const ERROR_FORMAT: u8 = 5;
const ERROR_WHOLE_MESSAGE: u8 = 1;
const ERROR_OWN_DEVICE: u8 = 2;
const ERROR_OF_REPLAY: u8 = 4;
const ERROR_USER: u8 = 8;
/// Older formats of errors, which are read and not written. Their sentences may be those of an earlier version.
/// [`ERROR_FORMAT_4`] has the fields of [`ERROR_FORMAT`]; the others have no flags.
const ERROR_FORMAT_1: u8 = 1;
/// [`ERROR_FORMAT_1`], then the origin of the replay.
const ERROR_FORMAT_2: u8 = 2;
/// [`ERROR_FORMAT_1`], then the client's own device, a byte that says whether an origin follows, and the origin.
const ERROR_FORMAT_3: u8 = 3;
const ERROR_FORMAT_4: u8 = 4;

/// One firing of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowResult<'a> {
    /// Device id.
    pub device_id: &'a str,
    /// Metric name.
    pub metric: &'a str,
    /// First millisecond of the window, Unix time.
    pub window_start_ms: i64,
    /// First millisecond after the window, Unix time.
    pub window_end_ms: i64,
    /// Number of earlier firings of the window: 0 for the first firing, one more for each correction.
    pub revision: u32,
    /// Sequence number of the firing that this one corrects; `None` for revision 0.
    pub supersedes: Option<u64>,
    /// Number of readings.
    pub count: u64,
    /// Sum of the values, with Neumaier's compensation.
    pub sum: f64,
    /// Mean of the values.
    pub mean: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Value with the oldest event time; among equals, the first in the journal.
    pub first: f64,
    /// Value with the newest event time; among equals, the last in the journal.
    pub last: f64,
    /// Population standard deviation of the values.
    pub stddev: f64,
    /// What is special about the result.
    pub flags: WindowFlags,
}

impl<'a> WindowResult<'a> {
    /// Appends the stored form: a format byte, then the fields in the binary form of [`codec`](crate::core::codec).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = self.flags.bits();
        out.push(if flags == 0 { WINDOW_FORMAT } else { FLAGGED_WINDOW_FORMAT });
        put_bytes(self.device_id.as_bytes(), out);
        put_bytes(self.metric.as_bytes(), out);
        put_i64(self.window_start_ms, out);
        put_u64(self.window_end_ms.wrapping_sub(self.window_start_ms) as u64, out);
        put_u64(u64::from(self.revision), out);
        put_u64(self.supersedes.map_or(0, |seq| seq.wrapping_add(1)), out);
        put_u64(self.count, out);
        for float in [self.sum, self.mean, self.min, self.max, self.first, self.last, self.stddev] {
            put_f64(float, out);
        }
        if flags != 0 {
            out.push(flags);
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// Bytes that are not of a known format.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        let mut reader = FieldReader::new(bytes);
        Self::read(&mut reader).map_err(InvalidOutput)
    }

    fn read(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let format = reader.u8()?;
        if !matches!(format, WINDOW_FORMAT | FLAGGED_WINDOW_FORMAT) {
            return Err(DecodeError::Content("unknown format of a window"));
        }
        let (device_id, metric) = (reader.str()?, reader.str()?);
        let window_start_ms = reader.i64()?;
        let window = Self {
            device_id,
            metric,
            window_start_ms,
            window_end_ms: window_start_ms.wrapping_add(reader.u64()? as i64),
            revision: reader.u32()?,
            supersedes: reader.u64()?.checked_sub(1),
            count: reader.u64()?,
            sum: reader.f64()?,
            mean: reader.f64()?,
            min: reader.f64()?,
            max: reader.f64()?,
            first: reader.f64()?,
            last: reader.f64()?,
            stddev: reader.f64()?,
            flags: if format == FLAGGED_WINDOW_FORMAT { read_window_flags(reader)? } else { WindowFlags::default() },
        };
        reader.end()?;
        Ok(window)
    }
}

/// Reads flags of which one is set: windows without flags have one stored form only.
fn read_window_flags(reader: &mut FieldReader<'_>) -> Result<WindowFlags, DecodeError> {
    match reader.u8()? {
        0 => Err(DecodeError::Content("a window of format 2 without flags")),
        bits => WindowFlags::from_bits(bits),
    }
}

/// One entry of the errors log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorEntry<'a> {
    /// Journal position of the record that was rejected.
    pub journal_position: u64,
    /// Index of the reading in its message; 0 for a message as a whole.
    pub index: u32,
    /// Arrival time of the record, Unix milliseconds.
    pub arrival_ms: i64,
    /// Why the reading is in no window.
    pub reason: Reason,
    /// Which part of the message was rejected.
    pub part: RejectedPart,
    /// A sentence that says what is wrong and what a person can do. It is part of the result: a replay compares it.
    pub message: &'a str,
    /// Device, where it is known and its id is valid.
    pub device_id: Option<&'a str>,
    /// Metric, where it is known and its name is valid.
    pub metric: Option<&'a str>,
    /// Client identifier of the MQTT client that published the message.
    pub client_id: &'a str,
    /// Topic that the message was published on.
    pub topic: &'a str,
    /// Device that the client may speak for, if it is the only one; see
    /// [`PublishRecord::own_device`](crate::core::record::PublishRecord).
    pub own_device: Option<&'a str>,
    /// User of the client; `None`: it is anonymous, or not known.
    pub user: Option<&'a str>,
    /// The first 4 KiB of the payload.
    pub payload: &'a [u8],
    /// Length of the payload in bytes.
    pub payload_bytes: u64,
    /// Error that was replayed, if this error is of a replay.
    pub origin: Option<ReplayOrigin>,
}

/// The part of a message that an error rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedPart {
    /// The message as a whole: it could not be decoded, so that it has no readings.
    Message,
    /// One reading, or one fault that a device reported.
    Reading,
}

/// The error that was replayed, and rejected again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayOrigin {
    /// Sequence number of the replayed error.
    pub replay_of: u64,
    /// When the message first arrived, Unix milliseconds.
    pub first_arrival_ms: i64,
}

impl<'a> ErrorEntry<'a> {
    /// Whether the `seq` of the message was not remembered when it was rejected: there is no state to remember it in
    /// without a device that may send. The `seq` of a replay counts as remembered, since it is not known which readings
    /// of its message were counted in the meantime.
    pub fn is_unseen(&self) -> bool {
        let unknown = [Reason::InvalidDeviceId, Reason::DeviceMismatch, Reason::UnknownDevice, Reason::TooManyDevices];
        self.origin.is_none() && (self.device_id.is_none() || unknown.contains(&self.reason))
    }

    /// This error as part of a [`ReplayRecord`]. `seq` is the sequence number of the error.
    pub fn replay_item(&self, seq: u64) -> ReplayItem {
        ReplayItem { error_seq: seq, index: self.index, unseen: self.is_unseen() }
    }

    /// The journal record that processes errors of this message again. `payload` is the payload of the message, not cut.
    pub fn replay<'r>(&self, payload: &'r [u8], items: ReplayItems<'r>) -> ReplayRecord<'r>
    where
        'a: 'r,
    {
        ReplayRecord {
            position: self.journal_position,
            whole: self.part == RejectedPart::Message,
            arrival_ms: self.first_arrival_ms(),
            client_id: self.client_id,
            topic: self.topic,
            own_device: self.own_device,
            user: self.user,
            items,
            payload,
        }
    }

    /// When the message first arrived, before any replay, Unix milliseconds.
    pub fn first_arrival_ms(&self) -> i64 {
        self.origin.map_or(self.arrival_ms, |origin| origin.first_arrival_ms)
    }

    /// Appends the stored form: a format byte, then the fields in the binary form of [`codec`](crate::core::codec).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = [
            (self.part == RejectedPart::Message, ERROR_WHOLE_MESSAGE),
            (self.own_device.is_some(), ERROR_OWN_DEVICE),
            (self.origin.is_some(), ERROR_OF_REPLAY),
            (self.user.is_some(), ERROR_USER),
        ];
        let flags = flags.into_iter().filter(|(holds, _)| *holds).fold(0, |all, (_, flag)| all | flag);
        out.extend_from_slice(&[ERROR_FORMAT, flags]);
        put_u64(self.journal_position, out);
        put_u64(u64::from(self.index), out);
        put_i64(self.arrival_ms, out);
        out.push(self.reason as u8);
        put_bytes(self.message.as_bytes(), out);
        for name in [self.device_id, self.metric] {
            out.push(u8::from(name.is_some()));
            if let Some(name) = name {
                put_bytes(name.as_bytes(), out);
            }
        }
        put_bytes(self.client_id.as_bytes(), out);
        put_bytes(self.topic.as_bytes(), out);
        put_bytes(self.payload, out);
        put_u64(self.payload_bytes, out);
        if let Some(device) = self.own_device {
            put_bytes(device.as_bytes(), out);
        }
        if let Some(ReplayOrigin { replay_of, first_arrival_ms }) = self.origin {
            put_u64(replay_of, out);
            put_i64(first_arrival_ms, out);
        }
        if let Some(user) = self.user {
            put_bytes(user.as_bytes(), out);
        }
    }

    /// Reads the stored form, in any format.
    ///
    /// # Errors
    /// Bytes that are not of a known format.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        let mut reader = FieldReader::new(bytes);
        Self::read(&mut reader).map_err(InvalidOutput)
    }

    fn read(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let entry = match reader.u8()? {
            ERROR_FORMAT | ERROR_FORMAT_4 => Self::read_flagged(reader)?,
            format @ (ERROR_FORMAT_1 | ERROR_FORMAT_2 | ERROR_FORMAT_3) => Self::read_older(format, reader)?,
            _ => return Err(DecodeError::Content("unknown format of an error")),
        };
        reader.end()?;
        Ok(entry)
    }

    fn read_flagged(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let flags = reader.u8()?;
        if flags & !(ERROR_WHOLE_MESSAGE | ERROR_OWN_DEVICE | ERROR_OF_REPLAY | ERROR_USER) != 0 {
            return Err(DecodeError::Content("unknown flags of an error"));
        }
        let mut entry = Self::read_common(reader)?;
        if flags & ERROR_WHOLE_MESSAGE != 0 {
            entry.part = RejectedPart::Message;
        }
        if flags & ERROR_OWN_DEVICE != 0 {
            entry.own_device = Some(reader.str()?);
        }
        if flags & ERROR_OF_REPLAY != 0 {
            entry.origin = Some(ReplayOrigin { replay_of: reader.u64()?, first_arrival_ms: reader.i64()? });
        }
        if flags & ERROR_USER != 0 {
            entry.user = Some(reader.str()?);
        }
        Ok(entry)
    }

    /// Reads formats 1 to 3. They state the rejected part only of an error of a replay; of others the sentence tells it.
    fn read_older(format: u8, reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let mut entry = Self::read_common(reader)?;
        let mut replayed = format == ERROR_FORMAT_2;
        if format == ERROR_FORMAT_3 {
            entry.own_device = Some(reader.str()?);
            replayed = read_flag(reader).ok_or("an optional origin")?;
        }
        let whole = if replayed {
            entry.origin = Some(ReplayOrigin { replay_of: reader.u64()?, first_arrival_ms: reader.i64()? });
            read_flag(reader).ok_or("the origin of a replay")?
        } else {
            entry.reason == Reason::Malformed && entry.index == 0 && is_of_whole_message(entry.message)
        };
        if whole {
            entry.part = RejectedPart::Message;
        }
        Ok(entry)
    }

    /// Reads the fields that all formats have. The others are set to what most errors have.
    fn read_common(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            journal_position: reader.u64()?,
            index: reader.u32()?,
            arrival_ms: reader.i64()?,
            reason: Reason::from_code(reader.u8()?).ok_or("unknown reason")?,
            part: RejectedPart::Reading,
            message: reader.str()?,
            device_id: read_name(reader)?,
            metric: read_name(reader)?,
            client_id: reader.str()?,
            topic: reader.str()?,
            own_device: None,
            user: None,
            payload: reader.bytes()?,
            payload_bytes: reader.u64()?,
            origin: None,
        })
    }
}

/// Whether a stored error and a computed one are the same. A replay of the journal compares the errors that it produces
/// with those in the errors log, which an earlier version may have written: it may have told the same in another sentence.
pub fn is_same_error(stored: &[u8], computed: &[u8]) -> bool {
    if stored.first() == computed.first() {
        return stored == computed;
    }
    match (ErrorEntry::decode(stored), ErrorEntry::decode(computed)) {
        (Ok(stored), Ok(computed)) => stored == ErrorEntry { message: stored.message, ..computed },
        _ => false,
    }
}

/// Whether a sentence of reason `malformed` is of a message as a whole. These beginnings of sentences are part of formats
/// 1 to 3.
fn is_of_whole_message(sentence: &str) -> bool {
    sentence.starts_with("the payload is ") || sentence.starts_with("the message has more than ")
}

/// Reads a byte that is 0 or 1.
fn read_flag(reader: &mut FieldReader<'_>) -> Option<bool> {
    match reader.u8() {
        Ok(0) => Some(false),
        Ok(1) => Some(true),
        _ => None,
    }
}

fn read_name<'a>(reader: &mut FieldReader<'a>) -> Result<Option<&'a str>, DecodeError> {
    match reader.u8()? {
        0 => Ok(None),
        1 => reader.str().map(Some),
        _ => Err(DecodeError::Content("an optional name")),
    }
}

/// The part of a payload that an error entry keeps: at most [`MAX_PAYLOAD_BYTES`], cut between characters where it is
/// text.
pub(super) fn kept_payload(payload: &[u8]) -> &[u8] {
    let Some(kept) = payload.get(..MAX_PAYLOAD_BYTES) else { return payload };
    match std::str::from_utf8(kept) {
        // Without an error length the text ends within a character, which the rest of the payload may complete.
        Err(error) if error.error_len().is_none() => kept.get(..error.valid_up_to()).unwrap_or(kept),
        _ => kept,
    }
}

/// A record of the windows or errors log that is of no known format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stored result of this format: {0}")]
pub struct InvalidOutput(#[from] pub DecodeError);

/// Takes the results of the operator, in order.
pub trait Collector {
    /// Takes a firing of a window. `seq` grows by one per firing.
    fn window(&mut self, seq: u64, window: &WindowResult<'_>);
    /// Takes an error. `seq` grows by one per error.
    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>);
}

#[cfg(test)]
mod tests;
