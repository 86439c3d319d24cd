//! Records of the journal: everything that the operator knows of the outside world.
//!
//! ```text
//! publish  01 flags [packet_id u16] [client_len u16, client, topic_len u16, topic, [device_len u16, device],
//!          [user_len u16, user]] payload
//! tick     02
//! resumed  03
//! replay   04 flags position u64 arrival_ms i64 client_len u16, client, topic_len u16, topic,
//!          [device_len u16, device], [user_len u16, user], item_count u16, { flags u8, error_seq u64, index u32 }…, payload
//! settings 05 settings(JSON)
//! forget   06 { device_len u16, device }…
//! ```
//! Integers are little-endian. Flags of a publish: bits 0–1 QoS, bit 2 DUP, bit 3 retain, bit 4 "client, topic, device
//! and user are those of the previous publish in this batch" (they are then left out), bit 5 "the device follows" (the
//! only one that the client may speak for), bit 6 "the user follows" (without it, the client is anonymous), bit 7 "the
//! message repeats what is retained on its topic", only together with bit 3. Bits 5 and 6 are never set together with bit 4. The packet id is there when the QoS is above 0. The payload goes to the end of the
//! record. The arrival time is that of the batch.
//!
//! A replay processes stored errors of one message again. It holds the journal position of the rejected record, the time
//! when the message first arrived, and for each error its sequence number and the index of the reading in the message.
//! Flags: bit 0 "the message as a whole was rejected" (then there is one item, with index 0), bit 1 "the device follows"
//! and bit 2 "the user follows", as in the publish. Flags of an item: bit 0 "the `seq` of the message was not remembered when it was rejected", bit 1
//! "a `u32` follows the index: the number of readings from this index on that the error stands for".

use thiserror::Error;

use crate::core::codec::{DecodeError, FieldReader, put_str_u16};
use crate::core::settings::Settings;

const KIND_PUBLISH: u8 = 1;
const KIND_TICK: u8 = 2;
const KIND_RESUMED: u8 = 3;
const KIND_REPLAY: u8 = 4;
const KIND_SETTINGS: u8 = 5;
const KIND_FORGET: u8 = 6;

const FLAG_QOS: u8 = 0b0000_0011;
const FLAG_DUP: u8 = 0b0000_0100;
const FLAG_RETAIN: u8 = 0b0000_1000;
const FLAG_SAME_ORIGIN: u8 = 0b0001_0000;
const FLAG_OWN_DEVICE: u8 = 0b0010_0000;
const FLAG_USER: u8 = 0b0100_0000;
const FLAG_REPEATS_RETAINED: u8 = 0b1000_0000;

const REPLAY_WHOLE: u8 = 0b0000_0001;
const REPLAY_OWN_DEVICE: u8 = 0b0000_0010;
const REPLAY_USER: u8 = 0b0000_0100;
const ITEM_UNSEEN: u8 = 0b0000_0001;
const ITEM_READINGS: u8 = 0b0000_0010;

/// Largest number of readings in the items of one replay: as many as a message may have.
pub const MAX_REPLAYED_READINGS: u64 = 1_000_000;

/// One MQTT publish on an ingest topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishRecord<'a> {
    /// Client identifier of the connection that the message came by.
    pub client_id: &'a str,
    /// Topic name.
    pub topic: &'a str,
    /// Device that the client may speak for where the topic names none, if it is the only one; `None`: any device.
    pub own_device: Option<&'a str>,
    /// User of the connection; `None`: the client is anonymous, or the record is of a version that did not record users.
    pub user: Option<&'a str>,
    /// Packet identifier; 0 for QoS 0.
    pub packet_id: u16,
    /// QoS of the delivery: 0, 1 or 2.
    pub qos: u8,
    /// The DUP flag: the client may have sent the message before.
    pub dup: bool,
    /// The RETAIN flag.
    pub retain: bool,
    /// Whether the message, which has the RETAIN flag, came soon after the CONNECT of its client, and its payload is the one
    /// that was retained on its topic.
    pub repeats_retained: bool,
    /// Payload of the message.
    pub payload: &'a [u8],
}

