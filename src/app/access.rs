//! Who may connect: the files are read at start, and by `weir check`.

use std::net::SocketAddr;
use std::sync::Arc;

use weir::access::{Access, Policy};
use weir::config::{Config, ConfigErrors};
use weir::tls::Findings;

use super::reload::{Apply, Part};

/// Reads what the configuration names, and says what a person should look at.
pub fn load(config: &Config) -> Result<Arc<Access>, ConfigErrors> {
    let policy = Policy::load(config)?;
    for warning in policy.warnings.iter().cloned().chain(open_listeners(config)) {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(Access::new(policy)))
}

/// Takes the files of another configuration while weir runs.
pub struct Policies(pub Arc<Access>);

impl Part for Policies {
    fn prepare(&self, config: &Config) -> Result<Apply, Vec<String>> {
        // The listeners stay where they are, so the check of the file by itself is not enough.
        if config.mqtt.allow_anonymous.is_none() && open_listeners(config).is_some() {
            let wrong = "clients would need no credentials on listeners that other machines reach; expected mqtt.auth.users, \
                         client certificates, or mqtt.allow_anonymous = true or false";
            return Err(vec![wrong.to_owned()]);
        }
        let policy =
            Policy::load(config).map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let warnings: Vec<_> = policy.warnings.iter().cloned().chain(open_listeners(config)).collect();
        let access = Arc::clone(&self.0);
        Ok(Box::new(move || {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            access.replace(policy);
        }))
    }
}

/// `weir check`'s look at them.
pub fn check(config: &Config) -> Findings {
    let (faults, mut warnings) = match Policy::load(config) {
        Ok(policy) => (Vec::new(), policy.warnings),
        Err(ConfigErrors(faults)) => (faults.iter().map(ToString::to_string).collect(), Vec::new()),
    };
    warnings.extend(open_listeners(config));
    Findings { faults, warnings }
}

/// What is to be said where whoever reaches a listener is let in.
fn open_listeners(config: &Config) -> Option<String> {
    let listeners = [
        ("mqtt.listen", Some(config.mqtt.listen)),
        ("mqtt.tls.listen", config.mqtt.tls.listen),
        ("http.listen (/mqtt)", Some(config.http.listen)),
        ("http.tls.listen (/mqtt)", config.http.tls.listen),
    ];
    let reached = |address: &SocketAddr| !address.ip().is_loopback();
    let open: Vec<_> =
        listeners.iter().filter(|(_, at)| at.as_ref().is_some_and(reached)).map(|(key, _)| *key).collect();
    (config.mqtt.allows_anonymous() && !open.is_empty()).then(|| {
        let listeners = open.join(", ");
        format!("mqtt.allow_anonymous = true: whoever reaches {listeners} may connect to MQTT without credentials")
    })
}
