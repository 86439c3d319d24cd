//! What discovery messages said, by the topic that they said it of.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::about::DeviceAbout;
use super::discovery::Announcement;
use super::memory::MapMemory;
use super::reading::KnownTopic;
use crate::core::codec::{DecodeError, FieldReader, put_bytes, put_u64};

/// Largest number of topics. At the bound the topic that was announced longest ago gives way to another one.
const MAX_TOPICS: usize = 4_096;
/// Largest number of units of one topic; further ones are left out.
const MAX_UNITS: usize = 128;
/// Longest topic; what is said of a longer one is left out.
const MAX_TOPIC_BYTES: usize = 512;
/// Longest key; the unit of a longer one is left out.
const MAX_KEY_BYTES: usize = 128;
/// Longest unit; a longer one is left out.
const MAX_UNIT_BYTES: usize = 32;
/// Version of the stored form.
const VERSION: u8 = 1;

/// What discovery messages said of one topic.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::core) struct DiscoveredTopic {
    /// The device of the topic.
    pub about: Arc<DeviceAbout>,
    /// Units by the key of the value, flattened with `.`.
    units: BTreeMap<Box<str>, Box<str>>,
    /// Number of the last announcement.
    announced: u64,
}

impl DiscoveredTopic {
    /// The unit of the value with this key, whose parts are separated by `separator`, below the key `prefix`.
    pub fn unit(&self, prefix: &str, key: &str, separator: &str) -> Option<&str> {
        let mut key = Cow::Borrowed(key);
        if separator != "." && !separator.is_empty() {
            key = Cow::Owned(key.replace(separator, "."));
        }
        if !prefix.is_empty() {
            key = Cow::Owned(format!("{prefix}.{key}"));
        }
        self.units.get(&*key).map(|unit| &**unit)
    }
}

/// What discovery messages said, by topic. What a client says that speaks for one device alone counts for its own messages, and is
/// kept apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Discoveries {
    topics: BTreeMap<Box<str>, Arc<DiscoveredTopic>>,
    /// Number of announcements so far.
    announced: u64,
    /// Number of topics that gave way.
    replaced: u64,
}

/// The key of a topic. No topic has a NUL.
fn key<'t>(topic: &'t str, own_device: Option<&str>) -> Cow<'t, str> {
    match own_device {
        None => Cow::Borrowed(topic),
        Some(device) => Cow::Owned(format!("{topic}\0{device}")),
    }
}

impl Discoveries {
    /// Number of topics, and of those that gave way to others.
    pub fn counts(&self) -> (usize, u64) {
        (self.topics.len(), self.replaced)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// What is known of a topic. `own_device` is the device that the client of the message speaks for, if it speaks for one alone.
    pub fn topic(&self, topic: &str, own_device: Option<&str>) -> Option<&Arc<DiscoveredTopic>> {
        let own = own_device.and_then(|device| self.topics.get(&*key(topic, Some(device))));
        own.or_else(|| self.topics.get(topic))
    }

    /// Remembers an announcement.
    pub fn announce(&mut self, announcement: &Announcement, own_device: Option<&str>) {
        let Announcement { topic, unit, about } = announcement;
        if topic.is_empty() || topic.len() > MAX_TOPIC_BYTES || topic.contains('\0') {
            return;
        }
        let key = key(topic, own_device);
        if !self.topics.contains_key(&*key) && self.topics.len() >= MAX_TOPICS {
            let oldest = self.topics.iter().min_by_key(|(_, topic)| topic.announced).map(|(key, _)| key.clone());
            self.replaced += u64::from(oldest.is_some_and(|oldest| self.topics.remove(&oldest).is_some()));
        }
        self.announced += 1;
        let known = Arc::make_mut(self.topics.entry(key.into()).or_default());
        known.announced = self.announced;
        let mut merged = DeviceAbout::clone(&known.about);
        if merged.take(about) {
            known.about = Arc::new(merged);
        }
        if let Some((key, unit)) = unit
            && key.len() <= MAX_KEY_BYTES
            && (1..=MAX_UNIT_BYTES).contains(&unit.len())
            && (known.units.len() < MAX_UNITS || known.units.contains_key(key.as_str()))
        {
            known.units.insert(key.as_str().into(), unit.as_str().into());
        }
    }

    /// Appends the stored form, which is empty where nothing is known.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        out.push(VERSION);
        put_u64(self.announced, out);
        put_u64(self.replaced, out);
        put_u64(self.topics.len() as u64, out);
        for (topic, known) in &self.topics {
            put_bytes(topic.as_bytes(), out);
            known.about.encode(out);
            put_u64(known.announced, out);
            put_u64(known.units.len() as u64, out);
            for (key, unit) in &known.units {
                put_bytes(key.as_bytes(), out);
                put_bytes(unit.as_bytes(), out);
            }
        }
    }

    /// Reads the stored form, which is not empty.
    ///
    /// # Errors
    /// What is not of the form, or beyond the bounds.
    pub fn decode(reader: &mut FieldReader<'_>) -> Result<Self, DecodeError> {
        if reader.u8()? != VERSION {
            return Err("an unknown version of what discovery messages said".into());
        }
        let (announced, replaced) = (reader.u64()?, reader.u64()?);
        let mut topics = BTreeMap::new();
        for _ in 0..reader.count()? {
            let topic = Box::from(reader.str()?);
            let mut known = DiscoveredTopic {
                about: Arc::new(DeviceAbout::decode(reader)?),
                announced: reader.u64()?,
                units: BTreeMap::new(),
            };
            for _ in 0..reader.count()? {
                known.units.insert(reader.str()?.into(), reader.str()?.into());
            }
            if known.units.len() > MAX_UNITS || topics.insert(topic, Arc::new(known)).is_some() {
                return Err("units of a topic, more than are remembered or twice".into());
            }
        }
        if topics.len() > MAX_TOPICS {
            return Err("more topics of discovery messages than are remembered".into());
        }
        Ok(Self { topics, announced, replaced })
    }
}

