//! Hosts and web pages: what a request without a token must name, and how it is refused.

use axum::http::Version;

use super::*;
use crate::access::tokens::{self, ApiToken, TokenRole};
use crate::config::HostPattern;
use crate::http::hosts::ReachedListener;

const PATHS: [&str; 13] = [
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/metrics/devices",
    "/api/v1/status",
    "/api/v1/devices",
    "/api/v1/windows",
    "/api/v1/errors",
    "/api/v1/checkpoints",
    "/api/v1/savepoints",
    "/mqtt",
    "/nothing",
];

async fn ask(api: &TestApi, method: &str, path: &str, headers: &[(&str, &str)]) -> ApiAnswer {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    api.ask_as_it_is(request.body(Body::empty()).expect("a request")).await
}

#[tokio::test]
async fn a_name_of_somebody_else_is_refused_everywhere() {
    let api = TestApi::new();
    for path in PATHS {
        for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "8.8.8.8", "box.local"] {
            let answer = ask(&api, "GET", path, &[("host", host)]).await;
            answer.is_problem(421, "http.allowed_hosts");
        }
        for host in ["localhost:8080", "LOCALHOST", "127.0.0.1:8080", "[::1]:8080"] {
            let status = ask(&api, "GET", path, &[("host", host)]).await.status.as_u16();
            assert!(![400, 421].contains(&status), "{path} {host}: {status}");
        }
    }
    for path in ["/api/v1/savepoints", "/api/v1/errors/replay", "/api/v1/errors/0/replay"] {
        ask(&api, "POST", path, &[("host", "evil.example")]).await.is_problem(421, "evil.example");
        // After rebinding, the page and the host have the same name.
        let rebound = [("host", "evil.example:8080"), ("origin", "http://evil.example:8080")];
        ask(&api, "POST", path, &rebound).await.is_problem(421, "evil.example");
    }
    ask(&api, "GET", "/api/v1/stream", &[("host", "evil.example")]).await.is_problem(421, "evil.example");
}

