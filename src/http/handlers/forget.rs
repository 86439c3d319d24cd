//! `DELETE /api/v1/devices/{id}` and `POST /api/v1/devices/forget`: devices are forgotten by a record of the journal.

use axum::Json;
use axum::body::Body;
use axum::extract::{self, Extension, Path, Request};
use axum::http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use crate::core::record;
use crate::core::selection::DeviceFilter;
use crate::http::auth::Requester;
use crate::http::handlers::devices;
use crate::http::limits::MAX_BODY_BYTES;
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::log::{AppendError, Records};

/// Devices that one request forgets.
const MAX_FORGOTTEN: usize = 10_000;
/// Devices in one record of the journal. Their ids fit any batch.
const DEVICES_PER_RECORD: usize = 500;

/// Body of the request: either `devices`, or a filter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgetRequest {
    devices: Option<Vec<String>>,
    user: Option<String>,
    #[serde(default)]
    anonymous: bool,
    last_seen_before: Option<i64>,
}

/// Body of the answer.
#[derive(Serialize)]
pub(in crate::http) struct ForgetReport {
    /// Number of devices that were forgotten.
    forgotten: usize,
    /// Devices of the request that weir does not know.
    unknown: Vec<String>,
    /// Whether the filter selects more devices than one request forgets.
    more: bool,
}

/// Devices that a request means.
#[derive(Debug, PartialEq)]
enum ForgetSelection {
    Named(Vec<String>),
    Filtered(DeviceFilter),
}

pub(in crate::http) async fn one(
    extract::State(state): extract::State<ApiState>,
    Extension(requester): Extension<Requester>,
    Path(device_id): Path<String>,
    uri: Uri,
) -> Result<Json<ForgetReport>, ApiProblem> {
    Parameters::read(&uri, &[])?;
    let report = forget_recorded(state, requester, ForgetSelection::Named(vec![device_id])).await?;
    match report.unknown.first() {
        Some(unknown) => Err(devices::unknown(unknown)),
        None => Ok(Json(report)),
    }
}

pub(in crate::http) async fn selected(
    extract::State(state): extract::State<ApiState>,
    Extension(requester): Extension<Requester>,
    Path(action): Path<String>,
    uri: Uri,
    request: Request<Body>,
) -> Result<Json<ForgetReport>, ApiProblem> {
    if action != "forget" {
        return Err(ApiProblem::not_found("POST is possible at /api/v1/devices/forget; GET and DELETE at a device"));
    }
    Parameters::read(&uri, &[])?;
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES as usize).await.map_err(|_| {
        let detail = format!("the body could not be read, or has more than {MAX_BODY_BYTES} bytes");
        ApiProblem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })?;
    Ok(Json(forget_recorded(state, requester, selection(&body)?).await?))
}

fn selection(body: &[u8]) -> Result<ForgetSelection, ApiProblem> {
    let form = "{\"devices\":[\"a\",\"b\"]}, or of user (or \"anonymous\":true) and last_seen_before";
    let request: ForgetRequest = serde_json::from_slice(body)
        .map_err(|error| ApiProblem::bad_request(format!("the body is not of the form {form}: {error}")))?;
    let user = devices::user(request.user.as_deref(), request.anonymous)?;
    let filter = DeviceFilter { user, last_seen_before_ms: request.last_seen_before };
    match request.devices {
        Some(ids) if filter == DeviceFilter::default() && !ids.is_empty() => Ok(ForgetSelection::Named(ids)),
        // A request without any choice must not select all devices.
        None if filter != DeviceFilter::default() => Ok(ForgetSelection::Filtered(filter)),
        _ => Err(ApiProblem::bad_request(format!("say which devices to forget: {form}"))),
    }
}

