//! `[node]` and `[log]`: the name of this instance, its data directory and its own log.

use std::path::PathBuf;

use crate::telemetry::logging::LogFormat;

/// This instance of weir.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// Name of the instance in metrics, client ids and the metadata of results. Without one in the configuration, the host
    /// name.
    pub name: String,
    /// Directory of all data that weir stores.
    pub data_dir: PathBuf,
    /// Time for which nothing is deleted by age after the wall clock jumped forward.
    pub clock_jump_hold_ms: u64,
    /// How far the clock may be behind the newest arrival in the journal before journal time is set back.
    pub clock_tolerance_ms: i64,
    /// Longest wait for a synchronised clock at the start; `None`: weir does not wait.
    pub wait_for_clock_ms: Option<u64>,
}

/// weir's own log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogConfig {
    /// A level or filter directives.
    pub level: String,
    /// Form of the log lines.
    pub format: LogFormat,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            data_dir: PathBuf::from("data"),
            clock_jump_hold_ms: 86_400_000,
            clock_tolerance_ms: 60_000,
            wait_for_clock_ms: None,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}
