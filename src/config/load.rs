//! Reads and checks a configuration: the file, then the environment over it, then the checks across keys.

use std::io;
use std::path::Path;

use super::changes::LoadedConfig;
use super::checks;
use super::document::Document;
use super::fault::{ConfigErrors, ConfigFault, ConfigOrigin, ConfigProblem};
use super::sections::Config;

/// Larger files are refused unread. A configuration of weir has a few kilobytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

impl LoadedConfig {
    /// Reads and checks the file at `path`, or the defaults without a path, and the environment variables, which win over the
    /// file.
    ///
    /// The file is read with `std::fs`, not through [`crate::disk`]: it is not part of weir's data.
    ///
    /// # Errors
    /// The file cannot be read, or the file or the environment has faults. The error holds all of them.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<LoadedConfig, ConfigErrors> {
        let Some(path) = path else {
            return Self::parse("defaults", "", environment);
        };
        let file_name = path.display().to_string();
        match read_file(path) {
            Ok(text) => Self::parse(&file_name, &text, environment),
            Err(wrong) => {
                let problem =
                    ConfigProblem::new(format!("cannot be read: {wrong}"), "a readable TOML file; see config.toml");
                Err(ConfigErrors(vec![ConfigFault {
                    origin: ConfigOrigin::File(file_name),
                    key: String::new(),
                    problem,
                }]))
            }
        }
    }

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
        let mut document = Document::read(file_name, text);
        document.environment(environment);
        checks::check(&mut document);
        if !document.faults.is_empty() {
            let mut faults = document.faults;
            faults.sort_by(|a, b| a.origin.cmp(&b.origin));
            return Err(ConfigErrors(faults));
        }
        let Document { mut config, set, .. } = document;
        if config.node.name.is_empty() {
            config.node.name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        }
        Ok(LoadedConfig { config, file: ConfigOrigin::File(file_name.to_owned()), set })
    }
}

impl Config {
    /// Like [`LoadedConfig::load`], without the origins of the settings.
    ///
    /// # Errors
    /// The file cannot be read, or the file or the environment has faults.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        LoadedConfig::load(path, environment).map(|loaded| loaded.config)
    }

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

/// The environment of the process, for [`Config::load`]. Variables that are not UTF-8 are left out: they cannot be settings
/// of weir, and `std::env::vars` would panic on them.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
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
