//! `/api/v1/windows`.

use axum::extract;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::http::parameters::Parameters;
use crate::http::problem::Problem;
use crate::http::results::csv;
use crate::http::state::{Shared, State};
use crate::results::scan::{ResultQuery, ResultWriter};

const PARAMETERS: &[&str] = &["device", "metric", "from", "to", "limit", "cursor", "revisions", "order"];

/// Where a CSV answer says how to go on.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

pub(in crate::http) async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(&uri, PARAMETERS)?;
    let query = ResultQuery {
        newest_only: newest_only(&parameters)?,
        device: parameters.get("device").map(str::to_owned),
        metric: parameters.get("metric").map(str::to_owned),
        ..super::query(&parameters)?
    };
    let order = query.order;
    let csv = csv::is_wanted(&headers);
    let (items, next) = if csv {
        scan(&state, query, csv::CsvRows::new()).await.map(|(rows, next)| (rows.into_bytes(), next))?
    } else {
        scan(&state, query, super::JsonItems::default()).await.map(|(items, next)| (items.into_bytes(), next))?
    };
    let cursor = next.map(|position| super::write_cursor(order, position));
    let mut response = if csv {
        ([(header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present")], items).into_response()
    } else {
        let body = super::list_json("windows", &items, cursor.as_deref());
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept"));
    if let Some(value) = cursor.filter(|_| csv).and_then(|cursor| cursor.parse().ok()) {
        response.headers_mut().insert(NEXT_CURSOR, value);
    }
    Ok(response)
}

fn newest_only(parameters: &Parameters) -> Result<bool, Problem> {
    match parameters.get("revisions") {
        None | Some("newest") => Ok(true),
        Some("all") => Ok(false),
        Some(text) => Err(Problem::bad_request(format!(
            "revisions={text} is unknown; give all, or leave it out for the newest revision of each window"
        ))),
    }
}

async fn scan<W: ResultWriter + Send + 'static>(
    state: &Shared,
    query: ResultQuery,
    mut writer: W,
) -> Result<(W, Option<u64>), Problem> {
    let results = state.parts.results.clone();
    super::blocking(state, move || {
        let next = results.windows.scan(&query, &mut writer)?;
        Ok((writer, next))
    })
    .await
}
