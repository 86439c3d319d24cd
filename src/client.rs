//! The client of weir's HTTP API for commands and the simulator: GET and POST over TCP or TLS, one connection per
//! request, bounded in time and bytes.

mod arguments;
mod events;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::Config;
use crate::tls::{TlsError, trusting};

pub use arguments::ApiArguments;

/// Longest time of one request, from the connection to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest body of an answer.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Why a client cannot be built from the command line.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The text is not a URL.
    #[error("{0} is not a URL of the form http://HOST:PORT or https://HOST:PORT")]
    Url(String),
    /// An https:// URL without --ca.
    #[error(
        "{0} needs --ca FILE: a PEM file with the certificate authorities to trust, such as /etc/ssl/certs/ca-certificates.crt"
    )]
    NoCa(String),
    /// The file of certificate authorities cannot be used.
    #[error(transparent)]
    Ca(#[from] TlsError),
    /// The token cannot be used. The sentence names the source of the token and never the token itself.
    #[error("{0}")]
    Token(String),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The connection could not be opened.
    #[error("nothing answers at {base} ({source}): start weir, or give its address")]
    Unreachable {
        /// Scheme, host and port.
        base: String,
        /// The failure.
        source: std::io::Error,
    },
    /// The server does not speak TLS, or its certificate is not trusted.
    #[error("no TLS connection to {base}: {source}; --ca names the certificate authorities to trust")]
    Untrusted {
        /// Scheme, host and port.
        base: String,
        /// The failure.
        source: std::io::Error,
    },
    /// The connection ended early, or the answer is not HTTP.
    #[error("no valid answer from {base}{path}: {source}")]
    Broken {
        /// Scheme, host and port.
        base: String,
        /// Path and query.
        path: String,
        /// The failure.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There was no whole answer in time.
    #[error("no answer from {base}{path} within 30 s")]
    TooSlow {
        /// Scheme, host and port.
        base: String,
        /// Path and query.
        path: String,
    },
}

/// An answer with any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// The part of a problem document [RFC 9457] that people read.
#[derive(Default, Deserialize)]
struct ProblemDetail {
    detail: Option<String>,
}

impl HttpResponse {
    /// The reason that weir gives in a problem document.
    pub fn detail(&self) -> String {
        let problem: ProblemDetail = serde_json::from_slice(&self.body).unwrap_or_default();
        problem.detail.unwrap_or_else(|| "no reason given; is it a weir?".to_owned())
    }
}

/// Splits an `http://` or `https://` URL without a path: whether it has TLS, and its host and port. `None` for any
/// other text.
pub fn split(url: &str) -> Option<(bool, &str)> {
    let (secure, rest) = match url.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("http://")?),
    };
    let authority = rest.trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':')?;
    let plain = !host.is_empty() && !authority.contains(['/', '?', '#', '@']) && port.parse::<u16>().is_ok();
    plain.then_some((secure, authority))
}

/// The address at which this machine reaches a listener that is bound to `bound`. A listener on all addresses (`0.0.0.0`,
/// `[::]`) is reached through 127.0.0.1: a socket bound to `[::]` takes IPv4 connections too, and many containers have no
/// IPv6 loopback address.
pub fn reachable(bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, bound.port()).into() } else { bound }
}

/// The base URL `named` on the command line, else the URL of the HTTP listener of `config` on this machine.
pub fn base_url(named: Option<&str>, config: &Config) -> String {
    named.map_or_else(|| format!("http://{}", reachable(config.http.listen)), str::to_owned)
}

/// `text` as part of a query: every byte is escaped except the unreserved ones [RFC 3986 section 2.3].
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A client of the HTTP API at one address, with the token of one caller.
#[derive(Clone)]
pub struct HttpClient {
    base: String,
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("base", &self.base).finish_non_exhaustive()
    }
}

