//! What a request that changes something must look like.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use crate::http::problem::Problem;
use crate::http::replay::MAX_SEQS;
use crate::http::router::MAX_BODY_BYTES;

/// A request that another site's page made a browser send. The API has no access control, so a page must not be able to
/// change anything here: a form cannot send `application/json`, and a script of another site can without asking first send
/// only what a form can; whatever a browser sends across sites says where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forbidden;

impl From<Forbidden> for Problem {
    fn from(Forbidden: Forbidden) -> Self {
        let detail = "a page of another site may not do this; send it with a program, or from a page of this address";
        Self { status: StatusCode::FORBIDDEN, detail: detail.into(), retry_after_seconds: None }
    }
}

fn check_origin(headers: &HeaderMap) -> Result<(), Forbidden> {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"));
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| !["same-origin", "none"].contains(&site)) {
        return Err(Forbidden);
    }
    let (Some(origin), host) = (text(header::ORIGIN), text(header::HOST)) else { return Ok(()) };
    let own = origin.split_once("://").map(|(_, authority)| authority);
    if own.is_some() && own == host { Ok(()) } else { Err(Forbidden) }
}

/// The body, after the checks that all such requests share.
async fn body(request: Request<Body>) -> Result<Bytes, Problem> {
    check_origin(request.headers())?;
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES as usize).await.map_err(|_| Problem {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        detail: format!("the body could not be read, or has more than {MAX_BODY_BYTES} bytes"),
        retry_after_seconds: None,
    })?;
    let is_json = |text: &str| text.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    match content_type {
        None if body.is_empty() => Ok(body),
        Some(kind) if kind.to_str().is_ok_and(is_json) => Ok(body),
        _ => Err(Problem {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            detail: "send the body with Content-Type: application/json".into(),
            retry_after_seconds: None,
        }),
    }
}

/// A request without a body.
pub(super) async fn empty(request: Request<Body>) -> Result<(), Problem> {
    if body(request).await?.trim_ascii().is_empty() {
        return Ok(());
    }
    Err(Problem::bad_request("this takes no body; POST /api/v1/errors/replay takes a list of errors"))
}

/// `{"seqs":[…]}`: the numbers in ascending order, each once.
pub(super) async fn seqs(request: Request<Body>) -> Result<Vec<u64>, Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        seqs: Vec<u64>,
    }
    let body = body(request).await?;
    let Wanted { mut seqs } = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!("the body is not of the form {{\"seqs\":[1,2,3]}}: {error}"))
    })?;
    if !(1..=MAX_SEQS).contains(&seqs.len()) {
        let count = seqs.len();
        return Err(Problem::bad_request(format!("seqs has {count} numbers; give 1 to {MAX_SEQS}")));
    }
    seqs.sort_unstable();
    seqs.dedup();
    Ok(seqs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], allowed: bool) {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_str(value).expect("a header value"))
        });
        assert_eq!(check_origin(&headers.clone().collect()).is_ok(), allowed, "{:?}", headers.collect::<Vec<_>>());
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = ("host", "127.0.0.1:8080");
        check(&[host], true);
        check(&[host, ("origin", "http://127.0.0.1:8080")], true);
        check(&[host, ("origin", "http://127.0.0.1:8081")], false);
        check(&[host, ("origin", "https://example.org")], false);
        check(&[host, ("origin", "null")], false);
        check(&[("origin", "null")], false);
        check(&[host, ("sec-fetch-site", "same-origin")], true);
        check(&[host, ("sec-fetch-site", "none")], true);
        for site in ["cross-site", "same-site"] {
            check(&[host, ("sec-fetch-site", site)], false);
        }
    }
}
