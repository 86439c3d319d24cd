//! `/api/v1/status`: the box at a glance.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;

use crate::access::http_access::HttpAccessStatus;
use crate::core::reason::Reason;
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::process_status::{HealthCheck, MqttStatus, RecoveryStatus, ReloadStatus};
use crate::http::state::{IngestRates, ApiShared, ApiState};
use crate::log::Log;
use crate::pipeline::handle::{CheckpointInfo, PipelineStatus};
use crate::tls;

/// Times are Unix milliseconds; what is not known yet is `null`.
#[derive(Serialize)]
pub(in crate::http) struct Overview {
    version: &'static str,
    node: String,
    uptime_seconds: u64,
    ready: bool,
    checks: Vec<HealthCheck>,
    rates: IngestRates,
    readings: Readings,
    windows: Windows,
    event_time: EventTime,
    backlog: Backlog,
    recovery: Option<RecoveryStatus>,
    checkpoint: Checkpoint,
    mqtt: MqttStatus,
    tls: Vec<tls::CertificateStatus>,
    http_access: HttpAccessStatus,
    reload: ReloadStatus,
    disk: Disk,
    limits: BTreeMap<&'static str, Limit>,
    simulator: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Readings {
    messages: u64,
    received: u64,
    accepted: u64,
    rejected: BTreeMap<&'static str, u64>,
    unaccounted: i64,
}

#[derive(Serialize)]
struct Windows {
    first: u64,
    corrections: u64,
    open: usize,
    held: usize,
}

#[derive(Serialize)]
struct EventTime {
    newest: Option<i64>,
    lowest_watermark: Option<i64>,
    watermark_lag_ms: Option<i64>,
}

#[derive(Serialize)]
struct Backlog {
    caught_up: bool,
    records: u64,
    position: u64,
    last_arrival: Option<i64>,
    failure: Option<String>,
}

#[derive(Serialize)]
struct Checkpoint {
    last: Option<CheckpointInfo>,
    age_seconds: Option<f64>,
    failures: u64,
    error: Option<String>,
}

#[derive(Serialize)]
struct Disk {
    available_bytes: Option<u64>,
    state_bytes: Option<u64>,
    logs: BTreeMap<&'static str, LogDisk>,
}

#[derive(Serialize)]
struct LogDisk {
    bytes: u64,
    segments: usize,
    first: u64,
    appended: u64,
    durable: u64,
    queued_bytes: usize,
    disk_full: bool,
    failure: Option<String>,
}

#[derive(Serialize)]
struct Limit {
    current: usize,
    limit: usize,
}

pub(in crate::http) async fn page(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Json<Overview>, ApiProblem> {
    Parameters::read(&uri, &[])?;
    Ok(Json(overview(&state)))
}

fn overview(state: &ApiShared) -> Overview {
    let source = &state.resources.source;
    let status = state.resources.pipeline.status();
    let checks = source.readiness();
    let door = source.door();
    Overview {
        version: env!("CARGO_PKG_VERSION"),
        node: state.resources.config.node.name.clone(),
        uptime_seconds: state.started.elapsed().as_secs(),
        ready: checks.iter().all(|check| check.ok),
        checks,
        rates: state.rates(),
        readings: readings(&status),
        windows: Windows {
            first: status.totals.windows_first,
            corrections: status.totals.windows_corrected,
            open: status.sizes.open_windows,
            held: status.sizes.windows,
        },
        event_time: EventTime {
            newest: status.newest_event_ms,
            lowest_watermark: status.lowest_watermark_ms,
            watermark_lag_ms: status.lowest_watermark_ms.map(|ms| state.resources.clock.now_ms().saturating_sub(ms)),
        },
        recovery: source.recovered(),
        disk: Disk {
            available_bytes: source.disk_available_bytes(),
            state_bytes: source.state_disk_bytes(),
            logs: state.logs().into_iter().map(|(name, log)| (name, log_disk(log))).collect(),
        },
        tls: state.resources.certificates.iter().map(|endpoint| endpoint.status()).collect(),
        http_access: state.resources.access.status(),
        reload: source.reload(),
        limits: limits(state, &status, &door),
        mqtt: door,
        simulator: source.simulator(),
        backlog: Backlog {
            caught_up: status.caught_up,
            records: state.backlog(&status),
            position: status.position,
            last_arrival: status.arrival_ms,
            failure: status.failure,
        },
        checkpoint: Checkpoint {
            age_seconds: status.checkpoint.as_ref().map(|last| state.checkpoint_age_seconds(last)),
            last: status.checkpoint,
            failures: status.checkpoint_failures,
            error: status.checkpoint_error,
        },
    }
}

fn readings(status: &PipelineStatus) -> Readings {
    let rejected = Reason::ALL.into_iter().zip(status.totals.rejected).filter(|(_, count)| *count > 0);
    Readings {
        messages: status.totals.messages,
        received: status.totals.received,
        accepted: status.totals.in_windows,
        rejected: rejected.map(|(reason, count)| (reason.as_str(), count)).collect(),
        unaccounted: status.totals.unaccounted(),
    }
}

fn log_disk(log: &Log) -> LogDisk {
    let stats = log.stats();
    LogDisk {
        bytes: stats.disk_bytes,
        segments: stats.segments,
        first: stats.first.0,
        appended: stats.appended.0,
        durable: stats.durable.0,
        queued_bytes: stats.queued_bytes,
        disk_full: stats.disk_full,
        failure: stats.failure,
    }
}

fn limits(state: &ApiShared, status: &PipelineStatus, door: &MqttStatus) -> BTreeMap<&'static str, Limit> {
    let config = &state.resources.config;
    let streams = super::state::MAX_STREAMS - state.streams.available_permits();
    BTreeMap::from([
        ("devices", Limit { current: status.sizes.devices, limit: config.limits.devices }),
        ("mqtt_connections", Limit { current: door.connections, limit: config.mqtt.max_connections }),
        ("http_streams", Limit { current: streams, limit: crate::http::state::MAX_STREAMS }),
    ])
}
