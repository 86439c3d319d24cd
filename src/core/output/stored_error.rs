//! The stored form of errors, in the format that is written and in the older ones that are read.

use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64};
use crate::core::output::{
    ErrorEntry, FoldedReadings, FollowedError, InvalidOutput, RejectedPart, ReplayOrigin, Sentence,
};
use crate::core::reason::Reason;

/// Format of errors that is written. Flags say which part of the message was rejected and which optional fields follow.
const FORMAT: u8 = 5;
const WHOLE_MESSAGE: u8 = 1;
const OWN_DEVICE: u8 = 2;
const OF_REPLAY: u8 = 4;
const USER: u8 = 8;
/// The entry refers to the first error of its message, and has the fields alone that differ.
const FOLLOWS: u8 = 16;
/// The device is that of the first error; in a complete entry, the device of the client is the device.
const SAME_DEVICE: u8 = 32;
/// The entry stands for several readings.
const FOLDED: u8 = 64;
/// In a complete entry, the `seq` of the message was not remembered.
const UNSEEN: u8 = 64;
/// In an entry that refers to another one, the `seq` of the message was not remembered.
const FOLLOWS_UNSEEN: u8 = 1;
/// Client, topic, device of the client or user are cut.
const CUT: u8 = 128;
/// Flags of an entry that refers to the first error of its message.
const FOLLOWING: u8 = OF_REPLAY | FOLLOWS | SAME_DEVICE | FOLDED | FOLLOWS_UNSEEN;
/// Flags of a complete entry.
const COMPLETE: u8 = FLAGS_4 | SAME_DEVICE | CUT | UNSEEN;
/// Flags of format 4.
const FLAGS_4: u8 = WHOLE_MESSAGE | OWN_DEVICE | OF_REPLAY | USER;
/// Older formats of errors, which are read and not written. Their sentences may be those of an earlier version.
/// [`FORMAT_4`] has the fields and flags of entries of [`FORMAT`] that are complete; the others have no flags.
const FORMAT_1: u8 = 1;
/// [`FORMAT_1`], then the origin of the replay.
const FORMAT_2: u8 = 2;
/// [`FORMAT_1`], then the client's own device, a byte that says whether an origin follows, and the origin.
const FORMAT_3: u8 = 3;
const FORMAT_4: u8 = 4;

/// Reads errors one after the other, in the order of their sequence numbers. The entries of a message are in one batch of the
/// log: read from the beginning of a batch, each entry finds the one that it refers to.
#[derive(Debug, Default)]
pub struct ErrorReader<'a> {
    /// The last complete entry, with its sequence number.
    first: Option<(u64, ErrorEntry<'a>)>,
}

impl<'a> ErrorReader<'a> {
    /// The error whose stored form is `bytes` and whose sequence number is `seq`.
    ///
    /// # Errors
    /// Bytes that are not of a known format, and an entry that refers to another one that was not read.
    pub fn read(&mut self, seq: u64, bytes: &'a [u8]) -> Result<ErrorEntry<'a>, InvalidOutput> {
        let first = self.first.as_ref().map(|(first_seq, first)| (seq.saturating_sub(*first_seq), first));
        let entry = ErrorEntry::read(bytes, first)?;
        if entry.follows.is_none() {
            self.first = Some((seq, entry));
        }
        Ok(entry)
    }
}

impl<'a> ErrorEntry<'a> {
    /// Appends the stored form: a format byte, then the fields in the binary form of [`codec`](crate::core::codec).
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.follows {
            Some(followed) => self.encode_following(followed, out),
            None => self.encode_complete(out),
        }
    }

