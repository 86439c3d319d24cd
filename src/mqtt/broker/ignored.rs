//! Publishes on topics that maps ignore: they are passed to subscribers, and counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of publishes by map, since the start.
#[derive(Debug)]
pub(crate) struct IgnoredByMaps(Vec<(String, AtomicU64)>);

impl IgnoredByMaps {
    /// No publishes of the maps with these names.
    pub fn new(maps: impl Iterator<Item = String>) -> Self {
        Self(maps.map(|map| (map, AtomicU64::new(0))).collect())
    }

    /// Counts publishes on topics that the map with this index ignores.
    pub fn note(&self, map: u16, count: u64) {
        if let Some((_, ignored)) = self.0.get(usize::from(map)) {
            ignored.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Name of the map with this index.
    pub fn name(&self, map: u16) -> Option<&str> {
        self.0.get(usize::from(map)).map(|(name, _)| name.as_str())
    }

    /// Name and count of each map.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(map, count)| (map.as_str(), count.load(Ordering::Relaxed)))
    }
}
