//! Every setting, its default and its checks, read from a TOML file and the environment.
//!
//! config.toml documents the same keys; a test compares. All faults are reported at once, each with its place.

use std::path::Path;

use crate::core::settings::Settings;

mod changes;
mod checks;
mod document;
mod duration;
mod fault;
mod keys;
mod sections;
mod value;

pub use crate::telemetry::logging::LogFormat;
pub use changes::{ConfigChange, LoadedConfig};
pub use duration::{DurationError, parse_duration};
pub use fault::{CheckReport, ConfigErrors, ConfigFault, ConfigOrigin, ConfigProblem};
pub use sections::{
    ClientCertificates, Config, DedupConfig, ErrorsConfig, HttpAuthConfig, HttpConfig, HttpTlsConfig, IngestConfig,
    JournalConfig, LimitsConfig, LogConfig, MetricsAccess, MqttAuthConfig, MqttConfig, MqttTlsConfig, NodeConfig,
    OnDeniedPublish, OutputConfig, RatesConfig, SimulatorConfig, StateConfig, TlsFiles, ValidateConfig, WindowConfig,
};

use document::Document;

/// Larger files are refused unread: a config of weir has a few kilobytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

impl LoadedConfig {
    /// Reads and checks the file at `path`, or the defaults where there is none, and the environment over it.
    ///
    /// The file is read with `std::fs`: it is not weir's data, which only the disk module touches.
    ///
    /// # Errors
    /// All faults of the file and the environment, or that the file cannot be read.
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

    /// Reads and checks a configuration. `file_name` is only named in faults. Variables `WEIR_SECTION__KEY` win over
    /// the text; variables of other names are ignored.
    ///
    /// # Errors
    /// All faults of the text and the environment, in this order.
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
    /// [`LoadedConfig::load`] without the places.
    ///
    /// # Errors
    /// As there.
    pub fn load(
        path: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        LoadedConfig::load(path, environment).map(|loaded| loaded.config)
    }

    /// [`LoadedConfig::parse`] without the places.
    ///
    /// # Errors
    /// As there.
    pub fn parse(
        file_name: &str,
        text: &str,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Config, ConfigErrors> {
        LoadedConfig::parse(file_name, text, environment).map(|loaded| loaded.config)
    }

    /// The part that results depend on.
    pub fn settings(&self) -> Settings {
        Settings {
            telemetry_topics: self.ingest.telemetry_topics.clone(),
            error_topics: self.ingest.error_topics.clone(),
            timestamp_unit: self.ingest.timestamp_unit,
            numeric_strings: self.ingest.numeric_strings,
            max_readings_per_message: self.ingest.max_readings_per_message,
            max_future_ms: self.validate.max_future_ms,
            max_age_ms: self.validate.max_age_ms,
            allowed_devices: self.validate.allowed_devices.clone(),
            metrics: self.validate.metrics.clone(),
            dedup: self.dedup.enabled,
            window_ms: self.window.size_ms,
            watermark: self.window.watermark,
            out_of_orderness_ms: self.window.out_of_orderness_ms,
            allowed_lateness_ms: self.window.allowed_lateness_ms,
            idle_timeout_ms: self.window.idle_timeout_ms,
            max_devices: self.limits.devices,
            max_metrics_per_device: self.limits.metrics_per_device,
            device_ttl_ms: self.state.device_ttl_ms,
            store_duplicates: self.errors.store_duplicates,
        }
    }
}

/// The process's environment as [`Config::load`] takes it. Variables that are not UTF-8 cannot be settings of weir
/// and are left out (`std::env::vars` would panic on them).
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn read_file(path: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a directory".into());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!("it has {} bytes, more than any config of weir", metadata.len()));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
