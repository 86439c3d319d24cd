//! `/api/v1/savepoints`.

use axum::Json;
use axum::extract::{self, Extension};
use axum::http::{StatusCode, Uri};
use serde::Serialize;

use crate::http::auth::Sender;
use crate::http::parameters::Parameters;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::pipeline::handle::SavepointRefused;
use crate::state::savepoint::SavepointInfo;

#[derive(Serialize)]
pub(super) struct Savepoints {
    savepoints: Vec<SavepointInfo>,
    next_cursor: Option<String>,
}

/// The savepoints on disk, newest first: a bounded list, so there is no next page.
pub(super) async fn list(extract::State(state): extract::State<State>, uri: Uri) -> Result<Json<Savepoints>, Problem> {
    Parameters::read(&uri, &[])?;
    Ok(Json(Savepoints { savepoints: state.parts.pipeline.savepoints(), next_cursor: None }))
}

/// Takes a savepoint of the state as it is now; the answer comes when it is on disk.
pub(super) async fn create(
    extract::State(state): extract::State<State>,
    Extension(sender): Extension<Sender>,
    uri: Uri,
) -> Result<(StatusCode, Json<SavepointInfo>), Problem> {
    Parameters::read(&uri, &[])?;
    // A task of its own: whoever asks may leave, the savepoint is taken and recorded all the same.
    let taking = tokio::spawn(async move {
        let taken = state.parts.pipeline.savepoint().await;
        if let Ok(info) = &taken {
            sender.did(&format!("savepoint created {}", info.file), "");
        }
        taken
    });
    match taking.await? {
        Ok(info) => Ok((StatusCode::CREATED, Json(info))),
        Err(SavepointRefused::Unavailable(error)) => Err(Problem::unavailable(error.to_string())),
        Err(SavepointRefused::Failed(error)) => Err(Problem {
            status: StatusCode::INSUFFICIENT_STORAGE,
            detail: error.to_string(),
            retry_after_seconds: None,
        }),
    }
}
