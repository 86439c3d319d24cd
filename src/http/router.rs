//! The paths of the HTTP API, and the rules for all of them: access, counting, time limits, and errors as problem JSON.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::Router;
use axum::extract::{self, MatchedPath, Request};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::FutureExt;
use hyper::body::Body as _;

use crate::http::handlers::{
    checkpoints, device_metrics, devices, forget, health, map_watch, maps, metrics, mqtt_users, replay, results,
    savepoints, status, stream, topics,
};
use crate::http::hosts::{NamedHost, TrustedHosts};
use crate::http::limits::MAX_BODY_BYTES;
use crate::http::problem::ApiProblem;
use crate::http::state::ApiState;
use crate::http::{auth, hosts, websocket};
use crate::stall;
use crate::telemetry::names;

/// Time until a request has its answer; for a stream, until the answer begins.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The answer to `GET /`.
const INDEX: &str = concat!(
    "weir ",
    env!("CARGO_PKG_VERSION"),
    "\n
/healthz             whether the process can do its work
/readyz              whether it is restored, caught up and writing checkpoints
/metrics             weir's own metrics (Prometheus)
/metrics/devices     last window of every device and metric (Prometheus)
/api/v1/status       the state of weir at a glance
/api/v1/devices      devices: ?user=&anonymous=1&last_seen_before=&order=id|newest|silent&limit=&cursor=
                     /api/v1/devices/{id} shows one of them, and DELETE forgets it;
                     POST /api/v1/devices/forget forgets those in {\"devices\":[\"a\",\"b\"]}
/api/v1/windows      results: ?device=&metric=&from=&to=&limit=&cursor=&revisions=all&order=asc|desc
/api/v1/errors       rejected readings and device faults: ?reason=&device=&from=&to=&limit=&cursor=&order=
                     /api/v1/errors/{seq} shows one of them; POST /api/v1/errors/{seq}/replay processes it again,
                     POST /api/v1/errors/replay those in {\"seqs\":[1,2,3]},
                     GET /api/v1/errors/replay?seqs=1,2,3 tells what became of them
/api/v1/checkpoints  the newest checkpoints
/api/v1/savepoints   copies of the state in one file; POST takes one
/api/v1/mqtt/users   what MQTT users hold, with their quotas, heaviest first: ?limit=
/api/v1/maps         maps: topics, last message, what their messages gave, most frequent ignored keys
                     GET /api/v1/maps/watch sends what becomes of messages as server-sent events: ?topic=FILTER&map=
/api/v1/topics       ?unmatched=1: topics that are no ingest topics, with suggestions, most frequent first: ?all=1&limit=
/mqtt                MQTT over WebSocket
/api/v1/stream       server-sent events: ?windows=1&errors=1&device=
"
);

/// All routes.
pub(super) fn router(state: ApiState) -> Router {
    Router::new()
        .route("/", get(async || INDEX))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::page))
        .route("/metrics/devices", get(device_metrics::page))
        .route("/api/v1/status", get(status::page))
        .route("/api/v1/devices", get(devices::list))
        // A device may have the id "forget": it has this path for GET and DELETE.
        .route("/api/v1/devices/{id}", get(devices::one).delete(forget::one).post(forget::selected))
        .route("/api/v1/windows", get(results::windows))
        .route("/api/v1/errors", get(results::errors))
        .route("/api/v1/errors/replay", get(replay::effects).post(replay::bulk))
        .route("/api/v1/errors/{seq}", get(results::error))
        .route("/api/v1/errors/{seq}/replay", post(replay::one))
        .route("/api/v1/checkpoints", get(checkpoints::list))
        .route("/api/v1/savepoints", get(savepoints::list).post(savepoints::create))
        .route("/api/v1/mqtt/users", get(mqtt_users::list))
        .route("/api/v1/maps", get(maps::list))
        .route("/api/v1/maps/watch", get(map_watch::open))
        .route("/api/v1/topics", get(topics::list))
        .route("/api/v1/stream", get(stream::open))
        .route("/mqtt", get(websocket::open))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), guard))
        .with_state(state)
}

