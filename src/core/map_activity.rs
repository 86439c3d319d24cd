//! What became of the messages that maps took, by map. It is part of checkpoints.

use std::cmp::Reverse;

use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_i64, put_u64};
use crate::core::formats::{Ignored, MAX_MAPS, MapSettings, MappedMessage};
use crate::core::liveness::kept_topic;
use crate::core::watermark::NONE_MS;

/// Ignored keys that are counted at most.
const MAX_KEYS: usize = 40;
/// Ignored keys that are shown at most.
const SHOWN_KEYS: usize = 20;
/// Bytes of the longest key that is counted.
const MAX_KEY_BYTES: usize = 128;
/// Messages of which all ignored keys are counted. Of later ones, those of one in [`KEY_SAMPLE`] are.
const FIRST_MESSAGES: u64 = 1_024;
/// See [`FIRST_MESSAGES`].
const KEY_SAMPLE: u64 = 64;

/// What a message of a map gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapOutcome {
    /// Readings.
    Readings,
    /// The status of a device.
    Status,
    /// Nothing, and nothing was wrong.
    Ignored,
    /// It could not be read.
    Malformed,
}

impl MapOutcome {
    /// All outcomes, in order.
    pub const ALL: [Self; 4] = [Self::Readings, Self::Status, Self::Ignored, Self::Malformed];

    /// The name in metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Readings => "readings",
            Self::Status => "status",
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
        }
    }
}

/// The first message of a map that gave readings: what it was that the map recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstReadings {
    /// Topic of the message, cut after 256 bytes.
    pub topic: String,
    /// Device of its first reading, cut after 256 bytes.
    pub device: String,
    /// Its arrival time, Unix milliseconds.
    pub arrival_ms: i64,
}

/// A map that gave readings for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecognisedMap {
    /// Name of the map.
    pub map: String,
    /// Its first message with readings.
    pub first: FirstReadings,
}

/// What became of the messages of one map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapActivity {
    /// Name of the map.
    pub name: String,
    /// Numbers of messages, by [`MapOutcome`].
    pub messages: [u64; MapOutcome::ALL.len()],
    /// Numbers of values that were ignored, by [`Ignored`].
    pub ignored: [u64; Ignored::ALL.len()],
    /// Arrival time of the last message, Unix milliseconds.
    last_ms: i64,
    /// Topic of the last message, cut after 256 bytes.
    pub last_topic: String,
    /// Ignored keys, each with the number of times that it was seen.
    keys: Vec<(String, u64)>,
    /// Its first message with readings.
    pub first: Option<Box<FirstReadings>>,
}

