//! `[http]`, `[http.auth]` and `[http.tls]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::tls::TlsFiles;
use crate::config::host_pattern::HostPattern;

/// The HTTP server.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Address of the HTTP listener.
    pub listen: SocketAddr,
    /// Whether requests need no token; `None`: see [`HttpConfig::allows_anonymous`].
    pub allow_anonymous: Option<bool>,
    /// Hosts, besides weir's own, that requests without a token may name.
    pub allowed_hosts: Vec<HostPattern>,
    /// Largest number of series in /metrics/devices.
    pub metrics_max_series: usize,
    /// A series is left out of /metrics/devices this long after the end of its last window.
    pub metrics_series_ttl_ms: i64,
    /// Web origins, besides the server's own, whose pages may open MQTT over WebSocket; `*`: all origins.
    pub websocket_origins: Vec<String>,
    /// `[http.auth]`
    pub auth: HttpAuthConfig,
    /// `[http.tls]`
    pub tls: HttpTlsConfig,
}

impl HttpConfig {
    /// Whether requests need no token: as configured, else if no tokens file is configured.
    pub fn allows_anonymous(&self) -> bool {
        self.allow_anonymous.unwrap_or(self.auth.tokens.is_none())
    }

    /// The listeners that other machines can reach, each with its key.
    pub fn exposed(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let listeners = [("http.listen", Some(self.listen)), ("http.tls.listen", self.tls.listen)];
        let exposed = |(key, address): (_, Option<SocketAddr>)| Some((key, address?));
        listeners.into_iter().filter_map(exposed).filter(|(_, address)| !address.ip().is_loopback())
    }

    /// The listeners that other machines can reach without a token although `allow_anonymous` is not set.
    pub fn open_by_accident(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let accident = self.allow_anonymous.is_none() && self.allows_anonymous();
        self.exposed().filter(move |_| accident)
    }
}

/// The tokens of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpAuthConfig {
    /// The tokens file; `None`: there are no tokens.
    pub tokens: Option<PathBuf>,
    /// Whether metrics need a token.
    pub metrics: MetricsAccess,
}

/// Whether `/metrics` and `/metrics/devices` need a token where the API does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricsAccess {
    /// They need a token if the API does.
    #[default]
    Token,
    /// They need no token.
    Open,
}

/// HTTP over TLS.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpTlsConfig {
    /// Address of the listener; `None`: there is no such listener.
    pub listen: Option<SocketAddr>,
    /// Certificate and key of the listener.
    pub files: TlsFiles,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allow_anonymous: None,
            allowed_hosts: Vec::new(),
            metrics_max_series: 10_000,
            metrics_series_ttl_ms: 300_000,
            websocket_origins: Vec::new(),
            auth: HttpAuthConfig::default(),
            tls: HttpTlsConfig::default(),
        }
    }
}