async fn not_found(uri: Uri) -> ApiProblem {
    ApiProblem::not_found(format!("there is nothing at {:?}; GET / lists the paths", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> ApiProblem {
    let detail = format!("{method} is not possible at {:?}; the Allow header lists what is", uri.path());
    ApiProblem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Counts each request by route and status. The label is the route, not the path: clients make up any number of paths.
async fn guard(extract::State(state): extract::State<ApiState>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let response = match admit(&state, &mut request) {
        Ok(()) => answer(request, next).await,
        Err(refused) => *refused,
    };
    let status = response.status().as_str().to_owned();
    ::metrics::counter!(names::HTTP_REQUESTS, "path" => route, "status" => status).increment(1);
    response
}

/// Lets a request pass if it may be served, or answers it. Nothing of the body has been read yet.
fn admit(state: &ApiState, request: &mut Request) -> Result<(), Box<Response>> {
    let named = hosts::named(request).map_err(problem)?;
    let policy = state.resources.access.policy();
    let listener = request.extensions_mut().remove().unwrap_or_default();
    let trusted =
        TrustedHosts { allowed: policy.allowed_hosts(), node: &state.resources.config.node.name, listener: &listener };
    if !request.method().is_safe() && trusted.is_foreign_page(request, named.as_ref()) {
        return Err(foreign(request, "cross_site", hosts::cross_site()));
    }
    let has_token = auth::admit(&state.resources.access, request)?;
    let is_logging_in = request.uri().path() == "/mqtt" && policy.mqtt_needs_credentials();
    if !has_token && !is_logging_in {
        trusted.check(request, named.as_ref()).map_err(|(label, problem)| foreign(request, label, problem))?;
    }
    let is_trusted = named.as_ref().is_none_or(|named| trusted.has(&named.host));
    request.extensions_mut().insert(NamedHost { authority: named, is_trusted });
    body(request).map_err(problem)
}

fn problem(problem: ApiProblem) -> Box<Response> {
    Box::new(problem.into_response())
}

/// Records and answers a request of a foreign page, or one that may be.
fn foreign(request: &Request, label: &'static str, refusal: ApiProblem) -> Box<Response> {
    auth::record_refusal(request, label, None, &refusal.detail);
    problem(refusal)
}

/// Checks the size of the body as the request states it, and the content type of a request that changes something. Pages
/// of other sites can send forms and text without asking first (a preflight of CORS); they cannot send JSON.
fn body(request: &Request) -> Result<(), ApiProblem> {
    if let Some(length) = body_bytes(request).filter(|length| *length > MAX_BODY_BYTES) {
        let detail = format!("a request may have a body of {MAX_BODY_BYTES} bytes at most, not {length}");
        return Err(ApiProblem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let mut types = request.headers().get_all(header::CONTENT_TYPE).iter();
    let is_json = match (types.next(), types.next()) {
        (None, _) => request.body().is_end_stream(),
        (Some(only), None) => only.to_str().is_ok_and(is_json),
        (Some(_), Some(_)) => false,
    };
    if request.method().is_safe() || is_json {
        return Ok(());
    }
    let detail = "send the body with Content-Type: application/json, or send no body and no content type";
    Err(ApiProblem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

fn is_json(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The length of the body as the request states it.
fn body_bytes(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Runs the handler within the time limit. A panic is a defect: it is logged, answered with 500, and ends its request
/// alone.
async fn answer(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let answered = stall::timeout(ANSWER_TIME, AssertUnwindSafe(next.run(request)).catch_unwind());
    match answered.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            tracing::error!(path, "a request panicked");
            ApiProblem::internal().into_response()
        }
        Err(_) => {
            ApiProblem::unavailable("no answer within the time limit; try again, or ask for less").into_response()
        }
    }
}