#[tokio::test]
async fn a_page_of_another_site_is_refused() {
    let api = TestApi::new();
    for path in PATHS.into_iter().filter(|path| *path != "/mqtt") {
        let foreign = [("host", "127.0.0.1:8080"), ("origin", "http://evil.example")];
        ask(&api, "GET", path, &foreign).await.is_problem(403, "another site's page");
        let own = [("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")];
        assert_ne!(ask(&api, "GET", path, &own).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn each_request_names_one_host() {
    let api = TestApi::new();
    ask(&api, "GET", "/healthz", &[]).await.is_problem(400, "no Host header");
    let twice = [("host", "localhost"), ("host", "localhost")];
    ask(&api, "GET", "/healthz", &twice).await.is_problem(400, "more than one Host header");
    for host in ["", "a b", "user@localhost", "localhost/", "localhost:x", "[::1", "evil.example@127.0.0.1"] {
        ask(&api, "GET", "/healthz", &[("host", host)]).await.is_problem(400, "not of the form HOST or HOST:PORT");
    }
    let whole = async |target: &str, host: &str| ask(&api, "GET", target, &[("host", host)]).await.status.as_u16();
    assert_eq!(whole("http://localhost/healthz", "localhost").await, 200);
    assert_eq!(whole("http://localhost/healthz", "evil.example").await, 200, "the target counts");
    assert_eq!(whole("http://evil.example/healthz", "localhost").await, 421, "the target counts");
    assert_eq!(whole("http://evil@localhost/healthz", "localhost").await, 400);
    let old = |host: Option<&str>| {
        let request = Request::get("/healthz").version(Version::HTTP_10);
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        api.ask_as_it_is(request.body(Body::empty()).expect("a request"))
    };
    assert_eq!(old(None).await.status, 200, "no browser speaks HTTP/1.0");
    assert_eq!(old(Some("evil.example")).await.status, 421);
}

#[tokio::test]
async fn a_reload_takes_allowed_hosts() {
    let api = TestApi::new();
    let ask = async |host: &str| ask(&api, "GET", "/api/v1/status", &[("host", host)]).await.status.as_u16();
    assert_eq!(ask("weir:8080").await, 421);
    let mut http = Config::default().http;
    http.allowed_hosts = vec![HostPattern::Name("weir".into())];
    api.access.replace(HttpPolicy::load(&http).expect("a policy"));
    assert_eq!((ask("weir:8080").await, ask("evil.example").await), (200, 421));
}

#[tokio::test]
async fn the_listener_decides_which_addresses_are_its_own() {
    let api = TestApi::new();
    let listener =
        ReachedListener { address: "203.0.113.9".parse().expect("an address"), is_exposed: true, endpoint: None };
    for (host, status) in [("203.0.113.9:8080", 200), ("192.168.1.5", 200), ("8.8.8.8", 421), ("evil.example", 421)] {
        let request = Request::get("/healthz").header("host", host).extension(listener.clone());
        let answer = api.ask_as_it_is(request.body(Body::empty()).expect("a request")).await;
        assert_eq!(answer.status, status, "{host}");
    }
}

#[tokio::test]
async fn a_token_makes_the_host_not_matter() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("tokens");
    let (token, secret) = ApiToken::create("reader", TokenRole::Read, None).expect("a token");
    tokens::add(&path, &token).expect("a file");
    let mut config = Config::default();
    config.http.auth.tokens = Some(path);
    for anonymous in [false, true] {
        config.http.allow_anonymous = Some(anonymous);
        let api = TestApi::with(config.clone());
        let bearer = format!("Bearer {secret}");
        let with = [("host", "weir.example"), ("authorization", &bearer)];
        assert_eq!(ask(&api, "GET", "/api/v1/status", &with).await.status, 200);
        let without = ask(&api, "GET", "/api/v1/status", &[("host", "weir.example")]).await.status;
        assert_eq!(without, if anonymous { 421 } else { 401 });
        assert_eq!(ask(&api, "GET", "/healthz", &with).await.status, 421, "health needs no token");
    }
}

/// MQTT over WebSocket: a page has no credentials of MQTT either.
#[tokio::test]
async fn mqtt_with_credentials_may_be_reached_by_any_name() {
    let api = TestApi::new();
    let asked = async || ask(&api, "GET", "/mqtt", &[("host", "weir.example")]).await.status.as_u16();
    assert_eq!(asked().await, 421);
    let policy = HttpPolicy::load(&Config::default().http).expect("a policy");
    api.access.replace(policy.with_mqtt_credentials(true));
    assert_eq!(asked().await, 426, "the handshake is looked at");
}

/// Pages of other sites can send these without asking first.
#[tokio::test]
async fn forms_and_texts_change_nothing() {
    let api = TestApi::new();
    let post = async |path: &str, kinds: &[&str], body: &'static str| {
        let request = kinds.iter().fold(Request::post(path), |request, kind| request.header("content-type", *kind));
        api.ask(request.body(Body::from(body)).expect("a request")).await
    };
    for path in ["/api/v1/savepoints", "/api/v1/errors/replay", "/api/v1/errors/0/replay", "/api/v1/status", "/nothing"]
    {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/plain; application/json",
            "application/jsonx",
            "",
        ] {
            for body in ["", "{}"] {
                post(path, &[kind], body).await.is_problem(415, "Content-Type: application/json");
            }
        }
        post(path, &["application/json", "text/plain"], "{}").await.is_problem(415, "application/json");
        post(path, &[], "{}").await.is_problem(415, "application/json");
        assert_ne!(post(path, &[], "").await.status, 415, "{path}");
        assert_ne!(post(path, &["Application/JSON; charset=utf-8"], "{}").await.status, 415, "{path}");
    }
}
