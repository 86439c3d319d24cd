//! `[journal]`, `[state]`, `[windows]` and `[errors]`: what is stored in the data directory.

use super::units::{DAY_MS, MIB};
use crate::core::settings::ErrorShareSettings;

/// The journal of received messages.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalConfig {
    /// Size at which a segment file is closed and the next one begun.
    pub segment_size_bytes: u64,
    /// Time for which records are kept after recovery no longer needs them; `None`: they are freed at once.
    pub retention_ms: Option<i64>,
    /// Largest number of bytes that `retention_ms` keeps.
    pub retention_bytes: u64,
    /// Largest number of bytes in one group commit.
    pub commit_max_bytes: usize,
    /// Free disk space below which sockets are not read.
    pub min_free_disk_bytes: u64,
    /// Time after which a call of the file system that does not return makes weir unhealthy; `None`: none does.
    pub sync_timeout_ms: Option<u64>,
}

/// Checkpoints and savepoints.
#[derive(Debug, Clone, PartialEq)]
pub struct StateConfig {
    /// Time between checkpoints.
    pub checkpoint_interval_ms: u64,
    /// Time without data after which a device is forgotten; `None`: devices are kept for ever.
    pub device_ttl_ms: Option<i64>,
    /// Time between automatic savepoints; `None`: none are taken.
    pub savepoint_interval_ms: Option<u64>,
    /// Number of automatic savepoints that are kept.
    pub savepoints_kept: usize,
}

/// An output log: `[windows]`, and most of `[errors]`.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputConfig {
    /// Age at which entries are deleted; `None`: age deletes none.
    pub retention_ms: Option<i64>,
    /// Size of the log beyond which the oldest entries are deleted.
    pub retention_bytes: u64,
    /// Whether entries are published over MQTT.
    pub publish: bool,
}

/// The errors log.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorsConfig {
    /// Keys that `[errors]` shares with `[windows]`.
    pub output: OutputConfig,
    /// Part of `retention_bytes` that the errors of one device may fill, from 0 to 1.
    pub device_share: f64,
    /// Whether rejected duplicates are stored in the errors log, and not only counted.
    pub store_duplicates: bool,
}

impl ErrorsConfig {
    /// How much of the log the errors of one device may fill. A full share is empty again after the time for which errors are
    /// kept, or 7 days where only their size limits it.
    pub fn share(&self) -> Option<ErrorShareSettings> {
        let bytes = (self.output.retention_bytes as f64 * self.device_share) as u64;
        let refill_ms = self.output.retention_ms.unwrap_or(7 * DAY_MS);
        (self.device_share < 1.0).then_some(ErrorShareSettings { bytes, refill_ms })
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            segment_size_bytes: 64 * MIB,
            retention_ms: None,
            retention_bytes: 1024 * MIB,
            commit_max_bytes: 4 * MIB as usize,
            min_free_disk_bytes: 256 * MIB,
            sync_timeout_ms: Some(60_000),
        }
    }
}

impl Default for StateConfig {
    fn default() -> Self {
        Self {
            checkpoint_interval_ms: 5_000,
            device_ttl_ms: Some(30 * DAY_MS),
            savepoint_interval_ms: Some(3_600_000),
            savepoints_kept: 3,
        }
    }
}

impl Default for OutputConfig {
    fn default() -> Self {
        Self { retention_ms: Some(7 * DAY_MS), retention_bytes: 1024 * MIB, publish: true }
    }
}

impl Default for ErrorsConfig {
    fn default() -> Self {
        Self {
            output: OutputConfig { retention_ms: Some(7 * DAY_MS), retention_bytes: 256 * MIB, publish: true },
            device_share: 0.1,
            store_duplicates: false,
        }
    }
}
