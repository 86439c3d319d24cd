//! What leaves the operator: window results and error entries, their stored form and their JSON.

use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_f64, put_i64, put_u64};
use crate::core::reason::Reason;
use crate::core::record::{ReplayItem, ReplayItems, ReplayRecord};

mod json;

/// Bytes of a payload that an error entry keeps.
pub const MAX_PAYLOAD_BYTES: usize = 4096;

const WINDOW_FORMAT: u8 = 1;
/// Format of errors: flags say which optional fields follow and which part of the message was rejected.
const ERROR_FORMAT: u8 = 4;
const ERROR_WHOLE_MESSAGE: u8 = 1;
const ERROR_OWN_DEVICE: u8 = 2;
const ERROR_OF_REPLAY: u8 = 4;
/// Older formats, which are read and no longer written. They have no flags.
const ERROR_FORMAT_1: u8 = 1;
/// [`ERROR_FORMAT_1`] with the origin of a replayed reading behind it.
const ERROR_FORMAT_2: u8 = 2;
/// [`ERROR_FORMAT_1`] with the client's own device behind it, whether there is an origin, and the origin.
const ERROR_FORMAT_3: u8 = 3;

/// One firing of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowResult<'a> {
    /// Device id.
    pub device_id: &'a str,
    /// Metric name.
    pub metric: &'a str,
    /// First millisecond of the window, Unix time.
    pub window_start_ms: i64,
    /// First millisecond after the window.
    pub window_end_ms: i64,
    /// 0 for the first firing; one more for each correction.
    pub revision: u32,
    /// Sequence number of the firing that this one corrects; `None` for revision 0.
    pub supersedes: Option<u64>,
    /// Number of readings.
    pub count: u64,
    /// Neumaier-compensated sum.
    pub sum: f64,
    /// Mean.
    pub mean: f64,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Value with the oldest event time; the first in the journal among equals.
    pub first: f64,
    /// Value with the newest event time; the last in the journal among equals.
    pub last: f64,
    /// Population standard deviation.
    pub stddev: f64,
}

impl<'a> WindowResult<'a> {
    /// Appends the stored form: a format byte, then the fields as in the checkpoint's binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(WINDOW_FORMAT);
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
    }

    /// Reads the stored form.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        let mut reader = FieldReader::new(bytes);
        Self::read(&mut reader).map_err(InvalidOutput)
    }

    fn read(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        if reader.u8()? != WINDOW_FORMAT {
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
        };
        reader.end()?;
        Ok(window)
    }
}

/// One entry of the error log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorEntry<'a> {
    /// Position of the publish in the journal.
    pub journal_position: u64,
    /// Index of the reading in its message.
    pub index: u32,
    /// Arrival time, Unix milliseconds.
    pub arrival_ms: i64,
    /// Why.
    pub reason: Reason,
    /// Which part of the message was rejected.
    pub part: RejectedPart,
    /// A sentence that a person can act on.
    pub message: &'a str,
    /// Device, where it is known.
    pub device_id: Option<&'a str>,
    /// Metric, where it is known.
    pub metric: Option<&'a str>,
    /// MQTT client that published it.
    pub client_id: &'a str,
    /// Topic it was published on.
    pub topic: &'a str,
    /// The only device that the client may speak for, see [`Publish::own_device`](crate::core::record::Publish).
    pub own_device: Option<&'a str>,
    /// The first 4 KiB of the payload.
    pub payload: &'a [u8],
    /// Full length of the payload in bytes.
    pub payload_bytes: u64,
    /// Where it comes from, if a replay was rejected.
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

/// The error whose replay was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayOrigin {
    /// Its sequence number.
    pub replay_of: u64,
    /// When the message first arrived, Unix milliseconds.
    pub first_arrival_ms: i64,
}

impl<'a> ErrorEntry<'a> {
    /// Whether the message's `seq` was not remembered at the rejection: without a device that may send there is no
    /// state to remember it in. A replay that is rejected is taken for remembered: which readings of its message were
    /// counted meanwhile cannot be told.
    pub fn is_unseen(&self) -> bool {
        let unknown = [Reason::InvalidDeviceId, Reason::DeviceMismatch, Reason::UnknownDevice, Reason::TooManyDevices];
        self.origin.is_none() && (self.device_id.is_none() || unknown.contains(&self.reason))
    }

