//! Who gets what: tokens, roles, and the answers of RFC 6750.

use super::*;
use crate::access::tokens::{self, ApiToken, TokenRole};

/// An API that asks for tokens, with one of each kind.
struct Guarded {
    api: TestApi,
    config: Config,
    read: String,
    operate: String,
    expired: String,
    directory: tempfile::TempDir,
}

impl Guarded {
    fn new(set: impl FnOnce(&mut crate::config::HttpConfig)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("tokens");
        let add = |name: &str, role, expires_ms| {
            let (token, secret) = ApiToken::create(name, role, expires_ms).expect("a token");
            tokens::add(&path, &token).expect("a file");
            secret
        };
        let read = add("reader", TokenRole::Read, None);
        let operate = add("operator", TokenRole::Operate, Some(NOW_MS + 60_000));
        let expired = add("old", TokenRole::Operate, Some(NOW_MS));
        let mut config = Config::default();
        config.http.auth.tokens = Some(path);
        set(&mut config.http);
        Self { api: TestApi::with(config.clone()), config, read, operate, expired, directory }
    }

    async fn ask(&self, method: &str, path: &str, authorization: &[&str]) -> ApiAnswer {
        let mut request = Request::builder().method(method).uri(path);
        for value in authorization {
            request = request.header("authorization", *value);
        }
        self.api.ask(request.body(Body::empty()).expect("a request")).await
    }

    /// Status and challenge.
    async fn refused(&self, method: &str, path: &str, authorization: &[&str]) -> (u16, String) {
        let answer = self.ask(method, path, authorization).await;
        answer.is_problem(answer.status.as_u16(), "");
        (answer.status.as_u16(), answer.header("www-authenticate").to_owned())
    }

    fn reload(&self) {
        self.api.access.replace(HttpPolicy::load(&self.config.http).expect("a policy"));
    }
}

fn bearer(secret: &str) -> String {
    format!("Bearer {secret}")
}

const LOOKED_AT: [&str; 14] = [
    "/",
    "/metrics",
    "/metrics/devices",
    "/api/v1/status",
    "/api/v1/devices",
    "/api/v1/devices/a",
    "/api/v1/windows",
    "/api/v1/errors",
    "/api/v1/errors/0",
    "/api/v1/checkpoints",
    "/api/v1/savepoints",
    "/api/v1/mqtt/users",
    "/api/v1/nothing",
    "/nothing",
];
const DONE: [&str; 5] =
    ["/api/v1/errors/0/replay", "/api/v1/errors/replay", "/api/v1/savepoints", "/api/v1/status", "/nothing"];

