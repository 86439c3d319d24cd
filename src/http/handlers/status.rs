//! `/api/v1/status`: the state of weir at a glance.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;

use crate::access::http_access::HttpAccessStatus;
use crate::core::reason::Reason;
use crate::http::limits::MAX_STREAMS;
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::process_status::{
    ClockStatus, HealthCheck, MqttStatus, PendingDiskCall, RecoveryStatus, ReloadStatus,
};
use crate::http::rates::IngestRates;
use crate::http::state::{ApiShared, ApiState};
use crate::log::Log;
use crate::pipeline::handle::{CheckpointInfo, PipelineStatus};
use crate::tls;

/// Body of the answer. Times are Unix milliseconds; a value that is not known yet is `null`.
#[derive(Serialize)]
pub(in crate::http) struct StatusReport {
    version: &'static str,
    node: String,
    uptime_seconds: u64,
    ready: bool,
    checks: Vec<HealthCheck>,
    rates: IngestRates,
    readings: ReadingsStatus,
    windows: WindowsStatus,
    event_time: EventTimeStatus,
    backlog: BacklogStatus,
    clock: ClockStatus,
    recovery: Option<RecoveryStatus>,
    checkpoint: CheckpointStatus,
    mqtt: MqttStatus,
    tls: Vec<tls::CertificateStatus>,
    http_access: HttpAccessStatus,
    reload: ReloadStatus,
    disk: DiskStatus,
    limits: BTreeMap<&'static str, LimitStatus>,
    /// Reserved; always `null`.
    simulator: Option<()>,
}

/// Counts of messages and readings since the journal began.
#[derive(Serialize)]
struct ReadingsStatus {
    messages: u64,
    received: u64,
    accepted: u64,
    rejected: BTreeMap<&'static str, u64>,
    unaccounted: i64,
}

/// Counts of window firings, and windows in memory.
#[derive(Serialize)]
struct WindowsStatus {
    first: u64,
    corrections: u64,
    open: usize,
    held: usize,
}

/// Progress of event time.
#[derive(Serialize)]
struct EventTimeStatus {
    newest: Option<i64>,
    lowest_watermark: Option<i64>,
    watermark_lag_ms: Option<i64>,
}

/// How far the pipeline is behind the journal.
#[derive(Serialize)]
struct BacklogStatus {
    caught_up: bool,
    records: u64,
    position: u64,
    last_arrival: Option<i64>,
    failure: Option<String>,
}

/// The newest checkpoint, and failures of checkpoints.
#[derive(Serialize)]
struct CheckpointStatus {
    last: Option<CheckpointInfo>,
    age_seconds: Option<f64>,
    failures: u64,
    error: Option<String>,
}

/// Space on the file system of the data directory.
#[derive(Serialize)]
struct DiskStatus {
    available_bytes: Option<u64>,
    pending: BTreeMap<&'static str, Option<PendingDiskCall>>,
    state_bytes: Option<u64>,
    logs: BTreeMap<&'static str, LogDiskStatus>,
}

/// Size and positions of one log.
#[derive(Serialize)]
struct LogDiskStatus {
    bytes: u64,
    segments: usize,
    first: u64,
    appended: u64,
    durable: u64,
    queued_bytes: usize,
    oldest_append_seconds: f64,
    disk_full: bool,
    failure: Option<String>,
}

/// A limit and how much of it is used.
#[derive(Serialize)]
struct LimitStatus {
    current: usize,
    limit: usize,
}

pub(in crate::http) async fn page(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Json<StatusReport>, ApiProblem> {
    Parameters::read(&uri, &[])?;
    Ok(Json(overview(&state)))
}

fn overview(state: &ApiShared) -> StatusReport {
    let process = &state.resources.process;
    let status = state.resources.pipeline.status();
    let checks = process.readiness();
    let mqtt = process.mqtt();
    StatusReport {
        version: env!("CARGO_PKG_VERSION"),
        node: state.resources.config.node.name.clone(),
        uptime_seconds: state.started.elapsed().as_secs(),
        ready: checks.iter().all(|check| check.ok),
        checks,
        rates: state.rates(),
        readings: readings(&status),
        windows: WindowsStatus {
            first: status.totals.windows_first,
            corrections: status.totals.windows_corrected,
            open: status.sizes.open_windows,
            held: status.sizes.windows,
        },
        event_time: EventTimeStatus {
            newest: status.newest_event_ms,
            lowest_watermark: status.lowest_watermark_ms,
            watermark_lag_ms: status.lowest_watermark_ms.map(|ms| state.resources.clock.now_ms().saturating_sub(ms)),
        },
        clock: process.clock(),
        recovery: process.recovered(),
        disk: DiskStatus {
            available_bytes: process.disk_available_bytes(),
            pending: process.pending_disk_calls(),
            state_bytes: process.state_disk_bytes(),
            logs: state.logs().into_iter().map(|(name, log)| (name, log_disk(log))).collect(),
        },
        tls: state.resources.certificates.iter().map(|endpoint| endpoint.status()).collect(),
        http_access: state.resources.access.status(),
        reload: process.reload(),
        limits: limits(state, &status, &mqtt),
        mqtt,
        simulator: None,
        backlog: BacklogStatus {
            caught_up: status.caught_up,
            records: state.backlog(&status),
            position: status.position,
            last_arrival: status.arrival_ms,
            failure: status.failure,
        },
        checkpoint: CheckpointStatus {
            age_seconds: status.checkpoint.as_ref().map(|last| state.checkpoint_age_seconds(last)),
            last: status.checkpoint,
            failures: status.checkpoint_failures,
            error: status.checkpoint_error,
        },
    }
}

fn readings(status: &PipelineStatus) -> ReadingsStatus {
    let rejected = Reason::ALL.into_iter().zip(status.totals.rejected).filter(|(_, count)| *count > 0);
    ReadingsStatus {
        messages: status.totals.messages,
        received: status.totals.received,
        accepted: status.totals.in_windows,
        rejected: rejected.map(|(reason, count)| (reason.as_str(), count)).collect(),
        unaccounted: status.totals.unaccounted(),
    }
}

fn log_disk(log: &Log) -> LogDiskStatus {
    let stats = log.stats();
    LogDiskStatus {
        bytes: stats.disk_bytes,
        segments: stats.segments,
        first: stats.first.0,
        appended: stats.appended.0,
        durable: stats.durable.0,
        queued_bytes: stats.queued_bytes,
        oldest_append_seconds: stats.oldest_append_age.unwrap_or_default().as_secs_f64(),
        disk_full: stats.disk_full,
        failure: stats.failure,
    }
}

fn limits(state: &ApiShared, status: &PipelineStatus, mqtt: &MqttStatus) -> BTreeMap<&'static str, LimitStatus> {
    let config = &state.resources.config;
    BTreeMap::from([
        ("devices", LimitStatus { current: status.sizes.devices, limit: config.limits.devices }),
        ("mqtt_connections", LimitStatus { current: mqtt.connections, limit: config.mqtt.max_connections }),
        ("http_streams", LimitStatus { current: state.open_streams(), limit: MAX_STREAMS }),
    ])
}