    /// This error, whose sequence number is `seq`, as part of a [`ReplayRecord`].
    pub fn replay_item(&self, seq: u64) -> ReplayItem {
        ReplayItem { error_seq: seq, index: self.index, unseen: self.is_unseen() }
    }

    /// The journal record that processes errors of this one's message again. `payload`: the message's, whole.
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
            items,
            payload,
        }
    }

    /// When the message first arrived, Unix milliseconds.
    pub fn first_arrival_ms(&self) -> i64 {
        self.origin.map_or(self.arrival_ms, |origin| origin.first_arrival_ms)
    }

    /// Appends the stored form: a format byte, then the fields as in the checkpoint's binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = [
            (self.part == RejectedPart::Message, ERROR_WHOLE_MESSAGE),
            (self.own_device.is_some(), ERROR_OWN_DEVICE),
            (self.origin.is_some(), ERROR_OF_REPLAY),
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
    }

    /// Reads the stored form.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        let mut reader = FieldReader::new(bytes);
        Self::read(&mut reader).map_err(InvalidOutput)
    }

    fn read(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let entry = match reader.u8()? {
            ERROR_FORMAT => Self::read_flagged(reader)?,
            format @ (ERROR_FORMAT_1 | ERROR_FORMAT_2 | ERROR_FORMAT_3) => Self::read_older(format, reader)?,
            _ => return Err(DecodeError::Content("unknown format of an error")),
        };
        reader.end()?;
        Ok(entry)
    }

    fn read_flagged(reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let flags = reader.u8()?;
        if flags & !(ERROR_WHOLE_MESSAGE | ERROR_OWN_DEVICE | ERROR_OF_REPLAY) != 0 {
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
        Ok(entry)
    }

    /// Formats 1 to 3 say which part was rejected only where the error is of a replay; else the sentence tells.
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

    /// The fields that all formats have. The rest is set to what most errors have.
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
            payload: reader.bytes()?,
            payload_bytes: reader.u64()?,
            origin: None,
        })
    }
}

/// Whether two stored errors say the same, whatever format each is in. A replay of the journal compares the errors that it
/// produces with those in the errors log, and an earlier version may have written these.
pub fn is_same_error(stored: &[u8], computed: &[u8]) -> bool {
    stored == computed
        || stored.first() != computed.first()
            && ErrorEntry::decode(stored).is_ok_and(|stored| ErrorEntry::decode(computed) == Ok(stored))
}

/// Whether a `malformed` sentence concerns a whole message. These beginnings of sentences are part of formats 1 to 3.
fn is_of_whole_message(sentence: &str) -> bool {
    sentence.starts_with("the payload is ") || sentence.starts_with("the message has more than ")
}

/// A byte that is 0 or 1.
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

/// The part of a payload that an error entry keeps: up to [`MAX_PAYLOAD_BYTES`], and where it is text, no half
/// characters.
pub(super) fn kept_payload(payload: &[u8]) -> &[u8] {
    let Some(kept) = payload.get(..MAX_PAYLOAD_BYTES) else { return payload };
    match std::str::from_utf8(kept) {
        // No error length: the text ends within a character, which the rest of the payload may complete.
        Err(error) if error.error_len().is_none() => kept.get(..error.valid_up_to()).unwrap_or(kept),
        _ => kept,
    }
}

/// A record of the windows or errors log that no writer of this format produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stored result of this format: {0}")]
pub struct InvalidOutput(#[from] pub DecodeError);

/// Takes the operator's effects in order.
pub trait Collector {
    /// A window fired. `seq` grows by one per firing.
    fn window(&mut self, seq: u64, window: &WindowResult<'_>);
    /// A reading was rejected, or a device reported a fault. `seq` grows by one per stored entry.
    fn error(&mut self, seq: u64, entry: &ErrorEntry<'_>);
}

#[cfg(test)]
mod tests;
