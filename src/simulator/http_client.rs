//! A small HTTP client: GET and POST over TCP, one connection per request, bounded in time and bytes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time for one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest body taken.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection could not be opened.
    #[error("nothing answers at http://{authority} ({source}): start weir, or give its address")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// The failure.
        source: std::io::Error,
    },
    /// The connection ended or what came is not HTTP.
    #[error("no valid answer from http://{authority}{path}: {source}")]
    Broken {
        /// Host and port.
        authority: String,
        /// Path and query.
        path: String,
        /// The failure.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("no answer from http://{authority}{path} within 30 s")]
    TooSlow {
        /// Host and port.
        authority: String,
        /// Path and query.
        path: String,
    },
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// Host and port of an `http://` URL without a path.
pub fn authority(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("http://")?.trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':')?;
    (!host.is_empty() && !authority.contains(['/', '?', '#', '@']) && port.parse::<u16>().is_ok()).then_some(authority)
}

/// Asks `http://{authority}{path}`.
///
/// # Errors
/// [`HttpError`] when there is no whole answer within 30 seconds. A status other than 200 is an answer.
pub async fn get(authority: &str, path: &str) -> Result<Response, HttpError> {
    request(Method::GET, authority, path, Bytes::new()).await
}

/// Sends a JSON body, or an empty one, to `http://{authority}{path}`.
///
/// # Errors
/// As [`get`].
pub async fn post(authority: &str, path: &str, json: Bytes) -> Result<Response, HttpError> {
    request(Method::POST, authority, path, json).await
}

async fn request(method: Method, authority: &str, path: &str, body: Bytes) -> Result<Response, HttpError> {
    match timeout(TIMEOUT, exchange(method, authority, path, body)).await {
        Ok(result) => result,
        Err(_) => Err(HttpError::TooSlow { authority: authority.to_owned(), path: path.to_owned() }),
    }
}

async fn exchange(method: Method, authority: &str, path: &str, body: Bytes) -> Result<Response, HttpError> {
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| HttpError::Broken {
        authority: authority.to_owned(),
        path: path.to_owned(),
        source,
    };
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|source| HttpError::Unreachable { authority: authority.to_owned(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.into()))?;
    let mut request = Request::builder().method(method).uri(path);
    request = request.header(HOST, authority).header(ACCEPT, "application/json, text/plain");
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(body)).map_err(|error| broken(error.into()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await.map_err(broken)?.to_bytes();
        Ok(Response { status, body })
    };
    tokio::pin!(answer);
    // The connection makes progress only while it is polled; it may end before the last of the body was taken.
    tokio::select! {
        response = &mut answer => response,
        _ = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one request with `answer` and returns what the client made of it, and the request.
    async fn check(answer: &'static str) -> (Result<Response, HttpError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1_024];
            let read = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        };
        tokio::join!(get(&authority, "/a?b=c"), server)
    }

    #[tokio::test]
    async fn takes_the_whole_body() {
        let (response, request) = check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(response.unwrap(), Response { status: 200, body: Bytes::from_static(b"hello") });
        assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{request}");
    }

    #[tokio::test]
    async fn takes_chunks_and_bodies_that_end_with_the_connection() {
        let chunks = "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(check(chunks).await.0.unwrap(), Response { status: 503, body: Bytes::from_static(b"abcde") });
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
        let authority = listener.local_addr().unwrap().to_string();
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
        let (response, request) = tokio::join!(post(&authority, "/a", Bytes::from_static(b"{\"a\":1}")), server);
        assert_eq!(response.unwrap(), Response { status: 409, body: Bytes::from_static(b"no") });
        assert!(request.starts_with("POST /a HTTP/1.1\r\n"), "{request}");
        assert!(request.to_ascii_lowercase().contains("content-type: application/json\r\n"), "{request}");
    }

    #[tokio::test]
    async fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(matches!(get(&authority, "/").await, Err(HttpError::Unreachable { .. })));
    }

    #[test]
    fn urls() {
        assert_eq!(authority("http://127.0.0.1:8080"), Some("127.0.0.1:8080"));
        assert_eq!(authority("http://[::1]:80/"), Some("[::1]:80"));
        for wrong in ["127.0.0.1:80", "https://a:1", "http://a", "http://a:1/b", "http://:1", "http://a:b"] {
            assert_eq!(authority(wrong), None, "{wrong}");
        }
    }
}
