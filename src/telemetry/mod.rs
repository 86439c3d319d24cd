//! weir's own telemetry: its log, its audit events and its metrics.
//!
//! Readings of devices are not handled here; their metrics at `/metrics/devices` are made in `http`.

pub mod audit;
pub mod log_records;
pub mod logging;
pub mod names;
pub mod process;
pub mod recorder;
mod text_fields;
