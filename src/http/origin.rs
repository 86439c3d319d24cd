//! Whose page a browser sends a request for.
//!
//! The API has no access control: a page of another site must not make a browser change anything here. Whatever a browser
//! sends across sites says so, in `Sec-Fetch-Site` or in `Origin`; programs send neither.

use axum::http::{HeaderMap, Method, StatusCode, header};

use crate::http::problem::Problem;

/// Refuses what a page of another site sends to change something.
pub(super) fn check(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if method.is_safe() || is_own(headers) {
        return Ok(());
    }
    let detail = "a page of another site may not do this; send it with a program, or from a page of this address";
    Err(Problem { status: StatusCode::FORBIDDEN, detail: detail.into(), retry_after_seconds: None })
}

fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| !["same-origin", "none"].contains(&site)) {
        return false;
    }
    let Some(origin) = text(header::ORIGIN) else { return true };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some() && authority == text(header::HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], allowed: bool) {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_str(value).expect("a header value"))
        });
        let headers: HeaderMap = headers.collect();
        assert_eq!(super::check(&Method::POST, &headers).is_ok(), allowed, "{headers:?}");
        assert!(super::check(&Method::GET, &headers).is_ok());
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