impl MapActivity {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            messages: [0; MapOutcome::ALL.len()],
            ignored: [0; Ignored::ALL.len()],
            last_ms: NONE_MS,
            last_topic: String::new(),
            keys: Vec::new(),
            first: None,
        }
    }

    /// Arrival time of the last message, Unix milliseconds.
    pub fn last_ms(&self) -> Option<i64> {
        (self.last_ms != NONE_MS).then_some(self.last_ms)
    }

    /// The most frequent ignored keys, the most frequent first. All keys of the first messages are counted, later those of some.
    pub fn top_keys(&self) -> Vec<(&str, u64)> {
        let mut keys: Vec<(&str, u64)> = self.keys.iter().map(|(key, count)| (key.as_str(), *count)).collect();
        keys.sort_by_key(|&(key, count)| (Reverse(count), key));
        keys.truncate(SHOWN_KEYS);
        keys
    }

    /// Counts a message of the map.
    pub(super) fn count(&mut self, outcome: MapOutcome, arrival_ms: i64, topic: &str) {
        if let Some(count) = self.messages.get_mut(outcome as usize) {
            *count += 1;
        }
        self.last_ms = arrival_ms;
        let topic = kept_topic(topic);
        if self.last_topic != topic {
            self.last_topic.clear();
            self.last_topic.push_str(topic);
        }
    }

    /// Counts values that were ignored.
    pub(super) fn count_ignored(&mut self, reason: Ignored, count: u64) {
        if let Some(ignored) = self.ignored.get_mut(reason as usize) {
            *ignored += count;
        }
    }

    /// Counts what a message says is ignored.
    pub(super) fn count_all_ignored(&mut self, mapped: &MappedMessage<'_>) {
        for &(reason, count) in &mapped.ignored {
            self.count_ignored(reason, u64::from(count));
        }
        let before: u64 = self.messages.iter().sum();
        if before < FIRST_MESSAGES || before.is_multiple_of(KEY_SAMPLE) {
            mapped.ignored_keys.iter().for_each(|key| self.count_key(key));
        }
    }

    /// Counts an ignored key. Where there are too many, the least frequent gives way, and the new one goes on from its count
    /// (the algorithm "space-saving").
    fn count_key(&mut self, key: &str) {
        if key.len() > MAX_KEY_BYTES {
            return;
        }
        if let Some((_, count)) = self.keys.iter_mut().find(|(known, _)| known == key) {
            *count += 1;
        } else if self.keys.len() < MAX_KEYS {
            self.keys.push((key.to_owned(), 1));
        } else if let Some(least) = self.keys.iter_mut().min_by_key(|(_, count)| *count) {
            *least = (key.to_owned(), least.1 + 1);
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(self.name.as_bytes(), out);
        self.messages.iter().for_each(|&count| put_u64(count, out));
        put_u64(self.ignored.len() as u64, out);
        self.ignored.iter().for_each(|&count| put_u64(count, out));
        put_i64(self.last_ms, out);
        put_bytes(self.last_topic.as_bytes(), out);
        put_u64(self.keys.len() as u64, out);
        for (key, count) in &self.keys {
            put_bytes(key.as_bytes(), out);
            put_u64(*count, out);
        }
    }

    fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let mut activity = Self::new(reader.str()?);
        for count in &mut activity.messages {
            *count = reader.u64()?;
        }
        let reasons = reader.count()?;
        for count in activity.ignored.get_mut(..reasons).ok_or("reasons of a later version")? {
            *count = reader.u64()?;
        }
        activity.last_ms = reader.i64()?;
        activity.last_topic = reader.str()?.to_owned();
        let keys = reader.count()?;
        if keys > MAX_KEYS {
            return Err(DecodeError::Content("too many ignored keys"));
        }
        for _ in 0..keys {
            activity.keys.push((reader.str()?.to_owned(), reader.u64()?));
        }
        Ok(activity)
    }
}

/// What became of the messages of all maps, in the order of the settings.
#[derive(Debug, Clone, Default)]
pub(super) struct MapActivities {
    all: Vec<MapActivity>,
    /// Maps that gave readings for the first time since they were taken. They are told to a person, and are no part of the state.
    recognised: Vec<RecognisedMap>,
}

impl MapActivities {
    /// Those of `maps`, which go on from those of the same name in `self`.
    pub fn of(&self, maps: &[MapSettings]) -> Self {
        let of_name = |map: &MapSettings| {
            let known = self.all.iter().find(|activity| activity.name == map.name);
            known.cloned().unwrap_or_else(|| MapActivity::new(&map.name))
        };
        Self { all: maps.iter().map(of_name).collect(), recognised: self.recognised.clone() }
    }

    /// Notes that a message of the map with this index gave readings. The first of each map is kept.
    pub fn note_readings(&mut self, map: u16, topic: &str, device: &str, arrival_ms: i64) {
        let Some(activity) = self.all.get_mut(usize::from(map)).filter(|activity| activity.first.is_none()) else {
            return;
        };
        let first =
            FirstReadings { topic: kept_topic(topic).to_owned(), device: kept_topic(device).to_owned(), arrival_ms };
        self.recognised.push(RecognisedMap { map: activity.name.clone(), first: first.clone() });
        activity.first = Some(Box::new(first));
    }

    /// That of the map with this index.
    pub fn get_mut(&mut self, map: u16) -> Option<&mut MapActivity> {
        self.all.get_mut(usize::from(map))
    }

    /// All, in the order of the settings.
    pub fn all(&self) -> &[MapActivity] {
        &self.all
    }

    /// Maps that gave readings for the first time since the last call.
    pub fn take_recognised(&mut self) -> Vec<RecognisedMap> {
        std::mem::take(&mut self.recognised)
    }

