//! The file `settings.json` of the data directory: the settings that the last start wrote into the journal. The next start and
//! `weir check` compare the configuration with them, and say what changes and from when it holds. Nothing else depends on
//! the file: results depend on the records of the journal.

use std::path::Path;

use anyhow::Context as _;

use weir::clock::{Clock as _, SystemClock};
use weir::config::{Config, result_changes};
use weir::core::settings::Settings;
use weir::disk::{RealDisk, replace_file};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "settings.json";

/// One line for each setting whose change concerns results. Empty where the data directory has no readable file: it is new, or
/// a version wrote it that had none.
pub fn changes(config: &Config) -> Vec<String> {
    let recorded = std::fs::read(config.node.data_dir.join(FILE_NAME)).ok();
    let recorded = recorded.and_then(|json| Settings::from_json(&json).ok());
    recorded.map_or_else(Vec::new, |recorded| result_changes(&recorded, &config.settings(), SystemClock.now_ms()))
}

/// Replaces the file of `data_dir`.
///
/// # Errors
/// The file cannot be written.
pub fn write(data_dir: &Path, settings: &Settings) -> anyhow::Result<()> {
    let path = data_dir.join(FILE_NAME);
    replace_file(&RealDisk, &path, &settings.to_json()).with_context(|| format!("cannot write {}", path.display()))
}
