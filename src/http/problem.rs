//! Errors as RFC 9457 problem details.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::task::JoinError;

use crate::log::LogError;
use crate::pipeline::handle::Unavailable;

/// A request that was not served, and what its sender can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// What happened and what to do, in a sentence.
    pub detail: String,
    /// Seconds after which trying again makes sense.
    pub retry_after_seconds: Option<u32>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// The request is wrong (400).
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: detail.into(), retry_after_seconds: None }
    }

    /// There is no such thing (404).
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, detail: detail.into(), retry_after_seconds: None }
    }

    /// There is no such thing any more (410).
    pub fn gone(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::GONE, detail: detail.into(), retry_after_seconds: None }
    }

    /// weir cannot answer now (503).
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, detail: detail.into(), retry_after_seconds: Some(1) }
    }

    /// weir failed (500). The reason is in weir's log, not in the answer.
    pub fn internal() -> Self {
        let detail = "weir failed to answer; its log says why. If it happens again, report it with the log";
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, detail: detail.into(), retry_after_seconds: None }
    }
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        Self::unavailable(format!("{error}; try again, and look at /readyz if it goes on"))
    }
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Self {
        tracing::error!(%error, "what a request asked for did not end");
        Self::internal()
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        tracing::error!(%error, "results could not be read");
        Self::internal()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = Body { r#type: "about:blank", title, status: self.status.as_u16(), detail: &self.detail };
        // A struct of strings and a number always serialises.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
