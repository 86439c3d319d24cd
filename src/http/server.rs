//! The HTTP server: its listeners, and the upkeep that comes once a second.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::admission::{self, PendingConnections};
use crate::config;
use crate::http::connections::HttpConnections;
use crate::http::router::router;
use crate::http::state::ApiState;
use crate::telemetry::recorder;
use crate::tls::TlsEndpoint;

/// Time between samples of the rates and rounds of the recorder's upkeep.
const TICK: Duration = Duration::from_secs(1);

/// The HTTP address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {error}; is another weir running, or the port taken?")]
pub struct BindError {
    key: &'static str,
    address: SocketAddr,
    error: io::Error,
}

/// An HTTP server that listens. Requests wait in the kernel until [`HttpServer::run`].
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    /// Listener, address and certificate of `http.tls.listen`.
    secure: Option<(TcpListener, SocketAddr, Arc<TlsEndpoint>)>,
    state: ApiState,
}

fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let bind = || {
        let listener = admission::listen(address)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(|error| BindError { key, address, error })
}

impl HttpServer {
    /// Listens on `http.listen`.
    ///
    /// # Errors
    /// The address is taken or not one of this machine.
    pub async fn bind(config: &config::HttpConfig, state: ApiState) -> Result<Self, BindError> {
        let (listener, address) = bind("http.listen", config.listen)?;
        Ok(Self { listener, address, secure: None, state })
    }

    /// Listens on `address` with TLS too.
    ///
    /// # Errors
    /// The address is taken or not one of this machine.
    pub async fn with_tls(mut self, address: SocketAddr, endpoint: Arc<TlsEndpoint>) -> Result<Self, BindError> {
        let (listener, address) = bind("http.tls.listen", address)?;
        self.secure = Some((listener, address, endpoint));
        Ok(self)
    }

    /// The address that the server listens on with TLS.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.secure.as_ref().map(|(_, address, _)| *address)
    }

    /// The address that the server listens on, with the port that the system chose where `http.listen` says 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `cancel`, then ends streams, lets open requests finish for a few seconds and returns.
    pub async fn run(self, cancel: CancellationToken) {
        let mqtt = self.state.resources.mqtt_admission.as_ref();
        let own = || PendingConnections::new("bytes", config::LimitsConfig::default().pending_bytes);
        let pending_bytes = mqtt.map_or_else(own, |mqtt| Arc::clone(mqtt.pending_bytes()));
        let connections = HttpConnections::new(router(self.state.clone()), self.state.closing.clone(), pending_bytes);
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let upkeep = async {
            loop {
                let now = tick.tick().await;
                self.state.sample(now.into_std());
                recorder::upkeep();
            }
        };
        let secure = async {
            match &self.secure {
                Some((listener, _, endpoint)) => connections.accept_all(listener, Some(endpoint)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            // The other branches never end.
            () = upkeep => {}
            () = connections.accept_all(&self.listener, None) => {}
            () = secure => {}
        }
        drop((self.listener, self.secure));
        connections.close().await;
    }
}