#[tokio::test]
async fn everything_needs_a_token_but_health() {
    let guarded = Guarded::new(|_| {});
    for path in LOOKED_AT {
        for method in ["GET", "HEAD"] {
            let status = guarded.ask(method, path, &[]).await.status.as_u16();
            assert_eq!(status, 401, "{method} {path}");
        }
        for secret in [&guarded.read, &guarded.operate] {
            let status = guarded.ask("GET", path, &[&bearer(secret)]).await.status.as_u16();
            assert!(![401, 403].contains(&status), "{path}: {status}");
        }
    }
    for path in DONE {
        assert_eq!(guarded.ask("POST", path, &[]).await.status, 401, "{path}");
        assert_eq!(guarded.ask("POST", path, &[&bearer(&guarded.read)]).await.status, 403, "{path}");
        let status = guarded.ask("POST", path, &[&bearer(&guarded.operate)]).await.status.as_u16();
        assert!(![401, 403].contains(&status), "{path}: {status}");
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        assert_eq!(guarded.ask(method, "/api/v1/status", &[&bearer(&guarded.read)]).await.status, 403, "{method}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(guarded.ask("GET", path, &[]).await.status, 200, "{path}");
        assert_eq!(guarded.ask("GET", path, &[&bearer("weir_wrong")]).await.status, 200, "{path}");
    }
    // At /mqtt, MQTT checks its own credentials: this answer is about the handshake.
    assert!(![401, 403].contains(&guarded.ask("GET", "/mqtt", &[]).await.status.as_u16()));
}

#[tokio::test]
async fn refusals_are_as_rfc_6750_has_them() {
    let guarded = Guarded::new(|_| {});
    let ask =
        async |method: &str, authorization: &[&str]| guarded.refused(method, "/api/v1/savepoints", authorization).await;
    let plain = (401, "Bearer realm=\"weir\"".to_owned());
    let invalid = (401, "Bearer realm=\"weir\", error=\"invalid_token\"".to_owned());
    assert_eq!(ask("GET", &[]).await, plain);
    assert_eq!(ask("GET", &["Basic YTpi"]).await, plain);
    assert_eq!(ask("GET", &[&guarded.read]).await, plain, "without the scheme it is no bearer token");
    assert_eq!(ask("GET", &["Bearer weir_wrong"]).await, invalid);
    assert_eq!(ask("GET", &["Bearer "]).await, invalid);
    assert_eq!(ask("GET", &[&bearer(&guarded.expired)]).await, invalid);
    let scope = "Bearer realm=\"weir\", error=\"insufficient_scope\", scope=\"operate\"".to_owned();
    assert_eq!(ask("POST", &[&bearer(&guarded.read)]).await, (403, scope));
    let twice = [bearer(&guarded.read), bearer(&guarded.read)];
    let twice = ask("GET", &[&twice[0], &twice[1]]).await;
    assert_eq!(twice, (400, "Bearer realm=\"weir\", error=\"invalid_request\"".to_owned()));
    let lower = format!("bearer   {}", guarded.read);
    assert_eq!(guarded.ask("GET", "/api/v1/status", &[&lower]).await.status, 200, "the scheme has no case");
    // In the query it would end up in logs and histories.
    let query = format!("/api/v1/status?access_token={}", guarded.read);
    let answer = guarded.ask("GET", &query, &[]).await;
    answer.is_problem(401, "Authorization: Bearer");
    assert!(!answer.body.contains(&guarded.read));
    let expired = guarded.ask("GET", "/", &[&bearer(&guarded.expired)]).await;
    expired.is_problem(401, "the token old has expired");
}

#[tokio::test]
async fn metrics_may_be_open() {
    let guarded = Guarded::new(|http| http.auth.metrics = crate::config::MetricsAccess::Open);
    for path in ["/metrics", "/metrics/devices"] {
        assert_eq!(guarded.ask("GET", path, &[]).await.status, 200, "{path}");
    }
    assert_eq!(guarded.ask("GET", "/api/v1/status", &[]).await.status, 401);
}

#[tokio::test]
async fn the_status_says_what_is_asked() {
    let guarded = Guarded::new(|_| {});
    let status = guarded.ask("GET", "/api/v1/status", &[&bearer(&guarded.read)]).await;
    let expected = serde_json::json!({"token_required": true, "tokens": 3, "metrics_token_required": true});
    assert_eq!(status.json()["http_access"], expected);
    let open = TestApi::new().get("/api/v1/status").await.json();
    let expected = serde_json::json!({"token_required": false, "tokens": null, "metrics_token_required": false});
    assert_eq!(open["http_access"], expected);
}

#[tokio::test]
async fn anonymous_requests_where_they_are_allowed_too() {
    let guarded = Guarded::new(|http| http.allow_anonymous = Some(true));
    assert_eq!(guarded.ask("GET", "/api/v1/status", &[]).await.status, 200);
    assert_eq!(guarded.ask("POST", "/api/v1/errors/0/replay", &[]).await.status, 503);
    assert_eq!(guarded.ask("GET", "/api/v1/status", &["Bearer weir_wrong"]).await.status, 401);
    assert_eq!(guarded.ask("POST", "/api/v1/savepoints", &[&bearer(&guarded.read)]).await.status, 403);
}

/// A removed token is refused from then on, and what was open with it ends; other streams go on.
#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let guarded = Guarded::new(|_| {});
    let open = async |secret: &str| {
        let request =
            Request::get("/api/v1/stream").header("host", "localhost").header("authorization", bearer(secret));
        let request = request.body(Body::empty()).expect("a request");
        let service = TowerToHyperService::new(router(guarded.api.state.clone()));
        let response = service.call(request).await.expect("infallible");
        assert_eq!(response.status(), 200);
        response.into_body()
    };
    let (reads, operates) = (open(&guarded.read).await, open(&guarded.operate).await);
    let operates = tokio::spawn(operates.collect());
    tokens::remove(&guarded.directory.path().join("tokens"), "reader").expect("it is there");
    assert_eq!(guarded.ask("GET", "/", &[&bearer(&guarded.read)]).await.status, 200, "not read again yet");
    guarded.reload();
    let ended = tokio::time::timeout(Duration::from_secs(60), reads.collect()).await.expect("it ends");
    assert!(ended.expect("an end").to_bytes().is_empty());
    assert_eq!(guarded.ask("GET", "/", &[&bearer(&guarded.read)]).await.status, 401);
    assert!(!operates.is_finished());
    guarded.api.state.closing.cancel();
    operates.await.expect("no panic").expect("an end");
}