/// Stored errors of one message that are processed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayRecord<'a> {
    /// Journal position of the record that was rejected.
    pub position: u64,
    /// Whether the message as a whole was rejected. Then there is one item.
    pub whole: bool,
    /// When the message first arrived, Unix milliseconds.
    pub arrival_ms: i64,
    /// Client identifier of the connection that the message came by.
    pub client_id: &'a str,
    /// Topic name.
    pub topic: &'a str,
    /// Device that the client may speak for where the topic names none, if it is the only one; `None`: any device.
    pub own_device: Option<&'a str>,
    /// User of the connection that the message came by; `None` as in [`PublishRecord::user`].
    pub user: Option<&'a str>,
    /// The errors that are processed again.
    pub items: ReplayItems<'a>,
    /// Payload of the message, not cut.
    pub payload: &'a [u8],
}

/// One error of a replay. An error that stands for several readings has an item for each run of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayItem {
    /// Sequence number of the error.
    pub error_seq: u64,
    /// Index of the rejected reading in its message; 0 for a message as a whole.
    pub index: u32,
    /// Number of readings from this index on.
    pub readings: u32,
    /// Whether the `seq` of the message was not remembered when it was rejected, because its device had no state.
    pub unseen: bool,
}

impl ReplayItem {
    /// Appends the encoding of the item.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let readings = if self.readings == 1 { 0 } else { ITEM_READINGS };
        out.push(readings | if self.unseen { ITEM_UNSEEN } else { 0 });
        out.extend_from_slice(&self.error_seq.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        if readings != 0 {
            out.extend_from_slice(&self.readings.to_le_bytes());
        }
    }

    /// The indexes of the readings.
    pub fn indexes(&self) -> std::ops::Range<u32> {
        self.index..self.index.saturating_add(self.readings)
    }

    fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.u8()?;
        if flags & !(ITEM_UNSEEN | ITEM_READINGS) != 0 {
            return Err(DecodeError::Content("unknown flags"));
        }
        let (error_seq, index) = (reader.u64_le()?, reader.u32_le()?);
        let readings = if flags & ITEM_READINGS != 0 { reader.u32_le()? } else { 1 };
        let has_end = readings > 0 && index.checked_add(readings - 1).is_some();
        if !has_end {
            return Err(DecodeError::Content("a run of readings without an end"));
        }
        Ok(Self { error_seq, index, readings, unseen: flags & ITEM_UNSEEN != 0 })
    }
}

/// Items of a replay, encoded one after the other; at most 65,535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayItems<'a>(pub &'a [u8]);

impl<'a> ReplayItems<'a> {
    /// Number of items.
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// The items in order.
    pub fn iter(&self) -> impl Iterator<Item = ReplayItem> + 'a {
        let mut reader = FieldReader::new(self.0);
        // The bytes were checked when the record was decoded.
        std::iter::from_fn(move || ReplayItem::decode(&mut reader).ok())
    }

    /// Takes `count` items off the front of `reader`.
    fn decode(count: usize, reader: &mut FieldReader<'a>) -> Result<Self, DecodeError> {
        let bytes = reader.rest();
        let mut items = FieldReader::new(bytes);
        let mut readings = 0_u64;
        for _ in 0..count {
            readings += u64::from(ReplayItem::decode(&mut items)?.readings);
        }
        if readings > MAX_REPLAYED_READINGS {
            return Err(DecodeError::Content("more readings than a message may have"));
        }
        reader.take(bytes.len() - items.rest().len()).map(Self)
    }
}

/// Ids of devices, encoded one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgottenDevices<'a>(&'a [u8]);

impl<'a> ForgottenDevices<'a> {
    /// The ids in order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut reader = FieldReader::new(self.0);
        // The bytes were checked when the record was decoded.
        std::iter::from_fn(move || reader.str_u16().ok())
    }

    fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = FieldReader::new(bytes);
        while reader.end().is_err() {
            reader.str_u16()?;
        }
        Ok(Self(bytes))
    }
}