impl MapMemory {
    /// What discovery messages said of a topic, which is in full. `own_device` is the device that the client of the message speaks
    /// for, if it speaks for one alone.
    pub(in crate::core) fn known(&self, topic: &str, own_device: Option<&str>) -> KnownTopic {
        if self.discoveries.is_empty() { None } else { self.discoveries.topic(topic, own_device).cloned() }
    }

    /// Remembers what a discovery message said. With `own_device` it counts for messages of clients that speak for this device alone.
    pub(in crate::core) fn announce(&mut self, announcement: &Announcement, own_device: Option<&str>) {
        Arc::make_mut(&mut self.discoveries).announce(announcement, own_device);
    }

    /// Number of topics that discovery messages spoke of, and of those that gave way to others.
    pub fn discovered(&self) -> (usize, u64) {
        self.discoveries.counts()
    }

    /// Appends the stored form of what discovery messages said; nothing where they said nothing.
    pub(in crate::core) fn encode_discoveries(&self, out: &mut Vec<u8>) {
        self.discoveries.encode(out);
    }

    /// Reads [`MapMemory::encode_discoveries`].
    ///
    /// # Errors
    /// What is not of the form.
    pub(in crate::core) fn decode_discoveries(&mut self, reader: &mut FieldReader<'_>) -> Result<(), DecodeError> {
        self.discoveries = Arc::new(Discoveries::decode(reader)?);
        Ok(())
    }

    /// The memory with what `other` has of discovery messages.
    pub(in crate::core) fn with_discoveries_of(mut self, other: &Self) -> Self {
        self.discoveries = Arc::clone(&other.discoveries);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(topic: &str, key: &str, unit: &str) -> Announcement {
        let about = DeviceAbout::new(Some("Plug"), None, None);
        Announcement { topic: topic.into(), unit: Some((key.into(), unit.into())), about }
    }

    fn unit<'d>(known: &'d Discoveries, topic: &str, own: Option<&str>, key: &str) -> Option<&'d str> {
        known.topic(topic, own)?.unit("", key, ".")
    }

    #[test]
    fn units_are_found_by_topic_and_key() {
        let mut known = Discoveries::default();
        known.announce(&announcement("t", "a.b", "W"), None);
        known.announce(&announcement("t", "c", "V"), None);
        known.announce(&announcement("t", "c", "kV"), None);
        assert_eq!((unit(&known, "t", None, "a.b"), unit(&known, "t", Some("x"), "c")), (Some("W"), Some("kV")));
        assert_eq!((unit(&known, "t", None, "b"), unit(&known, "u", None, "c")), (None, None));
        let topic = known.topic("t", None).unwrap();
        assert_eq!((topic.unit("", "a_b", "_"), topic.unit("a", "b", ".")), (Some("W"), Some("W")));
    }

    /// A device must not choose the units of others.
    #[test]
    fn a_client_with_one_device_speaks_for_itself() {
        let mut known = Discoveries::default();
        known.announce(&announcement("t", "a", "W"), None);
        known.announce(&announcement("t", "a", "V"), Some("x"));
        let of = |own| unit(&known, "t", own, "a");
        assert_eq!((of(None), of(Some("x")), of(Some("y"))), (Some("W"), Some("V"), Some("W")));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Discoveries::default();
        for index in 0..MAX_TOPICS + 10 {
            known.announce(&announcement(&format!("t{index}"), "a", "W"), None);
            known.announce(&announcement("t0", "a", "W"), None);
        }
        assert_eq!(known.counts(), (MAX_TOPICS, 10));
        assert!(unit(&known, "t0", None, "a").is_some() && unit(&known, "t1", None, "a").is_none());
        for index in 0..2 * MAX_UNITS {
            known.announce(&announcement("t0", &format!("k{index}"), "W"), None);
        }
        assert_eq!(known.topic("t0", None).unwrap().units.len(), MAX_UNITS);
        for (topic, key, unit_text) in
            [("", "a", "W"), (&*"t".repeat(513), "a", "W"), ("u", &*"k".repeat(129), "W"), ("v", "a", &*"u".repeat(33))]
        {
            known.announce(&announcement(topic, key, unit_text), None);
            assert_eq!(unit(&known, topic, None, key), None);
        }
    }

    #[test]
    fn the_stored_form_reads_back() {
        let stored = |known: &Discoveries| {
            let mut bytes = Vec::new();
            known.encode(&mut bytes);
            bytes
        };
        assert!(stored(&Discoveries::default()).is_empty());
        let mut known = Discoveries::default();
        known.announce(&announcement("t", "a", "°C"), None);
        known.announce(&announcement("t", "a", "V"), Some("x"));
        let bytes = stored(&known);
        let read = |bytes: &[u8]| {
            let mut reader = FieldReader::new(bytes);
            let known = Discoveries::decode(&mut reader)?;
            reader.end().map(|()| known)
        };
        assert_eq!(read(&bytes), Ok(known));
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "prefix of {len} bytes");
        }
        assert!(read(&[&[2], &bytes[1..]].concat()).is_err());
    }
}
