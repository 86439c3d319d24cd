//! The configuration: all settings with their defaults and checks, read from a TOML file and the environment.
//!
//! All faults are reported at once, each with its file and line or its variable, so that a person can correct them in one
//! go. config.toml documents the same keys; a test compares. This part does not read the files that the configuration names,
//! such as certificates and users: see `tls` and `access`.

mod changes;
mod checks;
mod document;
mod duration;
mod fault;
mod host_pattern;
mod keys;
mod load;
mod maps;
mod nearest;
mod result_changes;
mod sections;
mod size;
mod tenants;
mod value;

pub use crate::telemetry::logging::LogFormat;
pub use changes::{ConfigChange, LoadedConfig};
pub use duration::{DurationError, parse_duration};
pub use fault::{CheckReport, ConfigErrors, ConfigFault, ConfigOrigin, ConfigProblem};
pub use host_pattern::{HostPattern, host_name};
pub use load::{ReadConfig, environment};
pub use maps::{KnownMap, MapOrigin, MapState, Preset, PresetChoice, embedded_presets};
pub(crate) use nearest::nearest;
pub use result_changes::result_changes;
pub use sections::{
    ClientCertificates, Config, DedupConfig, ErrorsConfig, HttpAuthConfig, HttpConfig, HttpTlsConfig, IngestConfig,
    JournalConfig, LimitsConfig, LogConfig, MetricsAccess, MqttAuthConfig, MqttConfig, MqttTlsConfig, NodeConfig,
    OnDeniedPublish, OutputConfig, Quotas, RatesConfig, SimulatorConfig, StateConfig, Tenant, Tenants, TlsFiles,
    ValidateConfig, WindowConfig,
};

#[cfg(test)]
mod tests;
