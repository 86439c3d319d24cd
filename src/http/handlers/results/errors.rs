//! `/api/v1/errors` and `/api/v1/errors/{seq}`.

use axum::extract::{self, Path};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use super::list::{self, JsonItems};
use crate::core::reason::Reason;
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::scans::run_scan;
use crate::http::state::ApiState;
use crate::results::lookup::FoundError;
use crate::results::scan::ResultQuery;

const PARAMETERS: &[&str] = &["reason", "device", "from", "to", "limit", "cursor", "order"];

/// Reads the number of an error in a path.
///
/// # Errors
/// The text is not a number.
pub(in crate::http) fn error_seq(text: &str) -> Result<u64, ApiProblem> {
    text.parse().map_err(|_| {
        let detail = format!("{text:?} is not the number of an error; /api/v1/errors lists them with their seq");
        ApiProblem::not_found(detail)
    })
}

/// Shows one error.
pub(in crate::http) async fn detail(
    extract::State(state): extract::State<ApiState>,
    Path(seq): Path<String>,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    Parameters::read(&uri, &[])?;
    let seq = error_seq(&seq)?;
    let results = state.resources.results.clone();
    let body = run_scan(&state, move || Ok(body(seq, results.error_lookup().find(seq)?))).await??;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn body(seq: u64, found: FoundError<'_>) -> Result<Vec<u8>, ApiProblem> {
    match found {
        FoundError::Stored(entry) => {
            let mut body = Vec::new();
            entry.write_json(seq, &mut body);
            Ok(body)
        }
        FoundError::Unknown => {
            Err(ApiProblem::not_found(format!("there is no error {seq}; /api/v1/errors lists those that there are")))
        }
        FoundError::Freed(first) => Err(ApiProblem::gone(format!(
            "error {seq} is no longer stored, the oldest is {first}; raise errors.retention or errors.retention_bytes to \
             keep errors for longer"
        ))),
        FoundError::CutOut => {
            Err(ApiProblem::gone(format!("error {seq} was cut out of the errors log when it was repaired")))
        }
    }
}

/// Lists errors.
pub(in crate::http) async fn list(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
) -> Result<Response, ApiProblem> {
    let parameters = Parameters::read(&uri, PARAMETERS)?;
    let query = ResultQuery {
        reason: parameters.get("reason").map(reason).transpose()?,
        device: parameters.get("device").map(str::to_owned),
        ..list::query(&parameters)?
    };
    let (items, cursor) = list::run(&state, |logs| &logs.errors, query, JsonItems::default()).await?;
    let body = items.into_body("errors", cursor.as_deref());
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn reason(name: &str) -> Result<Reason, ApiProblem> {
    Reason::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        ApiProblem::bad_request(format!("there is no reason {name:?}; give one of {}", known.join(", ")))
    })
}
