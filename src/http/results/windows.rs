//! `/api/v1/windows`.

use axum::extract;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::core::output::{InvalidOutput, WindowResult};
use crate::http::parameters::Parameters;
use crate::http::problem::Problem;
use crate::http::results::csv;
use crate::http::state::State;
use crate::log::Log;
use crate::results::index::Entry;
use crate::results::scan::{ResultLog, Writer};

const PARAMETERS: &[&str] = &["device", "metric", "from", "to", "limit", "cursor", "revisions", "order"];

/// Where a CSV answer says how to go on.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// Which windows, and how they are written.
struct Windows {
    device: Option<String>,
    metric: Option<String>,
    csv: bool,
    out: Vec<u8>,
}

impl Writer for Windows {
    fn write(&mut self, seq: u64, record: &[u8]) -> Result<bool, InvalidOutput> {
        let window = WindowResult::decode(record)?;
        let differs = |wanted: &Option<String>, is: &str| wanted.as_deref().is_some_and(|wanted| wanted != is);
        if differs(&self.device, window.device_id) || differs(&self.metric, window.metric) {
            return Ok(false);
        }
        if self.csv {
            csv::row(seq, &window, &mut self.out);
        } else {
            if !self.out.is_empty() {
                self.out.push(b',');
            }
            window.write_json(seq, &mut self.out);
        }
        Ok(true)
    }

    fn bytes(&self) -> usize {
        self.out.len()
    }
}

impl ResultLog {
    /// The windows log: `from` and `to` select by the start of the window.
    pub fn windows(log: Log) -> Self {
        Self::new(log, |record| {
            let window = WindowResult::decode(record)?;
            Ok(Entry { time_ms: window.window_start_ms, supersedes: window.supersedes })
        })
    }
}

pub(in crate::http) async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let parameters = Parameters::read(&uri, PARAMETERS)?;
    let page = super::page(&parameters)?;
    let newest_only = newest_only(&parameters)?;
    let csv = csv::is_wanted(&headers);
    let mut windows = Windows {
        device: parameters.get("device").map(str::to_owned),
        metric: parameters.get("metric").map(str::to_owned),
        csv,
        out: Vec::new(),
    };
    if csv {
        windows.out.extend_from_slice(csv::HEADER);
    }
    let live = state.parts.live.clone();
    let (items, next) = super::blocking(&state, move || {
        let next = live.windows.scan(&page, newest_only, &mut windows)?;
        Ok((windows.out, next))
    })
    .await?;
    let cursor = next.map(|position| super::write_cursor(page.order, position));
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