    /// Appends the stored form: nothing if there are no maps.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.all.is_empty() {
            return;
        }
        put_u64(self.all.len() as u64, out);
        self.all.iter().for_each(|activity| activity.encode(out));
    }

    /// Appends the stored form of the first messages: nothing if no map gave readings.
    pub fn encode_firsts(&self, out: &mut Vec<u8>) {
        let firsts = || self.all.iter().filter_map(|activity| Some((activity, activity.first.as_deref()?)));
        if firsts().next().is_none() {
            return;
        }
        put_u64(firsts().count() as u64, out);
        for (activity, first) in firsts() {
            for text in [&activity.name, &first.topic, &first.device] {
                put_bytes(text.as_bytes(), out);
            }
            put_i64(first.arrival_ms, out);
        }
    }

    /// Reads the first messages of the maps that are known.
    pub fn decode_firsts(&mut self, reader: &mut FieldReader<'_>) -> Result<(), DecodeError> {
        for _ in 0..reader.count()? {
            let name = reader.str()?;
            let (topic, device) = (reader.str()?.to_owned(), reader.str()?.to_owned());
            let first = FirstReadings { topic, device, arrival_ms: reader.i64()? };
            if let Some(activity) = self.all.iter_mut().find(|activity| activity.name == name) {
                activity.first = Some(Box::new(first));
            }
        }
        Ok(())
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let count = reader.count()?;
        if count > MAX_MAPS {
            return Err(DecodeError::Content("too many maps"));
        }
        let all = (0..count).map(|_| MapActivity::decode(reader)).collect::<Result<_, _>>()?;
        Ok(Self { all, recognised: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activities_read_back_and_go_on_by_name() {
        let map = |name: &str| MapSettings { name: name.into(), ..MapSettings::default() };
        let mut activities = MapActivities::default().of(&[map("a"), map("b")]);
        let activity = activities.get_mut(1).unwrap();
        activity.count(MapOutcome::Status, 7, "tele/x/LWT");
        let mapped = MappedMessage {
            ignored: vec![(Ignored::Excluded, 2), (Ignored::Text, 1)],
            ignored_keys: vec!["Wifi.RSSI".into(), "Uptime".into(), "Uptime".into()],
            ..MappedMessage::default()
        };
        activity.count_all_ignored(&mapped);
        assert_eq!(activity.top_keys(), [("Uptime", 2), ("Wifi.RSSI", 1)]);
        let mut bytes = Vec::new();
        activities.encode(&mut bytes);
        let read = MapActivities::decode(&mut FieldReader::new(&bytes)).expect("activities");
        assert_eq!(read.all(), activities.all());
        for len in 0..bytes.len() {
            assert!(MapActivities::decode(&mut FieldReader::new(&bytes[..len])).is_err(), "prefix of {len} bytes");
        }
        let other = activities.of(&[map("b"), map("c")]);
        assert_eq!((&other.all()[0], other.all()[1].messages), (&activities.all()[1], [0; 4]));
    }

    #[test]
    fn the_first_message_with_readings_is_kept_and_told_once() {
        let maps = ["a", "b"].map(|name| MapSettings { name: name.into(), ..MapSettings::default() });
        let mut activities = MapActivities::default().of(&maps);
        let mut bytes = Vec::new();
        activities.encode_firsts(&mut bytes);
        assert!(bytes.is_empty());
        activities.note_readings(1, "tele/desk/SENSOR", "desk", 7);
        activities.note_readings(1, "tele/lamp/SENSOR", "lamp", 8);
        let first = FirstReadings { topic: "tele/desk/SENSOR".into(), device: "desk".into(), arrival_ms: 7 };
        assert_eq!(activities.take_recognised(), [RecognisedMap { map: "b".into(), first: first.clone() }]);
        assert_eq!(activities.take_recognised(), []);
        activities.encode_firsts(&mut bytes);
        let read = |bytes: &[u8]| {
            let mut read = MapActivities::default().of(&maps);
            read.decode_firsts(&mut FieldReader::new(bytes)).map(|()| read.all()[1].first.clone())
        };
        assert_eq!(read(&bytes), Ok(Some(Box::new(first))));
        assert!((0..bytes.len()).all(|len| read(&bytes[..len]).is_err()));
    }

    #[test]
    fn a_frequent_key_stays_among_many() {
        let mut activity = MapActivity::new("a");
        for round in 0..100 {
            activity.count_key("frequent");
            (0..9).for_each(|index| activity.count_key(&format!("{round}/{index}")));
        }
        assert_eq!(activity.keys.len(), MAX_KEYS);
        assert_eq!(activity.top_keys()[0].0, "frequent");
        assert_eq!(activity.top_keys().len(), SHOWN_KEYS);
    }
}
