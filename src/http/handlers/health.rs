//! `/healthz` and `/readyz`.

use axum::Json;
use axum::extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::process_status::Check;
use crate::http::state::State;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
}

pub(in crate::http) async fn healthz(extract::State(state): extract::State<State>) -> Response {
    answer(state.parts.source.liveness())
}

pub(in crate::http) async fn readyz(extract::State(state): extract::State<State>) -> Response {
    answer(state.parts.source.readiness())
}

/// Failed checks come first; those that passed are shown too when another failed, since they narrow the cause.
fn answer(mut checks: Vec<Check>) -> Response {
    if checks.iter().all(|check| check.ok) {
        return Json(Health { status: "ok", checks: Vec::new() }).into_response();
    }
    checks.sort_by_key(|check| check.ok);
    (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "unavailable", checks })).into_response()
}
