//! `/api/v1/checkpoints`.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;

use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::pipeline::handle::CheckpointInfo;

/// Body of the list.
#[derive(Serialize)]
pub(in crate::http) struct CheckpointList {
    checkpoints: Vec<CheckpointInfo>,
    next_cursor: Option<String>,
}

/// Lists the newest completed checkpoints of this run, newest first. The list is bounded, so there is no next page.
pub(in crate::http) async fn list(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Json<CheckpointList>, ApiProblem> {
    Parameters::read(&uri, &[])?;
    Ok(Json(CheckpointList { checkpoints: state.resources.pipeline.checkpoints(), next_cursor: None }))
}