/// A journal record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A publish. The flag says that client, topic, own device and user are those of the previous publish in the batch.
    Publish(PublishRecord<'a>, bool),
    /// Time passed in which nothing arrived while windows were open.
    Tick,
    /// weir started, or reads sockets again after it had to stop reading: the silence of every device starts at zero.
    Resumed,
    /// Stored errors are processed again.
    Replay(ReplayRecord<'a>),
    /// Settings, as JSON. They hold for the records behind.
    Settings(&'a [u8]),
    /// An operator asked that these devices are forgotten.
    Forget(ForgottenDevices<'a>),
}

/// A record that is of no known format. The log's checksum held, so that this is a defect, or a newer weir wrote the
/// record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("journal record {index} of the batch is not a record of this format: {what}")]
pub struct InvalidRecord {
    /// Index of the record in its batch.
    pub index: usize,
    /// What does not fit.
    pub what: DecodeError,
}

/// Appends the encoding of `publish`. `same_origin` says that client, topic, own device and user are those of the
/// publish before it in the same append.
pub fn encode_publish(publish: &PublishRecord<'_>, same_origin: bool, out: &mut Vec<u8>) {
    debug_assert!(publish.qos <= 2);
    let mut flags = publish.qos;
    if publish.dup {
        flags |= FLAG_DUP;
    }
    if publish.retain {
        flags |= FLAG_RETAIN;
        flags |= if publish.repeats_retained { FLAG_REPEATS_RETAINED } else { 0 };
    }
    if same_origin {
        flags |= FLAG_SAME_ORIGIN;
    } else {
        flags |= if publish.own_device.is_some() { FLAG_OWN_DEVICE } else { 0 };
        flags |= if publish.user.is_some() { FLAG_USER } else { 0 };
    }
    out.extend_from_slice(&[KIND_PUBLISH, flags]);
    if publish.qos > 0 {
        out.extend_from_slice(&publish.packet_id.to_le_bytes());
    }
    if !same_origin {
        put_str_u16(publish.client_id, out);
        put_str_u16(publish.topic, out);
        for name in [publish.own_device, publish.user].into_iter().flatten() {
            put_str_u16(name, out);
        }
    }
    out.extend_from_slice(publish.payload);
}

/// Appends the encoding of a tick.
pub fn encode_tick(out: &mut Vec<u8>) {
    out.push(KIND_TICK);
}

/// Appends the encoding of the record that weir begins to listen.
pub fn encode_resumed(out: &mut Vec<u8>) {
    out.push(KIND_RESUMED);
}

/// Appends the encoding of a replay.
pub fn encode_replay(replay: &ReplayRecord<'_>, out: &mut Vec<u8>) {
    debug_assert!(replay.items.count() <= usize::from(u16::MAX));
    let whole = if replay.whole { REPLAY_WHOLE } else { 0 };
    let own_device = if replay.own_device.is_some() { REPLAY_OWN_DEVICE } else { 0 };
    let user = if replay.user.is_some() { REPLAY_USER } else { 0 };
    out.extend_from_slice(&[KIND_REPLAY, whole | own_device | user]);
    out.extend_from_slice(&replay.position.to_le_bytes());
    out.extend_from_slice(&replay.arrival_ms.to_le_bytes());
    put_str_u16(replay.client_id, out);
    put_str_u16(replay.topic, out);
    for name in [replay.own_device, replay.user].into_iter().flatten() {
        put_str_u16(name, out);
    }
    out.extend_from_slice(&(replay.items.count() as u16).to_le_bytes());
    out.extend_from_slice(replay.items.0);
    out.extend_from_slice(replay.payload);
}

/// Appends the encoding of settings.
pub fn encode_settings(settings: &Settings, out: &mut Vec<u8>) {
    out.push(KIND_SETTINGS);
    out.extend_from_slice(&settings.to_json());
}

/// Appends the encoding of a record that lets the devices with these ids be forgotten.
pub fn encode_forget<'a>(ids: impl IntoIterator<Item = &'a str>, out: &mut Vec<u8>) {
    out.push(KIND_FORGET);
    for id in ids {
        put_str_u16(id, out);
    }
}

/// Decodes the records of one batch in order.
#[derive(Debug, Default)]
pub struct RecordDecoder<'a> {
    origin: Option<PublishOrigin<'a>>,
    index: usize,
}

/// The part of a publish that the next one may share.
#[derive(Debug, Clone, Copy)]
struct PublishOrigin<'a> {
    client_id: &'a str,
    topic: &'a str,
    own_device: Option<&'a str>,
    user: Option<&'a str>,
}

