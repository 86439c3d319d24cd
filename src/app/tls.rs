//! The certificates of the listeners: loaded at start and whenever their files change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use weir::clock::Clock;
use weir::config::Config;
use weir::mqtt::AdmissionControl;
use weir::tls::{TlsEndpoint, TlsError};

use super::reload::{Apply, Reloadable};

/// Between two looks at the files. They are read again once two looks in a row found the same change.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);
/// HTTPS connections that are not yet open; HTTP has few clients.
const MAX_HTTP_HANDSHAKES: usize = 128;

/// A listener that is on, with its certificate.
type SecureListener = Option<(SocketAddr, Arc<TlsEndpoint>)>;

/// The certificates in use.
#[derive(Clone)]
pub struct Certificates {
    pub mqtt: SecureListener,
    pub http: SecureListener,
}

impl Certificates {
    /// Loads those of the listeners that are on.
    pub fn load(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, TlsError> {
        let load =
            |name, files, protocols, handshakes| TlsEndpoint::load(name, files, protocols, handshakes, clock.clone());
        let (mqtt, http) = (&config.mqtt.tls, &config.http.tls);
        // Devices name protocols of their own or none: all are taken.
        let secure_mqtt = |address| Ok((address, load("mqtt", &mqtt.files, &[], mqtt.max_handshakes)?));
        let secure_http = |address| Ok((address, load("http", &http.files, &[b"http/1.1"], MAX_HTTP_HANDSHAKES)?));
        Ok(Self { mqtt: mqtt.listen.map(secure_mqtt).transpose()?, http: http.listen.map(secure_http).transpose()? })
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<TlsEndpoint>> {
        [&self.mqtt, &self.http].into_iter().flatten().map(|(_, endpoint)| endpoint.clone()).collect()
    }
}

/// Takes the files of another configuration, and those that changed, while weir runs.
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
            if tokio::task::spawn_blocking(move || renewal.look()).await.is_err() {
                tracing::error!("looking at the certificates panicked; please report this defect");
            }
        }
    }

    fn look(&self) {
        let changed = self.certificates.all().iter().filter(|endpoint| endpoint.watch()).count();
        if changed > 0 {
            self.end_revoked();
        }
    }

    fn end_revoked(&self) {
        if let Some((_, endpoint)) = &self.certificates.mqtt {
            // A reload and a look at the files may cross: what is in use last counts.
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
