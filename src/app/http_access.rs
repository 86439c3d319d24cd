//! The tokens of the HTTP API: loaded at start, and again on SIGHUP.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use weir::access::http_access::{HttpAccess, HttpPolicy};
use weir::access::tokens::TokensError;
use weir::clock::Clock;
use weir::config::{Config, Http};
use weir::telemetry::audit::{self, Kind, Who};
use weir::tls::Findings;

/// Loads what is asked of requests, and says what should be looked at.
pub fn load(config: &Http, clock: &Arc<dyn Clock>) -> Result<Arc<HttpAccess>, TokensError> {
    let policy = HttpPolicy::load(config)?;
    for warning in policy.warnings(config) {
        tracing::warn!("{warning}");
    }
    Ok(HttpAccess::new(policy, clock.clone()))
}

/// Adds what `weir check` finds.
pub fn check(config: &Http, findings: &mut Findings) {
    match HttpPolicy::load(config) {
        Ok(policy) => findings.warnings.extend(policy.warnings(config)),
        Err(TokensError(faults)) => {
            findings.faults.extend(faults.into_iter().map(|fault| format!("http.auth.tokens: {fault}")));
        }
    }
}

/// Loads the tokens file again on each of `hangups`, until `cancel`.
pub async fn watch(access: Arc<HttpAccess>, config: Arc<Config>, mut hangups: Signal, cancel: CancellationToken) {
    let Some(path) = config.http.auth.tokens.clone() else { return };
    let file = path.display().to_string();
    while let Some(Some(())) = cancel.run_until_cancelled(hangups.recv()).await {
        let config = config.clone();
        match tokio::task::spawn_blocking(move || HttpPolicy::load(&config.http)).await {
            Ok(Ok(policy)) => {
                access.replace(policy);
                audit::record(Kind::Reloaded, &Who::default(), &file, "");
            }
            Ok(Err(error)) => {
                tracing::error!("http.auth.tokens: {error}; the tokens loaded before stay in use");
                audit::record(Kind::ReloadRefused, &Who::default(), &file, &error.to_string());
            }
            Err(_) => tracing::error!("reading the tokens file panicked; please report this defect"),
        }
    }
}
