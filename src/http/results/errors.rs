//! `/api/v1/errors`.

use axum::extract::{self, Path};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use crate::core::output::ErrorEntry;
use crate::core::reason::Reason;
use crate::http::parameters::Parameters;
use crate::http::problem::Problem;
use crate::http::state::State;
use crate::results::lookup::FoundError;
use crate::results::scan::{ResultQuery, ScanError};

const PARAMETERS: &[&str] = &["reason", "device", "from", "to", "limit", "cursor", "order"];

/// The number of an error in a path.
pub(in crate::http) fn error_seq(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| {
        Problem::not_found(format!("{text:?} is not the number of an error; /api/v1/errors lists them with their seq"))
    })
}

/// One entry.
pub(in crate::http) async fn detail(
    extract::State(state): extract::State<State>,
    Path(seq): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    Parameters::read(&uri, &[])?;
    let seq = error_seq(&seq)?;
    let results = state.parts.results.clone();
    let found = super::blocking(&state, move || Ok(results.error_lookup().find(seq)?)).await?;
    let bytes = match found {
        FoundError::Stored(bytes) => bytes,
        FoundError::Unknown => {
            return Err(Problem::not_found(format!("there is no error {seq}; /api/v1/errors lists them")));
        }
        FoundError::Freed(first) => {
            let detail = format!("error {seq} is no longer stored, the oldest is {first}; errors.retention keeps them");
            return Err(Problem::gone(detail));
        }
        FoundError::CutOut => {
            return Err(Problem::gone(format!("error {seq} was cut out of the errors log when it was repaired")));
        }
    };
    let entry = ErrorEntry::decode(&bytes).map_err(|error| Problem::from(ScanError::Record(seq, error)))?;
    let mut body = Vec::new();
    entry.write_json(seq, &mut body);
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

pub(in crate::http) async fn list(extract::State(state): extract::State<State>, uri: Uri) -> Result<Response, Problem> {
    let parameters = Parameters::read(&uri, PARAMETERS)?;
    let query = ResultQuery {
        reason: parameters.get("reason").map(reason).transpose()?,
        device: parameters.get("device").map(str::to_owned),
        ..super::query(&parameters)?
    };
    let (order, results) = (query.order, state.parts.results.clone());
    let (items, next) = super::blocking(&state, move || {
        let mut items = super::JsonItems::default();
        let next = results.errors.scan(&query, &mut items)?;
        Ok((items.into_bytes(), next))
    })
    .await?;
    let cursor = next.map(|position| super::write_cursor(order, position));
    let body = super::list_json("errors", &items, cursor.as_deref());
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn reason(name: &str) -> Result<Reason, Problem> {
    Reason::from_name(name).ok_or_else(|| {
        let known: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        Problem::bad_request(format!("there is no reason {name:?}; give one of {}", known.join(", ")))
    })
}
