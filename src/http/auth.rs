//! Decides which requests may be served: the role that each needs, and the answers to those without it (RFC 6750).

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::access::http_access::{Caller, HttpAccess, HttpRefusal};
use crate::access::tokens::TokenRole;
use crate::http::problem::ApiProblem;
use crate::telemetry::audit::{self, AuditActor, AuditEvent};
use crate::telemetry::names;

/// Who sent a request, for handlers that change something.
#[derive(Debug, Clone, Default)]
pub(super) struct Requester {
    /// The token that came with the request.
    pub caller: Caller,
    /// Address of the other end.
    pub address: Option<IpAddr>,
}

impl Requester {
    /// Records in the audit log that weir did something because this requester asked for it.
    pub fn did(&self, what: &str, detail: &str) {
        let who = AuditActor { user: self.caller.name(), address: self.address, ..AuditActor::default() };
        audit::record(AuditEvent::AdminAction, &who, what, detail);
    }
}

/// Lets the request pass, with its [`Requester`] among its extensions, or answers it. Returns whether it has a token.
pub(super) fn admit(access: &HttpAccess, request: &mut Request) -> Result<bool, Box<Response>> {
    let address = address(request);
    let caller = match needed(access, request) {
        None => Caller::default(),
        Some(needed) => bearer(request.headers())
            .and_then(|secret| access.judge(secret, needed))
            .map_err(|refusal| Box::new(refused(request, &refusal)))?,
    };
    let has_token = caller.name().is_some();
    request.extensions_mut().insert(Requester { caller, address });
    Ok(has_token)
}

/// Counts a request that was not allowed and records it in the audit log. Only the path is recorded: a query may hold
/// secrets.
pub(super) fn record_refusal(request: &Request, label: &'static str, user: Option<&str>, detail: &str) {
    metrics::counter!(names::HTTP_REFUSED, "reason" => label).increment(1);
    let who = AuditActor { user, address: address(request), ..AuditActor::default() };
    let subject = format!("{} {}", request.method(), request.uri().path());
    audit::record(AuditEvent::HttpRefused, &who, &subject, detail);
}

fn address(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<SocketAddr>().map(SocketAddr::ip)
}

/// The role that a request needs; `None` where everybody may send it. Paths that do not exist need a role too: a sender
/// without one does not learn which paths exist.
fn needed(access: &HttpAccess, request: &Request) -> Option<TokenRole> {
    match request.uri().path() {
        // Orchestrators ask for health, and the answers tell little. At /mqtt, MQTT checks its own credentials.
        "/healthz" | "/readyz" | "/mqtt" => None,
        "/metrics" | "/metrics/devices" if access.policy().open_metrics() => None,
        _ if request.method().is_safe() => Some(TokenRole::Read),
        _ => Some(TokenRole::Operate),
    }
}

/// The secret in the Authorization header. A secret in the query is not accepted: queries end up in logs and histories.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, HttpRefusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(HttpRefusal::Repeated);
    }
    // Another scheme, or not text: this is no token of weir.
    let Some((scheme, secret)) = first.and_then(|value| value.to_str().ok()?.split_once(' ')) else { return Ok(None) };
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim()))
}

fn refused(request: &Request, refusal: &HttpRefusal) -> Response {
    let detail = refusal.to_string();
    record_refusal(request, refusal.as_str(), refusal.name(), &detail);
    let status = match refusal {
        HttpRefusal::Missing | HttpRefusal::Invalid | HttpRefusal::Expired(_) => StatusCode::UNAUTHORIZED,
        HttpRefusal::Repeated => StatusCode::BAD_REQUEST,
        HttpRefusal::Scope { .. } => StatusCode::FORBIDDEN,
    };
    let mut response = ApiProblem::new(status, detail).into_response();
    if let Ok(challenge) = HeaderValue::from_str(&challenge(refusal)) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn challenge(refusal: &HttpRefusal) -> String {
    let mut challenge = String::from("Bearer realm=\"weir\"");
    if let Some(code) = refusal.code() {
        challenge.push_str(&format!(", error=\"{code}\""));
    }
    if let HttpRefusal::Scope { needed, .. } = refusal {
        challenge.push_str(&format!(", scope=\"{}\"", needed.as_str()));
    }
    challenge
}