    fn encode_complete(&self, out: &mut Vec<u8>) {
        let own_device = self.own_device.filter(|_| self.own_device != self.device_id);
        let flags = flags([
            (self.part == RejectedPart::Message, WHOLE_MESSAGE),
            (own_device.is_some(), OWN_DEVICE),
            (self.own_device.is_some() && own_device.is_none(), SAME_DEVICE),
            (self.origin.is_some(), OF_REPLAY),
            (self.user.is_some(), USER),
            (self.is_cut, CUT),
            (self.is_unseen, UNSEEN),
        ]);
        out.extend_from_slice(&[FORMAT, flags]);
        put_u64(self.journal_position, out);
        put_u64(u64::from(self.index), out);
        put_i64(self.arrival_ms, out);
        out.push(self.reason as u8);
        put_u64(self.message.len() as u64, out);
        self.message.parts().iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        put_name(self.device_id, out);
        put_name(self.metric, out);
        put_bytes(self.client_id.as_bytes(), out);
        put_bytes(self.topic.as_bytes(), out);
        put_bytes(self.payload, out);
        put_u64(self.payload_bytes, out);
        if let Some(device) = own_device {
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

    fn encode_following(&self, followed: FollowedError, out: &mut Vec<u8>) {
        let flags = flags([
            (true, FOLLOWS),
            (self.origin.is_some(), OF_REPLAY),
            (followed.same_device, SAME_DEVICE),
            (self.folded.is_some(), FOLDED),
            (self.is_unseen, FOLLOWS_UNSEEN),
        ]);
        out.extend_from_slice(&[FORMAT, flags]);
        put_u64(followed.distance, out);
        put_u64(u64::from(self.index), out);
        out.push(self.reason as u8);
        put_u64(self.message.head.len() as u64, out);
        put_u64(self.message.tail.len() as u64, out);
        put_bytes(self.message.middle.as_bytes(), out);
        if !followed.same_device {
            put_name(self.device_id, out);
        }
        put_name(self.metric, out);
        if let Some(origin) = self.origin {
            put_u64(origin.replay_of, out);
        }
        if let Some(folded) = self.folded {
            put_bytes(folded.stored(), out);
        }
    }

    /// How far before this entry the one is that it refers to; `None`: it is complete.
    pub fn distance(bytes: &[u8]) -> Option<u64> {
        match bytes {
            [FORMAT, flags, rest @ ..] if flags & FOLLOWS != 0 => FieldReader::new(rest).u64().ok(),
            _ => None,
        }
    }

    /// Reads a stored form that is complete, in any format.
    ///
    /// # Errors
    /// Bytes that are not of a known format, and an entry that refers to another one; [`ErrorReader`] reads these.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, InvalidOutput> {
        Self::read(bytes, None)
    }

    /// `first` is a complete entry before this one, and the distance to it.
    fn read(bytes: &'a [u8], first: Option<(u64, &Self)>) -> Result<Self, InvalidOutput> {
        let mut reader = FieldReader::new(bytes);
        let entry = Self::read_fields(&mut reader, first)?;
        reader.end()?;
        Ok(entry)
    }

    fn read_fields(reader: &mut FieldReader<'a>, first: Option<(u64, &Self)>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            FORMAT => match reader.u8()? {
                flags if flags & FOLLOWS != 0 => Self::read_following(flags, reader, first),
                flags => Self::read_complete(flags, COMPLETE, reader),
            },
            FORMAT_4 => Ok(Self::read_complete(reader.u8()?, FLAGS_4, reader)?.with_guessed_unseen()),
            format @ (FORMAT_1 | FORMAT_2 | FORMAT_3) => Ok(Self::read_older(format, reader)?.with_guessed_unseen()),
            _ => Err(DecodeError::Content("unknown format of an error")),
        }
    }

    fn read_complete(flags: u8, known: u8, reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        if flags & !known != 0 {
            return Err(DecodeError::Content("unknown flags of an error"));
        }
        let mut entry = Self::read_common(reader)?;
        if flags & WHOLE_MESSAGE != 0 {
            entry.part = RejectedPart::Message;
        }
        if flags & OWN_DEVICE != 0 {
            entry.own_device = Some(reader.str()?);
        } else if flags & SAME_DEVICE != 0 {
            entry.own_device = entry.device_id;
        }
        if flags & OF_REPLAY != 0 {
            entry.origin = Some(ReplayOrigin { replay_of: reader.u64()?, first_arrival_ms: reader.i64()? });
        }
        if flags & USER != 0 {
            entry.user = Some(reader.str()?);
        }
        entry.is_cut = flags & CUT != 0;
        entry.is_unseen = flags & UNSEEN != 0;
        Ok(entry)
    }

    /// Formats 1 to 4 do not say whether the `seq` was remembered. It was not if the device had no state, as far as the reason
    /// tells. The `seq` of a replay counts as remembered.
    fn with_guessed_unseen(self) -> Self {
        let unknown = [Reason::InvalidDeviceId, Reason::DeviceMismatch, Reason::UnknownDevice, Reason::TooManyDevices];
        let is_unseen = self.origin.is_none() && (self.device_id.is_none() || unknown.contains(&self.reason));
        Self { is_unseen, ..self }
    }

    fn read_following(
        flags: u8,
        reader: &mut FieldReader<'a>,
        first: Option<(u64, &Self)>,
    ) -> Result<Self, DecodeError> {
        if flags & !FOLLOWING != 0 {
            return Err(DecodeError::Content("unknown flags of an error"));
        }
        let distance = reader.u64()?;
        let (_, first) = first
            .filter(|&(before, _)| before == distance)
            .ok_or("an entry that refers to one that is not stored before it")?;
        let index = reader.u32()?;
        let reason = Reason::from_code(reader.u8()?).ok_or("unknown reason")?;
        let (head, tail) = (reader.u64()?, reader.u64()?);
        let message = sentence(first.message.middle, head, reader.str()?, tail).ok_or("a part of another sentence")?;
        let same_device = flags & SAME_DEVICE != 0;
        let device_id = if same_device { first.device_id } else { read_name(reader)? };
        let metric = read_name(reader)?;
        let origin = match (flags & OF_REPLAY != 0, first.origin) {
            (true, Some(first)) => Some(ReplayOrigin { replay_of: reader.u64()?, ..first }),
            (false, None) => None,
            _ => return Err(DecodeError::Content("errors of one message, of which some are of a replay")),
        };
        let folded = match flags & FOLDED != 0 {
            true => Some(FoldedReadings::decode(index, reader.bytes()?)?),
            false => None,
        };
        let follows = Some(FollowedError { distance, same_device });
        let is_unseen = flags & FOLLOWS_UNSEEN != 0;
        Ok(Self { index, reason, message, device_id, metric, is_unseen, origin, follows, folded, ..*first })
    }

    /// Reads formats 1 to 3. They state the rejected part only of an error of a replay; of others the sentence tells it.
    fn read_older(format: u8, reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let mut entry = Self::read_common(reader)?;
        let mut replayed = format == FORMAT_2;
        if format == FORMAT_3 {
            entry.own_device = Some(reader.str()?);
            replayed = read_flag(reader).ok_or("an optional origin")?;
        }
        let whole = if replayed {
            entry.origin = Some(ReplayOrigin { replay_of: reader.u64()?, first_arrival_ms: reader.i64()? });
            read_flag(reader).ok_or("the origin of a replay")?
        } else {
            let is_first = entry.reason == Reason::Malformed && entry.index == 0;
            is_first && is_of_whole_message(entry.message.middle)
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
            message: reader.str()?.into(),
            device_id: read_name(reader)?,
            metric: read_name(reader)?,
            client_id: reader.str()?,
            topic: reader.str()?,
            own_device: None,
            user: None,
            is_cut: false,
            payload: reader.bytes()?,
            payload_bytes: reader.u64()?,
            is_unseen: false,
            origin: None,
            follows: None,
            folded: None,
        })
    }
}

