//! `/api/v1/devices` and `/api/v1/devices/{id}`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{self, Path};
use axum::http::Uri;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::core::device_clock::ClockView;
use crate::core::notes::DeviceNote;
use crate::core::query::{DeviceDetail, DeviceSummary, LastWindow, SeriesDetail};
use crate::core::selection::{DeviceFilter, DeviceOrder};
use crate::http::parameters::{self, Parameters};
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;

/// Body of the list.
#[derive(Serialize)]
pub(in crate::http) struct DeviceList {
    devices: Vec<DeviceBody>,
    next_cursor: Option<String>,
}

/// Body of one device.
#[derive(Serialize)]
pub(in crate::http) struct DeviceDetailBody {
    #[serde(flatten)]
    device: DeviceBody,
    sequence_ranges: Vec<(u64, u64)>,
    metrics: Vec<MetricBody>,
}

/// A metric of a device with its last closed window.
#[derive(Serialize)]
struct MetricBody {
    metric: String,
    /// Unit; `null` where none is known.
    unit: Option<String>,
    last_window: Option<Box<RawValue>>,
}

/// The part of a device that lists show. Times are Unix milliseconds.
#[derive(Serialize)]
struct DeviceBody {
    device_id: String,
    /// What the device says of itself; `null` where it says nothing.
    name: Option<Box<str>>,
    model: Option<Box<str>>,
    manufacturer: Option<Box<str>>,
    /// User whose message created the device; `null`: an anonymous client, or not known.
    user: Option<String>,
    first_seen: Option<i64>,
    last_seen: i64,
    watermark: Option<i64>,
    clock_offset_ms: Option<i64>,
    clock: ClockBody,
    accepted: u64,
    rejected: BTreeMap<&'static str, u64>,
    /// Values that the device said are absent.
    values_absent: u64,
    /// Readings in windows that state no time.
    arrival_times: u64,
    sequence_missing: u64,
    sequence_restarts: u64,
    sequence_wraps: u64,
    sequence_invalid: u64,
    retained_repeats: u64,
    errors_not_stored: u64,
    metric_count: usize,
    /// Whether the device says that it is online; `null` where nothing says so.
    online: Option<bool>,
    /// Since when.
    online_since: Option<i64>,
    /// Topic of the message that said so.
    online_topic: Option<Box<str>>,
    /// What it sends in another form than weir names, sentences.
    notes: Vec<&'static str>,
}

/// What is known of the clock of a device.
#[derive(Serialize)]
struct ClockBody {
    state: &'static str,
    /// Median of the last arrival times less event times.
    offset_ms: Option<i64>,
    /// What lists leave out.
    #[serde(flatten)]
    details: Option<ClockDetails>,
}

/// The clock of one device beyond what lists show.
#[derive(Serialize)]
struct ClockDetails {
    time_zone: Option<String>,
    steps_forward: u64,
    steps_backward: u64,
    last_step_ms: Option<i64>,
    last_step_at: Option<i64>,
}

impl From<&ClockView> for ClockDetails {
    fn from(clock: &ClockView) -> Self {
        Self {
            time_zone: clock.time_zone.clone(),
            steps_forward: clock.steps_forward,
            steps_backward: clock.steps_backward,
            last_step_ms: clock.last_step.map(|(step_ms, _)| step_ms),
            last_step_at: clock.last_step.map(|(_, at_ms)| at_ms),
        }
    }
}

impl From<DeviceSummary> for DeviceBody {
    fn from(device: DeviceSummary) -> Self {
        Self {
            device_id: device.device_id,
            name: device.about.name,
            model: device.about.model,
            manufacturer: device.about.manufacturer,
            user: device.introduced_by,
            first_seen: device.first_seen_ms,
            last_seen: device.last_seen_ms,
            watermark: device.watermark_ms,
            clock_offset_ms: device.clock_offset_ms,
            clock: ClockBody { state: device.clock.state.as_str(), offset_ms: device.clock.offset_ms, details: None },
            accepted: device.accepted,
            rejected: device.rejected.into_iter().map(|(reason, count)| (reason.as_str(), count)).collect(),
            values_absent: device.values_absent,
            arrival_times: device.arrival_times,
            sequence_missing: device.sequence_missing,
            sequence_restarts: device.sequence_restarts,
            sequence_wraps: device.sequence_wraps,
            sequence_invalid: device.sequence_invalid,
            retained_repeats: device.retained_repeats,
            errors_not_stored: device.errors_not_stored,
            metric_count: device.metrics,
            online: device.liveness.as_ref().map(|liveness| liveness.online),
            online_since: device.liveness.as_ref().map(|liveness| liveness.since_ms),
            notes: device.notes.into_iter().map(DeviceNote::as_str).collect(),
            online_topic: device.liveness.map(|liveness| liveness.topic),
        }
    }
}

