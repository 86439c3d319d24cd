//! Access to the HTTP API: which requests are served, and when open streams end.
//!
//! Reading the token from a request and answering a refusal is the work of `http`.

mod policy;
mod refusal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::tokens::TokenRole;
use crate::clock::Clock;

pub use policy::{Caller, HttpPolicy};
pub use refusal::HttpRefusal;

/// Longest time between two comparisons of a token's expiry with the clock. Somebody may set the clock in between.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// What `/api/v1/status` shows of the access to the HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct HttpAccessStatus {
    /// Whether requests need a token.
    pub token_required: bool,
    /// Number of tokens in the file; `null`: no file is configured.
    pub tokens: Option<usize>,
    /// Whether `/metrics` and `/metrics/devices` need a token.
    pub metrics_token_required: bool,
}

/// The access policy in use, shared by all requests.
pub struct HttpAccess {
    policy: watch::Sender<Arc<HttpPolicy>>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for HttpAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAccess").finish_non_exhaustive()
    }
}

impl HttpAccess {
    /// Starts with `policy`.
    pub fn new(policy: HttpPolicy, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { policy: watch::Sender::new(Arc::new(policy)), clock })
    }

    /// Uses `policy` from now on. Open streams end if it does not allow them, see [`HttpAccess::ended`].
    pub fn replace(&self, policy: HttpPolicy) {
        self.policy.send_replace(Arc::new(policy));
    }

    /// The policy in use.
    pub fn policy(&self) -> Arc<HttpPolicy> {
        self.policy.borrow().clone()
    }

    /// Decides about a request by the policy in use and the current time, see [`HttpPolicy::judge`].
    ///
    /// # Errors
    /// The token is missing, unknown or expired, or its role does not allow the request.
    pub fn judge(&self, secret: Option<&str>, needed: TokenRole) -> Result<Caller, HttpRefusal> {
        self.policy().judge(secret, needed, self.clock.now_ms())
    }

    /// The access to the HTTP API, for the status page.
    pub fn status(&self) -> HttpAccessStatus {
        let policy = self.policy();
        HttpAccessStatus {
            token_required: !policy.anonymous,
            tokens: policy.tokens.as_ref().map(|list| list.tokens().len()),
            metrics_token_required: !policy.anonymous && !policy.open_metrics,
        }
    }

    /// Completes when `caller` may no longer send requests that need the role `needed`: its token was removed, lost the role
    /// or expired, or requests without a token are no longer allowed. For streams that stay open after their request.
    pub async fn ended(self: Arc<Self>, caller: Caller, needed: TokenRole) {
        let mut policies = self.policy.subscribe();
        loop {
            let now_ms = self.clock.now_ms();
            if !policies.borrow_and_update().still_allows(&caller, needed, now_ms) {
                return;
            }
            let expires_ms = caller.token.as_ref().and_then(|token| token.expires_ms);
            let left = expires_ms.map(|ms| Duration::from_millis(ms.saturating_sub(now_ms).max(0).unsigned_abs()));
            tokio::select! {
                changed = policies.changed() => if changed.is_err() { return },
                () = sleep(left) => {}
            }
        }
    }
}

/// Sleeps until the policy should be asked again; for ever without a time of expiry.
async fn sleep(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left.min(LONGEST_SLEEP)).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
