//! The maps at one moment, to see beside the operator what they make of messages.

use std::sync::Arc;

use crate::core::formats::{MapMemory, MapRole, MappedOutcome, Maps, PayloadFormat};
use crate::core::operator::Operator;
use crate::core::topic::Topics;

/// The maps, and a copy of what they remember of earlier messages.
#[derive(Debug)]
pub struct MapView {
    topics: Topics,
    maps: Arc<Maps>,
    /// Name of each map, and whether it remembers births of Sparkplug B.
    names: Vec<(String, bool)>,
    memory: MapMemory,
}

/// A message that a map takes.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewedMessage {
    /// Name of the map.
    pub map: String,
    /// What the map makes of it.
    pub outcome: MappedOutcome,
}

impl Operator {
    /// The maps as they are now.
    pub fn map_view(&self) -> MapView {
        let settings = &self.settings.current;
        MapView {
            topics: Topics::new(&settings.telemetry_topics, &settings.error_topics, &settings.tenants),
            maps: self.settings.rules.maps.clone().unwrap_or_default(),
            names: settings
                .maps
                .iter()
                .map(|map| (map.name.clone(), map.payload == PayloadFormat::SparkplugB))
                .collect(),
            memory: self.map_memory.clone(),
        }
    }
}

impl MapView {
    /// What becomes of the next message; `None`: no map is asked, or none takes it.
    pub fn look(&mut self, topic: &str, payload: &[u8], arrival_ms: i64) -> Option<ViewedMessage> {
        let topic = self.topics.resolve(topic).unmatched?;
        let found = self.maps.find(topic)?;
        let map = self.names.get(usize::from(found.map)).map(|(name, _)| name.clone()).unwrap_or_default();
        let outcome = match found.role {
            MapRole::Ignore => MappedOutcome::ignored_topic(),
            _ => self.maps.show(found, topic, payload, arrival_ms, &mut self.memory),
        };
        Some(ViewedMessage { map, outcome })
    }

    /// Remembers what a message tells about later ones, without a look at what becomes of it.
    pub fn remember(&mut self, topic: &str, payload: &[u8], arrival_ms: i64) {
        // The level of the type is the same in all versions of the namespace.
        let is_told = topic.split('/').any(|level| level.ends_with("BIRTH") || level.ends_with("DEATH"));
        if !is_told {
            return;
        }
        let Some(topic) = self.topics.resolve(topic).unmatched else { return };
        if let Some(found) = self.maps.find(topic)
            && self.names.get(usize::from(found.map)).is_some_and(|(_, remembers)| *remembers)
        {
            // A message that cannot be read tells nothing.
            drop(self.maps.map(found, topic, payload, arrival_ms, &mut self.memory));
        }
    }
}