pub(in crate::http) async fn list(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Json<DeviceList>, ApiProblem> {
    let known = ["limit", "cursor", "user", "anonymous", "last_seen_before", "order"];
    let parameters = Parameters::read(&uri, &known)?;
    let limit = parameters.limit()?;
    let order = order(&parameters)?;
    let after = parameters.get("cursor").map(parameters::decode_cursor).transpose()?;
    if after.is_some() && order != DeviceOrder::Id {
        return Err(parameters::invalid_cursor());
    }
    let user = user(parameters.get("user"), parameters.switch("anonymous")?.unwrap_or(false))?;
    let filter = DeviceFilter { user, last_seen_before_ms: parameters.time_ms("last_seen_before")? };
    // One device more than the limit tells whether there is a next page.
    let mut found = state.resources.pipeline.devices(filter, order, after, limit + 1).await?;
    // A list that is not by id has one page.
    let more = found.len() > limit && order == DeviceOrder::Id;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| parameters::encode_cursor(&last.device_id));
    let devices = found.into_iter().map(DeviceBody::from).collect();
    Ok(Json(DeviceList { devices, next_cursor }))
}

fn order(parameters: &Parameters) -> Result<DeviceOrder, ApiProblem> {
    match parameters.get("order") {
        None | Some("id") => Ok(DeviceOrder::Id),
        Some("newest") => Ok(DeviceOrder::Newest),
        Some("silent") => Ok(DeviceOrder::Silent),
        Some(other) => {
            Err(ApiProblem::bad_request(format!("order={other} is not an order; give id, newest or silent")))
        }
    }
}

/// The user in a filter of devices.
pub(super) fn user(name: Option<&str>, anonymous: bool) -> Result<Option<Option<String>>, ApiProblem> {
    match (name, anonymous) {
        (Some(_), true) => Err(ApiProblem::bad_request("give either user or anonymous")),
        (Some(name), false) => Ok(Some(Some(name.to_owned()))),
        (None, anonymous) => Ok(anonymous.then_some(None)),
    }
}

/// The answer where there is no such device.
pub(super) fn unknown(device_id: &str) -> ApiProblem {
    ApiProblem::not_found(format!("there is no device {device_id:?}; /api/v1/devices lists those that weir knows"))
}

pub(in crate::http) async fn one(
    extract::State(state): extract::State<ApiState>,
    Path(device_id): Path<String>,
    uri: Uri,
) -> Result<Json<DeviceDetailBody>, ApiProblem> {
    Parameters::read(&uri, &[])?;
    match state.resources.pipeline.device(device_id.clone()).await? {
        Some(device) => Ok(Json(detail(device)?)),
        None => Err(unknown(&device_id)),
    }
}

fn detail(device: DeviceDetail) -> Result<DeviceDetailBody, ApiProblem> {
    let last_window = |window: LastWindow| {
        // Core encodes a window; the same bytes are in lists, streams and MQTT.
        let json = String::from_utf8(window.json).map_err(|_| ApiProblem::internal())?;
        RawValue::from_string(json).map_err(|_| ApiProblem::internal())
    };
    let series = device.series.into_iter().map(|SeriesDetail { metric, unit, last_window: last }| {
        Ok(MetricBody { metric, unit, last_window: last.map(last_window).transpose()? })
    });
    let metrics = series.collect::<Result<_, ApiProblem>>()?;
    let details = ClockDetails::from(&device.summary.clock);
    let mut summary = DeviceBody::from(device.summary);
    summary.clock.details = Some(details);
    Ok(DeviceDetailBody { metrics, device: summary, sequence_ranges: device.sequence_ranges })
}
