//! Tokens of the HTTP API: made by the command line, required by a real weir, sent by real clients.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use rustix::process::Signal;
use rustls::version::TLS13;

use crate::WEIR;
use weir_test_kit::certificates::CertificateAuthority;
use weir_test_kit::http;
use weir_test_kit::mqtt::{MqttVersion, TestClient};
use weir_test_kit::process::Weir;
use weir_test_kit::programs::{Prometheus, program, succeeded};
use weir_test_kit::wait::{DEADLINE, wait_for};

/// Relative to the directory of the test, where every command of weir runs.
const TOKENS: (&str, &str) = ("http.auth.tokens", "'tokens'");

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn weir_does(weir: &Weir, arguments: &[&str]) -> Output {
    weir.command(arguments).output().expect("weir can be started")
}

/// A new token's secret.
#[track_caller]
fn add(weir: &Weir, name: &str, role: &str) -> String {
    let output = weir_does(weir, &["token", "add", name, "--role", role]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[track_caller]
fn fails(output: &Output, code: i32, part: &str) {
    let said = text(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(part), "{part:?} is not in {said}");
}

/// A running weir that asks for tokens, one of each role, and further settings.
fn guarded(settings: &[(&str, &str)]) -> (Weir, String, String) {
    let mut all = vec![TOKENS];
    all.extend_from_slice(settings);
    let mut weir = WEIR.prepare(&all);
    let (read, operate) = (add(&weir, "reader", "read"), add(&weir, "operator", "operate"));
    weir.restart();
    (weir, read, operate)
}

fn status(weir: &Weir, method: &str, path: &str, token: Option<&str>) -> u16 {
    http::ask(weir.http(), method, path, token).status
}

#[test]
fn the_life_of_a_token_on_the_command_line() {
    let weir = WEIR.prepare(&[TOKENS]);
    let file = weir.path("tokens");
    fails(&weir_does(&weir, &["check"]), 78, "http.auth.tokens: cannot open tokens: No such file");
    fails(&weir_does(&weir, &["token", "list"]), 78, "cannot open tokens");
    let secret = add(&weir, "panel", "read");
    assert!(secret.starts_with("weir_") && secret.len() == 48, "{secret}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&file).expect("text").contains(&secret[5..]));
    assert_ne!(add(&weir, "pager", "operate"), secret);
    fails(
        &weir_does(&weir, &["token", "add", "panel", "--role", "read"]),
        1,
        "there is a token panel in tokens already",
    );
    fails(&weir_does(&weir, &["token", "add", "a b", "--role", "read"]), 1, "cannot be the name of a token");
    fails(&weir_does(&weir, &["token", "add", "x", "--role", "admin"]), 64, "give read or operate");
    fails(&weir_does(&weir, &["token", "add", "x", "--role", "read", "--expires", "9999999d"]), 1, "too long");
    let brief = weir_does(&weir, &["token", "add", "brief", "--role", "read", "--expires", "0s"]);
    fails(&brief, 0, "brief may read until 20");
    let listed = text(&weir_does(&weir, &["token", "list"]));
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[..3], [["name", "role", "expires"], ["panel", "read", "never"], ["pager", "operate", "never"]]);
    assert!(rows[3][0] == "brief" && rows[3][3] == "(expired)", "{listed}");
    fails(&weir_does(&weir, &["check"]), 0, "ok");
    fails(&weir_does(&weir, &["token", "remove", "nobody"]), 1, "there is no token nobody in tokens");
    for name in ["panel", "pager", "brief"] {
        fails(&weir_does(&weir, &["token", "remove", name]), 0, &format!("removed {name}"));
    }
    fails(&weir_does(&weir, &["token", "list"]), 0, "no tokens in tokens");
    fails(&weir_does(&weir, &["check"]), 0, "warning: tokens: there are no tokens, so nobody can use the API");
    let other = ["token", "add", "panel", "--role", "read", "--file", "other"];
    fails(&weir_does(&weir, &other), 0, "does not name other in http.auth.tokens");
    fs::write(&file, "panel:read\n\nx:admin:00\n").expect("a file");
    let broken = weir_does(&weir, &["check"]);
    fails(&broken, 78, "http.auth.tokens: tokens:1: this is not a token");
    fails(&broken, 78, "http.auth.tokens: tokens:3: the second field is not a role");
    fails(&weir_does(&weir, &["run"]), 78, "tokens:1: this is not a token");
    let without = WEIR.prepare(&[]);
    fails(&weir_does(&without, &["token", "list"]), 1, "name one with --file");
}

#[test]
fn an_open_listener_must_ask_for_tokens_or_say_that_it_does_not() {
    let check = |settings: &[(&str, &str)], code, part: &str| {
        // MQTT over WebSocket comes through these listeners too.
        let weir = WEIR.prepare(&[settings, &[("mqtt.allow_anonymous", "true")]].concat());
        fs::write(weir.path("tokens"), "").expect("a file");
        fails(&weir_does(&weir, &["check"]), code, part);
        if code != 0 {
            fails(&weir_does(&weir, &["run"]), code, part);
        }
    };
    let open = ("http.listen", "'0.0.0.0:8080'");
    check(&[open], 78, "http.listen: 0.0.0.0:8080 can be reached from other machines and requests need no token");
    check(&[open, ("http.allow_anonymous", "'auto'")], 78, "config.toml:");
    check(&[("http.allow_anonymous", "false")], 78, "nobody could use the API");
    let said = "warning: http.listen: whoever reaches 0.0.0.0:8080 may use the HTTP API without a token";
    check(&[open, ("http.allow_anonymous", "true")], 0, said);
    check(&[open, TOKENS], 0, "warning: http.listen: tokens reach 0.0.0.0:8080 unencrypted");
}

#[test]
fn roles_decide_and_everything_is_on_record() {
    let (weir, read, operate) = guarded(&[]);
    let ask = |method, path, token| status(&weir, method, path, token);
    assert_eq!(ask("GET", "/healthz", None), 200);
    assert_eq!([None, Some("weir_wrong")].map(|token| ask("GET", "/api/v1/status", token)), [401, 401]);
    assert_eq!(ask("GET", "/metrics", None), 401);
    assert_eq!(ask("GET", "/api/v1/status", Some(&read)), 200);
    assert_eq!(ask("POST", "/api/v1/savepoints", Some(&read)), 403);
    let refused = http::ask(weir.http(), "POST", "/api/v1/savepoints?x=weir_in_a_query", Some(&read));
    assert_eq!(
        refused.header("www-authenticate"),
        "Bearer realm=\"weir\", error=\"insufficient_scope\", scope=\"operate\""
    );
    assert!(
        refused.text().contains("the token reader has the role read, and this needs operate"),
        "{}",
        refused.text()
    );
    let mut device = TestClient::connect(weir.mqtt(), MqttVersion::V4, "d");
    device.telemetry("d", "not a reading");
    wait_for("the error is there", || (ask("GET", "/api/v1/errors/0", Some(&read)) == 200).then_some(()));
    assert_eq!(ask("POST", "/api/v1/savepoints", Some(&operate)), 201);
    wait_for("the error is replayed", || (ask("POST", "/api/v1/errors/0/replay", Some(&operate)) == 200).then_some(()));
    let shown = http::ask(weir.http(), "GET", "/metrics", Some(&read)).ok().text();
    for (reason, count) in [("missing", 2), ("invalid", 1), ("scope", 2)] {
        let sample = format!("weir_http_refused_total{{reason=\"{reason}\"}} {count}");
        assert!(shown.contains(&sample), "{sample} is not in\n{shown}");
    }
    let log = weir.output();
    let line = |parts: &[&str]| {
        assert!(log.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} is not in\n{log}");
    };
    line(&["http_refused", "127.0.0.1", "GET /api/v1/status", "needs a token"]);
    line(&["http_refused", "reader", "POST /api/v1/savepoints", "this needs operate"]);
    line(&["admin_action", "operator", "127.0.0.1", "savepoint created savepoint-"]);
    line(&["admin_action", "operator", "error replayed 0"]);
    for secret in [&read[5..], &operate[5..], "wrong", "in_a_query"] {
        assert!(!log.contains(secret), "the log holds a secret:\n{log}");
    }
}

/// A stream of events, opened with a token.
fn stream(address: SocketAddr, token: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream.write_all(http::bearer_head(address, "GET", "/api/v1/stream", Some(token)).as_bytes()).expect("it is sent");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    reader
}

/// Waits until the server ends the stream; skips its keep-alive comments.
#[track_caller]
fn wait_end(mut stream: BufReader<TcpStream>) {
    wait_for("the stream ends", || {
        let read = stream.read(&mut [0; 1_024]).expect("the stream goes on or ends");
        (read == 0).then_some(())
    });
}

#[test]
fn tokens_come_and_go_under_a_running_weir() {
    let (weir, read, operate) = guarded(&[]);
    let ask = |token: &str| status(&weir, "GET", "/api/v1/status", Some(token));
    let (ends, _goes_on) = (stream(weir.http(), &read), stream(weir.http(), &operate));
    let new = add(&weir, "new", "read");
    fails(&weir_does(&weir, &["token", "remove", "reader"]), 0, "removed reader");
    assert_eq!((ask(&new), ask(&read)), (401, 200), "nothing changes before SIGHUP");
    weir.signal(Signal::HUP);
    wait_for("the new token is taken", || (ask(&new) == 200).then_some(()));
    assert_eq!(ask(&read), 401);
    wait_end(ends);
    let clients = || {
        let shown = http::ask(weir.http(), "GET", "/metrics", Some(&new)).ok().text();
        shown.contains("weir_http_stream_clients 1\n").then_some(())
    };
    wait_for("the other stream goes on", clients);
    // A file that cannot be used changes nothing.
    let good = fs::read_to_string(weir.path("tokens")).expect("text");
    fs::write(weir.path("tokens"), "nonsense\n").expect("a file");
    weir.signal(Signal::HUP);
    wait_for("the fault is told", || weir.output().contains("tokens:1: this is not a token").then_some(()));
    assert_eq!((ask(&new), ask(&read)), (200, 401));
    fs::write(
        weir.path("tokens"),
        good.lines().filter(|line| !line.starts_with("new:")).collect::<Vec<_>>().join("\n"),
    )
    .expect("a file");
    weir.signal(Signal::HUP);
    wait_for("the right file is taken", || (ask(&new) == 401).then_some(()));
    assert_eq!(ask(&operate), 200);
}

#[test]
fn tokens_are_asked_for_from_a_reload_on() {
    let weir = WEIR.start(&[]);
    let ask = |token: Option<&str>| status(&weir, "GET", "/api/v1/status", token);
    let open = stream(weir.http(), "of nobody");
    assert_eq!(ask(None), 200);
    weir.configure(&[TOKENS, ("http.auth.metrics", "'open'")]);
    let secret = add(&weir, "panel", "read");
    weir.signal(Signal::HUP);
    wait_for("tokens are asked for", || (ask(None) == 401).then_some(()));
    assert_eq!(ask(Some(&secret)), 200);
    assert_eq!(status(&weir, "GET", "/metrics", None), 200);
    wait_end(open);
    weir.configure(&[]);
    weir.signal(Signal::HUP);
    wait_for("they are not asked for any more", || (ask(None) == 200).then_some(()));
}

#[test]
fn tls_asks_for_tokens_too_and_websocket_does_not() {
    let authority = CertificateAuthority::create();
    authority.issue("server", "box", 2099);
    let (cert, key) = (authority.toml("server.pem"), authority.toml("server.key"));
    let tls = [("http.tls.listen", "'127.0.0.1:0'"), ("http.tls.cert", &*cert), ("http.tls.key", &*key)];
    let (weir, read, operate) = guarded(&tls);
    let ask = |method: &str, path: &str, token: Option<&str>| {
        let mut stream = authority.connect(weir.https(), None, &[&TLS13]).expect("a TLS connection");
        stream.write_all(http::bearer_head(weir.https(), method, path, token).as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer and its end");
        answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).expect("a status")
    };
    assert_eq!([None, Some(&*read)].map(|token| ask("GET", "/api/v1/status", token)), [401, 200]);
    assert_eq!([&*read, &*operate].map(|token| ask("POST", "/api/v1/savepoints", Some(token))), [403, 201]);
    assert_eq!(status(&weir, "GET", "/mqtt", None), 426, "the handshake is wrong, not the token");
    // curl reads the token from a file: other users can see arguments.
    fs::write(weir.path("curl"), format!("header = \"Authorization: Bearer {read}\"\n")).expect("a file");
    let url = format!("https://localhost:{}/api/v1/status", weir.https().port());
    let mut curl = program("curl");
    curl.args(["--silent", "--show-error", "--fail", "--ipv4", "--cacert"]).arg(authority.path("ca.pem"));
    succeeded(curl.arg("--config").arg(weir.path("curl")).arg(&url));
    // weir's own commands.
    fs::write(weir.path("token"), format!("{operate}\n")).expect("a file");
    let (url, ca) = (url.replace("/api/v1/status", ""), authority.path("ca.pem").display().to_string());
    let secure = ["--url", &url, "--ca", &ca, "--token-file", "token"];
    let with = |command: &[&str]| weir_does(&weir, &[command, &secure[..]].concat());
    fails(&with(&["savepoint", "create"]), 0, "savepoint-");
    fails(&with(&["errors", "list"]), 0, "");
    fails(&with(&["health", "--ready"]), 0, "ok");
    fails(&weir_does(&weir, &["errors", "list", "--url", &url]), 1, "needs --ca FILE");
    let stranger = CertificateAuthority::create();
    let ca = stranger.path("ca.pem").display().to_string();
    fails(
        &weir_does(&weir, &["errors", "list", "--url", &url, "--ca", &ca]),
        1,
        "no TLS connection to https://localhost",
    );
}

#[test]
fn commands_take_the_token_and_say_what_is_missing() {
    let (mut weir, read, operate) = guarded(&[("window.idle_timeout", "'1s'")]);
    let url = format!("http://{}", weir.http());
    fs::write(weir.path("read"), format!("{read}\n")).expect("a file");
    fs::write(weir.path("empty"), "\n").expect("a file");
    let errors = ["errors", "list", "--url", &url];
    let with = |command: &[&str], file: &str| weir_does(&weir, &[command, &["--token-file", file]].concat());
    fails(&weir_does(&weir, &errors), 1, "give a token with --token-file FILE or in the variable WEIR_TOKEN");
    fails(&with(&errors, "read"), 0, "");
    fails(&with(&errors, "empty"), 1, "empty does not hold a token");
    fails(&with(&errors, "nowhere"), 1, "cannot open nowhere");
    let create = ["savepoint", "create"];
    fails(&weir_does(&weir, &create), 1, "give a token with --token-file");
    fails(&with(&create, "read"), 1, "the token reader has the role read, and this needs operate");
    fails(&weir_does(&weir, &["health", "--url", &url]), 0, "ok");
    let mqtt = weir.mqtt().to_string();
    let simulate = ["simulate", "--verify", "--address", &mqtt, "--http", &url, "--devices", "2", "--messages", "20"];
    let simulate = [&simulate[..], &["--interval", "5ms"]].concat();
    fails(&with(&simulate, "nowhere"), 1, "cannot open nowhere");
    fails(&with(&simulate, "read"), 0, "every window is right");
    weir.environment("WEIR_TOKEN", &operate);
    fails(&weir_does(&weir, &create), 0, "savepoint-");
    fails(&weir_does(&weir, &errors), 0, "");
    fails(&weir_does(&weir, &["token", "remove", "operator"]), 0, "removed");
    weir.signal(Signal::HUP);
    wait_for("the token is not accepted", || {
        text(&weir_does(&weir, &errors)).contains("WEIR_TOKEN is not accepted").then_some(())
    });
    assert!(!weir.output().contains(&operate[5..]) && !weir.output().contains(&read[5..]), "{}", weir.output());
}

/// The example of docs/metrics.md, with this test's addresses and files in it.
#[test]
fn prometheus_scrapes_with_a_token() {
    let authority = CertificateAuthority::create();
    authority.issue("server", "box", 2099);
    let (cert, key) = (authority.toml("server.pem"), authority.toml("server.key"));
    let tls = [("http.tls.listen", "'127.0.0.1:0'"), ("http.tls.cert", &*cert), ("http.tls.key", &*key)];
    let (weir, read, _) = guarded(&tls);
    fs::write(weir.path("prometheus"), &read).expect("a file");
    let manual = include_str!("../../../docs/metrics.md");
    let examples = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let example = examples.filter(|text| text.contains("credentials_file")).collect::<String>();
    let example = example
        .replace("/etc/prometheus/weir-ca.pem", &authority.path("ca.pem").display().to_string())
        .replace("/etc/prometheus/weir-token", &weir.path("prometheus").display().to_string())
        .replace("box.example:8443", &format!("localhost:{}", weir.https().port()));
    let without = format!("  - job_name: without\n    static_configs: [{{ targets: ['{}'] }}]\n", weir.http());
    let prometheus = Prometheus::start(&format!("{example}{without}"));
    prometheus.wait_value("up{job=\"weir\"}", "1");
    prometheus.wait_value("weir_readings_unaccounted{job=\"weir\"}", "0");
    prometheus.wait_value("up{job=\"without\"}", "0");
}
