//! Reads requests for replays.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use serde::Deserialize;

use crate::http::limits::MAX_BODY_BYTES;
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::received_body::BodyError;

/// Errors in one request.
const MAX_SEQS: usize = 1_000;

/// Reads the body, whose content type was checked before.
async fn body(request: Request<Body>) -> Result<Bytes, ApiProblem> {
    axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES as usize).await.map_err(|error| unread(&error))
}

/// The answer to a request whose body was not read to its end.
fn unread(error: &axum::Error) -> ApiProblem {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    match causes.find_map(|cause| cause.downcast_ref::<BodyError>()) {
        Some(error @ BodyError::NoPlace) => ApiProblem::unavailable(error.to_string()),
        Some(error @ BodyError::TooSlow) => ApiProblem::new(StatusCode::REQUEST_TIMEOUT, error.to_string()),
        Some(error @ BodyError::Broken) => ApiProblem::bad_request(error.to_string()),
        None => {
            let detail = format!("the body has more than {MAX_BODY_BYTES} bytes");
            ApiProblem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        }
    }
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
    let ReplayRequest { seqs } = serde_json::from_slice(&body).map_err(|error| {
        ApiProblem::bad_request(format!("the body is not of the form {{\"seqs\":[1,2,3]}}: {error}"))
    })?;
    in_order(seqs)
}

/// Reads `seqs=1,2,3` of a query, as [`seqs`] reads a body.
///
/// # Errors
/// As [`seqs`].
pub(super) fn seqs_of_query(uri: &Uri) -> Result<Vec<u64>, ApiProblem> {
    let parameters = Parameters::read(uri, &["seqs"])?;
    let wrong = || ApiProblem::bad_request("give the numbers of errors, such as seqs=1,2,3");
    let seqs: Result<Vec<u64>, _> = parameters.get("seqs").ok_or_else(wrong)?.split(',').map(str::parse).collect();
    in_order(seqs.map_err(|_| wrong())?)
}

fn in_order(mut seqs: Vec<u64>) -> Result<Vec<u64>, ApiProblem> {
    if !(1..=MAX_SEQS).contains(&seqs.len()) {
        let count = seqs.len();
        return Err(ApiProblem::bad_request(format!("seqs has {count} numbers; give 1 to {MAX_SEQS}")));
    }
    seqs.sort_unstable();
    seqs.dedup();
    Ok(seqs)
}
