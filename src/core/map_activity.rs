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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MapActivities(Vec<MapActivity>);

impl MapActivities {
    /// Those of `maps`, which go on from those of the same name in `self`.
    pub fn of(&self, maps: &[MapSettings]) -> Self {
        let of_name = |map: &MapSettings| {
            let known = self.0.iter().find(|activity| activity.name == map.name);
            known.cloned().unwrap_or_else(|| MapActivity::new(&map.name))
        };
        Self(maps.iter().map(of_name).collect())
    }

    /// That of the map with this index.
    pub fn get_mut(&mut self, map: u16) -> Option<&mut MapActivity> {
        self.0.get_mut(usize::from(map))
    }

    /// All, in the order of the settings.
    pub fn all(&self) -> &[MapActivity] {
        &self.0
    }

    /// Appends the stored form: nothing if there are no maps.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.0.is_empty() {
            return;
        }
        put_u64(self.0.len() as u64, out);
        self.0.iter().for_each(|activity| activity.encode(out));
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        let count = reader.count()?;
        if count > MAX_MAPS {
            return Err(DecodeError::Content("too many maps"));
        }
        (0..count).map(|_| MapActivity::decode(reader)).collect::<Result<_, _>>().map(Self)
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
        assert_eq!(MapActivities::decode(&mut FieldReader::new(&bytes)).as_ref(), Ok(&activities));
        for len in 0..bytes.len() {
            assert!(MapActivities::decode(&mut FieldReader::new(&bytes[..len])).is_err(), "prefix of {len} bytes");
        }
        let other = activities.of(&[map("b"), map("c")]);
        assert_eq!((&other.all()[0], other.all()[1].messages), (&activities.all()[1], [0; 4]));
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
