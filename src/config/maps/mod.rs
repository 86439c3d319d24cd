//! Maps in the configuration: tables `[[ingest.map]]`, presets that are part of weir, and preset files of a person.
//!
//! A table is read into a draft (`draft`, by the keys in `keys` and the values in `values`). `choice` puts drafts over their presets
//! and says which maps are on.

mod choice;
mod draft;
mod files;
mod keys;
mod known;
mod values;

pub(super) use choice::{MapChoice, default_maps};
pub(super) use draft::{MapDraft, read_maps};
pub(super) use files::read_directory;
pub use files::{Preset, embedded_presets};
pub use known::{KnownMap, MapOrigin, MapState, PresetChoice};

/// The key of the directory with preset files.
pub(super) const MAP_FILES: &str = "ingest.map_files";
/// The key of the tables of maps.
pub(super) const INGEST_MAP: &str = "ingest.map";

#[cfg(test)]
mod tests;