impl HttpClient {
    /// A client of the API at `url`. Opens no connection yet.
    ///
    /// # Errors
    /// [`ClientError`] when the URL, the authorities or the token cannot be used.
    pub fn new(url: &str, arguments: &ApiArguments) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_owned());
        let (secure, authority) = split(url).ok_or_else(wrong)?;
        let tls = match (secure, &arguments.ca) {
            (false, _) => None,
            (true, None) => return Err(ClientError::NoCa(url.to_owned())),
            (true, Some(ca)) => {
                let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Some((TlsConnector::from(trusting(ca)?), ServerName::try_from(host).map_err(|_| wrong())?))
            }
        };
        let scheme = if secure { "https" } else { "http" };
        Ok(Self {
            base: format!("{scheme}://{authority}"),
            authority: authority.to_owned(),
            tls,
            authorization: arguments.authorization()?,
        })
    }

    /// Scheme, host and port.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a GET request for `path`, which may have a query.
    ///
    /// # Errors
    /// [`HttpError`] when there is no whole answer within 30 seconds. A status other than 200 is an answer.
    pub async fn get(&self, path: &str) -> Result<HttpResponse, HttpError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// Sends a POST request with a JSON body, or with an empty one.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post(&self, path: &str, json: Bytes) -> Result<HttpResponse, HttpError> {
        self.request(Method::POST, path, json).await
    }

    /// The sentence for a caller whom weir refused access: why, and which option helps. `None` for other answers.
    pub fn access_refusal(&self, response: &HttpResponse) -> Option<String> {
        let hint = match (response.status, &self.authorization) {
            (401, None) => "give a token with --token-file FILE or in the variable WEIR_TOKEN",
            (401, Some(_)) => {
                "the token of --token-file or WEIR_TOKEN is not accepted; `weir token list` shows those that are"
            }
            (403, _) => "give a token that may do this with --token-file FILE or in the variable WEIR_TOKEN",
            _ => return None,
        };
        Some(format!("{}: {}: {}. Here: {hint}", self.base, response.status, response.detail()))
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<HttpResponse, HttpError> {
        let whole = async |response: Response<Incoming>| {
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
            Ok(HttpResponse { status, body: body.map_err(|error| self.broken(path, error))?.to_bytes() })
        };
        match timeout(TIMEOUT, self.exchange(method, path, body, whole)).await {
            Ok(result) => result,
            Err(_) => Err(self.too_slow(path)),
        }
    }

    fn broken(&self, path: &str, source: Box<dyn std::error::Error + Send + Sync>) -> HttpError {
        HttpError::Broken { base: self.base.clone(), path: path.to_owned(), source }
    }

    fn too_slow(&self, path: &str) -> HttpError {
        HttpError::TooSlow { base: self.base.clone(), path: path.to_owned() }
    }

    /// Sends a request, and lets `read` read the answer.
    async fn exchange<T>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, HttpError>,
    ) -> Result<T, HttpError> {
        let base = || self.base.clone();
        let stream = TcpStream::connect(&self.authority).await;
        let stream = stream.map_err(|source| HttpError::Unreachable { base: base(), source })?;
        match &self.tls {
            None => self.ask(stream, method, path, body, read).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                let stream = stream.map_err(|source| HttpError::Untrusted { base: base(), source })?;
                self.ask(stream, method, path, body, read).await
            }
        }
    }

    async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send + 'static, T>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Bytes,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, HttpError>,
    ) -> Result<T, HttpError> {
        let broken = |source| self.broken(path, source);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.into()))?;
        let mut request = Request::builder().method(method).uri(path);
        request =
            request.header(HOST, &self.authority).header(ACCEPT, "application/json, text/plain, text/event-stream");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| broken(error.into()))?;
        let answer = async {
            let head = timeout(TIMEOUT, sender.send_request(request)).await.map_err(|_| self.too_slow(path))?;
            read(head.map_err(|error| broken(error.into()))?).await
        };
        tokio::pin!(answer);
        // The connection makes progress only while it is polled. It may end before the answer is read to its end.
        tokio::select! {
            response = &mut answer => response,
            _ = connection => answer.await,
        }
    }
}

#[cfg(test)]
mod tests;
