//! Maps: what devices publish, turned into readings by declaration.
//!
//! A map takes the messages of some topics (`pattern`), decodes their payload (`document`, and the decoders of other formats), picks
//! elements, device, time and number (`path`, `template`), and gives values under metric names (`mapped`). All of it is a function of
//! the message, its arrival, and for Sparkplug B of the births before it.

mod about;
mod cbor;
mod compiled;
mod discoveries;
mod discovery;
mod document;
mod edge_node;
mod from_document;
mod from_samples;
mod glob;
mod line;
mod mapped;
mod memory;
mod names;
mod node_sequence;
mod outcome;
mod own_topics;
mod path;
mod pattern;
mod pattern_trie;
mod payload;
mod protobuf;
mod reading;
mod rejection;
mod ruuvi;
mod sample;
mod scalar;
mod senml;
mod settings;
mod sparkplug;
mod status;
mod template;
mod times;
mod units;
mod values;

pub use about::DeviceAbout;
pub use discovery::Announcement;
pub use mapped::{
    Ignored, MAX_MAPS, MAX_PATTERNS, MapFault, MapRole, MappedElement, MappedMessage, MappedReading, MappedStatus,
    MappedTime, MappedValue,
};
pub use memory::{EdgeNodeView, MapMemory, MapMemorySizes, SparkplugTotals};
pub use outcome::{MappedOutcome, ShownError, ShownReading, ShownStatus};
pub(in crate::core) use sample::{MAX_SAMPLES, Sample, SampleNames, SampleTime, SampleValue};
pub(in crate::core) use scalar::{TopicNamePlaces, TopicNames};
pub use settings::{
    Conversion, EmptyPayload, MapSettings, OtherText, PayloadFormat, RetainedRepeats, StatusSettings, TimeUnit,
};

use compiled::CompiledMap;
use own_topics::OwnLevels;
use pattern_trie::PatternTrie;
pub(in crate::core) use reading::KnownTopic;

/// The maps, compiled.
#[derive(Debug, Default)]
pub struct Maps {
    maps: Vec<CompiledMap>,
    trie: PatternTrie,
    own_levels: OwnLevels,
}

/// A map that takes a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapMatch {
    /// Index of the map among the settings.
    pub map: u16,
    /// What the topic says.
    pub role: MapRole,
    /// Index of the pattern among those of its role.
    pub pattern: u16,
}

/// Why a message of a map gives nothing at all. `Display` is the sentence of the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapProblem {
    /// The payload cannot be read; what is wrong and where.
    Malformed(String),
}

impl Maps {
    /// Compiles maps.
    ///
    /// # Errors
    /// All faults of the settings.
    pub fn new(settings: &[MapSettings]) -> Result<Self, Vec<MapFault>> {
        let mut faults = Vec::new();
        if settings.len() > MAX_MAPS {
            let message = format!("there are {} maps, and at most {MAX_MAPS} are allowed", settings.len());
            faults.push(MapFault { map: MAX_MAPS, key: "name".into(), message });
        }
        let mut maps = Vec::with_capacity(settings.len());
        let mut trie = PatternTrie::default();
        for (map, settings_of_map) in (0_u16..).zip(settings.iter().take(MAX_MAPS)) {
            let compiled = CompiledMap::new(usize::from(map), settings_of_map, &mut faults);
            for (role, pattern, levels) in compiled.patterns() {
                if let Err(other) = trie.add(levels, MapMatch { map, role, pattern }) {
                    faults.push(same_topics(settings, map, role, pattern, other));
                }
            }
            maps.push(compiled);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let own_levels = OwnLevels::new(&maps);
        Ok(Self { maps, trie, own_levels })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// The map that takes the messages of `topic`.
    pub fn find(&self, topic: &str) -> Option<MapMatch> {
        self.trie.find(topic)
    }

    /// What a message of `topic`, which `found` takes, gives. `arrival_ms` is when it first arrived. Units and names are those that
    /// discovery messages said of `topic`.
    ///
    /// # Errors
    /// A payload that cannot be read.
    pub fn map<'a>(
        &'a self,
        found: MapMatch,
        topic: &'a str,
        payload: &'a [u8],
        arrival_ms: i64,
        memory: &mut MapMemory,
    ) -> Result<MappedMessage<'a>, MapProblem> {
        let known = memory.known(topic, None);
        self.map_known(found, topic, payload, arrival_ms, known, memory)
    }

    /// As [`Maps::map`], with what is known of the topic, which may have a prefix that `topic` does not have.
    ///
    /// # Errors
    /// A payload that cannot be read.
    pub(super) fn map_known<'a>(
        &'a self,
        found: MapMatch,
        topic: &'a str,
        payload: &'a [u8],
        arrival_ms: i64,
        known: KnownTopic,
        memory: &mut MapMemory,
    ) -> Result<MappedMessage<'a>, MapProblem> {
        match self.maps.get(usize::from(found.map)) {
            Some(map) => map.map(found, topic, payload, arrival_ms, known, memory).map_err(MapProblem::Malformed),
            None => Ok(MappedMessage::default()),
        }
    }
}

/// The fault of a pattern that matches the same topics as one of another map, equally well.
fn same_topics(settings: &[MapSettings], map: u16, role: MapRole, pattern: u16, other: u16) -> MapFault {
    let settings_of = |map: u16| settings.get(usize::from(map));
    let name = settings_of(other).map_or("", |settings| &settings.name);
    let patterns = settings_of(map).map_or(&[][..], |settings| match role {
        MapRole::Readings => &settings.topics,
        MapRole::Status => settings.status.as_ref().map_or(&[], |status| &status.topics),
        MapRole::Ignore => &settings.ignore,
    });
    let pattern = patterns.get(usize::from(pattern)).map_or("", String::as_str);
    MapFault {
        map: usize::from(map),
        key: if role == MapRole::Status { "status.topics" } else { "topics" }.into(),
        message: format!(
            "{pattern:?} matches the same topics as a pattern of the map {name:?}, equally well; change one"
        ),
    }
}

#[cfg(test)]
mod tests;
