//! `/api/v1/devices` and `/api/v1/devices/{id}`.

use std::collections::BTreeMap;

use axum::extract::{self, Path};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::core::query::{DeviceDetail, DeviceSummary};
use crate::http::parameters::{self, Parameters};
use crate::http::problem::Problem;
use crate::http::state::State;

#[derive(Serialize)]
struct Devices {
    devices: Vec<Device>,
    next_cursor: Option<String>,
}

/// A device as the API shows it. Times are Unix milliseconds.
#[derive(Serialize)]
struct Device {
    device_id: String,
    last_seen: i64,
    watermark: Option<i64>,
    clock_offset_ms: Option<i64>,
    accepted: u64,
    rejected: BTreeMap<&'static str, u64>,
    sequence_missing: u64,
    metric_count: usize,
}

impl From<DeviceSummary> for Device {
    fn from(device: DeviceSummary) -> Self {
        Self {
            device_id: device.device_id,
            last_seen: device.last_seen_ms,
            watermark: device.watermark_ms,
            clock_offset_ms: device.clock_offset_ms,
            accepted: device.accepted,
            rejected: device.rejected.into_iter().map(|(reason, count)| (reason.as_str(), count)).collect(),
            sequence_missing: device.sequence_missing,
            metric_count: device.metrics,
        }
    }
}

pub(super) async fn list(extract::State(state): extract::State<State>, uri: Uri) -> Result<Response, Problem> {
    let parameters = Parameters::read(&uri, &["limit", "cursor"])?;
    let limit = parameters.limit()?;
    let after = parameters.get("cursor").map(parameters::decode_cursor).transpose()?;
    // One more than asked tells whether there is a next page.
    let mut found = state.parts.pipeline.devices(after, limit + 1).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| parameters::encode_cursor(&last.device_id));
    let devices = found.into_iter().map(Device::from).collect();
    Ok(axum::Json(Devices { devices, next_cursor }).into_response())
}

pub(super) async fn detail(
    extract::State(state): extract::State<State>,
    Path(device_id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Parameters::read(&uri, &[])?;
    match state.parts.pipeline.device(device_id.clone()).await? {
        Some(device) => Ok(([(header::CONTENT_TYPE, "application/json")], detail_json(device)?).into_response()),
        None => Err(Problem::not_found(format!(
            "there is no device {device_id:?}; /api/v1/devices lists those that weir knows"
        ))),
    }
}

/// The last windows are JSON already, in the same form as everywhere: they are put in as they are.
fn detail_json(device: DeviceDetail) -> Result<Vec<u8>, Problem> {
    #[derive(Serialize)]
    struct Head {
        #[serde(flatten)]
        device: Device,
        sequence_ranges: Vec<(u64, u64)>,
    }
    let head = Head { device: device.summary.into(), sequence_ranges: device.sequence_ranges };
    let mut out = serde_json::to_vec(&head).map_err(|_| Problem::internal())?;
    out.pop();
    out.extend_from_slice(b",\"metrics\":[");
    for (index, (metric, last)) in device.series.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"metric\":");
        serde_json::to_writer(&mut out, metric).map_err(|_| Problem::internal())?;
        out.extend_from_slice(b",\"last_window\":");
        out.extend_from_slice(last.as_ref().map_or(b"null", |window| window.json.as_slice()));
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}
