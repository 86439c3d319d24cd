//! Users, roles and client certificates of MQTT: loaded at start and on every reload.

use std::sync::Arc;

use weir::access::{Access, Policy};
use weir::config::{Config, ConfigErrors};
use weir::mqtt::AdmissionControl;

use super::reloadable::{Apply, Reloadable};

/// Loads the files that the configuration names, and logs warnings about them.
///
/// # Errors
/// All faults of the files.
pub fn load(config: &Config) -> Result<Arc<Access>, ConfigErrors> {
    let policy = Policy::load(config)?;
    for warning in policy.warnings.iter().cloned().chain(open_listeners(config)) {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(Access::new(policy)))
}

/// Replaces the access policy of the MQTT listeners while weir runs.
pub struct ReloadableAccess(pub AdmissionControl);

impl Reloadable for ReloadableAccess {
    fn prepare(&self, config: &Config) -> Result<Apply, Vec<String>> {
        stays_closed(config)?;
        let policy =
            Policy::load(config).map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let warnings: Vec<_> = policy.warnings.iter().cloned().chain(open_listeners(config)).collect();
        let admission = self.0.clone();
        Ok(Box::new(move || {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            admission.set_policy(policy);
        }))
    }
}

/// Refuses a configuration that would open the bound listeners to clients without credentials by accident. A reload
/// does not move listeners, so the check of the configuration by itself is not enough.
fn stays_closed(config: &Config) -> Result<(), Vec<String>> {
    if config.mqtt.allow_anonymous.is_none() && open_listeners(config).is_some() {
        let wrong = "clients would need no credentials on listeners that other machines reach; expected mqtt.auth.users, \
                     client certificates, or mqtt.allow_anonymous = true or false";
        return Err(vec![wrong.to_owned()]);
    }
    Ok(())
}

/// The warning that MQTT listeners which other machines reach ask for no credentials; `None` when there are none.
pub fn open_listeners(config: &Config) -> Option<String> {
    let reached = config.listeners().filter(|(_, address)| !address.ip().is_loopback());
    let way_in = |(key, _): (&str, _)| if key.starts_with("http") { format!("{key} (/mqtt)") } else { key.to_owned() };
    let open: Vec<String> = reached.map(way_in).collect();
    (config.mqtt.allows_anonymous() && !open.is_empty()).then(|| {
        let listeners = open.join(", ");
        format!("mqtt.allow_anonymous = true: whoever reaches {listeners} may connect to MQTT without credentials")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Listeners change only with a restart, so a configuration that is right for other listeners may be wrong for
    /// these.
    #[test]
    fn a_reload_lets_nobody_in_by_accident() {
        let check = |listen: &str, allow_anonymous, expected: bool| {
            let mut config = Config::default();
            config.mqtt.listen = listen.parse().expect("an address");
            config.mqtt.allow_anonymous = allow_anonymous;
            assert_eq!(stays_closed(&config).is_ok(), expected, "{listen} {allow_anonymous:?}");
        };
        check("127.0.0.1:1883", None, true);
        check("192.0.2.1:1883", None, false);
        check("192.0.2.1:1883", Some(true), true);
        check("192.0.2.1:1883", Some(false), true);
    }
}
