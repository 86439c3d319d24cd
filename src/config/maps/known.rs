//! The maps that a configuration knows, and which of them are on.

use crate::core::formats::MapSettings;

/// Which presets are on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PresetChoice {
    /// All that are not optional, with those of their patterns that begin with a literal level. A preset without such a pattern
    /// of readings is off. Preset files of a person have all their patterns.
    #[default]
    Auto,
    /// None.
    Off,
    /// Those with these names, of families or of maps. The name `auto` stands for those of [`PresetChoice::Auto`].
    Named(Vec<String>),
}

/// A map that the configuration knows.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownMap {
    /// The map, with the keys of its preset.
    pub settings: MapSettings,
    /// Where it stands.
    pub origin: MapOrigin,
    /// Whether it is on.
    pub state: MapState,
}

/// Where a map stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapOrigin {
    /// In a table `[[ingest.map]]`.
    Config,
    /// In this file of the directory `ingest.map_files`.
    File(String),
    /// In the preset of this family.
    Preset(String),
}

/// Whether a map is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapState {
    /// It takes messages.
    On,
    /// It is on only where `ingest.presets` or a table names it, and nothing does: it is said to be optional, or its topics begin
    /// with a wildcard.
    Optional,
    /// `ingest.presets` leaves it out.
    Off,
    /// A map of the configuration, or of a person's file, has its name or its topics.
    Replaced,
}

impl MapState {
    /// The word in lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Optional => "optional",
            Self::Off => "off",
            Self::Replaced => "replaced",
        }
    }
}
