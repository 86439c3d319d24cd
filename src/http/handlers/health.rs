//! `/healthz` and `/readyz`.

use axum::Json;
use axum::extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::process_status::HealthCheck;
use crate::http::state::ApiState;

/// Body of both answers.
#[derive(Serialize)]
struct HealthReport {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<HealthCheck>,
}

pub(in crate::http) async fn healthz(extract::State(state): extract::State<ApiState>) -> Response {
    answer(state.resources.process.liveness())
}

pub(in crate::http) async fn readyz(extract::State(state): extract::State<ApiState>) -> Response {
    answer(state.resources.process.readiness())
}

/// Answers 200 where all checks pass, with those that warn. Otherwise failed checks come first and passed ones follow, which
/// narrow the cause.
fn answer(mut checks: Vec<HealthCheck>) -> Response {
    if checks.iter().all(|check| check.ok) {
        checks.retain(|check| check.warns);
        return Json(HealthReport { status: "ok", checks }).into_response();
    }
    checks.sort_by_key(|check| check.ok);
    (StatusCode::SERVICE_UNAVAILABLE, Json(HealthReport { status: "unavailable", checks })).into_response()
}
