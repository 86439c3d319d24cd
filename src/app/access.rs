//! Who may connect: the files are read at start, and by `weir check`.

use std::net::SocketAddr;
use std::sync::Arc;

use weir::access::{Access, Policy};
use weir::config::{Config, ConfigErrors};
use weir::tls::Findings;

/// Reads what the configuration names, and says what a person should look at.
pub fn load(config: &Config) -> Result<Arc<Access>, ConfigErrors> {
    let policy = Policy::load(config)?;
    for warning in policy.warnings.iter().cloned().chain(open_listeners(config)) {
        tracing::warn!("{warning}");
    }
    Ok(Arc::new(Access::new(policy)))
}

/// Reads them again, for a running weir.
///
/// # Errors
/// Everything that is wrong with them, or that anybody could come in who may not: the listeners stay as they are, whatever
/// the configuration says of them now.
pub fn prepare(config: &Config) -> Result<Policy, Vec<String>> {
    let policy = Policy::load(config)
        .map_err(|ConfigErrors(faults)| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let open = open_listeners(config);
    if open.is_some() && config.mqtt.allow_anonymous != Some(true) {
        let wrong = "mqtt.allow_anonymous: with these settings anybody could connect through a listener that other \
                     machines reach; expected mqtt.auth.users, or allow_anonymous = true or false, or a restart with other \
                     listeners";
        return Err(vec![wrong.into()]);
    }
    for warning in policy.warnings.iter().cloned().chain(open) {
        tracing::warn!("{warning}");
    }
    Ok(policy)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is listened on changes only with a restart, so a file that is right for other listeners may be wrong for
    /// these.
    #[test]
    fn a_reload_lets_nobody_in_by_accident() {
        let check = |listen: &str, allow_anonymous, expected: bool| {
            let mut config = Config::default();
            config.mqtt.listen = listen.parse().expect("an address");
            config.mqtt.allow_anonymous = allow_anonymous;
            let prepared = prepare(&config);
            assert_eq!(prepared.is_ok(), expected, "{listen} {allow_anonymous:?}: {prepared:?}");
        };
        check("127.0.0.1:1883", None, true);
        check("192.0.2.1:1883", None, false);
        check("192.0.2.1:1883", Some(true), true);
        check("192.0.2.1:1883", Some(false), true);
    }
}
