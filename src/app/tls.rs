//! Certificates of the TLS listeners: loaded at start, on a reload, and whenever their files change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use weir::clock::Clock;
use weir::config::Config;
use weir::mqtt::AdmissionControl;
use weir::tls::{TlsEndpoint, TlsError};

use super::reloadable::{Apply, Reloadable};

/// Time between two checks of the files. They are loaded again when two checks in a row find the same change: a file
/// that is being written changes in between.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// Largest number of TLS handshakes under way on the HTTPS listener. HTTP has few clients.
const MAX_HTTP_HANDSHAKES: usize = 128;

/// The address and the certificate of a TLS listener; `None` when the listener is off.
type SecureListener = Option<(SocketAddr, Arc<TlsEndpoint>)>;

/// The certificates of the listeners that are on.
#[derive(Clone)]
pub struct Certificates {
    pub mqtt: SecureListener,
    pub http: SecureListener,
}

impl Certificates {
    /// Loads the certificates of the listeners that are on.
    ///
    /// # Errors
    /// [`TlsError`] when a file cannot be read or used.
    pub fn load(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, TlsError> {
        let load =
            |name, files, protocols, handshakes| TlsEndpoint::load(name, files, protocols, handshakes, clock.clone());
        let (mqtt, http) = (&config.mqtt.tls, &config.http.tls);
        // Devices name an ALPN protocol of their own or none: every protocol is accepted.
        let secure_mqtt = |address| Ok((address, load("mqtt", &mqtt.files, &[], mqtt.max_handshakes)?));
        let secure_http = |address| Ok((address, load("http", &http.files, &[b"http/1.1"], MAX_HTTP_HANDSHAKES)?));
        Ok(Self { mqtt: mqtt.listen.map(secure_mqtt).transpose()?, http: http.listen.map(secure_http).transpose()? })
    }

    /// The certificates of all TLS listeners.
    pub fn all(&self) -> Vec<Arc<TlsEndpoint>> {
        [&self.mqtt, &self.http].into_iter().flatten().map(|(_, endpoint)| endpoint.clone()).collect()
    }
}

/// Loads certificates again while weir runs: when their files change, and when a reload names other files.
#[derive(Clone)]
pub struct Renewal {
    pub certificates: Certificates,
    /// Ends the connections of clients whose certificate was revoked.
    pub admission: AdmissionControl,
}

impl Renewal {
    /// Loads the files again when they change, until `cancel`.
    pub async fn watch(self, cancel: CancellationToken) {
        if self.certificates.all().is_empty() {
            return;
        }
        while cancel.run_until_cancelled(tokio::time::sleep(WATCH_INTERVAL)).await.is_some() {
            let renewal = self.clone();
            if tokio::task::spawn_blocking(move || renewal.load_changed()).await.is_err() {
                tracing::error!("the check of the certificates panicked; please report this defect");
            }
        }
    }

    fn load_changed(&self) {
        let changed = self.certificates.all().iter().filter(|endpoint| endpoint.watch()).count();
        if changed > 0 {
            self.end_revoked();
        }
    }

    fn end_revoked(&self) {
        if let Some((_, endpoint)) = &self.certificates.mqtt {
            // A reload and a check of the files may run at the same time. The loop ends when the revocation list that
            // was handed over is still the list in use.
            loop {
                let revoked = endpoint.revoked();
                self.admission.set_revoked(revoked.clone());
                if endpoint.revoked() == revoked {
                    break;
                }
            }
        }
    }
}

impl Reloadable for Renewal {
    fn prepare(&self, config: &Config) -> Result<Apply, Vec<String>> {
        let Certificates { mqtt, http } = &self.certificates;
        let (mut ready, mut faults) = (Vec::new(), Vec::new());
        let sections = [("mqtt.tls", mqtt, &config.mqtt.tls.files), ("http.tls", http, &config.http.tls.files)];
        for (section, secure, files) in sections {
            let Some((_, endpoint)) = secure else { continue };
            match endpoint.prepare(files) {
                Ok(prepared) => ready.push((endpoint.clone(), prepared)),
                Err(error) => faults.push(format!("{section}: {error}")),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let renewal = self.clone();
        Ok(Box::new(move || {
            ready.into_iter().for_each(|(endpoint, prepared)| endpoint.replace(prepared));
            renewal.end_revoked();
        }))
    }
}
