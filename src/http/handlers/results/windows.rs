//! `/api/v1/windows`.

use axum::extract;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};

use super::csv::{self, CsvRows};
use super::list::{self, JsonItems};
use crate::http::parameters::Parameters;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::results::log::{ResultLog, ResultLogs};
use crate::results::scan::ResultQuery;

const PARAMETERS: &[&str] = &["device", "metric", "from", "to", "limit", "cursor", "revisions", "order"];

/// Header of a CSV answer that holds the cursor of the next page.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// Lists windows, as CSV where the request prefers it.
pub(in crate::http) async fn list(
    extract::State(state): extract::State<ApiState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiProblem> {
    let parameters = Parameters::read(&uri, PARAMETERS)?;
    let query = ResultQuery {
        newest_only: newest_only(&parameters)?,
        device: parameters.get("device").map(str::to_owned),
        metric: parameters.get("metric").map(str::to_owned),
        ..list::query(&parameters)?
    };
    let windows: fn(&ResultLogs) -> &ResultLog = |logs| &logs.windows;
    let mut response = if csv::is_wanted(&headers) {
        let (rows, cursor) = list::run(&state, windows, query, CsvRows::new()).await?;
        let content_type = "text/csv; charset=utf-8; header=present";
        let mut response = ([(header::CONTENT_TYPE, content_type)], rows.into_body()).into_response();
        if let Some(value) = cursor.and_then(|cursor| cursor.parse().ok()) {
            response.headers_mut().insert(NEXT_CURSOR, value);
        }
        response
    } else {
        let (items, cursor) = list::run(&state, windows, query, JsonItems::default()).await?;
        let body = items.into_body("windows", cursor.as_deref());
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept"));
    Ok(response)
}

fn newest_only(parameters: &Parameters) -> Result<bool, ApiProblem> {
    match parameters.get("revisions") {
        None | Some("newest") => Ok(true),
        Some("all") => Ok(false),
        Some(text) => Err(ApiProblem::bad_request(format!(
            "revisions={text} is unknown; give all, or leave it out for the newest revision of each window"
        ))),
    }
}
