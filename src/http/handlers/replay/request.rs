//! Reads requests for replays.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use serde::Deserialize;

use crate::http::limits::MAX_BODY_BYTES;
use crate::http::problem::ApiProblem;

/// Errors in one request.
const MAX_SEQS: usize = 1_000;

/// Reads the body, whose content type was checked before.
async fn body(request: Request<Body>) -> Result<Bytes, ApiProblem> {
    axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES as usize).await.map_err(|_| {
        let detail = format!("the body could not be read, or has more than {MAX_BODY_BYTES} bytes");
        ApiProblem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    })
}

/// Checks that the request has no body.
///
/// # Errors
/// It has one, or the body could not be read.
pub(super) async fn empty(request: Request<Body>) -> Result<(), ApiProblem> {
    if body(request).await?.trim_ascii().is_empty() {
        return Ok(());
    }
    Err(ApiProblem::bad_request("this takes no body; POST /api/v1/errors/replay takes a list of errors"))
}

/// Reads `{"seqs":[…]}` and returns the numbers in ascending order, each once.
///
/// # Errors
/// The body has another form, or too few or too many numbers.
pub(super) async fn seqs(request: Request<Body>) -> Result<Vec<u64>, ApiProblem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ReplayRequest {
        seqs: Vec<u64>,
    }
    let body = body(request).await?;
    let ReplayRequest { mut seqs } = serde_json::from_slice(&body).map_err(|error| {
        ApiProblem::bad_request(format!("the body is not of the form {{\"seqs\":[1,2,3]}}: {error}"))
    })?;
    if !(1..=MAX_SEQS).contains(&seqs.len()) {
        let count = seqs.len();
        return Err(ApiProblem::bad_request(format!("seqs has {count} numbers; give 1 to {MAX_SEQS}")));
    }
    seqs.sort_unstable();
    seqs.dedup();
    Ok(seqs)
}
