//! Who may send which request, and what those get who may not (RFC 6750).

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::access::http_access::{Caller, HttpAccess, HttpRefusal};
use crate::access::tokens::TokenRole;
use crate::http::problem::Problem;
use crate::telemetry::audit::{self, AuditActor, AuditEvent};
use crate::telemetry::names;

/// Who sent a request, for handlers that do something.
#[derive(Debug, Clone, Default)]
pub(super) struct Sender {
    /// The token.
    pub caller: Caller,
    /// The other end.
    pub address: Option<IpAddr>,
}

impl Sender {
    /// Puts into the audit log that weir did something because this sender asked for it.
    pub fn did(&self, what: &str, detail: &str) {
        let who = AuditActor { user: self.caller.name(), address: self.address, ..AuditActor::default() };
        audit::record(AuditEvent::AdminAction, &who, what, detail);
    }
}

/// Lets the request pass, with its [`Sender`] among its extensions, or answers it.
pub(super) fn admit(access: &HttpAccess, request: &mut Request) -> Result<(), Box<Response>> {
    let address = address(request);
    let caller = match needed(access, request) {
        None => Caller::default(),
        Some(needed) => bearer(request.headers())
            .and_then(|secret| access.judge(secret, needed))
            .map_err(|refusal| Box::new(refused(request, &refusal)))?,
    };
    request.extensions_mut().insert(Sender { caller, address });
    Ok(())
}

/// Counts and records that a request was not allowed. The path alone is recorded: a query may hold anything.
pub(super) fn record_refusal(request: &Request, label: &'static str, user: Option<&str>, detail: &str) {
    metrics::counter!(names::HTTP_REFUSED, "reason" => label).increment(1);
    let who = AuditActor { user, address: address(request), ..AuditActor::default() };
    let subject = format!("{} {}", request.method(), request.uri().path());
    audit::record(AuditEvent::HttpRefused, &who, &subject, detail);
}

fn address(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<SocketAddr>().map(SocketAddr::ip)
}

/// The role that a request needs; `None`: everybody may send it. Paths that do not exist need one too: who may not look
/// does not learn what there is.
fn needed(access: &HttpAccess, request: &Request) -> Option<TokenRole> {
    match request.uri().path() {
        // Orchestrators ask these, and they tell little. At /mqtt MQTT's own credentials are asked for.
        "/healthz" | "/readyz" | "/mqtt" => None,
        "/metrics" | "/metrics/devices" if access.policy().open_metrics() => None,
        _ if request.method().is_safe() => Some(TokenRole::Read),
        _ => Some(TokenRole::Operate),
    }
}

/// The secret in the Authorization header. Never from the query, which ends up in logs and histories.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, HttpRefusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(HttpRefusal::Repeated);
    }
    // Of another scheme, or not text: no token of weir's.
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
    let mut response = Problem { status, detail, retry_after_seconds: None }.into_response();
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
