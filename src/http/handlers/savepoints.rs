//! `/api/v1/savepoints`.

use axum::Json;
use axum::extract::{self, Extension};
use axum::http::{StatusCode, Uri};
use serde::Serialize;

use crate::http::auth::Requester;
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::pipeline::handle::SavepointRefused;
use crate::state::savepoint::SavepointInfo;

/// Body of the list.
#[derive(Serialize)]
pub(in crate::http) struct SavepointList {
    savepoints: Vec<SavepointInfo>,
    next_cursor: Option<String>,
}

/// Lists the savepoints on disk, newest first. The list is bounded, so there is no next page.
pub(in crate::http) async fn list(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Json<SavepointList>, ApiProblem> {
    Parameters::read(&uri, &[])?;
    Ok(Json(SavepointList { savepoints: state.resources.pipeline.savepoints(), next_cursor: None }))
}

/// Takes a savepoint of the present state. The answer comes when it is on disk.
pub(in crate::http) async fn create(
    extract::State(state): extract::State<ApiState>,
    Extension(requester): Extension<Requester>,
    uri: Uri,
) -> Result<(StatusCode, Json<SavepointInfo>), ApiProblem> {
    Parameters::read(&uri, &[])?;
    // In a task of its own: the savepoint is taken and recorded even if the requester disconnects.
    let taking = tokio::spawn(async move {
        let taken = state.resources.pipeline.savepoint().await;
        if let Ok(info) = &taken {
            requester.did(&format!("savepoint created {}", info.file), "");
        }
        taken
    });
    match taking.await? {
        Ok(info) => Ok((StatusCode::CREATED, Json(info))),
        Err(SavepointRefused::Unavailable(error)) => Err(ApiProblem::unavailable(error.to_string())),
        Err(SavepointRefused::Failed(error)) => {
            Err(ApiProblem::new(StatusCode::INSUFFICIENT_STORAGE, error.to_string()))
        }
    }
}
