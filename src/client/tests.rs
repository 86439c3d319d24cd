//! Answers of every kind through a real socket, and what is said about those that are none.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn client(listener: &TcpListener) -> HttpClient {
    HttpClient::new(&format!("http://{}", listener.local_addr().unwrap()), &ApiArguments::default()).unwrap()
}

/// Answers one request with `answer` and returns what the client made of it, and the request.
async fn check(answer: &'static str) -> (Result<HttpResponse, HttpError>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&listener);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 1_024];
        let read = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    };
    tokio::join!(client.get("/a?b=c"), server)
}

#[tokio::test]
async fn takes_the_whole_body() {
    let (response, request) = check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(response.unwrap(), HttpResponse { status: 200, body: Bytes::from_static(b"hello") });
    assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
}

#[tokio::test]
async fn takes_chunks_and_bodies_that_end_with_the_connection() {
    let chunks = "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(check(chunks).await.0.unwrap(), HttpResponse { status: 503, body: Bytes::from_static(b"abcde") });
    let until_closed = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nrest";
    assert_eq!(check(until_closed).await.0.unwrap().body, "rest");
}

#[tokio::test]
async fn a_cut_answer_is_an_error() {
    let (response, _) = check("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello").await;
    assert!(matches!(response, Err(HttpError::Broken { .. })), "{response:?}");
    assert!(matches!(check("not http\r\n\r\n").await.0, Err(HttpError::Broken { .. })));
}

#[tokio::test]
async fn posts_json() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&listener);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        while !request.ends_with("{\"a\":1}") {
            let mut bytes = [0; 1_024];
            let read = stream.read(&mut bytes).await.unwrap();
            request.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        request
    };
    let (response, request) = tokio::join!(client.post("/a", Bytes::from_static(b"{\"a\":1}")), server);
    assert_eq!(response.unwrap(), HttpResponse { status: 409, body: Bytes::from_static(b"no") });
    assert!(request.starts_with("POST /a HTTP/1.1\r\n"), "{request}");
    assert!(request.to_ascii_lowercase().contains("content-type: application/json\r\n"), "{request}");
}

#[tokio::test]
async fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&listener);
    drop(listener);
    assert!(matches!(client.get("/").await, Err(HttpError::Unreachable { .. })));
}

#[test]
fn a_listener_on_all_addresses_is_reached_over_loopback() {
    let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
    assert_eq!(reached("0.0.0.0:1883"), "127.0.0.1:1883");
    assert_eq!(reached("[::]:1883"), "127.0.0.1:1883");
    assert_eq!(reached("10.1.2.3:1883"), "10.1.2.3:1883");
    let mut config = Config::default();
    config.http.listen = "[::]:81".parse().unwrap();
    assert_eq!(base_url(None, &config), "http://127.0.0.1:81");
    assert_eq!(base_url(Some("https://box:82"), &config), "https://box:82");
}

#[test]
fn urls() {
    assert_eq!(split("http://127.0.0.1:8080"), Some((false, "127.0.0.1:8080")));
    assert_eq!(split("https://[::1]:80/"), Some((true, "[::1]:80")));
    for wrong in ["127.0.0.1:80", "ftp://a:1", "http://a", "https://a:1/b", "http://:1", "http://a:b", "http://u@a:1"] {
        assert_eq!(split(wrong), None, "{wrong}");
    }
}

#[test]
fn who_is_not_let_in_is_told_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "weir_abc\n").unwrap();
    let anonymous = HttpClient::new("http://a:1", &ApiArguments::default()).unwrap();
    let arguments = ApiArguments { token_file: Some(file), ..ApiArguments::default() };
    let known = HttpClient::new("http://a:1", &arguments).unwrap();
    assert!(!format!("{known:?}").contains("abc"));
    let answer = |status| HttpResponse { status, body: Bytes::from_static(br#"{"detail":"why"}"#) };
    for (client, status, part) in [
        (&anonymous, 401, Some("--token-file")),
        (&known, 401, Some("is not accepted")),
        (&known, 403, Some("may do this")),
        (&known, 200, None),
        (&known, 503, None),
    ] {
        let said = client.access_refusal(&answer(status));
        assert_eq!(said.is_some(), part.is_some(), "{said:?}");
        let (said, part) = (said.unwrap_or_default(), part.unwrap_or_default());
        assert!(said.contains(part) && (said.is_empty() || said.contains("why")), "{said}");
    }
}

#[test]
fn https_needs_somebody_to_trust() {
    assert!(matches!(HttpClient::new("https://a:1", &ApiArguments::default()), Err(ClientError::NoCa(_))));
    let nowhere = ApiArguments { ca: Some("/nowhere/ca.pem".into()), ..ApiArguments::default() };
    let error = HttpClient::new("https://a:1", &nowhere).unwrap_err().to_string();
    assert!(error.contains("/nowhere/ca.pem: cannot be read"), "{error}");
    assert!(HttpClient::new("http://a:1", &nowhere).is_ok(), "not looked at without TLS");
}
