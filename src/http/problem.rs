//! Errors as RFC 9457 problem details.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::task::JoinError;

use crate::core::output::InvalidOutput;
use crate::log::LogError;
use crate::pipeline::handle::Unavailable;
use crate::results::error::ScanError;

/// A request that was not served, and what its sender can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiProblem {
    /// HTTP status.
    pub status: StatusCode,
    /// What happened and what to do, in a sentence.
    pub detail: String,
    /// Seconds after which the sender may try again.
    pub retry_after_seconds: Option<u32>,
}

/// The JSON of a problem.
#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl ApiProblem {
    /// A problem that trying again does not solve.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after_seconds: None }
    }

    /// The request is wrong (400).
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The path names nothing that exists (404).
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// The path names something that existed and does not any more (410).
    pub fn gone(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, detail)
    }

    /// weir cannot answer at the moment (503).
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self { retry_after_seconds: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// weir failed (500). The reason is in weir's log, not in the answer.
    pub fn internal() -> Self {
        let detail = "weir failed to answer; its log says why. If it happens again, report it with the log";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }
}

impl From<Unavailable> for ApiProblem {
    fn from(error: Unavailable) -> Self {
        Self::unavailable(format!("{error}; try again, and look at /readyz if it goes on"))
    }
}

impl From<JoinError> for ApiProblem {
    fn from(error: JoinError) -> Self {
        tracing::error!(%error, "the task of a request did not end");
        Self::internal()
    }
}

impl From<LogError> for ApiProblem {
    fn from(error: LogError) -> Self {
        tracing::error!(%error, "results could not be read");
        Self::internal()
    }
}

impl From<ScanError> for ApiProblem {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Log(error) => error.into(),
            ScanError::Record(seq, InvalidOutput(what)) => {
                tracing::error!(seq, %what, "a stored result cannot be read");
                Self::internal()
            }
            ScanError::NotIndexed => {
                Self::unavailable("the results found at start are still being indexed; try again in a second")
            }
        }
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = ProblemBody { r#type: "about:blank", title, status: self.status.as_u16(), detail: &self.detail };
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