impl<'a> RecordDecoder<'a> {
    /// Decodes the next record of the batch.
    ///
    /// # Errors
    /// Bytes that are not of a known format.
    pub fn decode(&mut self, bytes: &'a [u8]) -> Result<Record<'a>, InvalidRecord> {
        let index = self.index;
        self.index += 1;
        let invalid = |what| InvalidRecord { index, what };
        match bytes.split_first() {
            Some((&KIND_PUBLISH, rest)) => self.publish(rest).map_err(invalid),
            Some((&KIND_TICK, [])) => Ok(Record::Tick),
            Some((&KIND_RESUMED, [])) => Ok(Record::Resumed),
            Some((&KIND_REPLAY, rest)) => replay(rest).map_err(invalid),
            Some((&KIND_SETTINGS, json)) => Ok(Record::Settings(json)),
            Some((&KIND_FORGET, ids)) => ForgottenDevices::decode(ids).map(Record::Forget).map_err(invalid),
            Some(_) => Err(invalid(DecodeError::Content("unknown kind"))),
            None => Err(invalid(DecodeError::Content("empty"))),
        }
    }

    fn publish(&mut self, bytes: &'a [u8]) -> Result<Record<'a>, DecodeError> {
        let mut reader = FieldReader::new(bytes);
        let flags = reader.u8()?;
        let qos = flags & FLAG_QOS;
        let same_origin = flags & FLAG_SAME_ORIGIN != 0;
        let is_repeat = flags & FLAG_REPEATS_RETAINED != 0;
        if qos > 2 || is_repeat && flags & FLAG_RETAIN == 0 || same_origin && flags & (FLAG_OWN_DEVICE | FLAG_USER) != 0
        {
            return Err(DecodeError::Content("unknown flags"));
        }
        let packet_id = if qos > 0 { reader.u16_le()? } else { 0 };
        if !same_origin {
            let (client_id, topic) = (reader.str_u16()?, reader.str_u16()?);
            let own_device = if flags & FLAG_OWN_DEVICE != 0 { Some(reader.str_u16()?) } else { None };
            let user = if flags & FLAG_USER != 0 { Some(reader.str_u16()?) } else { None };
            self.origin = Some(PublishOrigin { client_id, topic, own_device, user });
        }
        let origin = self.origin.ok_or("no publish before it to share client and topic with")?;
        let publish = PublishRecord {
            client_id: origin.client_id,
            topic: origin.topic,
            own_device: origin.own_device,
            user: origin.user,
            packet_id,
            qos,
            dup: flags & FLAG_DUP != 0,
            retain: flags & FLAG_RETAIN != 0,
            repeats_retained: is_repeat,
            payload: reader.rest(),
        };
        Ok(Record::Publish(publish, same_origin))
    }
}

fn replay(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let mut reader = FieldReader::new(bytes);
    let flags = reader.u8()?;
    if flags & !(REPLAY_WHOLE | REPLAY_OWN_DEVICE | REPLAY_USER) != 0 {
        return Err(DecodeError::Content("unknown flags"));
    }
    let (position, arrival_ms) = (reader.u64_le()?, reader.i64_le()?);
    let (client_id, topic) = (reader.str_u16()?, reader.str_u16()?);
    let own_device = if flags & REPLAY_OWN_DEVICE != 0 { Some(reader.str_u16()?) } else { None };
    let user = if flags & REPLAY_USER != 0 { Some(reader.str_u16()?) } else { None };
    let count = usize::from(reader.u16_le()?);
    let items = ReplayItems::decode(count, &mut reader)?;
    let (payload, whole) = (reader.rest(), flags & REPLAY_WHOLE != 0);
    if whole && !(count == 1 && items.iter().all(|item| item.indexes() == (0..1))) {
        return Err(DecodeError::Content("an index of a whole message"));
    }
    Ok(Record::Replay(ReplayRecord { position, whole, arrival_ms, client_id, topic, own_device, user, items, payload }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(payload: &[u8]) -> PublishRecord<'_> {
        PublishRecord {
            client_id: "c",
            topic: "devices/a/telemetry",
            own_device: None,
            user: None,
            packet_id: 7,
            qos: 1,
            dup: true,
            retain: false,
            repeats_retained: false,
            payload,
        }
    }

    #[test]
    fn records_read_back() {
        let mut first = Vec::new();
        encode_publish(&publish(b"one"), false, &mut first);
        let mut second = Vec::new();
        encode_publish(&publish(b""), true, &mut second);
        let mut decoder = RecordDecoder::default();
        assert_eq!(decoder.decode(&first), Ok(Record::Publish(publish(b"one"), false)));
        assert_eq!(decoder.decode(&second), Ok(Record::Publish(publish(b""), true)));
        assert_eq!(decoder.decode(&[KIND_TICK]), Ok(Record::Tick));
        assert_eq!(decoder.decode(&[KIND_RESUMED]), Ok(Record::Resumed));
        let mut settings = Vec::new();
        encode_settings(&Settings::default(), &mut settings);
        assert_eq!(decoder.decode(&settings), Ok(Record::Settings(&Settings::default().to_json())));
    }

    fn items(of: &[(u64, u32, bool)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(error_seq, index, unseen) in of {
            ReplayItem { error_seq, index, readings: 1, unseen }.encode(&mut bytes);
        }
        bytes
    }

    fn replay<'a>(whole: bool, items: &'a [u8]) -> ReplayRecord<'a> {
        let items = ReplayItems(items);
        ReplayRecord {
            position: 0x0102_0304,
            whole,
            arrival_ms: -2,
            client_id: "c",
            topic: "t",
            own_device: None,
            user: None,
            items,
            payload: b"p",
        }
    }

    #[test]
    fn replays_read_back_and_leave_the_origin_alone() {
        let mut first = Vec::new();
        encode_publish(&publish(b"one"), false, &mut first);
        let mut second = Vec::new();
        encode_publish(&publish(b"two"), true, &mut second);
        let listed = [vec![], vec![(7, 0, true)], vec![(1, 2, false), (u64::MAX, u32::MAX, true)]];
        let encoded = listed.map(|listed| {
            let items = items(&listed);
            let mut bytes = Vec::new();
            encode_replay(&replay(listed.len() == 1, &items), &mut bytes);
            (listed, items, bytes)
        });
        let mut decoder = RecordDecoder::default();
        assert_eq!(decoder.decode(&first), Ok(Record::Publish(publish(b"one"), false)));
        for (listed, items, bytes) in &encoded {
            let expected = replay(listed.len() == 1, items);
            assert_eq!(decoder.decode(bytes), Ok(Record::Replay(expected)));
            let read: Vec<_> = expected.items.iter().map(|item| (item.error_seq, item.index, item.unseen)).collect();
            assert_eq!(&read, listed);
        }
        assert_eq!(decoder.decode(&second), Ok(Record::Publish(publish(b"two"), true)));
    }

    /// Kind 4 as released: a change here is a new kind.
    #[test]
    fn the_bytes_of_a_replay() {
        let mut bytes = Vec::new();
        encode_replay(&replay(false, &items(&[(7, 3, true)])), &mut bytes);
        let head = b"\x04\0\x04\x03\x02\x01\0\0\0\0\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01\0c\x01\0t\x01\0";
        assert_eq!(bytes, [&head[..], b"\x01\x07\0\0\0\0\0\0\0\x03\0\0\0p"].concat());
        for len in 0..bytes.len() - 1 {
            assert!(RecordDecoder::default().decode(&bytes[..len]).is_err(), "prefix of {len} bytes");
        }
        for (at, wrong, why) in [(1, 1, "a whole message has no index"), (1, 8, "a flag"), (head.len(), 2, "a flag")] {
            let mut bytes = bytes.clone();
            bytes[at] = wrong;
            assert!(RecordDecoder::default().decode(&bytes).is_err(), "{why}");
        }
    }

    /// Flags and their bytes as released.
    #[test]
    fn the_device_that_a_client_speaks_for_is_part_of_the_origin() {
        let own = PublishRecord { own_device: Some("d"), topic: "t", payload: b"p", ..publish(b"") };
        let (mut first, mut second, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        encode_publish(&own, false, &mut first);
        encode_publish(&own, true, &mut second);
        encode_publish(&publish(b""), false, &mut plain);
        assert_eq!(first, b"\x01\x25\x07\0\x01\0c\x01\0t\x01\0dp");
        assert_eq!(second, b"\x01\x15\x07\0p");
        let both = [&[KIND_PUBLISH, second[1] | FLAG_OWN_DEVICE], &second[2..]].concat();
        let mut decoder = RecordDecoder::default();
        assert_eq!(decoder.decode(&first), Ok(Record::Publish(own, false)));
        assert_eq!(decoder.decode(&second), Ok(Record::Publish(own, true)));
        assert_eq!(decoder.decode(&plain), Ok(Record::Publish(publish(b""), false)));
        for len in 0..first.len() - 1 {
            assert!(RecordDecoder::default().decode(&first[..len]).is_err(), "prefix of {len} bytes");
        }
        assert!(decoder.decode(&both).is_err(), "a shared origin with a device");
        let items = items(&[(7, 3, true)]);
        let (mut bytes, own) = (Vec::new(), ReplayRecord { own_device: Some("d"), ..replay(false, &items) });
        encode_replay(&own, &mut bytes);
        assert_eq!(RecordDecoder::default().decode(&bytes), Ok(Record::Replay(own)));
        assert_eq!(bytes[1], 2);
    }

    /// Flags and their bytes as released.
    #[test]
    fn the_user_is_part_of_the_origin() {
        let named = PublishRecord { user: Some("u"), topic: "t", payload: b"p", ..publish(b"") };
        let both = PublishRecord { own_device: Some("d"), ..named };
        let (mut first, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
        encode_publish(&named, false, &mut first);
        encode_publish(&named, true, &mut second);
        encode_publish(&both, false, &mut third);
        assert_eq!(first, b"\x01\x45\x07\0\x01\0c\x01\0t\x01\0up");
        assert_eq!(second, b"\x01\x15\x07\0p");
        assert_eq!(third, b"\x01\x65\x07\0\x01\0c\x01\0t\x01\0d\x01\0up");
        let mut decoder = RecordDecoder::default();
        assert_eq!(decoder.decode(&first), Ok(Record::Publish(named, false)));
        assert_eq!(decoder.decode(&second), Ok(Record::Publish(named, true)));
        assert_eq!(decoder.decode(&third), Ok(Record::Publish(both, false)));
        for len in 0..third.len() - 1 {
            assert!(RecordDecoder::default().decode(&third[..len]).is_err(), "prefix of {len} bytes");
        }
        let shared = [&[KIND_PUBLISH, second[1] | FLAG_USER], &second[2..]].concat();
        assert!(decoder.decode(&shared).is_err(), "a shared origin with a user");
        let items = items(&[(7, 3, true)]);
        let (mut bytes, named) = (Vec::new(), ReplayRecord { user: Some("u"), ..replay(false, &items) });
        encode_replay(&named, &mut bytes);
        assert_eq!(RecordDecoder::default().decode(&bytes), Ok(Record::Replay(named)));
        assert_eq!(bytes[1], 4);
    }

    /// Flags and their bytes as released.
    #[test]
    fn a_repeated_retained_message_says_so() {
        let retained = PublishRecord { retain: true, dup: false, topic: "t", payload: b"p", ..publish(b"") };
        let repeated = PublishRecord { repeats_retained: true, ..retained };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        encode_publish(&retained, false, &mut first);
        encode_publish(&repeated, true, &mut second);
        assert_eq!(second, b"\x01\x99\x07\0p");
        let mut decoder = RecordDecoder::default();
        assert_eq!(decoder.decode(&first), Ok(Record::Publish(retained, false)));
        assert_eq!(decoder.decode(&second), Ok(Record::Publish(repeated, true)));
        let without = [&[KIND_PUBLISH, second[1] & !FLAG_RETAIN], &second[2..]].concat();
        assert!(decoder.decode(&without).is_err(), "a repetition without RETAIN");
    }

    /// Kind 6 as released.
    #[test]
    fn forgotten_devices_read_back() {
        let mut bytes = Vec::new();
        encode_forget(["a", "é"], &mut bytes);
        assert_eq!(bytes, b"\x06\x01\0a\x02\0\xc3\xa9");
        let Ok(Record::Forget(ids)) = RecordDecoder::default().decode(&bytes) else { panic!("{bytes:?}") };
        assert_eq!(ids.iter().collect::<Vec<_>>(), ["a", "é"]);
        for len in [2, 3, 5, 6, 7] {
            assert!(RecordDecoder::default().decode(&bytes[..len]).is_err(), "prefix of {len} bytes");
        }
    }

    #[test]
    fn every_prefix_of_an_origin_is_refused() {
        let mut bytes = Vec::new();
        encode_publish(&publish(b""), false, &mut bytes);
        for len in 0..bytes.len() {
            assert!(RecordDecoder::default().decode(&bytes[..len]).is_err(), "prefix of {len} bytes");
        }
    }

    #[test]
    fn a_shared_origin_needs_a_publish_before_it() {
        let mut bytes = Vec::new();
        encode_publish(&publish(b"x"), true, &mut bytes);
        assert!(RecordDecoder::default().decode(&bytes).is_err());
    }
}
