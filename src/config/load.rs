//! Reads and checks a configuration: the file, then the environment over it, then the checks across keys.

use std::io;
use std::path::Path;

use super::changes::LoadedConfig;
use super::checks;
use super::document::Document;
use super::fault::{ConfigErrors, ConfigFault, ConfigOrigin, ConfigProblem};
use super::maps::{self, MapChoice};
use super::sections::Config;

/// Larger files are refused unread. A configuration of weir has a few kilobytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What could be read of a configuration that may have faults.
#[derive(Debug)]
pub struct ReadConfig {
    /// The settings; those with a fault have their defaults. `None`: the file cannot be read.
    loaded: Option<LoadedConfig>,
    /// All faults; empty for a configuration that weir can run with.
    faults: ConfigErrors,
}

impl ReadConfig {
    /// Reads and checks the file at `path`, or the defaults without a path, and the environment variables, which win over the
    /// file. What has no fault can be used although other parts have faults: `weir check` goes on with the files that it names.
    ///
    /// The file is read with `std::fs`, not through [`crate::disk`]: it is not part of weir's data.
    pub fn load(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Self {
        let Some(path) = path else {
            return Self::parse("defaults", "", environment);
        };
        let file_name = path.display().to_string();
        match read_file(path) {
            Ok(text) => Self::parse(&file_name, &text, environment),
            Err(wrong) => {
                let problem =
                    ConfigProblem::new(format!("cannot be read: {wrong}"), "a readable TOML file; see config.toml");
                let origin = ConfigOrigin::File(file_name);
                Self { loaded: None, faults: ConfigErrors(vec![ConfigFault { origin, key: String::new(), problem }]) }
            }
        }
    }

    fn parse(file_name: &str, text: &str, environment: impl Iterator<Item = (String, String)>) -> Self {
        let mut document = Document::read(file_name, text);
        document.environment(environment);
        maps(&mut document);
        checks::check(&mut document);
        let Document { mut config, set, mut faults, .. } = document;
        faults.sort_by(|a, b| a.origin.cmp(&b.origin));
        if config.node.name.is_empty() {
            config.node.name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        }
        let loaded = LoadedConfig { config, file: ConfigOrigin::File(file_name.to_owned()), set };
        Self { loaded: Some(loaded), faults: ConfigErrors(faults) }
    }

    /// The settings that could be read; `None`: the file cannot be read.
    pub fn config(&self) -> Option<&Config> {
        self.loaded.as_ref().map(|loaded| &loaded.config)
    }

    /// The faults of keys and values.
    pub fn faults(&self) -> &ConfigErrors {
        &self.faults
    }

    /// Whether there are faults, so that weir cannot run with this configuration.
    pub fn has_faults(&self) -> bool {
        !self.faults.0.is_empty()
    }

    /// Whether the value of `key`, or of each key of the section `key`, is what the configuration says. After a syntax error
    /// this is unknown, because the rest of the line is lost.
    pub fn is_right(&self, key: &str) -> bool {
        let of_key = |fault: &ConfigFault| {
            fault.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !self.faults.0.iter().any(|fault| fault.key.is_empty() || of_key(fault))
    }

    /// The configuration, if it has no fault.
    ///
    /// # Errors
    /// All faults.
    pub fn into_config(self) -> Result<Config, ConfigErrors> {
        self.into_result().map(|loaded| loaded.config)
    }

    /// The configuration with the origins of its settings, if it has no fault.
    ///
    /// # Errors
    /// All faults.
    pub fn into_result(self) -> Result<LoadedConfig, ConfigErrors> {
        match self.loaded {
            Some(loaded) if self.faults.0.is_empty() => Ok(loaded),
            _ => Err(self.faults),
        }
    }
}

impl LoadedConfig {
    /// Reads and checks the text of a configuration. `file_name` is used in faults. Variables `WEIR_SECTION__KEY` win over
    /// the text; variables of other names are ignored.
    ///
    /// # Errors
    /// The text or the environment has faults. The error holds all of them, those of the text first.
    pub fn parse(
        file_name: &str,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<LoadedConfig, ConfigErrors> {
        ReadConfig::parse(file_name, text, environment).into_result()
    }
}

impl Config {
    /// Like [`LoadedConfig::parse`], without the origins of the settings.
    ///
    /// # Errors
    /// The text or the environment has faults.
    pub fn parse(
        file_name: &str,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        LoadedConfig::parse(file_name, text, environment).map(|loaded| loaded.config)
    }
}

/// The environment of the process, for [`ReadConfig::load`]. Variables that are not UTF-8 are left out: they cannot be settings
/// of weir, and `std::env::vars` would panic on them.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Says which maps are on. The files of `ingest.map_files` are read for it.
fn maps(document: &mut Document<'_>) {
    let directory = document.config.ingest.map_files.clone();
    let (files, faults) = directory.as_deref().map(maps::read_directory).unwrap_or_default();
    let files_at = document.origin(maps::MAP_FILES);
    // Where the directory cannot be read, its name is wrong.
    let of_directory = |fault: &ConfigFault| fault.key == maps::MAP_FILES;
    let at_its_key = faults.into_iter().map(|fault| match of_directory(&fault) {
        true => ConfigFault { origin: files_at.clone(), ..fault },
        false => fault,
    });
    document.faults.extend(at_its_key);
    let presets_at = document.origin("ingest.presets");
    let ingest = &document.config.ingest;
    let native = ingest.telemetry_topics.iter().chain(&ingest.error_topics).map(String::as_str).collect();
    let choice = MapChoice { own: &document.maps, files: &files, native, presets: &ingest.presets, presets_at };
    let (known, faults) = choice.resolve();
    document.config.ingest.maps = known;
    document.faults.extend(faults);
}

fn read_file(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        let wrong = format!("it has {} bytes, more than any configuration of weir", metadata.len());
        return Err(io::Error::other(wrong));
    }
    std::fs::read_to_string(path)
}
