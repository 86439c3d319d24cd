//! Tokens of the HTTP API: loaded at start and on every reload.

use std::sync::Arc;

use weir::access::http_access::{HttpAccess, HttpPolicy};
use weir::access::tokens::TokensError;
use weir::clock::Clock;
use weir::config::{Config, HttpConfig};

use super::reloadable::{Apply, Reloadable};

/// Loads the tokens, and logs warnings about them.
///
/// # Errors
/// [`TokensError`] when the tokens file cannot be read or holds faults.
pub fn load(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<HttpAccess>, TokensError> {
    let policy = policy(config)?;
    warn(&policy, &config.http);
    Ok(HttpAccess::new(policy, clock.clone()))
}

/// The access policy of a configuration.
///
/// # Errors
/// [`TokensError`] when the tokens file cannot be read or holds faults.
pub fn policy(config: &Config) -> Result<HttpPolicy, TokensError> {
    Ok(HttpPolicy::load(&config.http)?.with_mqtt_credentials(!config.mqtt.allows_anonymous()))
}

fn warn(policy: &HttpPolicy, config: &HttpConfig) {
    for warning in policy.warnings(config) {
        tracing::warn!("{warning}");
    }
}

/// The faults of the tokens file, each with its key.
pub fn faults(TokensError(faults): TokensError) -> impl Iterator<Item = String> {
    faults.into_iter().map(|fault| format!("http.auth.tokens: {fault}"))
}

impl Reloadable for Arc<HttpAccess> {
    fn prepare(&self, config: &Config) -> Result<Apply, Vec<String>> {
        // The new configuration may move the listener to loopback, which takes a restart, and drop the tokens, which
        // would take effect at once: the listener that is bound would be open.
        let open = config.http.open_by_accident().map(|(key, address)| {
            format!(
                "{key}: other machines reach {address} until a restart, and requests would need no token; restart weir"
            )
        });
        let open: Vec<String> = open.collect();
        if !open.is_empty() {
            return Err(open);
        }
        let policy = policy(config).map_err(|error| faults(error).collect::<Vec<_>>())?;
        let (access, config) = (self.clone(), config.http.clone());
        Ok(Box::new(move || {
            warn(&policy, &config);
            access.replace(policy);
        }))
    }
}

#[cfg(test)]
mod tests {
    use weir::clock::SystemClock;

    use super::*;

    #[test]
    fn a_reload_does_not_open_a_listener_that_a_restart_would_close() {
        let access = HttpAccess::new(HttpPolicy::default(), Arc::new(SystemClock));
        let mut config = Config::default();
        let prepare = |config: &Config| access.prepare(config).map(|apply| apply()).map_err(|faults| faults.join("\n"));
        assert_eq!(prepare(&config), Ok(()));
        assert!(!access.status().token_required);
        config.http.listen = "0.0.0.0:8080".parse().expect("an address");
        let refused = prepare(&config).expect_err("nobody said that it may be open");
        assert!(refused.contains("http.listen: other machines reach 0.0.0.0:8080 until a restart"), "{refused}");
        config.http.allow_anonymous = Some(true);
        assert_eq!(prepare(&config), Ok(()));
        let directory = tempfile::tempdir().expect("a temporary directory");
        config.http.auth.tokens = Some(directory.path().join("tokens"));
        let refused = prepare(&config).expect_err("there is no file");
        assert!(refused.starts_with("http.auth.tokens: cannot open "), "{refused}");
    }
}