/// Forgets in a task of its own: it is recorded in the audit log even if the requester disconnects.
async fn forget_recorded(
    state: ApiState,
    requester: Requester,
    selection: ForgetSelection,
) -> Result<ForgetReport, ApiProblem> {
    let forgetting = tokio::spawn(async move {
        let (ids, report) = select(&state, selection).await?;
        if ids.is_empty() {
            return Ok(report);
        }
        forget(&state, &ids).await?;
        let (first, last) = (ids.first().map_or("", String::as_str), ids.last().map_or("", String::as_str));
        match ids.len() {
            1 => requester.did(&format!("device forgotten {first}"), ""),
            count => requester.did(&format!("devices forgotten {count}"), &format!("between {first} and {last}")),
        }
        Ok(report)
    });
    forgetting.await?
}

/// The ids of the devices to forget, each once, and the answer when they are forgotten.
async fn select(state: &ApiState, selection: ForgetSelection) -> Result<(Vec<String>, ForgetReport), ApiProblem> {
    let pipeline = &state.resources.pipeline;
    if !pipeline.status().caught_up || state.resources.journal.stats().appended == state.journal_start {
        // The records of this start, with the settings in force, come first.
        return Err(ApiProblem::unavailable("weir is just starting; try again in a second"));
    }
    match selection {
        ForgetSelection::Filtered(filter) => {
            let mut ids = pipeline.device_ids(filter, MAX_FORGOTTEN + 1).await?;
            let more = ids.len() > MAX_FORGOTTEN;
            ids.truncate(MAX_FORGOTTEN);
            let report = ForgetReport { forgotten: ids.len(), unknown: Vec::new(), more };
            Ok((ids, report))
        }
        ForgetSelection::Named(mut ids) => {
            ids.sort_unstable();
            ids.dedup();
            let known = pipeline.are_known(ids.clone()).await?;
            let (known, unknown): (Vec<_>, Vec<_>) = ids.into_iter().zip(known).partition(|(_, known)| *known);
            let ids = |pairs: Vec<(String, bool)>| -> Vec<String> { pairs.into_iter().map(|(id, _)| id).collect() };
            let report = ForgetReport { forgotten: known.len(), unknown: ids(unknown), more: false };
            Ok((ids(known), report))
        }
    }
}

/// Appends the record, and waits until the operator has processed it.
async fn forget(state: &ApiState, ids: &[String]) -> Result<(), ApiProblem> {
    let mut last = None;
    for part in ids.chunks(DEVICES_PER_RECORD) {
        let mut records = Records::default();
        records.push_with(|out| record::encode_forget(part.iter().map(String::as_str), out));
        let appended = state.resources.journal.append(&records, None).map_err(|error| {
            ApiProblem::unavailable(match error {
                AppendError::Full => {
                    "the journal has no room, or the disk is nearly full; try again in a second".into()
                }
                error => format!("the journal takes nothing: {error}"),
            })
        });
        last = Some(appended?.0.saturating_sub(1));
    }
    match last {
        Some(last) => Ok(state.resources.pipeline.wait_processed(last).await?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Option<ForgetSelection>) {
        assert_eq!(selection(body.as_bytes()).ok(), expected, "{body}");
    }

    #[test]
    fn a_request_says_which_devices_it_means() {
        let filtered = |user: Option<Option<&str>>, last_seen_before_ms| {
            let user = user.map(|name| name.map(str::to_owned));
            Some(ForgetSelection::Filtered(DeviceFilter { user, last_seen_before_ms }))
        };
        check(r#"{"devices":["a","b"]}"#, Some(ForgetSelection::Named(vec!["a".into(), "b".into()])));
        check(r#"{"user":"u"}"#, filtered(Some(Some("u")), None));
        check(r#"{"anonymous":true,"last_seen_before":7}"#, filtered(Some(None), Some(7)));
        check(r#"{"last_seen_before":7}"#, filtered(None, Some(7)));
        for nothing in ["", "{}", "[]", r#"{"anonymous":false}"#, r#"{"devices":[]}"#, r#"{"users":"u"}"#] {
            check(nothing, None);
        }
        check(r#"{"devices":["a"],"user":"u"}"#, None);
        check(r#"{"user":"u","anonymous":true}"#, None);
    }
}