/// Whether a stored error and a computed one are the same. A replay of the journal compares the errors that it produces
/// with those in the errors log, which an earlier version may have written: it may have told the same in another sentence, and did
/// not tell whether the `seq` was remembered.
pub fn is_same_error(stored: &[u8], computed: &[u8]) -> bool {
    if stored.first() == computed.first() {
        return stored == computed;
    }
    match (ErrorEntry::decode(stored), ErrorEntry::decode(computed)) {
        (Ok(stored), Ok(computed)) => {
            let ErrorEntry { message, is_unseen, .. } = stored;
            stored == ErrorEntry { message, is_unseen, ..computed }
        }
        _ => false,
    }
}

fn flags<const N: usize>(set: [(bool, u8); N]) -> u8 {
    set.into_iter().filter(|(holds, _)| *holds).fold(0, |all, (_, flag)| all | flag)
}

/// A sentence with the first `head` and the last `tail` bytes of the sentence `first`.
fn sentence<'a>(first: &'a str, head: u64, middle: &'a str, tail: u64) -> Option<Sentence<'a>> {
    let head = first.get(..usize::try_from(head).ok()?)?;
    let tail = first.get(first.len().checked_sub(usize::try_from(tail).ok()?)?..)?;
    Some(Sentence { head, middle, tail })
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

fn put_name(name: Option<&str>, out: &mut Vec<u8>) {
    out.push(u8::from(name.is_some()));
    if let Some(name) = name {
        put_bytes(name.as_bytes(), out);
    }
}

fn read_name<'a>(reader: &mut FieldReader<'a>) -> Result<Option<&'a str>, DecodeError> {
    match reader.u8()? {
        0 => Ok(None),
        1 => reader.str().map(Some),
        _ => Err(DecodeError::Content("an optional name")),
    }
}
