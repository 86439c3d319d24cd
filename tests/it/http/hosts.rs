//! Foreign names and pages, over the sockets of a running weir.

use std::net::TcpStream;

use rustls::version::TLS13;
use weir_test_kit::certificates::CertificateAuthority;
use weir_test_kit::process::Weir;
use weir_test_kit::wait::wait_for;

use crate::WEIR;

/// Sends the text over a connection of its own and returns the status line.
fn status_of(mut stream: impl std::io::Read + std::io::Write, text: &str) -> String {
    stream.write_all(text.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and its end");
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn ask(weir: &Weir, text: &str) -> String {
    status_of(TcpStream::connect(weir.http()).expect("a listener"), text)
}

fn get(weir: &Weir, path: &str, host: &str) -> String {
    ask(weir, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

#[test]
fn a_page_that_lets_its_own_name_resolve_to_weir_reads_and_changes_nothing() {
    let weir = WEIR.start(&[]);
    for path in ["/", "/healthz", "/metrics", "/metrics/devices", "/api/v1/status", "/api/v1/stream", "/mqtt"] {
        assert_eq!(get(&weir, path, "evil.example:8080"), "421", "{path}");
    }
    let savepoints = || weir.json("/api/v1/savepoints")["savepoints"].as_array().map_or(0, Vec::len);
    let before = savepoints();
    for header in ["Origin: http://evil.example:8080", "Sec-Fetch-Site: same-origin", "X-Nothing: 1"] {
        let post = format!(
            "POST /api/v1/savepoints HTTP/1.1\r\nHost: evil.example:8080\r\n{header}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        assert_eq!(ask(&weir, &post), "421", "{header}");
    }
    let text = "POST /api/v1/savepoints HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\
                Connection: close\r\n\r\nx";
    assert_eq!(ask(&weir, text), "415");
    assert_eq!(savepoints(), before);
    assert!(weir.metric_sum("weir_http_refused_total") >= 10.0);
}

#[test]
fn each_request_names_one_host() {
    let weir = WEIR.start(&[]);
    let ask = |head: &str| ask(&weir, &format!("GET {head}\r\nConnection: close\r\n\r\n"));
    assert_eq!(ask("/healthz HTTP/1.1"), "400");
    assert_eq!(ask("/healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost"), "400");
    assert_eq!(ask("/healthz HTTP/1.1\r\nHost:"), "400");
    assert_eq!(ask("/healthz HTTP/1.1\r\nHost: a@localhost"), "400");
    assert_eq!(ask("http://evil.example/healthz HTTP/1.1\r\nHost: localhost"), "421");
    assert_eq!(ask("http://localhost/healthz HTTP/1.1\r\nHost: evil.example"), "200");
    assert_eq!(ask("/healthz HTTP/1.0"), "200", "no browser speaks HTTP/1.0");
}

#[test]
fn a_reload_takes_allowed_hosts() {
    let weir = WEIR.start(&[]);
    assert_eq!(get(&weir, "/metrics", "weir:8080"), "421");
    weir.configure(&[("http.allowed_hosts", "['weir', '*.plant.example']")]);
    weir.signal(rustix::process::Signal::HUP);
    wait_for("the list is read again", || (get(&weir, "/metrics", "weir:8080") == "200").then_some(()));
    assert_eq!(get(&weir, "/metrics", "a.plant.example"), "200");
    assert_eq!(get(&weir, "/metrics", "evil.example"), "421");
}

#[test]
fn the_tls_listener_knows_the_names_of_its_certificate() {
    let authority = CertificateAuthority::create();
    let weir = crate::tls::listeners::start(&authority, &[]);
    let get = |host: &str| {
        let stream = authority.connect(weir.https(), None, &[&TLS13]).expect("a TLS connection");
        status_of(stream, &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!((get("localhost"), get("evil.example")), ("200".into(), "421".into()));
}

/// The body is never sent: the answer must not wait for it.
#[test]
fn a_request_that_is_refused_anyhow_is_answered_before_its_body() {
    let weir = WEIR.start(&[]);
    let own = weir.http().to_string();
    let post = |path: &str, host: &str, kind: &str, length: u64| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        ask(&weir, &head)
    };
    let json = "application/json";
    assert_eq!(post("/api/v1/errors/replay", "evil.example", json, 60_000), "421");
    assert_eq!(post("/api/v1/errors/replay", &own, "text/plain", 60_000), "415");
    assert_eq!(post("/api/v1/errors/replay", &own, json, 70_000), "413");
    assert_eq!(post("/api/v1/status", &own, json, 60_000), "405");
    assert_eq!(post("/nothing", &own, json, 60_000), "404");
}
